import { crc32 } from '../../src/base/checksum.ts';
import type { Prng } from '../../src/base/prng.ts';
import { RaftCore } from '../../src/raft/core.ts';
import type { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import {
  ENTRY_CONFIG,
  type Entry,
  type Message,
  type NodeId,
  type Ready,
  type Snapshot,
} from '../../src/raft/messages.ts';
import type { RaftOptions } from '../../src/raft/options.ts';
import { type RaftCheckers, SafetyViolation } from './raft-checkers.ts';
import { type MachineState, SimDisk } from './raft-disk.ts';

/** Readies of one step. The core has no clock: what gives more than these gives them for ever. */
const READIES_A_STEP = 10_000;

/** What a node needs of the world. */
export interface NodeWorld {
  readonly now: number;
  readonly prng: Prng;
  readonly checkers: RaftCheckers;
  send(message: Message): void;
  disk(node: NodeId): SimDisk;
  /** State machines inside snapshots, by ref. */
  readonly snapshots: Map<string, MachineState>;
  /** Steps that a write takes at most. */
  readonly writeStepsMax: number;
  /** Readies under way at most. */
  readonly pipelineMax: number;
}

interface Write {
  readonly ready: Ready;
  readonly doneAt: number;
}

/** One node: the driver of a RaftCore as RaftCore describes it, over a disk that loses what was not finished. */
export class SimNode {
  readonly id: NodeId;
  readonly disk = new SimDisk();
  readonly #world: NodeWorld;
  readonly #options: Pick<RaftOptions, 'electionTicks' | 'heartbeatTicks'> & Partial<RaftOptions>;
  core: RaftCore | null = null;
  #storage: MemoryRaftStorage | null = null;
  #writes: Write[] = [];
  #toApply: Entry[] = [];
  machine: MachineState = { index: 0, hash: 0 };
  readonly #reads = new Map<number, number>();
  #nextRead = 1;
  #committedSeen = 0;
  readsAnswered = 0;
  /** Ticks since it started. */
  ticks = 0;
  /** Writes that begin before this step are done in it, or later. */
  stalledUntil = 0;
  /** Stopped, as by SIGSTOP, until this step. */
  pausedUntil = 0;
  /** The next write that has to be synced fails (EIO). The process ends then, as in production, and nobody knows how much of it is on the disk. */
  isDiskFailing = false;
  ioErrors = 0;

  constructor(
    id: NodeId,
    world: NodeWorld,
    options: Pick<RaftOptions, 'electionTicks' | 'heartbeatTicks'> & Partial<RaftOptions>,
  ) {
    this.id = id;
    this.#world = world;
    this.#options = options;
  }

  get isUp(): boolean {
    return this.core !== null;
  }

  start(): void {
    this.#storage = this.disk.load();
    const snapshot = this.disk.snapshot;
    this.machine = snapshot === null ? { index: 0, hash: 0 } : this.#snapshotState(snapshot);
    const seed = this.#world.prng.nextUint32();
    this.core = new RaftCore({
      ...this.#options,
      id: this.id,
      storage: this.#storage,
      applied: this.machine.index,
      seed,
    });
    this.#committedSeen = this.machine.index;
    this.ticks = 0;
    this.isDiskFailing = false;
  }

  tick(): void {
    this.ticks += 1;
    this.#running().tick();
  }

  #snapshotState(snapshot: Snapshot): MachineState {
    return this.#world.snapshots.get(snapshot.ref) ?? { index: snapshot.index, hash: 0 };
  }

  /** Power cut: some of the unfinished writes got to disk, in order, the next one perhaps in part. */
  crash(): void {
    const { prng } = this.#world;
    let kept = prng.nextBelow(this.#writes.length + 1);
    for (const { ready } of this.#writes) {
      if (kept === 0) {
        if (prng.chance(1, 2)) {
          this.disk.tear(ready);
        }
        break;
      }
      this.disk.write(ready);
      kept -= 1;
    }
    this.core = null;
    this.#storage = null;
    this.#writes = [];
    this.#toApply = [];
    this.#reads.clear();
  }

  /** Does what is due in this step. */
  run(): void {
    this.#watchCommit();
    this.#finishWrites();
    if (!this.isUp) {
      return;
    }
    if (this.#world.prng.chance(3, 4)) {
      this.#apply(1 + this.#world.prng.nextBelow(8));
    }
    const core = this.#running();
    for (let taken = 0; this.#writes.length < this.#world.pipelineMax && core.hasReady(); taken += 1) {
      if (taken === READIES_A_STEP) {
        throw new SafetyViolation(`${this.id} has a Ready without end`);
      }
      this.#take(core.ready());
      if (!this.isUp) {
        return;
      }
    }
    this.#watchCommit();
    if (core.role === 'leader') {
      const { checkers } = this.#world;
      checkers.onLeader(this.id, core.term);
      checkers.onLeading(this.id, { ...core.configState(), term: core.term, ticks: this.ticks });
    }
  }

  #running(): RaftCore {
    if (this.core === null) {
      throw new Error(`${this.id} is down`);
    }
    return this.core;
  }

  #take(ready: Ready): void {
    const { checkers, prng, now, writeStepsMax } = this.#world;
    const handedOut = this.#toApply.at(-1)?.index ?? this.machine.index;
    checkers.onReady(this.id, ready, ready.snapshot === null ? handedOut : Math.max(handedOut, 0));
    const first = ready.entries[0];
    if (first !== undefined) {
      checkers.onAppend(ready.entries, this.#termBefore(first.index, ready));
    }
    for (const message of ready.messages) {
      this.#send(message);
    }
    this.#toApply.push(...ready.committedEntries);
    for (const { context, index } of ready.readStates) {
      this.#onReadState(context, index);
    }
    const doneAt = now + (ready.mustSync ? prng.nextBelow(writeStepsMax + 1) : 0);
    this.#writes.push({ ready, doneAt: ready.mustSync ? Math.max(doneAt, this.stalledUntil) : doneAt });
    this.#finishWrites();
  }

  /** Term of the entry before `index` as of the writes that are on their way. */
  #termBefore(index: number, ready: Ready): number {
    if (ready.snapshot?.index === index - 1) {
      return ready.snapshot.term;
    }
    for (const { ready: earlier } of [...this.#writes].reverse()) {
      const found = earlier.entries.find((entry) => entry.index === index - 1);
      if (found !== undefined || earlier.snapshot?.index === index - 1) {
        return found?.term ?? (earlier.snapshot as Snapshot).term;
      }
    }
    return this.#storage?.term(index - 1) ?? 0;
  }

  #send(message: Message): void {
    this.#world.checkers.onSend(message, this.disk);
    this.#world.send(Object.freeze(message));
  }

  #finishWrites(): void {
    while (this.#writes[0] !== undefined && this.#writes[0].doneAt <= this.#world.now) {
      if (this.isDiskFailing && this.#writes[0].ready.mustSync) {
        this.ioErrors += 1;
        this.crash();
        return;
      }
      const { ready } = this.#writes.shift() as Write;
      this.disk.write(ready);
      this.#fillStorage(ready);
      this.#running().persisted(ready);
      this.#watchCommit();
      for (const message of ready.messagesAfterPersist) {
        this.#send(message);
      }
    }
  }

  #fillStorage(ready: Ready): void {
    const storage = this.#storage as MemoryRaftStorage;
    if (ready.hardState !== null) {
      storage.setHardState(ready.hardState);
    }
    if (ready.snapshot !== null) {
      storage.applySnapshot(ready.snapshot);
      this.#toApply = this.#toApply.filter((entry) => entry.index > (ready.snapshot as Snapshot).index);
      this.machine = this.#snapshotState(ready.snapshot);
      this.#world.checkers.onMachineState(this.id, this.machine.index, this.machine.hash);
    }
    storage.append(ready.entries);
  }

  #apply(limit: number): void {
    const core = this.#running();
    const entries = this.#toApply.splice(0, limit);
    for (const entry of entries) {
      core.appliedTo(entry.index);
      this.#watchCommit();
      const seed = (this.machine.hash ^ (entry.term * 31 + entry.type)) >>> 0;
      const isMembership = entry.type === ENTRY_CONFIG;
      const after = isMembership ? Buffer.from(JSON.stringify(core.configState())) : entry.data;
      this.machine = { index: entry.index, hash: crc32(after, seed) };
      this.#world.checkers.onApply(this.id, entry, this.machine.hash, this.disk);
    }
  }

  #watchCommit(): void {
    const core = this.#running();
    const { checkers } = this.#world;
    for (let index = this.#committedSeen + 1; index <= core.committed; index += 1) {
      const term = core.termAt(index);
      if (term >= 0) {
        checkers.onCommitted(this.id, index, term);
        if (core.role === 'leader') {
          const voters = core.configState().voters;
          checkers.onLeaderCommit(this.id, index, term, voters, (node) => this.#world.disk(node));
        }
      }
    }
    this.#committedSeen = Math.max(this.#committedSeen, core.committed);
  }

  /** Snapshot of what is applied; the log keeps a tail of some entries. */
  compact(): void {
    const storage = this.#storage as MemoryRaftStorage;
    const { index, hash } = this.machine;
    if (index <= (this.disk.snapshot?.index ?? 0)) {
      return;
    }
    const ref = `${this.id}/${index}`;
    this.#world.snapshots.set(ref, { index, hash });
    const snapshot = storage.createSnapshot(index, this.#running().configState(), ref);
    const upTo = Math.max(0, index - this.#world.prng.nextBelow(8));
    storage.compact(upTo);
    this.disk.compact(snapshot, upTo);
  }

  read(): void {
    const context = this.#nextRead;
    this.#nextRead += 1;
    if (this.#running().readIndex(context) === 'accepted') {
      this.#reads.set(context, this.#world.checkers.committedMax);
    }
  }

  #onReadState(context: number, index: number): void {
    const committedAtStart = this.#reads.get(context);
    if (committedAtStart !== undefined) {
      this.#world.checkers.onRead(this.id, committedAtStart, index);
      this.#reads.delete(context);
      this.readsAnswered += 1;
    }
  }
}
