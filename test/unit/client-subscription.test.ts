/** Subscriptions against a server that speaks Consume frame by frame, and says what no real broker would say just then. */
import assert from 'node:assert/strict';
import { constants } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { type Client, connect, type SubscribeOptions } from '../../src/client/index.ts';
import { BACKOFF } from '../../src/client/retry.ts';
import { baseCallOf, type StreamingCall } from '../../src/grpc/base-call.ts';
import { ConsumeRequest, ConsumeResponse } from '../../src/grpc/gen/broker/v1/consumer.ts';
import { makeStatus } from '../../src/grpc/status.ts';

type Call = ServerDuplexStream<ConsumeRequest, ConsumeResponse>;

interface Stream {
  readonly call: Call;
  /** Of the streams of this server, from 1. */
  readonly number: number;
  started(complete: boolean): void;
  /** A batch of so many messages of the subject `s`. */
  deliver(firstId: number, count: number): void;
}

const EMPTY = { deliveries: [], started: undefined, heartbeat: undefined };

async function serve(t: TestContext, onOpen: (stream: Stream) => void): Promise<Client> {
  const server = new Server();
  const codec = {
    requestSerialize: (message: ConsumeRequest) => Buffer.from(ConsumeRequest.encode(message).finish()),
    requestDeserialize: (bytes: Buffer) => ConsumeRequest.decode(bytes),
    responseSerialize: (message: ConsumeResponse) => Buffer.from(ConsumeResponse.encode(message).finish()),
    responseDeserialize: (bytes: Buffer) => ConsumeResponse.decode(bytes),
  };
  let streams = 0;
  server.addService(
    { Consume: { path: '/broker.v1.Consumer/Consume', requestStream: true, responseStream: true, ...codec } },
    {
      Consume: (call: Call) => {
        call.on('error', () => undefined);
        call.on('data', ({ open }: ConsumeRequest) => {
          if (open === undefined) return;
          streams += 1;
          onOpen(streamOf(call, streams));
        });
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  const client = connect(`127.0.0.1:${port}`);
  t.after(async () => {
    await client.close();
    server.forceShutdown();
  });
  return client;
}

function streamOf(call: Call, number: number): Stream {
  return {
    call,
    number,
    started: (complete) => {
      call.write({ ...EMPTY, started: { positions: [{ subject: 's', nextId: 1, head: 0, settled: 0 }], complete } });
    },
    deliver: (firstId, count) => {
      const records = Array.from({ length: count }, () => ({
        body: Buffer.from('x'),
        headers: [],
        expirationSeconds: 0,
      }));
      call.write({ ...EMPTY, deliveries: [{ subject: 's', firstId, count, publishedAt: 1, records: { records } }] });
    },
  };
}

async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  return await Promise.race([
    promise.then(
      () => true,
      () => true,
    ),
    new Promise<boolean>((resolve) => setImmediate(() => resolve(false))),
  ]);
}

test('`started` waits for the last of several Started: only then every start is fixed', async (t) => {
  const streams: Stream[] = [];
  const client = await serve(t, (stream) => {
    streams.push(stream);
    stream.started(false);
    stream.deliver(1, 1);
  });
  const subscription = client.subscribe(['s', 'x.*']);
  const messages = subscription[Symbol.asyncIterator]();
  await messages.next();
  assert.equal(await isSettled(subscription.started), false);
  streams[0]?.started(true);
  await subscription.started;
});

test('a subscription whose stream is reset because its client stood still goes on behind what it has', async (t) => {
  const client = await serve(t, (stream) => {
    stream.started(true);
    stream.deliver(stream.number, 1);
    if (stream.number > 1) return;
    // Behind what was written: no status can come any more.
    setImmediate(() =>
      baseCallOf(stream.call as unknown as StreamingCall).stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM),
    );
  });
  const ids: number[] = [];
  for await (const { id } of client.subscribe('s')) {
    ids.push(id);
    if (ids.length === 2) break;
  }
  assert.deepEqual(ids, [1, 2]);
});

for (const turns of [0, 1, 2, 3, 4, 5]) {
  test(`a subscription that is closed ${turns} turns behind its beginning ends`, { timeout: 10_000 }, async (t) => {
    const client = await serve(t, (stream) => stream.started(true));
    const first = client.subscribe('s');
    await first.started;
    const subscription = client.subscribe('s');
    for (let i = 0; i < turns; i++) await null;
    await subscription.close();
    const abort = new AbortController();
    const aborted = client.subscribe('s', { signal: abort.signal });
    for (let i = 0; i < turns; i++) await null;
    abort.abort();
    await aborted.closed;
    await assert.rejects(aborted.started, { name: 'AbortError' });
  });
}

test('a signal stops the delivery at once, whatever was received before', async (t) => {
  const client = await serve(t, (stream) => {
    stream.started(true);
    for (let i = 0; i < 10; i++) stream.deliver(1 + i * 100, 100);
  });
  const abort = new AbortController();
  const ids: number[] = [];
  for await (const { id } of client.subscribe('s', { signal: abort.signal })) {
    ids.push(id);
    if (id === 3) abort.abort();
  }
  assert.deepEqual(ids, [1, 2, 3]);
  const closing = client.subscribe('s');
  let batches = 0;
  for await (const _ of closing.batches()) {
    batches += 1;
    void closing.close();
  }
  assert.equal(batches, 1);
});

const UNFIT: readonly (readonly [string, SubscribeOptions])[] = [
  ['a broken id', { start: { id: 1.5 } }],
  ['no id', { start: { id: Number.NaN } }],
  ['the id 0', { start: { id: 0 } }],
  ['an id that a number cannot hold', { start: { id: 2 ** 53 } }],
  ['a date that is none', { start: { time: new Date('yesterday') } }],
  ['a broken time', { start: { time: 0.5 } }],
  ['another word', { start: 'latest' as 'new' }],
  ['nothing', { start: null as unknown as 'new' }],
  ['no credit', { credit: { messages: Number.NaN } }],
  ['a broken credit', { credit: { bytes: 1.5 } }],
  ['the credit 0', { credit: { bytes: 0 } }],
  ['a heartbeat that is too fast', { heartbeatMs: 99 }],
  ['a broken heartbeat', { heartbeatMs: 100.5 }],
];

test('options that no stream can be opened with are refused before anything is opened', async (t) => {
  let streams = 0;
  const client = await serve(t, () => {
    streams += 1;
  });
  for (const [what, options] of UNFIT) assert.throws(() => client.subscribe('s', options), RangeError, what);
  assert.throws(() => client.subscribe([]), RangeError);
  assert.throws(() => client.subscribe(['s', 7 as unknown as string]), TypeError);
  await client.close();
  assert.equal(streams, 0);
});

test('a subscription to whom nothing is published comes back soon, however often its streams break', async (t) => {
  const STREAMS = 12;
  const times: number[] = [];
  const enough = Promise.withResolvers<void>();
  const client = await serve(t, (stream) => {
    times.push(performance.now());
    stream.started(true);
    if (stream.number < STREAMS) stream.call.emit('error', makeStatus('SHUTTING_DOWN', ''));
    else enough.resolve();
  });
  client.subscribe('s');
  await enough.promise;
  const lastWaits = times.slice(1).map((time, index) => time - (times[index] as number));
  // The least that the wait behind eight and more failures in a row can be.
  const longest = BACKOFF.maxMs / 2;
  assert.ok(Math.min(...lastWaits.slice(-3)) < longest, `${lastWaits}`);
});
