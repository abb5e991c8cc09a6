/** Shard threads that are replaced while a log of the test answers them, or does not. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { it, type TestContext } from 'node:test';
import { createDoorbell, DoorbellRinger } from '../../src/shm/doorbell.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RingProducer } from '../../src/shm/ring-producer.ts';
import { FromRaft, ToRaft } from '../../src/workers/link.ts';
import type { ShardRings } from '../../src/workers/messages.ts';
import type { RaftHandle } from '../../src/workers/raft/raft-handle.ts';
import { ShardCounters } from '../../src/workers/shard/shard-counters.ts';
import { ShardPool } from '../../src/workers/shard-pool.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

/** The Raft thread, as far as a shard that starts needs it: its questions are answered while `isAnswering`. */
class FakeLog {
  isAnswering = true;
  /** Of a thread that has gone. */
  detached = Promise.resolve();
  /** Threads that have been connected, and those of them whose first question is not answered. */
  attached = 0;
  asking = 0;
  #shards: { readonly requests: RingConsumer; readonly answers: RingProducer; readonly bell: DoorbellRinger }[] = [];

  readonly handle = {
    attach: (_shard: number, { toRaft, fromRaft }: ShardRings, doorbell: SharedArrayBuffer): void => {
      this.attached += 1;
      const [requests, answers] = [new RingConsumer(toRaft), new RingProducer(fromRaft)];
      this.#shards.push({ requests, answers, bell: new DoorbellRinger(doorbell) });
    },
    detach: (): Promise<void> => this.detached,
    openAllotments: async () => [],
  } as unknown as RaftHandle;

  work(): void {
    this.asking = this.#shards.filter(({ requests }) => requests.usedBytes() > 0).length;
    if (!this.isAnswering) return;
    for (const { requests, answers, bell } of this.#shards) {
      requests.drain((type, offset) => {
        if (type !== ToRaft.QUERY) return;
        const at = answers.claim(FromRaft.STATE, 32);
        answers.view.setUint32(at + 24, requests.view.getUint32(offset + 8, true), true);
        answers.commit();
        bell.ring();
      }, 1_000);
    }
  }
}

function poolOf(t: TestContext, shards: number) {
  const log = new FakeLog();
  const fatal: string[] = [];
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'segments'));
  const pool = new ShardPool(
    {
      shards,
      shardsMax: shards,
      hasPeers: false,
      table: new SlotTable(shards),
      dataDirectory: folder,
      ringBytes: 1 << 16,
      limits: {
        bodyBytes: 1 << 10,
        headersBytes: 1 << 10,
        headersCount: 10,
        batchBytes: 1 << 12,
        lingerMs: 1,
        groupsInFlight: 2,
      },
      store: { segmentBytes: 1 << 20, lowSpaceBytes: 0, cacheBytes: 1 << 16, database: null },
      mainDoorbell: createDoorbell(),
      raftDoorbell: createDoorbell(),
      counters: Array.from({ length: shards }, () => new ShardCounters().buffer),
      failpoints: '',
      tracing: null,
    },
    log.handle,
    {
      onLog: () => undefined,
      onShardDied: () => undefined,
      onShardReady: () => undefined,
      onShardRetired: () => undefined,
      onFatal: (reason) => void fatal.push(reason),
    },
  );
  const timer = setInterval(() => log.work(), 5);
  t.after(async () => {
    log.isAnswering = true;
    await pool.stop();
    clearInterval(timer);
  });
  return { pool, log, fatal };
}

const WHY = 'answers are lost';

it('a thread that asks for what its predecessor left is replaced too when answers of the log are lost', async (t) => {
  const { pool, log } = poolOf(t, 1);
  await pool.start([]);
  log.isAnswering = false;
  pool.replaceAll(WHY);
  await until(
    () => log.attached === 2,
    () => `${log.attached} threads`,
  );
  assert.equal(pool.generation(0), 0);
  pool.replaceAll(WHY);
  await until(
    () => log.attached === 3,
    () => `${log.attached} threads`,
  );
  log.isAnswering = true;
  await pool.whenReady(0);
  assert.equal(pool.generation(0), 3);
});

it('answers that are lost before all threads serve end no start', async (t) => {
  const { pool, log } = poolOf(t, 2);
  log.isAnswering = false;
  const started = pool.start([]);
  await until(
    () => log.asking === 2,
    () => `${log.asking} threads`,
  );
  pool.replaceAll(WHY);
  log.isAnswering = true;
  await started;
  await until(
    () => log.attached === 4,
    () => `${log.attached} threads`,
  );
  await Promise.all([0, 1].map((shard) => pool.whenReady(shard)));
});

it('threads that are replaced for lost answers do not count as ones that die again and again', async (t) => {
  const { pool, fatal } = poolOf(t, 3);
  await pool.start([]);
  for (let round = 1; round <= 7; round++) {
    const before = [0, 1, 2].map((shard) => pool.generation(shard));
    pool.replaceAll(WHY);
    await until(
      () => fatal.length > 0 || before.every((generation, shard) => pool.generation(shard) > generation),
      () => `round ${round}`,
    );
  }
  assert.deepEqual(fatal, []);
});

it('a thread that dies just before the stop is not replaced behind it', async (t) => {
  const { pool, log } = poolOf(t, 1);
  await pool.start([]);
  const { promise, resolve } = Promise.withResolvers<void>();
  log.detached = promise;
  pool.replaceAll(WHY);
  await until(
    () => pool.generation(0) === 0,
    () => `generation ${pool.generation(0)}`,
  );
  const stopped = pool.stop();
  resolve();
  await stopped;
  await new Promise((resolved) => setImmediate(resolved));
  assert.equal(log.attached, 1);
});
