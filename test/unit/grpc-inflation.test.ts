/** Compressed requests. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { ReceiveBudget } from '../../src/grpc/receive-budget.ts';
import { Frame, frame, headersFrame, RawConnection } from '../support/http2-frames.ts';
import { startServer, TestEngine } from './grpc-rig.ts';

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('[F5] what compressed requests become is bounded, and refused before it is kept', {
  timeout: 60_000,
}, async (t) => {
  const engine = new TestEngine();
  const receiving = new ReceiveBudget(16 << 20, 30_000, 300_000);
  const server = await startServer(t, { engine, receiving });
  const raw = await RawConnection.open(t, server.address);
  const packed = gzipSync(Buffer.alloc(4 << 20), { level: 9 });
  const head = Buffer.alloc(5);
  head[0] = 1;
  head.writeUInt32BE(packed.length, 1);
  const before = process.memoryUsage();
  const COUNT = 200;
  for (let i = 0; i < COUNT; i++) {
    raw.socket.write(
      Buffer.concat([
        headersFrame(i * 2 + 1, '/broker.Broker/Fetch', { 'grpc-encoding': 'gzip' }),
        frame(Frame.DATA, 0, i * 2 + 1, Buffer.concat([head, packed])),
      ]),
    );
  }
  await pause(8_000);
  const after = process.memoryUsage();
  const grown = (after.arrayBuffers - before.arrayBuffers) / 2 ** 20;
  t.diagnostic(
    `sent ${((COUNT * packed.length) / 2 ** 20).toFixed(1)} MiB; budget has ${(receiving.bytes / 2 ** 20).toFixed(2)} of 16 MiB; memory grew by ${grown.toFixed(0)} MiB`,
  );
  assert.ok(grown < 64);
});
