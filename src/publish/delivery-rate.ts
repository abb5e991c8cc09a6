import { WindowedExtreme } from './windowed-extreme.ts';

/** A rate is measured over at least this time, in ms: several groups of batches, which are answered all at once. */
const SPAN_MS = 100;
/** How long the greatest rate counts at least, in ms; twice as long at most. */
const PERIOD_MS = 10_000;

/**
 * What one stream has been carried at its best in the last 10 to 20 s (BBR's bottleneck bandwidth, a maximum over time: Cardwell and others, ACM Queue
 * 2016). A sender that sends less, or is held back for a while, does not make it smaller at once.
 */
export class DeliveryRate {
  readonly #greatest = WindowedExtreme.greatest(PERIOD_MS);
  #spanStart = Number.NEGATIVE_INFINITY;
  #spanBytes = 0;

  /** So many bytes have their result; `now` in ms, monotonic. */
  note(bytes: number, now: number): void {
    this.#spanBytes += bytes;
    const span = now - this.#spanStart;
    if (span < SPAN_MS) return;
    // A longer one is a pause of the sender.
    if (span < PERIOD_MS) this.#greatest.note(this.#spanBytes / span, now);
    this.#spanStart = now;
    this.#spanBytes = 0;
  }

  /** In bytes a ms; 0 before anything was measured. */
  get bytesAMs(): number {
    return this.#greatest.value;
  }
}
