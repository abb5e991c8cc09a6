import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect } from 'node:http2';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { create, createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import * as grpc from '@grpc/grpc-js';
import { BrokerError } from '../../src/base/errors.ts';
import type { AdminAction } from '../../src/grpc/access/admin-actions.ts';
import type { AdminPort } from '../../src/grpc/admin.ts';
import { AdminClient } from '../../src/grpc/gen/broker/v1/admin.ts';
import { effectiveWindows } from '../../src/grpc/http2-tuning.ts';
import { createGrpcServer } from '../../src/grpc/server.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { readFields, Writer } from '../support/wire.ts';
import {
  DOOR,
  eventually,
  REFUSING_ADMIN,
  REFUSING_CLUSTER,
  receiveBudget,
  startServer,
  TestEngine,
} from './grpc-rig.ts';

const identity = (bytes: Buffer): Buffer => bytes;

function clientOf(t: TestContext, address: string): grpc.Client {
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  t.after(() => client.close());
  return client;
}

function brokerClientOf(t: TestContext, address: string): BrokerClient {
  const client = new BrokerClient(address);
  t.after(() => client.close());
  return client;
}

function unary(client: grpc.Client, path: string, request: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, identity, identity, request, (error, response) => {
      if (error !== null) reject(error);
      else resolve(response as Buffer);
    });
  });
}

async function refusalOf(call: Promise<unknown>): Promise<CallError> {
  const error = await call.then(
    () => assert.fail('the call succeeded'),
    (failure: unknown) => failure,
  );
  return error instanceof CallError ? error : new CallError(error as grpc.ServiceError);
}

test('the five methods hand the engine the bytes as they are, with the deadline, and answer its bytes', async (t) => {
  const deadlines: number[] = [];
  const engine = new TestEngine((request, deadlineMs, done) => {
    deadlines.push(deadlineMs);
    done(null, Buffer.from(request).reverse());
  });
  engine.stream = (request, stream) => {
    for (const byte of request) stream.write(Buffer.from([byte]));
    stream.end();
  };
  const server = await startServer(t, { engine });
  const client = brokerClientOf(t, server.address);
  const request = Buffer.from([0xff, 0x00, 0x01]);
  const before = Date.now();
  for (const method of ['Publish', 'Fetch', 'Broadcast', 'IncIdx']) {
    assert.deepEqual(await client.call(method, request, 60_000), Buffer.from([0x01, 0x00, 0xff]));
  }
  assert.ok(deadlines.every((deadline) => deadline >= before + 59_000 && deadline <= Date.now() + 61_000));
  const raw = clientOf(t, server.address);
  await unary(raw, '/broker.Broker/Publish', request);
  assert.equal(deadlines.at(-1), Number.POSITIVE_INFINITY);
  const stream = raw.makeServerStreamRequest('/broker.Broker/Subscribe', identity, identity, request);
  assert.deepEqual(Buffer.concat(await stream.toArray()), request);
});

test('an unknown method and an unknown service are UNIMPLEMENTED', async (t) => {
  const server = await startServer(t);
  const client = clientOf(t, server.address);
  for (const path of ['/broker.Broker/Delete', '/no.Such/Method', '/broker.Broker/__proto__', '/constructor']) {
    assert.equal((await refusalOf(unary(client, path, Buffer.alloc(0)))).statusName, 'UNIMPLEMENTED', path);
  }
});

test('a message at limits.message_bytes passes, one byte more is RESOURCE_EXHAUSTED with reason MESSAGE_TOO_LARGE and outcome none', async (t) => {
  const engine = new TestEngine((_request, _deadline, done) => done(null, Buffer.alloc(0)));
  const limits = { ...DOOR, messageBytes: 100_000 };
  const server = await startServer(t, { engine, limits });
  const client = brokerClientOf(t, server.address);
  await client.call('Publish', Buffer.alloc(limits.messageBytes));
  const error = await refusalOf(client.call('Publish', Buffer.alloc(limits.messageBytes + 1)));
  assert.deepEqual(
    [error.statusName, error.reason, error.outcome, error.retryAfterMs],
    ['RESOURCE_EXHAUSTED', 'MESSAGE_TOO_LARGE', 'none', null],
  );
  assert.equal(engine.calls, 1);
});

test('what the engine refuses with RESOURCE_EXHAUSTED keeps its own reason', async (t) => {
  const engine = new TestEngine((_request, _deadline, done) =>
    done({ code: grpc.status.RESOURCE_EXHAUSTED, metadata: new grpc.Metadata() }),
  );
  const server = await startServer(t, { engine });
  const error = await refusalOf(brokerClientOf(t, server.address).call('Publish', Buffer.alloc(0)));
  assert.equal(error.reason, null);
});

test('a client is given windows of 4 MiB a stream and 8 MiB a connection, a cap on streams and on header lists', async (t) => {
  const server = await startServer(t);
  const [host, port] = server.address.split(':') as [string, string];
  assert.deepEqual(await effectiveWindows(host, Number(port)), {
    stream: 4 << 20,
    connection: 8 << 20,
    streamsMax: DOOR.streamsPerConnection,
    headerListBytes: 16 << 10,
  });
});

test('a header list over 16 KiB ends its stream, not the connection', async (t) => {
  const server = await startServer(t);
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const send = (size: number): Promise<string> => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const stream = session.request({
      ':method': 'POST',
      ':path': '/broker.Broker/Publish',
      'content-type': 'application/grpc',
      te: 'trailers',
      'x-big': 'x'.repeat(size),
    });
    stream.on('error', () => undefined);
    stream.on('response', (headers) => resolve(`grpc-status ${headers['grpc-status'] ?? ''}`));
    stream.on('close', () => resolve(`reset ${stream.rstCode}`));
    stream.end();
    return promise;
  };
  // The limit holds from the moment that the client has acknowledged it.
  await once(session, 'remoteSettings');
  await new Promise((resolve) => session.ping(resolve));
  assert.match(await send(20_000), /^reset [^0]/);
  assert.equal(await send(1_000), 'grpc-status 12', 'no message: UNIMPLEMENTED');
});

test('connections beyond limits.connections are closed at once, but for those that make room: the oldest without a call', async (t) => {
  const server = await startServer(t, { limits: { ...DOOR, connections: 2 } });
  // The connection by which the server looks at its own windows goes away first.
  await eventually(t, () => server.connections.open === 0);
  const open = async () => {
    const session = connect(`http://${server.address}`);
    t.after(() => session.destroy());
    session.on('error', () => undefined);
    const isOpen = await new Promise<boolean>((resolve) => {
      session.once('connect', () => session.ping((error) => resolve(error === null)));
      session.once('close', () => resolve(false));
    });
    return { session, isOpen };
  };
  const call = async (session: ClientHttp2Session): Promise<void> => {
    const stream = session.request({ ':method': 'POST', ':path': '/none', 'content-type': 'application/grpc' });
    await once(stream, 'response');
    stream.close();
  };
  const first = await open();
  await call(first.session);
  const silent = await open();
  const third = await open();
  assert.deepEqual([first.isOpen, silent.isOpen, third.isOpen], [true, true, true]);
  await eventually(t, () => silent.session.destroyed);
  assert.equal(server.connections.refused, 1);
  await call(third.session);
  assert.equal((await open()).isOpen, false);
  assert.equal(server.connections.refused, 2);
  first.session.destroy();
  await once(first.session, 'close');
  await eventually(t, () => server.connections.open === 1);
  assert.equal((await open()).isOpen, true);
});

test('a connection older than grpc.max_connection_age is asked to go', async (t) => {
  const server = await startServer(t, { maxConnectionAgeMs: 50 });
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const [code] = await once(session, 'goaway');
  assert.equal(code, 0);
});

test('a port that is taken is a clear error', async (t) => {
  const blocker = createServer().listen(0, '127.0.0.1');
  t.after(() => blocker.close());
  await once(blocker, 'listening');
  const { port } = blocker.address() as { port: number };
  const server = createGrpcServer({
    engine: new TestEngine(),
    admin: REFUSING_ADMIN,
    cluster: REFUSING_CLUSTER,
    limits: DOOR,
    maxConnectionAgeMs: 0,
    receiving: receiveBudget(),
  });
  t.after(() => server.drain(0));
  await assert.rejects(server.listen({ host: '127.0.0.1', port }), (error: Error) => {
    assert.match(error.message, new RegExp(`cannot listen on 127\\.0\\.0\\.1:${port}`));
    assert.match(error.message, /EADDRINUSE/);
    return true;
  });
});

test('listens on wildcard and IPv6 addresses, and says the port that it got', async (t) => {
  for (const host of ['0.0.0.0', '::1', 'localhost']) {
    const server = createGrpcServer({
      engine: new TestEngine(),
      admin: REFUSING_ADMIN,
      cluster: REFUSING_CLUSTER,
      limits: DOOR,
      maxConnectionAgeMs: 0,
      receiving: receiveBudget(),
    });
    t.after(() => server.drain(0));
    await server.listen({ host, port: 0 });
    await server.checkWindows();
    assert.match(server.address, host === '::1' ? /^\[::1\]:[1-9]/ : /^[a-z0-9.]+:[1-9]/);
  }
});

test('drain: calls in flight are answered, new connections are refused, what lasts longer than the grace is cut', async (t) => {
  const pending: (() => void)[] = [];
  const engine = new TestEngine((request, _deadline, done) => pending.push(() => done(null, request)));
  const server = await startServer(t, { engine });
  const client = brokerClientOf(t, server.address);
  const inFlight = client.call('Publish', Buffer.from('a'));
  await eventually(t, () => pending.length > 0);
  const drained = server.drain(10_000);
  const late = brokerClientOf(t, server.address);
  assert.equal((await refusalOf(late.call('Publish', Buffer.from('b'), 1_000))).statusName, 'UNAVAILABLE');
  for (const answer of pending) answer();
  assert.deepEqual(await inFlight, Buffer.from('a'));
  await drained;

  const second = await startServer(t, { engine });
  const { promise, resolve } = Promise.withResolvers<CallError | null>();
  brokerClientOf(t, second.address).subscribeRaw(Buffer.alloc(0), { onMessage: () => undefined, onEnd: resolve });
  await eventually(t, () => engine.streams.length > 0);
  await second.drain(20);
  assert.notEqual(await promise, null);
});

test('reflection lists every service, in v1 and in v1alpha, and answers their files', async (t) => {
  const server = await startServer(t);
  const client = clientOf(t, server.address);
  for (const version of ['v1', 'v1alpha']) {
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const ask = async (request: Buffer) => {
      const stream = client.makeBidiStreamRequest(path, identity, identity);
      stream.end(request);
      const [answer] = (await stream.toArray()) as Buffer[];
      assert.ok(answer !== undefined, version);
      return readFields(answer);
    };
    // list_services (7) -> list_services_response (6) { service (1) { name (1) } }
    const listed = (await ask(new Writer().bytes(7, '*').finish())).find(({ number }) => number === 6);
    assert.ok(listed !== undefined);
    const names = readFields(listed.bytes).map(({ bytes }) => readFields(bytes)[0]?.bytes.toString());
    for (const name of ['broker.Broker', 'broker.v1.Producer', 'broker.v1.Admin', 'grpc.health.v1.Health']) {
      assert.ok(names.includes(name), `${version} lists ${names}`);
    }
    // file_containing_symbol (4) -> file_descriptor_response (4) { file_descriptor_proto (1) }, or error_response (7)
    for (const symbol of ['broker.Broker', 'broker.MessageResponse', 'broker.v1.Admin', 'grpc.health.v1.Health']) {
      const found = (await ask(new Writer().bytes(4, symbol).finish())).find(({ number }) => number === 4);
      assert.ok(found !== undefined && found.bytes.length > 100, `${version} knows ${symbol}`);
    }
  }
});

test('what reflection answers is whole and links, maps and imports included, as clients that check descriptors want it', async (t) => {
  const server = await startServer(t);
  const client = clientOf(t, server.address);
  const symbols = [
    'broker.Broker',
    'broker.v1.Admin',
    'broker.v1.Consumer',
    'grpc.health.v1.Health',
    'google.rpc.RetryInfo',
  ];
  for (const symbol of symbols) {
    const stream = client.makeBidiStreamRequest(
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      identity,
      identity,
    );
    stream.end(new Writer().bytes(4, symbol).finish());
    const [answer] = (await stream.toArray()) as Buffer[];
    const found = readFields(answer as Buffer).find(({ number }) => number === 4);
    const files = readFields(found?.bytes as Buffer).map(({ bytes }) => fromBinary(FileDescriptorProtoSchema, bytes));
    // Throws where an import or a type is missing.
    createFileRegistry(create(FileDescriptorSetSchema, { file: files.reverse() }));
    const entries = files
      .flatMap(({ messageType }) => messageType)
      .flatMap(({ field, nestedType }) => nestedType.map((nested) => ({ nested, field })))
      .filter(({ nested }) => nested.options?.mapEntry === true);
    if (symbol.startsWith('grpc.health')) assert.equal(entries.length, 1);
    for (const { nested, field } of entries) {
      const owner = field.find(({ typeName }) => typeName.endsWith(nested.name));
      assert.equal(nested.name.toLowerCase(), `${owner?.name}entry`);
    }
  }
});

test('[F7] reflection finds nothing under names that every object has', async (t) => {
  const server = await startServer(t);
  const client = clientOf(t, server.address);
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
  for (const symbol of ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'no.Such']) {
    // file_by_filename (3), file_containing_symbol (4), file_containing_extension (5), all_extension_numbers_of_type (6)
    for (const field of [3, 4, 5, 6]) {
      const stream = client.makeBidiStreamRequest(path, identity, identity);
      stream.end(
        new Writer().bytes(field, field === 5 ? new Writer().bytes(1, symbol).varint(2, 1).finish() : symbol).finish(),
      );
      const [answer] = (await stream.toArray()) as Buffer[];
      assert.ok(answer !== undefined);
      const files = readFields(answer).filter(({ number }) => number === 4);
      const isNothing = files.every(({ bytes }) => readFields(bytes).every((file) => file.bytes.length === 0));
      assert.ok(isNothing, `${field} ${symbol}`);
    }
  }
  assert.deepEqual(Object.keys(Object.prototype), []);
});

test('health: NOT_SERVING until it is set, for the server and each service; an unknown service is NOT_FOUND', async (t) => {
  const server = await startServer(t);
  const client = clientOf(t, server.address);
  const check = async (service: string): Promise<number | undefined> =>
    readFields(await unary(client, '/grpc.health.v1.Health/Check', new Writer().bytes(1, service).finish()))[0]?.value;
  const [SERVING, NOT_SERVING] = [1, 2];
  for (const [isServing, answer] of [
    [null, NOT_SERVING],
    [true, SERVING],
    [false, NOT_SERVING],
  ] as const) {
    if (isServing !== null) server.setServing(isServing);
    for (const service of ['', 'broker.Broker', 'broker.v1.Producer', 'broker.v1.Admin'])
      assert.equal(await check(service), answer, service);
  }
  for (const service of ['no.Such', '__proto__', 'constructor', 'toString']) {
    assert.equal((await refusalOf(check(service))).statusName, 'NOT_FOUND', service);
  }
});

test('admin: requests and answers pass; refusals keep their words; a defect is INTERNAL_ERROR and is told', async (t) => {
  const trims: [string, number][] = [];
  const told: unknown[] = [];
  const admin: AdminPort = {
    ...REFUSING_ADMIN,
    trimSubject: async ({ subject, first }) => {
      trims.push([subject, first]);
      if (first === 1) throw new BrokerError('ID_INVALID', 'first = 1');
      if (first === 2) throw new TypeError('secret');
      return { first };
    },
  };
  const server = await startServer(t, { admin, log: { error: (_message, fields) => told.push(fields) } });
  const client = new AdminClient(server.address, grpc.credentials.createInsecure());
  t.after(() => client.close());
  const trim = (subject: string, first: number): Promise<number> =>
    new Promise((resolve, reject) => {
      client.trimSubject({ subject, first, tenant: '' }, (error, response) =>
        error === null ? resolve(response.first) : reject(error),
      );
    });
  assert.equal(await trim('__proto__', Number.MAX_SAFE_INTEGER), Number.MAX_SAFE_INTEGER);
  assert.deepEqual(trims, [['__proto__', Number.MAX_SAFE_INTEGER]]);
  const refused = await refusalOf(trim('a', 1));
  assert.deepEqual([refused.reason, refused.message.includes('first = 1')], ['ID_INVALID', true]);
  const defect = await refusalOf(trim('a', 2));
  assert.deepEqual(
    [defect.statusName, defect.reason, defect.message.includes('secret')],
    ['INTERNAL', 'INTERNAL_ERROR', false],
  );
  assert.equal(told.length, 1);
  assert.equal(
    (await refusalOf(unary(clientOf(t, server.address), '/broker.v1.Admin/Status', Buffer.alloc(0)))).reason,
    'NOT_READY',
  );
});

test('admin: an action whose client does not wait for the answer is told of too, each action once', async (t) => {
  const told: AdminAction[] = [];
  const begun = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<{ first: number }>();
  const admin: AdminPort = {
    ...REFUSING_ADMIN,
    trimSubject: ({ first }) => {
      if (first === 1) return Promise.resolve({ first });
      begun.resolve();
      return gate.promise;
    },
  };
  const server = await startServer(t, { admin, onAction: (action) => told.push(action) });
  const client = new AdminClient(server.address, grpc.credentials.createInsecure());
  t.after(() => client.close());
  await new Promise((resolve) => client.trimSubject({ subject: 'a', first: 1, tenant: '' }, resolve));
  const gone = client.trimSubject({ subject: 'a', first: 2, tenant: '' }, () => undefined);
  await begun.promise;
  gone.cancel();
  await eventually(t, () => told.length === 2);
  gate.resolve({ first: 2 });
  await new Promise((resolve) => client.trimSubject({ subject: 'a', first: 1, tenant: '' }, resolve));
  assert.deepEqual(
    told.map(({ outcome, arguments: given, peer }) => [outcome, given.first, /^127\.0\.0\.1:\d+$/.test(peer)]),
    [
      ['ok', 1, true],
      ['CANCELLED', 2, true],
      ['ok', 1, true],
    ],
  );
});

test('[R29] admin: malformed requests, and numbers beyond 2^53-1, are refused as MALFORMED_MESSAGE and never reach the node', async (t) => {
  const trims: number[] = [];
  const admin: AdminPort = {
    ...REFUSING_ADMIN,
    trimSubject: async ({ first }) => {
      trims.push(first);
      return { first };
    },
  };
  const server = await startServer(t, { admin });
  const client = clientOf(t, server.address);
  const safe = BigInt(Number.MAX_SAFE_INTEGER);
  const requests = [safe + 1n, safe + 2n, (1n << 63n) - 10n, (1n << 63n) - 1n, -(1n << 63n)].map((first) =>
    new Writer().bytes(1, 'a').varint(2, first).finish(),
  );
  for (const request of [
    ...requests,
    Buffer.from([0x0a]),
    Buffer.from([0x0a, 0x05, 0x61]),
    Buffer.alloc(100_000, 0x1b),
  ]) {
    const error = await refusalOf(unary(client, '/broker.v1.Admin/TrimSubject', request));
    assert.deepEqual([error.statusName, error.reason], ['INVALID_ARGUMENT', 'MALFORMED_MESSAGE']);
  }
  assert.deepEqual(trims, []);
});
