import { BATCH_RUN_HEADER } from '../link.ts';
import type { FramePool, PooledFrame } from './frame-pool.ts';

/** A run of batches taken off a ring, copied once and shared by every consume stream that it is written to. */
export interface BatchRun {
  readonly from: number;
  readonly to: number;
  /** Group or subscription, by the record's type. */
  readonly target: number;
  readonly messages: number;
  /** First id in it; `to` if there is none. */
  readonly firstId: number;
  /** Of the records sections in it. */
  readonly sectionBytes: number;
  /** One gRPC frame, or empty. Its length is what the run took of its reader's credit in the shard. */
  readonly frame: Buffer;
  /** Keeps the frame's memory from being used again. */
  readonly pooled: PooledFrame;
}

/**
 * Reads the record at `offset` of a ring. The copy is needed: the ring's space is given back when the round is done. The caller releases
 * `pooled` when it has offered the run to all streams.
 */
export function takeBatchRun(
  pool: FramePool,
  bytes: Uint8Array,
  view: DataView,
  offset: number,
  length: number,
): BatchRun {
  const frameBytes = length - BATCH_RUN_HEADER;
  const pooled = pool.take(frameBytes);
  const frame = pooled.bytes;
  if (frameBytes > 0) frame.set(bytes.subarray(offset + BATCH_RUN_HEADER, offset + length));
  return {
    from: view.getFloat64(offset, true),
    to: view.getFloat64(offset + 8, true),
    target: view.getUint32(offset + 16, true),
    messages: view.getUint32(offset + 20, true),
    firstId: view.getFloat64(offset + 24, true),
    sectionBytes: view.getUint32(offset + 32, true),
    frame,
    pooled,
  };
}
