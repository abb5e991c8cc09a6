/** The contract of a MessageStore, kept by Cassandra. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import { CassandraStore, type CassandraStoreOptions } from '../../src/storage/cassandra/cassandra-store.ts';
import { createClient } from '../../src/storage/cassandra/connect.ts';
import { bucketOf, SPAN_IDS } from '../../src/storage/cassandra/schema.ts';
import type { SealedBatch } from '../../src/storage/store.ts';
import { CassandraServer, cassandraMissing } from '../servers/cassandra.ts';
import { Relay } from '../servers/relay.ts';
import { dataBatch, plain, subjectRef } from '../unit/batch-support.ts';
import { behindRelay } from './behind-relay.ts';
import { birthSuite } from './birth.ts';
import { messageStoreSuite } from './message-store.ts';

/** Each is two partitions, and a statement for each. */
const SUBJECTS = 10_000;

const missing = cassandraMissing();
const given = process.env.CASSANDRA_CONTACT_POINTS?.split(',')[0];
const server = missing === null && given === undefined ? await CassandraServer.start() : null;
const contact = given ?? server?.contactPoint ?? '';
after(() => server?.remove());

function optionsFor(contactPoint: string): CassandraStoreOptions {
  return {
    contactPoints: [contactPoint],
    datacenter: process.env.CASSANDRA_DATACENTER ?? 'datacenter1',
    keyspace: `t_${randomBytes(6).toString('hex')}`,
    replication: '1',
    consistency: 'LOCAL_QUORUM',
    credentials: null,
    tls: null,
    inFlight: 128,
    timeoutMs: 12_000,
    acceptWeakDurability: false,
  };
}

if (missing !== null) {
  test('cassandra: the contract of a store', (t) => t.skip(missing));
} else {
  messageStoreSuite(
    'cassandra',
    async (t) => {
      const [host, port] = contact.split(':') as [string, string | undefined];
      const relay = await Relay.start(host, Number(port ?? 9042));
      const options = optionsFor(`127.0.0.1:${relay.port}`);
      const changeByte = async ({ subject, base, bytes }: SealedBatch, offset: number): Promise<void> => {
        const client = createClient(options);
        const changed = Buffer.from(bytes);
        changed.writeUInt8(changed.readUInt8(offset) ^ 1, offset);
        const key = [Buffer.from(subject.bytes), bucketOf(base), base];
        const update = `UPDATE ${options.keyspace}.batches SET bytes = ? WHERE subject = ? AND bucket = ? AND base = ?`;
        await client.execute(update, [changed, ...key], { prepare: true });
        await client.shutdown();
      };
      return await behindRelay(t, relay, () => CassandraStore.open(options), changeByte);
    },
    SUBJECTS,
  );

  test('cassandra: a trim deletes what was published by a clock that is ahead, and the directory of what lies below', async (t) => {
    const store = await CassandraStore.open(optionsFor(contact));
    t.after(() => store.close());
    const subject = subjectRef('ahead');
    const publishedAt = Date.now() + 3_600_000;
    const bases = [1, 2_000, SPAN_IDS + 5, SPAN_IDS + 6];
    await store.append(bases.map((base) => dataBatch(subject, [plain(`${base}`)], { base, publishedAt })));
    await store.trim(subject, SPAN_IDS + 6);
    assert.equal((await store.subjectStats(subject)).batches, 1);
    assert.equal(await store.lookup(subject, SPAN_IDS + 6), 'data');
    await store.trim(subject, SPAN_IDS + 7);
    assert.deepEqual(await store.subjectStats(subject), { batches: 0, bytes: 0 });
  });

  birthSuite('cassandra', async (t) => {
    const options = optionsFor(contact);
    const stores = [await CassandraStore.open(options), await CassandraStore.open(options)];
    t.after(() => Promise.all(stores.map((store) => store.close())));
    return stores.map(({ birth }) => birth);
  });
}
