/** Traces of real brokers, as a collector gets them. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { context, SpanKind, trace } from '@opentelemetry/api';
import { type Client, connect, type Message, traceContext } from '../../src/client/index.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { OtlpReceiver, type ReceivedSpan } from '../support/otlp-receiver.ts';
import { registerTracing } from '../support/traced-program.ts';
import { until } from '../support/until.ts';
import { encodeFetch, encodePublish } from '../support/wire.ts';

const receiver = await OtlpReceiver.listen();
const provider = registerTracing('test-program', receiver.endpoint);

after(async () => {
  await provider.shutdown();
  await receiver[Symbol.asyncDispose]();
});

const tracer = trace.getTracer('test');

function named(spans: readonly ReceivedSpan[], name: string): ReceivedSpan {
  const found = spans.find((span) => span.name === name);
  assert(found !== undefined, `there is no span ${name} among ${spans.map((span) => span.name)}`);
  return found;
}

const has =
  (...names: readonly string[]) =>
  (spans: readonly ReceivedSpan[]): boolean =>
    names.every((name) => spans.some((span) => span.name === name));

const randomHex = (bytes: number): string => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex');

/** A program in another language: metadata of a call is all that it has. */
function call(client: grpc.Client, method: string, request: Buffer, traceparent?: string): Promise<Buffer> {
  const metadata = new grpc.Metadata();
  if (traceparent !== undefined) metadata.set('traceparent', traceparent);
  const same = (bytes: Buffer): Buffer => bytes;
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(`/broker.Broker/${method}`, same, same, request, metadata, {}, (error, response) => {
      if (error === null) resolve(response as Buffer);
      else reject(error);
    });
  });
}

async function metric(broker: BrokerProcess, name: string): Promise<number> {
  const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
  const row = text.split('\n').find((line) => line.startsWith(`${name} `));
  return Number(row?.slice(name.length + 1) ?? 0);
}

const PARTS = ['admission', 'ring', 'gather', 'ids', 'store', 'acknowledge'];
const BODY = 'canary-of-a-body';

async function consumeOne(client: Client, subject: string): Promise<Message> {
  for await (const message of client.subscribe(subject, { start: 'earliest' })) {
    tracer.startSpan('process', { kind: SpanKind.CONSUMER }, traceContext(message)).end();
    return message;
  }
  return assert.fail('the subscription has ended');
}

describe('A broker that traces what comes sampled', () => {
  let broker: BrokerProcess;
  let client: Client;
  let plain: grpc.Client;

  before(async () => {
    const flags = ['--tracing-endpoint', receiver.endpoint, '--tracing-ratio', '0', '--shards', '2'];
    broker = await startBroker({ flags, env: { BROKER_TRACING_HEADERS: 'x-key=canary-of-a-key,x-other=1' } });
    client = connect(broker.address);
    plain = new grpc.Client(broker.address, grpc.credentials.createInsecure());
  });

  after(async () => {
    plain.close();
    await client.close();
    await broker.dispose();
  });

  for (const way of ['publisher', 'publish'] as const) {
    it(`one trace leads from a producer (${way}) over the threads of the broker to a consumer`, async () => {
      const subject = `traced.${way}`;
      const subscription = client.subscribe(subject, { start: 'earliest' });
      await subscription.started;
      const consumed = (async () => {
        for await (const message of subscription) {
          tracer.startSpan('process', { kind: SpanKind.CONSUMER }, traceContext(message)).end();
          return;
        }
      })();
      const producing = tracer.startSpan('send', { kind: SpanKind.PRODUCER });
      await context.with(trace.setSpan(context.active(), producing), async () => {
        if (way === 'publish') await client.publish(subject, BODY);
        else await client.publisher().publish(subject, BODY);
      });
      producing.end();
      await consumed;
      const { traceId, spanId } = producing.spanContext();
      const spans = await receiver.trace(traceId, has('send', 'publish', 'deliver', 'process', 'log', ...PARTS));

      const publish = named(spans, 'publish');
      assert.equal(publish.parentSpanId, spanId);
      assert.equal(publish.kind, 2, 'a server span');
      assert.equal(publish.attributes['messaging.system'], 'broker');
      assert.equal(publish.attributes['messaging.destination.name'], subject);
      assert.equal(publish.attributes['messaging.operation.type'], 'send');
      assert.equal(publish.attributes['messaging.batch.message_count'], 1);
      assert.equal(publish.attributes['broker.first_id'], 1);
      assert.equal(publish.resource['service.name'], 'broker');
      let before = publish.startMs;
      for (const name of PARTS) {
        const part = named(spans, name);
        assert.equal(part.parentSpanId, publish.spanId, name);
        assert(part.startMs >= before, `${name} begins where the one before it has begun`);
        assert(part.endMs >= part.startMs && part.endMs <= publish.endMs, `${name} is within the publish`);
        before = part.startMs;
      }
      const ids = named(spans, 'ids');
      const log = named(spans, 'log');
      assert.equal(log.parentSpanId, ids.spanId);
      assert(log.startMs >= ids.startMs && log.endMs <= ids.endMs, 'threads stamp one clock');
      const threads = new Set(spans.map(({ attributes }) => attributes['thread.name']));
      assert(threads.has('main') && threads.has('raft'), `threads: ${[...threads]}`);
      assert([...threads].some((thread) => String(thread).startsWith('shard ')));
      const deliver = named(spans, 'deliver');
      assert.equal(deliver.parentSpanId, publish.spanId);
      assert.deepEqual(deliver.links, [{ traceId, spanId }]);
      assert.equal(deliver.attributes['broker.streams'], 1);
      assert.equal(named(spans, 'process').parentSpanId, spanId);
    });
  }

  it('every message of a batch that brings a context of its own is linked to', async () => {
    const publisher = client.publisher();
    const producers = Array.from({ length: 5 }, (_, i) => tracer.startSpan(`send ${i}`));
    const sent = producers.map((span) =>
      context.with(trace.setSpan(context.active(), span), () => publisher.publish('traced.many', BODY)),
    );
    const ids = await Promise.all(sent);
    for (const span of producers) span.end();
    assert.deepEqual(ids, [1, 2, 3, 4, 5]);
    const contexts = producers.map((span) => span.spanContext());
    const linked = (): Set<string> => {
      const spans = receiver.spans.filter(
        ({ name, attributes }) => name === 'publish' && attributes['messaging.destination.name'] === 'traced.many',
      );
      return new Set(spans.flatMap(({ parentSpanId, links }) => [parentSpanId, ...links.map(({ spanId }) => spanId)]));
    };
    await until(
      () => contexts.every(({ spanId }) => linked().has(spanId)),
      () => `${[...linked()]} of ${contexts.map(({ spanId }) => spanId)}`,
    );
  });

  it('calls of a program that has only metadata are traced: Publish, and Fetch', async () => {
    const publishing = randomHex(16);
    const span = randomHex(8);
    const request = encodePublish({ subject: 'traced.metadata', body: Buffer.from(BODY) });
    await call(plain, 'Publish', request, `00-${publishing}-${span}-01`);
    const published = await receiver.trace(publishing, has('publish', ...PARTS));
    assert.equal(named(published, 'publish').parentSpanId, span);
    assert.equal(named(published, 'publish').attributes['rpc.method'], 'Publish');

    const fetching = randomHex(16);
    await call(plain, 'Fetch', encodeFetch('traced.metadata', 1), `00-${fetching}-${span}-01`);
    const [fetched] = await receiver.trace(fetching, has('fetch'));
    assert.equal(fetched?.parentSpanId, span);
    assert.equal(fetched?.attributes['messaging.operation.type'], 'receive');
    assert.equal(fetched?.attributes['messaging.destination.name'], 'traced.metadata');
  });

  it('a call that is refused is traced with its reason, whoever refuses it', async () => {
    const early = randomHex(16);
    const span = randomHex(8);
    const invalid = encodePublish({ subject: 'not..valid', body: Buffer.from(BODY) });
    await assert.rejects(call(plain, 'Publish', invalid, `00-${early}-${span}-01`));
    const [refused] = await receiver.trace(early, has('publish'));
    assert.equal(refused?.status, 2);
    assert.equal(refused?.attributes['error.type'], 'SUBJECT_EMPTY_TOKEN');

    const late = randomHex(16);
    const absent = encodeFetch('traced.absent', 7);
    await assert.rejects(call(plain, 'Fetch', absent, `00-${late}-${span}-01`));
    const [failed] = await receiver.trace(late, has('fetch'));
    assert.equal(failed?.status, 2);

    const inShard = randomHex(16);
    const negative = encodePublish({ subject: 'traced.negative', body: Buffer.from(BODY), expirationSeconds: -1 });
    await assert.rejects(call(plain, 'Publish', negative, `00-${inShard}-${span}-01`));
    const [judged] = await receiver.trace(inShard, has('publish'));
    assert.equal(judged?.attributes['error.type'], 'EXPIRATION_NEGATIVE');
  });

  it('the open of a stream is traced up to where it is live', async () => {
    const traceId = randomHex(16);
    const metadata = new grpc.Metadata();
    metadata.set('traceparent', `00-${traceId}-${randomHex(8)}-01`);
    const same = (bytes: Buffer): Buffer => bytes;
    const request = encodeFetch('traced.metadata', 1).subarray(0, 2 + 'traced.metadata'.length);
    const stream = plain.makeServerStreamRequest('/broker.Broker/Subscribe', same, same, request, metadata);
    stream.on('error', () => undefined);
    const [opened] = await receiver.trace(traceId, has('subscribe'));
    stream.cancel();
    assert.equal(opened?.attributes['messaging.destination.name'], 'traced.metadata');
  });

  it('what comes without a context, or with one that is not sampled or not sound, is not traced', async () => {
    const traced = await metric(broker, 'broker_traces_total');
    const request = encodePublish({ subject: 'untraced', body: Buffer.from(BODY) });
    const ids = `${randomHex(16)}-${randomHex(8)}`;
    for (const traceparent of [undefined, `00-${ids}-00`, `00-${ids}-0`, 'nonsense', `ff-${ids}-01`]) {
      await call(plain, 'Publish', request, traceparent);
    }
    assert.equal(await metric(broker, 'broker_traces_total'), traced);
    const sampled = randomHex(16);
    await call(plain, 'Publish', request, `00-${sampled}-${randomHex(8)}-01`);
    await receiver.trace(sampled, has('publish'));
    assert.equal(await metric(broker, 'broker_traces_total'), traced + 1);
  });

  it('no body of a message, and no secret, is in a span or in the log', async () => {
    await receiver.trace((await publishedTrace(plain)).traceId, has('publish'));
    assert.equal(receiver.headers['x-key'], 'canary-of-a-key');
    assert.equal(receiver.headers['x-other'], '1');
    assert(!JSON.stringify(receiver.spans).includes('canary'));
    assert(!broker.logs.includes('canary'));
  });

  it('spans that wait are sent before the broker stops', async () => {
    const { traceId } = await publishedTrace(plain);
    const { code } = await broker.stop();
    assert.equal(code, 0);
    assert(receiver.spans.some((span) => span.traceId === traceId && span.name === 'publish'));
  });
});

async function publishedTrace(client: grpc.Client): Promise<{ readonly traceId: string }> {
  const traceId = randomHex(16);
  const request = encodePublish({ subject: 'traced.last', body: Buffer.from(BODY) });
  await call(client, 'Publish', request, `00-${traceId}-${randomHex(8)}-01`);
  return { traceId };
}

describe('How much is traced', () => {
  const publishAll = async (broker: BrokerProcess, count: number, traceparent?: string): Promise<void> => {
    const client = new grpc.Client(broker.address, grpc.credentials.createInsecure());
    const request = encodePublish({ subject: 'counted', body: Buffer.from('x') });
    for (let sent = 0; sent < count; sent += 100) {
      await Promise.all(Array.from({ length: 100 }, () => call(client, 'Publish', request, traceparent)));
    }
    client.close();
  };

  it('tracing.ratio: about that share of what says nothing', async () => {
    const flags = ['--tracing-endpoint', receiver.endpoint, '--tracing-ratio', '0.2'];
    await using broker = await startBroker({ flags: [...flags, '--tracing-traces-per-second', '100000'] });
    await publishAll(broker, 3_000);
    const traced = await metric(broker, 'broker_traces_total');
    // Six standard deviations of 3,000 draws: 131.
    assert(Math.abs(traced - 600) < 132, `${traced} of 3,000`);
  });

  it('tracing.traces_per_second: a caller that samples everything is held to it, and the rest is counted', async () => {
    const flags = ['--tracing-endpoint', receiver.endpoint, '--tracing-ratio', '0', '--tracing-traces-per-second', '1'];
    await using broker = await startBroker({ flags });
    const began = performance.now();
    await publishAll(broker, 500, `00-${randomHex(16)}-${randomHex(8)}-01`);
    const seconds = (performance.now() - began) / 1000;
    const traced = await metric(broker, 'broker_traces_total');
    assert(traced >= 1 && traced <= 2 + seconds, `${traced} traces in ${seconds} s`);
    assert.equal(await metric(broker, 'broker_traces_refused_total'), 500 - traced);
  });

  it('tracing.parent_based off: the ratio alone decides', async () => {
    const flags = ['--tracing-endpoint', receiver.endpoint, '--tracing-ratio', '0', '--tracing-parent-based', 'false'];
    await using broker = await startBroker({ flags });
    await publishAll(broker, 100, `00-${randomHex(16)}-${randomHex(8)}-01`);
    await using client = connect(broker.address);
    const span = tracer.startSpan('send');
    await context.with(trace.setSpan(context.active(), span), () => client.publish('counted', 'x'));
    assert.equal(await metric(broker, 'broker_traces_total'), 0);
  });
});

describe('A collector that is not there', () => {
  it('delays no call: spans are dropped, counted and told of once', async () => {
    // Taken, so that nobody else is given the port, and closed to whoever connects.
    const closed = createServer((socket) => socket.destroy())
      .listen(0, '127.0.0.1')
      .unref();
    await once(closed, 'listening');
    const { port } = closed.address() as AddressInfo;
    const flags = ['--tracing-endpoint', `http://127.0.0.1:${port}`, '--tracing-ratio', '1'];
    await using broker = await startBroker({ flags });
    await using client = connect(broker.address);
    for (let i = 0; i < 50; i++) await client.publish('unheard', 'x');
    const failed = 'broker_trace_spans_total{outcome="failed"}';
    await until(
      async () => (await metric(broker, failed)) > 0 && broker.logs.includes('spans could not be sent'),
      () => broker.logs,
    );
    assert.equal(broker.logs.split('spans could not be sent').length, 2, broker.logs);
    assert.equal((await broker.stop()).code, 0);
    closed.close();
  });

  it('or does not answer: a broker that stops waits two seconds for it at most', async () => {
    await using silent = await OtlpReceiver.listen();
    silent.isSilent = true;
    await using broker = await startBroker({ flags: ['--tracing-endpoint', silent.endpoint, '--tracing-ratio', '1'] });
    await using client = connect(broker.address);
    await client.publish('unanswered', 'x');
    await until(
      () => silent.requests > 0,
      () => broker.logs,
    );
    assert.equal((await broker.stop()).code, 0);
  });

  it('or whose exporter fails at its end: the broker says so and stops all the same, the admin port and its data directory too', async () => {
    const exporter = import.meta.resolve('@opentelemetry/exporter-trace-otlp-proto');
    const source = `import { OTLPTraceExporter } from '${exporter}';
      OTLPTraceExporter.prototype.shutdown = () => Promise.reject(new Error('planted'));`;
    const hook = `data:text/javascript,${encodeURIComponent(source)}`;
    const flags = ['--tracing-endpoint', receiver.endpoint];
    await using broker = await startBroker({ flags, nodeFlags: ['--import', hook] });
    assert.equal((await broker.stop()).code, 0);
    const said = broker.logs.split('\n').map((line) => JSON.parse(line) as Record<string, string>);
    const failure = said.find(({ msg }) => msg === 'something failed as it stopped');
    assert.equal(failure?.what, 'tracing', broker.logs);
    assert.match(failure?.error ?? '', /^Error: planted/);
    // The last lines may overtake the one that is being written (LogSink).
    assert.ok(
      said.some(({ msg }) => msg === 'stopped'),
      broker.logs,
    );
  });
});

describe('A broker without tracing.endpoint', () => {
  const hook = fileURLToPath(new URL('../support/imports-told.mjs', import.meta.url));

  it('loads no SDK and no exporter, on no thread, and takes contexts for ordinary headers', async () => {
    await using broker = await startBroker({ nodeFlags: ['--import', hook] });
    await using client = connect(broker.address);
    const span = tracer.startSpan('send');
    const message = await context.with(trace.setSpan(context.active(), span), async () => {
      await client.publish('off', BODY);
      return await consumeOne(client, 'off');
    });
    const header = message.headers.find(({ key }) => key === 'traceparent');
    assert.match(Buffer.from(header?.value ?? []).toString(), new RegExp(span.spanContext().traceId));
    await broker.stop();
    // prom-client loads the API, which does nothing by itself.
    assert.doesNotMatch(broker.logs, /@opentelemetry\/(?!api\/)/);
  });

  it('and with it, it does: the hook sees what is loaded', async () => {
    await using broker = await startBroker({
      nodeFlags: ['--import', hook],
      flags: ['--tracing-endpoint', receiver.endpoint],
    });
    await until(
      () => broker.logs.includes('exporter-trace-otlp-proto'),
      () => broker.logs,
    );
  });
});
