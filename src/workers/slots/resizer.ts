import { assert } from '../../base/assert.ts';
import { BrokerError } from '../../base/errors.ts';
import type { Exclusive } from '../../base/exclusive.ts';
import { SLOT_COUNT } from '../../base/subject.ts';
import type { LogLine } from '../messages.ts';
import { PieceSize, planResize, type SlotMove } from './move-plan.ts';
import type { Moved, MoveOutcome, SlotMover } from './slot-mover.ts';
import type { SlotTable } from './slot-table.ts';

/** What a resize needs of the shards. */
export interface ResizePool {
  /** The shards that there are, in order. */
  readonly members: readonly number[];
  /** Null when it serves, else why it does not. */
  grow(shard: number): Promise<string | null>;
  retire(shard: number): Promise<void>;
  whenReady(shard: number): Promise<void>;
}

/** A change of the table: under way, or the last one. */
export interface ResizeState {
  readonly isRunning: boolean;
  /** In words: "1 -> 4 shards", or "slot 7 -> shard 2". Empty: there was none. */
  readonly what: string;
  readonly slotsMoved: number;
  readonly slotsTotal: number;
  /** Longest time for which slots were held, in ms. */
  readonly pauseMsMax: number;
  /** So far, or in all, in ms. */
  readonly durationMs: number;
  /** Why it ended early; empty if it did not. */
  readonly error: string;
}

/** A piece that fails so often in a row ends the resize: something is wrong that trying again does not cure. */
const ATTEMPTS_MAX = 5;
/** Between two pieces everything runs as usual, for as long as the last pause and within these bounds, in ms. */
const GAP_MS_MIN = 1;
const GAP_MS_MAX = 20;

/** Changes the number of shards, or the shard of one slot, while the broker serves. One change at a time. */
export class Resizer {
  readonly #table: SlotTable;
  readonly #pool: ResizePool;
  readonly #mover: SlotMover;
  readonly #turns: Exclusive;
  readonly #shardsMax: number;
  readonly #log: (line: LogLine) => void;
  #isStopped = false;
  #run: Promise<void> = Promise.resolve();
  #isRunning = false;
  #what = '';
  #slotsMoved = 0;
  #slotsTotal = 0;
  #pauseMsMax = 0;
  #begunAt = 0;
  #durationMs = 0;
  #error = '';

  /** `turns`: held for each piece, so that nothing else that concerns all shards (retention) goes on meanwhile. */
  constructor(parts: {
    readonly table: SlotTable;
    readonly pool: ResizePool;
    readonly mover: SlotMover;
    readonly turns: Exclusive;
    readonly shardsMax: number;
    readonly log: (line: LogLine) => void;
  }) {
    this.#table = parts.table;
    this.#pool = parts.pool;
    this.#mover = parts.mover;
    this.#turns = parts.turns;
    this.#shardsMax = parts.shardsMax;
    this.#log = parts.log;
  }

  get state(): ResizeState {
    return {
      isRunning: this.#isRunning,
      what: this.#what,
      slotsMoved: this.#slotsMoved,
      slotsTotal: this.#slotsTotal,
      pauseMsMax: this.#pauseMsMax,
      durationMs: this.#isRunning ? performance.now() - this.#begunAt : this.#durationMs,
      error: this.#error,
    };
  }

  /** A change may begin. */
  get isFree(): boolean {
    return !this.#isRunning && !this.#isStopped;
  }

  /** Begins; how it goes is in `state`. BrokerError if it cannot begin. */
  resize(shards: number): void {
    if (!Number.isSafeInteger(shards) || shards < 1 || shards > this.#shardsMax) {
      throw new BrokerError('SHARDS_INVALID', `${shards} is not between 1 and shards.max, which is ${this.#shardsMax}`);
    }
    this.#begin(`${this.#pool.members.length} -> ${shards} shards`, () => this.#resize(shards));
  }

  /** The same for one slot. */
  move(slot: number, shard: number): void {
    if (!Number.isSafeInteger(slot) || slot < 0 || slot >= SLOT_COUNT) {
      throw new BrokerError('SHARDS_INVALID', `there are slots 0 to ${SLOT_COUNT - 1}`);
    }
    if (!this.#pool.members.includes(shard)) {
      throw new BrokerError('SHARDS_INVALID', `there are shards ${this.#pool.members.join(', ')}`);
    }
    this.#begin(`slot ${slot} -> shard ${shard}`, async () => {
      const from = this.#table.ownerOf(slot);
      if (from !== shard) await this.#moveAll([{ from, to: shard, slots: [slot] }]);
    });
  }

  /** No further piece begins; resolves when the one in hand has ended, and rejects if it has met a defect. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#run;
  }

  /** The piece in hand waits no longer for room for what was held, which somebody else refuses. */
  abandon(): void {
    this.#mover.stop();
  }

  #begin(what: string, work: () => Promise<void>): void {
    if (this.#isRunning) throw new BrokerError('RESIZE_RUNNING', this.#what);
    if (this.#isStopped) throw new BrokerError('SHUTTING_DOWN');
    this.#isRunning = true;
    this.#what = what;
    this.#slotsMoved = 0;
    this.#slotsTotal = 0;
    this.#pauseMsMax = 0;
    this.#begunAt = performance.now();
    this.#error = '';
    this.#say('info', 'resizing', {});
    this.#run = work()
      .catch((error: unknown) => {
        // A defect may have left slots held, with calls that wait for them for ever: unhandled, it ends the process.
        if (!(error instanceof ResizeFailure || error instanceof BrokerError)) throw error;
        this.#error = error.message;
      })
      .then(() => this.#end());
  }

  #end(): void {
    this.#isRunning = false;
    this.#durationMs = performance.now() - this.#begunAt;
    const fields = {
      slots: this.#slotsMoved,
      pause_ms_max: Math.round(this.#pauseMsMax * 10) / 10,
      ms: Math.round(this.#durationMs),
      epoch: this.#table.epoch,
    };
    if (this.#error === '') this.#say('info', 'resized', fields);
    else this.#say('warn', 'the resize ended early; what was moved stays', { ...fields, error: this.#error });
  }

  async #resize(shards: number): Promise<void> {
    const wanted = Array.from({ length: shards }, (_, shard) => shard);
    const members = new Set(this.#pool.members);
    const missing = wanted.filter((shard) => !members.has(shard));
    const failures = await this.#turns.run(() => Promise.all(missing.map((shard) => this.#pool.grow(shard))));
    const failure = failures.find((message) => message !== null);
    if (failure !== undefined) throw new ResizeFailure(`a new shard could not start: ${failure}`);
    await this.#moveAll(planResize(this.#table.snapshot(), shards));
    for (const shard of this.#pool.members.filter((member) => member >= shards)) {
      if (this.#isStopped) throw new ResizeFailure('the broker is stopping');
      await this.#turns.run(() => this.#pool.retire(shard));
    }
  }

  async #moveAll(moves: readonly SlotMove[]): Promise<void> {
    this.#slotsTotal = moves.reduce((total, { slots }) => total + slots.length, 0);
    const size = new PieceSize();
    for (const { from, to, slots } of moves) {
      for (let next = 0; next < slots.length; ) {
        const piece = { from, to, slots: slots.slice(next, next + size.slots) };
        const { outcome, pauseMs } = await this.#movePiece(piece);
        next += piece.slots.length;
        this.#slotsMoved += piece.slots.length;
        // How long a thread takes to be replaced says nothing of the size.
        if (outcome === 'moved') size.paused(pauseMs);
        await pause(Math.min(GAP_MS_MAX, Math.max(GAP_MS_MIN, pauseMs)));
      }
    }
    assert(this.#slotsMoved === this.#slotsTotal, 'slots were left behind');
  }

  /** How the piece was moved at last. One whose shard died is tried again when the shard is back. */
  async #movePiece(piece: SlotMove): Promise<Moved> {
    let last: MoveOutcome = 'moved';
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      await this.#pool.whenReady(piece.from);
      await this.#pool.whenReady(piece.to);
      if (this.#isStopped) throw new ResizeFailure('the broker is stopping');
      const moved = await this.#turns.run(() => this.#mover.move(piece));
      const { outcome, pauseMs } = moved;
      this.#pauseMsMax = Math.max(this.#pauseMsMax, pauseMs);
      if (outcome === 'moved' || outcome === 'moved to a replacement') return moved;
      last = outcome;
      this.#say('warn', 'a piece of a resize was given up', { from: piece.from, to: piece.to, error: outcome });
    }
    throw new ResizeFailure(`${last} (${ATTEMPTS_MAX} times)`);
  }

  #say(level: LogLine['level'], message: string, fields: LogLine['fields']): void {
    this.#log({ kind: 'log', level, message, fields: { what: this.#what, ...fields } });
  }
}

/** An expected end before the goal; its message is for the operator. */
class ResizeFailure extends Error {
  override name = 'ResizeFailure';
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
