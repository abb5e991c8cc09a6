import { assert, defined } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import type { Entry, Index, Snapshot, Term } from './messages.ts';
import { NO_TERM } from './storage.ts';

/** One write under way. `last` sinks when entries it carries are replaced before it is done. */
export interface PendingWrite {
  /** The last position that this write carries in the version that is still the log's; below `offset` when none is left. */
  last: Index;
  /** Term at `last` when the write began; checked again when it is done. */
  term: Term;
  readonly snapshot: Snapshot | null;
}

/**
 * The end of the log that is not known to be durable, and a snapshot being installed.
 *
 * Several writes may be under way at once, and they are done in order. The danger (R6, ABA): position 5 is written with
 * term 1, overwritten with term 2, overwritten again with the first version, all still under way. When the first write
 * is done, position 5 has the right term on disk, but the second write is about to change it. So a write only vouches
 * for the positions that nobody has replaced since: replacing a suffix lowers `last` of every write under way.
 */
export class Unstable {
  snapshot: Snapshot | null = null;
  #snapshotBegun = false;
  /** Entry at position `offset + i`. */
  #entries: Entry[] = [];
  /** Everything below is durable (or covered by `snapshot`). */
  offset: Index;
  /** First position that no write has picked up. */
  #unwritten: Index;
  /** Writes under way, oldest first. Bounded by the caller's pipeline of Readies. */
  readonly #writes: PendingWrite[] = [];

  constructor(offset: Index) {
    this.offset = offset;
    this.#unwritten = offset;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0 && this.snapshot === null;
  }

  /** Position after the last one held here. */
  get end(): Index {
    return this.offset + this.#entries.length;
  }

  /** NO_TERM when the position is not here. */
  term(index: Index): Term {
    const entry = index < this.offset ? undefined : this.#entries[index - this.offset];
    if (entry !== undefined) {
      return entry.term;
    }
    return this.snapshot !== null && this.snapshot.index === index ? this.snapshot.term : NO_TERM;
  }

  /** Shares the entries; `lo` and `hi` lie in [offset, end]. */
  slice(lo: Index, hi: Index): Entry[] {
    assert(lo >= this.offset && lo <= hi && hi <= this.end, 'unstable slice out of range');
    return this.#entries.slice(lo - this.offset, hi - this.offset);
  }

  push(entry: Entry): void {
    assert(entry.index === this.end, 'entry does not follow the last one');
    this.#entries.push(entry);
  }

  /** Replaces everything from the first entry's position on. */
  truncateAndAppend(entries: readonly Entry[], start: number): void {
    const first = defined(entries[start], 'nothing to append').index;
    assert(first <= this.end, 'append leaves a gap');
    if (first < this.end || first < this.offset) {
      this.#truncate(first);
    }
    for (let i = start; i < entries.length; i += 1) {
      this.push(entries[i] as Entry);
    }
  }

  #truncate(first: Index): void {
    if (first <= this.offset) {
      this.#entries = [];
      this.offset = first;
    } else {
      this.#entries.length = first - this.offset;
    }
    this.#unwritten = Math.min(this.#unwritten, first);
    for (const write of this.#writes) {
      if (write.last >= first && !isPlanted('R6-stale-write-vouches')) {
        write.last = first - 1;
        write.term = this.term(first - 1);
      }
    }
  }

  /** The log is replaced by a snapshot. */
  restore(snapshot: Snapshot): void {
    this.snapshot = snapshot;
    this.#snapshotBegun = false;
    this.#entries = [];
    this.offset = snapshot.index + 1;
    this.#unwritten = this.offset;
    for (const write of this.#writes) {
      write.last = 0;
    }
  }

  get hasUnwritten(): boolean {
    return this.#unwritten < this.end || (this.snapshot !== null && !this.#snapshotBegun);
  }

  unwrittenEntries(): readonly Entry[] {
    return this.#unwritten === this.end ? [] : this.slice(this.#unwritten, this.end);
  }

  unwrittenSnapshot(): Snapshot | null {
    return this.#snapshotBegun ? null : this.snapshot;
  }

  /** Everything not picked up yet goes into one write. */
  beginWrite(): PendingWrite {
    const snapshot = this.unwrittenSnapshot();
    const isCarrying = this.#unwritten < this.end;
    const last = isCarrying ? this.end - 1 : 0;
    const write = { last, term: isCarrying ? this.term(last) : NO_TERM, snapshot };
    this.#unwritten = this.end;
    this.#snapshotBegun = this.snapshot !== null;
    this.#writes.push(write);
    return write;
  }

  /** The oldest write is durable: drops what it vouches for. */
  endWrite(write: PendingWrite): void {
    assert(this.#writes.shift() === write, 'writes must be reported in the order in which they were handed out');
    if (write.snapshot !== null && write.snapshot === this.snapshot) {
      this.snapshot = null;
      this.#snapshotBegun = false;
    }
    if (write.last < this.offset) {
      return;
    }
    const isSame = this.term(write.last) === write.term || isPlanted('R6-stale-write-vouches');
    assert(isSame, 'a write vouches for an entry that was replaced');
    const count = write.last + 1 - this.offset;
    this.#entries = count === this.#entries.length ? [] : this.#entries.slice(count);
    this.offset = write.last + 1;
  }
}
