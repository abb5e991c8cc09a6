import { assert } from '../../base/assert.ts';

/** Slots that go from one shard to another. */
export interface SlotMove {
  readonly from: number;
  readonly to: number;
  readonly slots: readonly number[];
}

/**
 * The fewest moves after which the shards 0 to `shards` - 1 own all slots, each as many as any other or one more. `owners`: the shard of each
 * slot, by slot. Which shards get one more is decided in favour of those that have most, so that nothing moves without need.
 */
export function planResize(owners: Uint8Array, shards: number): SlotMove[] {
  assert(shards >= 1 && shards <= owners.length, () => `${owners.length} slots for ${shards} shards`);
  const owned = new Map<number, number[]>();
  for (let shard = 0; shard < shards; shard++) owned.set(shard, []);
  owners.forEach((shard, slot) => {
    const slots = owned.get(shard);
    if (slots === undefined) owned.set(shard, [slot]);
    else slots.push(slot);
  });
  const quotas = quotasOf(owned, owners.length, shards);
  const donors = [...owned].filter(([shard, slots]) => slots.length > (quotas.get(shard) ?? 0));
  const moves: SlotMove[] = [];
  for (const [to, slots] of owned) {
    let missing = (quotas.get(to) ?? 0) - slots.length;
    while (missing > 0) {
      const [from, surplus] = donors[0] as [number, number[]];
      const spare = surplus.length - (quotas.get(from) ?? 0);
      const taken = surplus.splice(surplus.length - Math.min(spare, missing));
      if (taken.length === spare) donors.shift();
      moves.push({ from, to, slots: taken });
      missing -= taken.length;
    }
  }
  return moves;
}

/** How many slots each of the shards that stay is to own. */
function quotasOf(owned: ReadonlyMap<number, readonly number[]>, slots: number, shards: number): Map<number, number> {
  const least = Math.floor(slots / shards);
  const larger = slots % shards;
  const staying = [...owned].filter(([shard]) => shard < shards).sort(([, a], [, b]) => b.length - a.length);
  return new Map(staying.map(([shard], rank) => [shard, least + (rank < larger ? 1 : 0)]));
}

/** A piece is at most this many slots: all that one hold stops. */
export const PIECE_SLOTS_MAX = 64;
const PIECE_SLOTS_START = 16;
/** A pause under this is short enough for larger pieces, one over PAUSE_LONG_MS asks for smaller ones. */
const PAUSE_SHORT_MS = 8;
const PAUSE_LONG_MS = 20;

/**
 * How many slots move at a time. The pause of a subject hardly depends on it, because what a shard drains is one or two groups, but the work that
 * has to be held does: so pieces grow while pauses are short and shrink when they are not.
 */
export class PieceSize {
  #slots = PIECE_SLOTS_START;

  get slots(): number {
    return this.#slots;
  }

  /** A piece was moved, and its slots were held for so long. */
  paused(ms: number): void {
    if (ms > PAUSE_LONG_MS) this.#slots = Math.max(1, this.#slots >>> 1);
    else if (ms < PAUSE_SHORT_MS) this.#slots = Math.min(PIECE_SLOTS_MAX, this.#slots * 2);
  }
}
