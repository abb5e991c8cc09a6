import { BrokerError } from '../../base/errors.ts';
import { BatchView } from '../../batch/batch-view.ts';
import { checkedItem } from '../checked-item.ts';
import { InFlight } from '../in-flight.ts';
import { onePerKey } from '../one-per-key.ts';
import { StartError } from '../start-error.ts';
import {
  type BeyondHead,
  type DatabaseStore,
  type Heads,
  type NewestVisitor,
  type ReadResult,
  type SealedBatch,
  type StoreConnections,
  type Stored,
  type StoredItem,
  StoreFailure,
  type StoreStats,
  StoreUncertain,
  type SubjectRef,
  type SubjectStats,
} from '../store.ts';
import { ArrayMemory, byteaArray, int8Array } from './binary-arrays.ts';
import { type Answer, codeOf, PostgresConnection, type PostgresOptions } from './connection.ts';
import { checkDurability } from './durability.ts';
import { createPartitions, dropExpired, findPartitions, PARTITIONS_OVER_MAX } from './partitions.ts';
import { PostgresBirth } from './postgres-birth.ts';
import { PostgresIncarnations } from './postgres-incarnations.ts';
import { migrate } from './schema.ts';
import { isSliceOver, sliceOf } from './slices.ts';
import { KIND_DATA, KIND_VOID, NEWEST_SUBJECTS, Statements } from './statements.ts';

/** Memory of the arrays of groups: each is as large as the largest group that it held. */
const MEMORIES_MAX = 4;
/** Rows of the newest time that are held at a time. */
const NEWEST_PAGE_ROWS = 1_000;
/** Groups that are written at a time at most: with more of them the server is no faster (docs/performance.md). */
const WRITES_MAX = 4;
/** While there are too many partitions: how often it is looked whether there still are, in ms. */
const LOOK_AGAIN_MS = 1_000;
/** A batch that asks for ids may get a log time so much later than now, in ms: it waits for the log, or the leader's clock is ahead. */
const LOG_AHEAD_MS = 30_000;
/** SQLSTATE check_violation: there is no partition for the row. */
const NO_PARTITION = '23514';

export interface PostgresStoreOptions extends PostgresOptions {
  /** Start although the server's settings lose acknowledged messages. */
  readonly acceptWeakDurability: boolean;
  /** Epoch ms. */
  readonly now?: () => number;
}

interface BatchRow {
  readonly base: string;
  readonly count: string;
  readonly kind: number;
  readonly bytes: Buffer;
  readonly found: number;
}

interface NewestRow {
  readonly subject: Buffer;
  readonly last: string | null;
}

/**
 * Batches as rows of PostgreSQL: one row a batch, one statement a group. What is durable is what the server has committed; reads go to the same
 * server, so they see every commit that was answered.
 */
export class PostgresStore implements DatabaseStore {
  readonly birth: PostgresBirth;
  readonly incarnations: PostgresIncarnations;
  /** Settings of the server that lose acknowledged messages; empty: acks mean `durable`, else only `replicated`. */
  readonly weaknesses: readonly string[];
  readonly readsMax: number;
  readonly writesMax: number;
  readonly #connection: PostgresConnection;
  /**
   * Each has connections of its own, and nothing waits for the driver to find one: it gives the longest waiting up after a while, as if the
   * server did not answer, and many reads would be taken for a server that takes no writes.
   */
  readonly #reads: InFlight;
  readonly #writes: InFlight;
  readonly #schema: string;
  readonly #statements: Statements;
  readonly #now: () => number;
  readonly #view = new BatchView();
  /** Slices that are known to have a partition. */
  readonly #slices: Set<number>;
  /** Partitions that are over and could not be dropped, when this was last looked at. */
  #over = 0;
  /** When that was last asked for because of too many, ms of performance.now(). */
  #lookedAt = Number.NEGATIVE_INFINITY;
  readonly #pending = new Set<Promise<void>>();
  /** Not in use; as many as there were groups on their way at a time. */
  readonly #memories: ArrayMemory[] = [];
  /** Greatest log time of an allotment that was written here, epoch ms. */
  #logTimeMs = 0;
  #damaged = 0;
  #isClosed = false;

  private constructor(
    connection: PostgresConnection,
    options: PostgresStoreOptions,
    found: { readonly slices: readonly number[]; readonly weaknesses: readonly string[] },
  ) {
    this.#connection = connection;
    const writes = Math.min(WRITES_MAX, Math.max(1, Math.floor(options.pool / 2)));
    this.writesMax = writes;
    this.#writes = new InFlight(writes);
    this.readsMax = Math.max(1, options.pool - writes);
    this.#reads = new InFlight(this.readsMax);
    this.#schema = options.schema;
    this.#statements = new Statements(options.schema);
    this.#now = options.now ?? Date.now;
    this.#slices = new Set(found.slices);
    this.weaknesses = found.weaknesses;
    this.birth = new PostgresBirth(connection, options.schema);
    this.incarnations = new PostgresIncarnations(connection, options.schema);
  }

  connections(): StoreConnections {
    const { totalCount, idleCount } = this.#connection.database.$pool;
    const waiting = this.#reads.waiting + this.#writes.waiting;
    return { open: totalCount, busy: totalCount - idleCount, waiting };
  }

  /** Connects, checks the server, brings the schema up to date. StartError if this server cannot be used. */
  static async open(options: PostgresStoreOptions): Promise<PostgresStore> {
    const connection = new PostgresConnection(options);
    try {
      const { weaknesses, isStandby, encoding } = await checkDurability(connection.database);
      if (isStandby) throw new StartError('STORE_UNUSABLE', 'postgres.url names a standby, which takes no writes');
      if (encoding !== 'UTF8') {
        throw new StartError(
          'STORE_UNUSABLE',
          `the database of postgres.url has the encoding ${encoding}, in which not every subject can be shown: make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, and name that`,
        );
      }
      if (weaknesses.length > 0 && !options.acceptWeakDurability) {
        throw new StartError(
          'STORE_WEAK',
          `PostgreSQL would lose acknowledged messages: ${weaknesses.join('; ')}. Change that, or start with --store-accept-weak-durability`,
        );
      }
      await migrate(connection, options.schema);
      // Nothing is over before there is a log time.
      const { slices } = await findPartitions(connection, options.schema, 0);
      return new PostgresStore(connection, options, { slices, weaknesses });
    } catch (error) {
      connection.end();
      if (error instanceof StartError) throw error;
      const why = error instanceof Error ? error.message : String(error);
      throw new StartError('STORE_UNUSABLE', `PostgreSQL cannot be used: ${why}`, { cause: error });
    }
  }

  append(group: readonly SealedBatch[]): Promise<void> {
    if (this.#isClosed) return Promise.reject(new BrokerError('SHUTTING_DOWN'));
    const done = this.#writes.run(() => this.#append(group)).finally(() => this.#pending.delete(done));
    this.#pending.add(done);
    return done;
  }

  async read(subject: SubjectRef, from: number, until: number, maxBytes: number): Promise<ReadResult> {
    const { items, isCut } = await this.#range('read', subject, from, until, maxBytes);
    return { items, next: isCut ? (items.at(-1)?.to as number) : until + 1 };
  }

  async readBack(subject: SubjectRef, from: number, until: number, maxBytes: number): Promise<ReadResult> {
    const { items, isCut } = await this.#range('readBack', subject, from, until, maxBytes);
    return { items, next: isCut ? (items.at(-1)?.from as number) - 1 : from - 1 };
  }

  async #range(
    direction: 'read' | 'readBack',
    subject: SubjectRef,
    from: number,
    until: number,
    maxBytes: number,
  ): Promise<{ readonly items: readonly StoredItem[]; readonly isCut: boolean }> {
    const { rows } = await this.#query<BatchRow>(direction, [key(subject), from, until, Math.max(1, maxBytes)]);
    const items = rows.map((row) =>
      checkedItem(this.#view, subject, {
        base: Number(row.base),
        count: Number(row.count),
        isMark: row.kind === KIND_VOID,
        bytes: row.bytes,
      }),
    );
    for (const item of items) if (item.kind === 'damaged') this.#damaged += 1;
    return { items, isCut: rows.length > 0 && rows.length < (rows[0] as BatchRow).found };
  }

  async findTime(subject: SubjectRef, ms: number): Promise<number | null> {
    const { rows } = await this.#query<{ base: string | null }>('findTime', [key(subject), ms]);
    const base = rows[0]?.base ?? null;
    return base === null ? null : Number(base);
  }

  async lastId(subject: SubjectRef): Promise<number> {
    const { rows } = await this.#query<{ last: string }>('lastId', [key(subject)]);
    return Number(rows[0]?.last ?? 0);
  }

  async beyond(heads: Heads, onPage: (rows: number) => void = () => undefined): Promise<BeyondHead | null> {
    const [newest] = (await this.#query<{ time: string | null }>('newestTime', [])).rows;
    if (newest === undefined || newest.time === null) return null;
    const { time } = newest;
    try {
      // A clock that was set back leaves many rows of one time: in pages. By a cursor, since any order to page by would have another index read.
      return await this.#connection.database.tx(async (task) => {
        await task.none(`DECLARE newest NO SCROLL CURSOR FOR ${this.#statements.publishedAt.text}`, [time]);
        for (;;) {
          const rows = await task.any<NewestRow>(`FETCH ${NEWEST_PAGE_ROWS} FROM newest`);
          if (rows.length === 0) return null;
          onPage(rows.length);
          const given = await heads(rows.map(({ subject }) => subject));
          for (const [i, { subject, last }] of rows.entries()) {
            const head = given[i] as number;
            if (last !== null && Number(last) > head) return { subject, lastId: Number(last), head };
          }
        }
      });
    } catch (error) {
      throw new BrokerError('STORE_UNAVAILABLE', 'PostgreSQL did not answer', { cause: error });
    }
  }

  async newest(visit: NewestVisitor): Promise<number> {
    let behind: Buffer = Buffer.alloc(0);
    for (;;) {
      const { rows } = await this.#query<NewestRow>('newest', [behind]);
      // What was dropped or trimmed between the two looks at it is not there any more.
      for (const { subject, last } of rows) if (last !== null) visit(subject, Number(last));
      const end = rows.at(-1);
      if (end === undefined || rows.length < NEWEST_SUBJECTS) break;
      behind = end.subject;
    }
    const [newest] = (await this.#query<{ time: string | null }>('newestTime', [])).rows;
    return Number(newest?.time ?? 0);
  }

  async lookup(subject: SubjectRef, base: number): Promise<Stored> {
    const { rows } = await this.#query<{ kind: number }>('lookup', [key(subject), base]);
    if (rows[0] === undefined) return 'absent';
    return rows.some(({ kind }) => kind === KIND_VOID) ? 'void' : 'data';
  }

  async trim(subject: SubjectRef, first: number): Promise<void> {
    // In steps, so that a subject of millions of batches is no transaction of minutes.
    for (;;) {
      const { rowCount } = await this.#query('trim', [key(subject), first]);
      if (rowCount === 0) return;
    }
  }

  async subjectStats(subject: SubjectRef): Promise<SubjectStats> {
    const { rows } = await this.#query<{ batches: string; bytes: string }>('subjectStats', [key(subject)]);
    return { batches: Number(rows[0]?.batches ?? 0), bytes: Number(rows[0]?.bytes ?? 0) };
  }

  async stats(): Promise<StoreStats> {
    const { rows } = await this.#query<Record<'batches' | 'bytes' | 'subjects', string>>('stats', []);
    const [row] = rows;
    return {
      batches: Number(row?.batches ?? 0),
      bytes: Number(row?.bytes ?? 0),
      subjects: Number(row?.subjects ?? 0),
      segments: this.#slices.size,
      damaged: this.#damaged,
    };
  }

  /** Drops partitions in which everything expired more than 10 minutes before `beforeMs` (the earlier of log time and clock); how many. */
  async dropExpired(beforeMs: number): Promise<number> {
    for (const slice of this.#slices) if (isSliceOver(slice, beforeMs)) this.#slices.delete(slice);
    return await dropExpired(this.#connection, this.#schema, beforeMs);
  }

  hasRoomFor(expiresMax: number): boolean {
    if (this.#over < PARTITIONS_OVER_MAX) return true;
    const fromMs = Math.max(this.#now(), this.#logTimeMs);
    const isThere = (ms: number): boolean => this.#slices.has(sliceOf(ms, expiresMax));
    if (isThere(fromMs) && isThere(fromMs + LOG_AHEAD_MS)) return true;
    this.#lookAgain();
    return false;
  }

  #lookAgain(): void {
    const now = performance.now();
    if (now - this.#lookedAt < LOOK_AGAIN_MS) return;
    this.#lookedAt = now;
    this.#lookForSlices().catch((error: unknown) => {
      // The database does not answer: the number stays what it was.
      if (!(error instanceof BrokerError)) throw error;
    });
  }

  async currentWeaknesses(): Promise<readonly string[]> {
    return (await checkDurability(this.#connection.database)).weaknesses;
  }

  async probe(): Promise<string | null> {
    const { rows } = await this.#query<{ recovery: boolean; is_read_only: boolean; is_there: boolean }>('probe', []);
    const [row] = rows;
    if (row?.recovery === true) return 'the server has become a standby, which takes no writes';
    if (row?.is_read_only === true) return 'the database is read-only';
    return row?.is_there === true ? null : `table ${this.#schema}.batch is gone`;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#pending);
    this.#connection.end();
  }

  /** Reads, and trims, which nobody waits for. They have no outcome to be uncertain about. */
  async #query<Row>(
    name: Exclude<keyof Statements, 'insert' | 'mark' | 'barrier'>,
    values: readonly unknown[],
  ): Promise<Answer<Row>> {
    try {
      return await this.#reads.run(() => this.#connection.run<Row>(this.#statements[name], values));
    } catch (error) {
      if (!(error instanceof StoreUncertain)) throw error;
      throw new BrokerError('STORE_UNAVAILABLE', 'PostgreSQL did not answer', { cause: error });
    }
  }

  async #append(group: readonly SealedBatch[]): Promise<void> {
    const rows = await this.#fileable(onePerKey(group));
    if (rows.length === 0) return;
    try {
      await this.#insert(rows);
    } catch (error) {
      if (!(error instanceof BrokerError) || codeOf(error.cause) !== NO_PARTITION) throw error;
      // Another node dropped the partition, or this one's list is old: nothing was stored, so look again and repeat.
      await this.#lookForSlices();
      await this.#insert(await this.#fileable(rows));
    }
  }

  /**
   * Makes the partitions that are missing. What is in a slice that is over already, by the clock and by log time, will never be delivered, and is
   * not written. Not by the clock alone: one that is ahead would leave out what is acknowledged and has not expired.
   */
  async #fileable(group: readonly SealedBatch[]): Promise<readonly SealedBatch[]> {
    for (const { publishedAt } of group) this.#logTimeMs = Math.max(this.#logTimeMs, publishedAt);
    const nowMs = this.#overBeforeMs();
    const missing = new Set<number>();
    let hasOver = false;
    for (const batch of group) {
      const slice = sliceOfBatch(batch);
      if (this.#slices.has(slice)) continue;
      if (isSliceOver(slice, nowMs)) hasOver = true;
      else missing.add(slice);
    }
    if (missing.size > 0) await this.#createPartitions(missing, nowMs);
    return hasOver ? group.filter((batch) => this.#slices.has(sliceOfBatch(batch))) : group;
  }

  #overBeforeMs(): number {
    return Math.min(this.#now(), this.#logTimeMs);
  }

  async #lookForSlices(): Promise<void> {
    try {
      const { slices, over } = await findPartitions(this.#connection, this.#schema, this.#overBeforeMs());
      this.#over = over;
      this.#slices.clear();
      for (const slice of slices) this.#slices.add(slice);
    } catch (error) {
      throw new BrokerError('STORE_UNAVAILABLE', 'the list of partitions was not answered', { cause: error });
    }
  }

  async #createPartitions(slices: ReadonlySet<number>, nowMs: number): Promise<void> {
    try {
      this.#over = await createPartitions(this.#connection, this.#schema, slices, nowMs);
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      throw new BrokerError('STORE_UNAVAILABLE', `no partition for slice ${[...slices]}: ${why}`, { cause: error });
    }
    for (const known of this.#slices) if (isSliceOver(known, nowMs)) this.#slices.delete(known);
    for (const slice of slices) this.#slices.add(slice);
  }

  async #insert(rows: readonly SealedBatch[]): Promise<void> {
    if (rows.length === 0) return;
    const statement = rows.some(({ kind }) => kind === 'void') ? this.#statements.mark : this.#statements.insert;
    const memory = this.#memories.pop() ?? new ArrayMemory();
    const answer = await this.#connection.run(statement, [
      byteaArray(rows, ({ subject }) => subject.bytes),
      int8Array(rows, ({ base }) => base),
      int8Array(rows, sliceOfBatch),
      int8Array(rows, ({ count }) => count),
      int8Array(rows, ({ publishedAt }) => publishedAt),
      int8Array(rows, ({ expiresMax }) => expiresMax),
      int8Array(rows, ({ kind }) => (kind === 'void' ? KIND_VOID : KIND_DATA)),
      byteaArray(rows, ({ bytes }) => bytes, memory),
    ]);
    // Only when it was answered: what is given up may still lie with the driver.
    if (this.#memories.length < MEMORIES_MAX) this.#memories.push(memory);
    if (answer.warned) throw new StoreUncertain('PostgreSQL committed with a warning');
    if (answer.rowCount < rows.length) await this.#confirm(rows);
  }

  /** What was there before has to be what was written: another message under an id of ours is of another broker, whose log gave it too. */
  async #compare(rows: readonly SealedBatch[]): Promise<void> {
    const { rows: found } = await this.#connection.run<{ others: number }>(this.#statements.others, [
      byteaArray(rows, ({ subject }) => subject.bytes),
      int8Array(rows, ({ base }) => base),
      int8Array(rows, sliceOfBatch),
      byteaArray(rows, ({ bytes }) => bytes),
    ]);
    if (found[0]?.others === 0) return;
    throw new StoreFailure(
      `${this.#schema}.batch has other messages under ids that this broker has just given: another broker runs on a copy of its data directory`,
    );
  }

  /**
   * Some rows were there before. They are committed here, but a standby may not have them: whoever wrote them may have been cut off while it
   * waited for it, and a statement that wrote nothing waits for nobody. So something is written behind them and waited for.
   */
  async #confirm(rows: readonly SealedBatch[]): Promise<void> {
    await this.#compare(rows.filter(({ kind }) => kind === 'data'));
    const { warned } = await this.#connection.run(this.#statements.barrier, []);
    if (warned) throw new StoreUncertain('PostgreSQL committed with a warning');
  }
}

function key(subject: SubjectRef): Buffer {
  return Buffer.from(subject.bytes.buffer, subject.bytes.byteOffset, subject.bytes.length);
}

function sliceOfBatch({ publishedAt, expiresMax }: SealedBatch): number {
  return sliceOf(publishedAt, expiresMax);
}
