import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { parseTraceparent } from '../../src/base/trace-context.ts';
import { PublishScan, scanPublish } from '../../src/grpc/codec.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { createRing, RingProducer } from '../../src/shm/ring-producer.ts';
import { ToMain, TRACE_BYTES } from '../../src/workers/link.ts';
import { DeliveryTraces } from '../../src/workers/tracing/delivery-traces.ts';
import { GapSampler } from '../../src/workers/tracing/gap-sampler.ts';
import { LogTraces } from '../../src/workers/tracing/log-traces.ts';
import { readCallTrace, ShardTraces } from '../../src/workers/tracing/shard-traces.ts';
import { TraceBudget } from '../../src/workers/tracing/trace-budget.ts';
import {
  readTraceRecord,
  type TraceRecord,
  traceRecordBytes,
  writeTraceRecord,
} from '../../src/workers/tracing/trace-record.ts';
import { numbersFrom } from '../support/fuzz.ts';
import { encodePublish } from '../support/wire.ts';

const contextOf = (span: number, flags = '01'): Uint8Array =>
  parseTraceparent(`00-${'ab'.repeat(16)}-${span.toString(16).padStart(16, '0')}-${flags}`) as Uint8Array;

it('threads of a process have one performance.now(): stamps of different threads can be compared', async () => {
  const code = `require('node:worker_threads').parentPort.postMessage(performance.now())`;
  const before = performance.now();
  const worker = new Worker(code, { eval: true });
  const stamp = await new Promise<number>((resolve) => worker.once('message', resolve));
  const after = performance.now();
  await worker.terminate();
  assert(before < stamp && stamp < after, `${before} < ${stamp} < ${after}`);
});

describe('GapSampler', () => {
  const taken = (ratio: number, of: number, seed = 1): number => {
    const random = numbersFrom(seed);
    const sampler = new GapSampler(ratio, () => random(2 ** 30) / 2 ** 30);
    let count = 0;
    for (let i = 0; i < of; i++) if (sampler.take()) count += 1;
    return count;
  };

  it('takes none with 0 and all with 1', () => {
    assert.equal(taken(0, 10_000), 0);
    assert.equal(taken(1, 10_000), 10_000);
  });

  for (const ratio of [0.001, 0.01, 0.2, 0.5, 0.9]) {
    it(`takes about ${ratio} of what comes`, () => {
      const of = 200_000;
      const deviation = Math.sqrt(of * ratio * (1 - ratio));
      assert(Math.abs(taken(ratio, of) - of * ratio) < 5 * deviation, `${taken(ratio, of)} of ${of}`);
    });
  }
});

describe('TraceBudget', () => {
  it('gives what it was filled with, to all who share its memory, and counts the rest', (t) => {
    t.mock.timers.enable({ apis: ['setInterval'] });
    const budget = new TraceBudget();
    const other = new TraceBudget(budget.buffer);
    assert.equal(budget.tryTake(), false, 'nothing before it is filled');
    const timer = budget.fill(4);
    const takes = Array.from({ length: 10 }, (_, i) => (i % 2 === 0 ? budget : other).tryTake());
    assert.equal(takes.filter(Boolean).length, 4);
    assert.equal(budget.refused, 7);
    t.mock.timers.tick(500);
    assert.deepEqual([budget.tryTake(), other.tryTake(), budget.tryTake()], [true, true, false]);
    t.mock.timers.tick(60_000);
    let left = 0;
    while (budget.tryTake()) left += 1;
    assert.equal(left, 4, 'a second of it is kept at most');
    clearInterval(timer);
  });
});

const RECORD: TraceRecord = {
  row: {
    context: contextOf(1),
    spanId: Buffer.from('1122334455667788', 'hex'),
    idsSpanId: Buffer.from('8877665544332211', 'hex'),
    links: [contextOf(2), contextOf(3)],
    receivedAt: 1.5,
    enqueuedAt: 2.25,
    takenAt: 3,
    log: { receivedAt: 4, submittedAt: 5, appliedAt: 6, isLeader: true },
  },
  group: { sealedAt: 7, idsAt: 8, storeAt: 9, storedAt: 10, closeAt: 11, closedAt: 12 },
  shard: 3,
  answeredAt: 13,
  base: 2 ** 53 - 1,
  messages: 65_535,
  isStream: true,
  reason: -1,
  hash: 0xffff_fffe,
  subject: Buffer.from('a.b'),
};

describe('a trace record', () => {
  const throughMemory = (record: TraceRecord): TraceRecord => {
    const bytes = new Uint8Array(traceRecordBytes(record) + 16).fill(0xee);
    const view = new DataView(bytes.buffer);
    writeTraceRecord(view, bytes, 8, record);
    assert.deepEqual([...bytes.subarray(-8)], new Array(8).fill(0xee), 'it is as long as it says');
    return readTraceRecord(view, bytes, 8);
  };
  /** Bytes of any kind as numbers. */
  const plain = (value: unknown): unknown => {
    if (value instanceof Uint8Array || Array.isArray(value)) return [...value].map(plain);
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, held]) => [key, plain(held)]));
  };

  it('is read as it was written', () => {
    const subject = new Uint8Array(255).fill(97);
    for (const record of [
      RECORD,
      { ...RECORD, isStream: false, reason: 17, base: 0, row: { ...RECORD.row, links: [], log: null } },
      { ...RECORD, subject },
      { ...RECORD, row: { ...RECORD.row, log: { receivedAt: 1, submittedAt: 0, appliedAt: 0, isLeader: false } } },
    ]) {
      assert.deepEqual(plain(throughMemory(record)), plain(record));
    }
  });
});

describe('ShardTraces', () => {
  const LIMITS = { bodyBytes: 1_000, headersBytes: 10_000, headersCount: 32 };
  const setUp = (tokens: number, isParentBased = true, ringBytes = 1 << 14) => {
    const ring = createRing(ringBytes);
    const budget = new TraceBudget();
    const cells = new Int32Array(budget.buffer);
    cells[0] = tokens;
    const traces = new ShardTraces(
      2,
      { isParentBased, budget: budget.buffer },
      new RingProducer(ring),
      () => undefined,
    );
    const records: TraceRecord[] = [];
    const consumer = new RingConsumer(ring);
    const drain = (): TraceRecord[] => {
      consumer.drain((type, offset) => {
        assert.equal(type, ToMain.TRACE);
        records.push(readTraceRecord(consumer.view, consumer.bytes, offset));
      }, 100);
      return records;
    };
    return { traces, budget, drain };
  };
  const published = (headers: readonly { key: string; value: string }[]) => {
    const bytes = encodePublish({
      subject: 's',
      body: Buffer.from('b'),
      headers: headers.map(({ key, value }) => ({ key, value: Buffer.from(value) })),
    });
    const scan = new PublishScan();
    assert.equal(scanPublish(bytes, 0, bytes.length, scan, LIMITS), null);
    return { bytes, scan };
  };
  const traceparent = (span: number, flags = '01') => ({
    key: 'traceparent',
    value: `00-${'ab'.repeat(16)}-${span.toString(16).padStart(16, '0')}-${flags}`,
  });
  const root = { receivedAt: 1, context: new Uint8Array(25).fill(7, 0, 16).fill(1, 24) };

  it('a message with a sampled context is traced as its child, by the budget', () => {
    const { traces, budget } = setUp(1);
    const { bytes, scan } = published([{ key: 'x', value: '1' }, traceparent(5)]);
    const trace = traces.ofPublish(1, 10, null, bytes, scan);
    assert.deepEqual(trace?.context, contextOf(5));
    assert.equal(trace?.receivedAt, 10);
    assert.deepEqual(trace?.links, []);
    assert.equal(traces.ofPublish(2, 10, null, bytes, scan), null);
    assert.equal(budget.refused, 1);
  });

  it('one with a context that is not sampled is not traced, also if this node had chosen it', () => {
    const { traces, budget } = setUp(10);
    const { bytes, scan } = published([traceparent(5, '00')]);
    assert.equal(traces.ofPublish(1, 10, null, bytes, scan), null);
    assert.equal(traces.ofPublish(1, 10, root, bytes, scan), null);
    assert.equal(budget.refused, 0);
  });

  it('the context of the call is the parent, that of the message is linked to; what this node began gives way to the message', () => {
    const { traces } = setUp(10);
    const { bytes, scan } = published([traceparent(5)]);
    const given = { receivedAt: 1, context: contextOf(9) };
    const called = traces.ofPublish(1, 10, given, bytes, scan);
    assert.deepEqual(called?.context, contextOf(9));
    assert.deepEqual(called?.links, [contextOf(5)]);
    const chosen = traces.ofPublish(1, 10, root, bytes, scan);
    assert.deepEqual(chosen?.context, contextOf(5));
    assert.equal(chosen?.receivedAt, 1);
  });

  it('without tracing.parent_based headers count for nothing', () => {
    const { traces } = setUp(10, false);
    const { bytes, scan } = published([traceparent(5)]);
    assert.equal(traces.ofPublish(1, 10, null, bytes, scan), null);
    assert.deepEqual(traces.ofPublish(1, 10, root, bytes, scan)?.context, root.context);
    assert.equal(traces.ofBatch(1, 10, null, [contextOf(5)]), null);
  });

  it('a batch links to what its messages bring, each once', () => {
    const { traces } = setUp(10);
    const trace = traces.ofBatch(0x8000_0000, 10, null, [contextOf(1, '00'), contextOf(2), contextOf(3), contextOf(2)]);
    assert.deepEqual(trace?.context, contextOf(2));
    assert.deepEqual(trace?.links, [contextOf(3)]);
  });

  it('each traced row of a batch is told of with its own ids; a row that was taken out is not', () => {
    const { traces, drain } = setUp(10);
    const rows = [1, 2, 3].map((call) => traces.ofBatch(call, 10, null, [contextOf(call)]));
    assert(rows.every((row) => row !== null));
    const counts = [4, 5, 6];
    const batch = {
      subject: { ref: { bytes: Buffer.from('s'), hash: 1 } },
      calls: Uint32Array.of(1, 7, 3),
      rows: 3,
      base: 100,
      traces: rows,
      times: RECORD.group,
      messagesOf: (row: number) => counts[row] as number,
    };
    traces.stored(batch);
    assert.deepEqual(
      drain().map(({ base, messages, reason, group }) => ({ base, messages, reason, group })),
      [
        { base: 100, messages: 4, reason: -1, group: RECORD.group },
        { base: 109, messages: 6, reason: -1, group: RECORD.group },
      ],
    );
    traces.refused(batch, 3);
    assert.deepEqual(
      drain()
        .slice(2)
        .map(({ base, reason }) => ({ base, reason })),
      [
        { base: 0, reason: 3 },
        { base: 0, reason: 3 },
      ],
    );
  });

  it('a full ring costs the trace, and nothing waits', () => {
    const { traces } = setUp(1_000, true, 1 << 12);
    const row = traces.ofBatch(1, 10, null, [contextOf(1)]);
    assert(row !== null);
    const batch = {
      subject: { ref: { bytes: Buffer.from('s'), hash: 1 } },
      calls: Uint32Array.of(1),
      rows: 1,
      base: 1,
      traces: [row],
      times: null,
      messagesOf: () => 1,
    };
    for (let i = 0; i < 100; i++) traces.stored(batch);
    assert(traces.dropped > 0 && traces.dropped < 100, String(traces.dropped));
  });

  it('a trace in front of a record is read as it was written', () => {
    const bytes = new Uint8Array(TRACE_BYTES);
    const view = new DataView(bytes.buffer);
    view.setFloat64(0, 12.5, true);
    bytes.set(contextOf(5), 8);
    assert.deepEqual(readCallTrace(bytes, view, 0, TRACE_BYTES), { receivedAt: 12.5, context: contextOf(5) });
    assert.equal(readCallTrace(bytes, view, 0, 0), null);
  });
});

describe('DeliveryTraces', () => {
  const expected = (base: number, end: number, since = 0) => ({
    context: contextOf(1),
    links: [],
    destination: {},
    base,
    end,
    since,
    from: '',
  });

  it('a delivery is over with the run that reaches the end of the batch', () => {
    const delivered: (readonly [number, number])[] = [];
    const traces = new DeliveryTraces(({ base }, streams) => delivered.push([base, streams]));
    traces.expect(1, expected(5, 10));
    traces.expect(1, expected(10, 12));
    traces.expect(2, expected(5, 10));
    traces.delivered(1, 9, 3);
    assert.deepEqual(delivered, []);
    traces.delivered(1, 10, 3);
    assert.deepEqual(delivered, [[5, 3]]);
    traces.delivered(1, 20, 4);
    assert.deepEqual(delivered, [
      [5, 3],
      [10, 4],
    ]);
    assert.equal(traces.size, 1);
    traces.delivered(3, 20, 4);
    assert.equal(traces.size, 1);
  });

  it('what does not come is forgotten, and no more than 1,024 are waited for', () => {
    const traces = new DeliveryTraces(() => assert.fail('nothing was delivered'));
    for (let i = 0; i < 3_000; i++) traces.expect(i % 7, expected(1, 2, i < 500 ? 0 : 20_000));
    assert.equal(traces.size, 1_024);
    traces.sweep(30_000);
    assert.equal(traces.size, 524);
    traces.sweep(60_000);
    assert.equal(traces.size, 0);
  });
});

describe('LogTraces', () => {
  it('an open is answered with its stamps, once; what is never answered is forgotten in the end', () => {
    const traces = new LogTraces(() => undefined);
    traces.asked(1, 7, contextOf(1));
    assert.equal(traces.take(0, 7), null, 'of another shard');
    traces.submitted(3, false);
    const taken = traces.take(1, 7);
    assert(taken !== null && taken.submittedAt >= taken.receivedAt);
    assert.equal(traces.take(1, 7), null);
    for (let counter = 0; counter < 2_000; counter++) traces.asked(1, counter, contextOf(1));
    assert.equal(traces.take(1, 0), null);
    assert.notEqual(traces.take(1, 1_999), null);
    for (let counter = 0; counter < 1_999; counter++) traces.take(1, counter);
    assert(traces.isEmpty);
  });
});
