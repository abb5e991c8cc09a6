import { assert } from '../base/assert.ts';
import { isPlanted } from '../base/planted.ts';
import { limitBytes } from './entries.ts';
import { type Entry, INDEX_MAX, type Index, type Snapshot, type Term } from './messages.ts';
import { NO_TERM, type RaftStorage } from './storage.ts';
import { type PendingWrite, Unstable } from './unstable.ts';

const NOTHING: readonly Entry[] = Object.freeze([]);

/**
 * The log as the core sees it: what is persisted, what is not yet, and three marks.
 * Invariant: applied <= applying <= min(committed, durable).
 */
export class RaftLog {
  readonly #storage: RaftStorage;
  readonly #unstable: Unstable;
  /** The highest position known to be on a majority. Never falls. */
  committed: Index;
  /** The highest position handed out for applying. */
  applying: Index;
  /** The highest position the state machine has taken in. */
  applied: Index;

  constructor(storage: RaftStorage, applied: Index) {
    this.#storage = storage;
    this.#unstable = new Unstable(storage.lastIndex() + 1);
    const compacted = storage.firstIndex() - 1;
    const commit = storage.initialState().hardState.commit;
    assert(commit <= storage.lastIndex(), () => `committed ${commit}, log ends at ${storage.lastIndex()}: log lost`);
    this.committed = Math.max(compacted, commit);
    assert(applied >= compacted && applied <= this.committed, () => `applied ${applied} not in the log`);
    this.applying = applied;
    this.applied = applied;
  }

  firstIndex(): Index {
    const snapshot = this.#unstable.snapshot;
    return snapshot === null ? this.#storage.firstIndex() : snapshot.index + 1;
  }

  lastIndex(): Index {
    return this.#unstable.end - 1;
  }

  lastTerm(): Term {
    const term = this.term(this.lastIndex());
    assert(term !== NO_TERM, 'the term of the last entry is not known');
    return term;
  }

  /** The highest position such that all up to it are durable on this node. */
  durableIndex(): Index {
    return this.#unstable.offset - 1;
  }

  /** NO_TERM when the position is compacted away or not there. */
  term(index: Index): Term {
    const term = this.#unstable.term(index);
    if (term !== NO_TERM) {
      return term;
    }
    // Below the offset the storage answers, except for what an incoming snapshot is about to replace, and for what an
    // unfinished overwrite has replaced already.
    if (index >= this.#unstable.offset || this.#unstable.snapshot !== null) {
      return NO_TERM;
    }
    return this.#storage.term(index);
  }

  matches(index: Index, term: Term): boolean {
    return this.term(index) === term;
  }

  /** Whether a log that ends like this is at least as good as ours (Raft paper 5.4.1). */
  isUpToDate(lastIndex: Index, lastTerm: Term): boolean {
    const ourTerm = this.lastTerm();
    return lastTerm > ourTerm || (lastTerm === ourTerm && lastIndex >= this.lastIndex());
  }

  /** The leader's own append. */
  push(entry: Entry): void {
    assert(entry.index <= INDEX_MAX, 'log positions are used up');
    this.#unstable.push(entry);
  }

  /**
   * A follower's append. Only a conflicting entry makes it cut: an old message must not take away newer entries (R5).
   * Returns the last position that now is known to match, or -1 when the place before the entries does not.
   */
  tryAppend(index: Index, term: Term, entries: readonly Entry[]): Index {
    if (!this.matches(index, term)) {
      return -1;
    }
    let start = 0;
    while (start < entries.length) {
      const entry = entries[start] as Entry;
      assert(entry.index === index + 1 + start, 'appended positions are not consecutive');
      if (!this.matches(entry.index, entry.term) || isPlanted('R5-truncate-matching')) {
        break;
      }
      start += 1;
    }
    if (start < entries.length) {
      assert(index + start >= this.committed, () => `append at ${index + 1 + start} conflicts with a committed entry`);
      this.#unstable.truncateAndAppend(entries, start);
    }
    return index + entries.length;
  }

  /**
   * The highest position up to `index` whose term is at most `term`: where a log that ends with `term` at `index` can
   * still match this one. Skips whole terms instead of trying position by position (Raft paper 5.3, last part).
   */
  findConflictByTerm(index: Index, term: Term): Index {
    let position = index;
    while (position > 0) {
      const ours = this.term(position);
      if (ours === NO_TERM || ours <= term) {
        return position;
      }
      position -= 1;
    }
    return 0;
  }

  /** Never lowers it. */
  commitTo(index: Index): boolean {
    if (index <= this.committed) {
      return false;
    }
    assert(index <= this.lastIndex(), () => `commit ${index} beyond ${this.lastIndex()}: was a part of the log lost?`);
    this.committed = index;
    return true;
  }

  /** From `lo` to the end, cut after `bytesMax`, at least one. null when `lo` is compacted away. */
  entriesFrom(lo: Index, bytesMax: number): readonly Entry[] | null {
    const last = this.lastIndex();
    return lo > last ? NOTHING : this.#slice(lo, last + 1, bytesMax);
  }

  #slice(lo: Index, hi: Index, bytesMax: number): readonly Entry[] | null {
    const offset = this.#unstable.offset;
    if (lo >= offset) {
      const entries = this.#unstable.slice(lo, hi);
      entries.length = limitBytes(entries, 0, entries.length, bytesMax);
      return entries;
    }
    if (this.#unstable.snapshot !== null) {
      return null;
    }
    const stored = this.#storage.entries(lo, Math.min(hi, offset), bytesMax);
    if (stored === null || hi <= offset || stored.length < offset - lo) {
      return stored;
    }
    const unstored = this.#unstable.slice(offset, hi);
    const joined = stored.concat(unstored);
    joined.length = limitBytes(joined, 0, joined.length, bytesMax);
    return joined;
  }

  /**
   * Applicable means committed *and* durable here (R7): a state machine that runs ahead of its own log comes back from a
   * power cut in another state than its log can explain.
   */
  #applicable(): Index {
    return isPlanted('R7-apply-before-durable') ? this.committed : Math.min(this.committed, this.durableIndex());
  }

  get hasCommitted(): boolean {
    return this.#unstable.snapshot === null && this.applying < this.#applicable();
  }

  nextCommitted(bytesMax: number): readonly Entry[] {
    if (!this.hasCommitted) {
      return NOTHING;
    }
    const entries = this.#storage.entries(this.applying + 1, this.#applicable() + 1, bytesMax);
    assert(entries !== null && entries.length > 0, 'entries to apply are compacted away');
    return entries;
  }

  appliedTo(index: Index): void {
    assert(index >= this.applied && index <= this.committed, () => `applied ${index}, committed ${this.committed}`);
    this.applied = index;
    this.applying = Math.max(this.applying, index);
  }

  /** Looks at the entries [lo, hi) in pages until `visitor` returns true; answers whether it did. */
  some(lo: Index, hi: Index, bytesMax: number, visitor: (entry: Entry) => boolean): boolean {
    let next = lo;
    while (next < hi) {
      const page = this.#slice(next, hi, bytesMax);
      assert(page !== null && page.length > 0, 'entries to look at are compacted away');
      if (page.some(visitor)) {
        return true;
      }
      next += page.length;
    }
    return false;
  }

  get hasSnapshot(): boolean {
    return this.#unstable.snapshot !== null;
  }

  snapshot(): Snapshot | null {
    return this.#unstable.snapshot ?? this.#storage.snapshot();
  }

  restore(snapshot: Snapshot): void {
    assert(snapshot.index > this.committed, 'snapshot is older than what is committed');
    this.committed = snapshot.index;
    this.#unstable.restore(snapshot);
  }

  get hasUnwritten(): boolean {
    return this.#unstable.hasUnwritten;
  }

  unwrittenEntries(): readonly Entry[] {
    return this.#unstable.unwrittenEntries();
  }

  unwrittenSnapshot(): Snapshot | null {
    return this.#unstable.unwrittenSnapshot();
  }

  beginWrite(): PendingWrite {
    return this.#unstable.beginWrite();
  }

  endWrite(write: PendingWrite): void {
    this.#unstable.endWrite(write);
  }
}
