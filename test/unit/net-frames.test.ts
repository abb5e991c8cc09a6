import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { crc32 } from '../../src/base/checksum.ts';
import { bodyOf, FRAME_HEADER_BYTES, FrameReader, sealFrame } from '../../src/net/framing.ts';
import { VALUES_MAX } from '../../src/net/plain-msgpack.ts';
import { FrameCodec } from '../../src/net/raft-frames.ts';
import {
  chunkHead,
  decodeSnapshotFrame,
  endFrame,
  headerFrame,
  type SnapshotFrame,
} from '../../src/net/snapshot-frames.ts';
import { WireError, type WireErrorCode } from '../../src/net/wire-error.ts';
import { INDEX_MAX, type Message, type MessageType, makeMessage } from '../../src/raft/messages.ts';
import type { PeerFrame } from '../../src/replica/types.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';

const TYPES: Readonly<Record<MessageType, true>> = {
  append: true,
  'append-response': true,
  heartbeat: true,
  'heartbeat-response': true,
  vote: true,
  'vote-response': true,
  'pre-vote': true,
  'pre-vote-response': true,
  snapshot: true,
  'timeout-now': true,
  'read-index': true,
  'read-index-response': true,
};

const strict = { noNullPrototype: true } as const;
const name = fc.string({ minLength: 1, maxLength: 63 });
const number = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.maxSafeNat()).map((value) => Math.min(value, INDEX_MAX));
const bytes = fc.uint8Array({ maxLength: 400 });
const entry = fc.record(
  { term: number, index: number, type: fc.constantFrom(0 as const, 1 as const), data: bytes },
  strict,
);
const config = fc.record({ voters: fc.array(name), learners: fc.array(name) }, strict);
const snapshot = fc.record({ index: number, term: number, config, ref: fc.string({ maxLength: 200 }) }, strict);

function messages(type: MessageType): fc.Arbitrary<Message> {
  const fields = {
    type: fc.constant(type),
    from: name,
    to: name,
    term: number,
    index: number,
    logTerm: number,
    commit: number,
    entries: fc.array(entry, { maxLength: 40 }),
    reject: fc.boolean(),
    rejectHint: number,
    snapshot: fc.option(snapshot),
    context: number,
    force: fc.boolean(),
  };
  return fc.record(fields, strict);
}

const member = fc.record({ node: name, instance: name, raft: name, grpc: name, protocol: fc.nat(65_535) }, strict);
const otherFrames: Readonly<Record<Exclude<PeerFrame['kind'], 'raft'>, fc.Arbitrary<PeerFrame>>> = {
  runs: fc.record({ kind: fc.constant('runs' as const), runs: fc.array(bytes) }, strict),
  member: fc.record({ kind: fc.constant('member' as const), member }, strict),
  clock: fc.record({ kind: fc.constant('clock' as const), wallMs: number }, strict),
};

const codec = new FrameCodec();

/** Node's Buffers as plain byte arrays, so that equal bytes are equal. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Uint8Array.from(value);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, plain(field)]));
}

function comesBack(frames: fc.Arbitrary<PeerFrame>): void {
  fc.assert(
    fc.property(fc.array(frames, { minLength: 1, maxLength: 4 }), (list) => {
      // All are encoded before one is read: none stands in memory that a later one takes.
      const encoded = list.map((frame) => codec.encode(frame));
      assert.deepEqual(
        encoded.map((frame) => plain(codec.decode(bodyOf(frame)))),
        list.map(plain),
      );
    }),
    { numRuns: 60 },
  );
}

for (const type of Object.keys(TYPES) as MessageType[]) {
  test(`any message of type ${type} comes back as it was`, () => {
    comesBack(messages(type).map((message) => ({ kind: 'raft', message })));
  });
}

for (const [kind, frames] of Object.entries(otherFrames)) {
  test(`any frame of kind ${kind} comes back as it was`, () => comesBack(frames));
}

test('frames have these bytes', () => {
  const entries = [{ term: 2, index: 6, type: 0 as const, data: Uint8Array.of(1, 2, 255) }];
  const message = makeMessage({
    type: 'append',
    from: 'n1',
    to: 'n2',
    term: 3,
    index: 5,
    logTerm: 2,
    commit: 4,
    entries,
  });
  const hex = (frame: PeerFrame): string => codec.encode(frame).toString('hex');
  assert.equal(
    hex({ kind: 'raft', message }),
    '1b0000009583f7d49e0100a26e31a26e3203050204c20000c2c094020600c4030102ff',
  );
  assert.equal(hex({ kind: 'clock', wallMs: 1_700_000_000_000 }), '0b00000086e9e5f89204cb4278bcfe56800000');
});

function codeOf(action: () => unknown): WireErrorCode | 'accepted' {
  try {
    action();
    return 'accepted';
  } catch (error) {
    assert.ok(error instanceof WireError, String(error));
    return error.code;
  }
}

test('20,000 random and mutated bodies: each is read or refused by name', () => {
  const below = numbersFrom(20_261);
  const good = fc
    .sample(fc.oneof(...(Object.keys(TYPES) as MessageType[]).map(messages)), { numRuns: 60, seed: 4 })
    .map((message): PeerFrame => ({ kind: 'raft', message }))
    .concat(Object.values(otherFrames).flatMap((frames) => fc.sample(frames, { numRuns: 10, seed: 5 })))
    .map((frame) => Buffer.from(bodyOf(codec.encode(frame))));
  const seen = new Map<string, number>();
  for (let i = 0; i < 20_000; i++) {
    const body = i % 4 === 0 ? noiseOf(1 + below(60), below) : mutate(good[below(good.length)] as Buffer, below);
    const code = codeOf(() => codec.decode(body));
    seen.set(code, (seen.get(code) ?? 0) + 1);
  }
  assert.ok((seen.get('accepted') ?? 0) > 100 && (seen.get('MALFORMED') ?? 0) > 5_000, JSON.stringify([...seen]));
});

test('a body that claims more than it has, or what no frame has, is refused before it is read', () => {
  const nested = (count: number): Buffer => Buffer.concat([Buffer.alloc(count, 0x91), Buffer.of(0)]);
  const bodies: Record<string, Buffer> = {
    '4 G values': Buffer.from('ddffffffff', 'hex'),
    '30 M values, ten deep': Buffer.from('dd01ffffff'.repeat(10), 'hex'),
    '4 GiB of bytes': Buffer.from('9202c6ffffffff', 'hex'),
    'text that is cut off': Buffer.from('9203db00000fff', 'hex'),
    'a map': Buffer.from('928180c0c0', 'hex'),
    'a record definition': Buffer.from('d4724091a161', 'hex'),
    'an extension': Buffer.from('9204c70401ffffffff', 'hex'),
    'a date': Buffer.from('9204d6ff00000000', 'hex'),
    'a hundred thousand arrays in each other': nested(100_000),
    'bytes behind it': Buffer.from('920400c0', 'hex'),
    'not an array': Buffer.of(4),
    'nothing known': Buffer.from('920900', 'hex'),
  };
  for (const [what, body] of Object.entries(bodies)) {
    assert.equal(
      codeOf(() => codec.decode(body)),
      'MALFORMED',
      what,
    );
  }
  const many = Buffer.concat([Buffer.from('9202dd', 'hex'), Buffer.alloc(4), Buffer.alloc(VALUES_MAX, 0xc0)]);
  many.writeUInt32BE(VALUES_MAX, 3);
  assert.equal(
    codeOf(() => codec.decode(many)),
    'TOO_LONG',
  );
  assert.equal(
    codeOf(() => codec.decode(Buffer.from('9203dbffffffff', 'hex'))),
    'TOO_LONG',
  );
});

test('each field of a message is checked', () => {
  const message = makeMessage({ type: 'vote', from: 'n1', to: 'n2', term: 3 });
  const values = new Packr({ useRecords: false }).unpack(bodyOf(codec.encode({ kind: 'raft', message }))) as unknown[];
  const read = (at: number, value: unknown): WireErrorCode | 'accepted' => {
    const body = new Packr({ useRecords: false }).pack(values.with(at, value));
    return codeOf(() => codec.decode(body));
  };
  assert.equal(read(4, 4), 'accepted');
  const wrong: [number, unknown][] = [
    ...values.map((_, at): [number, unknown] => [at, 'x'.repeat(300)]),
    ...[4, 5, 6, 7, 9, 10].flatMap((at) =>
      [-1, 1.5, 2 ** 53, Number.NaN, true, null].map((value): [number, unknown] => [at, value]),
    ),
    ...[0, 1].flatMap((at) => [-1, 99, null].map((value): [number, unknown] => [at, value])),
    [2, ''],
    [3, null],
    [12, [1, 1, ['a'], ['b']]],
    [12, [1, 1, ['a'], [''], 'ref']],
    [13, null],
    [13, [1, 1, 0]],
    [13, [1, 1, 2, Buffer.of(1)]],
    [13, [1, 1, 0, 'text']],
  ];
  for (const [at, value] of wrong) assert.equal(read(at, value), 'MALFORMED', `field ${at}: ${JSON.stringify(value)}`);
  const longer = new Packr({ useRecords: false }).pack([...values, 'of a later version']);
  assert.equal(
    codeOf(() => codec.decode(longer)),
    'accepted',
  );
});

test('a stream of frames is cut into the same bodies, in whatever pieces it comes', () => {
  const pieces = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 30 });
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ minLength: 1, maxLength: 150 }), { maxLength: 12 }),
      pieces,
      (bodies, sizes) => {
        const stream = Buffer.concat(
          bodies.map((body) => sealFrame(Buffer.concat([Buffer.alloc(FRAME_HEADER_BYTES), body]))),
        );
        const reader = new FrameReader();
        const got: Buffer[] = [];
        for (let at = 0, i = 0; at < stream.length; i++) {
          const size = sizes[i % sizes.length] as number;
          reader.push(Buffer.from(stream.subarray(at, at + size)), (body) => got.push(body));
          at += size;
        }
        assert.deepEqual(got.map(plain), bodies);
      },
    ),
  );
});

test('a length of 4 GiB is refused by its header; one that is allowed costs what has come', () => {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  header.writeUInt32LE(0xffff_ffff, 0);
  const never = (): never => assert.fail('a body');
  assert.equal(
    codeOf(() => new FrameReader().push(header, never)),
    'TOO_LONG',
  );
  header.writeUInt32LE(16 * 1024 * 1024, 0);
  const before = process.memoryUsage().arrayBuffers;
  const readers = Array.from({ length: 100 }, () => new FrameReader());
  // The header, and the first byte of what it claims.
  for (const reader of readers) for (const byte of [...header, 1]) reader.push(Buffer.of(byte), never);
  assert.ok(process.memoryUsage().arrayBuffers - before < 100 * 200 * 1024);
});

test('an empty frame and a changed bit are refused', () => {
  const never = (): never => assert.fail('a body');
  assert.equal(
    codeOf(() => new FrameReader().push(Buffer.alloc(FRAME_HEADER_BYTES), never)),
    'MALFORMED',
  );
  const frame = codec.encode({ kind: 'clock', wallMs: 1 });
  for (let at = 4; at < frame.length; at++) {
    const changed = Buffer.from(frame);
    changed[at] = (changed[at] as number) ^ 0x10;
    assert.equal(
      codeOf(() => new FrameReader().push(changed, never)),
      'CHECKSUM',
      `byte ${at}`,
    );
  }
});

test('parts of a snapshot come back as they were; others are refused by name', () => {
  const message = makeMessage({
    type: 'snapshot',
    from: 'a',
    to: 'b',
    term: 2,
    snapshot: { index: 7, term: 2, config: { voters: ['a'], learners: ['b'] }, ref: 'x' },
  });
  const read = (frame: Buffer): SnapshotFrame => decodeSnapshotFrame(codec, bodyOf(frame));
  const chunk = Buffer.from('some bytes');
  assert.deepEqual(read(headerFrame(codec, message)), { kind: 'header', message });
  assert.deepEqual(read(Buffer.concat([chunkHead(2 ** 40, chunk), chunk])), {
    kind: 'chunk',
    offset: 2 ** 40,
    bytes: chunk,
  });
  assert.deepEqual(read(endFrame(2 ** 40, crc32(chunk))), { kind: 'end', length: 2 ** 40, checksum: crc32(chunk) });
  const good = [headerFrame(codec, message), Buffer.concat([chunkHead(1, chunk), chunk]), endFrame(1, 2)].map(bodyOf);
  const below = numbersFrom(7);
  for (let i = 0; i < 3_000; i++) {
    const body = mutate(good[i % good.length] as Buffer, below);
    codeOf(() => decodeSnapshotFrame(codec, body));
  }
  const vote = codec.encode({ kind: 'raft', message: makeMessage({ type: 'vote', from: 'a', to: 'b', term: 1 }) });
  const wrong = [
    Buffer.of(),
    Buffer.of(9),
    Buffer.concat([Buffer.of(1), bodyOf(vote)]),
    Buffer.alloc(9, 2),
    Buffer.alloc(14, 3),
  ];
  for (const body of wrong)
    assert.equal(
      codeOf(() => decodeSnapshotFrame(codec, body)),
      'MALFORMED',
      body.toString('hex'),
    );
});
