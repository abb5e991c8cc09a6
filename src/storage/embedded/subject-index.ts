import { assert } from '../../base/assert.ts';
import { SLOT_COUNT, slotOfHash } from '../../base/subject.ts';
import type { SubjectRef } from '../store.ts';
import { EntryCursor, type IndexEntry, type SlotColumns, SlotIndex } from './slot-index.ts';

/** Where the batches of a shard's subjects are: one index per slot, so that a slot can move to another shard by itself. */
export class SubjectIndex {
  readonly #slots: (SlotIndex | null)[] = new Array<SlotIndex | null>(SLOT_COUNT).fill(null);
  readonly #cursor = new EntryCursor();

  /** The entries of a subject: a cursor that the next call of any method here moves. */
  find(subject: SubjectRef): EntryCursor {
    const slot = this.#slots[slotOfHash(subject.hash)] as SlotIndex | null;
    const row = slot === null ? -1 : slot.table.find(subject.bytes, 0, subject.bytes.length, subject.hash);
    if (slot === null || row < 0) this.#cursor.clear();
    else slot.open(row, this.#cursor);
    return this.#cursor;
  }

  /** Adds a batch; false if its key was there and stays as it is. */
  put(subject: SubjectRef, entry: IndexEntry): boolean {
    const slot = this.#slotFor(subject.hash);
    return slot.put(slot.rowOf(subject.bytes, 0, subject.bytes.length, subject.hash), entry, this.#cursor);
  }

  /** For many batches of one subject: the slot and the row to `put` them at. */
  rowFor(bytes: Uint8Array, start: number, end: number, hash: number): { slot: SlotIndex; row: number } {
    const slot = this.#slotFor(hash);
    return { slot, row: slot.rowOf(bytes, start, end, hash) };
  }

  putAt(place: { slot: SlotIndex; row: number }, entry: IndexEntry): boolean {
    return place.slot.put(place.row, entry, this.#cursor);
  }

  /** Forgets the batches of a subject whose ids are all below `first`. */
  trim(subject: SubjectRef, first: number): number {
    const slot = this.#slots[slotOfHash(subject.hash)] as SlotIndex | null;
    const row = slot === null ? -1 : slot.table.find(subject.bytes, 0, subject.bytes.length, subject.hash);
    if (slot === null || row < 0) return 0;
    slot.open(row, this.#cursor);
    const count = this.#cursor.holding(first);
    slot.dropFirst(row, count);
    return count;
  }

  dropSegments(segments: ReadonlySet<number>): number {
    let dropped = 0;
    for (const slot of this.#slots) {
      if (slot === null) continue;
      for (let row = 0; row < slot.table.size; row++) dropped += slot.dropSegments(row, segments, this.#cursor);
    }
    return dropped;
  }

  /** Calls `visit` for every subject that has entries; `name` and `cursor` are valid during the call. */
  forEach(visit: (name: Uint8Array, hash: number, cursor: EntryCursor) => void): void {
    for (const slot of this.#slots) {
      if (slot !== null) visitSlot(slot, this.#cursor, visit);
    }
  }

  /** Forgets a slot and hands its memory over; null if nothing is known of it. */
  takeSlot(slot: number): SlotColumns | null {
    const found = this.#slots[slot] as SlotIndex | null;
    this.#slots[slot] = null;
    this.#cursor.clear();
    return found === null ? null : found.columns();
  }

  /** What another index knew of the slot, of which this one may know nothing. */
  giveSlot(slot: number, columns: SlotColumns): void {
    assert(this.#slots[slot] === null, () => `slot ${slot} is here already`);
    this.#slots[slot] = SlotIndex.of(columns);
  }

  get batches(): number {
    let batches = 0;
    for (const slot of this.#slots) batches += slot?.batches ?? 0;
    return batches;
  }

  get subjects(): number {
    let subjects = 0;
    for (const slot of this.#slots) subjects += slot?.table.size ?? 0;
    return subjects;
  }

  byteLength(): number {
    let bytes = 0;
    for (const slot of this.#slots) bytes += slot?.byteLength() ?? 0;
    return bytes;
  }

  #slotFor(hash: number): SlotIndex {
    const at = slotOfHash(hash);
    const found = this.#slots[at] as SlotIndex | null;
    if (found !== null) return found;
    const slot = new SlotIndex();
    this.#slots[at] = slot;
    return slot;
  }
}

function visitSlot(
  slot: SlotIndex,
  cursor: EntryCursor,
  visit: (name: Uint8Array, hash: number, cursor: EntryCursor) => void,
): void {
  for (let row = 0; row < slot.table.size; row++) {
    slot.open(row, cursor);
    if (cursor.length > 0) visit(slot.table.nameAt(row), slot.table.hashAt(row), cursor);
  }
}
