/** Bytes that no node of this cluster has sent: all are refused by name, none throws, and none costs more than its caps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FIELD_CAPS, PACKET_CAPS, STREAM_CAPS, type StreamCaps } from '../../src/net/gossip/wire/limits.ts';
import { lzwDecode, lzwEncode } from '../../src/net/gossip/wire/lzw.ts';
import { encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import { MsgpackWriter } from '../../src/net/gossip/wire/msgpack.ts';
import { type PacketRead, packPacket, readPacket } from '../../src/net/gossip/wire/packet.ts';
import { type StreamRead, StreamReader } from '../../src/net/gossip/wire/stream.ts';
import { packStream } from '../../src/net/gossip/wire/stream-writer.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';
import { readRecordings, ringOf } from './gossip-recordings.ts';

const KEY = new Uint8Array(32).fill(7);
const NONCE = new Uint8Array(12).fill(9);
const PING = encodeMessage({ kind: 'ping', seq: 1, node: 'a', source: null });
const NACK = encodeMessage({ kind: 'nack', seq: 1 });
const PLAIN = { label: '', keyring: ringOf() };
const SEALED = { label: 'blue', keyring: ringOf(KEY) };
const RECORDINGS = readRecordings();
const PACKETS = RECORDINGS.flatMap(({ name, label, keyring, recorded }) =>
  recorded
    .filter(({ kind }) => kind.startsWith('packet'))
    .map(({ hex }) => ({ name, reader: { label, keyring }, bytes: Buffer.from(hex, 'hex') })),
);
const STREAMS = RECORDINGS.flatMap(({ name, label, keyring, recorded }) =>
  recorded
    .filter(({ kind }) => !kind.startsWith('packet'))
    .map(({ hex, kind }) => ({
      name,
      options: { label, keyring, isAnswer: kind.startsWith('answer') },
      bytes: Buffer.from(hex, 'hex'),
    })),
);

function refusalOf(read: PacketRead | StreamRead): string {
  return read.kind === 'refused' ? read.refusal : read.kind;
}

function refusedOf(read: PacketRead): readonly [messages: number, refused: number, refusal: string | null] {
  assert.ok(read.kind === 'messages');
  return [read.messages.length, read.refusedCount, read.refusal];
}

function compound(...parts: readonly Uint8Array[]): Buffer {
  const lengths = Buffer.alloc(parts.length * 2);
  for (const [i, part] of parts.entries()) lengths.writeUInt16BE(part.length, i * 2);
  return Buffer.concat([Buffer.from([7, parts.length]), lengths, ...parts]);
}

function compress(bytes: Uint8Array): Buffer {
  const struct = new MsgpackWriter().map(2).string('Algo').uint(0).string('Buf').bytes(lzwEncode(bytes));
  return Buffer.concat([Buffer.from([9]), struct.toBytes()]);
}

test('[G6] 100,000 packets of another key, of none, of another label or none are each refused for that', () => {
  const wrap = (label: string, key: Uint8Array | null): Uint8Array => {
    const seal = key === null ? null : ({ key, version: 1, nonce: NONCE } as const);
    return packPacket([PING, NACK], { label, seal, crc: false, compress: false });
  };
  const seen: Record<string, number> = {};
  const packets = [
    wrap('blue', new Uint8Array(32).fill(8)),
    wrap('blue', null),
    wrap('red', KEY),
    wrap('', KEY),
    wrap('', null),
  ];
  for (let i = 0; i < 100_000; i++) {
    const refusal = refusalOf(readPacket(packets[i % packets.length] as Uint8Array, SEALED));
    seen[refusal] = (seen[refusal] ?? 0) + 1;
  }
  // A compound message in plain words starts like no version of the encryption.
  assert.deepEqual(seen, { noKey: 20_000, notEncrypted: 20_000, otherLabel: 60_000 });
  assert.equal(refusalOf(readPacket(wrap('blue', KEY), SEALED)), 'messages');
});

test('[G6] a label is bound to what is encrypted: under another label the right key does not open it', () => {
  const seal = { key: KEY, version: 1, nonce: NONCE } as const;
  const packet = packPacket([PING], { label: 'blue', seal, crc: false, compress: false });
  const relabelled = Buffer.concat([Buffer.from([244, 4]), Buffer.from('pink'), packet.subarray(6)]);
  assert.equal(refusalOf(readPacket(relabelled, { label: 'pink', keyring: ringOf(KEY) })), 'noKey');
  assert.equal(refusalOf(readPacket(packet.subarray(6), { label: '', keyring: ringOf(KEY) })), 'noKey');
});

test('[G6] a sealed packet that is shorter than its own wrapping is refused before any key is tried', () => {
  for (const version of [0, 1]) {
    for (const length of [1, 12, 13, 28]) {
      const packet = Buffer.concat([Buffer.from([version]), Buffer.alloc(length - 1)]);
      assert.equal(refusalOf(readPacket(packet, { label: '', keyring: ringOf(KEY) })), 'truncated');
    }
  }
});

test('[G6] any key of the ring opens a packet, and after its removal none does', () => {
  const [first, second] = [new Uint8Array(16).fill(1), new Uint8Array(24).fill(2)];
  const keyring = ringOf(first, second, KEY);
  for (const key of [first, second, KEY]) {
    for (const version of [0, 1] as const) {
      const packet = packPacket([PING], { label: '', seal: { key, version, nonce: NONCE }, crc: true, compress: true });
      assert.equal(refusalOf(readPacket(packet, { label: '', keyring })), 'messages');
    }
  }
  const packet = packPacket([PING], {
    label: '',
    seal: { key: second, version: 1, nonce: NONCE },
    crc: false,
    compress: false,
  });
  assert.equal(keyring.remove(second), null);
  assert.equal(refusalOf(readPacket(packet, { label: '', keyring })), 'noKey');
});

for (const [what, bytes, refusal] of [
  ['nothing', Buffer.alloc(0), 'empty'],
  ['more than UDP carries', Buffer.concat([Buffer.from([8]), Buffer.alloc(PACKET_CAPS.packetBytesMax)]), 'tooLarge'],
  ['a type from the future', Buffer.from([14, 1, 2]), 'unknownType'],
  ['a stream of states', Buffer.from([6, 0x80]), 'unknownType'],
  ['a label where none is', Buffer.concat([Buffer.from([244, 1, 65]), PING]), 'otherLabel'],
  ['an empty label', Buffer.concat([Buffer.from([244, 0]), PING]), 'otherLabel'],
  ['a wrong checksum', Buffer.concat([Buffer.from([12, 0, 0, 0, 1]), PING]), 'checksum'],
  ['a checksum cut off', Buffer.from([12, 0, 0]), 'unknownType'],
  ['a checksum of nothing', Buffer.from([12, 0, 0, 0, 0]), 'empty'],
  ['a checksum in a checksum', Buffer.from([12, 0xd4, 0x90, 0x91, 0xa9, 12, 0, 0, 0, 0]), 'checksum'],
  ['a compound message without its count', Buffer.from([7]), 'truncated'],
  ['a compound message of none', Buffer.from([7, 0]), 'empty'],
  ['255 parts and no lengths', Buffer.from([7, 255, 0, 1]), 'truncated'],
  ['parts longer than the packet', Buffer.from([7, 2, 0xff, 0xff, 0xff, 0xff, 0]), 'truncated'],
  [
    'an unknown compression',
    Buffer.concat([Buffer.from([9]), Buffer.from('82a4416c676f01a3427566a100', 'hex')]),
    'compression',
  ],
  ['LZW without an end', Buffer.concat([Buffer.from([9]), Buffer.from('81a3427566a200ff', 'hex')]), 'compression'],
  ['a compression of nothing', compress(new Uint8Array(0)), 'empty'],
  ['a ping that is an array', Buffer.from([0, 0x92, 1, 2]), 'malformed'],
  ['a ping that is nothing', Buffer.from([0]), 'truncated'],
  ['a ping with NaN for its number', Buffer.from('0081a55365714e6fcb7ff8000000000000', 'hex'), 'malformed'],
  ['a ping numbered -1', Buffer.from('0081a55365714e6fff', 'hex'), 'malformed'],
  ['a ping numbered 2^32', Buffer.from('0081a55365714e6fcf0000000100000000', 'hex'), 'malformed'],
  ['a map of 2^32-1 fields', Buffer.from('00dfffffffff', 'hex'), 'malformed'],
  ['a name of 4 GiB', Buffer.from('0081a44e6f6465dbffffffff61', 'hex'), 'tooLarge'],
  ['a name that is not UTF-8', Buffer.from('0081a44e6f6465a1ff', 'hex'), 'malformed'],
  ['a suspicion of nobody', Buffer.from('0380', 'hex'), 'malformed'],
  ['an alive without an address', Buffer.from('0481a44e6f6465a161', 'hex'), 'malformed'],
  ['an alive of nobody', Buffer.from('0482a441646472a401020304a4506f727401', 'hex'), 'malformed'],
  [
    'LZW with a code that is not there yet',
    Buffer.concat([Buffer.from([9]), Buffer.from('81a3427566a400590604', 'hex')]),
    'compression',
  ],
  ['an indirect ping to no address', Buffer.from('0181a44e6f6465a161', 'hex'), 'malformed'],
] as const) {
  test(`[G7] a packet with ${what} is refused: ${refusal}`, () => {
    assert.deepEqual(readPacket(bytes, PLAIN), { kind: 'refused', refusal });
  });
}

for (const [field, name, over] of [
  ['a name', 'Node', FIELD_CAPS.nameBytesMax],
  ['tags', 'Meta', FIELD_CAPS.metaBytesMax],
  ['versions', 'Vsn', FIELD_CAPS.versionsBytesMax],
  ['an address', 'Addr', 16],
] as const) {
  test(`[G7] ${field} of one byte too many refuses the message: ${over + 1}`, () => {
    const alive = new MsgpackWriter()
      .map(1)
      .string(name)
      .bytes(new Uint8Array(over + 1).fill(0x61))
      .toBytes();
    assert.equal(refusalOf(readPacket(Buffer.concat([Buffer.from([4]), alive]), PLAIN)), 'tooLarge');
  });
}

test('[G7] good parts of a compound message are read beside bad ones, which are counted', () => {
  const future = Buffer.from([99]);
  const read = readPacket(compound(PING, future, NACK, Buffer.alloc(0)), PLAIN);
  assert.ok(read.kind === 'messages');
  assert.deepEqual(
    read.messages.map(({ kind }) => kind),
    ['ping', 'nack'],
  );
  assert.equal(read.refusedCount, 2);
  assert.equal(read.refusal, 'unknownType');
  const whole = compound(PING, NACK, NACK);
  const cut = readPacket(whole.subarray(0, whole.length - NACK.length - 1), PLAIN);
  assert.ok(cut.kind === 'messages');
  assert.deepEqual([cut.messages.length, cut.refusedCount, cut.refusal], [1, 2, 'truncated']);
  // A user message has no end of its own: half of one would be taken for one.
  const half = compound(PING, Buffer.from('\u0008a message of a user')).subarray(0, -1);
  assert.deepEqual(refusedOf(readPacket(half, PLAIN)), [1, 1, 'truncated']);
});

test('[G7] compound messages in compound messages have 255 parts together', () => {
  const many = compound(...new Array<Uint8Array>(200).fill(NACK));
  const read = readPacket(compound(many, many, NACK), PLAIN);
  assert.ok(read.kind === 'messages');
  assert.deepEqual([read.messages.length, read.refusal], [201, 'tooLarge']);
  // Empty parts cost nothing but a count: 60 x 255 of them, and none is a message.
  const empties = compound(...new Array<Uint8Array>(255).fill(Buffer.alloc(0)));
  assert.equal(refusalOf(readPacket(compound(...new Array<Uint8Array>(60).fill(empties)), PLAIN)), 'tooLarge');
});

test('[G7] wrappers in wrappers are taken to a depth of four', () => {
  let bytes: Uint8Array = PING;
  for (let depth = 1; depth <= 8; depth++) {
    bytes = depth % 2 === 0 ? compress(bytes) : compound(bytes);
    const refusal = refusalOf(readPacket(bytes, PLAIN));
    assert.equal(refusal, depth <= PACKET_CAPS.nestingMax ? 'messages' : 'nesting', `depth ${depth}`);
  }
});

test('[G7] a packet that decompresses to more than its cap is refused, and its other parts cannot try again', () => {
  const within = compress(Buffer.concat([Buffer.from([8]), Buffer.alloc(PACKET_CAPS.decompressedBytesMax - 1)]));
  const bomb = compress(Buffer.concat([Buffer.from([8]), Buffer.alloc(PACKET_CAPS.decompressedBytesMax)]));
  assert.ok(bomb.length < 2_000, `${bomb.length} bytes`);
  assert.equal(refusalOf(readPacket(within, PLAIN)), 'messages');
  assert.equal(refusalOf(readPacket(bomb, PLAIN)), 'tooLarge');
  const small = compress(PING);
  const beside = readPacket(compound(bomb, small, NACK, within), PLAIN);
  assert.ok(beside.kind === 'messages');
  assert.deepEqual([beside.messages.length, beside.refusedCount], [1, 3]);
  const two = readPacket(compound(within, within), PLAIN);
  assert.ok(two.kind === 'messages');
  assert.deepEqual([two.messages.length, two.refusal], [1, 'tooLarge']);
});

test('[G7] decompression stops at its bound, whatever the bound', () => {
  const input = Buffer.alloc(100_000, 'abcabd');
  const packed = lzwEncode(input);
  for (const bound of [0, 1, 255, 256, 5_000, 99_999]) assert.equal(lzwDecode(packed, bound), 'tooLarge');
  assert.deepEqual(Buffer.from(lzwDecode(packed, 100_000) as Uint8Array), input);
});

test('what is read does not change with the buffer that it was read from', () => {
  for (const { reader, bytes } of PACKETS) {
    const buffer = Buffer.from(bytes);
    const before = readPacket(buffer, reader);
    const expected = structuredClone(before);
    buffer.fill(0);
    assert.deepEqual(before, expected);
  }
});

test('[G7] any bit of any recorded packet may flip: nothing throws, and what was encrypted is refused', () => {
  for (const { reader, bytes } of PACKETS) {
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      const read = readPacket(flipped, reader);
      if (reader.keyring.primary !== null || bytes[0] === 12) {
        // The type of a checksum is not under it: without it the packet is one of an unknown type, or a shorter message.
        if (bit >= 8) assert.equal(read.kind, 'refused', `bit ${bit}`);
      }
    }
  }
});

test('[G7] any recorded packet may end anywhere: nothing throws, and no message comes of it that was not there', () => {
  for (const { reader, bytes } of PACKETS) {
    const whole = readPacket(bytes, reader);
    assert.ok(whole.kind === 'messages');
    for (let end = 0; end < bytes.length; end++) {
      const read = readPacket(bytes.subarray(0, end), reader);
      if (read.kind !== 'messages') continue;
      assert.ok(read.messages.length <= whole.messages.length);
      for (const [i, message] of read.messages.entries()) {
        if (message.kind !== 'user') assert.deepEqual(message, whole.messages[i]);
      }
    }
  }
});

test('[G7] 60,000 packets of noise and of changed recordings: nothing throws, all within the caps', () => {
  const number = numbersFrom(20_261_126);
  for (let i = 0; i < 60_000; i++) {
    const { bytes, reader } = PACKETS[number(PACKETS.length)] as (typeof PACKETS)[number];
    const packet = i % 4 === 0 ? noiseOf(number(80), number) : mutate(bytes, number);
    const read = readPacket(packet, i % 3 === 0 ? PLAIN : reader);
    if (read.kind !== 'messages') continue;
    assert.ok(read.messages.length >= 1 && read.messages.length <= PACKET_CAPS.messagesMax);
    for (const message of read.messages) {
      if (message.kind === 'alive') assert.ok(message.meta.length <= FIELD_CAPS.metaBytesMax && message.node !== '');
      if (message.kind === 'user' || message.kind === 'ack') {
        assert.ok(message.payload.length <= PACKET_CAPS.decompressedBytesMax);
      }
      // What is let in can be passed on.
      assert.ok(encodeMessage(message).length > 0);
    }
  }
});

// Streams.

const SMALL_CAPS: StreamCaps = {
  nodesMax: 100,
  nodeBytesMax: 1_000,
  stateBytesMax: 20_000,
  userStateBytesMax: 20_000,
  userMessageBytesMax: 20_000,
  decompressedBytesMax: 40_000,
};
/** What a reader may hold beside its largest part: a piece of a chunk. */
const PIECE_BYTES = 64 * 1024 + 4;

function stream(bytes: Uint8Array, { chunk = 1_000_000, sealed = false, caps = STREAM_CAPS } = {}): StreamRead {
  const reader = new StreamReader({ ...(sealed ? SEALED : PLAIN), isAnswer: false, caps });
  for (let at = 0; at < bytes.length; at += chunk) reader.push(bytes.subarray(at, at + chunk));
  return reader.end();
}

function header(fields: Readonly<Record<string, number>>): Uint8Array {
  const writer = new MsgpackWriter().map(Object.keys(fields).length);
  for (const [name, value] of Object.entries(fields)) writer.string(name).int(value);
  return writer.toBytes();
}

const typed = (type: number, ...parts: readonly Uint8Array[]): Buffer => Buffer.concat([Buffer.from([type]), ...parts]);
const BOMB = compress(typed(8, header({ UserMsgLen: 60_000 }), new Uint8Array(60_000)));

for (const [what, bytes, refusal] of [
  ['nothing', Buffer.alloc(0), 'empty'],
  ['a type from the future', typed(14), 'unknownType'],
  ['a packet message', typed(4, Buffer.from([0x80])), 'unknownType'],
  ['a label where none is', typed(244, Buffer.from([1, 65, 0, 0x80])), 'otherLabel'],
  ['encryption where nobody has a key', typed(10, Buffer.alloc(100)), 'encrypted'],
  ['2^31 nodes', typed(6, header({ Nodes: 2 ** 31, UserStateLen: 0 })), 'tooLarge'],
  ['-1 nodes', typed(6, header({ Nodes: -1, UserStateLen: 0 })), 'malformed'],
  ['one node too many', typed(6, header({ Nodes: 101 })), 'tooLarge'],
  ['nodes that do not come', typed(6, header({ Nodes: 100 })), 'truncated'],
  ['a state of 4 GiB', typed(6, header({ UserStateLen: 2 ** 32 - 1 })), 'tooLarge'],
  ['a state one byte too long', typed(6, header({ UserStateLen: 20_001 })), 'tooLarge'],
  ['a user message one byte too long', typed(8, header({ UserMsgLen: 20_001 })), 'tooLarge'],
  ['half a user message', typed(8, header({ UserMsgLen: 20_000 }), new Uint8Array(19_999)), 'truncated'],
  ['a node that never ends', typed(6, header({ Nodes: 1 }), Buffer.from('81a44d657461db7fffffff', 'hex')), 'tooLarge'],
  ['a node of endless lists', typed(6, header({ Nodes: 1 }), new Uint8Array(1_001).fill(0x91)), 'tooLarge'],
  ['a node that is no value', typed(6, header({ Nodes: 1 }), Buffer.from([0xc1])), 'malformed'],
  ['nodes beyond the state', typed(6, header({ Nodes: 100 }), ...Array(100).fill(nodeOf(500))), 'tooLarge'],
  ['a bomb', BOMB, 'tooLarge'],
  ['a compression in a compression', compress(compress(PING)), 'nesting'],
  ['encryption in a compression', compress(typed(10, Buffer.alloc(50))), 'nesting'],
  ['a header of 100 fields', typed(8, new MsgpackWriter().map(100).toBytes(), Buffer.alloc(300)), 'malformed'],
  ['an error without end', typed(13, Buffer.from('81a54572726f72db00010000', 'hex')), 'tooLarge'],
] as const) {
  test(`[G7] a stream with ${what} is refused: ${refusal}`, () => {
    for (const chunk of [1, 100, 1_000_000]) {
      assert.deepEqual(stream(bytes, { chunk, caps: SMALL_CAPS }), { kind: 'refused', refusal }, `chunks of ${chunk}`);
    }
  });
}

/** A node of so many bytes that nobody could use. */
function nodeOf(length: number): Uint8Array {
  return new MsgpackWriter().map(1).string('Later').bytes(new Uint8Array(length)).toBytes();
}

for (const [what, bytes, refusal] of [
  ['plain words', PING, 'otherLabel'],
  ['the label and plain words', Buffer.concat([Buffer.from([244, 4]), Buffer.from('blue'), PING]), 'notEncrypted'],
  ['the beginning of another label', Buffer.concat([Buffer.from([244, 4]), Buffer.from('bl-')]), 'otherLabel'],
  ['half of the label', Buffer.concat([Buffer.from([244, 4]), Buffer.from('bl')]), 'truncated'],
  [
    'a frame of 4 GiB',
    Buffer.concat([Buffer.from('f404', 'hex'), Buffer.from('blue'), Buffer.from('0affffffff', 'hex')]),
    'tooLarge',
  ],
  [
    'a frame too short',
    Buffer.concat([Buffer.from('f404', 'hex'), Buffer.from('blue'), Buffer.from('0a0000001c', 'hex')]),
    'malformed',
  ],
  [
    'noise in a frame',
    Buffer.concat([
      Buffer.from('f404', 'hex'),
      Buffer.from('blue'),
      Buffer.from('0a00000040', 'hex'),
      Buffer.alloc(64),
    ]),
    'noKey',
  ],
] as const) {
  test(`[G6] a stream with ${what} is refused by a cluster with label and key: ${refusal}`, () => {
    for (const chunk of [1, 1_000]) {
      assert.deepEqual(stream(bytes, { chunk, sealed: true }), { kind: 'refused', refusal }, `chunks of ${chunk}`);
    }
  });
}

test('[G7] unusable nodes are left out of a push/pull, and counted', () => {
  const state = {
    join: false,
    nodes: ['a', 'b'].map((node) => ({
      node,
      address: { host: '10.0.0.1', port: 7946 },
      meta: new Uint8Array(3),
      incarnation: 1,
      state: 'alive' as const,
      versions: [1, 5, 2, 2, 5, 5] as const,
    })),
    userState: new Uint8Array(5),
  };
  const wrapping = { label: '', isAnswer: false, seal: null, compress: false };
  const good = packStream({ kind: 'pushPull', state }, wrapping);
  assert.deepEqual(stream(good), { kind: 'message', message: { kind: 'pushPull', state }, refusedNodes: 0 });
  const long = state.nodes.map((node, i) => (i === 0 ? { ...node, node: 'a'.repeat(129) } : node));
  const read = stream(packStream({ kind: 'pushPull', state: { ...state, nodes: long } }, wrapping));
  assert.ok(read.kind === 'message' && read.message.kind === 'pushPull');
  assert.deepEqual([read.message.state.nodes.map(({ node }) => node), read.refusedNodes], [['b'], 1]);
  const odd = typed(6, header({ Nodes: 3 }), nodeOf(10), Buffer.from([0xc0, 0x05]));
  const oddly = stream(odd);
  assert.ok(oddly.kind === 'message');
  assert.equal(oddly.refusedNodes, 3);
});

test('[G7] a reader never holds more than its largest cap, whatever is claimed and however much comes', () => {
  const heads = [
    typed(6, header({ Nodes: 100, UserStateLen: 20_000 })),
    typed(6, header({ Nodes: 0, UserStateLen: 20_000 })),
    typed(8, header({ UserMsgLen: 20_000 })),
    typed(9, Buffer.from('81a3427566db00004e00', 'hex')),
    typed(9, Buffer.from('81a16edcffff', 'hex')),
    typed(0, Buffer.from('81a44e6f6465dbffffffff', 'hex')),
    typed(10, Buffer.from('00004e00', 'hex')),
  ];
  for (const head of heads) {
    for (const chunk of [1_000, 200_000]) {
      const reader = new StreamReader({
        label: '',
        keyring: head[0] === 10 ? ringOf(KEY) : ringOf(),
        isAnswer: false,
        caps: SMALL_CAPS,
      });
      reader.push(head);
      const noise = new Uint8Array(chunk).fill(1);
      for (let sent = 0; sent < 1_000_000; sent += chunk) {
        reader.push(noise);
        assert.ok(reader.heldBytes <= 65_536 + PIECE_BYTES, `${reader.heldBytes} bytes held`);
      }
      assert.notEqual(reader.end().kind, 'more');
      assert.equal(reader.heldBytes, 0);
    }
  }
});

test('[G7] a value that comes byte by byte is looked at once, and not again for each byte', () => {
  const bytes = Buffer.alloc(2_000_000, 1);
  // A compressed message with a list of so many numbers for an unknown field.
  Buffer.from('0982a16edd00200000', 'hex').copy(bytes);
  assert.equal(refusalOf(stream(bytes, { chunk: 1 })), 'truncated');
});

test('[G7] any bit of any recorded stream may flip, and it may end anywhere: nothing throws', () => {
  for (const { options, bytes } of STREAMS) {
    for (let bit = 0; bit < bytes.length * 8; bit += 3) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
      const reader = new StreamReader(options);
      reader.push(flipped);
      const read = reader.end();
      if (options.keyring.primary !== null) assert.equal(read.kind, 'refused');
    }
    for (let end = 0; end < bytes.length; end++) {
      const reader = new StreamReader(options);
      assert.equal(reader.push(bytes.subarray(0, end)).kind, 'more');
      assert.equal(refusalOf(reader.end()), end === 0 ? 'empty' : 'truncated');
    }
  }
});

test('[G7] 20,000 streams of noise and of changed recordings in chunks: nothing throws, chunks make no difference', () => {
  const number = numbersFrom(11_262_026);
  for (let i = 0; i < 20_000; i++) {
    const { bytes, options } = STREAMS[number(STREAMS.length)] as (typeof STREAMS)[number];
    const changed = i % 4 === 0 ? noiseOf(number(80), number) : mutate(bytes, number);
    const whole = new StreamReader(options);
    whole.push(changed);
    const chunked = new StreamReader(options);
    for (let at = 0; at < changed.length; ) {
      const length = 1 + number(200);
      chunked.push(changed.subarray(at, at + length));
      at += length;
    }
    assert.deepEqual(chunked.end(), whole.end());
  }
});
