/** The publisher against a server that speaks PublishStream frame by frame, and ends streams as no real broker would on demand. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Server, ServerCredentials, type ServerDuplexStream } from '@grpc/grpc-js';
import { ChunkPool } from '../../src/client/chunk-pool.ts';
import { Endpoints, insecure } from '../../src/client/endpoints.ts';
import { type ClientError, connect, type Publisher, type PublisherOptions } from '../../src/client/index.ts';
import { PublishLane } from '../../src/client/publish-lane.ts';
import { BACKOFF, RetryBudget } from '../../src/client/retry.ts';
import { type BatchError, PublishStreamRequest, PublishStreamResponse } from '../../src/grpc/gen/broker/v1/producer.ts';
import { makeStatus } from '../../src/grpc/status.ts';

type Call = ServerDuplexStream<PublishStreamRequest, PublishStreamResponse | Buffer>;

interface Stream {
  readonly call: Call;
  readonly producerId: string;
  readonly firstSequence: number;
  /** Of the streams of this server, from 1. */
  readonly number: number;
  opened(lastSequence?: number): void;
  stored(sequence: number, firstId: number, count?: number): void;
}

const EMPTY = { opened: undefined, acknowledged: 0, results: [], window: undefined };

interface Handlers {
  onOpen(stream: Stream): void;
  onBatch(stream: Stream, sequence: number, count: number, expectedLastId: number | undefined): void;
}

async function startServer(t: TestContext, handlers: Handlers): Promise<string> {
  const server = new Server();
  const codec = {
    requestSerialize: (message: PublishStreamRequest) => Buffer.from(PublishStreamRequest.encode(message).finish()),
    requestDeserialize: (bytes: Buffer) => PublishStreamRequest.decode(bytes),
    responseSerialize: (message: PublishStreamResponse | Buffer) =>
      Buffer.isBuffer(message) ? message : Buffer.from(PublishStreamResponse.encode(message).finish()),
    responseDeserialize: (bytes: Buffer) => PublishStreamResponse.decode(bytes),
  };
  const path = '/broker.v1.Producer/PublishStream';
  let streams = 0;
  server.addService(
    { PublishStream: { path, requestStream: true, responseStream: true, ...codec } },
    {
      PublishStream: (call: Call) => {
        let stream: Stream | null = null;
        call.on('error', () => undefined);
        call.on('data', ({ open, batches }: PublishStreamRequest) => {
          if (open !== undefined) {
            streams += 1;
            stream = streamOf(call, open, streams);
            handlers.onOpen(stream);
          }
          for (const { sequence, records, expectedLastId } of batches) {
            handlers.onBatch(stream as Stream, sequence, records?.records.length ?? 0, expectedLastId);
          }
        });
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  t.after(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

async function serve(t: TestContext, handlers: Handlers, options: PublisherOptions = {}) {
  const client = connect(await startServer(t, handlers));
  const publisher = client.publisher(options);
  t.after(async () => {
    await publisher.close({ signal: AbortSignal.abort() }).catch(() => undefined);
    await client.close();
  });
  return publisher;
}

function streamOf(call: Call, open: { producerId: string; firstSequence: number }, number: number): Stream {
  return {
    call,
    number,
    ...open,
    opened: (lastSequence = 0) => {
      const limits = { batchesInFlightMax: 1_024, batchBytesMax: 1 << 20, batchMessagesMax: 10_000 };
      const window = { bytesLimit: 1 << 30, messagesLimit: 1 << 30 };
      call.write({ ...EMPTY, opened: { lastSequence, durability: 1, ...limits }, window });
    },
    stored: (sequence, firstId, count = 1) => {
      const result = { sequence, firstId, lastId: firstId + count - 1, error: undefined };
      call.write({ ...EMPTY, acknowledged: sequence, results: [result] });
    },
  };
}

test('a stream that breaks is opened again from the lowest sequence without a result', async (t) => {
  const opens: number[] = [];
  const publisher = await serve(
    t,
    {
      onOpen: (stream) => {
        opens.push(stream.firstSequence);
        stream.opened();
      },
      onBatch: (stream, sequence) => {
        if (stream.number === 1 && sequence === 2) stream.call.emit('error', makeStatus('SHUTTING_DOWN', ''));
        else if (stream.number > 1 || sequence < 2) stream.stored(sequence, sequence);
      },
    },
    { batchMessages: 1 },
  );
  assert.equal(await publisher.publish('s', 'a'), 1);
  assert.deepEqual(await Promise.all([publisher.publish('s', 'b'), publisher.publish('s', 'c')]), [2, 3]);
  assert.deepEqual(opens, [1, 2]);
});

test('[R26] a producer that the broker has forgotten takes another name, if nothing of it may have been stored', async (t) => {
  const names: string[] = [];
  const publisher = await serve(t, {
    onOpen: (stream) => {
      names.push(`${stream.producerId} ${stream.firstSequence}`);
      if (stream.number === 2) stream.call.emit('error', makeStatus('SEQUENCE_UNKNOWN', ''));
      else stream.opened();
    },
    onBatch: (stream, sequence) => {
      stream.stored(sequence, stream.number);
      if (stream.number === 1) stream.call.emit('error', makeStatus('SHUTTING_DOWN', ''));
    },
  });
  assert.equal(await publisher.publish('s', 'a'), 1);
  while (names.length < 3) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(await publisher.publish('s', 'b'), 3);
  assert.equal(names[0], `${publisher.producerId} 1`);
  assert.equal(names[1], `${publisher.producerId} 2`);
  assert.match(names[2] ?? '', / 1$/);
  assert.ok(!names[2]?.startsWith(publisher.producerId));
});

test('a producer id that was given is not exchanged: the publisher ends with the reason', async (t) => {
  const publisher = await serve(
    t,
    {
      onOpen: (stream) => void stream.call.emit('error', makeStatus('SEQUENCE_UNKNOWN', '')),
      onBatch: () => assert.fail(),
    },
    { producerId: 'mine' },
  );
  await assert.rejects(publisher.publish('s', 'a'), (error: ClientError) => error.reason === 'SEQUENCE_UNKNOWN');
  await assert.rejects(publisher.publish('s', 'b'), (error: ClientError) => error.outcome === 'none');
  assert.throws(() => publisher.tryPublish('s', 'c'), /SEQUENCE_UNKNOWN/);
});

test('another publisher with the same id ends this one, which does not fight for it', async (t) => {
  let streams = 0;
  const publisher = await serve(t, {
    onOpen: (stream) => {
      streams = stream.number;
      stream.opened();
    },
    onBatch: (stream) => void stream.call.emit('error', makeStatus('PRODUCER_REPLACED', '')),
  });
  await assert.rejects(
    publisher.publish('s', 'a'),
    (error: ClientError) => error.reason === 'PRODUCER_REPLACED' && error.outcome === 'unknown',
  );
  assert.equal(streams, 1);
});

const NONSENSE: readonly (readonly [string, (stream: Stream) => void])[] = [
  ['a result of a batch that was never sent', (stream) => stream.stored(99, 1)],
  ['bytes that are no message', (stream) => void stream.call.write(Buffer.from([0x1a, 0x7f, 1]))],
];

for (const [what, answer] of NONSENSE) {
  test(`a server that sends ${what} fails the publisher instead of the program`, async (t) => {
    const publisher = await serve(t, { onOpen: (stream) => stream.opened(), onBatch: answer });
    await assert.rejects(publisher.publish('s', 'a'), (error: ClientError) => error.status === 'INTERNAL');
  });
}

test('a server without PublishStream says so', async (t) => {
  const server = new Server();
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
  const publisher = client.publisher();
  await assert.rejects(publisher.publish('s', 'a'), (error: ClientError) => error.status === 'UNIMPLEMENTED');
});

test('what has no result within deliveryTimeoutMs fails, and says whether it was sent', async (t) => {
  const publisher = await serve(
    t,
    { onOpen: (stream) => stream.opened(), onBatch: () => undefined },
    { deliveryTimeoutMs: 100 },
  );
  await assert.rejects(
    publisher.publish('s', 'a'),
    (error: ClientError) => error.name === 'TimeoutError' && error.outcome === 'unknown',
  );
  const lonely = connect('127.0.0.1:1').publisher({ deliveryTimeoutMs: 100 });
  t.after(() => lonely.close());
  await assert.rejects(
    lonely.publish('s', 'a'),
    (error: ClientError) => error.name === 'TimeoutError' && error.outcome === 'none',
  );
});

test('messages of one turn go together, and those that come while a batch is on its way wait for the linger', async (t) => {
  const counts: number[] = [];
  const sent: (() => void)[] = [];
  const publisher = await serve(
    t,
    {
      onOpen: (stream) => stream.opened(),
      onBatch: (stream, sequence, count) => {
        counts.push(count);
        if (counts.length === 1) sent.push(() => stream.stored(sequence, 1, count));
        else stream.stored(sequence, 101, count);
      },
    },
    { linger: 50 },
  );
  const first = Promise.all(Array.from({ length: 100 }, () => publisher.publish('s', 'x')));
  while (counts.length === 0) await new Promise((resolve) => setImmediate(resolve));
  const rest: Promise<number>[] = [];
  for (let i = 0; i < 10; i++) {
    rest.push(publisher.publish('s', 'x'));
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal((await Promise.all(rest)).at(-1), 110);
  assert.deepEqual(counts, [100, 10]);
  for (const answer of sent) answer();
  assert.equal((await first).at(-1), 100);
});

test('calls beyond waitersMax are refused while the buffer is full', async (t) => {
  const options = { bufferBytes: 1_024, batchBytes: 1_024, waitersMax: 2 };
  const publisher = await serve(t, { onOpen: () => undefined, onBatch: () => assert.fail() }, options);
  const body = Buffer.alloc(2_000);
  const taken = [1, 2, 3].map(() => publisher.publish('s', body));
  for (const promise of taken) promise.catch(() => undefined);
  await assert.rejects(
    publisher.publish('s', body),
    (error: ClientError) => error.name === 'UsageError' && error.retryable,
  );
  assert.equal(publisher.tryPublish('s', body), false);
});

test('a lane that is closed as soon as it is connected ends', { timeout: 10_000 }, async (t) => {
  const address = await startServer(t, { onOpen: (stream) => stream.opened(), onBatch: () => assert.fail() });
  const endpoints = new Endpoints([address], { credentials: insecure(), failFast: false, random: () => 0 });
  t.after(() => endpoints.close());
  await endpoints.connect(Number.POSITIVE_INFINITY, undefined);
  const port = { stored: () => assert.fail(), failed: () => assert.fail(), onBroken: () => assert.fail() };
  const options = {
    producerId: 'p',
    isFixedId: false,
    lingerMs: 2,
    batchBytes: 65_536,
    batchMessages: 100,
    deliveryTimeoutMs: 1_000,
    budget: new RetryBudget(),
    backoff: BACKOFF,
    random: () => 0,
    newProducerId: () => 'q',
    pool: new ChunkPool(0),
    now: () => performance.now(),
  };
  for (let turns = 0; turns < 6; turns++) {
    const lane = new PublishLane(endpoints, options, port);
    for (let i = 0; i < turns; i++) await null;
    await lane.close();
  }
});

test('a message that is larger than the broker takes fails alone: before it, beside it and behind it all goes on', async (t) => {
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream, sequence) => stream.stored(sequence, sequence),
  });
  const large = Buffer.alloc((1 << 20) + 1);
  const results = await Promise.allSettled([
    publisher.publish('s', 'a'),
    publisher.publish('s', large),
    publisher.publish('s', 'b'),
    publisher.publish('s', large, { expectedLastId: 2 }),
    publisher.publish('other', 'c'),
  ]);
  assert.deepEqual(
    results.map((result) => (result.status === 'fulfilled' ? 'stored' : result.reason.reason)),
    ['stored', 'BATCH_TOO_LARGE', 'stored', 'BATCH_TOO_LARGE', 'stored'],
  );
  assert.ok(publisher.tryPublish('s', large));
  await assert.rejects(publisher.flush(), (error: ClientError) => error.outcome === 'none' && !error.retryable);
  assert.equal(await publisher.publish('s', 'd'), 4);
});

test('a subject that no batch can carry is refused by itself, in every way to publish', async (t) => {
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream, sequence) => stream.stored(sequence, sequence),
  });
  const isRefused = (error: ClientError): boolean => error.reason === 'SUBJECT_TOO_LONG' && error.outcome === 'none';
  for (const subject of ['s'.repeat(256), 'ä'.repeat(128), 's'.repeat(5_000)]) {
    await assert.rejects(publisher.publish(subject, 'a'), isRefused);
    await assert.rejects(publisher.publishMany(subject, ['a', 'b'], { expectedLastId: 0 }), isRefused);
    assert.throws(() => publisher.tryPublish(subject, 'a'), isRefused);
  }
  assert.equal(await publisher.publish('s'.repeat(255), 'a', { expectedLastId: Number.MAX_SAFE_INTEGER }), 1);
  assert.equal(await publisher.publish(`ä${'s'.repeat(253)}`, 'a'), 2);
  assert.equal(publisher.stats.messages, 2);
});

/** Answers batches only once `release` is called. */
async function serveLate(t: TestContext) {
  const held: (() => void)[] = [];
  let isReleased = false;
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream, sequence, count) => {
      const answer = (): void => stream.stored(sequence, sequence, count);
      if (isReleased) answer();
      else held.push(answer);
    },
  });
  const release = (): void => {
    isReleased = true;
    for (const answer of held.splice(0)) answer();
  };
  return { publisher, held, release };
}

test('a publisher that is closed twice waits for what it has taken, and takes nothing more', async (t) => {
  const { publisher, held, release } = await serveLate(t);
  const published = publisher.publish('s', 'a');
  while (held.length === 0) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(publisher.tryPublish('s', 'b'));
  const closes = [publisher.close(), publisher.close(), publisher[Symbol.asyncDispose]()];
  const isClosed = (error: ClientError): boolean => error.name === 'UsageError' && error.outcome === 'none';
  assert.throws(() => publisher.tryPublish('s', 'c'), isClosed);
  await assert.rejects(publisher.publish('s', 'c'), isClosed);
  release();
  assert.equal(await published, 1);
  await Promise.all(closes);
  const { messages, stored, failed } = publisher.stats;
  assert.deepEqual({ messages, stored, failed }, { messages: 2, stored: 2, failed: 0 });
  await publisher.close();
});

test('a signal of any close cuts the wait of all of them short', async (t) => {
  const { publisher } = await serveLate(t);
  const published = assert.rejects(publisher.publish('s', 'a'), { name: 'UsageError' });
  const first = assert.rejects(publisher.close(), /enough/);
  await assert.rejects(publisher.close({ signal: AbortSignal.abort(new Error('enough')) }), /enough/);
  await Promise.all([published, first]);
  await publisher[Symbol.asyncDispose]();
});

test('a condition that is no last id is refused instead of being left out', async (t) => {
  const publisher = await serve(t, { onOpen: (stream) => stream.opened(), onBatch: () => assert.fail() });
  for (const expectedLastId of [Number.NaN, -1, -5, 0.5, 2 ** 53, '3' as unknown as number]) {
    await assert.rejects(publisher.publish('s', 'a', { expectedLastId }), RangeError, String(expectedLastId));
    assert.throws(() => publisher.tryPublish('s', 'a', { expectedLastId }), RangeError, String(expectedLastId));
  }
});

test('tryPublish keeps to a condition too', async (t) => {
  const expected: (number | undefined)[] = [];
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream, sequence, _, condition) => {
      expected.push(condition);
      stream.stored(sequence, sequence);
    },
  });
  publisher.tryPublish('s', 'a', { expectedLastId: 0 });
  publisher.tryPublish('s', 'b');
  await publisher.flush();
  assert.deepEqual(expected, [0, undefined]);
  const { messages, stored, bufferedBytes } = publisher.stats;
  assert.deepEqual({ messages, stored, bufferedBytes }, { messages: 2, stored: 2, bufferedBytes: 0 });
});

const UNFIT: readonly (readonly [string, (publisher: Publisher) => Promise<unknown>])[] = [
  ['an expiry below 0', (publisher) => publisher.publish('s', 'a', { expirationSeconds: -1 })],
  ['a broken expiry', (publisher) => publisher.publish('s', 'a', { expirationSeconds: 0.5 })],
  ['no body', (publisher) => publisher.publish('s', null as unknown as string)],
  ['no body among others', (publisher) => publisher.publishMany('s', ['a', 7 as unknown as string])],
  ['no list', (publisher) => publisher.publishMany('s', null as unknown as string[])],
  ['an empty list', (publisher) => publisher.publishMany('s', [])],
  ['no subject', (publisher) => publisher.publish(undefined as unknown as string, 'a')],
  ['a header that is a number', (publisher) => publisher.publish('s', 'a', { headers: { k: 7 as unknown as string } })],
];

test('arguments that cannot be sent reject their own call, and nothing of it is taken', async (t) => {
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream, sequence) => stream.stored(sequence, sequence),
  });
  for (const [what, publish] of UNFIT) {
    const promise = publish(publisher);
    await assert.rejects(promise, (error) => error instanceof RangeError || error instanceof TypeError, what);
  }
  assert.throws(() => publisher.tryPublish('s', null as unknown as string), TypeError);
  assert.equal(publisher.stats.messages, 0);
  assert.equal(await publisher.publish('s', 'b'), 1);
});

const OVERLOADED: BatchError = { code: 8, reason: 'STORE_UNAVAILABLE', message: '', outcome: 1, retryAfterMs: 50 };
function refuse(stream: Stream, sequence: number, error: BatchError = OVERLOADED): void {
  stream.call.write({ ...EMPTY, results: [{ sequence, firstId: 0, lastId: 0, error }] });
}
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('calls that wait for room fail too when the stream ends for good', { timeout: 10_000 }, async (t) => {
  let stream: Stream | null = null;
  const publisher = await serve(
    t,
    {
      onOpen: (opened) => {
        stream = opened;
        opened.opened();
      },
      onBatch: () => undefined,
    },
    { bufferBytes: 1_024, batchBytes: 1_024 },
  );
  const body = Buffer.alloc(700);
  const calls = [1, 2, 3, 4, 5].map(() => publisher.publish('s', body));
  const ends = calls.map((call) =>
    call.then(
      () => 'stored',
      (error: ClientError) => error.reason,
    ),
  );
  while (publisher.stats.batchesInFlight === 0) await wait(5);
  (stream as unknown as Stream).call.emit('error', makeStatus('PERMISSION_DENIED', ''));
  const late = wait(2_000).then(() => 'hangs');
  assert.deepEqual(
    await Promise.all(ends.map((end) => Promise.race([end, late]))),
    new Array(5).fill('PERMISSION_DENIED'),
  );
});

test('close tells of messages that were lost, and that nobody was told of', { timeout: 10_000 }, async (t) => {
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream) => void stream.call.emit('error', makeStatus('PERMISSION_DENIED', '')),
  });
  assert.ok(publisher.tryPublish('s', 'a'));
  while (publisher.stats.failed === 0) await wait(5);
  await assert.rejects(publisher.close(), (error: ClientError) => error.reason === 'PERMISSION_DENIED');
});

test('a lane without a stream does not look for retries all the time', { timeout: 10_000 }, async (t) => {
  const address = await startServer(t, {
    onOpen: (stream) => {
      if (stream.number === 1) stream.opened();
    },
    onBatch: (stream, sequence) => {
      refuse(stream, sequence);
      setTimeout(() => stream.call.emit('error', makeStatus('SHUTTING_DOWN', '')), 5);
    },
  });
  let looks = 0;
  const random = () => 0;
  const endpoints = new Endpoints([address], { credentials: insecure(), failFast: false, random });
  const lane = new PublishLane(
    endpoints,
    {
      producerId: 'p',
      isFixedId: true,
      lingerMs: 2,
      batchBytes: 65_536,
      batchMessages: 100,
      deliveryTimeoutMs: 60_000,
      budget: new RetryBudget(),
      backoff: BACKOFF,
      random,
      newProducerId: () => 'q',
      pool: new ChunkPool(1 << 20),
      now: () => {
        looks += 1;
        return performance.now();
      },
    },
    { stored: () => undefined, failed: () => undefined, onBroken: () => undefined },
  );
  lane.append('s', 'a', 1, 3, null);
  while (lane.streams === 0) await wait(5);
  await wait(500);
  const before = looks;
  await wait(1_000);
  await lane.close();
  endpoints.close();
  assert.ok(looks - before < 50, `${looks - before} looks within a second`);
});

test('the buffer of a publisher bounds its memory, also with a subject for each message', async (t) => {
  const publisher = await serve(t, { onOpen: () => undefined, onBatch: () => undefined }, { bufferBytes: 1 << 20 });
  const before = process.memoryUsage();
  let count = 0;
  while (publisher.tryPublish(`s${count}`, 'ten bytes!')) count += 1;
  const after = process.memoryUsage();
  const used = after.arrayBuffers - before.arrayBuffers;
  assert.ok(
    used < 16 << 20,
    `${Math.round(used / (1 << 20))} MiB of buffers, heap ${(after.heapUsed - before.heapUsed) >> 20} MiB for ${count} messages in a buffer of 1 MiB`,
  );
});

test('the buffer of a publisher bounds its memory, also while nobody answers', async (t) => {
  const publisher = await serve(t, { onOpen: () => undefined, onBatch: () => undefined }, { bufferBytes: 1 << 20 });
  const before = process.memoryUsage().arrayBuffers;
  let count = 0;
  for (const end = Date.now() + 2_000; Date.now() < end; await wait(3)) {
    publisher.tryPublish('s', 'ten bytes!');
    count += 1;
  }
  const used = process.memoryUsage().arrayBuffers - before;
  assert.ok(used < count * 200, `${used} bytes for ${count} messages of 10 bytes`);
});

test('calls that were aborted do not count as waiting', async (t) => {
  const publisher = await serve(
    t,
    { onOpen: (stream) => stream.opened(), onBatch: () => undefined },
    { bufferBytes: 1_024, batchBytes: 1_024, waitersMax: 2 },
  );
  assert.ok(publisher.tryPublish('s', Buffer.alloc(1_024)));
  for (let i = 0; i < 2; i++)
    await assert.rejects(publisher.ready({ signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' });
  await assert.rejects(
    publisher.ready({ signal: AbortSignal.timeout(20) }),
    (error: Error) => !/waitersMax/.test(error.message),
  );
});

test('an address that is none is told to whoever connects', async () => {
  assert.throws(() => connect(''), RangeError);
});

test('a publisher goes on when the streams of its channels are refused for the same old token, one after the other', {
  timeout: 20_000,
}, async (t) => {
  let asked = 0;
  const address = await startServer(t, {
    onOpen: (stream) => {
      const [said] = stream.call.metadata.get('authorization');
      if (said === 'Bearer t1' || said === 'Bearer t2')
        setTimeout(
          () => stream.call.emit('error', makeStatus('CREDENTIALS_EXPIRED', '')),
          said === 'Bearer t1' ? 2_100 : 2_600,
        );
      stream.opened();
    },
    onBatch: (stream, sequence) => stream.stored(sequence, sequence),
  });
  const client = connect(address, { token: () => `t${++asked}` });
  const publisher = client.publisher({ channels: 2 });
  t.after(() => client.close().catch(() => undefined));
  while (publisher.stats.streams < 2) await wait(5);
  await wait(3_500);
  for (let i = 0; i < 10; i++) await publisher.publish(`s${i}`, 'a');
});

test('a publisher of many subjects outlives two seconds of refusals', { timeout: 60_000 }, async (t) => {
  let isBack = false;
  let id = 0;
  const publisher = await serve(t, {
    onOpen: (stream) => stream.opened(),
    onBatch: (stream, sequence) => {
      if (isBack) stream.stored(sequence, ++id);
      else refuse(stream, sequence, { ...OVERLOADED, retryAfterMs: 500 });
    },
  });
  setTimeout(() => {
    isBack = true;
  }, 2_000);
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 1_000; i++) assert.ok(publisher.tryPublish(`s.${i}`, `${round}`));
    await wait(500);
  }
  await publisher.flush({ signal: AbortSignal.timeout(20_000) }).catch(() => undefined);
  assert.deepEqual([publisher.stats.stored, publisher.stats.batchesInFlight], [2_000, 0]);
});
