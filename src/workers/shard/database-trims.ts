import type { MessageStore, SubjectRef } from '../../storage/store.ts';

interface Trim {
  readonly subject: SubjectRef;
  first: number;
}

/** Subjects whose trims wait while the database is away; those of more are left for their next trim. */
const WAITING_MAX = 100_000;
/** Before another trim is tried after one that failed, in ms: doubled as long as they fail. */
const RETRY_MIN_MS = 1_000;
const RETRY_MAX_MS = 60_000;

/**
 * Trims that a database has yet to carry out. Their callers were answered when the log had the new first id, so nothing slows them down: one
 * trim runs at a time, and one of each subject waits, or they would take the connections that writes need. One that fails is tried again behind the
 * others; how often is bounded by the delay, not by a count, since a database may be away for long.
 */
export class DatabaseTrims {
  readonly #store: Pick<MessageStore, 'trim'>;
  readonly #onFailed: (error: unknown) => void;
  /** By the bytes of the subject; in the order in which they came. */
  readonly #waiting = new Map<string, Trim>();
  #isRunning = false;
  #isClosed = false;
  /** Ms; 0 while trims succeed. */
  #delay = 0;
  #timer: NodeJS.Timeout | null = null;

  /** `onFailed` hears of the first failure after a trim that succeeded. */
  constructor(store: Pick<MessageStore, 'trim'>, onFailed: (error: unknown) => void) {
    this.#store = store;
    this.#onFailed = onFailed;
  }

  add(subject: SubjectRef, first: number): void {
    if (this.#isClosed) return;
    this.#wait(Buffer.from(subject.bytes).toString('latin1'), subject, first);
    if (!this.#isRunning && this.#timer === null) void this.#run();
  }

  /** What waits is left for the next trim of its subject. */
  close(): void {
    this.#isClosed = true;
    this.#waiting.clear();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #wait(name: string, subject: SubjectRef, first: number): void {
    const waiting = this.#waiting.get(name);
    if (waiting !== undefined) waiting.first = Math.max(waiting.first, first);
    else if (this.#waiting.size < WAITING_MAX) this.#waiting.set(name, { subject, first });
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    for (const [name, { subject, first }] of this.#waiting) {
      this.#waiting.delete(name);
      try {
        await this.#store.trim(subject, first);
        this.#delay = 0;
      } catch (error) {
        if (this.#isClosed) break;
        if (this.#delay === 0) this.#onFailed(error);
        this.#wait(name, subject, first);
        this.#runLater();
        break;
      }
    }
    this.#isRunning = false;
  }

  #runLater(): void {
    this.#delay = Math.min(RETRY_MAX_MS, Math.max(RETRY_MIN_MS, this.#delay * 2));
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#run();
    }, this.#delay);
  }
}
