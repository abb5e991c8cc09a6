/** What hostile or clumsy clients send. The server of the memory tests is a process of its own, so that only its memory is measured. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { constants, deflateSync, gzipSync } from 'node:zlib';
import * as grpc from '@grpc/grpc-js';
import { BrokerClient, CallError } from '../support/client.ts';
import { DOOR, Frame, headersFrame, messageFrame, RawConnection, resetFrame, startServer, TestEngine } from './grpc-rig.ts';

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

async function startChild(t: TestContext): Promise<Child> {
  const child = spawn(process.execPath, [fileURLToPath(new URL('./grpc-child.ts', import.meta.url))], {
    stdio: ['pipe', 'pipe', 'inherit'],
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

test('[F1] 10,000 streams on one connection: refused above the cap, memory bounded, others are served', { skip: onlyLinux, timeout: 30_000 }, async (t) => {
  const STREAMS = 10_000;
  const child = await startChild(t);
  const good = clientOf(t, child.address);
  assert.deepEqual(await good.call('Publish', Buffer.from('a')), Buffer.from('a'));
  const raw = await RawConnection.open(t, child.address);
  // From the acknowledged settings on, a stream above the cap is an error of the connection; before, of the stream.
  raw.socket.setNoDelay(true);
  child.resetPeak();
  const before = child.peak();
  const flood: Buffer[] = [];
  for (let i = 0; i < STREAMS; i++) {
    const stream = i * 2 + 1;
    flood.push(headersFrame(stream, '/broker.Broker/Subscribe'), messageFrame(stream, Buffer.from('s')));
  }
  raw.socket.write(Buffer.concat(flood));
  await raw.until(() => raw.closed || raw.count(Frame.GOAWAY) > 0 || raw.count(Frame.RST_STREAM) >= STREAMS - DOOR.streamsPerConnection);
  assert.deepEqual(await good.call('Publish', Buffer.from('b')), Buffer.from('b'));
  const streams = await child.streams();
  assert.ok(streams <= DOOR.streamsPerConnection, `the engine got ${streams} streams`);
  const growth = (child.peak() - before) / MEBIBYTE;
  assert.ok(growth < 64, `memory grew by ${growth.toFixed(1)} MiB`);
});

test('[F1] a flood that keeps to the cap is served at the cap, and the next stream when one has gone', { timeout: 30_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine, limits: { ...DOOR, streamsPerConnection: 10 } });
  const client = clientOf(t, server.address);
  const subscriptions = Array.from({ length: 30 }, () => client.subscribeRaw(Buffer.from('s'), { onMessage: () => undefined }));
  while (engine.streams.length < 10) await new Promise((resolve) => setImmediate(resolve));
  for (let i = 0; i < 20; i++) {
    assert.equal(engine.streams.length, 10 + i);
    subscriptions[i]?.cancel();
    while (engine.streams.length < 11 + i) await new Promise((resolve) => setImmediate(resolve));
  }
});

test('[F4] 5,000 quick subscribe/cancel on one connection: the connection and a subscription beside them survive', { timeout: 60_000 }, async (t) => {
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
  while (!live) await new Promise((resolve) => setImmediate(resolve));
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
  while (engine.cancelled < ROUNDS * WIDTH) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(engine.streams.length, ROUNDS * WIDTH + 1);
  assert.deepEqual(await client.call('Publish', Buffer.from('a')), Buffer.from('a'));
  assert.equal(server.connections.open, 1);
});

test('calls that are cancelled before they are whole never reach the engine', { timeout: 10_000 }, async (t) => {
  const engine = new TestEngine();
  const server = await startServer(t, { engine });
  const raw = await RawConnection.open(t, server.address);
  const frames: Buffer[] = [];
  for (let i = 0; i < 100; i++) {
    const stream = i * 2 + 1;
    frames.push(headersFrame(stream, '/broker.Broker/Publish'), messageFrame(stream, Buffer.from('x')), resetFrame(stream));
  }
  raw.socket.write(Buffer.concat(frames));
  raw.socket.write(Buffer.concat([headersFrame(1_001, '/broker.Broker/Publish'), messageFrame(1_001, Buffer.from('last'))]));
  await raw.until(() => raw.frames.some(({ stream, type }) => stream === 1_001 && type === Frame.DATA));
  assert.equal(engine.calls, 1);
});

/** Compressed to nearly 4 MiB: members of a gzip file may follow each other, so one is made and repeated. */
function bomb(bytes: number): Buffer {
  const member = gzipSync(Buffer.alloc(64 * MEBIBYTE), { level: constants.Z_BEST_COMPRESSION });
  return Buffer.concat(Array.from({ length: bytes / (64 * MEBIBYTE) }, () => member));
}

function sendCompressed(client: grpc.Client, compressed: Buffer, encoding = 'gzip'): Promise<CallError | null> {
  const metadata = new grpc.Metadata();
  metadata.set('x-test-encoding', encoding);
  return new Promise((resolve) => {
    client.makeUnaryRequest('/broker.Broker/Publish', identity, identity, compressed, metadata, (error) => {
      resolve(error === null ? null : new CallError(error));
    });
  });
}

test('[F6] gzip bombs of 4 GiB in 4 MiB: refused with MESSAGE_TOO_LARGE, memory grows by at most 8 MiB over the largest good message', { skip: onlyLinux, timeout: 60_000 }, async (t) => {
  const child = await startChild(t);
  const raw = await RawConnection.open(t, child.address);
  const good = Buffer.concat([gzipSync(Buffer.alloc(DOOR.messageBytes - 1_000)), Buffer.alloc(0)]);
  const evil = bomb(4 * GIBIBYTE);
  assert.ok(evil.length < DOOR.messageBytes, `${evil.length} bytes`);
  let stream = 1;
  const answerTo = async (message: Buffer): Promise<number> => {
    const id = stream;
    stream += 2;
    await sendMessage(raw, id, message);
    await raw.until(() => raw.closed || raw.frames.some((frame) => frame.stream === id && (frame.flags & 1) !== 0));
    return raw.frames.filter((frame) => frame.stream === id && frame.type === Frame.DATA).length;
  };
  // As large as a bomb on the wire, and as large as a good message inflated: what these take is the measure.
  for (let i = 0; i < 4; i++) {
    await answerTo(Buffer.concat([evil.subarray(0, 1_000), Buffer.alloc(evil.length - 1_000, 0xff)]));
    assert.equal(await answerTo(good), 1, 'a good message is answered');
  }
  const before = child.peak();
  const explained: boolean[] = [];
  for (let i = 0; i < 4; i++) {
    const dataFrames = await answerTo(evil);
    const last = raw.frames.at(-1);
    explained.push(dataFrames === 0 && last?.payload.includes('grpc-status-details-bin') === true);
  }
  const growth = (child.peak() - before) / MEBIBYTE;
  assert.ok(growth <= 8, `memory grew by ${growth.toFixed(1)} MiB`);
  assert.equal(await answerTo(good), 1, 'and good messages still are');
  assert.deepEqual(explained.length, 4);
});

/** A compressed gRPC message in DATA frames of 16 KiB, as fast as the windows allow. */
async function sendMessage(raw: RawConnection, stream: number, compressed: Buffer): Promise<void> {
  raw.socket.write(headersFrame(stream, '/broker.Broker/Publish', { 'grpc-encoding': 'gzip' }));
  const head = Buffer.alloc(5);
  head.writeUInt8(1, 0);
  head.writeUInt32BE(compressed.length, 1);
  const whole = Buffer.concat([head, compressed]);
  const { frame } = await import('./grpc-rig.ts');
  for (let at = 0; at < whole.length; at += 16_384) {
    const part = whole.subarray(at, at + 16_384);
    const isLast = at + part.length === whole.length;
    if (!raw.socket.write(frame(Frame.DATA, isLast ? 1 : 0, stream, part))) await once(raw.socket, 'drain');
  }
}
