import { WindowedExtreme } from './windowed-extreme.ts';

/** How long the smallest time counts, in ms: long enough for a moment without a queue, short enough to follow a disk that has become slower. */
const PERIOD_MS = 30_000;

/**
 * The time that a batch takes from arrival to result when nothing is in front of it: the smallest that any stream has seen in the last period or the
 * one before it (LEDBAT's base delay, RFC 6817, section 3.4.2). One for all streams, so that a stream that begins in a queue does not take the
 * queue for the base.
 */
export class BaseDelay {
  readonly #smallest = WindowedExtreme.smallest(PERIOD_MS);

  /** A batch took so long; both in ms, `now` monotonic. */
  note(tookMs: number, now: number): void {
    this.#smallest.note(tookMs, now);
  }

  /** In ms; 0 before anything was noted. */
  get ms(): number {
    return this.#smallest.value;
  }
}
