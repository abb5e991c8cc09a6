import { type Client, type Host, type QueryOptions, types } from 'cassandra-driver';
import { assert } from '../../base/assert.ts';
import { BrokerError } from '../../base/errors.ts';
import { BatchView } from '../../batch/batch-view.ts';
import { checkedItem } from '../checked-item.ts';
import { InFlight } from '../in-flight.ts';
import { onePerKey } from '../one-per-key.ts';
import type { OpenedDatabase } from '../open-database.ts';
import { StartError } from '../start-error.ts';
import type {
  BeyondHead,
  Heads,
  NewestVisitor,
  ReadResult,
  SealedBatch,
  StoreConnections,
  Stored,
  StoredItem,
  StoreStats,
  SubjectRef,
  SubjectStats,
} from '../store.ts';
import { beyondHeads } from './beyond-heads.ts';
import { blobOf } from './blob.ts';
import { BucketSearch } from './bucket-search.ts';
import { CassandraBirth } from './cassandra-birth.ts';
import { CassandraIncarnations } from './cassandra-incarnations.ts';
import {
  ADMIN_TIMEOUT_MS,
  type ConnectOptions,
  createClient,
  requestTimeoutMs,
  WriteRetryPolicy,
  whyUnusable,
} from './connect.ts';
import { type Consistency, levelOf } from './consistency.ts';
import { GroupTries } from './in-flight.ts';
import { newestOfAll } from './newest-of-all.ts';
import { meaningOf } from './outcome.ts';
import {
  BUCKET_IDS,
  bucketOf,
  checkDurability,
  checkVersion,
  createSchema,
  type DurabilityOptions,
  SPAN_IDS,
  spanOfBucket,
} from './schema.ts';
import { SpanDirectory, type SpanEntry } from './span-directory.ts';
import { timeToLive, trimTimestamp, writeTimestamp } from './write-rules.ts';

/** Column `kind`, as in the batch format. */
const KIND_DATA = 1;
const KIND_VOID = 2;

/** Batches that one read answers at most. */
const READ_ROWS_MAX = 256;
/** Rows of a page of the whole table, where people asked for it. */
const ROWS_A_PAGE = 5_000;
/** Few: a server gives up a page after range_request_timeout (10 s), and partitions full of tombstones are slow. */
const KEYS_A_PAGE = 1_000;

export interface CassandraStoreOptions extends ConnectOptions {
  /** Lower case letters, digits and `_`. */
  readonly keyspace: string;
  /** For a keyspace that has to be created: a CQL map, or the number of copies in the data centre. */
  readonly replication: string;
  /** Of writes; reads are at one that meets it. */
  readonly consistency: Consistency;
  /** Start although settings lose acknowledged messages. */
  readonly acceptWeakDurability: boolean;
  /** Epoch ms; for times to live, and for what a trim outlives. */
  readonly now?: () => number;
}

/** What the driver's host has beside its public face. */
interface DriverHost {
  shutdown(waitForPending: boolean): Promise<void>;
}

/**
 * Batches as rows of Cassandra, written at a quorum with timestamps of log time. A group is as many statements as it has batches (and a small
 * one for each new span of a subject), side by side: Cassandra has no cheaper way to write several partitions.
 */
export class CassandraStore implements OpenedDatabase {
  readonly birth: CassandraBirth;
  readonly incarnations: CassandraIncarnations;
  /** Settings of the servers that lose acknowledged messages; empty: acks mean `durable`, else only `replicated`. */
  readonly weaknesses: readonly string[];
  readonly readsMax: number;
  /** The statements of a group go side by side already: with several groups at a time it is no faster (docs/performance.md). */
  readonly writesMax: number = 1;
  readonly #client: Client;
  /** Every host that the driver ever named. */
  readonly #hosts: Set<Host>;
  readonly #now: () => number;
  readonly #durability: DurabilityOptions;
  /** Statements that may be on their way. */
  readonly #inFlight: number;
  readonly #writeOptions: QueryOptions;
  readonly #readOptions: QueryOptions;
  readonly #writes: InFlight;
  /** Half as many as writes: a connection takes both (connect.ts), or the driver would refuse whatever comes next, be it a write. */
  readonly #reads: InFlight;
  readonly #search: BucketSearch;
  readonly #view = new BatchView();
  readonly #spans: SpanDirectory;
  readonly #pending = new Set<Promise<void>>();
  readonly #text: ReturnType<typeof statements>;
  /** Greatest log time of an allotment that was written here, epoch ms. */
  #logTimeMs = 0;
  #damaged = 0;
  #isClosed = false;

  connections(): StoreConnections {
    const state = this.#client.getState();
    const hosts = state.getConnectedHosts();
    const sum = (of: (host: Host) => number): number => hosts.reduce((total, host) => total + of(host), 0);
    return {
      open: sum((host) => state.getOpenConnections(host)),
      busy: sum((host) => state.getInFlightQueries(host)),
      waiting: this.#reads.waiting + this.#writes.waiting,
    };
  }

  private constructor(client: Client, options: CassandraStoreOptions, weaknesses: readonly string[]) {
    this.#client = client;
    this.#hosts = new Set(client.hosts.values());
    client.on('hostAdd', (host: Host) => this.#hosts.add(host));
    this.#now = options.now ?? Date.now;
    this.#durability = options;
    this.#inFlight = options.inFlight;
    const { write, read } = levelOf(options.consistency);
    const common = { prepare: true, readTimeout: requestTimeoutMs(options.timeoutMs) };
    this.#writeOptions = { ...common, consistency: write, retry: new WriteRetryPolicy() };
    this.#readOptions = { ...common, consistency: read };
    this.#writes = new InFlight(options.inFlight);
    this.readsMax = Math.max(1, Math.floor(options.inFlight / 2));
    this.#reads = new InFlight(this.readsMax);
    this.#text = statements(options.keyspace);
    this.#spans = new SpanDirectory(options.keyspace);
    this.#search = new BucketSearch(options.keyspace, (text, values) => this.#select(text, values));
    this.weaknesses = weaknesses;
    this.birth = new CassandraBirth(client, options.keyspace);
    this.incarnations = new CassandraIncarnations(client, options.keyspace, requestTimeoutMs(options.timeoutMs));
  }

  /** Connects, creates what is missing, checks the servers. StartError if they cannot be used. */
  static async open(options: CassandraStoreOptions): Promise<CassandraStore> {
    const client = createClient(options);
    try {
      await client.connect();
      await createSchema(client, options);
      const weaknesses = await checkDurability(client, options);
      if (weaknesses.length > 0 && !options.acceptWeakDurability) {
        throw new StartError(
          'STORE_WEAK',
          `Cassandra would lose acknowledged messages: ${weaknesses.join('; ')}. Change that, or start with --store-accept-weak-durability`,
        );
      }
      await checkVersion(client, options.keyspace);
      return new CassandraStore(client, options, weaknesses);
    } catch (error) {
      await client.shutdown();
      if (error instanceof StartError) throw error;
      throw new StartError('STORE_UNUSABLE', `Cassandra cannot be used: ${whyUnusable(error)}`, { cause: error });
    }
  }

  append(group: readonly SealedBatch[]): Promise<void> {
    if (this.#isClosed) return Promise.reject(new BrokerError('SHUTTING_DOWN'));
    const done = this.#append(group).finally(() => this.#pending.delete(done));
    this.#pending.add(done);
    return done;
  }

  async read(subject: SubjectRef, from: number, until: number, maxBytes: number): Promise<ReadResult> {
    const items: StoredItem[] = [];
    let bytes = 0;
    let next = (await this.#coveringBase(subject, from)) ?? from;
    while (next <= until) {
      const bucket = bucketOf(next);
      const last = Math.min(until, (bucket + 1) * BUCKET_IDS - 1);
      const page = await this.#readBucket(subject, { bucket, from: next, until: last, maxBytes: maxBytes - bytes });
      items.push(...page.items);
      bytes += page.bytes;
      const to = items.at(-1)?.to ?? next;
      if (page.isCut) return { items, next: Math.min(until + 1, to) };
      // The whole of the partition is told, holes behind its last batch included.
      const isFull = bytes >= maxBytes || items.length >= READ_ROWS_MAX;
      if (isFull && items.length > 0) return { items, next: Math.min(until + 1, Math.max(to, last + 1)) };
      next = last + 1;
      if (page.items.length > 0 || next > until) continue;
      const found = await this.#search.next(subject, bucketOf(next), bucketOf(until));
      if (found === null) break;
      next = Math.max(next, found * BUCKET_IDS);
    }
    return { items, next: until + 1 };
  }

  async readBack(subject: SubjectRef, from: number, until: number, maxBytes: number): Promise<ReadResult> {
    const items: StoredItem[] = [];
    let bytes = 0;
    let next = until;
    const lowest = (await this.#coveringBase(subject, from)) ?? from;
    while (next >= lowest) {
      const bucket = bucketOf(next);
      const first = Math.max(lowest, bucket * BUCKET_IDS);
      const range = { bucket, from: first, until: next, maxBytes: maxBytes - bytes };
      const page = await this.#readBucket(subject, range, 'down');
      items.push(...page.items);
      bytes += page.bytes;
      const isFull = bytes >= maxBytes || items.length >= READ_ROWS_MAX;
      const reached = items.at(-1)?.from ?? null;
      // Not to the end of the partition: a batch of an earlier one may reach into it.
      if (reached !== null && (page.isCut || isFull)) return { items, next: Math.max(from, reached) - 1 };
      next = first - 1;
      if (page.items.length > 0 || next < lowest) continue;
      const found = await this.#search.last(subject, bucketOf(next), bucketOf(lowest));
      if (found === null) break;
      next = Math.min(next, (found + 1) * BUCKET_IDS - 1);
    }
    return { items, next: from - 1 };
  }

  async findTime(subject: SubjectRef, ms: number): Promise<number | null> {
    let low = 1;
    let high = await this.lastId(subject);
    let found: number | null = null;
    // Times of messages never fall with rising ids.
    while (low <= high) {
      const middle = low + Math.floor((high - low) / 2);
      const probe = await this.#firstData(subject, middle, high);
      if (probe === null) high = middle - 1;
      else if (probe.publishedAt >= ms) {
        found = probe.base;
        high = middle - 1;
      } else low = probe.base + 1;
    }
    return found;
  }

  async lastId(subject: SubjectRef): Promise<number> {
    const bucket = await this.#search.last(subject, Number.MAX_SAFE_INTEGER / BUCKET_IDS, 0);
    if (bucket === null) return 0;
    const row = (
      await this.#select(this.#text.newest, [blobOf(subject), long(bucket), long(Number.MAX_SAFE_INTEGER)])
    ).first();
    return row === null ? 0 : lastIdOf(row);
  }

  /** There is no index on times: reads the keys of all partitions, and one row of each that the log may not have reached. */
  beyond(heads: Heads, onPage: (rows: number) => void = () => undefined): Promise<BeyondHead | null> {
    const pages = (pageState: string | null): Promise<types.ResultSet> =>
      this.#page(this.#text.partitions, pageState, KEYS_A_PAGE);
    const newestOf = async (subject: Buffer, bucket: number): Promise<number> => {
      const values = [subject, long(bucket), long(Number.MAX_SAFE_INTEGER)];
      const row = (await this.#select(this.#text.newest, values)).first();
      return row === null ? 0 : lastIdOf(row);
    };
    return beyondHeads({ pages, newestOf, heads, onPage, atOnce: this.#inFlight });
  }

  /** The keys of all partitions are read; of each subject the last row of the highest one. */
  async newest(visit: NewestVisitor): Promise<number> {
    const pages = (pageState: string | null): Promise<types.ResultSet> =>
      this.#page(this.#text.partitions, pageState, KEYS_A_PAGE);
    return await newestOfAll({
      pages,
      newestOf: async (subject, bucket) => {
        const values = [subject, long(bucket), long(Number.MAX_SAFE_INTEGER)];
        const row = (await this.#select(this.#text.newestWithTime, values)).first();
        return row === null ? null : { lastId: lastIdOf(row), publishedAt: Number(row.get('published_at')) };
      },
      visit,
      atOnce: this.readsMax,
    });
  }

  async lookup(subject: SubjectRef, base: number): Promise<Stored> {
    const row = (await this.#select(this.#text.lookup, [blobOf(subject), long(bucketOf(base)), long(base)])).first();
    if (row === null) return 'absent';
    return row.get('kind') === KIND_VOID ? 'void' : 'data';
  }

  async trim(subject: SubjectRef, first: number): Promise<void> {
    const last = Math.min(first - 1, await this.lastId(subject));
    const kept = (await this.#coveringBase(subject, first)) ?? first;
    // `kept` begins the batch that straddles `first`, if there is one.
    const end = Math.min(kept, last + 1);
    if (end <= 1) return;
    const lastBucket = bucketOf(end - 1);
    for (let from = 0; from <= lastBucket; ) {
      const bucket = await this.#search.next(subject, from, lastBucket);
      if (bucket === null) break;
      await this.#trimBucket(subject, bucket, end);
      from = bucket + 1;
    }
    // What lies below is never written again, so these are not looked through by the next trim.
    const { text, values } = this.#spans.trim(subject, spanOfBucket(lastBucket));
    await this.#write(text, values);
  }

  /** Rows have the log's time, which may be ahead of this clock; none of a partition is later than its last. */
  async #trimBucket(subject: SubjectRef, bucket: number, end: number): Promise<void> {
    const where = [blobOf(subject), long(bucket), long(end)];
    const newest = (await this.#select(this.#text.newestTime, where)).first();
    const ms = Math.max(this.#now(), newest === null ? 0 : Number(newest.get('published_at')));
    await this.#write(this.#text.trim, [long(trimTimestamp(ms)), ...where]);
  }

  async subjectStats(subject: SubjectRef): Promise<SubjectStats> {
    let batches = 0;
    let bytes = 0;
    let bucket = await this.#search.next(subject, 0, bucketOf(Number.MAX_SAFE_INTEGER));
    while (bucket !== null) {
      const { rows } = await this.#select(this.#text.sizes, [blobOf(subject), long(bucket)]);
      batches += rows.length;
      for (const row of rows) bytes += Number(row.get('size'));
      bucket = await this.#search.next(subject, bucket + 1, bucketOf(Number.MAX_SAFE_INTEGER));
    }
    return { batches, bytes };
  }

  async stats(): Promise<StoreStats> {
    let [batches, bytes] = [0, 0];
    const names = new Set<string>();
    let pageState: string | null = null;
    do {
      const page: types.ResultSet = await this.#page(this.#text.all, pageState);
      batches += page.rows.length;
      for (const row of page.rows) {
        bytes += Number(row.get('size'));
        names.add((row.get('subject') as Buffer).toString('latin1'));
      }
      pageState = page.pageState ?? null;
    } while (pageState !== null);
    const subjects = names.size;
    return { batches, bytes, subjects, segments: 0, damaged: this.#damaged };
  }

  /** Of a row that is always there, at the consistency of reads: without a quorum, or without the keyspace, nothing could be written either. */
  async probe(): Promise<null> {
    await this.#select(this.#text.probe, []);
    return null;
  }

  /** Of the nodes that are up now. */
  async currentWeaknesses(): Promise<readonly string[]> {
    try {
      return await checkDurability(this.#client, this.#durability);
    } catch (error) {
      // What a start refuses always.
      if (error instanceof StartError) return [error.message];
      throw error;
    }
  }

  /** Rows have times to live, and compaction drops them. */
  dropExpired(): Promise<number> {
    return Promise.resolve(0);
  }

  hasRoomFor(): boolean {
    return true;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#pending);
    await this.#client.shutdown();
    // The driver (4.10) forgets a host that was away and came back as another object, with its timers running: they would keep the process alive.
    await Promise.all([...this.#hosts].map((host) => (host as unknown as DriverHost).shutdown(false)));
  }

  async #append(group: readonly SealedBatch[]): Promise<void> {
    // Not by the clock alone: one that is ahead would leave out, or end, what is acknowledged and has not expired.
    for (const { publishedAt } of group) this.#logTimeMs = Math.max(this.#logTimeMs, publishedAt);
    const clockMs = this.#now();
    const now = { clockMs, earliestMs: Math.min(clockMs, this.#logTimeMs) };
    const tries = new GroupTries(this.#writes);
    for (const batch of onePerKey(group)) {
      assert(batch.count <= SPAN_IDS, 'a batch has more ids than a reader looks back');
      const ttl = timeToLive(batch, now);
      if (ttl === null) continue;
      tries.add(() => this.#insert(batch, ttl));
      const entry = this.#spans.missing(batch.subject, spanOfBucket(bucketOf(batch.base)), ttl, now);
      if (entry !== null) tries.add(() => this.#insertSpan(entry));
    }
    await tries.outcome();
  }

  #insert(batch: SealedBatch, ttl: number): Promise<void> {
    return this.#write(this.#text.insert, [
      blobOf(batch.subject),
      long(bucketOf(batch.base)),
      long(batch.base),
      long(batch.count),
      long(batch.publishedAt),
      long(batch.expiresMax),
      batch.kind === 'void' ? KIND_VOID : KIND_DATA,
      batch.bytes.length,
      batch.bytes,
      long(writeTimestamp(batch)),
      ttl,
    ]);
  }

  async #insertSpan(entry: SpanEntry): Promise<void> {
    await this.#write(entry.text, entry.values);
    this.#spans.written(entry);
  }

  async #write(text: string, values: readonly unknown[]): Promise<void> {
    try {
      await this.#client.execute(text, [...values], this.#writeOptions);
    } catch (error) {
      throw meaningOf(error);
    }
  }

  async #select(text: string, values: readonly unknown[]): Promise<types.ResultSet> {
    if (this.#isClosed) throw new BrokerError('SHUTTING_DOWN');
    try {
      return await this.#reads.run(() => this.#client.execute(text, [...values], this.#readOptions));
    } catch (error) {
      throw new BrokerError('STORE_UNAVAILABLE', 'Cassandra did not answer the read', { cause: error });
    }
  }

  async #page(text: string, pageState: string | null, fetchSize = ROWS_A_PAGE): Promise<types.ResultSet> {
    if (this.#isClosed) throw new BrokerError('SHUTTING_DOWN');
    try {
      const from = pageState === null ? {} : { pageState };
      return await this.#client.execute(text, [], {
        ...this.#readOptions,
        readTimeout: ADMIN_TIMEOUT_MS,
        fetchSize,
        ...from,
      });
    } catch (error) {
      throw new BrokerError('STORE_UNAVAILABLE', 'Cassandra did not answer the read', { cause: error });
    }
  }

  /** Base of the batch that begins before `id` and reaches it, or null. It may begin in an earlier partition. */
  async #coveringBase(subject: SubjectRef, id: number): Promise<number | null> {
    const bucket = bucketOf(id);
    let row = (await this.#select(this.#text.newest, [blobOf(subject), long(bucket), long(id)])).first();
    if (row === null) {
      const earlier = await this.#search.last(subject, bucket - 1, Math.max(0, bucket - SPAN_IDS / BUCKET_IDS));
      if (earlier === null) return null;
      row = (await this.#select(this.#text.newest, [blobOf(subject), long(earlier), long(id)])).first();
    }
    if (row === null) return null;
    const base = Number(row.get('base'));
    return base + Number(row.get('count')) > id ? base : null;
  }

  /** First data at or after `from` by its key. */
  async #firstData(
    subject: SubjectRef,
    from: number,
    until: number,
  ): Promise<{ base: number; publishedAt: number } | null> {
    let bucket: number | null = bucketOf(from);
    while (bucket !== null) {
      const { rows } = await this.#select(this.#text.times, [blobOf(subject), long(bucket), long(from), long(until)]);
      const row = rows.find((each) => each.get('kind') === KIND_DATA);
      if (row !== undefined) return { base: Number(row.get('base')), publishedAt: Number(row.get('published_at')) };
      bucket = bucket + 1 > bucketOf(until) ? null : await this.#search.next(subject, bucket + 1, bucketOf(until));
    }
    return null;
  }

  /** Sizes first, then the bytes of what fits: a page of a fixed number of rows could be any number of bytes. */
  async #readBucket(
    subject: SubjectRef,
    range: { readonly bucket: number; readonly from: number; readonly until: number; readonly maxBytes: number },
    direction: 'up' | 'down' = 'up',
  ): Promise<{ items: StoredItem[]; bytes: number; isCut: boolean }> {
    const { sizesFrom, sizesBack, bytes: bytesUp, bytesBack } = this.#text;
    const isUp = direction === 'up';
    const partition = [blobOf(subject), long(range.bucket)];
    const wanted = [...partition, long(range.from), long(range.until)];
    const { rows: found } = await this.#select(isUp ? sizesFrom : sizesBack, wanted);
    let bytes = 0;
    let count = 0;
    while (count < found.length && count < READ_ROWS_MAX && (count === 0 || bytes < range.maxBytes)) {
      bytes += Number(found[count]?.get('size'));
      count += 1;
    }
    if (count === 0) return { items: [], bytes: 0, isCut: false };
    const last = Number(found[count - 1]?.get('base'));
    const [low, high] = isUp ? [range.from, last] : [last, range.until];
    const { rows } = await this.#select(isUp ? bytesUp : bytesBack, [...partition, long(low), long(high)]);
    const items = rows.map((row) =>
      checkedItem(this.#view, subject, {
        base: Number(row.get('base')),
        count: Number(row.get('count')),
        isMark: row.get('kind') === KIND_VOID,
        bytes: row.get('bytes') as Buffer,
      }),
    );
    for (const item of items) if (item.kind === 'damaged') this.#damaged += 1;
    return { items, bytes, isCut: count < found.length };
  }
}

function statements(keyspace: string) {
  const batches = `${keyspace}.batches`;
  const partition = `FROM ${batches} WHERE subject = ? AND bucket = ?`;
  return {
    insert: `INSERT INTO ${batches} (subject, bucket, base, count, published_at, expires_max, kind, size, bytes)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?`,
    lookup: `SELECT kind ${partition} AND base = ?`,
    newest: `SELECT base, count ${partition} AND base <= ? ORDER BY base DESC LIMIT 1`,
    newestWithTime: `SELECT base, count, published_at ${partition} AND base <= ? ORDER BY base DESC LIMIT 1`,
    times: `SELECT base, kind, published_at ${partition} AND base >= ? AND base <= ?`,
    sizes: `SELECT size ${partition}`,
    sizesFrom: `SELECT base, size ${partition} AND base >= ? AND base <= ? LIMIT ${READ_ROWS_MAX + 1}`,
    sizesBack: `SELECT base, size ${partition} AND base >= ? AND base <= ? ORDER BY base DESC LIMIT ${READ_ROWS_MAX + 1}`,
    bytes: `SELECT base, count, kind, bytes ${partition} AND base >= ? AND base <= ?`,
    bytesBack: `SELECT base, count, kind, bytes ${partition} AND base >= ? AND base <= ? ORDER BY base DESC`,
    newestTime: `SELECT published_at ${partition} AND base < ? ORDER BY base DESC LIMIT 1`,
    trim: `DELETE FROM ${batches} USING TIMESTAMP ? WHERE subject = ? AND bucket = ? AND base < ?`,
    all: `SELECT subject, size FROM ${batches}`,
    probe: `SELECT one FROM ${keyspace}.birth WHERE one = 1`,
    partitions: `SELECT DISTINCT subject, bucket FROM ${batches}`,
  } as const;
}

/** Of the batch or mark in a row. */
function lastIdOf(row: types.Row): number {
  return Number(row.get('base')) + Number(row.get('count')) - 1;
}

/** A bigint of CQL; exact for every id. */
function long(value: number): types.Long {
  return types.Long.fromNumber(value);
}
