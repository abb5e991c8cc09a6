import { assert } from '../../base/assert.ts';
import { BrokerError, type Reason } from '../../base/errors.ts';
import type { MessageStore, StoredItem } from '../../storage/store.ts';
import type { RecentBatches } from './recent-batches.ts';
import type { ActiveSubject } from './subjects.ts';

/** Reads for lookups that are on their way at a time, for one shard: what they bring is in memory together. */
const READS_AT_ONCE_MAX = 32;
/** Lookups of one shard that wait for a read or for its answer. */
const WAITING_MAX = 2_048;

export interface FetchCall {
  readonly subject: ActiveSubject;
  readonly id: number;
  readonly call: number;
  /** Epoch ms. */
  readonly deadline: number;
}

interface Lookup {
  readonly fetch: FetchCall;
  readonly absent: (fetch: FetchCall) => void;
  /** Ms of performance.now(). */
  readonly since: number;
  /** It waited for the read of another lookup, which brought another batch. */
  hasFollowed: boolean;
}

/** One read and those that it is for: the first has asked for it. */
interface Reading {
  readonly subject: ActiveSubject;
  readonly id: number;
  readonly lookups: Lookup[];
  /** Undefined: the store has nothing under the id. */
  item: StoredItem | undefined;
  failure: Reason | null;
}

/** What a lookup needs to know of the database. */
export interface LookupDatabase {
  readonly recent: RecentBatches;
  /** Reads that it works on at a time. */
  readonly readsMax: number;
  /** How long a lookup may wait for its turn, in ms: a read that began before it has then been given up, if the database is silent. */
  readonly waitMs: number;
}

export interface StoredLookupsPorts extends LookupDatabase {
  readonly store: Pick<MessageStore, 'read'>;
  readonly answer: (fetch: FetchCall, item: StoredItem | undefined, absent: (fetch: FetchCall) => void) => void;
  readonly refuse: (fetch: FetchCall, reason: Reason) => void;
  /** The ring to main is full: answers would fill memory. */
  readonly isBlocked: () => boolean;
  readonly onProgress: () => void;
}

/** Why a read was refused; anything but a BrokerError is a defect. */
export function reasonOf(error: unknown): Reason {
  if (error instanceof BrokerError) return error.reason;
  throw error;
}

/**
 * Lookups of single ids in a database: what was written or read lately comes from memory, and of the rest a bounded number is read at a time
 * while the others wait in order. One read serves everybody who wants a message of its batch: a batch of a megabyte may have a
 * thousand, and to read and check it again for each would take the database's time from the writes. Only ids that have their verdict are
 * asked for, so what a read did not find is not there for those who came while it was on its way either.
 */
export class StoredLookups {
  readonly #ports: StoredLookupsPorts;
  readonly #atOnce: number;
  #waiting: Lookup[] = [];
  /** On their way, or answered in part. */
  readonly #readings: Reading[] = [];
  /** Those of them that have come. */
  #arrived: Reading[] = [];
  /** Lookups that are in `#readings`. */
  #following = 0;

  constructor(ports: StoredLookupsPorts) {
    this.#ports = ports;
    this.#atOnce = Math.min(READS_AT_ONCE_MAX, ports.readsMax);
  }

  /** Lookups that no read is on its way for. */
  get waiting(): number {
    return this.#waiting.length;
  }

  /** Answered now or in a later round (`work`), or `absent` is called. */
  ask(fetch: FetchCall, absent: (fetch: FetchCall) => void): void {
    const { answer, refuse } = this.#ports;
    const item = this.#recent(fetch);
    if (item !== undefined) answer(fetch, item, absent);
    else if (this.#waiting.length + this.#following >= WAITING_MAX) refuse(fetch, 'QUEUE_FULL');
    else this.#waiting.push({ fetch, absent, since: performance.now(), hasFollowed: false });
  }

  /** One round. Returns the number of things done. */
  work(): number {
    return this.#answerArrived() + (this.#waiting.length > 0 ? this.#begin(Date.now()) : 0);
  }

  /** Answers those that waited too long. `now` in epoch ms. */
  expire(now: number): void {
    const kept: Lookup[] = [];
    for (const lookup of this.#waiting) if (!this.#isRefused(lookup, now)) kept.push(lookup);
    this.#waiting = kept;
  }

  #isRefused({ fetch, since }: Lookup, now: number): boolean {
    const { refuse, waitMs } = this.#ports;
    if (fetch.deadline <= now) refuse(fetch, 'DEADLINE_PASSED');
    else if (performance.now() - since >= waitMs) refuse(fetch, 'OVERLOADED');
    else return false;
    return true;
  }

  #recent({ subject, id }: FetchCall): StoredItem | undefined {
    return this.#ports.recent.read(subject.ref, id, id, 1)?.items[0];
  }

  #answerArrived(): number {
    const { answer, refuse, isBlocked } = this.#ports;
    let done = 0;
    while (this.#arrived.length > 0) {
      const reading = this.#arrived[0] as Reading;
      const { lookups, item, failure } = reading;
      for (let lookup = lookups.at(-1); lookup !== undefined; lookup = lookups.at(-1)) {
        if (isBlocked()) return done;
        lookups.pop();
        this.#following -= 1;
        done += 1;
        if (failure === null) answer(lookup.fetch, item, lookup.absent);
        else refuse(lookup.fetch, failure);
      }
      this.#arrived.shift();
      this.#readings.splice(this.#readings.indexOf(reading), 1);
    }
    return done;
  }

  /** Takes what waits, in order, until as many reads are on their way as may be. */
  #begin(now: number): number {
    const { answer, isBlocked } = this.#ports;
    let taken = 0;
    while (taken < this.#waiting.length && this.#readings.length < this.#atOnce && !isBlocked()) {
      const lookup = this.#waiting[taken] as Lookup;
      const { fetch, absent } = lookup;
      taken += 1;
      if (this.#isRefused(lookup, now)) continue;
      const item = this.#recent(fetch);
      if (item !== undefined) answer(fetch, item, absent);
      else this.#read(lookup);
    }
    if (taken > 0) this.#waiting.splice(0, taken);
    return taken;
  }

  /** Begins a read, or waits for one that will likely bring the same batch. */
  #read(lookup: Lookup): void {
    const { subject, id } = lookup.fetch;
    this.#following += 1;
    const isLikely = (other: Reading): boolean =>
      other.subject === subject &&
      Math.abs(other.id - id) < (lookup.hasFollowed ? 1 : subject.lookedUpIds) &&
      !this.#arrived.includes(other);
    const likely = this.#readings.find(isLikely);
    if (likely !== undefined) {
      likely.lookups.push(lookup);
      return;
    }
    const reading: Reading = { subject, id, lookups: [lookup], item: undefined, failure: null };
    this.#readings.push(reading);
    const arrived = (): void => {
      this.#arrived.push(reading);
      this.#ports.onProgress();
    };
    const read = this.#ports.store.read(subject.ref, id, id, 1);
    assert(read instanceof Promise, 'what is in memory was found there before');
    void read.then(
      ({ items: [item] }) => {
        this.#sort(reading, item);
        arrived();
      },
      (error: unknown) => {
        reading.failure = reasonOf(error);
        arrived();
      },
    );
  }

  /** Who asked for a message of the batch that came is answered from it; who hoped for it in vain waits again. */
  #sort(reading: Reading, item: StoredItem | undefined): void {
    const { subject, id, lookups } = reading;
    reading.item = item;
    const isOf = ({ fetch }: Lookup): boolean =>
      fetch.subject === subject && (item === undefined ? fetch.id === id : fetch.id >= item.from && fetch.id < item.to);
    const others = lookups.filter((lookup) => !isOf(lookup));
    for (const lookup of others) lookup.hasFollowed = true;
    const served = [...lookups, ...this.#waiting].filter(isOf);
    this.#following += served.length - lookups.length;
    this.#waiting = [...others, ...this.#waiting.filter((lookup) => !isOf(lookup))];
    lookups.splice(0, lookups.length, ...served.reverse());
    if (item === undefined) return;
    subject.lookedUpIds = item.to - item.from;
    if (item.kind === 'data') this.#ports.recent.add(subject.ref, item.base, item.to - item.base, item.bytes);
  }
}
