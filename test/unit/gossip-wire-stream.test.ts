import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { NodeState, StreamMessage } from '../../src/gossip/types.ts';
import { StreamReader } from '../../src/net/gossip/wire/stream.ts';
import { packStream } from '../../src/net/gossip/wire/stream-writer.ts';
import { ringOf } from '../wire/gossip-recordings.ts';

const byte = fc.integer({ min: 0, max: 255 });
const uint32 = fc.integer({ min: 0, max: 0xffff_ffff });
const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 });
const address = fc.record({
  host: fc.oneof(
    fc.ipV4(),
    fc.constantFrom('fd00::1', '::', '::ffff:10.0.0.1', '2001:db8::a:0:0:1', '1:2:3:4:5:6:7:8'),
  ),
  port: fc.integer({ min: 1, max: 65_535 }),
});
const node: fc.Arbitrary<NodeState> = fc.record({
  node: name,
  address,
  meta: fc.uint8Array({ maxLength: 512 }),
  incarnation: uint32,
  state: fc.constantFrom('alive', 'suspect', 'dead', 'left'),
  versions: fc.tuple(byte, byte, byte, byte, byte, byte),
});
const message: fc.Arbitrary<StreamMessage> = fc.oneof(
  fc.record({
    kind: fc.constant('pushPull' as const),
    state: fc.record({
      join: fc.boolean(),
      nodes: fc.array(node, { maxLength: 20 }),
      userState: fc.uint8Array({ maxLength: 2_000 }),
    }),
  }),
  fc.record({
    kind: fc.constant('ping' as const),
    seq: uint32,
    node: name,
    source: fc.option(fc.record({ address, node: name })),
  }),
  fc.record({ kind: fc.constant('ack' as const), seq: uint32, payload: fc.uint8Array({ maxLength: 300 }) }),
  fc.record({ kind: fc.constant('user' as const), payload: fc.uint8Array({ maxLength: 70_000, size: 'max' }) }),
  fc.record({ kind: fc.constant('error' as const), message: fc.string({ maxLength: 300 }) }),
);
const key = fc.constantFrom(null, new Uint8Array(16).fill(1), new Uint8Array(24).fill(2), new Uint8Array(32).fill(3));

test('a message of a stream is read as it was written: any, in any wrapping and any chunks', () => {
  fc.assert(
    fc.property(
      message,
      fc.record({
        label: fc.constantFrom('', 'blue'),
        isAnswer: fc.boolean(),
        key,
        version: fc.constantFrom(0 as const, 1 as const),
        compress: fc.boolean(),
      }),
      fc.integer({ min: 1, max: 80_000 }),
      (sent, { label, isAnswer, key, version, compress }, chunk) => {
        const seal = key === null ? null : { key, version, nonce: new Uint8Array(12).fill(5) };
        const bytes = packStream(sent, { label, isAnswer, seal, compress });
        const reader = new StreamReader({ label, keyring: key === null ? ringOf() : ringOf(key), isAnswer });
        for (let at = 0; at < bytes.length; at += chunk) reader.push(bytes.subarray(at, at + chunk));
        // A copy: the generator's objects have no prototype, or one.
        assert.deepEqual(reader.end(), { kind: 'message', message: structuredClone(sent), refusedNodes: 0 });
      },
    ),
    { numRuns: 300 },
  );
});

test('a message is there with its last byte, and what comes behind it is not looked at', () => {
  const bytes = packStream(
    { kind: 'ack', seq: 7, payload: new Uint8Array(2) },
    { label: '', isAnswer: true, seal: null, compress: false },
  );
  const reader = new StreamReader({ label: '', keyring: ringOf(), isAnswer: true });
  assert.equal(reader.push(bytes.subarray(0, -1)).kind, 'more');
  const read = reader.push(bytes.subarray(-1));
  assert.equal(read.kind, 'message');
  assert.equal(reader.push(new Uint8Array(1_000)), read);
  assert.equal(reader.end(), read);
  assert.equal(reader.heldBytes, 0);
});

test('a push/pull of 3,000 nodes is read in chunks without being held whole', () => {
  const nodes = Array.from(
    { length: 3_000 },
    (_, i): NodeState => ({
      node: `node-${i}`,
      address: { host: '10.0.0.1', port: 1 + i },
      meta: new Uint8Array(300).fill(i),
      incarnation: i,
      state: 'alive',
      versions: [1, 5, 2, 2, 5, 5],
    }),
  );
  const state = { join: true, nodes, userState: new Uint8Array(100_000).fill(1) };
  const bytes = packStream({ kind: 'pushPull', state }, { label: '', isAnswer: false, seal: null, compress: false });
  assert.ok(bytes.length > 1_000_000);
  const reader = new StreamReader({ label: '', keyring: ringOf(), isAnswer: false });
  let heldMax = 0;
  for (let at = 0; at < bytes.length; at += 1_460) {
    reader.push(bytes.subarray(at, at + 1_460));
    heldMax = Math.max(heldMax, reader.heldBytes);
  }
  assert.deepEqual(reader.end(), { kind: 'message', message: { kind: 'pushPull', state }, refusedNodes: 0 });
  assert.ok(heldMax < 250_000, `${heldMax} bytes held`);
});
