import { retransmitLimit } from './scale.ts';

/** Follows one message: `isFinished` once it was sent often enough, or a newer one about the same node took its place. */
export interface Broadcast {
  readonly isFinished: boolean;
}

interface Item {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Newer is higher. */
  readonly id: number;
  transmits: number;
  isFinished: boolean;
}

/**
 * Messages that ride on packets, each so and so often (queue.go TransmitLimitedQueue). One for a name at most, so it never holds more than
 * there are members.
 */
export class BroadcastQueue {
  readonly #multiplier: number;
  readonly #byName = new Map<string, Item>();
  /** In the order in which they go out: least sent first, then longest, then newest (queue.go Less). */
  #items: Item[] = [];
  #lastId = 0;

  constructor(multiplier: number) {
    this.#multiplier = multiplier;
  }

  get length(): number {
    return this.#items.length;
  }

  /** queue.go QueueBroadcast: takes the place of what is there for `name`. */
  put(name: string, bytes: Uint8Array): Broadcast {
    const old = this.#byName.get(name);
    if (old !== undefined) {
      old.isFinished = true;
      this.#items.splice(this.#placeOf(old), 1);
    }
    this.#lastId += 1;
    const item = { name, bytes, id: this.#lastId, transmits: 0, isFinished: false };
    this.#byName.set(name, item);
    this.#insert(item);
    return item;
  }

  /**
   * queue.go GetBroadcasts: what fits `limit` bytes, each message with `overhead` more. In a tier of equally often sent ones the longest that
   * fits comes first; as room only gets less, one walk finds them.
   */
  take(overhead: number, limit: number, members: number): Uint8Array[] {
    const often = retransmitLimit(this.#multiplier, members);
    const taken: Item[] = [];
    let room = limit;
    const left: Item[] = [];
    for (const item of this.#items) {
      if (item.bytes.length + overhead <= room) {
        room -= item.bytes.length + overhead;
        taken.push(item);
      } else {
        left.push(item);
      }
    }
    if (taken.length === 0) return [];
    this.#items = left;
    for (const item of taken) {
      item.transmits += 1;
      if (item.transmits >= often) {
        item.isFinished = true;
        this.#byName.delete(item.name);
      } else {
        this.#insert(item);
      }
    }
    return taken.map((item) => item.bytes);
  }

  #insert(item: Item): void {
    this.#items.splice(this.#placeOf(item), 0, item);
  }

  /** Where the item is, or would be. */
  #placeOf(item: Item): number {
    let [low, high] = [0, this.#items.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(this.#items[middle] as Item, item)) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function isBefore(a: Item, b: Item): boolean {
  if (a.transmits !== b.transmits) return a.transmits < b.transmits;
  if (a.bytes.length !== b.bytes.length) return a.bytes.length > b.bytes.length;
  return a.id > b.id;
}
