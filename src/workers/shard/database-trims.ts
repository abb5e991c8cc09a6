import type { MessageStore, SubjectRef } from '../../storage/store.ts';

interface Trim {
  readonly subject: SubjectRef;
  first: number;
}

/**
 * Trims that a database has yet to carry out. Their callers were answered when the log had the new first id, so nothing slows them down: one
 * trim runs at a time, and one of each subject waits, or they would take the connections that writes need.
 */
export class DatabaseTrims {
  readonly #store: Pick<MessageStore, 'trim'>;
  readonly #onFailed: (error: unknown) => void;
  /** By the bytes of the subject; in the order in which they came. */
  readonly #waiting = new Map<string, Trim>();
  #isRunning = false;

  constructor(store: Pick<MessageStore, 'trim'>, onFailed: (error: unknown) => void) {
    this.#store = store;
    this.#onFailed = onFailed;
  }

  add(subject: SubjectRef, first: number): void {
    const name = Buffer.from(subject.bytes).toString('latin1');
    const waiting = this.#waiting.get(name);
    if (waiting === undefined) this.#waiting.set(name, { subject, first });
    else waiting.first = Math.max(waiting.first, first);
    if (!this.#isRunning) void this.#run();
  }

  /** What waits is left for the next trim of its subject. */
  close(): void {
    this.#waiting.clear();
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    for (const [name, { subject, first }] of this.#waiting) {
      this.#waiting.delete(name);
      try {
        await this.#store.trim(subject, first);
      } catch (error) {
        this.#onFailed(error);
      }
    }
    this.#isRunning = false;
  }
}
