import type { SpanLink } from '../../telemetry/span-export.ts';

/** A traced batch whose delivery has yet to come. */
export interface ExpectedDelivery {
  readonly context: Uint8Array;
  readonly links: readonly SpanLink[];
  /** Its subject, as attributes of a span. */
  readonly destination: Readonly<Record<string, string>>;
  /** First id, and the one behind the last. */
  readonly base: number;
  readonly end: number;
  /** Since when, in ms of performance.now(). */
  readonly since: number;
  /** The node that wrote it, if it is another one. */
  readonly from: string;
}

/** All of it was given to the streams of one group. */
export type OnDelivered = (expected: ExpectedDelivery, streams: number) => void;

/** More of them at a time are not waited for. */
const EXPECTED_MAX = 1_024;
/** A run that has not come by then was not sent as one: its group reads the store, or is gone. */
const EXPECTED_MS = 30_000;

/**
 * The deliveries of traced batches to the subscribers of this node, by their group. Runs are looked at only while something is expected.
 */
export class DeliveryTraces {
  readonly #byGroup = new Map<number, ExpectedDelivery[]>();
  readonly #onDelivered: OnDelivered;
  #size = 0;

  constructor(onDelivered: OnDelivered) {
    this.#onDelivered = onDelivered;
  }

  get size(): number {
    return this.#size;
  }

  expect(group: number, delivery: ExpectedDelivery): void {
    if (this.#size >= EXPECTED_MAX) return;
    const list = this.#byGroup.get(group);
    if (list === undefined) this.#byGroup.set(group, [delivery]);
    else list.push(delivery);
    this.#size += 1;
  }

  /** A run up to `to` (exclusive) was written to the streams of a group, which has `streams` of them. Only if `size` is not 0. */
  delivered(group: number, to: number, streams: number): void {
    const list = this.#byGroup.get(group);
    if (list === undefined) return;
    const left = list.filter((expected) => {
      if (expected.end > to) return true;
      this.#onDelivered(expected, streams);
      return false;
    });
    this.#keep(group, list.length, left);
  }

  /** About once a second. `now` in ms of performance.now(). */
  sweep(now: number): void {
    for (const [group, list] of this.#byGroup) {
      const left = list.filter(({ since }) => now - since < EXPECTED_MS);
      this.#keep(group, list.length, left);
    }
  }

  #keep(group: number, before: number, left: ExpectedDelivery[]): void {
    this.#size -= before - left.length;
    if (left.length === 0) this.#byGroup.delete(group);
    else this.#byGroup.set(group, left);
  }
}
