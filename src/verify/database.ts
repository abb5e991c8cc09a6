import type { BrokerError } from '../base/errors.ts';
import { isOutage } from '../storage/driver-errors.ts';
import type { MessageStore, ReadResult, SubjectRef } from '../storage/store.ts';
import type { IdRange, IdWalk } from './id-walk.ts';
import type { Pace } from './pace.ts';
import type { Tally } from './tally.ts';

/** Of one read; a batch is read whole. */
const PAGE_BYTES = 256 * 1024;
/** Rows beyond the head of one subject that are told. */
const BEYOND_MAX = 1_000;
const LAST_ID = Number.MAX_SAFE_INTEGER - 1;
/** A database that does not answer is asked again, for this long. */
const PATIENCE_MS = 60_000;
const RETRY_MS = 500;

/** The batches of a database, read as readers that are behind read them. */
export class Rows {
  readonly #store: Pick<MessageStore, 'read'>;
  readonly #tally: Tally;
  readonly #pace: Pace;

  constructor(store: Pick<MessageStore, 'read'>, tally: Tally, pace: Pace) {
    this.#store = store;
    this.#tally = tally;
    this.#pace = pace;
  }

  /** Holds the ids of a subject against its rows. BrokerError STORE_UNAVAILABLE if the database does not answer for a minute. */
  async walk(subject: SubjectRef, first: number, settled: number, walk: IdWalk): Promise<void> {
    for (let from = first; from <= settled; ) {
      const { items, next } = await this.#read(subject, from, settled);
      let bytes = 0;
      for (const item of items) {
        walk.meet(item.kind, item.from, item.to);
        if (item.kind === 'data') bytes += item.bytes.length;
      }
      this.#tally.read(bytes);
      await this.#pace.wait(bytes, () => this.#tally.maybeTell());
      from = next;
    }
  }

  /** What is stored of a subject behind `head`, the first of it. */
  async beyond(subject: SubjectRef, head: number): Promise<IdRange[]> {
    const found: IdRange[] = [];
    for (let from = head + 1; from <= LAST_ID && found.length < BEYOND_MAX; ) {
      const { items, next } = await this.#read(subject, from, LAST_ID);
      for (const item of items) if (item.to > head + 1) found.push({ from: item.from, to: item.to });
      from = next;
    }
    return found;
  }

  #read(subject: SubjectRef, from: number, until: number): Promise<ReadResult> {
    return persist(async () => await this.#store.read(subject, from, until, PAGE_BYTES));
  }
}

/** Reads change nothing. */
export async function persist<T>(read: () => Promise<T>): Promise<T> {
  const givesUpAt = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await read();
    } catch (error) {
      if (!isOutage(error) || performance.now() >= givesUpAt) throw error as BrokerError;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
