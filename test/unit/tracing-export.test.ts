import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import {
  QUEUE_SPANS_MAX,
  type SpanData,
  SpanExport,
  type SpanSender,
  tracesUrl,
} from '../../src/telemetry/span-export.ts';
import { OtlpReceiver } from '../support/otlp-receiver.ts';
import { until } from '../support/until.ts';

const SPAN: SpanData = {
  name: 'publish',
  kind: 1,
  traceId: 'ab'.repeat(16),
  spanId: 'cd'.repeat(8),
  parentSpanId: '',
  startMs: 10,
  endMs: 12.5,
  attributes: { 'messaging.system': 'broker', count: 3, share: 0.5, isIt: true },
  links: [{ traceId: '12'.repeat(16), spanId: '34'.repeat(8) }],
  error: null,
};

type Done = Parameters<SpanSender['export']>[1];

/** A collector that answers when it is told to. */
class Held implements SpanSender {
  readonly batches: ReadableSpan[][] = [];
  readonly answers: Done[] = [];
  isShut = false;
  export(spans: ReadableSpan[], done: Done): void {
    this.batches.push(spans);
    this.answers.push(done);
  }
  shutdown(): Promise<void> {
    this.isShut = true;
    return Promise.resolve();
  }
}

function setUp(sender: Promise<SpanSender> | null = null, endpoint = 'http://127.0.0.1:1') {
  const warned: string[] = [];
  const none = (): void => undefined;
  const say = (message: string): void => void warned.push(message);
  const log = { debug: none, info: none, warn: say, error: say };
  const options = { endpoint, headers: {}, serviceName: 'broker', version: '1', log };
  const spans = sender === null ? new SpanExport(options) : new SpanExport(options, () => sender);
  spans.instanceId = 'node-1';
  return { spans, warned };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('SpanExport', () => {
  it('has one request under way, and bounded pieces', async () => {
    const held = new Held();
    const { spans } = setUp(Promise.resolve(held));
    for (let i = 0; i < 300; i++) spans.add(SPAN);
    await turn();
    assert.deepEqual(
      held.batches.map(({ length }) => length),
      [128],
    );
    held.answers[0]?.({ code: 0 });
    await turn();
    assert.deepEqual(
      held.batches.map(({ length }) => length),
      [128, 128],
    );
    assert.equal(spans.exported, 128);
    assert.equal(spans.waiting, 44);
    await spans.close(1);
  });

  it('a full queue drops what comes, counts it and says so once', async () => {
    const held = new Held();
    const { spans, warned } = setUp(Promise.resolve(held));
    await turn();
    for (let i = 0; i < QUEUE_SPANS_MAX + 128 + 50; i++) spans.add(SPAN);
    assert.equal(spans.waiting, QUEUE_SPANS_MAX);
    assert.equal(spans.dropped, 50);
    assert.equal(warned.length, 1);
    await spans.close(1);
    assert.equal(spans.dropped, 50 + QUEUE_SPANS_MAX, 'what is left at the end is lost');
  });

  it('what a collector refuses is counted as failed, and the next is sent all the same', async () => {
    const held = new Held();
    const { spans, warned } = setUp(Promise.resolve(held));
    await turn();
    for (let i = 0; i < 256; i++) spans.add(SPAN);
    held.answers[0]?.({ code: 1, error: new Error('no') });
    await turn();
    held.answers[1]?.({ code: 0 });
    assert.deepEqual([spans.failed, spans.exported], [128, 128]);
    assert.deepEqual(warned, ['spans could not be sent']);
    await spans.close(1);
  });

  it('close sends what waits, and then closes the sender', async () => {
    const held = new Held();
    held.export = (batch, done) => {
      held.batches.push(batch);
      setImmediate(() => done({ code: 0 }));
    };
    const { spans } = setUp(Promise.resolve(held));
    for (let i = 0; i < 300; i++) spans.add(SPAN);
    await spans.close(60_000);
    assert.deepEqual([spans.exported, spans.dropped, held.isShut], [300, 0, true]);
    spans.add(SPAN);
    assert.equal(spans.dropped, 1, 'nothing is taken behind it');
  });

  it('close does not wait for a collector that does not answer, or a library that does not load', async () => {
    for (const sender of [Promise.resolve<SpanSender>(new Held()), new Promise<SpanSender>(() => undefined)]) {
      const { spans } = setUp(sender);
      spans.add(SPAN);
      await turn();
      await spans.close(1);
    }
  });

  it('a library that cannot be loaded is told of, and stops nobody', async () => {
    const { spans, warned } = setUp(Promise.reject(new Error('not installed')));
    await turn();
    spans.add(SPAN);
    assert.equal(warned.length, 1);
    await spans.close(60_000);
    assert.equal(spans.dropped, 1);
  });

  it('a receiver of OTLP gets what was given: names, times, attributes, links, status', async () => {
    await using receiver = await OtlpReceiver.listen();
    const { spans } = setUp(null, receiver.endpoint);
    spans.add(SPAN);
    spans.add({ ...SPAN, spanId: 'ef'.repeat(8), parentSpanId: SPAN.spanId, error: 'QUEUE_FULL', endMs: 9 });
    await spans.close(60_000);
    await until(
      () => receiver.spans.length === 2,
      () => receiver.spans,
    );
    const [root, child] = receiver.spans;
    assert(root !== undefined && child !== undefined);
    assert.deepEqual(root.attributes, SPAN.attributes);
    assert.deepEqual(root.links, SPAN.links);
    assert.deepEqual(
      [root.traceId, root.spanId, root.parentSpanId, root.kind, root.status],
      [SPAN.traceId, SPAN.spanId, '', 2, 0],
    );
    assert(
      Math.abs(root.startMs - performance.timeOrigin - 10) < 1 && Math.abs(root.endMs - root.startMs - 2.5) < 0.01,
    );
    assert.equal(root.resource['service.instance.id'], 'node-1');
    assert.deepEqual(
      [child.parentSpanId, child.status, child.attributes['error.type']],
      [SPAN.spanId, 2, 'QUEUE_FULL'],
    );
    assert.equal(child.endMs, child.startMs, 'none ends before it begins');
  });

  it('an endpoint without a path is the base of the one for traces', () => {
    assert.equal(tracesUrl('http://collector:4318'), 'http://collector:4318/v1/traces');
    assert.equal(tracesUrl('http://collector:4318/'), 'http://collector:4318/v1/traces');
    assert.equal(tracesUrl('https://host/otlp/v1/traces'), 'https://host/otlp/v1/traces');
  });
});
