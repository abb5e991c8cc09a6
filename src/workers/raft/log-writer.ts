import { failpoint } from '../../base/failpoint.ts';
import type { MemoryRaftStorage } from '../../raft/memory-storage.ts';
import type { Entry, HardState, Ready } from '../../raft/messages.ts';
import { DiskFull } from '../../storage/disk.ts';
import type { RaftWal } from '../../storage/raft-wal/raft-wal.ts';
import type { LogLine } from '../messages.ts';
import type { RaftCounters } from './raft-counters.ts';

export interface LogWriterParts {
  readonly wal: RaftWal;
  readonly storage: MemoryRaftStorage;
  readonly counters: RaftCounters;
  readonly tell: (level: LogLine['level'], message: string) => void;
  /** The Ready and all before it are durable. In order, each once; may ask for more to be written. */
  readonly onDurable: (ready: Ready) => void;
  /** What could not be made durable may be on the disk or not: nothing can go on. */
  readonly onFatal: (error: unknown) => void;
}

/** Readies under way: what comes in during one sync is made durable by the next, so more than a few only cost memory. */
const READIES_MAX = 64;

/**
 * Makes Readies durable, in order. A node with peers must go on hearing and answering them meanwhile: its fsyncs run in the thread pool, one at a time,
 * and each covers everything that was appended before it began. A lone node has nobody to answer, and a sync in this thread saves it the way there and back.
 */
export class LogWriter {
  readonly #parts: LogWriterParts;
  readonly #isAlone: boolean;
  #underWay: Ready[] = [];
  /** As of the last Ready that was appended: goes to the disk with the entries behind it. */
  #hardState: HardState;
  #isSyncing = false;
  readonly #onIdle: (() => void)[] = [];

  constructor(parts: LogWriterParts, isAlone: boolean) {
    this.#parts = parts;
    this.#isAlone = isAlone;
    this.#hardState = parts.storage.hardState();
  }

  /** Take no more Readies now. */
  get full(): boolean {
    return this.#underWay.length >= READIES_MAX;
  }

  /** Resolves when nothing is under way. */
  whenIdle(): Promise<void> {
    if (this.#underWay.length === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }

  write(ready: Ready): void {
    if (ready.hardState !== null) this.#hardState = ready.hardState;
    // A commit index alone is written with the next entries: a restart finds it again by itself.
    if (ready.mustSync) {
      failpoint('raft.before-append');
      this.#append(ready.entries);
    }
    if (this.#isAlone) {
      if (ready.mustSync) this.#syncNow();
      this.#durable(ready);
      return;
    }
    this.#underWay.push(ready);
    this.#advance();
  }

  #syncNow(): void {
    const startedAt = performance.now();
    this.#parts.wal.sync();
    this.#synced(startedAt);
  }

  #synced(startedAt: number): void {
    this.#parts.counters.sync.observe((performance.now() - startedAt) * 1000);
    failpoint('raft.after-sync');
  }

  /** Reports what waits for no disk, and starts the next sync. */
  #advance(): void {
    while (!this.#isSyncing && this.#underWay[0]?.mustSync === false) this.#durable(this.#underWay.shift() as Ready);
    if (this.#underWay.length === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
    if (this.#isSyncing || this.#underWay.length === 0) return;
    this.#isSyncing = true;
    const startedAt = performance.now();
    const covered = this.#underWay.length;
    this.#parts.wal
      .syncAsync()
      .then(() => {
        this.#isSyncing = false;
        this.#synced(startedAt);
        for (const ready of this.#underWay.splice(0, covered)) this.#durable(ready);
        this.#advance();
      })
      .catch((error: unknown) => this.#parts.onFatal(error));
  }

  #durable(ready: Ready): void {
    const { storage, onDurable } = this.#parts;
    if (ready.hardState !== null) storage.setHardState(ready.hardState);
    if (ready.entries.length > 0) storage.append(ready.entries);
    onDurable(ready);
  }

  /** On a full disk the reserve makes room for what is in flight; with that used up too, the process ends. */
  #append(entries: readonly Entry[]): void {
    const { wal, tell } = this.#parts;
    const startedAt = performance.now();
    try {
      wal.append(entries, this.#hardState);
      this.#parts.counters.append.observe((performance.now() - startedAt) * 1000);
    } catch (error) {
      if (!(error instanceof DiskFull) || !wal.releaseReserve()) throw error;
      tell('warn', 'the disk is full: the Raft log uses its reserve');
      wal.append(entries, this.#hardState);
    }
  }
}
