import { assert } from '../../base/assert.ts';
import { failpoint } from '../../base/failpoint.ts';
import { transferablesOf } from '../../storage/embedded/slot-transfer.ts';
import type { ExportedSlots, FromShardThread, ToShardThread } from '../messages.ts';
import type { MoveCounters } from './move-counters.ts';
import type { SlotMove } from './move-plan.ts';
import type { SlotTable } from './slot-table.ts';

/** What a move needs of the front: where clients' work waits, and the rings. */
export interface MoveFront {
  /** The slots' subscriptions send nothing to their shard any more. */
  holdSlots(slots: ReadonlySet<number>): void;
  /** Asks a shard to let go of slots; false if it is not there. */
  drainSlots(shard: number, token: number, slots: readonly number[]): boolean;
  /** Resolves when everything up to these positions of the shard's rings is read, or the shard is dead. */
  whenRead(shard: number, exported: ExportedSlots): Promise<void>;
  /** Sends what was held, in order; true when nothing is left. */
  flushHeld(): boolean;
  /** The slots' subscriptions go on at their owner, from where each stands. */
  resumeSlots(slots: ReadonlySet<number>): void;
}

/** What a move needs of the shards. */
export interface MovePool {
  /** 0 while no thread serves the shard. */
  generation(shard: number): number;
  post(shard: number, message: ToShardThread): void;
  expect(shard: number): { readonly token: number; readonly answer: Promise<FromShardThread | null> };
  ask(
    shard: number,
    make: (token: number) => ToShardThread,
    transfer?: readonly ArrayBuffer[],
  ): Promise<FromShardThread | null>;
}

/** The second one: the table names the target, whose thread died with the index; its replacement has made it again. */
export type MoveOutcome =
  | 'moved'
  | 'moved to a replacement'
  | 'a shard died'
  | 'the shard did not finish what it had in hand in time';

export interface Moved {
  readonly outcome: MoveOutcome;
  /** How long the slots were held. */
  readonly pauseMs: number;
}

/** A shard that takes longer is left alone: its store is stuck, or full. Calls that are held wait no longer than this. */
const DRAIN_MS_MAX = 1_000;
/** How soon held work that found no room on a ring is tried again. */
const FLUSH_RETRY_MS = 1;

/**
 * Moves a piece of the slots of one shard to another (docs/adr/0007-slots-move-by-drain.md):
 *
 *   1. hold     work for these slots waits here, in order, counted like any other work in flight
 *   2. drain    the source finishes what it has of them, tells the log, and hands their index over
 *   3. flip     everything that the source said of them is read; the table names the target
 *   4. import   the target owns them
 *   5. release  what waited is sent, subscriptions go on from where they stand
 *
 * A thread that dies on the way is replaced like any other, and the replacement owns what the table says at that moment. Before the flip that is
 * the source, afterwards the target; the table changes only while both live, so no slot ever has two owners or none.
 */
export class SlotMover {
  readonly #table: SlotTable;
  readonly #front: MoveFront;
  readonly #pool: MovePool;
  readonly #counters: MoveCounters;
  #stopping = false;

  constructor(table: SlotTable, front: MoveFront, pool: MovePool, counters: MoveCounters) {
    this.#table = table;
    this.#front = front;
    this.#pool = pool;
    this.#counters = counters;
  }

  /** Waits for nothing any more: the process ends, and held calls are refused by whoever ends it. */
  stop(): void {
    this.#stopping = true;
  }

  /** One piece; the next may begin when this has resolved. */
  async move(piece: SlotMove): Promise<Moved> {
    const { from, to, slots } = piece;
    assert(from !== to && slots.length > 0, 'a move of nothing');
    for (const slot of slots) assert(this.#table.ownerOf(slot) === from, () => `slot ${slot} is not of shard ${from}`);
    const begunAt = performance.now();
    this.#table.hold(slots);
    const held = new Set(slots);
    this.#front.holdSlots(held);
    failpoint('move.held');
    const outcome = await this.#exchange(piece);
    await this.#release(slots, held);
    const pauseMs = performance.now() - begunAt;
    this.#counters.pause.observe(pauseMs * 1000);
    if (outcome === 'moved' || outcome === 'moved to a replacement') this.#counters.moved(from, to, slots.length);
    else this.#counters.failed += 1;
    failpoint('move.released');
    return { outcome, pauseMs };
  }

  async #exchange({ from, to, slots }: SlotMove): Promise<MoveOutcome> {
    const source = this.#pool.generation(from);
    const drained = await this.#drain(from, slots);
    if (typeof drained === 'string') return drained;
    await this.#front.whenRead(from, drained);
    // Its replacement has the slots again: by the table they are still its own.
    if (this.#pool.generation(from) !== source) return 'a shard died';
    // Without a target they go back. No turn of the event loop may come between looking, flipping and sending.
    const owner = this.#pool.generation(to) === 0 ? from : to;
    if (owner === to) this.#table.assign(slots, to);
    failpoint('move.flipped');
    const { columns, failures } = drained;
    // Null if it dies before it has them: then its replacement makes the index from the segments.
    const imported = await this.#pool.ask(
      owner,
      (token) => ({ kind: 'import', token, slots, columns, failures }),
      transferablesOf(columns),
    );
    if (owner === from) return 'a shard died';
    return imported === null ? 'moved to a replacement' : 'moved';
  }

  async #drain(from: number, slots: readonly number[]): Promise<ExportedSlots | MoveOutcome> {
    const { token, answer } = this.#pool.expect(from);
    if (!this.#front.drainSlots(from, token, slots)) return 'a shard died';
    const timer = setTimeout(() => this.#pool.post(from, { kind: 'cancel-drain', token }), DRAIN_MS_MAX);
    const message = await answer;
    clearTimeout(timer);
    if (message === null) return 'a shard died';
    if (message.kind === 'drain-cancelled') return 'the shard did not finish what it had in hand in time';
    assert(message.kind === 'exported', () => `a drain was answered by ${message.kind}`);
    return message.exported;
  }

  /** What came meanwhile goes before what comes from now on. */
  async #release(slots: readonly number[], held: ReadonlySet<number>): Promise<void> {
    while (!this.#front.flushHeld() && !this.#stopping) {
      await new Promise((resolve) => setTimeout(resolve, FLUSH_RETRY_MS));
    }
    this.#table.release(slots);
    this.#front.resumeSlots(held);
  }
}
