import type { ConnectionNote } from './connection-note.ts';

/** A request that has come in part. The first four fields are written by the budget alone. */
export interface Receiving {
  /** Bytes that are counted for it. */
  heldBytes: number;
  /** `receivedBytes` at the last sweep, and when that number last grew (ms of performance.now()). */
  seenBytes: number;
  movedAt: number;
  /** The last sweep before it began, in the same ms. */
  beganAt: number;
  /** Where it comes from; null: not known. */
  readonly connection: ConnectionNote | null;
  /** Bytes that have come of it. */
  readonly receivedBytes: number;
  /** When its call is over, in epoch ms; Infinity: never, or others see to it. */
  readonly deadlineMs: number;
  /** We do not read it: that nothing comes is no fault of the client. */
  readonly isPaused: boolean;
  /** It was reset, or its connection is lost: nothing of it is kept. */
  readonly isGone: boolean;
  /** Nothing came for limits.receive_timeout, it takes too long, or its deadline has passed. It has to end. */
  stalled(isLate: boolean): void;
}

/** What a call costs whose head has come, in bytes: the stream and what is known of it. */
export const CALL_BYTES = 4_096;
/** With no room left, what comes at less than this rate gives way, once it has been there for two sweeps. */
const SLOW_BYTES_PER_S = 16 << 10;
const SLOW_MS_MIN = 1_000;
/** And what belongs to a connection that holds this part of all, and so many times what the one holds that needs room. */
const HOG_SHARE = 1 / 8;
const HOG_TIMES = 4;
/** So many of the oldest are looked at for one that gives way. */
const LOOKS_MAX = 8;

/**
 * What is kept of requests that have not come to their end, all together: until then no other budget knows of them, and a client that never sends the
 * last byte would keep them in memory. Above the limit whatever would be kept more is refused, unless somebody slow or greedy gives way: clients that send a
 * byte now and then could else keep everybody out. What stands still, or takes too long, is ended.
 */
export class ReceiveBudget {
  readonly #bytesMax: number;
  readonly #stallMs: number;
  readonly #wholeMs: number;
  /** The oldest first. */
  readonly #receiving = new Set<Receiving>();
  #bytes = 0;
  #sweptAt = 0;
  #evicted = 0;
  #refused = 0;

  /** `bytesMax`: limits.in_flight_bytes; `stallMs`: limits.receive_timeout; `wholeMs`: limits.request_timeout. */
  constructor(bytesMax: number, stallMs: number, wholeMs: number) {
    this.#bytesMax = bytesMax;
    this.#stallMs = stallMs;
    this.#wholeMs = wholeMs;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Requests that gave way to others. */
  get evicted(): number {
    return this.#evicted;
  }

  /** Requests for which there was no room while they came. */
  get refused(): number {
    return this.#refused;
  }

  /** So much more is to be kept of it; false if it must not be. One request alone always may: it has its own limit. */
  tryHold(receiving: Receiving, bytes: number): boolean {
    while (this.#bytes > receiving.heldBytes && this.#bytes + bytes > this.#bytesMax) {
      if (this.#makeRoom(receiving)) continue;
      this.#refused += 1;
      return false;
    }
    if (receiving.heldBytes === 0) {
      this.#receiving.add(receiving);
      receiving.beganAt = this.#sweptAt;
    }
    receiving.heldBytes += bytes;
    this.#bytes += bytes;
    if (receiving.connection !== null) receiving.connection.heldBytes += bytes;
    return true;
  }

  #makeRoom(receiving: Receiving): boolean {
    const mine = receiving.connection?.heldBytes ?? 0;
    let looks = 0;
    for (const old of this.#receiving) {
      if (++looks > LOOKS_MAX) return false;
      if (old === receiving) continue;
      const ageMs = this.#sweptAt - old.beganAt;
      const isSlow = ageMs >= SLOW_MS_MIN && old.receivedBytes * 1_000 < SLOW_BYTES_PER_S * ageMs;
      const theirs = old.connection?.heldBytes ?? 0;
      const isGreedy = theirs > this.#bytesMax * HOG_SHARE && theirs > mine * HOG_TIMES;
      if (!isSlow && !isGreedy) continue;
      this.#evicted += 1;
      old.stalled(false);
      // Each lets go of what it held, at once.
      this.release(old);
      return true;
    }
    return false;
  }

  /** It is complete, or given up. */
  release(receiving: Receiving): void {
    if (receiving.heldBytes === 0) return;
    this.#bytes -= receiving.heldBytes;
    if (receiving.connection !== null) receiving.connection.heldBytes -= receiving.heldBytes;
    receiving.heldBytes = 0;
    this.#receiving.delete(receiving);
  }

  /** About once a second: that spares every request a listener for its end. `now`: ms of performance.now(); `epochNow`: ms since 1970. */
  sweep(now: number, epochNow: number): void {
    this.#sweptAt = now;
    for (const receiving of this.#receiving) {
      if (receiving.isGone) {
        this.release(receiving);
        continue;
      }
      const { receivedBytes } = receiving;
      if (receivedBytes !== receiving.seenBytes || receiving.isPaused) {
        receiving.seenBytes = receivedBytes;
        receiving.movedAt = now;
      }
      const isLate = epochNow >= receiving.deadlineMs;
      const isStill = now - receiving.movedAt >= this.#stallMs;
      const isLong = receiving.beganAt > 0 && now - receiving.beganAt >= this.#wholeMs && !receiving.isPaused;
      if (isLate || isStill || isLong) receiving.stalled(isLate);
    }
  }
}
