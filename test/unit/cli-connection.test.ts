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
import { CliError, EXIT } from '../../src/cli/failure.ts';
import { connectOverGrpc } from '../../src/cli/grpc-connection.ts';
import type { Start } from '../../src/cli/parse.ts';
import * as wire from '../support/wire.ts';

type Unary = (call: ServerUnaryCall<Buffer, Buffer>, done: sendUnaryData<Buffer>) => void;
type Streaming = (call: ServerWritableStream<Buffer, Buffer>) => void;

const raw = (bytes: Buffer): Buffer => bytes;

function method(name: string, responseStream: boolean) {
  const path = `/broker.Broker/${name}`;
  const codec = { requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw };
  return { path, requestStream: false, responseStream, ...codec };
}

/** A server that speaks bytes, so that what the commands send is seen as it is on the wire. */
async function serve(
  t: TestContext,
  handlers: { Publish?: Unary; Fetch?: Unary; Subscribe?: Streaming },
  options: { timeoutMs?: number; interrupt?: AbortController } = {},
) {
  const { timeoutMs = 5_000, interrupt = new AbortController() } = options;
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
  const connection = connectOverGrpc({ address: `127.0.0.1:${port}`, timeoutMs, interrupt: interrupt.signal });
  t.after(() => {
    connection.close();
    server.forceShutdown();
  });
  return connection;
}

const STORED = new wire.Writer()
  .bytes(1, 'body')
  .varint(2, 2 ** 53 - 1)
  .bytes(3, 'a.b')
  .varint(4, 1_700_000_000_000)
  .bytes(5, new wire.Writer().bytes(1, 'k').bytes(2, 'v').finish())
  .finish();

test('publish sends the fields of PublishRequest and reads the id', async (t) => {
  const seen: Buffer[] = [];
  const connection = await serve(t, {
    Publish: (call, done) => {
      seen.push(call.request);
      done(null, new wire.Writer().varint(1, 2 ** 53 - 1).finish());
    },
  });
  const headers = [{ key: 'k', value: Buffer.from('v') }];
  const body = Buffer.from([0, 255]);
  const id = await connection.publish({
    subject: 'ä',
    body,
    headers,
    expirationSeconds: 9,
    producer: { id: 'p', sequence: 2 ** 40 },
  });
  assert.equal(id, 2 ** 53 - 1);
  const expected = wire.encodePublish({
    subject: 'ä',
    body,
    headers,
    expirationSeconds: 9,
    producerId: 'p',
    sequence: 2 ** 40,
  });
  assert.deepEqual(seen, [expected]);
});

test('fetch reads every field of a message', async (t) => {
  const seen: Buffer[] = [];
  const connection = await serve(t, {
    Fetch: (call, done) => {
      seen.push(call.request);
      done(null, STORED);
    },
  });
  const message = await connection.fetch('a.b', 7);
  assert.deepEqual(seen, [wire.encodeFetch('a.b', 7)]);
  assert.equal(message.id, 2 ** 53 - 1);
  assert.equal(message.subject, 'a.b');
  assert.equal(message.publishedAt, 1_700_000_000_000);
  assert.equal(Buffer.from(message.body).toString(), 'body');
  assert.deepEqual(
    message.headers.map(({ key, value }) => [key, Buffer.from(value).toString()]),
    [['k', 'v']],
  );
});

const STARTS: readonly [Start, wire.Start][] = [
  [{ kind: 'new' }, { at: 'new' }],
  [{ kind: 'earliest' }, { at: 'earliest' }],
  [
    { kind: 'id', id: 5 },
    { at: 'id', id: 5 },
  ],
  [
    { kind: 'time', ms: 0 },
    { at: 'time', ms: 0 },
  ],
];

for (const [start, expected] of STARTS) {
  test(`subscribe from ${start.kind} sends that start, and a reader that stops cancels the stream`, async (t) => {
    const cancelled = Promise.withResolvers<void>();
    const seen: Buffer[] = [];
    const connection = await serve(t, {
      Subscribe: (call) => {
        seen.push(call.request);
        call.on('cancelled', () => cancelled.resolve());
        for (let index = 0; index < 10; index += 1) call.write(STORED);
      },
    });
    let count = 0;
    for await (const message of connection.subscribe('s', start)) {
      assert.equal(message.subject, 'a.b');
      count += 1;
      if (count === 2) break;
    }
    await cancelled.promise;
    assert.deepEqual(seen, [wire.encodeSubscribe('s', expected)]);
  });
}

test('an interrupted subscription ends without an error', async (t) => {
  const interrupt = new AbortController();
  const connection = await serve(t, { Subscribe: (call) => call.write(STORED) }, { interrupt });
  let count = 0;
  for await (const _ of connection.subscribe('s', { kind: 'new' })) {
    count += 1;
    interrupt.abort();
  }
  assert.equal(count, 1);
});

test('a subscription that the broker ends with an error says so', async (t) => {
  const connection = await serve(t, {
    Subscribe: (call) => call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: 'stalled' }),
  });
  await assert.rejects(
    async () => {
      for await (const _ of connection.subscribe('s', { kind: 'new' })) assert.fail();
    },
    (error) => error instanceof CliError && error.exitCode === EXIT.failed && error.message.startsWith('stalled'),
  );
});

test('a call that is not answered in time ends with its own advice', async (t) => {
  const held: unknown[] = [];
  const connection = await serve(t, { Fetch: (_, done) => held.push(done) }, { timeoutMs: 30 });
  await assert.rejects(connection.fetch('s', 1), /did not answer in time/);
});

test('an interrupt cancels a call that waits', async (t) => {
  const interrupt = new AbortController();
  const connection = await serve(t, { Fetch: () => interrupt.abort() }, { interrupt });
  await assert.rejects(connection.fetch('s', 1), CliError);
});
