import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { AllotMachine } from '../../allot/allot-machine.ts';
import { NODE_STARTED_BYTES, originSize, writeNodeStarted, writeOrigin } from '../../allot/commands.ts';
import { type AllotmentOwner, type AllotSink, AllotVerdict, type PartAnswers } from '../../allot/verdicts.ts';
import { assert, defined } from '../../base/assert.ts';
import { failpoint } from '../../base/failpoint.ts';
import { RaftCore } from '../../raft/core.ts';
import { MemoryRaftStorage } from '../../raft/memory-storage.ts';
import { ENTRY_CONFIG, ENTRY_NORMAL, type Entry, type Ready } from '../../raft/messages.ts';
import { DiskFull, NodeDisk } from '../../storage/disk.ts';
import { EnvelopeCodec } from '../../storage/raft-wal/envelope.ts';
import { RaftWal } from '../../storage/raft-wal/raft-wal.ts';
import type { StoredSnapshot, WalEntry } from '../../storage/raft-wal/types.ts';
import { StartError } from '../../storage/start-error.ts';
import type { LogLine, RaftStatus, RaftThreadData, StoredAllotment } from '../messages.ts';
import { ENTRY_KIND_ALLOT } from './entry-kinds.ts';
import { LastStored } from './last-stored.ts';
import { LogClock } from './log-clock.ts';
import { RaftCounters } from './raft-counters.ts';
import { SnapshotJob } from './snapshot-job.ts';
import { decodeSnapshotMeta, encodeSnapshotMeta } from './snapshot-meta.ts';

/** Where the answers of applied entries go: the rings of the shards. */
export interface AnswerPort {
  opened(shard: number, counter: number, base: number, time: number): void;
  openRefused(shard: number, counter: number, reasonCode: number): void;
  partsOpened(shard: number, counter: number, base: number, time: number, parts: PartAnswers): void;
  producerOpened(shard: number, counter: number, lastSequence: number): void;
  revoked(names: Uint8Array, start: number, end: number, hash: number, base: number): void;
  /** A close(stored) of an allotment that this process opened was applied, or refused. */
  closed(shard: number, counter: number, isApplied: boolean): void;
  /** A close(stored) or a revoke by this process found the allotment void or settled: somebody else had taken it back. */
  gone(names: Uint8Array, start: number, end: number, hash: number, base: number): void;
  trimmed(names: Uint8Array, start: number, end: number, hash: number, first: number): void;
  onReadable(): void;
}

const BIRTH_CHUNK_BYTES = 64 * 1024;
/** Before a snapshot that found no space is tried again, in ms. */
const SNAPSHOT_RETRY_MS = 30_000;

/** Ticks of an election timeout: raft.election_timeout in heartbeats, with etcd's ratio as the least. */
const ELECTION_TICKS_MIN = 5;

export type Report = (line: LogLine) => void;

/** Opens the log of this node, recovers what it says, and becomes its leader; when `admit` resolves it may write. Throws StartError or WalError. */
export async function openRaftNode(
  data: RaftThreadData,
  report: Report,
  onFatal: (error: unknown) => void,
  admit: (node: RaftNode) => Promise<void> = () => Promise.resolve(),
): Promise<RaftNode> {
  const disk = new NodeDisk();
  const limits = {
    subjectsMax: data.subjectsMax,
    producersMax: data.producersMax,
    openPerNodeMax: data.openPerNodeMax,
  };
  const {
    wal,
    state,
    report: found,
  } = RaftWal.open(disk, join(data.dataDirectory, 'raft'), { instanceId: data.instanceId });
  if (found.cut !== null) {
    report(line('warn', 'cut a torn end off the Raft log', { path: found.cut.path, position: found.cut.position }));
  }
  for (const path of [...found.quarantined, ...found.damagedSnapshots]) {
    report(line('error', 'moved a damaged file to quarantine', { path }));
  }
  const birth = MemoryRaftStorage.bootstrap([data.nodeName]);
  const snapshot = state.snapshot ?? (await writeBirth(wal, birth, new AllotMachine(limits)));
  const storage = new MemoryRaftStorage();
  const { index, term, meta, path } = snapshot;
  storage.applySnapshot({ index, term, config: decodeSnapshotMeta(meta).config, ref: path });
  const machine = AllotMachine.restore(defined(wal.readSnapshot(), 'the recovered snapshot is gone').chunks(), limits);
  storage.append(state.entries.map(asEntry));
  storage.setHardState(state.hardState.term > 0 ? state.hardState : birth.hardState());
  const core = new RaftCore({
    id: data.nodeName,
    storage,
    applied: storage.firstIndex() - 1,
    seed: randomBytes(4).readUInt32LE(0),
    heartbeatTicks: 1,
    electionTicks: Math.max(ELECTION_TICKS_MIN, Math.ceil(data.electionMs / data.heartbeatMs)),
  });
  const node = new RaftNode({
    replayed: state.entries,
    core,
    storage,
    wal,
    machine,
    name: Buffer.from(data.nodeName),
    report,
    onFatal,
    counters: new RaftCounters(data.counters),
    hasDatabase: data.hasDatabase,
  });
  node.elect();
  // Before anything is written: an older log must stay as it is, and so must the store, which a revoke would put void marks into.
  await admit(node);
  node.lead(data);
  return node;
}

interface Parts {
  /** Entries behind the snapshot: they count towards the next one. */
  readonly replayed: readonly { readonly data: Uint8Array }[];
  readonly core: RaftCore;
  readonly storage: MemoryRaftStorage;
  readonly wal: RaftWal;
  readonly machine: AllotMachine;
  readonly name: Buffer;
  readonly report: Report;
  readonly onFatal: (error: unknown) => void;
  readonly counters: RaftCounters;
  readonly hasDatabase: boolean;
}

/**
 * Drives the Raft core on a node with one voter: writes and fsyncs what a Ready asks for, in this thread (nobody waits for a
 * heartbeat), applies what is committed, and takes snapshots.
 */
export class RaftNode implements AllotSink {
  readonly machine: AllotMachine;
  readonly name: Buffer;
  readonly #core: RaftCore;
  readonly #storage: MemoryRaftStorage;
  readonly #wal: RaftWal;
  readonly #report: Report;
  readonly #clock: LogClock;
  readonly #counters: RaftCounters;
  readonly #envelopes = new EnvelopeCodec();
  readonly #incarnation = randomBytes(8);
  #origin: Uint8Array = new Uint8Array(0);
  /** Null while the log is replayed: its requests were answered, or lost, before. */
  #answers: AnswerPort | null = null;
  #isOwnOrigin = false;
  /** What was closed in the replayed log; null once that is over, or if nobody asks. */
  #lastStored: LastStored | null;
  /** The shards acknowledge behind the close (design section 7, rule 1), so they are told of it. */
  #answersCloses = false;
  #readContext = 0;
  #readableContext = 0;
  #snapshot: SnapshotJob | null = null;
  #entriesSinceSnapshot = 0;
  /** Ms of performance.now(). */
  #snapshotNotBefore = 0;
  #bytesSinceSnapshot = 0;
  #snapshotEntries = Number.POSITIVE_INFINITY;
  #snapshotBytes = Number.POSITIVE_INFINITY;

  readonly #onFatal: (error: unknown) => void;

  constructor(parts: Parts) {
    this.#onFatal = parts.onFatal;
    this.#entriesSinceSnapshot = parts.replayed.length;
    for (const { data } of parts.replayed) this.#bytesSinceSnapshot += data.length;
    this.#counters = parts.counters;
    this.machine = parts.machine;
    this.name = parts.name;
    this.#core = parts.core;
    this.#storage = parts.storage;
    this.#wal = parts.wal;
    this.#report = parts.report;
    this.#clock = new LogClock(parts.machine.time);
    this.#lastStored = parts.hasDatabase ? new LastStored() : null;
  }

  /** Once: batches of the end of the log that must be in the database. Those that may have gone since are left out. */
  takeLastStored(): StoredAllotment[] {
    const stored = this.#lastStored?.mustBeThere(this.machine) ?? [];
    this.#lastStored = null;
    return stored;
  }

  /** Applies what is known to be committed, and takes the lead; no entry of this process is written yet. */
  elect(): void {
    // What is known to be committed is applied first: members may have changed in it.
    this.#drive();
    this.#core.campaign();
    this.#drive();
    assert(this.#core.role === 'leader', 'the only voter of a cluster leads it');
  }

  /** Records that this process has started: what an earlier one left open stays open until it is looked up in the store. */
  lead(data: RaftThreadData): void {
    if (this.#clock.isTooFarAhead(Date.now()) && !data.acceptClock) {
      throw new StartError(
        'CLOCK_AHEAD',
        `the clock is more than 24 h ahead of the last log time (${new Date(this.#clock.last).toISOString()}): messages would carry times that later ones cannot go back from. Correct the clock, or start with --accept-clock if it is right`,
      );
    }
    const low = this.#incarnation.readUInt32LE(0);
    const high = this.#incarnation.readUInt32LE(4);
    const origin = Buffer.alloc(originSize(this.name.length));
    writeOrigin(new DataView(origin.buffer, origin.byteOffset, origin.length), origin, 0, this.name, low, high);
    this.#origin = origin;
    const started = Buffer.alloc(NODE_STARTED_BYTES);
    writeNodeStarted(new DataView(started.buffer, started.byteOffset, started.length), 0, true);
    this.propose([started]);
    this.#drive();
    this.#answersCloses = data.hasDatabase;
    this.#snapshotEntries = data.snapshotEntries;
    this.#snapshotBytes = data.snapshotBytes;
  }

  /** About once a second. */
  countLevels(): void {
    const memory = { stateBytes: this.machine.counts().bytes, logBytes: this.#storage.byteLength() };
    this.#counters.levels(this.status(), memory);
    if (!this.#wal.holdsReserve && this.#wal.restoreReserve()) {
      this.#report(line('info', 'there is space again: the Raft log has its reserve back', {}));
    }
  }

  /** A line for the log. */
  tell(level: LogLine['level'], message: string, fields: LogLine['fields']): void {
    this.#report(line(level, message, fields));
  }

  answerTo(answers: AnswerPort): void {
    this.#answers = answers;
  }

  tick(): void {
    this.#core.tick();
    if (this.#core.hasReady()) this.#drive();
  }

  /** One log entry of the given runs of commands. */
  propose(runs: readonly Uint8Array[]): void {
    const time = this.#clock.next(Date.now());
    const data = this.#envelopes.encode({
      kind: ENTRY_KIND_ALLOT,
      time,
      payload: Buffer.concat([this.#origin, ...runs]),
    });
    this.#counters.entry(data.length);
    let result = this.#core.propose(data);
    if (result === 'full') {
      this.#drive();
      result = this.#core.propose(data);
    }
    assert(result === 'accepted', () => `a proposal was refused: ${result}`);
  }

  /** Asks for a read index; `onReadable` follows. False while it cannot be had. */
  askToRead(): boolean {
    this.#readContext += 1;
    return this.#core.readIndex(this.#readContext) === 'accepted';
  }

  /** Returns the number of things done. */
  work(): number {
    let done = 0;
    if (this.#core.hasReady()) {
      this.#drive();
      done += 1;
    }
    if (this.#readableContext > 0) {
      this.#readableContext = 0;
      this.#answers?.onReadable();
      done += 1;
    }
    return done + this.#maybeSnapshot();
  }

  status(): RaftStatus {
    const counts = this.machine.counts();
    return {
      term: this.#core.term,
      applied: this.#core.applied,
      lastIndex: this.#core.lastIndex(),
      snapshotIndex: this.#storage.snapshot()?.index ?? 0,
      subjects: counts.subjects,
      producers: counts.producers,
      openAllotments: counts.open + counts.revoked,
      logTime: this.#clock.last,
    };
  }

  close(): void {
    failpoint('raft.close');
    this.#snapshot?.abort();
    this.#wal.sync();
    this.#wal.close();
  }

  #drive(): void {
    while (this.#core.hasReady()) {
      const ready = this.#core.ready();
      this.#persist(ready);
      this.#core.persisted(ready);
      for (const entry of ready.committedEntries) this.#apply(entry);
      const last = ready.committedEntries.at(-1);
      if (last !== undefined) {
        this.#core.appliedTo(last.index);
        this.#forgetApplied(last.index);
      }
      for (const { context } of ready.readStates) this.#readableContext = Math.max(this.#readableContext, context);
    }
  }

  /** A node without peers sends what it has applied to nobody, so it is on the disk only. With peers it stays until the next snapshot. */
  #forgetApplied(index: number): void {
    const { voters, learners } = this.#core.configState();
    if (voters.length === 1 && learners.length === 0) this.#storage.forget(index);
  }

  #persist(ready: Ready): void {
    const { entries, hardState, mustSync } = ready;
    if (hardState !== null) this.#storage.setHardState(hardState);
    // A commit index alone is written with the next entries: one voter finds it again by itself.
    if (!mustSync) return;
    failpoint('raft.before-append');
    const startedAt = performance.now();
    this.#append(entries);
    this.#wal.sync();
    this.#counters.sync.observe((performance.now() - startedAt) * 1000);
    failpoint('raft.after-sync');
    this.#storage.append(entries);
    for (const entry of entries) this.#bytesSinceSnapshot += entry.data.length;
    this.#entriesSinceSnapshot += entries.length;
  }

  /** On a full disk the reserve makes room for what is in flight; with that used up too, the process ends. */
  #append(entries: readonly Entry[]): void {
    try {
      this.#wal.append(entries, this.#storage.hardState());
    } catch (error) {
      if (!(error instanceof DiskFull) || !this.#wal.releaseReserve()) throw error;
      this.#report(line('warn', 'the disk is full: the Raft log uses its reserve', {}));
      this.#wal.append(entries, this.#storage.hardState());
    }
  }

  #apply(entry: Entry): void {
    if (entry.type !== ENTRY_NORMAL || entry.data.length === 0) return;
    const { kind, time, payload } = this.#envelopes.decode(entry.data);
    assert(kind === ENTRY_KIND_ALLOT, () => `log entry of unknown kind ${kind}`);
    this.#clock.saw(time);
    this.machine.apply(entry.index, time, payload, this);
    failpoint('raft.after-apply');
  }

  /** Without a snapshot the log goes on, longer than it should be: on a full disk it is tried again later. */
  #snapshotFailed(error: unknown): void {
    this.#snapshot = null;
    if (!(error instanceof DiskFull)) {
      this.#onFatal(error);
      return;
    }
    this.#entriesSinceSnapshot = this.#snapshotEntries;
    this.#snapshotNotBefore = performance.now() + SNAPSHOT_RETRY_MS;
    this.#report(line('warn', 'no space for a snapshot; it is tried again later', { retryMs: SNAPSHOT_RETRY_MS }));
  }

  #maybeSnapshot(): number {
    if (this.#snapshot === null) {
      const isDue =
        this.#entriesSinceSnapshot >= this.#snapshotEntries || this.#bytesSinceSnapshot >= this.#snapshotBytes;
      if (!isDue || performance.now() < this.#snapshotNotBefore) return 0;
      this.#entriesSinceSnapshot = 0;
      this.#bytesSinceSnapshot = 0;
      const index = this.#core.applied;
      const config = this.#core.configState();
      const term = this.#storage.term(index);
      const meta = encodeSnapshotMeta({ config });
      const onDone = (path: string): void => {
        this.#snapshot = null;
        this.#storage.createSnapshot(index, config, path);
        this.#storage.compact(index);
        this.#report(line('info', 'took a snapshot', { index, path }));
      };
      try {
        const file = this.#wal.beginSnapshot({ index, term, meta });
        const onError = (error: unknown): void => this.#snapshotFailed(error);
        this.#snapshot = new SnapshotJob(this.machine.beginSnapshot(), file, onDone, onError);
      } catch (error) {
        this.#snapshotFailed(error);
        return 0;
      }
    }
    return this.#snapshot.work();
  }

  // --- AllotSink: answers to this process's own requests go to its shards ---

  origin(payload: Uint8Array, nodeStart: number, nodeEnd: number, low: number, high: number): void {
    this.#isOwnOrigin =
      this.#answers !== null &&
      low === this.#incarnation.readUInt32LE(0) &&
      high === this.#incarnation.readUInt32LE(4) &&
      this.name.equals(payload.subarray(nodeStart, nodeEnd));
  }

  opened(shard: number, counter: number, base: number, _count: number, time: number): void {
    if (this.#isOwnOrigin) this.#answers?.opened(shard, counter, base, time);
  }

  openRefused(shard: number, counter: number, reasonCode: number): void {
    if (this.#isOwnOrigin) this.#answers?.openRefused(shard, counter, reasonCode);
  }

  partsOpened(shard: number, counter: number, base: number, _count: number, time: number, parts: PartAnswers): void {
    if (this.#isOwnOrigin) this.#answers?.partsOpened(shard, counter, base, time, parts);
  }

  producerOpened(shard: number, counter: number, lastSequence: number): void {
    if (this.#isOwnOrigin) this.#answers?.producerOpened(shard, counter, lastSequence);
  }

  verdict(
    names: Uint8Array,
    start: number,
    end: number,
    hash: number,
    base: number,
    _count: number,
    verdict: number,
    applied: boolean,
    owner: AllotmentOwner,
  ): void {
    if (verdict === AllotVerdict.STORED && applied) this.#lastStored?.add(names, start, end, hash, base);
    if (verdict === AllotVerdict.REVOKED && applied) this.#answers?.revoked(names, start, end, hash, base);
    // Of what has its verdict the log forgets whose it was: whoever waits for this answer is found by the name.
    const isOver = verdict === AllotVerdict.VOID || verdict === AllotVerdict.SETTLED;
    if (isOver && !applied && this.#isOwnOrigin) this.#answers?.gone(names, start, end, hash, base);
    if (!this.#answersCloses || !this.#isOwn(owner)) return;
    if (verdict === AllotVerdict.STORED && applied) this.#answers?.closed(owner.shard, owner.counter, true);
    // What was revoked cannot be closed as stored; a revoke of it counts as applied however often it comes.
    else if (verdict === AllotVerdict.REVOKED && !applied) this.#answers?.closed(owner.shard, owner.counter, false);
  }

  #isOwn({ node, incarnationLow, incarnationHigh }: AllotmentOwner): boolean {
    return (
      node >= 0 &&
      incarnationLow === this.#incarnation.readUInt32LE(0) &&
      incarnationHigh === this.#incarnation.readUInt32LE(4)
    );
  }

  nodeStarted(): void {
    // Nothing waits for it.
  }

  trimmed(names: Uint8Array, start: number, end: number, hash: number, first: number): void {
    this.#answers?.trimmed(names, start, end, hash, first);
  }
}

/** The first members are in a snapshot, not in the log (MemoryRaftStorage.bootstrap): it is on disk before anything else is. */
async function writeBirth(wal: RaftWal, birth: MemoryRaftStorage, machine: AllotMachine): Promise<StoredSnapshot> {
  const snapshot = birth.snapshot();
  assert(snapshot !== null, 'a founding member has a snapshot');
  const { index, term, config } = snapshot;
  const file = wal.beginSnapshot({ index, term, meta: encodeSnapshotMeta({ config }) });
  const state = machine.beginSnapshot();
  for (let chunk = state.nextChunk(BIRTH_CHUNK_BYTES); chunk !== null; chunk = state.nextChunk(BIRTH_CHUNK_BYTES)) {
    file.write(chunk);
  }
  return await file.finish('installed');
}

function asEntry({ term, index, type, data }: WalEntry): Entry {
  assert(type === ENTRY_NORMAL || type === ENTRY_CONFIG, () => `log entry ${index} has unknown type ${type}`);
  return { term, index, type, data };
}

function line(level: LogLine['level'], message: string, fields: LogLine['fields']): LogLine {
  return { kind: 'log', level, message, fields };
}
