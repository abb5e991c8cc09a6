/** What a store on Cassandra keeps of what it acknowledged, while its node is killed and cut off. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { BrokerError } from '../../src/base/errors.ts';
import { CassandraStore, type CassandraStoreOptions } from '../../src/storage/cassandra/cassandra-store.ts';
import { type SealedBatch, StoreUncertain, type SubjectRef } from '../../src/storage/store.ts';
import { appendUntilKnown, readAll, type Shown } from '../contract/message-store.ts';
import { CassandraServer, ownCassandraMissing } from '../servers/cassandra.ts';
import { Relay } from '../servers/relay.ts';
import { dataBatch, plain, subjectRef } from '../unit/batch-support.ts';

const missing = ownCassandraMissing();
/** A node that runs is reachable again within this time. */
const BACK_MS = 30_000;
const SUBJECTS = Array.from({ length: 8 }, (_, i) => subjectRef(`killed.${i}`));

function options(contactPoint: string, more: Partial<CassandraStoreOptions> = {}): CassandraStoreOptions {
  return {
    contactPoints: [contactPoint],
    datacenter: 'datacenter1',
    keyspace: `t_${randomBytes(6).toString('hex')}`,
    replication: '1',
    consistency: 'LOCAL_QUORUM',
    credentials: null,
    tls: null,
    inFlight: 32,
    timeoutMs: 12_000,
    acceptWeakDurability: false,
    ...more,
  };
}

function group(round: number): SealedBatch[] {
  return SUBJECTS.map((subject) => dataBatch(subject, [plain(`${round}`), plain(`${round}`)], { base: round * 2 + 1 }));
}

/** The driver is still making its connections to a node that is back: what it cannot ask yet is refused, and asked again. */
async function readWhenThere(store: CassandraStore, subject: SubjectRef): Promise<Shown[]> {
  for (const begun = performance.now(); ; ) {
    try {
      return await readAll(store, subject);
    } catch (error) {
      const isAway = error instanceof BrokerError && error.reason === 'STORE_UNAVAILABLE';
      if (!isAway || performance.now() - begun > BACK_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function assertWhole(store: CassandraStore, rounds: number): Promise<void> {
  for (const subject of SUBJECTS) {
    const found = await readWhenThere(store, subject);
    assert.deepEqual(
      found.map(({ from, bodies }) => [from, bodies?.join()]),
      Array.from({ length: rounds }, (_, round) => [round * 2 + 1, `${round},${round}`]),
    );
  }
}

test('[S13] the node killed with -9 under load and started again: none lost, none twice', async (t) => {
  if (missing !== null) return t.skip(missing);
  const server = await CassandraServer.start();
  const chosen = options(server.contactPoint);
  const store = await CassandraStore.open(chosen);
  t.after(() => store.close().finally(() => server.remove()));
  let round = 0;
  for (; round < 60; round++) await store.append(group(round));
  const inFlight = appendUntilKnown(store, group(round++));
  await server.stop('SIGKILL');
  await server.run();
  await inFlight;
  await appendUntilKnown(store, group(round++));
  await assertWhole(store, round);
  // A server that answers, and has nowhere to write to.
  assert.equal(await store.probe(), null);
  await server.execute(`DROP KEYSPACE ${chosen.keyspace}`);
  await assert.rejects(store.probe(), { reason: 'STORE_UNAVAILABLE' });
});

test('[S13] the reply lost after the write: uncertain, and the repeated append changes nothing; commitlog_sync periodic is refused', async (t) => {
  if (missing !== null) return t.skip(missing);
  const server = await CassandraServer.start({ sync: 'periodic' });
  await assert.rejects(CassandraStore.open(options(server.contactPoint)), { code: 'STORE_WEAK' });
  const relay = await Relay.start('127.0.0.1', server.port);
  const store = await CassandraStore.open(
    options(`127.0.0.1:${relay.port}`, { acceptWeakDurability: true, timeoutMs: 2_000 }),
  );
  t.after(async () => {
    await store.close();
    relay.close();
    await server.remove();
  });
  assert.equal(store.weaknesses.length, 1);
  await store.append(group(0));
  const answered = relay.dropReplies();
  const uncertain = assert.rejects(store.append(group(1)), StoreUncertain);
  await answered;
  relay.breakAll();
  await uncertain;
  relay.restore();
  await appendUntilKnown(store, group(1));
  await assertWhole(store, 2);
});
