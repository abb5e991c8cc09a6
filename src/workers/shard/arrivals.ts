import type { ReadResult, SubjectRef } from '../../storage/store.ts';
import type { RecentBatches } from './recent-batches.ts';

/** How long a read waits for the batch that is likely on its way, in ms: about two of the ways that it takes under load. */
const WAIT_MS = 10;
/** Batches of other nodes came lately if the last one is no older than this, in ms. */
const LATELY_MS = 1_000;
/** More reads do not wait. */
const WAITING_MAX = 256;

interface Waiting {
  readonly subject: SubjectRef;
  readonly from: number;
  readonly until: number;
  readonly maxBytes: number;
  readonly timer: NodeJS.Timeout;
  resolve(read: ReadResult | null): void;
}

/**
 * Reads that go on where the last batch here ends, while batches come from other nodes. The log often tells a node of a batch before the batch itself has come
 * on its longer way over the main threads; to ask the database at once would be to ask it for almost every batch. When it does not come in time the
 * database is read; then the last batch here ends elsewhere, and no more is waited until batches come without a break again.
 */
export class Arrivals {
  readonly #recent: RecentBatches;
  readonly #waiting = new Set<Waiting>();
  /** Ms of performance.now(). */
  #cameAt = Number.NEGATIVE_INFINITY;

  constructor(recent: RecentBatches) {
    this.#recent = recent;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Null: nothing is on its way that is known of. Resolves with null if it has not come. `from` is not in memory. */
  expect(subject: SubjectRef, from: number, until: number, maxBytes: number): Promise<ReadResult | null> | null {
    if (performance.now() - this.#cameAt > LATELY_MS || this.#waiting.size >= WAITING_MAX) return null;
    if (this.#recent.endOf(subject) !== from) return null;
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#answer(waiting, null), WAIT_MS);
      const waiting: Waiting = { subject, from, until, maxBytes, timer, resolve };
      this.#waiting.add(waiting);
    });
  }

  /** A batch of another node is in memory now. */
  came(subject: SubjectRef, base: number): void {
    this.#cameAt = performance.now();
    this.added(subject, base);
  }

  /** A batch is in memory now, whoever wrote it. */
  added(subject: SubjectRef, base: number): void {
    for (const waiting of this.#waiting) {
      const { subject: wanted, from, until, maxBytes } = waiting;
      if (from !== base || wanted.hash !== subject.hash) continue;
      const read = this.#recent.read(wanted, from, until, maxBytes);
      if (read !== null) this.#answer(waiting, copyOf(read));
    }
  }

  #answer(waiting: Waiting, read: ReadResult | null): void {
    this.#waiting.delete(waiting);
    clearTimeout(waiting.timer);
    waiting.resolve(read);
  }
}

/** Who waits goes on only when this round is over, and until then other batches may take the memory. */
function copyOf({ items, next }: ReadResult): ReadResult {
  return {
    items: items.map((item) => (item.kind === 'data' ? { ...item, bytes: Buffer.from(item.bytes) } : item)),
    next,
  };
}
