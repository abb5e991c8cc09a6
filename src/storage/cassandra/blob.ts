import type { SubjectRef } from '../store.ts';

/** The subject as the driver takes a blob: it refuses a plain Uint8Array. */
export function blobOf({ bytes }: SubjectRef): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
