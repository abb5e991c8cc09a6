import { assert, defined } from '../base/assert.ts';
import { entryBytes, limitBytes, sumEntryBytes } from './entries.ts';
import {
  type ConfigState,
  type Entry,
  type HardState,
  INDEX_MAX,
  type Index,
  NOBODY,
  type NodeId,
  type Snapshot,
  type Term,
} from './messages.ts';
import { NO_TERM, type RaftStorage } from './storage.ts';

/** The first entry of every cluster: members known before there is a leader. See `bootstrap`. */
const BOOTSTRAP_INDEX = 1;

/** Positions up to `last`, from the end of the run before, have this term. */
interface TermRun {
  readonly term: Term;
  last: Index;
}

/**
 * The log in memory: the cache in front of the WAL, and all there is in tests. The caller appends what it has written
 * to the WAL before it tells the core that the write is done.
 *
 *   (0 … offset]           a snapshot covers it, and it was compacted
 *   (offset … forgotten]   applied, and on the disk only; its terms are kept here
 *   (forgotten … last]     here
 */
export class MemoryRaftStorage implements RaftStorage {
  #hardState: HardState = { term: 0, vote: NOBODY, commit: 0 };
  #snapshot: Snapshot = { index: 0, term: 0, config: { voters: [], learners: [] }, ref: '' };
  /** Entry at position `#forgotten + 1 + i`. */
  #entries: Entry[] = [];
  /** The last compacted position and its term. At most the snapshot's index: a snapshot may be taken without compacting. */
  #offset: Index = 0;
  #offsetTerm: Term = 0;
  /** At least `#offset`. */
  #forgotten: Index = 0;
  /** Terms of (#offset, #forgotten], in order: as many as there were elections. */
  #forgottenTerms: TermRun[] = [];

  /**
   * The storage of a founding member. The first members are in a snapshot at index 1, not in the log, so that a node
   * that joins later gets them with a snapshot; every founder must be given the same ones.
   */
  static bootstrap(voters: readonly NodeId[], learners: readonly NodeId[] = []): MemoryRaftStorage {
    const config = { voters: [...voters].sort(), learners: [...learners].sort() };
    const storage = new MemoryRaftStorage();
    storage.applySnapshot({ index: BOOTSTRAP_INDEX, term: 1, config, ref: '' });
    storage.setHardState({ term: 1, vote: NOBODY, commit: BOOTSTRAP_INDEX });
    return storage;
  }

  initialState(): { readonly hardState: HardState; readonly config: ConfigState } {
    return { hardState: this.#hardState, config: this.#snapshot.config };
  }

  entries(lo: Index, hi: Index, bytesMax: number): readonly Entry[] | null {
    if (lo <= this.#forgotten) {
      return null;
    }
    assert(lo <= hi && hi <= this.lastIndex() + 1, () => `entries [${lo}, ${hi}) beyond ${this.lastIndex()}`);
    const start = lo - this.#forgotten - 1;
    const end = hi - this.#forgotten - 1;
    return this.#entries.slice(start, limitBytes(this.#entries, start, end, bytesMax));
  }

  term(index: Index): Term {
    if (index === this.#offset) {
      return this.#offsetTerm;
    }
    if (index > this.#forgotten) {
      return this.#entries[index - this.#forgotten - 1]?.term ?? NO_TERM;
    }
    return index < this.#offset ? NO_TERM : this.#forgottenTerm(index);
  }

  #forgottenTerm(index: Index): Term {
    const run = this.#forgottenTerms.find(({ last }) => index <= last);
    return defined(run, 'a forgotten position has no term').term;
  }

  firstIndex(): Index {
    return this.#forgotten + 1;
  }

  lastIndex(): Index {
    return this.#forgotten + this.#entries.length;
  }

  /** Bytes of the entries that are here (entryBytes). */
  byteLength(): number {
    return sumEntryBytes(this.#entries);
  }

  snapshot(): Snapshot | null {
    return this.#snapshot;
  }

  hardState(): HardState {
    return this.#hardState;
  }

  setHardState(hardState: HardState): void {
    this.#hardState = hardState;
  }

  /** Adds entries; those that are there from the first one's position on are replaced. */
  append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) {
      return;
    }
    assert(first.index > this.#forgotten, () => `append at ${first.index}, applied to ${this.#forgotten}`);
    assert(
      first.index <= this.lastIndex() + 1,
      () => `append at ${first.index} leaves a gap after ${this.lastIndex()}`,
    );
    this.#entries.length = first.index - this.#forgotten - 1;
    for (let i = 0; i < entries.length; i += 1) {
      const entry = entries[i] as Entry;
      assert(entry.index === first.index + i && entry.index <= INDEX_MAX, 'append: positions are not consecutive');
      this.#entries.push(entry);
    }
  }

  /** Takes over a snapshot from the leader: the log before and after it is gone. */
  applySnapshot(snapshot: Snapshot): void {
    assert(snapshot.index > this.#snapshot.index, 'applySnapshot: not newer than the present one');
    this.#snapshot = snapshot;
    this.#entries = [];
    this.#offset = snapshot.index;
    this.#offsetTerm = snapshot.term;
    this.#forgotten = snapshot.index;
    this.#forgottenTerms = [];
  }

  /** Notes a snapshot that this node made of its own applied state. The log stays until `compact`. */
  createSnapshot(index: Index, config: ConfigState, ref: string): Snapshot {
    assert(index >= this.#snapshot.index && index <= this.lastIndex(), 'createSnapshot: index is not in the log');
    const term = index === this.#snapshot.index ? this.#snapshot.term : this.term(index);
    assert(term !== NO_TERM, 'createSnapshot: term is not known');
    this.#snapshot = { index, term, config, ref };
    return this.#snapshot;
  }

  /** How many of the entries up to `index`, the newest first, have together at most `bytesMax`; no more than `countMax`. */
  newestWithin(index: Index, countMax: number, bytesMax: number): number {
    let bytes = 0;
    let count = 0;
    while (count < countMax && index - count > this.#forgotten) {
      bytes += entryBytes(this.#entries[index - count - this.#forgotten - 1] as Entry);
      if (bytes > bytesMax) break;
      count += 1;
    }
    return count;
  }

  /** Gives up the entries up to `index`, which a snapshot must cover. */
  compact(index: Index): void {
    assert(index <= this.#snapshot.index, 'compact: beyond the snapshot');
    if (index <= this.#offset) {
      return;
    }
    this.forget(index);
    this.#offsetTerm = this.term(index);
    this.#offset = index;
    this.#forgottenTerms = this.#forgottenTerms.filter(({ last }) => last > index);
  }

  /**
   * Lets go of the entries up to `index`: they are applied, they are in the WAL, and no peer is to be sent them (a peer that lacks them
   * gets a snapshot of at least this index). Their terms stay known.
   */
  forget(index: Index): void {
    if (index <= this.#forgotten) {
      return;
    }
    const count = index - this.#forgotten;
    assert(count <= this.#entries.length, () => `forget: ${index} is beyond ${this.lastIndex()}`);
    for (let i = 0; i < count; i += 1) {
      this.#noteTerm(this.#entries[i] as Entry);
    }
    this.#entries = count === this.#entries.length ? [] : this.#entries.slice(count);
    this.#forgotten = index;
  }

  #noteTerm({ term, index }: Entry): void {
    const run = this.#forgottenTerms.at(-1);
    if (run?.term === term) {
      run.last = index;
    } else {
      this.#forgottenTerms.push({ term, last: index });
    }
  }
}
