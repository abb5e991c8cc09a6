/**
 * Partitions of the table of batches. Neither making nor dropping one may stop the reads and writes of the others, and a transaction that somebody
 * left open may stop neither: no lock is asked for that a statement of the broker would have to queue behind.
 */
import { type Ask, codeOf, type PostgresConnection, type Statement } from './connection.ts';
import { LOCK_SPACE } from './schema.ts';
import { isSliceOver } from './slices.ts';

/** Partitions of slices that are not over; slices.ts says why they are never more. */
export const PARTITIONS_MAX = 64;
/**
 * Partitions of slices that are over and could not be dropped: two days of the smallest slices. Each of them costs every read, so behind that
 * many what needs a new one gets no ids. What has ids gets its partition: without it neither the batch nor the mark of its ids could ever be written, and
 * the subject would stand still. So there may be one more for each store that did not know the number yet.
 */
export const PARTITIONS_OVER_MAX = 192;

/** First half of the key of the lock that one dropper at a time has; not that of who makes partitions, which must not wait for it. */
const DROP_LOCK_SPACE = LOCK_SPACE + 1;
/** How long to wait for one transaction that uses a partition. What waits a little longer is a partition that somebody wants to make. */
const DROP_LOCK_TIMEOUT_MS = 250;
/** lock_not_available, query_canceled, and "another one is being detached": the partitions that follow would meet the same. */
const HELD_CODES: ReadonlySet<string> = new Set(['55P03', '57014', '55000']);

/** `detaching`: somebody was cut off, or could not go on, between the two steps of a concurrent detachment. */
type State = 'detached' | 'detaching' | 'attached';

interface Table {
  readonly slice: number;
  readonly state: State;
}

interface TableRow {
  readonly slice: string;
  readonly state: State;
}

interface HolderRow {
  readonly pid: number;
  readonly user: string | null;
  readonly application: string;
  readonly state: string | null;
  readonly seconds: number | null;
}

const TABLES: Statement = {
  name: 'tables',
  text: `SELECT substring(c.relname FROM 7) AS slice,
      CASE WHEN i.inhrelid IS NULL THEN 'detached' WHEN i.inhdetachpending THEN 'detaching' ELSE 'attached' END AS state
    FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid AND i.inhparent = to_regclass($1 || '.batch')
    WHERE c.relnamespace = to_regnamespace($1) AND c.relkind = 'r' AND c.relname ~ '^batch_[0-9]+$'`,
};

/** The oldest transaction that a dropper may have to wait for: it uses a partition, or has a snapshot in which one is. */
const HOLDER = `SELECT a.pid, a.usename AS user, a.application_name AS application, a.state,
    extract(epoch FROM clock_timestamp() - a.xact_start)::int4 AS seconds
  FROM pg_stat_activity a
  WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type IS DISTINCT FROM 'autovacuum worker'
    AND (a.backend_xmin IS NOT NULL OR EXISTS (
    SELECT FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE l.pid = a.pid AND l.granted AND c.relnamespace = to_regnamespace($1)))
  ORDER BY a.xact_start LIMIT 1`;

const PREPARED = 'SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared LIMIT 1';

function tablesOf(rows: readonly TableRow[]): Table[] {
  return rows.map(({ slice, state }) => ({ slice: Number(slice), state }));
}

/** What there is of partitions. */
export interface PartitionsFound {
  /** Slices that have a partition which takes rows. */
  readonly slices: readonly number[];
  /** How many are over, and not dropped yet. */
  readonly over: number;
}

export async function findPartitions(
  connection: PostgresConnection,
  schema: string,
  nowMs: number,
): Promise<PartitionsFound> {
  const { rows } = await connection.run<TableRow>(TABLES, [schema]);
  const tables = tablesOf(rows);
  const slices = tables.flatMap(({ slice, state }) => (state === 'attached' ? slice : []));
  return { slices, over: countOver(tables, nowMs) };
}

function countOver(tables: readonly Table[], nowMs: number): number {
  return tables.filter(({ slice }) => isSliceOver(slice, nowMs)).length;
}

/** Some of what has expired has to stay until the next time. */
export class PartitionsKept extends Error {
  override name = 'PartitionsKept';
}

/** Made apart and attached: that lets reads and writes of the other partitions go on, which CREATE … PARTITION OF does not. All or none; how many partitions are over. */
export async function createPartitions(
  connection: PostgresConnection,
  schema: string,
  slices: Iterable<number>,
  nowMs: number,
): Promise<number> {
  return await connection.session('together', async (ask) => {
    await ask('BEGIN');
    await ask('SELECT pg_advisory_xact_lock($1, hashtext($2))', [LOCK_SPACE, schema]);
    const tables = tablesOf(await ask<TableRow>(TABLES.text, [schema]));
    for (const slice of slices) {
      const found = tables.find((table) => table.slice === slice);
      if (found?.state === 'attached') continue;
      checkNumber(schema, tables, nowMs);
      const name = `${schema}.batch_${slice}`;
      // One that was detached and not dropped, by a clock that was ahead, has the rows of this slice.
      await ask(`CREATE TABLE IF NOT EXISTS ${name} (LIKE ${schema}.batch INCLUDING ALL)`);
      await ask(
        `ALTER TABLE ${schema}.batch ATTACH PARTITION ${name} FOR VALUES FROM ('${slice}') TO ('${slice + 1}')`,
      );
      tables.push({ slice, state: 'attached' });
    }
    await ask('COMMIT');
    return countOver(tables, nowMs);
  });
}

function checkNumber(schema: string, tables: readonly Table[], nowMs: number): void {
  const over = countOver(tables, nowMs);
  if (tables.length - over >= PARTITIONS_MAX) {
    throw new Error(`${schema}.batch has ${tables.length - over} partitions in use already`);
  }
}

/**
 * Drops the partitions in which everything has expired; how many. Rejects with PartitionsKept, which names who is in the way, if some have to stay
 * until the next time; the others are dropped all the same.
 */
export async function dropExpired(connection: PostgresConnection, schema: string, nowMs: number): Promise<number> {
  const { rows } = await connection.run<TableRow>(TABLES, [schema]);
  const over = tablesOf(rows).filter(({ slice }) => isSliceOver(slice, nowMs));
  if (over.length === 0) return 0;
  return await connection.session('each', async (ask) => {
    const lock = await ask<{ mine: boolean }>('SELECT pg_try_advisory_lock($1, hashtext($2)) AS mine', [
      DROP_LOCK_SPACE,
      schema,
    ]);
    // Somebody else is at it.
    if (lock[0]?.mine !== true) return 0;
    await ask(`SET lock_timeout = '${DROP_LOCK_TIMEOUT_MS}ms'`);
    return await dropTables(ask, schema, over);
  });
}

async function dropTables(ask: Ask, schema: string, over: readonly Table[]): Promise<number> {
  let dropped = 0;
  let isHeld = false;
  let failed: Error | null = null;
  // The server detaches one partition at a time: one that was begun has to be finished before the next.
  const order: readonly State[] = ['detached', 'detaching', 'attached'];
  const tables = over.toSorted((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.slice - b.slice);
  for (const { slice, state } of tables) {
    if (isHeld && state !== 'detached') continue;
    let isDetached = state === 'detached';
    try {
      if (!isDetached) {
        const how = state === 'detaching' ? 'FINALIZE' : 'CONCURRENTLY';
        await ask(`ALTER TABLE ${schema}.batch DETACH PARTITION ${schema}.batch_${slice} ${how}`);
      }
      isDetached = true;
      await ask(`DROP TABLE IF EXISTS ${schema}.batch_${slice}`);
      dropped += 1;
    } catch (error) {
      const code = codeOf(error);
      if (code === null) throw error;
      failed ??= error as Error;
      isHeld ||= !isDetached && HELD_CODES.has(code);
    }
  }
  if (failed === null) return dropped;
  const kept = `${over.length - dropped} expired partitions of ${schema}.batch are kept, ${dropped} were dropped`;
  throw new PartitionsKept(`${kept}: ${failed.message}; ${await holderOf(ask, schema)}`, { cause: failed });
}

async function holderOf(ask: Ask, schema: string): Promise<string> {
  const [holder] = await ask<HolderRow>(HOLDER, [schema]);
  const [prepared] = await ask<{ gid: string }>(PREPARED);
  const texts: string[] = [];
  if (holder !== undefined) {
    const { pid, user, application, state, seconds } = holder;
    texts.push(
      `the oldest open transaction is of pid ${pid} (user ${user}, application "${application}", ${state ?? 'state unknown'}, ${seconds ?? '?'} s)`,
    );
  }
  if (prepared !== undefined) texts.push(`prepared transaction "${prepared.gid}" is open`);
  return texts.length === 0 ? 'no transaction is open now' : texts.join(', ');
}
