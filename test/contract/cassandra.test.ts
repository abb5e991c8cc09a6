/** The contract of a MessageStore, kept by Cassandra. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, test } from 'node:test';
import { types } from 'cassandra-driver';
import { BucketSearch } from '../../src/storage/cassandra/bucket-search.ts';
import { CassandraStore, type CassandraStoreOptions } from '../../src/storage/cassandra/cassandra-store.ts';
import { createClient } from '../../src/storage/cassandra/connect.ts';
import { bucketOf, SPAN_IDS } from '../../src/storage/cassandra/schema.ts';
import type { SealedBatch } from '../../src/storage/store.ts';
import { cassandraMissing } from '../servers/cassandra.ts';
import { chooseCassandra } from '../servers/chosen-server.ts';
import { Relay } from '../servers/relay.ts';
import { dataBatch, plain, subjectRef } from '../unit/batch-support.ts';
import { behindRelay, remoteStoreSuite } from './behind-relay.ts';
import { birthSuite } from './birth.ts';
import { incarnationSuite } from './incarnations.ts';
import { verifySuite } from './verify.ts';

const missing = cassandraMissing();
const server = missing === null ? await chooseCassandra() : null;
const contact = server?.contactPoints.split(',', 1)[0] ?? '';
after(() => server?.remove());

function optionsFor(contactPoint: string): CassandraStoreOptions {
  return {
    contactPoints: [contactPoint],
    datacenter: server?.datacenter ?? '',
    keyspace: `t_${randomBytes(6).toString('hex')}`,
    replication: '1',
    consistency: 'LOCAL_QUORUM',
    credentials: server?.credentials ?? null,
    tls: null,
    inFlight: 128,
    timeoutMs: 12_000,
    acceptWeakDurability: false,
  };
}

if (missing !== null) {
  test('cassandra: the contract of a store', (t) => t.skip(missing));
} else {
  remoteStoreSuite('cassandra', async (t) => {
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
  });

  verifySuite('cassandra', async (t) => {
    const options = optionsFor(contact);
    const store = await CassandraStore.open(options);
    const client = createClient(options);
    t.after(async () => {
      await client.shutdown();
      await store.close();
    });
    const run = async (text: string, { subject, base }: SealedBatch, ...values: Buffer[]): Promise<void> => {
      const key = [Buffer.from(subject.bytes), bucketOf(base), base];
      const where = `${text} WHERE subject = ? AND bucket = ? AND base = ?`;
      await client.execute(where, [...values, ...key], { prepare: true });
    };
    const table = `${options.keyspace}.batches`;
    return {
      store,
      remove: (batch) => run(`DELETE FROM ${table}`, batch),
      async changeByte(batch, offset) {
        const changed = Buffer.from(batch.bytes);
        changed.writeUInt8(changed.readUInt8(offset) ^ 1, offset);
        await run(`UPDATE ${table} SET bytes = ?`, batch, changed);
      },
    };
  });

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

  test('[P8] cassandra: a clock that runs ahead leaves nothing out that has not expired by log time, and ends nothing before', async (t) => {
    const publishedAt = Date.now();
    const DAY = 86_400;
    const options = optionsFor(contact);
    const store = await CassandraStore.open({ ...options, now: () => publishedAt + DAY * 1000 });
    const client = createClient(options);
    await client.connect();
    t.after(async () => {
      await client.shutdown();
      await store.close();
    });
    const subject = subjectRef('early');
    const lives = [60, 2 * DAY, 0];
    const bases = lives.map((_, i) => i * 2_048 + 1);
    for (const [i, seconds] of lives.entries()) {
      await store.append([
        dataBatch(subject, [plain('m', seconds)], { base: bases[i] as number, publishedAt: publishedAt + i }),
      ]);
    }
    const text = `SELECT TTL(bytes) AS life FROM ${options.keyspace}.batches WHERE subject = ? AND bucket = ? AND base = ?`;
    for (const [i, base] of bases.entries()) {
      const key = [Buffer.from(subject.bytes), types.Long.fromNumber(bucketOf(base)), types.Long.fromNumber(base)];
      const life = (await client.execute(text, key, { prepare: true })).first()?.get('life');
      if (lives[i] === 0) assert.equal(life, null);
      else assert.ok(life > (lives[i] as number), `${lives[i]} s: ${life}`);
    }
  });

  birthSuite('cassandra', async (t) => {
    const options = optionsFor(contact);
    const stores = [await CassandraStore.open(options), await CassandraStore.open(options)];
    t.after(() => Promise.all(stores.map((store) => store.close())));
    return stores.map(({ birth }) => birth);
  });

  incarnationSuite('cassandra', async (t) => {
    const options = optionsFor(contact);
    const stores = [await CassandraStore.open(options), await CassandraStore.open(options)] as const;
    t.after(() => Promise.all(stores.map((store) => store.close())));
    return [stores[0].incarnations, stores[1].incarnations];
  });

  test('cassandra: the directory of a subject lives as long as the last of its batches, whoever wrote which first', async (t) => {
    const options = optionsFor(contact);
    const client = createClient(options);
    await client.connect();
    t.after(() => client.shutdown());
    const append = async (...batches: SealedBatch[]): Promise<void> => {
      // A store that knows of no entry yet, as after a restart.
      const store = await CassandraStore.open(options);
      for (const batch of batches) await store.append([batch]);
      await store.close();
    };
    const subject = subjectRef('lives');
    const publishedAt = Date.now();
    const batch = (base: number, seconds: number) =>
      dataBatch(subject, [plain('m', seconds)], { base, publishedAt: publishedAt + base });
    const entries = async (): Promise<string[]> => {
      const text = `SELECT span, ends, TTL(ends) AS life FROM ${options.keyspace}.spans WHERE subject = ?`;
      const { rows } = await client.execute(text, [Buffer.from(subject.bytes)], { prepare: true });
      return rows.map((row) => {
        const [ends, life] = [row.get('ends'), row.get('life')];
        if (ends === null) return `${row.get('span')} stays`;
        const days = (Number(ends) - publishedAt / 1000) / 86_400;
        assert.ok(Math.abs(Number(life) / 86_400 - days) < 0.1, 'it ends when it says so');
        return `${row.get('span')} ends after ${days.toFixed(0)} days`;
      });
    };
    const DAY = 86_400;
    await append(batch(1, 60), batch(2, 30), batch(SPAN_IDS + 1, 10 * DAY), batch(2 * SPAN_IDS + 1, 0));
    assert.deepEqual(await entries(), ['0 ends after 2 days', '1 ends after 15 days', '2 stays']);
    await append(batch(3, 4 * DAY), batch(SPAN_IDS + 2, 60), batch(2 * SPAN_IDS + 2, 60));
    assert.deepEqual(await entries(), ['0 ends after 6 days', '1 ends after 15 days', '2 ends after 2 days']);
    // What never expires keeps it beyond that.
    const marker = `SELECT span FROM ${options.keyspace}.spans WHERE subject = ?`;
    await client.execute(
      `DELETE ends FROM ${options.keyspace}.spans USING TIMESTAMP ${2 ** 40} WHERE subject = ? AND span IN ?`,
      [Buffer.from(subject.bytes), [1, 2].map((span) => types.Long.fromNumber(span))],
      { prepare: true },
    );
    const { rows } = await client.execute(marker, [Buffer.from(subject.bytes)], { prepare: true });
    assert.deepEqual(
      rows.map((row) => Number(row.get('span'))),
      [0, 2],
    );
  });

  test('cassandra: a subject whose ids have all expired but the last is read with few questions', async (t) => {
    const options = optionsFor(contact);
    const store = await CassandraStore.open(options);
    const client = createClient(options);
    await client.connect();
    t.after(async () => {
      await client.shutdown();
      await store.close();
    });
    const subject = subjectRef('expired');
    const last = 1_000 * SPAN_IDS + 5;
    // Entries whose batches have ended a second after they were written.
    const ending = `UPDATE ${options.keyspace}.spans USING TTL 1 AND TIMESTAMP 5 SET ends = 5 WHERE subject = ? AND span = ?`;
    const spans = Array.from({ length: 1_000 }, (_, span) => span);
    for (let at = 0; at < spans.length; at += 100) {
      await Promise.all(
        spans
          .slice(at, at + 100)
          .map((span) =>
            client.execute(ending, [Buffer.from(subject.bytes), types.Long.fromNumber(span)], { prepare: true }),
          ),
      );
    }
    await store.append([dataBatch(subject, [plain('m', 60)], { base: last, publishedAt: Date.now() })]);
    let questions = 0;
    const search = new BucketSearch(options.keyspace, (text, values) => {
      questions += 1;
      return client.execute(text, [...values], { prepare: true });
    });
    const isOver = async (): Promise<boolean> => {
      const counted = await client.execute(`SELECT count(*) AS n FROM ${options.keyspace}.spans`);
      return Number(counted.first()?.get('n')) === 1;
    };
    while (!(await isOver())) await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(await search.next(subject, 0, bucketOf(Number.MAX_SAFE_INTEGER)), bucketOf(last));
    assert.ok(questions <= 2, `${questions} questions`);
    const { items } = await store.read(subject, 1, last, 1_000);
    assert.equal(items[0]?.from, last);
  });

  test('cassandra: a keyspace of before there were ends is brought up to date, and what it says stays', async (t) => {
    const options = optionsFor(contact);
    const client = createClient(options);
    await client.connect();
    t.after(() => client.shutdown());
    const subject = subjectRef('older');
    const batch = (base: number, seconds: number) =>
      dataBatch(subject, [plain('m', seconds)], { base, publishedAt: Date.now() });
    const before = await CassandraStore.open(options);
    await before.append([batch(1, 0)]);
    await before.close();
    await client.execute(`ALTER TABLE ${options.keyspace}.spans DROP ends`);
    const store = await CassandraStore.open(options);
    t.after(() => store.close());
    await store.append([batch(2, 60)]);
    await client.execute(`DELETE ends FROM ${options.keyspace}.spans WHERE subject = ? AND span = 0`, [
      Buffer.from(subject.bytes),
    ]);
    assert.equal(await store.lastId(subject), 2);
  });
}
