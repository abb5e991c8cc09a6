/** Frames of publish streams: the hand-written reader and writer beside protobufjs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { REASON_NAMES, REASONS, type ReasonRow } from '../../src/base/errors.ts';
import { RecordsScan } from '../../src/batch/records-scan.ts';
import { BatchErrors, FramePart, FrameScan, ResponseBuilder } from '../../src/grpc/producer-codec.ts';
import { loadOracle } from './grpc-oracle.ts';

const request = loadOracle('broker.v1.PublishStreamRequest', { stringsAsBytes: true });
const response = loadOracle('broker.v1.PublishStreamResponse');
const batchError = loadOracle('broker.v1.BatchError');

interface Read {
  readonly subject: string;
  readonly sequence: number;
  readonly section: string;
  readonly expectedHead: number;
  readonly count: number;
  readonly fault: string | null;
}

/** All batches of a frame, and what ended it. */
function readAll(frame: Buffer): { batches: Read[]; end: number } {
  const scan = new FrameScan();
  scan.reset(frame, 0);
  const batches: Read[] = [];
  for (;;) {
    const before = scan.offset;
    const part = scan.next();
    if (part !== FramePart.BATCH) return { batches, end: part };
    assert.ok(scan.offset > before && scan.offset <= frame.length, 'the scan moves on within the frame');
    batches.push({
      subject: frame.toString('latin1', scan.subjectStart, scan.subjectEnd),
      sequence: scan.sequence,
      section: frame.toString('hex', scan.sectionStart, scan.sectionEnd),
      expectedHead: scan.expectedHead,
      count: scan.count,
      fault: scan.fault,
    });
  }
}

const blob = (maxLength: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength }).map((bytes) => Buffer.from(bytes));
const int64 = fc.oneof(
  fc.integer({ min: 0, max: 2 ** 31 }).map(String),
  fc.bigInt({ min: -(1n << 63n), max: (1n << 63n) - 1n }).map(String),
);
const record = fc.record({ body: blob(40), expirationSeconds: fc.nat(5) }, { requiredKeys: [] });
const batch = fc.record(
  {
    subject: blob(12),
    sequence: int64,
    records: fc.record({ records: fc.array(record, { maxLength: 4 }) }),
    expected_last_id: int64,
  },
  { requiredKeys: [] },
);
const frames = fc.record({ batches: fc.array(batch, { maxLength: 4 }) }).map((fields) => request.encode(fields));

const records = new RecordsScan();

/** What the shard says of a section: it looks into the records. */
function isStorable(section: string): boolean {
  const bytes = Buffer.from(section, 'hex');
  const limits = { bodyBytes: 1 << 20, headersBytes: 1 << 16, headersCount: 64, records: 1_000 };
  return records.scan(bytes, 0, bytes.length, limits) === null;
}

/** From 0 to 2^53-1, or -1. */
function safe(text: string): number {
  const value = Number(text);
  return BigInt(text) >= 0n && Number.isSafeInteger(value) ? value : -1;
}

/** What the hand-written scan should say of a frame that protobufjs has read. */
function expected(frame: Buffer): Read[] {
  const { batches } = request.decode(frame) as {
    batches: { subject: Buffer; sequence: string; records: { records: unknown[] } | null; expected_last_id?: string }[];
  };
  return batches.map(({ subject, sequence, records, expected_last_id }) => {
    const count = records?.records.length ?? 0;
    const head = expected_last_id === undefined ? -1 : safe(expected_last_id);
    const badHead = expected_last_id !== undefined && head < 0;
    return {
      subject: subject.toString('latin1'),
      sequence: safe(sequence) || -1,
      section: '',
      expectedHead: head,
      count,
      fault: badHead ? 'ID_INVALID' : count === 0 ? 'MALFORMED_MESSAGE' : null,
    };
  });
}

test('what protobufjs writes is read as it was meant', () => {
  fc.assert(
    fc.property(frames, (frame) => {
      const { batches, end } = readAll(frame);
      assert.equal(end, FramePart.END);
      assert.deepEqual(
        batches.map((each) => ({ ...each, section: '' })),
        expected(frame),
      );
    }),
    { numRuns: 1_000 },
  );
});

test('bits flipped, cut and noise: nothing throws or hangs, and what is taken protobufjs takes too', () => {
  const edits = fc.array(fc.tuple(fc.nat(), fc.nat(255), fc.nat(2)), { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(fc.oneof(frames, blob(80)), edits, (frame, changes) => {
      let bytes: Buffer = Buffer.from(frame);
      for (const [where, value, kind] of changes) {
        const at = where % (bytes.length + 1);
        if (kind === 0 && at < bytes.length) bytes[at] = value;
        else if (kind === 1) bytes = bytes.subarray(0, at);
        else bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from([value]), bytes.subarray(at)]);
      }
      const { batches, end } = readAll(bytes);
      if (end !== FramePart.END || batches.some((each) => each.fault !== null || !isStorable(each.section))) return;
      const opinion = expected(bytes);
      assert.deepEqual(
        batches.map(({ subject, sequence, expectedHead }) => ({ subject, sequence, expectedHead })),
        opinion.map(({ subject, sequence, expectedHead }) => ({ subject, sequence, expectedHead })),
      );
    }),
    { numRuns: 3_000 },
  );
});

test('a scan can be taken up again at any batch', () => {
  const fields = {
    batches: [1, 2, 3].map((n) => ({ subject: Buffer.from(`s${n}`), sequence: String(n), records: { records: [{}] } })),
  };
  const frame = request.encode(fields);
  const scan = new FrameScan();
  scan.reset(frame, 0);
  const starts: number[] = [];
  for (let at = scan.offset; scan.next() === FramePart.BATCH; at = scan.offset) starts.push(at);
  assert.equal(starts.length, 3);
  starts.forEach((start, index) => {
    scan.reset(frame, start);
    assert.equal(scan.next(), FramePart.BATCH);
    assert.equal(scan.sequence, index + 1);
  });
});

for (const { what, open, expected: wanted } of [
  { what: 'nothing', open: {}, expected: ['', 1] },
  { what: 'a producer', open: { producer_id: Buffer.from('p') }, expected: ['p', 1] },
  {
    what: 'a producer that goes on',
    open: { producer_id: Buffer.from('p'), first_sequence: '77' },
    expected: ['p', 77],
  },
  { what: '65 bytes', open: { producer_id: Buffer.alloc(65, 0x61) }, expected: 'PRODUCER_INVALID' },
  { what: 'what is no UTF-8', open: { producer_id: Buffer.from([0xff]) }, expected: 'PRODUCER_INVALID' },
  {
    what: 'a negative sequence',
    open: { producer_id: Buffer.from('p'), first_sequence: '-1' },
    expected: 'PRODUCER_INVALID',
  },
]) {
  test(`an open with ${what} is read as ${JSON.stringify(wanted)}`, () => {
    const scan = new FrameScan();
    scan.reset(request.encode({ open }), 0);
    assert.equal(scan.next(), FramePart.OPEN);
    const read = scan.open();
    assert.deepEqual(typeof read === 'string' ? read : [read.producer.toString(), read.firstSequence], wanted);
    assert.equal(scan.next(), FramePart.END);
  });
}

test('responses are what protobufjs reads', () => {
  const errors = new BatchErrors();
  const id = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
  const result = fc.oneof(
    fc.record({ sequence: id, firstId: id, lastId: id }),
    fc.record({ sequence: id, reason: fc.constantFrom(...REASON_NAMES) }),
  );
  const builder = new ResponseBuilder();
  fc.assert(
    fc.property(
      fc.array(result, { maxLength: 60 }),
      fc.integer({ min: 0, max: 2 ** 40 }),
      id,
      id,
      (results, acknowledged, bytesLimit, messagesLimit) => {
        for (const each of results) {
          if ('reason' in each) builder.refused(each.sequence, errors.of(each.reason));
          else builder.stored(each.sequence, each.firstId, each.lastId);
        }
        assert.equal(builder.isEmpty, results.length === 0);
        const frame = builder.take(acknowledged, bytesLimit, messagesLimit);
        assert.equal(builder.isEmpty, true);
        assert.equal(frame[0], 0);
        assert.equal(frame.readUInt32BE(1), frame.length - 5);
        const read = response.decode(frame.subarray(5)) as {
          acknowledged: string;
          window: { bytes_limit: string; messages_limit: string };
          results: { sequence: string; first_id: string; last_id: string; error: { reason: string } | null }[];
        };
        assert.deepEqual([read.acknowledged, read.window.bytes_limit, read.window.messages_limit].map(Number), [
          acknowledged,
          bytesLimit,
          messagesLimit,
        ]);
        assert.deepEqual(
          read.results.map((each) => [
            Number(each.sequence),
            each.error?.reason ?? [Number(each.first_id), Number(each.last_id)],
          ]),
          results.map((each) => [each.sequence, 'reason' in each ? each.reason : [each.firstId, each.lastId]]),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test('[R27] every error of a batch says what may be assumed, and whether another try may help', () => {
  const errors = new BatchErrors();
  for (const name of REASON_NAMES) {
    const row: ReasonRow = REASONS[name];
    const read = batchError.decode(errors.of(name)) as { outcome: number; retry_after_ms: string; reason: string };
    assert.deepEqual(
      [read.reason, read.outcome, Number(read.retry_after_ms) > 0],
      [name, row.outcome === 'none' ? 1 : 2, row.retryAfterMs !== undefined],
    );
  }
});
