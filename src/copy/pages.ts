import type { MessageStore, ReadResult, StoredItem, SubjectRef } from '../storage/store.ts';
import { persist } from './persist.ts';

/** Of one read; a batch is read whole. */
const PAGE_BYTES = 256 * 1024;

/** What a store has of one subject, item by item, with one page read ahead. */
export class Pages {
  readonly #store: MessageStore;
  readonly #subject: SubjectRef;
  readonly #until: number;
  readonly #patienceMs: number;
  #items: readonly StoredItem[] = [];
  #at = 0;
  #next: number;
  #ahead: Promise<ReadResult> | null = null;

  constructor(store: MessageStore, subject: SubjectRef, from: number, until: number, patienceMs: number) {
    this.#store = store;
    this.#subject = subject;
    this.#next = from;
    this.#until = until;
    this.#patienceMs = patienceMs;
  }

  /** The item to be dealt with, or null at the end. */
  async current(): Promise<StoredItem | null> {
    while (this.#at >= this.#items.length) {
      if (this.#next > this.#until) return null;
      const { items, next } = await (this.#ahead ?? this.#read());
      this.#items = items;
      this.#at = 0;
      this.#next = next;
      this.#ahead = next > this.#until ? null : this.#read();
      // Its failure is met when the page is needed.
      this.#ahead?.catch(() => 'later');
    }
    return this.#items[this.#at] ?? null;
  }

  /** True if `current` answers from memory. */
  get isHere(): boolean {
    return this.#at < this.#items.length;
  }

  advance(): void {
    this.#at += 1;
  }

  async #read(): Promise<ReadResult> {
    const from = this.#next;
    return persist(this.#patienceMs, () => {
      const answer = this.#store.read(this.#subject, from, this.#until, PAGE_BYTES);
      return answer instanceof Promise ? answer : owned(answer);
    });
  }
}

/** An answer at once is the store's own memory, for this turn only. */
function owned({ items, next }: ReadResult): ReadResult {
  return {
    items: items.map((item) => (item.kind === 'data' ? { ...item, bytes: Buffer.from(item.bytes) } : item)),
    next,
  };
}
