import type { ExportedSlots } from '../messages.ts';
import type { MoveFront } from '../slots/slot-mover.ts';
import type { SlotTable } from '../slots/slot-table.ts';
import type { HoldQueue } from './hold-queue.ts';
import { putDrain } from './request-records.ts';
import type { ShardLink } from './shard-link.ts';

/** What concerns subjects of slots and sends nothing while these are held. */
interface SlotFollower {
  holdSlots(slots: ReadonlySet<number>): void;
  resumeSlots(slots: ReadonlySet<number>, ownerOf: (slot: number) => number): void;
}

/** The front's part in a move of slots: what waits, and the rings of the shards. */
export class SlotFront implements MoveFront {
  readonly #table: SlotTable;
  readonly #held: HoldQueue;
  readonly #linkTo: (shard: number) => ShardLink | null;
  readonly #followers: readonly SlotFollower[];
  readonly #onResumed: () => void;

  /** `onResumed`: publish streams that met a held slot may go on. */
  constructor(parts: {
    readonly table: SlotTable;
    readonly held: HoldQueue;
    readonly linkTo: (shard: number) => ShardLink | null;
    readonly followers: readonly SlotFollower[];
    readonly onResumed: () => void;
  }) {
    this.#table = parts.table;
    this.#held = parts.held;
    this.#linkTo = parts.linkTo;
    this.#followers = parts.followers;
    this.#onResumed = parts.onResumed;
  }

  holdSlots(slots: ReadonlySet<number>): void {
    for (const follower of this.#followers) follower.holdSlots(slots);
  }

  drainSlots(shard: number, token: number, slots: readonly number[]): boolean {
    const link = this.#linkTo(shard);
    if (link === null) return false;
    putDrain(link, token, slots);
    link.ringNow();
    return true;
  }

  whenRead(shard: number, { controlPosition, payloadPosition }: ExportedSlots): Promise<void> {
    return this.#linkTo(shard)?.whenRead(controlPosition, payloadPosition) ?? Promise.resolve();
  }

  flushHeld(): boolean {
    return this.#held.flush();
  }

  resumeSlots(slots: ReadonlySet<number>): void {
    const ownerOf = (slot: number): number => this.#table.ownerOf(slot);
    for (const follower of this.#followers) follower.resumeSlots(slots, ownerOf);
    this.#onResumed();
  }
}
