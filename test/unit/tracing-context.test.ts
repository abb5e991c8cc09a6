/** Contexts of W3C Trace Context, and where they are found: metadata, headers of messages, records between threads and nodes. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  childContext,
  formatTraceparent,
  isSampled,
  parseTraceparent,
  readTraceparent,
  spanIdOf,
  TRACE_CONTEXT_BYTES,
  traceIdOf,
} from '../../src/base/trace-context.ts';
import { RecordsScan } from '../../src/batch/records-scan.ts';
import { ChunkPool } from '../../src/client/chunk-pool.ts';
import { OutBatch, recordLengthOf } from '../../src/client/out-batch.ts';
import { PeerMessage } from '../../src/grpc/gen/broker/v1/peer.ts';
import { encodeBatch, type PeerBatchScan, PeerReader } from '../../src/grpc/peer-codec.ts';
import { bodyOf } from '../../src/net/framing.ts';
import { FrameCodec } from '../../src/net/raft-frames.ts';
import { mutate, numbersFrom } from '../support/fuzz.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';
const SOUND = `00-${TRACE}-${SPAN}-01`;

describe('a traceparent', () => {
  it('is read as it was written', () => {
    const context = parseTraceparent(SOUND);
    assert(context !== null);
    assert.equal(traceIdOf(context), TRACE);
    assert.equal(spanIdOf(context), SPAN);
    assert(isSampled(context));
    assert.equal(formatTraceparent(context), SOUND);
    const unsampled = parseTraceparent(`00-${TRACE}-${SPAN}-00`);
    assert(unsampled !== null && !isSampled(unsampled));
  });

  it('of a later version is read like one of this version, whatever follows', () => {
    assert.notEqual(parseTraceparent(`cc-${TRACE}-${SPAN}-01-what-the-future-will-be-like`), null);
    assert.notEqual(parseTraceparent(`cc-${TRACE}-${SPAN}-01`), null);
  });

  const unsound: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['version ff', `ff-${TRACE}-${SPAN}-01`],
    ['version 00 that is longer', `${SOUND}-more`],
    ['a later version that is longer without a dash', `cc-${TRACE}-${SPAN}-01.more`],
    ['a trace id of zeros', `00-${'0'.repeat(32)}-${SPAN}-01`],
    ['a span id of zeros', `00-${TRACE}-${'0'.repeat(16)}-01`],
    ['upper case', SOUND.toUpperCase()],
    ['no hex', SOUND.replace('4bf', '4bg')],
    ['another separator', SOUND.replaceAll('-', '_')],
    ['too short', SOUND.slice(0, -1)],
    ['longer than anything', `cc-${TRACE}-${SPAN}-01-${'x'.repeat(600)}`],
  ];
  for (const [what, text] of unsound) {
    it(`is none: ${what}`, () => assert.equal(parseTraceparent(text), null));
  }

  it('is read or refused, whatever the bytes are, and what is read can be written', () => {
    const random = numbersFrom(7);
    for (let i = 0; i < 2_000; i++) {
      const bytes = mutate(Buffer.from(SOUND), random);
      const context = readTraceparent(bytes, 0, bytes.length);
      if (context === null) continue;
      assert.equal(context.length, TRACE_CONTEXT_BYTES);
      assert.match(formatTraceparent(context), /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/);
    }
  });

  it('a child has the trace, its span as the parent, and is sampled', () => {
    const parent = parseTraceparent(SOUND) as Uint8Array;
    const child = childContext(parent, Buffer.from('1122334455667788', 'hex'));
    assert.equal(formatTraceparent(child), `00-${TRACE}-1122334455667788-01`);
  });
});

/** A records section as the client writes it; `headers` of each message. */
function sectionOf(headers: readonly (readonly { key: string; value: string }[])[]): Buffer {
  const batch = new OutBatch({
    subject: 's',
    madeAt: 0,
    expectedLastId: -1,
    pool: new ChunkPool(1 << 20),
    bytes: 1_024,
  });
  for (const list of headers) {
    const extras = {
      headers: list.map(({ key, value }) => ({ key, value: Buffer.from(value) })),
      expirationSeconds: 0,
    };
    batch.append('body', 4, recordLengthOf(4, extras), extras);
  }
  batch.sequence = 1;
  const field = batch.encode();
  return field.subarray(field.length - batch.bytes);
}

const LIMITS = { bodyBytes: 1_000, headersBytes: 10_000, headersCount: 32, records: 100 };

describe('a batch of a publish stream', () => {
  const traceparent = (i: number): string => `00-${TRACE}-${String(i + 1).padStart(16, '0')}-01`;
  const scan = (section: Buffer, wantsTraces = true): RecordsScan => {
    const records = new RecordsScan();
    records.wantsTraces = wantsTraces;
    assert.equal(records.scan(section, 0, section.length, LIMITS), null);
    return records;
  };

  it('gives the contexts of its messages, in order', () => {
    const section = sectionOf([
      [{ key: 'other', value: 'x' }],
      [
        { key: 'a', value: '1' },
        { key: 'traceparent', value: traceparent(0) },
      ],
      [],
      [
        { key: 'traceparent', value: traceparent(1) },
        { key: 'tracestate', value: 'k=v' },
      ],
    ]);
    assert.deepEqual(scan(section).traces.map(spanIdOf), ['0000000000000001', '0000000000000002']);
  });

  it('gives 16 of them at most', () => {
    const many = Array.from({ length: 40 }, (_, i) => [{ key: 'traceparent', value: traceparent(i) }]);
    assert.equal(scan(sectionOf(many)).traces.length, 16);
  });

  it('gives none that is not sound, none of another key, none if they are not wanted, and none of the batch before', () => {
    const good = sectionOf([[{ key: 'traceparent', value: traceparent(0) }]]);
    for (const header of [
      { key: 'traceparent', value: 'x'.repeat(55) },
      { key: 'traceparenT', value: traceparent(0) },
      { key: 'traceparent', value: `${traceparent(0)}0` },
    ]) {
      assert.deepEqual(scan(sectionOf([[header]])).traces, []);
    }
    assert.deepEqual(scan(good, false).traces, []);
    const records = scan(good);
    const plain = sectionOf([[]]);
    records.scan(plain, 0, plain.length, LIMITS);
    assert.deepEqual(records.traces, []);
  });
});

describe('between nodes', () => {
  const context = parseTraceparent(SOUND) as Uint8Array;

  it('a frame of runs carries the contexts of those that are traced, and without one it is as it was', () => {
    fc.assert(
      fc.property(
        fc.array(fc.uint8Array({ minLength: 1, maxLength: 50 }), { minLength: 1 }),
        fc.nat(),
        (runs, place) => {
          const codec = new FrameCodec();
          const plain = { kind: 'runs' as const, runs };
          const traced = { ...plain, traces: [{ index: place % runs.length, context }] };
          const read = (frame: Parameters<FrameCodec['encode']>[0]) => {
            const decoded = codec.decode(bodyOf(codec.encode(frame)));
            assert(decoded.kind === 'runs');
            return {
              runs: decoded.runs.map((run) => [...run]),
              traces: decoded.traces?.map(({ index, context: found }) => ({ index, context: [...found] })),
            };
          };
          const bytes = runs.map((run) => [...run]);
          assert.deepEqual(read(plain), { runs: bytes, traces: undefined });
          assert.deepEqual(read(traced), {
            runs: bytes,
            traces: [{ index: place % runs.length, context: [...context] }],
          });
        },
      ),
    );
  });

  it('a batch carries its context, which protobuf reads too, and a reader that knows no field 6 skips', () => {
    const source = Buffer.concat([Buffer.from('orders'), Buffer.from('batch'), context]);
    const head = { base: 7, count: 2, publishedAt: 1_700_000_000_000 };
    const message = encodeBatch(head, source, 0, 6, 11, TRACE_CONTEXT_BYTES);
    const [decoded] = PeerMessage.decode(message).batches;
    assert.deepEqual(decoded?.trace, Buffer.from(context));
    assert.equal(decoded?.batch.toString(), 'batch');
    let found = '';
    const none = (): void => undefined;
    const parts = { hello: none, interest: none, broadcast: none, proof: none };
    const reader = new PeerReader();
    const batch = (bytes: Buffer, scan: PeerBatchScan): void => {
      found = bytes.toString('hex', scan.traceStart, scan.traceEnd);
    };
    assert(reader.read(message, { ...parts, batch }));
    assert.equal(found, Buffer.from(context).toString('hex'));
    const longer = Buffer.concat([source, source, source]);
    assert(reader.read(encodeBatch(head, longer, 0, 6, longer.length), { ...parts, batch }));
    assert.equal(found, '', 'nothing is left of the one before');
  });
});
