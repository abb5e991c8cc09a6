/** A request that has come in part. The first three fields are written by the budget alone. */
export interface Receiving {
  /** Bytes that are counted for it. */
  heldBytes: number;
  /** `receivedBytes` at the last sweep, and when that number last grew (ms of performance.now()). */
  seenBytes: number;
  movedAt: number;
  /** Bytes that have come of it. */
  readonly receivedBytes: number;
  /** When its call is over, in epoch ms; Infinity: never, or others see to it. */
  readonly deadlineMs: number;
  /** We do not read it: that nothing comes is no fault of the client. */
  readonly isPaused: boolean;
  /** It was reset, or its connection is lost: nothing of it is kept. */
  readonly isGone: boolean;
  /** Nothing came for limits.receive_timeout, or its deadline has passed. It has to end. */
  stalled(isLate: boolean): void;
}

/**
 * What is kept of requests that have not come to their end, all together: until then no other budget knows of them, and a client that never sends the
 * last byte would keep them in memory. Above the limit whatever would be kept more is refused; what stands still is ended.
 */
export class ReceiveBudget {
  readonly #bytesMax: number;
  readonly #stallMs: number;
  readonly #receiving = new Set<Receiving>();
  #bytes = 0;

  /** `bytesMax`: limits.in_flight_bytes; `stallMs`: limits.receive_timeout. */
  constructor(bytesMax: number, stallMs: number) {
    this.#bytesMax = bytesMax;
    this.#stallMs = stallMs;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** So much more is to be kept of it; false if it must not be. One request alone always may: it has its own limit. */
  tryHold(receiving: Receiving, bytes: number): boolean {
    const others = this.#bytes - receiving.heldBytes;
    if (others > 0 && this.#bytes + bytes > this.#bytesMax) return false;
    if (receiving.heldBytes === 0) this.#receiving.add(receiving);
    receiving.heldBytes += bytes;
    this.#bytes += bytes;
    return true;
  }

  /** It is complete, or given up. */
  release(receiving: Receiving): void {
    if (receiving.heldBytes === 0) return;
    this.#bytes -= receiving.heldBytes;
    receiving.heldBytes = 0;
    this.#receiving.delete(receiving);
  }

  /** About once a second: that spares every request a listener for its end. `now`: ms of performance.now(); `epochNow`: ms since 1970. */
  sweep(now: number, epochNow: number): void {
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
      if (isLate || now - receiving.movedAt >= this.#stallMs) receiving.stalled(isLate);
    }
  }
}
