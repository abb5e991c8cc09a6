import type { MessageStore, SealedBatch } from '../storage/store.ts';
import { persist } from './persist.ts';

/** Of one append; a page of one subject may be more. */
const GROUP_BYTES = 1 << 20;
const GROUP_BATCHES_MAX = 1_000;
/** Appends on their way at a time: one is written while others are on the wire. */
const GROUPS_MAX = 4;

interface Page {
  readonly batches: readonly SealedBatch[];
  readonly bytes: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** Puts the pages of many subjects into common appends, as a shard does with what it is sent. */
export class PageWriter {
  readonly #store: MessageStore;
  readonly #patienceMs: number;
  readonly #waiting: Page[] = [];
  #running = 0;

  constructor(store: MessageStore, patienceMs: number) {
    this.#store = store;
    this.#patienceMs = patienceMs;
  }

  /** Resolves when all of the page is durable. */
  write(batches: readonly SealedBatch[]): Promise<void> {
    const bytes = batches.reduce((sum, batch) => sum + batch.bytes.length, 0);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ batches, bytes, resolve, reject });
      // In the next turn, so that the pages of this one travel together.
      if (this.#waiting.length === 1) setImmediate(() => this.#pump());
    });
  }

  #pump(): void {
    while (this.#running < GROUPS_MAX && this.#waiting.length > 0) {
      const pages: Page[] = [];
      let [bytes, batches] = [0, 0];
      for (let page = this.#waiting[0]; page !== undefined; page = this.#waiting[0]) {
        const isFull = bytes + page.bytes > GROUP_BYTES || batches + page.batches.length > GROUP_BATCHES_MAX;
        if (pages.length > 0 && isFull) break;
        this.#waiting.shift();
        pages.push(page);
        bytes += page.bytes;
        batches += page.batches.length;
      }
      void this.#append(pages);
    }
  }

  async #append(pages: readonly Page[]): Promise<void> {
    this.#running += 1;
    const group = pages.flatMap(({ batches }) => batches);
    try {
      await persist(this.#patienceMs, () => this.#store.append(group));
      for (const { resolve } of pages) resolve();
    } catch (error) {
      for (const { reject } of pages) reject(error);
    } finally {
      this.#running -= 1;
      this.#pump();
    }
  }
}
