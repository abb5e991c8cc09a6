import * as format from './format.ts';
import { type ParsedPointer, parseAppend, parsePointer, RecordMalformed } from './record.ts';
import type { WalEntry, WalHardState } from './types.ts';

/** Pointers are few: two live ones, restated at the head of each segment. Older ones are forgotten. */
const POINTERS_MAX = 4;

/**
 * The state that the records add up to. Entries are kept from `base` + 1 on, without a gap. RecordMalformed for records that contradict
 * each other: their checksums were right, so a file is missing or the writer is defective.
 */
export class Replay {
  hardState: WalHardState = { term: 0, vote: '', commit: 0 };
  /** Oldest first, each index once. */
  pointers: ParsedPointer[] = [];
  entries: WalEntry[] = [];
  /** Index before the first kept entry. */
  base: number;
  /** Everything up to here need not be kept in memory: a snapshot that covers it was found whole. 0 if none. */
  readonly #covered: number;
  #coveredIsPointed = false;

  constructor(firstIndex: number, covered: number) {
    this.base = firstIndex - 1;
    this.#covered = covered;
  }

  get lastIndex(): number {
    return this.base + this.entries.length;
  }

  record(type: number, payload: Uint8Array): void {
    if (type === format.TYPE_POINTER) this.#pointer(parsePointer(payload));
    else this.#append(payload);
  }

  #append(payload: Uint8Array): void {
    // The payload is a view on a window that moves on: one copy for all entries of the record.
    const { entries, hardState } = parseAppend(Uint8Array.from(payload));
    const first = entries[0];
    if (first !== undefined) {
      if (first.index > this.lastIndex + 1) {
        throw new RecordMalformed(`entry ${first.index} follows entry ${this.lastIndex}`);
      }
      const snapshot = this.pointers.at(-1)?.index ?? 0;
      if (first.index <= snapshot) throw new RecordMalformed(`entry ${first.index} is behind snapshot ${snapshot}`);
      if (first.index <= this.hardState.commit) {
        throw new RecordMalformed(`entry ${first.index} is overwritten, but ${this.hardState.commit} was committed`);
      }
      // Older segments were dropped, and the oldest one left begins with entries that this one overwrites together with some before it.
      if (first.index <= this.base) this.base = first.index - 1;
      this.entries.length = first.index - this.base - 1;
      for (const entry of entries) this.entries.push(entry);
    }
    if (hardState !== null) this.#setHardState(hardState);
  }

  #setHardState(next: WalHardState): void {
    const previous = this.hardState;
    if (next.commit > this.lastIndex) {
      throw new RecordMalformed(`commit ${next.commit} is beyond the last entry ${this.lastIndex}`);
    }
    if (next.term < previous.term || next.commit < previous.commit) {
      throw new RecordMalformed(`term ${next.term}, commit ${next.commit} after ${previous.term}, ${previous.commit}`);
    }
    this.hardState = next;
  }

  #pointer(pointer: ParsedPointer): void {
    if (pointer.installed) {
      this.entries = [];
      this.base = pointer.index;
    } else if (pointer.index > this.lastIndex) {
      throw new RecordMalformed(`snapshot ${pointer.index} is beyond the last entry ${this.lastIndex}`);
    } else {
      const same = this.entries[pointer.index - this.base - 1];
      if (same !== undefined && same.term !== pointer.term) {
        throw new RecordMalformed(
          `snapshot ${pointer.index} is of term ${pointer.term}, its entry of term ${same.term}`,
        );
      }
    }
    this.pointers = this.pointers.filter((other) => other.index !== pointer.index);
    this.pointers.push(pointer);
    if (this.pointers.length > POINTERS_MAX) this.pointers.shift();
    if (pointer.index === this.#covered) this.#coveredIsPointed = true;
    if (this.#coveredIsPointed) this.dropTo(this.#covered);
  }

  /** Forgets entries up to `index`. */
  dropTo(index: number): void {
    const count = Math.min(index - this.base, this.entries.length);
    if (count <= 0) return;
    this.entries.splice(0, count);
    this.base += count;
  }
}
