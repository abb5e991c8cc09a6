/** What real agents have said to each other (gossip-capture.ts) is read, and written again with the same bytes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode } from '@msgpack/msgpack';
import type { NodeState, PacketMessage, StreamMessage } from '../../src/gossip/types.ts';
import { bytesOfHost } from '../../src/net/gossip/wire/address.ts';
import type { Keyring } from '../../src/net/gossip/wire/keyring.ts';
import { labelHeader, labelOf } from '../../src/net/gossip/wire/label.ts';
import { lzwDecode, lzwEncode } from '../../src/net/gossip/wire/lzw.ts';
import { encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import { ValueScanner } from '../../src/net/gossip/wire/msgpack.ts';
import { type PacketRead, packPacket, readPacket } from '../../src/net/gossip/wire/packet.ts';
import { type EncryptVersion, NONCE_BYTES, type Seal, unseal } from '../../src/net/gossip/wire/seal.ts';
import { frameBound, StreamReader } from '../../src/net/gossip/wire/stream.ts';
import { packStream } from '../../src/net/gossip/wire/stream-writer.ts';
import { readRecordings } from './gossip-recordings.ts';

const RECORDINGS = readRecordings();

const LENGTH_NAME = Buffer.from('UserStateLen').toString('hex');
/** The codec of Serf 0.9 wrote signed fields that are positive as unsigned ones; both read both. */
const OLD_LENGTH = `${LENGTH_NAME}cd`;
const NEW_LENGTH = `${LENGTH_NAME}d1`;

/** The fields of a message as Go names them, from a codec that is not ours. */
function goFields(body: Uint8Array): Record<string, unknown> {
  return decode(new Uint8Array(body), { rawStrings: true }) as Record<string, unknown>;
}

/** The same fields of what we made of them; what Go leaves out, or has as nil, is left out. */
function fieldsOf(message: PacketMessage): Record<string, unknown> {
  const text = (words: string): Uint8Array => Uint8Array.from(Buffer.from(words));
  const source = (from: Extract<PacketMessage, { kind: 'ping' }>['source']): Record<string, unknown> =>
    from === null
      ? {}
      : {
          SourceAddr: bytesOfHost(from.address.host),
          SourcePort: from.address.port,
          SourceNode: text(from.node),
        };
  switch (message.kind) {
    case 'ping':
      return { SeqNo: message.seq, Node: text(message.node), ...source(message.source) };
    case 'indirectPing':
      return {
        SeqNo: message.seq,
        Node: text(message.node),
        Target: bytesOfHost(message.target.host),
        Port: message.target.port,
        Nack: message.nack,
        ...source(message.source),
      };
    case 'ack':
      return { SeqNo: message.seq, Payload: message.payload.length === 0 ? null : message.payload };
    case 'nack':
      return { SeqNo: message.seq };
    case 'suspect':
    case 'dead':
      return { Incarnation: message.incarnation, Node: text(message.node), From: text(message.from) };
    case 'alive':
      return {
        Incarnation: message.incarnation,
        Node: text(message.node),
        Addr: bytesOfHost(message.address.host),
        Port: message.address.port,
        Meta: message.meta,
        Vsn: Uint8Array.from(message.versions),
      };
    case 'user':
      return {};
  }
}

function nodeFields(node: NodeState): Record<string, unknown> {
  return {
    Name: Uint8Array.from(Buffer.from(node.node)),
    Addr: bytesOfHost(node.address.host),
    Port: node.address.port,
    Meta: node.meta,
    Incarnation: node.incarnation,
    State: ['alive', 'suspect', 'dead', 'left'].indexOf(node.state),
    Vsn: Uint8Array.from(node.versions),
  };
}

/** How the sender has sealed it: what we cannot know of it is only the nonce. */
function sealOf(sealed: Buffer, key: Buffer): Seal | null {
  if (key.length === 0) return null;
  return { key, version: sealed[0] as EncryptVersion, nonce: sealed.subarray(1, 1 + NONCE_BYTES) };
}

for (const { name, key, label, keyring, recorded } of RECORDINGS) {
  for (const [index, { from, kind, hex }] of recorded.entries()) {
    const bytes = Buffer.from(hex, 'hex');
    const what = `${name} ${index}: ${kind} of ${from}`;
    if (kind.startsWith('packet ')) {
      test(`${what} is read, and written again with the same bytes`, () => {
        const read = readPacket(bytes, { label, keyring });
        assert.ok(read.kind === 'messages' && read.refusedCount === 0, JSON.stringify(read));
        const header = labelHeader(label);
        const inner = bytes.subarray(header.length);
        const opened = key.length === 0 ? inner : unseal(inner, labelOf(header), keyring);
        assert.ok(typeof opened !== 'string');
        const crc = opened[0] === 12;
        const compress = opened[crc ? 5 : 0] === 9;
        const encoded = read.messages.map(encodeMessage);
        const again = packPacket(encoded, { label, seal: sealOf(inner, key), crc, compress });
        assert.equal(Buffer.from(again).toString('hex'), hex);
      });
      test(`${what} says what another codec reads in it`, () => {
        for (const message of (readPacket(bytes, { label, keyring }) as Extract<PacketRead, { kind: 'messages' }>)
          .messages) {
          if (message.kind !== 'user')
            assert.deepEqual(goFields(encodeMessage(message).subarray(1)), fieldsOf(message));
        }
      });
    } else {
      const isAnswer = kind.startsWith('answer ');
      test(`${what} is read, and written again with the same bytes`, () => {
        const message = readStream(bytes, { label, keyring, isAnswer, chunk: bytes.length });
        const header = isAnswer ? labelHeader('') : labelHeader(label);
        const seal = sealOf(bytes.subarray(header.length + 5), key);
        const plain = packStream(message, { label: '', isAnswer: true, seal: null, compress: false });
        const theirs = unwrapped(bytes.subarray(header.length), { label, keyring });
        const expected = Buffer.from(theirs.plain).toString('hex').replace(OLD_LENGTH, NEW_LENGTH);
        assert.equal(Buffer.from(plain).toString('hex'), expected);
        if (Buffer.from(theirs.plain).toString('hex') !== expected) return;
        if (theirs.lzw !== null) assert.deepEqual(lzwEncode(plain), theirs.lzw);
        // Upstream compresses all of its streams, also if they grow by that; we do not.
        const compress = theirs.lzw !== null && theirs.length < plain.length;
        const again = packStream(message, { label, isAnswer, seal, compress });
        if (compress || theirs.lzw === null) assert.equal(Buffer.from(again).toString('hex'), hex);
      });
      test(`${what} says what another codec reads in it`, () => {
        const message = readStream(bytes, { label, keyring, isAnswer, chunk: bytes.length });
        const plain = packStream(message, { label: '', isAnswer: true, seal: null, compress: false });
        if (message.kind === 'pushPull') {
          const { state } = message;
          let rest = plain.subarray(1);
          const next = (): Record<string, unknown> => {
            const value = goFields(rest.subarray(0, lengthOf(rest)));
            rest = rest.subarray(lengthOf(rest));
            return value;
          };
          assert.deepEqual(next(), {
            Nodes: state.nodes.length,
            UserStateLen: state.userState.length,
            Join: state.join,
          });
          for (const node of state.nodes) assert.deepEqual(next(), nodeFields(node));
          assert.deepEqual(Buffer.from(rest), Buffer.from(state.userState));
        }
      });
      test(`${what} is read in chunks of 1 and 7 bytes too`, () => {
        const whole = readStream(bytes, { label, keyring, isAnswer, chunk: bytes.length });
        for (const chunk of [1, 7]) assert.deepEqual(readStream(bytes, { label, keyring, isAnswer, chunk }), whole);
      });
    }
  }
}

function readStream(
  bytes: Uint8Array,
  options: { label: string; keyring: Keyring; isAnswer: boolean; chunk: number },
): StreamMessage {
  const reader = new StreamReader(options);
  for (let at = 0; at < bytes.length; at += options.chunk) {
    const read = reader.push(bytes.subarray(at, at + options.chunk));
    if (at + options.chunk < bytes.length) assert.equal(read.kind, 'more');
  }
  const read = reader.end();
  assert.ok(read.kind === 'message' && read.refusedNodes === 0, JSON.stringify(read));
  return read.message;
}

/** The message itself, and what it was as LZW if it was. */
function unwrapped(
  bytes: Buffer,
  { label, keyring }: { label: string; keyring: Keyring },
): { readonly plain: Uint8Array; readonly lzw: Uint8Array | null; readonly length: number } {
  const bound = frameBound(bytes.length - 5, labelHeader(label));
  const opened = bytes[0] === 10 ? unseal(bytes.subarray(5), bound, keyring) : bytes;
  assert.ok(typeof opened !== 'string');
  if (opened[0] !== 9) return { plain: opened, lzw: null, length: opened.length };
  const lzw = Uint8Array.from(goFields(opened.subarray(1)).Buf as Uint8Array);
  const plain = lzwDecode(lzw, 1_000_000);
  assert.ok(typeof plain !== 'string');
  return { plain, lzw, length: opened.length };
}

function lengthOf(bytes: Uint8Array): number {
  const length = new ValueScanner().scan(bytes);
  assert.ok(typeof length === 'number');
  return length;
}

test('the recordings have every message, wrapper and form that there is', () => {
  const kinds = new Set(RECORDINGS.flatMap(({ recorded }) => recorded.flatMap(({ kind }) => kind.split(' '))));
  for (const kind of ['ping', 'indirectPing', 'ack', 'nack', 'suspect', 'alive', 'dead', 'user', 'pushPull']) {
    assert.ok(kinds.has(kind), kind);
  }
});

test('an IPv4 address in 16 bytes, of an agent that is bound to all, is another than in 4', () => {
  const recording = RECORDINGS.find(({ name }) => name === 'serf-bound-to-all');
  const ping = recording?.recorded.find(({ kind }) => kind === 'packet ping');
  assert.ok(recording !== undefined && ping !== undefined);
  const read = readPacket(Buffer.from(ping.hex, 'hex'), recording);
  assert.ok(read.kind === 'messages' && read.messages[0]?.kind === 'ping');
  assert.equal(read.messages[0].source?.address.host, '::ffff:10.9.8.7');
});
