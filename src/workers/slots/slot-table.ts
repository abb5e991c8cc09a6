import { assert } from '../../base/assert.ts';
import { SLOT_COUNT } from '../../base/subject.ts';

/** Where work of a slot goes while the slot changes its shard: nowhere yet. */
export const HELD = -1;

/** Slots dealt to shards evenly, as a node starts. Nothing stored depends on it. */
function shardOfSlot(slot: number, shards: number): number {
  return Math.floor((slot * shards) / SLOT_COUNT);
}

/**
 * Which shard owns each slot, in shared memory: one byte a slot, written by the main thread alone. Another thread that learns of a new owner by a
 * ring record or a message sees the entry that was stored before it.
 */
export class SlotOwners {
  readonly buffer: SharedArrayBuffer;
  protected readonly owners: Uint8Array;

  constructor(buffer: SharedArrayBuffer = new SharedArrayBuffer(SLOT_COUNT)) {
    assert(buffer.byteLength === SLOT_COUNT, 'one byte a slot');
    this.buffer = buffer;
    this.owners = new Uint8Array(buffer);
  }

  ownerOf(slot: number): number {
    // Pairs with the store in SlotTable.assign.
    return Atomics.load(this.owners, slot);
  }
}

/** The main thread's table: owners, and which slots are held because they are on their way to another shard. */
export class SlotTable extends SlotOwners {
  /** By slot: its owner, or HELD. One load on the way of every request. */
  readonly #routes = new Int16Array(SLOT_COUNT);
  #epoch = 0;
  #held = 0;

  /** Deals the slots evenly to the shards 0 to `shards` - 1. */
  constructor(shards: number) {
    super();
    assert(shards >= 1 && shards <= 255, () => `${shards} shards`);
    for (let slot = 0; slot < SLOT_COUNT; slot++) {
      this.owners[slot] = shardOfSlot(slot, shards);
      this.#routes[slot] = shardOfSlot(slot, shards);
    }
  }

  /** Counts the changes of owners since the start. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Slots that are held. */
  get held(): number {
    return this.#held;
  }

  /** The shard that work of the slot goes to, or HELD. */
  route(slot: number): number {
    return this.#routes[slot] as number;
  }

  isHeld(slot: number): boolean {
    return this.#routes[slot] === HELD;
  }

  hold(slots: readonly number[]): void {
    for (const slot of slots) {
      assert(this.#routes[slot] !== HELD, () => `slot ${slot} is held already`);
      this.#routes[slot] = HELD;
    }
    this.#held += slots.length;
  }

  /** Work goes to the owners again. */
  release(slots: readonly number[]): void {
    for (const slot of slots) {
      assert(this.#routes[slot] === HELD, () => `slot ${slot} is not held`);
      this.#routes[slot] = this.owners[slot] as number;
    }
    this.#held -= slots.length;
  }

  /** Gives held slots to a shard. */
  assign(slots: readonly number[], shard: number): void {
    for (const slot of slots) {
      assert(this.#routes[slot] === HELD, () => `slot ${slot} changes its owner while work goes to it`);
      // Publishes the owner to the Raft thread, which reads it when it applies a verdict. Pairs with the load in ownerOf.
      Atomics.store(this.owners, slot, shard);
    }
    this.#epoch += 1;
  }

  /** Number of slots of a shard. */
  count(shard: number): number {
    let count = 0;
    for (const owner of this.owners) if (owner === shard) count += 1;
    return count;
  }

  /** 1 for each slot of the shard: what a thread that starts is told to own. */
  slotsOf(shard: number): Uint8Array {
    return this.owners.slice().map((owner) => (owner === shard ? 1 : 0));
  }

  /** The owners now. */
  snapshot(): Uint8Array {
    return this.owners.slice();
  }
}
