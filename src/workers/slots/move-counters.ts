import { CounterBlock } from '../../shm/counters.ts';
import { DURATION_SHAPE, SharedHistogram } from '../../shm/histogram.ts';

/** What moves of slots have cost since the start; on the main thread. */
export class MoveCounters {
  /** Slots that a shard was given, and that it gave away, by shard. */
  readonly slotsIn: Float64Array;
  readonly slotsOut: Float64Array;
  /** How long the slots of a piece were held, in microseconds. */
  readonly pause: SharedHistogram;
  /** Pieces that were given up: a shard died, or did not come to an end in time. */
  failed = 0;

  constructor(shardsMax: number) {
    this.slotsIn = new Float64Array(shardsMax);
    this.slotsOut = new Float64Array(shardsMax);
    const block = new CounterBlock(SharedHistogram.slotNames('pause', DURATION_SHAPE));
    this.pause = new SharedHistogram(block, 'pause', DURATION_SHAPE);
  }

  moved(from: number, to: number, slots: number): void {
    this.slotsOut[from] = (this.slotsOut[from] as number) + slots;
    this.slotsIn[to] = (this.slotsIn[to] as number) + slots;
  }
}
