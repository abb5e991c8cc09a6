/**
 * A database in memory, as slow and unreliable as the seed wants: writes that fail, whose answers are lost, or that take effect long after
 * everybody gave them up. What it has is looked at by the checkers directly.
 */
import { BrokerError } from '../../src/base/errors.ts';
import type { OpenedDatabase } from '../../src/storage/open-database.ts';
import { type ReadResult, type SealedBatch, type StoredItem, StoreUncertain } from '../../src/storage/store.ts';
import { labelsIn, type StoredRow } from './broker-oracle.ts';
import { Actor, type SimTime } from './broker-time.ts';

interface Row {
  readonly base: number;
  readonly count: number;
  readonly kind: 'data' | 'void';
  readonly publishedAt: number;
  readonly bytes: Buffer;
  readonly labels: readonly string[];
}

/** How it behaves; numbers of writes in a thousand. */
export interface StoreFaults {
  readonly writeMsMax: number;
  readonly readMsMax: number;
  /** Refused, and without an effect. */
  readonly refused: number;
  /** Answered with nothing known, and without an effect. */
  readonly lost: number;
  /** Answered with nothing known; it took effect. */
  readonly unheard: number;
  /** Answered with nothing known; takes effect up to `lateMsMax` later. */
  readonly late: number;
  readonly lateMsMax: number;
  readonly readsRefused: number;
}

export const CALM_STORE: StoreFaults = {
  writeMsMax: 3,
  readMsMax: 2,
  refused: 0,
  lost: 0,
  unheard: 0,
  late: 0,
  lateMsMax: 0,
  readsRefused: 0,
};

const TIMEOUT_MS = 200;
const READS_MAX = 4;
const WRITES_MAX = 2;

export class SimDatabase {
  readonly #time: SimTime;
  /** The server: what it does goes on when a shard thread has died. */
  readonly #server = new Actor('database');
  /** By subject, in order of the bases. */
  readonly #rows = new Map<string, Row[]>();
  faults: StoreFaults = CALM_STORE;
  /** Nothing is answered before, in ms of the run. */
  awayUntil = 0;
  /** Writes that take effect later. */
  late = 0;

  constructor(time: SimTime) {
    this.#time = time;
  }

  stored(subject: string): StoredRow[] {
    return this.#rowsOf(subject).map(({ base, count, kind, labels, publishedAt }) => ({
      base,
      count,
      kind,
      labels,
      publishedAt,
    }));
  }

  #rowsOf(subject: string): readonly Row[] {
    return this.#rows.get(subject) ?? [];
  }

  /** One thread's connections. */
  open(): OpenedDatabase {
    const open = {
      readsMax: READS_MAX,
      writesMax: WRITES_MAX,
      weaknesses: [],
      append: (group: readonly SealedBatch[]) => this.#append(group),
      read: (subject: { readonly bytes: Uint8Array }, from: number, until: number, maxBytes: number) =>
        this.#answer(() => this.#read(nameOf(subject.bytes), from, until, maxBytes)),
      readBack: (subject: { readonly bytes: Uint8Array }, from: number, until: number) =>
        this.#answer(() => this.#readBack(nameOf(subject.bytes), from, until)),
      findTime: (subject: { readonly bytes: Uint8Array }, ms: number) =>
        this.#answer(
          () =>
            this.#rowsOf(nameOf(subject.bytes)).find(({ kind, publishedAt }) => kind === 'data' && publishedAt >= ms)
              ?.base ?? null,
        ),
      lastId: (subject: { readonly bytes: Uint8Array }) =>
        this.#answer(() => {
          const last = this.#rowsOf(nameOf(subject.bytes)).at(-1);
          return last === undefined ? 0 : last.base + last.count - 1;
        }),
      lookup: (subject: { readonly bytes: Uint8Array }, base: number) =>
        this.#answer(() => this.#rowsOf(nameOf(subject.bytes)).find((row) => row.base === base)?.kind ?? 'absent'),
      trim: (subject: { readonly bytes: Uint8Array }, first: number) =>
        this.#answer(() => this.#trim(nameOf(subject.bytes), first)),
      subjectStats: () => this.#answer(() => ({ batches: 0, bytes: 0 })),
      stats: () => this.#answer(() => ({ bytes: 0, segments: 0, batches: 0, subjects: 0, damaged: 0 })),
      connections: () => ({ open: 0, busy: 0, waiting: 0 }),
      hasRoomFor: () => true,
      close: () => Promise.resolve(),
    };
    return open as unknown as OpenedDatabase;
  }

  /** The thread that asks hears of the end as itself: nothing comes back to one that has died. */
  #append(group: readonly SealedBatch[]): Promise<void> {
    const { faults } = this;
    const time = this.#time;
    const copies = group.map((batch) => ({ ...batch, bytes: Buffer.from(batch.bytes) }));
    const put = (): void => this.#put(copies);
    const away = this.awayUntil - time.now;
    const draw = time.random.nextBelow(1_000);
    const asker = time.current;
    return new Promise((resolve, reject) => {
      const uncertain = (ms: number): void =>
        void time.post(asker, ms, () => reject(new StoreUncertain('no answer came')));
      const ms = time.between(0.2, faults.writeMsMax);
      const { refused, lost, unheard, late } = faults;
      if (away > 0) {
        if (time.random.chance(1, 2)) time.post(asker, ms, () => reject(new BrokerError('STORE_UNAVAILABLE')));
        else uncertain(TIMEOUT_MS);
      } else if (draw < refused) time.post(asker, ms, () => reject(new BrokerError('STORE_UNAVAILABLE')));
      else if (draw < refused + lost) uncertain(TIMEOUT_MS);
      else if (draw < refused + lost + unheard) {
        time.post(this.#server, ms, put);
        uncertain(TIMEOUT_MS);
      } else if (draw < refused + lost + unheard + late) {
        this.late += 1;
        // Row by row, as a database may that knows no transactions.
        for (const copy of copies) time.post(this.#server, time.between(0, faults.lateMsMax), () => this.#put([copy]));
        uncertain(TIMEOUT_MS);
      } else {
        time.post(this.#server, ms, () => {
          put();
          time.post(asker, 0.1, resolve);
        });
      }
    });
  }

  #answer<T>(look: () => T): Promise<T> {
    const time = this.#time;
    const asker = time.current;
    const ms = time.between(0.1, this.faults.readMsMax);
    const isRefused = time.now < this.awayUntil || time.random.nextBelow(1_000) < this.faults.readsRefused;
    return new Promise((resolve, reject) => {
      time.post(this.#server, ms, () => {
        const found = isRefused ? null : look();
        time.post(asker, 0.1, () => {
          if (isRefused) reject(new BrokerError('STORE_UNAVAILABLE'));
          else resolve(found as T);
        });
      });
    });
  }

  /** A mark beats data, whichever comes first; otherwise the first one stays. */
  #put(group: readonly SealedBatch[]): void {
    for (const { subject, base, count, kind, bytes, publishedAt } of group) {
      const name = nameOf(subject.bytes);
      const rows = this.#rows.get(name) ?? [];
      this.#rows.set(name, rows);
      const at = rows.findIndex((row) => row.base >= base);
      const labels = kind === 'data' ? labelsIn(bytes, count) : [];
      const row = { base, count, kind, bytes, publishedAt, labels };
      if (at < 0) rows.push(row);
      else if (rows[at]?.base !== base) rows.splice(at, 0, row);
      else if (kind === 'void') rows[at] = row;
    }
  }

  #read(name: string, from: number, until: number, maxBytes: number): ReadResult {
    const items: StoredItem[] = [];
    let bytes = 0;
    for (const row of this.#rowsOf(name)) {
      const to = row.base + row.count;
      if (to <= from || row.base > until) continue;
      if (items.length > 0 && bytes + row.bytes.length > maxBytes) return { items, next: row.base };
      bytes += row.bytes.length;
      items.push(itemOf(row));
    }
    return { items, next: until + 1 };
  }

  #readBack(name: string, from: number, until: number): ReadResult {
    const found = this.#rowsOf(name).filter((row) => row.base + row.count > from && row.base <= until);
    return { items: found.map(itemOf).reverse(), next: from - 1 };
  }

  #trim(name: string, first: number): void {
    this.#rows.set(
      name,
      this.#rowsOf(name).filter(({ base, count }) => base + count > first),
    );
  }
}

function itemOf({ kind, base, count, bytes }: Row): StoredItem {
  const to = base + count;
  if (kind === 'void') return { kind, from: base, to };
  return { kind, from: base, to, base, bytes: Buffer.from(bytes) };
}

function nameOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}
