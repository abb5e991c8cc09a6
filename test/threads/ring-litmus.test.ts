import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { createDoorbell, DoorbellRinger } from '../../src/shm/doorbell.ts';
import { createRingAt } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RecordReader } from './checked-records.ts';
import { runOwner, startWorker } from './start-worker.ts';

const LONG = process.env.BROKER_LONG === '1';

interface Stream {
  readonly capacity: number;
  readonly position: number;
  readonly bodyBytesMax: number;
  readonly count: number;
  readonly drainLimit: number;
}

/** Streams `count` records from a worker to this thread, both parking when the ring is full or empty. */
async function stream(t: TestContext, { capacity, position, bodyBytesMax, count, drainLimit }: Stream): Promise<void> {
  const ring = createRingAt(capacity, position);
  const ownBell = createDoorbell();
  const peerBell = createDoorbell();
  const worker = startWorker(t, {
    role: 'stream',
    ring,
    bodyBytesMax,
    sequence: 0,
    count,
    ownBell: peerBell,
    peerBell: ownBell,
  });
  const exited = once(worker, 'exit');
  const reader = new RecordReader(new RingConsumer(ring), bodyBytesMax, 0);
  const ringer = new DoorbellRinger(peerBell);
  const signal = { stopped: false };
  let records = 0;
  await runOwner(
    t,
    ownBell,
    () => {
      const drained = reader.drain(drainLimit);
      records += drained;
      // Tells the producer of the space.
      if (drained > 0) ringer.ring();
      signal.stopped = records >= count || reader.bad > 0;
      return drained;
    },
    signal,
  );
  if (reader.bad > 0) await worker.terminate();
  await exited;
  assert.deepEqual({ bad: reader.bad, records }, { bad: 0, records: count });
}

const w3Count = LONG ? 100_000_000 : 2_000_000;
test(
  `[W3] ${w3Count} records with a CRC each cross a 64 KiB ring whole and in order`,
  { timeout: LONG ? 3_600_000 : 240_000 },
  (t) => stream(t, { capacity: 65_536, position: 0, bodyBytesMax: 200, count: w3Count, drainLimit: 256 }),
);

const w4Count = LONG ? 10_000_000 : 200_000;
for (const [name, position] of [
  ['2^31-8', 2 ** 31 - 8],
  ['2^32-8', 2 ** 32 - 8],
] as const) {
  test(
    `[W4] ${w4Count} records cross a ring of 16 slots whose counters start at ${name}`,
    { timeout: LONG ? 3_600_000 : 240_000 },
    (t) => stream(t, { capacity: 1_024, position, bodyBytesMax: 48, count: w4Count, drainLimit: 5 }),
  );
}
