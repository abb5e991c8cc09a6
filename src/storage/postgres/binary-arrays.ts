/**
 * Arrays in PostgreSQL's binary form (array_send: dimensions, flag, element type, length, lower bound, then each element behind its length),
 * so that a group of any size is five parameters of one prepared statement. The driver sends a Buffer as it is; an array it would turn into
 * text, and bytes in it into twice as much hex.
 */
const HEADER_BYTES = 20;
/** Room for groups that are a little larger than the one before. */
const GROWTH = 1.25;
const OID_BYTEA = 17;
const OID_INT8 = 20;

function header(target: Buffer, type: number, length: number): number {
  target.writeInt32BE(1, 0);
  target.writeInt32BE(0, 4);
  target.writeInt32BE(type, 8);
  target.writeInt32BE(length, 12);
  target.writeInt32BE(1, 16);
  return HEADER_BYTES;
}

/** Whole numbers of 0 to 2^53-1. */
export function int8Array<T>(items: readonly T[], numberOf: (item: T) => number): Buffer {
  const target = Buffer.allocUnsafe(HEADER_BYTES + items.length * 12);
  let at = header(target, OID_INT8, items.length);
  for (const item of items) {
    const value = numberOf(item);
    at = target.writeInt32BE(8, at);
    at = target.writeUInt32BE(Math.floor(value / 2 ** 32), at);
    at = target.writeUInt32BE(value % 2 ** 32, at);
  }
  return target;
}

/** `memory`: where to put it; without, it is new. */
export function byteaArray<T>(items: readonly T[], bytesOf: (item: T) => Uint8Array, memory?: ArrayMemory): Buffer {
  let length = HEADER_BYTES;
  for (const item of items) length += 4 + bytesOf(item).length;
  const target = memory?.take(length) ?? Buffer.allocUnsafe(length);
  let at = header(target, OID_BYTEA, items.length);
  for (const item of items) {
    const bytes = bytesOf(item);
    at = target.writeInt32BE(bytes.length, at);
    target.set(bytes, at);
    at += bytes.length;
  }
  return target;
}

/** Of whoever writes arrays again and again: a fresh one for each group is most of the garbage of a shard. */
export class ArrayMemory {
  #bytes = Buffer.alloc(0);

  /** The memory that was taken before must not be in use any more. */
  take(length: number): Buffer {
    if (this.#bytes.length < length) this.#bytes = Buffer.allocUnsafeSlow(Math.ceil(length * GROWTH));
    return this.#bytes.subarray(0, length);
  }
}
