import { RUN_HEADER, runEntryBytes } from '../link.ts';

/** A run of messages taken off a ring, copied once and shared by every stream that it is written to. */
export interface Run {
  readonly from: number;
  readonly to: number;
  /** Group or subscription, by the record's type. */
  readonly target: number;
  readonly ids: Float64Array;
  readonly messages: readonly Buffer[];
  /** Bytes of its entries: what it costs of a reader's credit. */
  readonly bytes: number;
}

/** Reads the record at `offset` of a ring. The copy is needed: the ring's space is given back when the record is done. */
export function takeRun(bytes: Uint8Array, view: DataView, offset: number, length: number): Run {
  const count = view.getUint32(offset + 20, true);
  const copy = Buffer.allocUnsafe(length - RUN_HEADER);
  copy.set(bytes.subarray(offset + RUN_HEADER, offset + length));
  const copyView = new DataView(copy.buffer, copy.byteOffset, copy.length);
  const ids = new Float64Array(count);
  const messages = new Array<Buffer>(count);
  let at = 0;
  for (let i = 0; i < count; i++) {
    const size = copyView.getUint32(at + 8, true);
    ids[i] = copyView.getFloat64(at, true);
    messages[i] = copy.subarray(at + 16, at + 16 + size);
    at += runEntryBytes(size);
  }
  return {
    from: view.getFloat64(offset, true),
    to: view.getFloat64(offset + 8, true),
    target: view.getUint32(offset + 16, true),
    ids,
    messages,
    bytes: copy.length,
  };
}
