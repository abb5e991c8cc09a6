/** The contract of a MessageStore, kept by PostgreSQL. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, type TestContext, test } from 'node:test';
import { PostgresConnection } from '../../src/storage/postgres/connection.ts';
import { PostgresStore, type PostgresStoreOptions } from '../../src/storage/postgres/postgres-store.ts';
import { Statements } from '../../src/storage/postgres/statements.ts';
import { type SealedBatch, StoreFailure } from '../../src/storage/store.ts';
import { databaseStore } from '../../src/verify/stores.ts';
import { choosePostgres } from '../servers/chosen-server.ts';
import { Relay } from '../servers/relay.ts';
import { dataBatch, plain, subjectRef, voidBatch } from '../unit/batch-support.ts';
import { logOf, shown, verified } from '../unit/verify-rig.ts';
import { behindRelay, remoteStoreSuite } from './behind-relay.ts';
import { birthSuite } from './birth.ts';
import { incarnationSuite } from './incarnations.ts';
import { verifySuite } from './verify.ts';

const server = await choosePostgres();
const { url } = server;
after(() => server.remove());

function options(): PostgresStoreOptions {
  return {
    url,
    schema: `t_${randomBytes(6).toString('hex')}`,
    pool: 4,
    timeoutMs: 20_000,
    tls: null,
    acceptWeakDurability: false,
  };
}

remoteStoreSuite('postgres', async (t) => {
  const relay = await Relay.start(new URL(url).hostname, Number(new URL(url).port || 5432));
  const through = new URL(url);
  through.host = `127.0.0.1:${relay.port}`;
  const chosen = { ...options(), url: String(through), timeoutMs: 5_000 };
  const changeByte = async ({ subject, base }: SealedBatch, offset: number): Promise<void> => {
    const connection = new PostgresConnection(chosen);
    await connection.database.none(
      `UPDATE ${chosen.schema}.batch SET bytes = set_byte(bytes, $3, get_byte(bytes, $3) # 1) WHERE subject = $1 AND base = $2`,
      [Buffer.from(subject.bytes), base, offset],
    );
    connection.end();
  };
  return await behindRelay(t, relay, () => PostgresStore.open(chosen), changeByte);
});

verifySuite('postgres', async (t) => {
  const { chosen, store, connection } = await opened(t);
  const run = async (text: string, { subject, base }: SealedBatch, ...more: number[]): Promise<void> => {
    const where = `${text} WHERE subject = $1 AND base = $2`;
    const { rowCount } = await connection.database.result(where, [Buffer.from(subject.bytes), base, ...more]);
    assert.equal(rowCount, 1);
  };
  const table = `${chosen.schema}.batch`;
  return {
    store,
    remove: (batch) => run(`DELETE FROM ${table}`, batch),
    changeByte: (batch, offset) =>
      run(`UPDATE ${table} SET bytes = set_byte(bytes, $3, get_byte(bytes, $3) # 1)`, batch, offset),
  };
});

test('postgres: verify finds a batch that is there twice, in two slices', async (t) => {
  const chosen = options();
  const store = await PostgresStore.open(chosen);
  t.after(() => store.close());
  const subject = subjectRef('doubled');
  const publishedAt = Date.now();
  await store.append([dataBatch(subject, [plain('a'), plain('b')], { base: 1, publishedAt })]);
  await store.append([dataBatch(subject, [plain('c', 3_600)], { base: 2, publishedAt })]);
  // Files under another slice, as its messages expire.
  await store.append([dataBatch(subject, [plain('a', 3_600), plain('b', 3_600)], { base: 1, publishedAt })]);
  const log = logOf({ doubled: { settled: 2, everExpires: true } });
  const { findings } = await verified(log, (tally, pace) => databaseStore(store, tally, pace));
  assert.deepEqual(shown(findings), ['twice doubled 1-2', 'twice doubled 2-2']);
});

birthSuite('postgres', async (t) => {
  const chosen = options();
  const stores = [await PostgresStore.open(chosen), await PostgresStore.open(chosen)];
  t.after(() => Promise.all(stores.map((store) => store.close())));
  return stores.map(({ birth }) => birth);
});

incarnationSuite('postgres', async (t) => {
  const chosen = options();
  const stores = [await PostgresStore.open(chosen), await PostgresStore.open(chosen)] as const;
  t.after(() => Promise.all(stores.map((store) => store.close())));
  return [stores[0].incarnations, stores[1].incarnations];
});

/** A store of its own, and a connection beside it. */
async function opened(t: TestContext) {
  const chosen = options();
  const store = await PostgresStore.open(chosen);
  const connection = new PostgresConnection(chosen);
  t.after(async () => {
    connection.end();
    await store.close();
  });
  return { chosen, store, connection };
}

test('postgres: one row a message in SQL, with headers, without marks and expired ones', async (t) => {
  const { chosen, store, connection } = await opened(t);
  const subject = subjectRef('ü.orders');
  const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  const publishedAt = Date.now() - 60_000;
  const messages = [
    {
      body: every,
      headers: [
        { key: 'k', value: every },
        { key: '', value: Buffer.alloc(0) },
      ],
      expirationSeconds: 0,
    },
    plain('gone', 1),
    plain('', 100_000),
    { body: Buffer.alloc(300_000, every), headers: [], expirationSeconds: 0 },
  ];
  await store.append([dataBatch(subject, messages, { base: 7, publishedAt }), voidBatch(subject, 11, 2, publishedAt)]);
  const rows = await connection.database.any(
    `SELECT subject, id::int4, body, headers, extract(epoch FROM published_at) * 1000 AS ms, expires_at IS NULL AS stays
     FROM ${chosen.schema}.message ORDER BY id`,
  );
  assert.deepEqual((rows[0] as { headers: unknown }).headers, [
    { key: 'k', value: every.toString('base64') },
    { key: '', value: '' },
  ]);
  assert.deepEqual(
    rows.map(({ subject: name, id, body, ms, stays }) => [
      name,
      id,
      Buffer.compare(body, messages[id - 7]?.body as Buffer),
      Number(ms),
      stays,
    ]),
    [
      ['ü.orders', 7, 0, publishedAt, true],
      ['ü.orders', 9, 0, publishedAt, false],
      ['ü.orders', 10, 0, publishedAt, true],
    ],
  );
});

test('postgres: another message under an id that was given here too is a failure, a repeated one and a mark are none', async (t) => {
  const chosen = options();
  const stores = [await PostgresStore.open(chosen), await PostgresStore.open(chosen)] as const;
  t.after(() => Promise.all(stores.map((store) => store.close())));
  const subject = subjectRef('cloned');
  const publishedAt = Date.now();
  const batch = (body: string, base: number) => dataBatch(subject, [plain(body)], { base, publishedAt });
  await stores[0].append([batch('theirs', 1), batch('same', 2), voidBatch(subject, 3, 1, publishedAt)]);
  await stores[1].append([batch('same', 2), batch('late', 3), batch('next', 4)]);
  for (const group of [[batch('ours', 1)], [batch('ours', 1), voidBatch(subject, 5, 1, publishedAt)]]) {
    await assert.rejects(stores[1].append(group), StoreFailure);
  }
});

test('postgres: however many rows have the newest time, as after a clock that was set back, they are compared in pages', async (t) => {
  const store = await PostgresStore.open(options());
  t.after(() => store.close());
  const subjects = Array.from({ length: 2_500 }, (_, i) => subjectRef(`device.${i}`));
  const publishedAt = Date.now();
  await store.append(subjects.map((subject) => dataBatch(subject, [plain('m')], { base: 1, publishedAt })));
  for (const lacking of [null, 'device.0', 'device.2499']) {
    const asked = new Set<string>();
    let rows = 0;
    const found = await store.beyond(
      async (page) => {
        assert.ok(page.length <= 1_000, `${page.length} subjects at once`);
        const names = page.map((subject) => Buffer.from(subject).toString());
        for (const name of names) asked.add(name);
        return names.map((name) => (name === lacking ? 0 : 1));
      },
      (more) => {
        rows += more;
      },
    );
    assert.deepEqual(found, lacking === null ? null : { subject: Buffer.from(lacking), lastId: 1, head: 0 });
    if (lacking === null) assert.deepEqual([asked.size, rows], [2_500, 2_500]);
  }
  // The connection is free again.
  assert.equal(await store.probe(), null);
});

test('[P8] postgres: expiry drops the partition, 10 minutes late, and nothing is written to it again', async (t) => {
  let nowMs = Date.now();
  const chosen = { ...options(), now: () => nowMs };
  const store = await PostgresStore.open(chosen);
  t.after(() => store.close());
  const subject = subjectRef('short');
  const batch = (base: number, seconds: number) =>
    dataBatch(subject, [plain('m', seconds)], { base, publishedAt: nowMs });
  const short = batch(1, 60);
  await store.append([short, batch(2, 86_400), batch(3, 0)]);
  assert.equal((await store.stats()).segments, 3);
  assert.equal(await store.dropExpired(nowMs + 60_000 + 9 * 60_000), 0);
  nowMs += 60_000 + 25 * 60_000;
  assert.equal(await store.dropExpired(nowMs), 1);
  assert.deepEqual(await Promise.all([1, 2, 3].map((base) => store.lookup(subject, base))), ['absent', 'data', 'data']);
  await store.append([short, batch(4, 60)]);
  assert.deepEqual(await Promise.all([1, 4].map((base) => store.lookup(subject, base))), ['absent', 'data']);
});

test('[P8] postgres: a clock that runs ahead leaves nothing out that has not expired by log time', async (t) => {
  const publishedAt = Date.now();
  const store = await PostgresStore.open({ ...options(), now: () => publishedAt + 86_400_000 });
  t.after(() => store.close());
  const subject = subjectRef('early');
  await store.append([dataBatch(subject, [plain('m', 60)], { base: 1, publishedAt })]);
  assert.equal(await store.lookup(subject, 1), 'data');
});

test('[P4] postgres: a partition that another node dropped is no obstacle', async (t) => {
  const chosen = options();
  const stores = [await PostgresStore.open(chosen), await PostgresStore.open(chosen)] as const;
  const connection = new PostgresConnection(chosen);
  t.after(async () => {
    connection.end();
    await Promise.all(stores.map((store) => store.close()));
  });
  const subject = subjectRef('shared');
  for (const [i, store] of stores.entries()) await store.append([dataBatch(subject, [plain('m')], { base: i + 1 })]);
  await connection.database.none(`DROP TABLE ${chosen.schema}.batch_0`);
  for (const [i, store] of stores.entries()) await store.append([dataBatch(subject, [plain('n')], { base: i + 3 })]);
  assert.deepEqual(await Promise.all([1, 2, 3, 4].map((base) => stores[0].lookup(subject, base))), [
    'absent',
    'absent',
    'data',
    'data',
  ]);
});

test('postgres: one step of a trim deletes no more bytes than a slow disk takes in its time', async (t) => {
  const { chosen, store, connection } = await opened(t);
  const subject = subjectRef('large');
  const body = Buffer.alloc(1 << 20, 7);
  for (let base = 1; base <= 40; base++) {
    await store.append([dataBatch(subject, [{ body, headers: [], expirationSeconds: base % 2 }], { base })]);
  }
  const { trim } = new Statements(chosen.schema);
  const { rowCount } = await connection.run(trim, [Buffer.from(subject.bytes), 40]);
  assert.ok(rowCount > 0 && rowCount <= 17, `${rowCount} MiB in one statement`);
  assert.deepEqual(await store.lookup(subject, rowCount), 'absent');
  assert.deepEqual(await store.lookup(subject, rowCount + 1), 'data', 'the oldest go first');
  await store.trim(subject, 40);
  assert.equal((await store.subjectStats(subject)).batches, 1);
});

test('postgres: the newest ids are found by an index, also in a table that was never analysed, and after an upgrade from version 1', async (t) => {
  const chosen = options();
  const connection = new PostgresConnection(chosen);
  const first = await PostgresStore.open(chosen);
  const subjects = Array.from({ length: 5_000 }, (_, i) => subjectRef(`device.${i}`));
  const publishedAt = Date.now();
  await first.append(
    subjects.map((subject, i) => dataBatch(subject, [plain('m')], { base: 1, publishedAt: publishedAt + i })),
  );
  await first.close();
  await connection.database.none(`DROP INDEX ${chosen.schema}.batch_published_at_idx`);
  await connection.database.none(`DROP TABLE ${chosen.schema}.incarnation`);
  await connection.database.none(`DELETE FROM ${chosen.schema}.migration WHERE version > 1`);
  const store = await PostgresStore.open(chosen);
  t.after(async () => {
    connection.end();
    await store.close();
  });
  await store.append([dataBatch(subjectRef('short'), [plain('m', 60)], { base: 7, publishedAt: publishedAt + 4_999 })]);
  const asked: string[] = [];
  const found = await store.beyond(async (subjects) => {
    asked.push(...subjects.map((subject) => Buffer.from(subject).toString()));
    return subjects.map((subject) => (Buffer.from(subject).toString() === 'short' ? 6 : 1));
  });
  assert.deepEqual(asked.sort(), ['device.4999', 'short']);
  assert.deepEqual(found, { subject: Buffer.from('short'), lastId: 7, head: 6 });
  const statements = new Statements(chosen.schema);
  for (const { text } of [statements.newestTime, statements.publishedAt]) {
    const plan = await connection.database.any<Record<string, string>>(
      `EXPLAIN ${text.replace('$1', String(publishedAt))}`,
    );
    const lines = plan.map((row) => row['QUERY PLAN']).join('\n');
    assert.match(lines, /published_at_idx/);
    // The second partition has one row, which no index finds faster.
    assert.doesNotMatch(lines, /Seq Scan on batch_0 /);
  }
});

test('postgres: reads that queue for longer than the timeout are answered all, and a write does not wait for them', async (t) => {
  const address = new URL(url);
  const relay = await Relay.start(address.hostname, Number(address.port || 5432));
  const store = await PostgresStore.open({ ...options(), url: relay.through(url), pool: 3, timeoutMs: 2_000 });
  t.after(async () => {
    await store.close();
    relay.close();
  });
  const subject = subjectRef('far');
  await store.append([dataBatch(subject, [plain('m')], { base: 1 })]);
  relay.delayReplies(200);
  let answered = 0;
  const reads = Array.from({ length: 40 }, async () => {
    const { items } = await store.read(subject, 1, 1, 1);
    answered += items.length;
  });
  await store.append([dataBatch(subject, [plain('n')], { base: 2 })]);
  assert.ok(answered < 40, 'the write waited for the reads');
  await Promise.all(reads);
  assert.equal(answered, 40);
});
