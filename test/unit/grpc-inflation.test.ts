/** Compressed requests: what they become counts, from its first piece until it is handed on. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { TRACE_CONTEXT_BYTES } from '../../src/base/trace-context.ts';
import type { CallTracing } from '../../src/grpc/engine.ts';
import { ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { makeStatus } from '../../src/grpc/status.ts';
import { Frame, frame, headersFrame, RawConnection } from '../support/http2-frames.ts';
import { eventually, startServer, TestEngine } from './grpc-rig.ts';

const MIB = 1 << 20;
const BUDGET = 16 * MIB;
/** Of four MiB, a thousandth. */
const PACKED = framed(gzipSync(Buffer.alloc(4 * MIB - 100), { level: 9 }));

function framed(body: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head[0] = 1;
  head.writeUInt32BE(body.length, 1);
  return Buffer.concat([head, body]);
}

async function rig(t: TestContext, tracing: CallTracing | null = null) {
  const engine = new TestEngine();
  const receiving = new ReceiveBudget(BUDGET, 30_000, 300_000);
  const server = await startServer(t, { engine, receiving, tracing });
  const raw = await RawConnection.open(t, server.address);
  const begin = (stream: number, path: string, body: Buffer): void => {
    const head = headersFrame(stream, path, { 'grpc-encoding': 'gzip' });
    raw.socket.write(Buffer.concat([head, frame(Frame.DATA, 0, stream, body)]));
  };
  return { engine, receiving, raw, begin };
}

test('[F5] of calls that have not come to their end no more is kept than the budget, and the rest is refused', {
  timeout: 60_000,
}, async (t) => {
  const { engine, receiving, raw, begin } = await rig(t);
  const before = process.memoryUsage().arrayBuffers;
  for (let i = 0; i < 100; i++) begin(i * 2 + 1, '/broker.Broker/Fetch', PACKED);
  // All at once they have no room for one whole message each: nearly all, if not all, are refused.
  await eventually(t, () => raw.count(Frame.HEADERS) >= 95);
  const grown = process.memoryUsage().arrayBuffers - before;
  // What was refused was inflated in part, and is garbage.
  assert.ok(grown < 100 * MIB, `${Math.round(grown / MIB)} MiB`);
  assert.ok(receiving.bytes <= BUDGET + 4 * MIB, `${receiving.bytes} bytes are held`);
  for (let i = 0; i < 100; i++) raw.socket.write(frame(Frame.DATA, 1, i * 2 + 1, Buffer.alloc(0)));
  await eventually(t, () => receiving.bytes === 0);
  const { calls } = engine;
  begin(1_001, '/broker.Broker/Fetch', PACKED);
  await eventually(t, () => receiving.bytes >= 4 * MIB - 100);
  // Also when it is whole: its call has not come to its end.
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.ok(receiving.bytes >= 4 * MIB - 100);
  raw.socket.write(frame(Frame.DATA, 1, 1_001, Buffer.alloc(0)));
  await eventually(t, () => engine.calls > calls && receiving.bytes === 0);
});

test('[F5] messages of a stream that is not read count until they are', { timeout: 60_000 }, async (t) => {
  const { engine, receiving, begin } = await rig(t);
  const opened: ServerDuplexStream<Buffer, Buffer>[] = [];
  let bytes = 0;
  engine.publishStream = (stream) => {
    opened.push(stream);
    // As a handler does that has no room.
    stream.on('data', (message: Buffer) => (bytes += message.length)).pause();
  };
  begin(1, '/broker.v1.Producer/PublishStream', Buffer.concat([PACKED, PACKED, PACKED]));
  await eventually(t, () => receiving.bytes >= 3 * (4 * MIB - 100) || bytes > 0);
  assert.equal(bytes, 0);
  opened[0]?.resume();
  await eventually(t, () => bytes === 3 * (4 * MIB - 100));
  await eventually(t, () => receiving.bytes === 0);
});

test('[F5] a compressed publish that a full broker has no room for is refused while it comes, or while it is inflated', {
  timeout: 60_000,
}, async (t) => {
  const { engine, receiving, raw, begin } = await rig(t);
  const asked: number[] = [];
  let room = 0;
  engine.refuse = (bytes) => {
    asked.push(bytes);
    return bytes > room ? makeStatus('QUEUE_FULL', '') : null;
  };
  begin(1, '/broker.Broker/Publish', PACKED.subarray(0, 100));
  await eventually(t, () => raw.count(Frame.HEADERS) === 1);
  assert.deepEqual(asked, [100]);
  room = MIB;
  asked.length = 0;
  begin(3, '/broker.Broker/Publish', PACKED);
  raw.socket.write(frame(Frame.DATA, 1, 3, Buffer.alloc(0)));
  await eventually(t, () => raw.count(Frame.HEADERS) === 2);
  assert.ok(asked.length > 2 && Math.max(...asked) < 2 * MIB, String(asked));
  assert.equal(engine.calls, 0);
  await eventually(t, () => receiving.bytes === 0);
  room = 4 * MIB;
  begin(5, '/broker.Broker/Publish', PACKED);
  raw.socket.write(frame(Frame.DATA, 1, 5, Buffer.alloc(0)));
  await eventually(t, () => engine.calls === 1);
});

test('a compressed publish that is refused while it comes, or while it is inflated, is traced once, and one that is handed on is as well', {
  timeout: 60_000,
}, async (t) => {
  const traced: (readonly [method: string, details: string | undefined, hasReason: boolean])[] = [];
  let begun = 0;
  const { engine, raw, begin } = await rig(t, {
    begin: () => {
      begun += 1;
      return { context: new Uint8Array(TRACE_CONTEXT_BYTES), receivedAt: 0 };
    },
    ended: (method, _subject, { receivedAt }, error) => {
      assert.ok(receivedAt > 0, 'when it began is not known');
      traced.push([method, error?.details, error?.metadata !== undefined]);
    },
  });
  let room = 0;
  engine.refuse = (bytes) => (bytes > room ? makeStatus('QUEUE_FULL', '') : null);
  const end = (stream: number): void => void raw.socket.write(frame(Frame.DATA, 1, stream, Buffer.alloc(0)));
  const full = ['Publish', makeStatus('QUEUE_FULL', '').details, true] as const;
  begin(1, '/broker.Broker/Publish', PACKED.subarray(0, 100));
  await eventually(t, () => raw.count(Frame.HEADERS) === 1);
  assert.deepEqual(traced, [full]);
  room = MIB;
  begin(3, '/broker.Broker/Publish', PACKED);
  end(3);
  await eventually(t, () => raw.count(Frame.HEADERS) === 2);
  assert.deepEqual(traced, [full, full]);
  room = 4 * MIB;
  begin(5, '/broker.Broker/Publish', PACKED);
  end(5);
  await eventually(t, () => engine.calls === 1 && raw.count(Frame.HEADERS) >= 3);
  // Its shard tells of its end.
  assert.deepEqual([begun, traced.length], [3, 2]);
});
