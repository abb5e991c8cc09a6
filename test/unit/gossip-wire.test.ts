import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import type { PacketMessage } from '../../src/gossip/types.ts';
import { bytesOfHost, hostOfBytes } from '../../src/net/gossip/wire/address.ts';
import { lzwDecode, lzwEncode } from '../../src/net/gossip/wire/lzw.ts';
import { decodeMessage, encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import {
  COMPOUND_PART_BYTES,
  type PacketRead,
  type PacketWrapping,
  packetOverhead,
  packPacket,
  readPacket,
} from '../../src/net/gossip/wire/packet.ts';
import { NONCE_BYTES } from '../../src/net/gossip/wire/seal.ts';
import { numbersFrom } from '../support/fuzz.ts';
import { ringOf } from '../wire/gossip-recordings.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));
const KEY = new Uint8Array(32).fill(7);
const NONCE = new Uint8Array(NONCE_BYTES).fill(9);
const NO_WRAPPING: PacketWrapping = { label: '', seal: null, crc: false, compress: false };

function read(packet: Uint8Array, options: { readonly label?: string; readonly keys?: Uint8Array[] } = {}): PacketRead {
  return readPacket(packet, { label: options.label ?? '', keyring: ringOf(...(options.keys ?? [])) });
}

const SOURCE = { address: { host: '127.0.0.1', port: 7946 }, node: 'b' };
const MESSAGES: readonly PacketMessage[] = [
  { kind: 'ping', seq: 0, node: 'a', source: null },
  { kind: 'ping', seq: 0xffff_ffff, node: '', source: SOURCE },
  { kind: 'ping', seq: 1, node: 'a', source: { ...SOURCE, node: '' } },
  {
    kind: 'indirectPing',
    seq: 300,
    target: { host: 'fd00::1', port: 65_535 },
    node: 'é',
    nack: true,
    source: SOURCE,
  },
  { kind: 'indirectPing', seq: 3, target: { host: '::ffff:10.0.0.1', port: 1 }, node: 'c', nack: false, source: null },
  { kind: 'ack', seq: 70_000, payload: new Uint8Array(0) },
  { kind: 'ack', seq: 7, payload: new Uint8Array(300).fill(1) },
  { kind: 'nack', seq: 128 },
  { kind: 'suspect', incarnation: 5, node: 'a'.repeat(128), from: 'b' },
  { kind: 'dead', incarnation: 5, node: 'a', from: 'a' },
  {
    kind: 'alive',
    incarnation: 1,
    node: 'a',
    address: { host: '10.1.2.3', port: 7946 },
    meta: new Uint8Array(512).fill(0xff),
    versions: [1, 5, 2, 2, 5, 255],
  },
  { kind: 'user', payload: bytes('anything') },
];

for (const message of MESSAGES) {
  test(`a message is read as it was written: ${message.kind}, ${encodeMessage(message).length} bytes`, () => {
    const encoded = encodeMessage(message);
    assert.deepEqual(decodeMessage(encoded), message);
    assert.deepEqual(encodeMessage(decodeMessage(encoded) as PacketMessage), encoded);
  });
}

test('fields that are unknown are passed over, and missing ones are zero', () => {
  assert.deepEqual(decodeMessage(hex('00 80')), { kind: 'ping', seq: 0, node: '', source: null });
  const later = hex('00 83 a5 4c61746572 81 a1 61 92 01 c0 a5 5365714e6f 05 a4 4e6f6465 a1 61');
  assert.deepEqual(decodeMessage(later), { kind: 'ping', seq: 5, node: 'a', source: null });
  // The text of a name or slice may be of the later format's types too.
  assert.deepEqual(decodeMessage(hex('02 82 d905 5365714e6f 05 a7 5061796c6f6164 c402 0102')), {
    kind: 'ack',
    seq: 5,
    payload: Uint8Array.of(1, 2),
  });
});

test('addresses of IPv4 keep the form that they came in, and all others have one form', () => {
  const mapped = hex('00000000000000000000ffff 0a000001');
  assert.equal(hostOfBytes(hex('0a000001')), '10.0.0.1');
  assert.equal(hostOfBytes(mapped), '::ffff:10.0.0.1');
  assert.deepEqual(bytesOfHost('::ffff:10.0.0.1'), Uint8Array.from(mapped));
  for (const [words, form] of [
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0:0:1:0:0:0:1', 'fd00:0:0:1::1'],
    ['1:0:0:2:0:0:3:4', '1::2:0:0:3:4'],
    ['1:2:3:4:5:6:7:0', '1:2:3:4:5:6:7:0'],
    ['1:2:3:4:5:6:0:0', '1:2:3:4:5:6::'],
    ['64:ff9b::1.2.3.4', '64:ff9b::102:304'],
  ] as const) {
    assert.equal(hostOfBytes(bytesOfHost(words) as Uint8Array), form);
  }
  for (const words of [
    '',
    'a',
    'example.com',
    '1.2.3',
    '1.2.3.256',
    '01.2.3.4',
    '1:2',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    ':1',
    '::fffff',
    '1.2.3.4::',
    '::1%lo',
  ]) {
    assert.equal(bytesOfHost(words), null, words);
  }
  for (const length of [0, 3, 5, 15, 17]) assert.equal(hostOfBytes(new Uint8Array(length)), null);
});

test('a packet of each wrapping is read as it was written', () => {
  const encoded = MESSAGES.map(encodeMessage);
  for (const label of ['', 'blue', 'l'.repeat(255)]) {
    for (const key of [null, new Uint8Array(16).fill(1), new Uint8Array(24).fill(2), KEY]) {
      for (const version of [0, 1] as const) {
        for (const crc of [false, true]) {
          for (const compress of [false, true]) {
            for (const count of [1, encoded.length]) {
              const seal = key === null ? null : { key, version, nonce: NONCE };
              const packet = packPacket(encoded.slice(0, count), { label, seal, crc, compress });
              const result = read(packet, {
                label,
                keys: key === null ? [] : [key],
              });
              assert.deepEqual(result, {
                kind: 'messages',
                messages: MESSAGES.slice(0, count),
                refusedCount: 0,
                refusal: null,
              });
            }
          }
        }
      }
    }
  }
});

test('the overhead that is told for a packet is what it has at most', () => {
  const parts = [1, 2, 3].map((seq) => encodeMessage({ kind: 'nack', seq }));
  const bytesOfParts = parts.reduce((sum, part) => sum + part.length + COMPOUND_PART_BYTES, 0);
  for (const label of ['', 'blue']) {
    for (const crc of [false, true]) {
      for (const version of [null, 0, 1] as const) {
        const seal = version === null ? null : { key: KEY, version, nonce: NONCE };
        const wrapping = { label, crc, seal, compress: false };
        const packed = packPacket(parts, wrapping).length;
        const told = packetOverhead(wrapping) + bytesOfParts;
        assert.ok(packed <= told && packed >= told - (version === 0 ? 15 : 0), `${packed} of ${told}`);
      }
    }
  }
});

test('a packet is compressed only if that makes it smaller', () => {
  const small = encodeMessage({ kind: 'nack', seq: 1 });
  assert.deepEqual(packPacket([small], { ...NO_WRAPPING, compress: true }), small);
  const large = encodeMessage({ kind: 'user', payload: new Uint8Array(1_000) });
  assert.ok(packPacket([large], { ...NO_WRAPPING, compress: true }).length < 100);
});

/** What Go's compress/lzw (1.26) makes of so many bytes of `numbersFrom(length + mask)`: its length, and its hash. */
const LZW: readonly (readonly [length: number, mask: number, bytes: number, sha256: string])[] = [
  [0, 255, 3, 'ca175b7b97e4180f'],
  [1, 255, 4, '42e2d2cebda69663'],
  [3_838, 255, 5_251, '0897b237cade2277'],
  [3_839, 255, 5_239, '6ef30005e0dc8153'],
  [20_000, 255, 27_349, '2f1e84fdbee6d290'],
  [20_000, 1, 3_178, 'ac8cf11eb15db2cd'],
  [60_000, 15, 37_520, '13719d3847f30eeb'],
];

for (const [length, mask, size, sha256] of LZW) {
  test(`LZW of ${length} bytes of ${mask + 1} kinds is Go's, and is read again`, () => {
    const number = numbersFrom(length + mask);
    const input = Uint8Array.from({ length }, () => number(256) & mask);
    const packed = lzwEncode(input);
    const hash = createHash('sha256').update(packed).digest('hex').slice(0, 16);
    assert.deepEqual([packed.length, hash], [size, sha256]);
    assert.deepEqual(lzwDecode(packed, length), input);
  });
}

test('LZW with a full table that is not cleared is read as Go reads it', () => {
  // 256, then 5,000 zeros by codes that are always the newest one: far more than the table has.
  const codes = [256, 0, ...Array.from({ length: 5_000 }, (_, i) => Math.min(4_095, 258 + i)), 257];
  const bytes: number[] = [];
  let [bits, bitCount, width, high] = [0, 0, 9, 257];
  for (const code of codes) {
    bits |= code << bitCount;
    for (bitCount += width; bitCount >= 8; bitCount -= 8, bits >>>= 8) bytes.push(bits & 0xff);
    high = code === 256 ? 257 : Math.min(4_096, high + 1);
    if (high === 1 << width && width < 12) width += 1;
  }
  bytes.push(bits & 0xff);
  const plain = lzwDecode(Uint8Array.from(bytes), 100_000_000);
  assert.ok(typeof plain !== 'string');
  // 1 + 2 + ... + 3,839, and the last again for each code that follows.
  assert.equal(plain.length, 1 + ((2 + 3_839) * 3_838) / 2 + (5_000 - 3_838) * 3_839);
  assert.ok(plain.every((byte) => byte === 0));
});
