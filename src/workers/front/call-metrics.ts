import { REASON_CODE, REASON_NAMES, type Reason } from '../../base/errors.ts';
import { statusCodeOf } from '../../grpc/status.ts';
import { CounterBlock } from '../../shm/counters.ts';
import { DURATION_SHAPE, SharedHistogram } from '../../shm/histogram.ts';
import { METHODS } from './call-table.ts';

/** gRPC has 17 status codes. */
const STATUSES = 17;
/** Methods that are streams: how long one was open says nothing. */
const STREAMS: ReadonlySet<string> = new Set([
  'Subscribe',
  'PublishStream',
  'Consume',
] satisfies (typeof METHODS)[number][]);

/** Where a refusal was decided. */
export const REFUSED_AT = ['admission', 'shard', 'batch'] as const;
export type RefusedAt = (typeof REFUSED_AT)[number];

/** Counts of answered calls by method and status, their durations, and refusals by reason: plain columns, read at scrape. */
export class CallMetrics {
  readonly counts = new Float64Array(METHODS.length * STATUSES);
  /** By method, in microseconds; null for streams. */
  readonly durations: readonly (SharedHistogram | null)[];
  /** By reason: calls and streams before any work was done for them, calls by their shard, batches of publish streams. */
  readonly refusals: Readonly<Record<RefusedAt, Float64Array>>;
  /** Of batches of publish streams, in microseconds. */
  readonly batches: SharedHistogram;

  constructor() {
    this.durations = METHODS.map((method) => (STREAMS.has(method) ? null : durations(method)));
    this.batches = durations('batches');
    const column = (): Float64Array => new Float64Array(REASON_NAMES.length);
    this.refusals = { admission: column(), shard: column(), batch: column() };
  }

  answered(method: number, status: number, durationMs: number): void {
    const cell = method * STATUSES + status;
    this.counts[cell] = (this.counts[cell] as number) + 1;
    this.durations[method]?.observe(durationMs * 1_000);
  }

  /** A stream was opened, or refused for a reason. */
  opened(method: number, refusal: Reason | null): void {
    if (refusal === null) this.answered(method, 0, 0);
    else this.refused(method, refusal);
  }

  /** Before any work was done for it. */
  refused(method: number, reason: Reason): void {
    this.answered(method, statusCodeOf(reason), 0);
    this.refusedFor('admission', reason);
  }

  refusedFor(at: RefusedAt, reason: Reason): void {
    const column = this.refusals[at];
    const cell = REASON_CODE[reason];
    column[cell] = (column[cell] as number) + 1;
  }

  count(method: number, status: number): number {
    return this.counts[method * STATUSES + status] as number;
  }
}

function durations(name: string): SharedHistogram {
  return new SharedHistogram(new CounterBlock(SharedHistogram.slotNames(name, DURATION_SHAPE)), name, DURATION_SHAPE);
}
