/** The client's calls and plain subscriptions against a server that speaks bytes and does as it is told. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import {
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from '@grpc/grpc-js';
import { Endpoints } from '../../src/client/endpoints.ts';
import { type ClientError, type ConnectOptions, connect, RefusedError, type Start } from '../../src/client/index.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';
import * as wire from '../support/wire.ts';

type Unary = (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => void;
type Streaming = (call: ServerWritableStream<Buffer, Buffer>) => void;

const raw = (bytes: Buffer): Buffer => bytes;

function method(name: string, responseStream: boolean) {
  const path = `/broker.Broker/${name}`;
  const codec = { requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw };
  return { path, requestStream: false, responseStream, ...codec };
}

interface Handlers {
  readonly Publish?: Unary;
  readonly Fetch?: Unary;
  readonly Subscribe?: Streaming;
}

async function startServer(t: TestContext, handlers: Handlers): Promise<string> {
  const server = new Server();
  const service = {
    Publish: method('Publish', false),
    Fetch: method('Fetch', false),
    Subscribe: method('Subscribe', true),
  };
  server.addService(service, { ...handlers });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  t.after(() => server.forceShutdown());
  return `127.0.0.1:${port}`;
}

async function serve(t: TestContext, handlers: Handlers, options: ConnectOptions = {}) {
  const client = connect(await startServer(t, handlers), { timeoutMs: 5_000, ...options });
  t.after(() => client.close());
  return client;
}

const STORED = stored(2 ** 53 - 1);

function stored(id: number, body: string | Uint8Array = 'body'): Buffer {
  return new wire.Writer()
    .bytes(1, body)
    .varint(2, id)
    .bytes(3, 'a.b')
    .varint(4, 1_700_000_000_000)
    .bytes(5, new wire.Writer().bytes(1, 'k').bytes(2, 'v').finish())
    .finish();
}

const ID_7 = new wire.Writer().varint(1, 7).finish();

test('publish sends the fields of PublishRequest and reads the id', async (t) => {
  const seen: Buffer[] = [];
  const client = await serve(t, {
    Publish: (call, done) => {
      seen.push(call.request);
      done(null, new wire.Writer().varint(1, 2 ** 53 - 1).finish());
    },
  });
  const headers = [{ key: 'k', value: Buffer.from('v') }];
  const body = Buffer.from([0, 255]);
  const producer = { id: 'p', sequence: 2 ** 40 };
  const id = await client.publish('ä', body, { headers: { k: 'v' }, expirationSeconds: 9, producer });
  assert.equal(id, 2 ** 53 - 1);
  const rest = { headers, expirationSeconds: 9, producerId: 'p', sequence: 2 ** 40 };
  assert.deepEqual(seen, [wire.encodePublish({ subject: 'ä', body, ...rest })]);
});

test('a call whose signal fires when the connection has just been made is not made', async (t) => {
  let calls = 0;
  const client = await serve(t, {
    Publish: (_call, done) => {
      calls += 1;
      done(null, ID_7);
    },
  });
  const controller = new AbortController();
  const made = Endpoints.prototype.connect;
  t.mock.method(Endpoints.prototype, 'connect', async function (this: Endpoints, ...args: Parameters<typeof made>) {
    const connected = await made.apply(this, args);
    controller.abort(new Error('enough'));
    return connected;
  });
  await assert.rejects(client.publish('a', 'b', { signal: controller.signal }), { message: 'enough' });
  assert.equal(calls, 0);
});

test('fetch reads every field of a message', async (t) => {
  const seen: Buffer[] = [];
  const client = await serve(t, {
    Fetch: (call, done) => {
      seen.push(call.request);
      done(null, STORED);
    },
  });
  const message = await client.fetch('a.b', 7);
  assert.deepEqual(seen, [wire.encodeFetch('a.b', 7)]);
  assert.equal(message.id, 2 ** 53 - 1);
  assert.equal(message.subject, 'a.b');
  assert.equal(message.publishedAt, 1_700_000_000_000);
  assert.equal(message.text, 'body');
  assert.deepEqual(
    message.headers.map(({ key, value }) => [key, Buffer.from(value).toString()]),
    [['k', 'v']],
  );
});

const STARTS: readonly [Start, wire.Start][] = [
  ['earliest', { at: 'earliest' }],
  [{ id: 5 }, { at: 'id', id: 5 }],
  [{ time: 0 }, { at: 'time', ms: 0 }],
];

for (const [start, expected] of STARTS) {
  test(`without Consume, subscribe from ${JSON.stringify(start)} falls back; a reader that stops cancels`, async (t) => {
    const cancelled = Promise.withResolvers<void>();
    const seen: Buffer[] = [];
    const client = await serve(t, {
      Subscribe: (call) => {
        seen.push(call.request);
        call.on('cancelled', () => cancelled.resolve());
        for (let id = 11; id <= 20; id += 1) call.write(stored(id));
      },
    });
    const ids: number[] = [];
    for await (const message of client.subscribe('s', { start })) {
      ids.push(message.id);
      assert.equal(message.text, 'body');
      assert.equal(message.publishedAt, 1_700_000_000_000);
      assert.equal(message.headers[0]?.key, 'k');
      if (ids.length === 2) break;
    }
    await cancelled.promise;
    assert.deepEqual(ids, [11, 12]);
    assert.deepEqual(seen, [wire.encodeSubscribe('s', expected)]);
  });
}

test('[P6] a subscription goes on behind what it has given when its stream breaks, and drops what comes again', async (t) => {
  const seen: wire.Start[] = [];
  let streams = 0;
  const client = await serve(t, {
    Subscribe: (call) => {
      streams += 1;
      seen.push(
        call.request.equals(wire.encodeSubscribe('s', { at: 'id', id: streams * 2 - 1 }))
          ? { at: 'id', id: streams * 2 - 1 }
          : { at: 'default' },
      );
      const from = Math.max(1, streams * 2 - 2);
      for (let id = from; id < streams * 2 + 1; id += 1) call.write(stored(id));
      call.emit('error', makeStatus('SHUTTING_DOWN', ''));
    },
  });
  const ids: number[] = [];
  for await (const message of client.subscribe('s', { start: { id: 1 } })) {
    ids.push(message.id);
    if (ids.length === 8) break;
  }
  assert.deepEqual(ids, [1, 2, 3, 4, 5, 6, 7, 8]);
  assert.deepEqual(
    seen,
    [1, 3, 5, 7].map((id) => ({ at: 'id', id })),
  );
});

test('a signal ends a subscription without an error', async (t) => {
  const abort = new AbortController();
  const client = await serve(t, { Subscribe: (call) => call.write(STORED) });
  let count = 0;
  for await (const _ of client.subscribe('s', { start: 'earliest', signal: abort.signal })) {
    count += 1;
    abort.abort();
  }
  assert.equal(count, 1);
});

test('a subscription ends with what the broker can never grant', async (t) => {
  const client = await serve(t, { Subscribe: (call) => call.emit('error', makeStatus('DATA_LOSS', '')) });
  const subscription = client.subscribe('s', { start: 'earliest' });
  await assert.rejects(
    async () => {
      for await (const _ of subscription) assert.fail();
    },
    (error) => error instanceof RefusedError && error.reason === 'DATA_LOSS',
  );
  await assert.rejects(subscription.started, RefusedError);
});

test('a slow reader of a plain subscription bounds what waits for it', async (t) => {
  const COUNT = 50_000;
  const large = Buffer.alloc(2_000);
  let written = 0;
  const client = await serve(t, {
    Subscribe: (call) => {
      const more = (): void => {
        let hasRoom = true;
        while (hasRoom && written < COUNT) {
          written += 1;
          hasRoom = call.write(stored(written, large));
        }
        if (written < COUNT) call.once('drain', more);
      };
      more();
    },
  });
  const subscription = client.subscribe('s', { start: 'earliest', credit: { bytes: 4_000 } });
  await subscription.started;
  let before = -1;
  // What HTTP/2 holds on its way is not the client's: it comes to a standstill, then nothing more is written.
  while (written !== before) {
    before = written;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  assert.ok(written < COUNT, `${written} were written for a reader that reads nothing`);
  await subscription.close();
});

test('a call that is not answered in time says so, and that nobody knows what became of it', async (t) => {
  const held: unknown[] = [];
  const client = await serve(t, { Publish: (_, done) => held.push(done) });
  await assert.rejects(
    client.publish('s', 'x', { timeoutMs: 30 }),
    (error: ClientError) => error.name === 'TimeoutError' && error.outcome === 'unknown' && !error.retryable,
  );
});

test('a signal ends a call with its own reason', async (t) => {
  const abort = new AbortController();
  const client = await serve(t, { Fetch: () => abort.abort(new Error('enough')) });
  await assert.rejects(client.fetch('s', 1, { signal: abort.signal }), /enough/);
  await assert.rejects(client.fetch('s', 1, { signal: abort.signal }), /enough/);
});

test('a refusal that may pass is tried again, no sooner than the broker asked for', async (t) => {
  const times: number[] = [];
  const client = await serve(t, {
    Publish: (_, done) => {
      times.push(performance.now());
      if (times.length < 3) done(makeStatus('QUEUE_FULL', ''));
      else done(null, ID_7);
    },
  });
  assert.equal(await client.publish('s', 'x'), 7);
  const [first = 0, second = 0, third = 0] = times;
  assert.ok(second - first >= 49 && third - second >= 49, `${times}`);
  assert.deepEqual({ ...client.stats }, { calls: 1, attempts: 3 });
});

test('[F11] a broker that refuses everything sees at most twice as many attempts as there were calls', async (t) => {
  let attempts = 0;
  const client = await serve(
    t,
    {
      Publish: (_, done) => {
        attempts += 1;
        done(makeStatus('QUEUE_FULL', ''));
      },
    },
    { timeoutMs: 30_000 },
  );
  const calls = 100;
  const results = await Promise.allSettled(Array.from({ length: calls }, () => client.publish('s', 'x')));
  for (const result of results) {
    assert.ok(result.status === 'rejected');
    assert.equal((result.reason as ClientError).reason, 'QUEUE_FULL');
    assert.equal((result.reason as ClientError).retryAfterMs, 50);
    assert.ok((result.reason as ClientError).retryable);
  }
  assert.ok(attempts > calls && attempts <= 2 * calls, `${attempts} attempts`);
});

test('[R27] an unknown outcome is not tried again, unless the message has a sequence', async (t) => {
  let attempts = 0;
  const client = await serve(t, {
    Publish: (_, done) => {
      attempts += 1;
      if (attempts < 3) done(makeStatus('OUTCOME_UNKNOWN', ''));
      else done(null, ID_7);
    },
  });
  await assert.rejects(
    client.publish('s', 'x'),
    (error: ClientError) => error.reason === 'OUTCOME_UNKNOWN' && error.outcome === 'unknown' && !error.retryable,
  );
  assert.equal(attempts, 1);
  assert.equal(await client.publish('s', 'x', { producer: { id: 'p', sequence: 1 } }), 7);
  assert.equal(attempts, 3);
});

test('[R27] that a later try had no effect does not say so of an earlier one: the call is told as unknown', async (t) => {
  let attempts = 0;
  const answer: Unary = (_, done) => {
    attempts += 1;
    done(makeStatus(attempts === 1 ? 'OUTCOME_UNKNOWN' : 'STORE_FULL', ''));
  };
  const client = await serve(t, { Publish: answer, Fetch: answer }, { timeoutMs: 4_500 });
  const producer = { id: 'p', sequence: 1 };
  const isUnknown = ({ outcome, retryable }: ClientError): boolean => outcome === 'unknown' && !retryable;
  await assert.rejects(
    client.publish('s', 'x', { producer }),
    (error: ClientError) => error.reason === 'STORE_FULL' && error instanceof RefusedError && isUnknown(error),
  );
  assert.equal(attempts, 2);
  // A read has none, whatever became of the first.
  attempts = 0;
  await assert.rejects(client.fetch('s', 1), (error: ClientError) => error.reason === 'STORE_FULL' && error.retryable);

  const leaving = new Server();
  leaving.addService(
    { Publish: method('Publish', false) },
    {
      Publish: (_: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => {
        done(makeStatus('OUTCOME_UNKNOWN', ''));
        setImmediate(() => leaving.forceShutdown());
      },
    },
  );
  const port = await new Promise<number>((resolve) => {
    leaving.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (_, bound) => resolve(bound));
  });
  const alone = connect(`127.0.0.1:${port}`, { timeoutMs: 700 });
  t.after(() => alone.close());
  await assert.rejects(alone.publish('s', 'x', { producer }), isUnknown);
});

test('what can never succeed, and what exceeds its time, is told at once', async (t) => {
  let attempts = 0;
  const client = await serve(t, {
    Publish: (call, done) => {
      attempts += 1;
      done(makeStatus(call.request.includes('big') ? 'BODY_TOO_LARGE' : 'STORE_FULL', ''));
    },
  });
  await assert.rejects(client.publish('s', 'big'), (error: ClientError) => error.reason === 'BODY_TOO_LARGE');
  // STORE_FULL asks for 5 s, more than the call has: the refusal says more than a deadline would.
  await assert.rejects(
    client.publish('s', 'x', { timeoutMs: 4_500 }),
    (error: ClientError) => error.status === 'RESOURCE_EXHAUSTED',
  );
  assert.equal(attempts, 2);
});

test('of several addresses one that answers is found, and one that shuts down is left', async (t) => {
  const seen: string[] = [];
  const leaving = await startServer(t, {
    Publish: (_, done) => {
      seen.push('leaving');
      done(makeStatus('SHUTTING_DOWN', ''));
    },
  });
  const staying = await startServer(t, {
    Publish: (_, done) => {
      seen.push('staying');
      done(null, ID_7);
    },
  });
  const client = connect(['127.0.0.1:1', leaving, staying]);
  t.after(() => client.close());
  assert.equal(await client.publish('s', 'x'), 7);
  assert.equal(await client.publish('s', 'x'), 7);
  assert.ok(seen.filter((name) => name === 'leaving').length <= 1, `${seen}`);
});

test('nobody there: at once if asked for, else at the end of the call; nothing was sent', async (t) => {
  const hasty = connect('127.0.0.1:1', { failFast: true });
  t.after(() => hasty.close());
  for (let i = 0; i < 2; i++) {
    await assert.rejects(
      hasty.publish('s', 'x'),
      (error: ClientError) =>
        error.name === 'ConnectionError' && error.outcome === 'none' && error.code === status.UNAVAILABLE,
    );
  }
  const patient = connect('127.0.0.1:1', { timeoutMs: 200 });
  t.after(() => patient.close());
  await assert.rejects(patient.publish('s', 'x'), (error: ClientError) => error.name === 'ConnectionError');
  assert.equal(patient.stats.attempts, 0);
});

test('a client that is closed says so in all that it is asked for, and opens nothing', async (t) => {
  let calls = 0;
  const answer: Unary = (_, done) => {
    calls += 1;
    done(null, ID_7);
  };
  const client = await serve(t, { Publish: answer, Fetch: answer, Subscribe: () => assert.fail() });
  assert.equal(await client.publish('s', 'x'), 7);
  await Promise.all([client.close(), client.close()]);
  const isClosed = (error: ClientError): boolean =>
    error.name === 'UsageError' &&
    error.outcome === 'none' &&
    !error.retryable &&
    /client is closed/.test(error.message);
  await assert.rejects(client.publish('s', 'x'), isClosed);
  await assert.rejects(client.broadcast('s', 'x'), isClosed);
  await assert.rejects(client.fetch('s', 1), isClosed);
  await assert.rejects(client.incrementId('s'), isClosed);
  await assert.rejects(client.subject('s'), isClosed);
  await assert.rejects(client.status(), isClosed);
  await assert.rejects(client.subjects().next(), isClosed);
  assert.throws(() => client.publisher(), isClosed);
  assert.throws(() => client.subscribe('s'), isClosed);
  assert.equal(calls, 1);
});

test('a client whose publisher cannot keep its word closes its connections all the same, and says so', async () => {
  const client = connect('127.0.0.1:1');
  const publisher = client.publisher({ deliveryTimeoutMs: 20 });
  publisher.tryPublish('s', 'x');
  await assert.rejects(client.close(), { name: 'TimeoutError' });
  await client[Symbol.asyncDispose]();
  await assert.rejects(client.publish('s', 'x'), { name: 'UsageError' });
});

test('a signal cuts short what the end of a client waits for, also of a close that has begun', {
  timeout: 30_000,
}, async () => {
  const client = connect('127.0.0.1:1');
  const publisher = client.publisher();
  publisher.tryPublish('s', 'x');
  const first = assert.rejects(client.close(), /enough/);
  const enough = new AbortController();
  const second = assert.rejects(client.close({ signal: enough.signal }), /enough/);
  enough.abort(new Error('enough'));
  await Promise.all([first, second]);
  await client.close({ signal: AbortSignal.abort() }).catch((error: Error) => assert.match(error.message, /enough/));
});

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test('calls that were made with the token before the last one are made again too', async (t) => {
  let valid = 'Bearer one';
  let asked = 0;
  const tokens = ['one', 'two', 'three'];
  const client = await serve(
    t,
    {
      Fetch: (call, done) => {
        // The second call is judged a little later than the first.
        const [said] = call.metadata.get('authorization');
        const answer = () =>
          said === valid ? done(null, Buffer.alloc(0)) : done(makeStatus('CREDENTIALS_EXPIRED', '') as never);
        setTimeout(answer, call.request.includes('slow') ? 150 : 0);
      },
    },
    { token: () => tokens[asked++] as string },
  );
  await client.fetch('fast', 1);
  await wait(2_100);
  valid = 'Bearer two';
  await Promise.all([client.fetch('slow', 1), client.fetch('fast', 1)]);
  assert.equal(asked, 2);
});

test('the time of a call holds while its token is waited for', { timeout: 5_000 }, async (t) => {
  const client = await serve(
    t,
    { Fetch: (_call, done) => done(null, Buffer.alloc(0)) },
    { token: () => new Promise<string>(() => undefined) },
  );
  const late = wait(2_000).then(() => 'hangs');
  const end = client.fetch('s', 1, { timeoutMs: 200 }).then(
    () => 'done',
    () => 'failed',
  );
  assert.equal(await Promise.race([end, late]), 'failed');
});

test('a deadline in months, as long as nobody answers, costs nothing: no timer is set for longer than it can be', async (t) => {
  const [port] = await freePorts(1);
  const timeouts = t.mock.method(globalThis, 'setTimeout');
  const client = connect(`127.0.0.1:${port}`, { timeoutMs: 40 * 86_400_000 });
  t.after(() => client.close());
  const given = new AbortController();
  const call = client.publish('s', 'x', { signal: given.signal });
  // The first attempt has failed, and the next one is waited for.
  await until(
    () => timeouts.mock.callCount() > 2,
    () => `${timeouts.mock.callCount()} timers`,
  );
  given.abort();
  await assert.rejects(call);
  const delays = timeouts.mock.calls.map(({ arguments: [, delay] }) => Number(delay ?? 0));
  assert.deepEqual(
    delays.filter((delay) => delay >= 2 ** 31),
    [],
  );
});
