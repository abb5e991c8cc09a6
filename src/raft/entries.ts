import { ENTRY_OVERHEAD_BYTES, type Entry } from './messages.ts';

export function entryBytes(entry: Entry): number {
  return entry.data.length + ENTRY_OVERHEAD_BYTES;
}

export function sumEntryBytes(entries: readonly Entry[]): number {
  let bytes = 0;
  for (const entry of entries) {
    bytes += entryBytes(entry);
  }
  return bytes;
}

/** The end of the longest run from `start` that fits into `bytesMax`, but at least one entry. */
export function limitBytes(entries: readonly Entry[], start: number, end: number, bytesMax: number): number {
  let bytes = 0;
  for (let i = start; i < end; i += 1) {
    bytes += entryBytes(entries[i] as Entry);
    if (bytes > bytesMax && i > start) {
      return i;
    }
  }
  return end;
}
