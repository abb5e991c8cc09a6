import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { createDoorbell, DoorbellRinger } from '../../src/shm/doorbell.ts';
import { createRingAt } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RingProducer } from '../../src/shm/ring-producer.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { RecordReader, RecordWriter } from './checked-records.ts';
import type { Death, Task } from './ring-worker.ts';
import { messageOf, startWorker } from './start-worker.ts';

const BODY_BYTES_MAX = 100;
const CAPACITY = 1_024;
/** Number of the record at which the thread dies, from 0. */
const DIES_AT = 4;

/** Runs the task until its thread has died in the way it asks for. */
async function untilDead(t: TestContext, task: Task): Promise<void> {
  const worker = startWorker(t, task);
  const exited = once(worker, 'exit');
  if (task.death?.by === 'terminate') {
    await messageOf(worker, 'here');
    const started = performance.now();
    await worker.terminate();
    const endedMs = performance.now() - started;
    assert.ok(endedMs < (await onThisMachine(1_000)), `terminate() took ${endedMs} ms`);
  }
  await exited;
}

function nowhere(): void {
  // No site is of interest.
}

/** The heir of a dead producer and the surviving consumer go on: `already` records are waiting, then more follow. */
async function checkSurvivor(
  ring: SharedArrayBuffer,
  consumer: RingConsumer,
  already: number,
  what: string,
): Promise<void> {
  const reader = new RecordReader(consumer, BODY_BYTES_MAX, 0);
  const started = performance.now();
  while (reader.drain(100) > 0);
  assert.deepEqual({ bad: reader.bad, records: reader.expected }, { bad: 0, records: already }, what);
  const heir = new RecordWriter(new RingProducer(ring), BODY_BYTES_MAX, already);
  for (let round = 0; round < 30; round += 1) {
    assert.ok(heir.tryWrite(nowhere), `${what}: no room in a drained ring`);
    reader.drain(100);
  }
  assert.deepEqual({ bad: reader.bad, records: reader.expected }, { bad: 0, records: already + 30 }, what);
  const tookMs = performance.now() - started;
  assert.ok(tookMs < (await onThisMachine(1_000)), `${what}: the survivor was held up for ${tookMs} ms`);
}

const producerSites: [Death['site'], number][] = [
  ['before claim', DIES_AT],
  ['after claim', DIES_AT],
  ['half of the payload', DIES_AT],
  ['before commit', DIES_AT],
  ['before store', DIES_AT],
  ['after store', DIES_AT + 1],
  ['after commit', DIES_AT + 1],
];

for (const by of ['exit', 'terminate'] as const) {
  test(`[W2] a producer that dies (${by}) at each step of a record, with and without a wrap, leaves whole records only`, async (t) => {
    for (const [site, visibleRecords] of producerSites) {
      // The second position makes the fatal record wrap: five records take 5 x 16 to 5 x 112 bytes.
      for (const position of [0, CAPACITY - 208]) {
        const ring = createRingAt(CAPACITY, position);
        const consumer = new RingConsumer(ring);
        const death: Death = { site, visit: DIES_AT + 1, by };
        await untilDead(t, { role: 'write', ring, bodyBytesMax: BODY_BYTES_MAX, sequence: 0, count: 100, death });
        await checkSurvivor(ring, consumer, visibleRecords, `died ${site}, ring started at ${position}`);
      }
    }
  });

  test(`[W2] a consumer that dies (${by}) at each step of a drain: claim answers at once, its heir reads on from what was given back`, async (t) => {
    const sites: [Death, number][] = [
      [{ site: 'handler', visit: 1, by }, 0],
      [{ site: 'handler', visit: 3, by }, 0],
      [{ site: 'before store', visit: 1, by }, 0],
      [{ site: 'after store', visit: 1, by }, 4],
    ];
    for (const [death, givenBack] of sites) {
      const ring = createRingAt(CAPACITY, CAPACITY - 208);
      const writer = new RecordWriter(new RingProducer(ring), BODY_BYTES_MAX, 0);
      while (writer.tryWrite(nowhere));
      const written = writer.sequence;
      await untilDead(t, { role: 'read', ring, bodyBytesMax: BODY_BYTES_MAX, sequence: 0, count: 4, death });
      const started = performance.now();
      const more = writer.tryWrite(nowhere);
      const claimMs = performance.now() - started;
      assert.ok(claimMs < (await onThisMachine(100)), `claim was held up for ${claimMs} ms`);
      assert.equal(more, givenBack > 0, `died in ${death.site}`);
      const heir = new RecordReader(new RingConsumer(ring), BODY_BYTES_MAX, givenBack);
      while (heir.drain(100) > 0);
      assert.deepEqual({ bad: heir.bad, upTo: heir.expected }, { bad: 0, upTo: written + (more ? 1 : 0) }, death.site);
    }
  });
}

test('[W2] a producer terminated 12 times at random instants under load: its heirs continue without a hole or a broken record', async (t) => {
  const prng = new Prng(1);
  const ring = createRingAt(4_096, 2 ** 32 - 2_048);
  const reader = new RecordReader(new RingConsumer(ring), BODY_BYTES_MAX, 0);
  for (let life = 0; life < 12; life += 1) {
    const [ownBell, peerBell] = [createDoorbell(), createDoorbell()];
    const ringer = new DoorbellRinger(ownBell);
    const sequence = reader.expected;
    const worker = startWorker(t, {
      role: 'stream',
      ring,
      bodyBytesMax: BODY_BYTES_MAX,
      sequence,
      count: 1e9,
      ownBell,
      peerBell,
    });
    await messageOf(worker, 'up');
    const until = performance.now() + 3 + prng.nextBelow(10);
    while (performance.now() < until || reader.expected === sequence) {
      if (reader.drain(50) > 0) ringer.ring();
      else await new Promise(setImmediate);
    }
    const terminated = worker.terminate();
    for (let i = 0; i < 200; i += 1) {
      if (reader.drain(50) > 0) ringer.ring();
    }
    await terminated;
    while (reader.drain(50) > 0);
    assert.equal(reader.bad, 0, `life ${life}, seed 1`);
    assert.ok(reader.expected > sequence);
  }
});

test('[W2] a consumer terminated 8 times at random instants under load: the producer is never held up, heirs see whole records', async (t) => {
  const prng = new Prng(2);
  const ring = createRingAt(4_096, 2 ** 31 - 2_048);
  const result = new SharedArrayBuffer(4);
  const writer = new RecordWriter(new RingProducer(ring), BODY_BYTES_MAX, 0);
  /** Sequence that the next consumer starts with. */
  let started = 0;
  for (let life = 0; life < 8; life += 1) {
    const ownBell = createDoorbell();
    const ringer = new DoorbellRinger(ownBell);
    const worker = startWorker(t, {
      role: 'read for ever',
      ring,
      bodyBytesMax: BODY_BYTES_MAX,
      sequence: started,
      result,
      ownBell,
    });
    await messageOf(worker, 'up');
    const until = performance.now() + 3 + prng.nextBelow(10);
    let slowestMs = 0;
    while (performance.now() < until) {
      const before = performance.now();
      const written = writer.tryWrite(nowhere);
      slowestMs = Math.max(slowestMs, performance.now() - before);
      ringer.ring();
      if (!written) await new Promise(setImmediate);
    }
    await worker.terminate();
    assert.equal(Atomics.load(new Int32Array(result), 0), 0, `broken records in life ${life}, seed 2`);
    assert.ok(slowestMs < (await onThisMachine(1_000)), `claim was held up for ${slowestMs} ms`);
    started = firstSequence(ring, writer.sequence);
  }
});

/** Sequence of the oldest record that was not given back: counted by an heir whose reads are never published. */
function firstSequence(ring: SharedArrayBuffer, nextSequence: number): number {
  const copy = new SharedArrayBuffer(ring.byteLength);
  new Uint8Array(copy).set(new Uint8Array(ring));
  const consumer = new RingConsumer(copy);
  let records = 0;
  for (let count = -1; count !== 0; ) {
    count = consumer.drain(() => undefined, 100);
    records += count;
  }
  return nextSequence - records;
}
