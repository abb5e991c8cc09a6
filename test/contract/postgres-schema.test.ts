/** What PostgreSQL keeps beside the contract of a store: its schema, its partitions, and what it shows to people who ask in SQL. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, type TestContext, test } from 'node:test';
import { PostgresConnection } from '../../src/storage/postgres/connection.ts';
import { findPartitions, PARTITIONS_MAX, PARTITIONS_OVER_MAX } from '../../src/storage/postgres/partitions.ts';
import { PostgresStore, type PostgresStoreOptions } from '../../src/storage/postgres/postgres-store.ts';
import { LOCK_SPACE } from '../../src/storage/postgres/schema.ts';
import { isSliceOver, sliceOf } from '../../src/storage/postgres/slices.ts';
import { choosePostgres } from '../servers/chosen-server.ts';
import { until } from '../support/until.ts';
import { dataBatch, type Message, plain, subjectRef, voidBatch } from '../unit/batch-support.ts';

const server = await choosePostgres();
after(() => server.remove());

function options(): PostgresStoreOptions {
  return {
    url: server.url,
    schema: `t_${randomBytes(6).toString('hex')}`,
    pool: 4,
    timeoutMs: 20_000,
    tls: null,
    acceptWeakDurability: false,
  };
}

async function slicesOf(connection: PostgresConnection, schema: string): Promise<readonly number[]> {
  return (await findPartitions(connection, schema, 0)).slices;
}

/** Somebody has looked at the messages in a transaction, and left it open. */
async function openReader(t: TestContext, chosen: PostgresStoreOptions) {
  const connection = new PostgresConnection(chosen);
  const reader = await connection.database.connect();
  let isOver = false;
  const end = async (): Promise<void> => {
    if (isOver) return;
    isOver = true;
    await reader.none('ROLLBACK');
    reader.done();
  };
  t.after(async () => {
    await end();
    connection.end();
  });
  await reader.none("SET application_name = 'somebody'");
  await reader.none('BEGIN');
  await reader.any(`SELECT count(*) FROM ${chosen.schema}.message`);
  return { connection, end };
}

test('[P8] postgres: while somebody keeps a transaction open nothing waits for the drop of what has expired, new slices are made, and all is dropped when it ends', async (t) => {
  let nowMs = Date.now();
  const chosen = { ...options(), now: () => nowMs };
  const stores = [await PostgresStore.open(chosen), await PostgresStore.open(chosen)] as const;
  t.after(() => Promise.all(stores.map((store) => store.close())));
  const [store, keeper] = stores;
  const subject = subjectRef('watched');
  let base = 1;
  const append = (seconds: number): Promise<void> =>
    store.append([dataBatch(subject, [plain('m', seconds)], { base: base++, publishedAt: nowMs })]);
  await append(60);
  await append(0);
  const { connection, end } = await openReader(t, chosen);
  // More slices than may be in use at a time come and go.
  for (let slice = 0; slice < PARTITIONS_MAX + 6; slice++) {
    nowMs += 15 * 60_000;
    await append(60);
  }
  // What a write and a new partition ask for is free all the time, also behind what waits.
  let isDropping = true;
  const drop = assert.rejects(keeper.dropExpired(nowMs), {
    name: 'PartitionsKept',
    message: /"somebody", idle in transaction/,
  });
  const over = drop.finally(() => {
    isDropping = false;
  });
  let looks = 0;
  while (isDropping) {
    await connection.database.tx(async (task) => {
      await task.none(`LOCK TABLE ${chosen.schema}.batch IN ROW EXCLUSIVE MODE NOWAIT`);
      const lock = `pg_try_advisory_xact_lock(${LOCK_SPACE}, hashtext('${chosen.schema}')) AS free`;
      assert.ok((await task.one<{ free: boolean }>(`SELECT ${lock}`)).free);
    });
    looks += 1;
  }
  await over;
  assert.ok(looks > 0);
  nowMs += 15 * 60_000;
  await append(60);
  await end();
  // The first that was begun is finished, the others follow.
  assert.ok((await keeper.dropExpired(nowMs)) >= PARTITIONS_MAX);
  assert.ok((await slicesOf(connection, chosen.schema)).every((slice) => !isSliceOver(slice, nowMs)));
  const tables = await connection.database.any(
    `SELECT FROM pg_class WHERE relnamespace = '${chosen.schema}'::regnamespace AND relname ~ '^batch_[0-9]+$'`,
  );
  assert.ok(tables.length <= 4, `${tables.length} tables`);
  assert.equal(await store.lookup(subject, 2), 'data');
});

test('[P8] postgres: a partition that was detached and not dropped is dropped by the next look', async (t) => {
  let nowMs = Date.now();
  const chosen = { ...options(), now: () => nowMs };
  const store = await PostgresStore.open(chosen);
  const connection = new PostgresConnection(chosen);
  t.after(async () => {
    connection.end();
    await store.close();
  });
  await store.append([dataBatch(subjectRef('left'), [plain('m', 60)], { base: 1, publishedAt: nowMs })]);
  const [slice] = await slicesOf(connection, chosen.schema);
  await connection.database.none(`ALTER TABLE ${chosen.schema}.batch DETACH PARTITION ${chosen.schema}.batch_${slice}`);
  nowMs += 40 * 60_000;
  assert.equal(await store.dropExpired(nowMs), 1);
  assert.equal(await store.dropExpired(nowMs), 0);
});

test('[P8] postgres: with so many expired partitions that were not dropped what would need a new one is to get no ids, and all that has ids is stored', async (t) => {
  // In the middle of the slices that it is asked for: the next one is not near.
  const width = 16 * 3_600_000;
  const nowMs = Math.ceil(Date.now() / width) * width;
  const chosen = { ...options(), now: () => nowMs };
  const store = await PostgresStore.open(chosen);
  const connection = new PostgresConnection(chosen);
  t.after(async () => {
    connection.end();
    await store.close();
  });
  const subject = subjectRef('full');
  const batch = (base: number, seconds: number) =>
    dataBatch(subject, [plain('m', seconds)], { base, publishedAt: nowMs });
  await store.append([batch(1, 0)]);
  const last = sliceOf(nowMs - 2 * 3_600_000, 60);
  const { schema } = chosen;
  await connection.database.none(`DO $$ BEGIN FOR n IN ${last - PARTITIONS_OVER_MAX + 1}..${last} LOOP
    EXECUTE format('CREATE TABLE ${schema}.batch_%s PARTITION OF ${schema}.batch FOR VALUES FROM (%L) TO (%L)', n, n, n + 1);
  END LOOP; END $$`);
  // The batches of a group may have been given their ids before anybody knew; so do marks, without which their subjects would stand still.
  const [hour, day, year] = [3_600, 86_400, 365 * 86_400];
  await store.append([batch(2, hour), batch(3, 0), voidBatch(subject, 4, 1, nowMs, day)]);
  assert.deepEqual(await Promise.all([1, 2, 3, 4].map((base) => store.lookup(subject, base))), [
    'data',
    'data',
    'data',
    'void',
  ]);
  assert.deepEqual(
    [0, day, year].map((seconds) => store.hasRoomFor(seconds)),
    [true, true, false],
  );
  assert.equal(await store.dropExpired(nowMs), PARTITIONS_OVER_MAX);
  await until(
    () => store.hasRoomFor(year),
    () => 'there is room again',
  );
});

test('postgres: a schema that several open for the first time at once is made once, and all have it', async (t) => {
  const chosen = options();
  const opened = await Promise.allSettled(Array.from({ length: 6 }, () => PostgresStore.open(chosen)));
  const stores = opened.flatMap((each) => (each.status === 'fulfilled' ? each.value : []));
  t.after(() => Promise.all(stores.map((store) => store.close())));
  assert.deepEqual(
    opened.flatMap((each) => (each.status === 'rejected' ? String(each.reason) : [])),
    [],
  );
  const subject = subjectRef('first');
  await Promise.all(stores.map((store, i) => store.append([dataBatch(subject, [plain('m')], { base: i + 1 })])));
  assert.deepEqual(await Promise.all(stores.map((store) => store.lastId(subject))), Array(6).fill(6));
});

test('postgres: a migration may take longer than a statement, and one that waits for a lock gives up', async (t) => {
  const chosen = options();
  const { schema } = chosen;
  const connection = new PostgresConnection(chosen);
  const { database } = connection;
  t.after(async () => {
    await database.none(`DROP EVENT TRIGGER IF EXISTS ${schema}`);
    connection.end();
  });
  await (await PostgresStore.open(chosen)).close();
  const version = (): Promise<number> =>
    database.one(`SELECT max(version)::int4 AS version FROM ${schema}.migration`, [], (row) => row.version);
  const newest = await version();
  // Back to before the index on the times of publication, as of a program that did not have it.
  const goBack = `DROP INDEX ${schema}.batch_published_at_idx; DROP TABLE ${schema}.incarnation;
    DROP FUNCTION ${schema}.messages_of(text, int8, int8); DELETE FROM ${schema}.migration WHERE version > 1`;
  await database.none(goBack);
  assert.equal(await version(), 1);

  const holder = await database.connect();
  await holder.none(`BEGIN; LOCK TABLE ${schema}.batch IN ROW EXCLUSIVE MODE`);
  const hasty = { ...chosen, timeoutMs: 2_000 };
  await assert.rejects(PostgresStore.open(hasty), { code: 'STORE_UNUSABLE', message: /lock timeout/ });
  await holder.none('ROLLBACK');
  await holder.any('SELECT pg_advisory_lock($1, hashtext($2))', [LOCK_SPACE, schema]);
  await assert.rejects(PostgresStore.open(hasty), {
    code: 'STORE_UNUSABLE',
    message: /somebody else has been changing/,
  });
  holder.done(true);
  assert.equal(await version(), 1);

  // As on a large table: longer than the server, and then the driver, wait for a statement.
  await database.none(`CREATE FUNCTION ${schema}.be_large() RETURNS event_trigger LANGUAGE plpgsql AS $body$ BEGIN
      IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE schema_name = '${schema}') THEN
        PERFORM pg_sleep(${(hasty.timeoutMs * 2.5) / 1_000});
      END IF;
    END $body$;
    CREATE EVENT TRIGGER ${schema} ON ddl_command_end WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION ${schema}.be_large()`);
  await (await PostgresStore.open(hasty)).close();
  assert.equal(await version(), newest);
});

test('postgres: a header key with U+0000 is shown in escapes and breaks nobody else', async (t) => {
  const chosen = options();
  const { schema } = chosen;
  const store = await PostgresStore.open(chosen);
  const connection = new PostgresConnection(chosen);
  t.after(async () => {
    connection.end();
    await store.close();
  });
  const message: Message = {
    body: Buffer.from('x'),
    headers: [
      { key: 'a\0ü', value: Buffer.from('v') },
      { key: 'ü', value: Buffer.alloc(100, 1) },
    ],
    expirationSeconds: 0,
  };
  const publishedAt = Date.now();
  await store.append([
    dataBatch(subjectRef('nul'), [message], { base: 1, publishedAt }),
    dataBatch(subjectRef('other'), [plain('fine')], { base: 1, publishedAt }),
  ]);
  const shown = await connection.database.any(`SELECT subject, headers FROM ${schema}.message ORDER BY subject`);
  assert.deepEqual(shown, [
    {
      subject: 'nul',
      headers: [
        { key: 'a\\000\\303\\274', value: 'dg==' },
        { key: 'ü', value: Buffer.alloc(100, 1).toString('base64') },
      ],
    },
    { subject: 'other', headers: [] },
  ]);
});

test('postgres: messages_of reads the batches of the ids that are asked for, and no others', async (t) => {
  const chosen = options();
  const { schema } = chosen;
  const store = await PostgresStore.open(chosen);
  const connection = new PostgresConnection(chosen);
  t.after(async () => {
    connection.end();
    await store.close();
  });
  const publishedAt = Date.now() - 10_000;
  const subject = subjectRef('orders.ü');
  const batches = Array.from({ length: 400 }, (_, i) => {
    // Every other one expires as a whole, and so lies in another partition.
    const messages = [plain(`${i}`, i % 2 === 0 ? 0 : 1_000), plain('gone', 1), plain('later', 1_000)];
    return dataBatch(subject, messages, { base: i * 3 + 1, publishedAt: publishedAt + i });
  });
  const others = Array.from({ length: 2_000 }, (_, i) => dataBatch(subjectRef(`other.${i}`), [plain('m')]));
  await store.append([...batches, voidBatch(subject, 1_201, 2, publishedAt), ...others]);
  await connection.database.none(`ANALYZE ${schema}.batch`);
  const columns = 'subject, id::int4, published_at, expires_at, body, headers';
  for (const [first, last] of [
    [1, 10],
    [2, 2],
    [3, 3],
    [0, 2 ** 53 - 1],
    [599, 640],
    [1_200, 1_300],
    [5, 4],
  ] as const) {
    const wanted = await connection.database.any(
      `SELECT ${columns} FROM ${schema}.message WHERE subject = 'orders.ü' AND id BETWEEN $1 AND $2 ORDER BY id`,
      [first, last],
    );
    const found = await connection.database.any(
      `SELECT ${columns} FROM ${schema}.messages_of('orders.ü', ${first}, ${last})`,
    );
    assert.deepEqual(found, wanted, `${first} to ${last}`);
    assert.equal(found.length > 0, first <= last && first !== 2, `${first} to ${last}`);
  }
  assert.deepEqual(await connection.database.any(`SELECT FROM ${schema}.messages_of('unknown', 1)`), []);
  const since = `${schema}.messages_of('orders.ü', ${schema}.find_time('orders.ü', ${publishedAt + 390}))`;
  assert.deepEqual(await connection.database.one(`SELECT min(id)::int4 AS first FROM ${since}`), { first: 1_171 });
  // How many batches were decoded: those of the range, and with a LIMIT those up to it.
  for (const [query, most] of [
    [`${schema}.messages_of('orders.ü', 601, 609)`, 4],
    [`${schema}.messages_of('orders.ü', 601) LIMIT 5`, 6],
  ] as const) {
    const plan = await connection.database.any<Record<string, string>>(
      `EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT id, body FROM ${query}`,
    );
    const text = plan.map((row) => row['QUERY PLAN']).join('\n');
    const calls = Number(/Function Scan on records .*loops=(\d+)/.exec(text)?.[1]);
    assert.ok(calls > 0 && calls <= most, `${calls} calls\n${text}`);
  }
});
