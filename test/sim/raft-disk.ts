import { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import { type Entry, type HardState, NOBODY, type Ready, type Snapshot } from '../../src/raft/messages.ts';

/** What the simulated state machine holds; travels inside snapshots. */
export interface MachineState {
  readonly index: number;
  readonly hash: number;
}

const EMPTY_HARD_STATE: HardState = { term: 0, vote: NOBODY, commit: 0 };

/** What survives a crash: only what a finished write has put here. */
export class SimDisk {
  hardState: HardState = EMPTY_HARD_STATE;
  snapshot: Snapshot | null = null;
  /** Entries behind the last compacted position, by position. */
  #entries = new Map<number, Entry>();
  #first = 1;
  #last = 0;

  get last(): number {
    return this.#last;
  }

  entry(index: number): Entry | undefined {
    return this.#entries.get(index);
  }

  /** Whether the node could prove after a crash that it has this position in this version. */
  holds(index: number, term: number): boolean {
    return (this.snapshot !== null && index <= this.snapshot.index) || this.#entries.get(index)?.term === term;
  }

  /** One whole write. */
  write(ready: Pick<Ready, 'hardState' | 'snapshot' | 'entries'>): void {
    this.hardState = ready.hardState ?? this.hardState;
    if (ready.snapshot !== null) {
      this.install(ready.snapshot);
    }
    this.#append(ready.entries);
  }

  install(snapshot: Snapshot): void {
    this.snapshot = snapshot;
    this.#entries.clear();
    this.#first = snapshot.index + 1;
    this.#last = snapshot.index;
  }

  #append(entries: readonly Entry[]): void {
    const first = entries[0];
    if (first === undefined) {
      return;
    }
    for (let index = first.index; index <= this.#last; index += 1) {
      this.#entries.delete(index);
    }
    for (const entry of entries) {
      this.#entries.set(entry.index, entry);
      this.#last = entry.index;
    }
  }

  /** A power cut in the middle of a write: at most term and vote got there. Entries come with their commit index, or not. */
  tear(ready: Ready): void {
    if (ready.hardState !== null) {
      this.hardState = { ...ready.hardState, commit: this.hardState.commit };
    }
  }

  compact(snapshot: Snapshot, upTo: number): void {
    this.snapshot = snapshot;
    for (; this.#first <= upTo; this.#first += 1) {
      this.#entries.delete(this.#first);
    }
  }

  /** As a starting node reads it: the log begins behind the snapshot. */
  load(): MemoryRaftStorage {
    const storage = new MemoryRaftStorage();
    let next = 1;
    if (this.snapshot !== null) {
      storage.applySnapshot(this.snapshot);
      next = this.snapshot.index + 1;
    }
    const entries: Entry[] = [];
    for (; next <= this.#last; next += 1) {
      const entry = this.#entries.get(next);
      if (entry === undefined) {
        throw new Error(`the disk has a hole at ${next}`);
      }
      entries.push(entry);
    }
    storage.append(entries);
    storage.setHardState(this.hardState);
    return storage;
  }
}
