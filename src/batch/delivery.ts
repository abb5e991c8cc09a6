import { ID_TAG, PUBLISHED_AT_TAG, SUBJECT_TAG } from './batch-format.ts';
import type { BatchView } from './batch-view.ts';
import { copyBytes } from './copy-bytes.ts';
import { varintBytes, writeVarint } from './varint.ts';

/**
 * A stored record becomes a MessageResponse without being decoded: body and headers have the same field numbers in both, so the record's
 * bytes are copied and the fields id, subject and published_at are appended. `expirationSeconds` (6) travels along, as a field of the
 * response that tells when the message ends.
 */

/** Bytes that `encodeDelivery` will write for the record under the view's cursor. */
export function encodedDeliveryBytes(view: BatchView, id: number, subjectLength: number): number {
  const fields = 3 + varintBytes(id) + varintBytes(subjectLength) + subjectLength + varintBytes(view.publishedAt);
  return view.recordEnd - view.recordStart + fields;
}

/** Writes the MessageResponse of the record under the view's cursor at `offset`; returns the offset behind it. */
export function encodeDelivery(
  view: BatchView,
  id: number,
  subject: Uint8Array,
  target: Uint8Array,
  offset: number,
): number {
  copyBytes(view.bytes, view.recordStart, view.recordEnd, target, offset);
  let at = offset + (view.recordEnd - view.recordStart);
  target[at] = ID_TAG;
  at = writeVarint(target, at + 1, id);
  target[at] = SUBJECT_TAG;
  at = writeVarint(target, at + 1, subject.length);
  copyBytes(subject, 0, subject.length, target, at);
  at += subject.length;
  target[at] = PUBLISHED_AT_TAG;
  return writeVarint(target, at + 1, view.publishedAt);
}
