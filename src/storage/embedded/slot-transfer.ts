import { alignedTo } from './segment-format.ts';
import { SUBJECT_HEADER_BYTES, writeEntry, writeSubjectHeader } from './sidecar.ts';
import { ENTRY_BYTES, newEntry, packEntry } from './slot-index.ts';
import type { SubjectIndex } from './subject-index.ts';

/** One slot of an index, in the layout of a sidecar's body: `loadSubjects` reads it. */
export function encodeSlot(index: SubjectIndex, slot: number): Buffer {
  let length = 0;
  index.forEachIn(slot, (name, _hash, entries) => {
    length += alignedTo(SUBJECT_HEADER_BYTES + name.length, 8) + entries.length * ENTRY_BYTES;
  });
  const bytes = Buffer.alloc(length);
  const view = new DataView(bytes.buffer, bytes.byteOffset, length);
  const entry = newEntry();
  const words = new Uint32Array(ENTRY_BYTES / 4);
  let at = 0;
  index.forEachIn(slot, (name, hash, entries) => {
    at = writeSubjectHeader(bytes, view, at, name, hash, entries.length);
    for (let i = 0; i < entries.length; i++) {
      entries.copyTo(i, entry);
      packEntry(words, 0, entry);
      at = writeEntry(view, at, words, 0);
    }
  });
  return bytes;
}
