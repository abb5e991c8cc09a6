import { isUtf8 as bufferIsUtf8 } from 'node:buffer';

/** Whether bytes[start, end) are UTF-8. What is ASCII, as most names are, costs no call. */
export function isUtf8(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) {
    // A copy: Node does not take views of shared memory here.
    if ((bytes[i] as number) >= 0x80) return bufferIsUtf8(Uint8Array.from(bytes.subarray(i, end)));
  }
  return true;
}
