import { RUN_HEADER, runLayout } from '../link.ts';

/** A run of messages taken off a ring, copied once and shared by every stream that it is written to. */
export interface Run {
  readonly from: number;
  readonly to: number;
  /** Group or subscription, by the record's type. */
  readonly target: number;
  readonly count: number;
  readonly ids: Float64Array;
  /** Where the frame of each message ends in `frames`. */
  readonly ends: Uint32Array;
  /** gRPC frames, one behind the other. */
  readonly frames: Buffer;
  /** Bytes that it took of its reader's credit in the shard: the whole record but for the header. */
  readonly cost: number;
}

/** Reads the record at `offset` of a ring. The copy is needed: the ring's space is given back when the round is done. */
export function takeRun(bytes: Uint8Array, view: DataView, offset: number, length: number): Run {
  const count = view.getUint32(offset + 20, true);
  const { ends: endsAt, frames: framesAt } = runLayout(count);
  const ids = new Float64Array(count);
  const ends = new Uint32Array(count);
  new Uint8Array(ids.buffer).set(bytes.subarray(offset + RUN_HEADER, offset + endsAt));
  new Uint8Array(ends.buffer).set(bytes.subarray(offset + endsAt, offset + endsAt + count * 4));
  const frames = Buffer.allocUnsafe(length - framesAt);
  frames.set(bytes.subarray(offset + framesAt, offset + length));
  return {
    from: view.getFloat64(offset, true),
    to: view.getFloat64(offset + 8, true),
    target: view.getUint32(offset + 16, true),
    count,
    ids,
    ends,
    frames,
    cost: length - RUN_HEADER,
  };
}

/** Index of the first message whose id is at least `next`; `count` if there is none. */
export function firstFrom(run: Run, next: number): number {
  let i = 0;
  while (i < run.count && (run.ids[i] as number) < next) i++;
  return i;
}
