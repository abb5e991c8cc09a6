/** What hostile or clumsy clients send. The server of the memory tests is a process of its own, so that only its memory is measured. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import type { IncomingHttpHeaders } from 'node:http';
import { type ClientHttp2Session, connect } from 'node:http2';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { constants, deflateSync, gzipSync } from 'node:zlib';
import * as grpc from '@grpc/grpc-js';
import { BrokerClient, CallError } from '../support/client.ts';
import {
  END_STREAM,
  Frame,
  frame,
  headersFrame,
  messageFrame,
  RawConnection,
  resetFrame,
} from '../support/http2-frames.ts';
import { decodeErrorDetails } from '../support/wire.ts';
import { DOOR, eventually, startServer, TestEngine } from './grpc-rig.ts';

const MEBIBYTE = 1 << 20;
const GIBIBYTE = 1 << 30;
const identity = (bytes: Buffer): Buffer => bytes;

interface Child {
  readonly address: string;
  readonly process: ChildProcess;
  /** Streams that its engine was handed. */
  streams(): Promise<number>;
  /** Starts a new measurement of the largest memory. */
  resetPeak(): void;
  /** Largest resident memory since, in bytes. */
  peak(): number;
}

async function startChild(t: TestContext, options: { readonly isQuiet?: boolean } = {}): Promise<Child> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./grpc-child.ts', import.meta.url))], {
    stdio: ['pipe', 'pipe', options.isQuiet === true ? 'ignore' : 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const line = async (): Promise<string> => String((await lines.next()).value);
  return {
    address: await line(),
    process: child,
    streams: async () => {
      child.stdin.write('streams\n');
      return Number(await line());
    },
    resetPeak: () => writeFileSync(`/proc/${child.pid}/clear_refs`, '5'),
    peak: () => Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1]) * 1_024,
  };
}

const onlyLinux = process.platform === 'linux' ? false : 'memory is read from /proc';

function clientOf(t: TestContext, address: string): BrokerClient {
  const client = new BrokerClient(address);
  t.after(() => client.close());
  return client;
}

test('[F1] 10,000 streams on one connection: refused above the cap, memory bounded, others are served', {
  skip: onlyLinux,
  timeout: 30_000,
}, async (t) => {
  const STREAMS = 10_000;
  const child = await startChild(t);
  const good = clientOf(t, child.address);
  assert.deepEqual(await good.call('Publish', Buffer.from('a')), Buffer.from('a'));
  const raw = await RawConnection.open(t, child.address);
  child.resetPeak();
  const before = child.peak();
  const flood: Buffer[] = [];
  for (let i = 0; i < STREAMS; i++) {
    const stream = i * 2 + 1;
    flood.push(headersFrame(stream, '/broker.Broker/Subscribe'), messageFrame(stream, Buffer.from('s')));
  }
  raw.socket.write(Buffer.concat(flood));
  await raw.until(
    () =>
      raw.closed || raw.count(Frame.GOAWAY) > 0 || raw.count(Frame.RST_STREAM) >= STREAMS - DOOR.streamsPerConnection,
  );
  assert.deepEqual(await good.call('Publish', Buffer.from('b')), Buffer.from('b'));
  const streams = await child.streams();
  assert.ok(streams <= DOOR.streamsPerConnection, `the engine got ${streams} streams`);
  const growth = (child.peak() - before) / MEBIBYTE;
  assert.ok(growth < 64, `memory grew by ${growth.toFixed(1)} MiB`);
});

test('[F1] a client with more calls than the cap waits for room instead of failing', { timeout: 20_000 }, async (t) => {
  const CAP = 10;
  let open = 0;
  let openMax = 0;
  const engine = new TestEngine((request, _deadlineMs, done) => {
    open += 1;
    openMax = Math.max(openMax, open);
    setImmediate(() => {
      open -= 1;
      done(null, request);
    });
  });
  const server = await startServer(t, { engine, limits: { ...DOOR, streamsPerConnection: CAP } });
  const client = clientOf(t, server.address);
  // The cap is known from the first connection on.
  await client.call('Publish', Buffer.alloc(0));
  await Promise.all(Array.from({ length: CAP * 50 }, () => client.call('Publish', Buffer.from('x'))));
  assert.equal(engine.calls, CAP * 50 + 1);
  assert.ok(openMax <= CAP, `${openMax} at a time`);
});

test('[F1] a client that cancels hundreds of calls at the cap is refused streams, but keeps its connection', {
  timeout: 20_000,
}, async (t) => {
  const CAP = 300;
  const engine = new TestEngine();
  const server = await startServer(t, { engine, limits: { ...DOOR, streamsPerConnection: CAP } });
  const client = clientOf(t, server.address);
  await client.call('Publish', Buffer.alloc(0));
  const refused: CallError[] = [];
  const onEnd = (error: CallError | null): void => {
    if (error !== null) refused.push(error);
  };
  const subscriptions = Array.from({ length: CAP * 3 }, () =>
    client.subscribeRaw(Buffer.from('s'), { onMessage: () => undefined, onEnd }),
  );
  await eventually(t, () => engine.streams.length === CAP);
  // Room for as many as wait: their heads come in the same packets as the cancels.
  for (const subscription of subscriptions.slice(0, CAP)) subscription.cancel();
  await Promise.all(subscriptions.slice(0, CAP).map(({ ended }) => ended));
  await eventually(t, () => engine.streams.length + refused.length >= CAP * 2);
  t.diagnostic(`${refused.length} streams were refused`);
  assert.ok(
    refused.every(({ statusName }) => statusName === 'RESOURCE_EXHAUSTED'),
    String(refused[0]),
  );
  for (const subscription of subscriptions) subscription.cancel();
  await Promise.all(subscriptions.map(({ ended }) => ended));
  assert.deepEqual(await client.call('Publish', Buffer.from('a')), Buffer.from('a'));
  await eventually(t, () => server.connections.open === 1);
  assert.equal(server.connections.refused, 0);
});

test('[F4] 5,000 quick subscribe/cancel on one connection: the connection and a subscription beside them survive', {
  timeout: 60_000,
}, async (t) => {
  const ROUNDS = 50;
  const WIDTH = 100;
  const engine = new TestEngine();
  engine.stream = (_request, stream) => stream.sendMetadata(new grpc.Metadata());
  const server = await startServer(t, { engine });
  const client = clientOf(t, server.address);
  let ended: CallError | null | undefined;
  let live = false;
  client.subscribeRaw(Buffer.from('stays'), {
    onMessage: () => undefined,
    onLive: () => {
      live = true;
    },
    onEnd: (error) => {
      ended = error;
    },
  });
  await eventually(t, () => live);
  for (let round = 0; round < ROUNDS; round++) {
    const all = Array.from({ length: WIDTH }, () => {
      const subscription = client.subscribeRaw(Buffer.from('goes'), {
        onMessage: () => undefined,
        onLive: () => subscription.cancel(),
      });
      return subscription.ended;
    });
    await Promise.all(all);
    assert.equal(ended, undefined, `round ${round}`);
  }
  await eventually(t, () => engine.cancelled === ROUNDS * WIDTH);
  assert.equal(engine.streams.length, ROUNDS * WIDTH + 1);
  assert.deepEqual(await client.call('Publish', Buffer.from('a')), Buffer.from('a'));
  await eventually(t, () => server.connections.open === 1);
});

test('a call that is cancelled before its request has ended never reaches the engine', {
  timeout: 10_000,
}, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine });
  const raw = await RawConnection.open(t, server.address);
  const plain = Buffer.concat([Buffer.from([0, 0, 0, 0, 1]), Buffer.from('x')]);
  const packed = gzipSync(Buffer.from('x'));
  const compressed = Buffer.concat([Buffer.from([1, 0, 0, 0, packed.length]), packed]);
  const cases: readonly (readonly [string, Record<string, string>, Buffer])[] = ['Publish', 'Subscribe'].flatMap(
    (method) => [
      [method, {}, frame(Frame.DATA, 0, 0, plain)],
      [method, {}, frame(Frame.DATA, 0, 0, plain.subarray(0, 4))],
      [method, { 'grpc-encoding': 'gzip' }, frame(Frame.DATA, END_STREAM, 0, compressed)],
    ],
  );
  cases.forEach(([method, headers, data], i) => {
    const stream = i * 2 + 1;
    data.writeUInt32BE(stream, 5);
    raw.socket.write(
      Buffer.concat([headersFrame(stream, `/broker.Broker/${method}`, headers), data, resetFrame(stream)]),
    );
  });
  const last = 1_001;
  raw.socket.write(
    Buffer.concat([headersFrame(last, '/broker.Broker/Publish'), messageFrame(last, Buffer.from('last'))]),
  );
  await raw.until(() => raw.frames.some(({ stream, type }) => stream === last && type === Frame.DATA));
  assert.deepEqual([engine.calls, engine.streams.length], [1, 0]);
});

/** As small as gzip makes zeros. Members of a gzip file may follow each other: one is made and repeated. */
function bomb(inflatedBytes: number): Buffer {
  const member = gzipSync(Buffer.alloc(64 * MEBIBYTE), { level: constants.Z_BEST_COMPRESSION });
  return Buffer.concat(Array.from({ length: inflatedBytes / (64 * MEBIBYTE) }, () => member));
}

interface Answer {
  readonly status: string;
  readonly details: Buffer;
}

/** Publishes a message that says it is compressed with `encoding`. */
async function publishCompressed(session: ClientHttp2Session, compressed: Buffer, encoding: string): Promise<Answer> {
  const stream = session.request({
    ':method': 'POST',
    ':path': '/broker.Broker/Publish',
    'content-type': 'application/grpc',
    'grpc-encoding': encoding,
    te: 'trailers',
  });
  let headers: IncomingHttpHeaders = {};
  const read = (more: IncomingHttpHeaders): void => {
    headers = { ...headers, ...more };
  };
  stream.on('response', read);
  stream.on('trailers', read);
  // The server may end the stream before it has read all of it.
  stream.on('error', () => undefined);
  stream.resume();
  const head = Buffer.alloc(5);
  head.writeUInt8(1, 0);
  head.writeUInt32BE(compressed.length, 1);
  stream.end(Buffer.concat([head, compressed]));
  await once(stream, 'close');
  const details = String(headers['grpc-status-details-bin'] ?? '');
  return { status: String(headers['grpc-status']), details: Buffer.from(details, 'base64') };
}

test('[F6] gzip bombs of 4 GiB in 4 MiB: refused as MESSAGE_TOO_LARGE, at most 8 MiB more memory than for good messages', {
  skip: onlyLinux,
  timeout: 60_000,
}, async (t) => {
  const child = await startChild(t);
  const session = connect(`http://${child.address}`);
  t.after(() => session.destroy());
  const good = gzipSync(Buffer.alloc(DOOR.messageBytes));
  const evil = bomb(4 * GIBIBYTE);
  assert.ok(evil.length < DOOR.messageBytes && evil.length > DOOR.messageBytes / 2, `${evil.length} bytes`);
  // Good messages as large on the wire as a bomb (noise), and as large inflated as may be: what these take is the measure. When garbage is collected is
  // chance, so there are more of them than of bombs.
  const noise = gzipSync(randomBytes(evil.length - MEBIBYTE / 4));
  for (let i = 0; i < 24; i++) {
    assert.equal((await publishCompressed(session, noise, 'gzip')).status, '0');
    assert.equal((await publishCompressed(session, good, 'gzip')).status, '0');
  }
  const before = child.peak();
  for (let i = 0; i < 8; i++) {
    const { status, details } = await publishCompressed(session, evil, 'gzip');
    assert.equal(status, String(grpc.status.RESOURCE_EXHAUSTED));
    assert.equal(decodeErrorDetails(details).reason, 'MESSAGE_TOO_LARGE');
  }
  const growth = (child.peak() - before) / MEBIBYTE;
  t.diagnostic(`memory grew by ${growth.toFixed(1)} MiB`);
  assert.ok(growth <= 8, `memory grew by ${growth.toFixed(1)} MiB`);
  assert.equal((await publishCompressed(session, good, 'gzip')).status, '0', 'good messages are still taken');
});

test('[F6] a compressed message at limits.message_bytes passes, one byte more does not; an unknown encoding is UNIMPLEMENTED', {
  timeout: 20_000,
}, async (t) => {
  const engine = new TestEngine((request, _deadlineMs, done) => done(null, request.subarray(0, 1)));
  const server = await startServer(t, { engine, limits: { ...DOOR, messageBytes: 200_000 } });
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  for (const [encoding, compress] of [
    ['gzip', gzipSync],
    ['deflate', deflateSync],
  ] as const) {
    assert.equal((await publishCompressed(session, compress(Buffer.alloc(200_000)), encoding)).status, '0');
    const { status, details } = await publishCompressed(session, compress(Buffer.alloc(200_001)), encoding);
    assert.equal(status, String(grpc.status.RESOURCE_EXHAUSTED));
    assert.equal(decodeErrorDetails(details).reason, 'MESSAGE_TOO_LARGE');
  }
  assert.equal(
    (await publishCompressed(session, Buffer.from('x'), 'snappy')).status,
    String(grpc.status.UNIMPLEMENTED),
  );
  assert.equal(
    (await publishCompressed(session, Buffer.from('not gzip'), 'gzip')).status,
    String(grpc.status.INTERNAL),
  );
  assert.equal(engine.calls, 2);
});

test('[F7] messages nested 100,000 deep, and metadata under names that every object has, harm no service', {
  timeout: 20_000,
}, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine });
  const client = new grpc.Client(server.address, grpc.credentials.createInsecure());
  t.after(() => client.close());
  const metadata = new grpc.Metadata();
  for (const name of ['__proto__', 'constructor', 'hasownproperty', '__proto__-bin']) {
    metadata.set(name, name.endsWith('-bin') ? Buffer.from('x') : 'polluted');
  }
  const send = (path: string, request: Buffer): Promise<number> =>
    new Promise((resolve) => {
      client.makeUnaryRequest(path, identity, identity, request, metadata, (error) =>
        resolve(error === null ? 0 : error.code),
      );
    });
  const groups = Buffer.alloc(100_000, 0x1b);
  assert.equal(await send('/broker.Broker/Publish', groups), grpc.status.OK);
  assert.equal(await send('/broker.v1.Admin/ListSubjects', groups), grpc.status.INVALID_ARGUMENT);
  assert.notEqual(await send('/grpc.health.v1.Health/Check', groups), grpc.status.OK);
  for (const version of ['v1', 'v1alpha']) {
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`;
    const stream = client.makeBidiStreamRequest(path, identity, identity, metadata);
    stream.on('error', () => undefined);
    stream.resume();
    stream.end(groups);
    const [status] = (await once(stream, 'status')) as [grpc.StatusObject];
    assert.notEqual(status.code, grpc.status.UNAVAILABLE, version);
  }
  assert.equal(await send('/broker.Broker/Publish', Buffer.alloc(0)), grpc.status.OK);
  assert.equal(engine.calls, 2);
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
  assert.deepEqual(Object.keys(Object.prototype), []);
});

test('an engine that throws is a broken invariant: the process ends instead of going on', {
  timeout: 20_000,
}, async (t) => {
  const child = await startChild(t, { isQuiet: true });
  const client = clientOf(t, child.address);
  const exited = once(child.process, 'exit');
  await assert.rejects(client.call('Publish', Buffer.from('defect')), CallError);
  const [code] = await exited;
  assert.notEqual(code, 0);
});
