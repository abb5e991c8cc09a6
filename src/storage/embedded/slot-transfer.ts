import { alignedTo } from './segment-format.ts';
import { SUBJECT_HEADER_BYTES, writeEntry, writeSubjectHeader } from './sidecar.ts';
import { ENTRY_BYTES } from './slot-index.ts';
import type { SubjectIndex } from './subject-index.ts';

/** One slot of an index, in the layout of a sidecar's body: `loadSubjects` reads it. */
export function encodeSlot(index: SubjectIndex, slot: number): Buffer {
  let length = 0;
  index.forEachIn(slot, (name, _hash, entries) => {
    length += alignedTo(SUBJECT_HEADER_BYTES + name.length, 8) + entries.length * ENTRY_BYTES;
  });
  const bytes = Buffer.alloc(length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  let at = 0;
  index.forEachIn(slot, (name, hash, entries) => {
    at = writeSubjectHeader(bytes, view, at, name, hash, entries.length);
    for (let i = 0; i < entries.length; i++) {
      at = writeEntry(view, at, {
        base: entries.base(i),
        publishedAt: entries.publishedAt(i),
        count: entries.count(i),
        segment: entries.segment(i),
        kind: entries.kind(i),
        offset: entries.offset(i),
        length: entries.bytes(i),
      });
    }
  });
  return bytes;
}
