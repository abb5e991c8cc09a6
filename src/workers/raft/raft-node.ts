import { randomBytes } from 'node:crypto';
import { AllotMachine } from '../../allot/allot-machine.ts';
import type { AllotLimits } from '../../allot/allot-state.ts';
import type { AllotmentInfo } from '../../allot/queries.ts';
import { type AllotmentOwner, type AllotSink, AllotVerdict, type PartAnswers } from '../../allot/verdicts.ts';
import { assert, defined } from '../../base/assert.ts';
import { failpoint } from '../../base/failpoint.ts';
import type { SnapshotReceiver } from '../../net/types.ts';
import type { MemoryRaftStorage } from '../../raft/memory-storage.ts';
import { ENTRY_NORMAL, type Entry, type Message, type Ready } from '../../raft/messages.ts';
import { bornSince, revokedSince } from '../../replica/after-snapshot.ts';
import { LogClock } from '../../replica/log-clock.ts';
import { Replica } from '../../replica/replica.ts';
import type { ClusterView, Member, MemberChange, MemberChangeResult } from '../../replica/types.ts';
import { DiskFull } from '../../storage/disk.ts';
import { EnvelopeCodec } from '../../storage/raft-wal/envelope.ts';
import type { RaftWal } from '../../storage/raft-wal/raft-wal.ts';
import type { SnapshotReader } from '../../storage/raft-wal/snapshot-file.ts';
import type { SnapshotWriter } from '../../storage/raft-wal/types.ts';
import { StartError } from '../../storage/start-error.ts';
import type { LogLine, RaftStatus, RaftThreadData, StoredAllotment } from '../messages.ts';
import { LastStored } from './last-stored.ts';
import { LogReads } from './log-reads.ts';
import { LogWriter } from './log-writer.ts';
import type { PeerLinks } from './peer-links.ts';
import { RaftCounters } from './raft-counters.ts';
import { SnapshotJob } from './snapshot-job.ts';
import { decodeSnapshotMeta, encodeSnapshotMeta } from './snapshot-meta.ts';
import { SnapshotIntake } from './snapshot-transfer.ts';

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
  /** Head or settled of a subject changed. */
  moved(subject: number): void;
  /** A subject got its first id. */
  born(subject: number): void;
  /** The state machine is another one, from the leader's snapshot. */
  restored(): void;
  /** A revoked allotment that its owner cannot mark. False: no more now. */
  mark(allotment: AllotmentInfo): boolean;
}

export interface RaftNodeEvents {
  readonly report: (line: LogLine) => void;
  readonly onFatal: (error: unknown) => void;
  /** Who leads has changed; '' = nobody is known to. `grpc`: where its gRPC port is, '' if not known. */
  readonly onLeader: (leader: string, grpc: string) => void;
  /** The Raft port is open. */
  readonly onListening: (port: number) => void;
  /** Requests of this process were applied that it got no answers to, and never will: a snapshot stands for them. */
  readonly onAnswersLost: () => void;
  /** There is work that no ring brought: of a peer, or of the disk. */
  readonly wake: () => void;
}

/** Before a snapshot that found no space is tried again, in ms. */
const SNAPSHOT_RETRY_MS = 30_000;

/** Ticks of an election timeout: raft.election_timeout in heartbeats, with etcd's ratio as the least. */
const ELECTION_TICKS_MIN = 5;

/** Of the entries that stay in memory behind a snapshot (catchUpEntries), in bytes. */
const CATCH_UP_BYTES = 16 << 20;
/** What concerns the cluster at large is looked after this often, in ms. */
const LOOK_MS = 1_000;
/** Orphans that are given to the shards at a time. */
const ORPHANS_A_LOOK = 4_096;

export interface RaftNodeParts {
  readonly data: RaftThreadData;
  readonly events: RaftNodeEvents;
  readonly storage: MemoryRaftStorage;
  readonly wal: RaftWal;
  readonly machine: AllotMachine;
  readonly members: readonly Member[];
  readonly limits: AllotLimits;
  readonly incarnation: Uint8Array;
  /** Null: alone. Its port is open. */
  readonly links: PeerLinks | null;
  /** Its own row among the members. */
  readonly own: Member;
  /** Entries behind the snapshot: they count towards the next one. */
  readonly replayed: readonly { readonly data: Uint8Array }[];
}

/** A snapshot that came from the leader: whole, and given to the core, which decides whether it is of use. */
interface Offered {
  readonly message: Message;
  readonly file: SnapshotWriter;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/**
 * Drives a Replica: writes what its Readies ask for, exchanges frames and snapshots with peers, applies what is committed, and takes snapshots. The pure
 * part, which the simulator runs too, is the Replica's.
 */
export class RaftNode implements AllotSink {
  readonly name: Buffer;
  /** Its row among the members, as it should be. */
  readonly own: Member;
  readonly standing: Pick<Replica, 'lastRun' | 'role'>;
  readonly #data: RaftThreadData;
  readonly #events: RaftNodeEvents;
  readonly #replica: Replica;
  readonly #storage: MemoryRaftStorage;
  readonly #wal: RaftWal;
  readonly #limits: AllotLimits;
  readonly #counters: RaftCounters;
  readonly #writer: LogWriter;
  /** Null: alone. */
  readonly #links: PeerLinks | null;
  readonly #low: number;
  readonly #high: number;
  /** Null while the log is replayed: its requests were answered, or lost, before. */
  #answers: AnswerPort | null = null;
  #isOwnOrigin = false;
  /** What was closed in the replayed log; null once that is over, or if nobody asks. */
  #lastStored: LastStored | null;
  /** The shards acknowledge behind the close (design section 7, rule 1), so they are told of it. */
  #answersCloses = false;
  readonly #reads: LogReads;
  #isReadable = false;
  #snapshot: SnapshotJob | null = null;
  #incoming: SnapshotIntake | null = null;
  #offered: Offered | null = null;
  /** A snapshot of the leader is being put in the place of everything: no other Ready meanwhile. */
  #isInstalling = false;
  #entriesSinceSnapshot = 0;
  /** Ms of performance.now(). */
  #snapshotNotBefore = 0;
  #bytesSinceSnapshot = 0;
  #snapshotEntries = Number.POSITIVE_INFINITY;
  #snapshotBytes = Number.POSITIVE_INFINITY;
  #leader = '';
  readonly #applyWaiters: { readonly run: number; readonly then: () => void }[] = [];
  #onStarted: () => void = () => undefined;
  readonly #changes = new Map<number, (result: MemberChangeResult) => void>();
  #nextChange = 1;
  #lookAt = 0;
  #isClosed = false;

  constructor(parts: RaftNodeParts) {
    const { data, events, storage, wal, machine, members, limits, incarnation, links, own, replayed } = parts;
    this.#data = data;
    this.own = own;
    this.#events = events;
    this.#storage = storage;
    this.#wal = wal;
    this.#limits = limits;
    this.#counters = new RaftCounters(data.counters);
    this.name = Buffer.from(data.nodeName);
    this.#entriesSinceSnapshot = replayed.length;
    for (const entry of replayed) this.#bytesSinceSnapshot += entry.data.length;
    this.#lastStored = data.hasDatabase ? new LastStored() : null;
    this.#links = links;
    const electionTicks = Math.max(ELECTION_TICKS_MIN, Math.ceil(data.electionMs / data.heartbeatMs));
    const halves = new DataView(incarnation.buffer, incarnation.byteOffset, 8);
    this.#low = halves.getUint32(0, true);
    this.#high = halves.getUint32(4, true);
    this.#replica = new Replica({
      own,
      incarnationLow: this.#low,
      incarnationHigh: this.#high,
      storage,
      applied: storage.firstIndex() - 1,
      seed: randomBytes(4).readUInt32LE(0),
      heartbeatTicks: 1,
      electionTicks,
      secondTicks: Math.round(1_000 / data.heartbeatMs),
      machine,
      members,
      codec: new EnvelopeCodec(),
      votersMax: data.cluster?.votersMax ?? 1,
      allotLimits: limits,
      // Nobody else is there to have lost what a lone node has open: it looks it up in its store.
      limits: data.cluster === null ? { openMsMax: Number.POSITIVE_INFINITY } : {},
    });
    this.standing = this.#replica;
    this.#reads = new LogReads(this.#replica, electionTicks, randomBytes(4).readUInt32LE(0));
    this.#writer = new LogWriter(
      {
        wal,
        storage,
        counters: this.#counters,
        tell: (level, message) => this.tell(level, message, {}),
        onDurable: (ready) => this.#durable(ready),
        onFatal: (error) => events.onFatal(error),
      },
      data.cluster === null,
    );
  }

  get machine(): AllotMachine {
    return this.#replica.machine;
  }

  get members(): readonly Member[] {
    return this.#replica.membersForSnapshot();
  }

  /** Takes part: what is known to be committed is applied, an only voter leads. */
  open(): void {
    this.#links?.attach({
      members: () => this.members,
      leader: () => this.#replica.leader,
      onFrame: (from, frame) => {
        this.#replica.receive(from, frame, Date.now());
        this.#events.wake();
      },
      onUnreachable: (node) => this.#replica.reportUnreachable(node),
      onSnapshotSent: (to, outcome) => {
        this.#replica.reportSnapshot(to, outcome);
        this.#events.wake();
      },
      beginSnapshot: (message) => this.#beginIntake(message),
      openSnapshot: (message) => this.#openSnapshot(message),
    });
    // Members may have changed in what is known to be committed.
    this.#drive();
    if (this.#replica.isOnlyVoter) this.#replica.campaign();
    this.#drive();
  }

  /** Once: batches of the end of the log that must be in the database. Those that may have gone since are left out. */
  takeLastStored(): StoredAllotment[] {
    const stored = this.#lastStored?.mustBeThere(this.machine) ?? [];
    this.#lastStored = null;
    return stored;
  }

  /**
   * Records that this process has started: what an earlier one left open stays open until it is looked up in the store. Resolves when that is applied: from
   * then on this node may ask for ids. Throws StartError.
   */
  async start(): Promise<void> {
    const { acceptClock, hasDatabase, snapshotEntries, snapshotBytes } = this.#data;
    const { logTime } = this.#replica;
    if (new LogClock(logTime).isTooFarAhead(Date.now()) && !acceptClock) {
      throw new StartError(
        'CLOCK_AHEAD',
        `the clock is more than 24 h ahead of the last log time (${new Date(logTime).toISOString()}): messages would carry times that later ones cannot go back from. Correct the clock, or start with --accept-clock if it is right`,
      );
    }
    this.#snapshotEntries = snapshotEntries;
    this.#snapshotBytes = snapshotBytes;
    const started = new Promise<void>((resolve) => {
      this.#onStarted = resolve;
    });
    this.#replica.start(true);
    this.#drive();
    await started;
    this.#links?.caughtUp();
    this.#answersCloses = hasDatabase;
  }

  /** About once a second. */
  countLevels(): void {
    this.#counters.levels(this.status(), this.#replica, this.#storage.byteLength());
    this.#counters.untrusted(this.#links?.untrusted ?? 0);
    if (!this.#wal.holdsReserve && this.#wal.restoreReserve()) {
      this.#events.report(line('info', 'there is space again: the Raft log has its reserve back', {}));
    }
  }

  /** A line for the log. */
  tell(level: LogLine['level'], message: string, fields: LogLine['fields']): void {
    this.#events.report(line(level, message, fields));
  }

  answerTo(answers: AnswerPort): void {
    this.#answers = answers;
  }

  tick(): void {
    this.#replica.tick(Date.now());
    this.#reads.tick();
    this.#drive();
    if (this.#links === null || performance.now() < this.#lookAt) return;
    this.#lookAt = performance.now() + LOOK_MS;
    this.#replica.orphans(ORPHANS_A_LOOK, (orphan) => void this.#answers?.mark(orphan));
    if (this.#replica.isReplaced) {
      const why =
        'a later process of the same node id has started: it has a copy of this data directory. Keep one of the two';
      this.#events.onFatal(new StartError('DATA_DIRECTORY_COPIED', why));
    }
  }

  /** Runs of commands, for the next log entry. False: too much waits for the log already; nothing was taken. */
  propose(runs: readonly Uint8Array[]): boolean {
    let isTaken = this.#replica.submit(runs);
    if (!isTaken) {
      this.#drive();
      isTaken = this.#replica.submit(runs);
    }
    return isTaken;
  }

  /** Calls back when everything that was proposed so far is applied. */
  whenApplied(then: () => void): void {
    const run = this.#replica.lastRun;
    if (this.#replica.lastAppliedRun >= run) then();
    else this.#applyWaiters.push({ run, then });
  }

  /** Asks for a read index; `onReadable` follows, or a false answer to a later call, which asks again. False while it cannot be had, or is on its way. */
  askToRead(): boolean {
    return this.#reads.ask();
  }

  /** A read was asked for and may still be answered. */
  get isReading(): boolean {
    return this.#reads.isUnderWay;
  }

  /** Calls back when this node has applied whatever was committed anywhere before the call. */
  barrier(then: () => void): void {
    this.#reads.wait(then);
    this.#events.wake();
  }

  /** Returns the number of things done. */
  work(): number {
    let done = this.#drive();
    if (this.#isReadable) {
      this.#isReadable = false;
      this.#answers?.onReadable();
      done += 1;
    }
    return done + this.#maybeSnapshot();
  }

  status(): RaftStatus {
    const counts = this.machine.counts();
    const { term, applied, lastIndex, logTime } = this.#replica;
    return {
      term,
      applied,
      lastIndex,
      snapshotIndex: this.#storage.snapshot()?.index ?? 0,
      subjects: counts.subjects,
      producers: counts.producers,
      openAllotments: counts.open + counts.revoked,
      logTime,
    };
  }

  cluster(): ClusterView {
    return this.#replica.view();
  }

  change(change: MemberChange): Promise<MemberChangeResult> {
    const token = this.#nextChange++;
    return new Promise((resolve) => {
      this.#changes.set(token, resolve);
      this.#replica.change(token, change);
      this.#drive();
    });
  }

  /** A lone node is closed when it returns. */
  async close(): Promise<void> {
    failpoint('raft.close');
    this.#isClosed = true;
    if (this.#links !== null) {
      await this.#links.close();
      await this.#writer.whenIdle();
    }
    this.#snapshot?.abort();
    this.#incoming?.abort();
    this.#wal.sync();
    this.#wal.markEnd();
    this.#wal.close();
  }

  // --- the loop of the core ---

  #drive(): number {
    let done = 0;
    while (!this.#isClosed && !this.#isInstalling && !this.#writer.full && this.#replica.hasWork()) {
      const ready = this.#replica.ready(Date.now());
      this.#sendFrames();
      this.#answerChanges();
      // What is left cannot be done now.
      if (ready === null) break;
      done += 1;
      if (ready.snapshot !== null) this.#install(ready);
      else this.#write(ready);
      this.#applyAll(ready);
      this.#reads.answered(ready.readStates);
    }
    this.#sendFrames();
    if (done > 0) this.#afterReadies();
    if (this.#reads.work()) this.#isReadable = true;
    return done;
  }

  #write(ready: Ready): void {
    for (const entry of ready.entries) this.#bytesSinceSnapshot += entry.data.length;
    this.#entriesSinceSnapshot += ready.entries.length;
    this.#writer.write(ready);
  }

  #durable(ready: Ready): void {
    if (this.#isClosed) return;
    this.#replica.persisted(ready);
    this.#sendFrames();
    if (this.#links !== null) this.#events.wake();
  }

  #sendFrames(): void {
    for (const { to, frame } of this.#replica.takeFrames()) this.#links?.send(to, frame);
  }

  #applyAll({ committedEntries }: Ready): void {
    for (const entry of committedEntries) this.#apply(entry);
    const last = committedEntries.at(-1);
    if (last === undefined) return;
    this.#replica.appliedTo(last.index);
    if (this.#applyWaiters.length > 0) this.#tellApplied();
    // A node that never has peers sends what it has applied to nobody, so it is on the disk only. With peers it stays until the next snapshot.
    if (this.#links === null) this.#storage.forget(last.index);
  }

  #apply(entry: Entry): void {
    if (entry.type !== ENTRY_NORMAL || entry.data.length === 0) return;
    this.#replica.apply(entry, this);
    this.#counters.entry(entry.data.length);
    failpoint('raft.after-apply');
  }

  #tellApplied(): void {
    const { lastAppliedRun } = this.#replica;
    while ((this.#applyWaiters[0]?.run ?? Number.POSITIVE_INFINITY) <= lastAppliedRun)
      this.#applyWaiters.shift()?.then();
  }

  #answerChanges(): void {
    for (const { token, result } of this.#replica.takeChanges()) {
      this.#changes.get(token)?.(result);
      this.#changes.delete(token);
    }
  }

  #afterReadies(): void {
    this.#answerChanges();
    this.#links?.follow();
    this.#dropUnwanted();
    const { leader } = this.#replica;
    if (leader === this.#leader) return;
    this.#leader = leader;
    this.#counters.leaderChanged(leader);
    this.#reads.leaderChanged();
    this.#events.onLeader(leader, this.#replica.member(leader)?.grpc ?? '');
  }

  // --- snapshots ---

  /** Without a snapshot the log goes on, longer than it should be: on a full disk it is tried again later. */
  #snapshotFailed(error: unknown): void {
    this.#snapshot = null;
    if (!(error instanceof DiskFull)) {
      this.#events.onFatal(error);
      return;
    }
    this.#entriesSinceSnapshot = this.#snapshotEntries;
    this.#snapshotNotBefore = performance.now() + SNAPSHOT_RETRY_MS;
    this.tell('warn', 'no space for a snapshot; it is tried again later', { retryMs: SNAPSHOT_RETRY_MS });
  }

  #maybeSnapshot(): number {
    if (this.#snapshot === null) {
      const isDue =
        this.#entriesSinceSnapshot >= this.#snapshotEntries || this.#bytesSinceSnapshot >= this.#snapshotBytes;
      // What was written since the last one may wait for a majority still.
      const isNew = this.#replica.applied > (this.#storage.snapshot()?.index ?? 0);
      const isBusy = this.#incoming !== null || this.#offered !== null || this.#isInstalling;
      if (!isDue || !isNew || isBusy || performance.now() < this.#snapshotNotBefore) return 0;
      this.#entriesSinceSnapshot = 0;
      this.#bytesSinceSnapshot = 0;
      const index = this.#replica.applied;
      const config = this.#replica.configState();
      const term = this.#storage.term(index);
      const meta = encodeSnapshotMeta({ config, members: this.members });
      const onDone = (path: string): void => {
        this.#snapshot = null;
        this.#storage.createSnapshot(index, config, path);
        const kept =
          this.#links === null ? 0 : this.#storage.newestWithin(index, this.#data.catchUpEntries, CATCH_UP_BYTES);
        this.#storage.compact(index - kept);
        this.#counters.snapshotTaken();
        this.tell('info', 'took a snapshot', { index, path });
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

  /** The newest snapshot, if it is that of the message. */
  #openSnapshot({ snapshot }: Message): SnapshotReader | null {
    const reader = this.#wal.readSnapshot();
    if (reader === null) return null;
    if (reader.head.index === snapshot?.index) return reader;
    reader.close();
    return null;
  }

  /** A peer has a snapshot for this node, which takes one at a time. An own one that is being made is given up: this one is newer. */
  #beginIntake(message: Message): SnapshotReceiver | null {
    const { snapshot } = message;
    const isBusy = this.#incoming !== null || this.#offered !== null || this.#isInstalling;
    if (snapshot === null || isBusy) return null;
    // One that is installed counts as applied when the log is durable behind it.
    if (snapshot.index <= Math.max(this.#replica.applied, this.#storage.snapshot()?.index ?? 0)) {
      // The leader has not heard that it is here: without an answer of the core it would offer it for ever.
      this.#replica.receive(message.from, { kind: 'raft', message }, Date.now());
      this.#events.wake();
      return null;
    }
    this.#snapshot?.abort();
    this.#snapshot = null;
    const { index, term } = snapshot;
    const intake = new SnapshotIntake((meta) => this.#wal.beginSnapshot({ index, term, meta }));
    this.#incoming = intake;
    this.tell('info', 'receiving a snapshot', { from: message.from, index });
    return {
      write: (chunk) => intake.write(chunk),
      end: () =>
        new Promise((resolve, reject) => {
          this.#incoming = null;
          this.#offered = { message, file: intake.end(), resolve, reject };
          this.#replica.receive(message.from, { kind: 'raft', message }, Date.now());
          this.#drive();
          this.#events.wake();
        }),
      abort: () => {
        if (this.#incoming !== intake) return;
        this.#incoming = null;
        intake.abort();
      },
    };
  }

  /** The core had no use for what was offered: it has that, or is ahead of it. */
  #dropUnwanted(): void {
    const offered = this.#offered;
    if (offered === null || this.#isInstalling || this.#replica.hasWork()) return;
    this.#offered = null;
    offered.file.abort();
    offered.reject(new Error('the snapshot is of no use any more'));
  }

  #install(ready: Ready): void {
    this.#isInstalling = true;
    this.#installed(ready).then(
      () => {
        this.#isInstalling = false;
        this.#events.wake();
      },
      (error: unknown) => this.#events.onFatal(error),
    );
  }

  async #installed(ready: Ready): Promise<void> {
    const snapshot = defined(ready.snapshot, 'a Ready without a snapshot');
    const offered = this.#offered;
    assert(offered !== null && offered.message.snapshot?.index === snapshot.index, 'a snapshot that nobody offered');
    await this.#writer.whenIdle();
    await offered.file.flush();
    const { path, meta } = await offered.file.finish('installed');
    this.#storage.applySnapshot({ ...snapshot, ref: path });
    const reader = defined(this.#wal.readSnapshot(), 'the installed snapshot is gone');
    const machine = AllotMachine.restore(reader.chunks(), this.#limits);
    const before = this.machine;
    const lost = this.#replica.installed(snapshot, machine, decodeSnapshotMeta(meta).members);
    this.#entriesSinceSnapshot = 0;
    this.#bytesSinceSnapshot = 0;
    this.#offered = null;
    this.#write(ready);
    this.tell('info', 'installed a snapshot of the leader', { index: snapshot.index, path });
    offered.resolve();
    if (this.#replica.isStarted) this.#onStarted();
    this.#tellSince(before, lost.length > 0 ? null : this.name);
    if (lost.length > 0) this.#events.onAnswersLost();
    this.#tellApplied();
  }

  /** What a snapshot says that `before` did not. `own`: see `revokedSince`. */
  #tellSince(before: AllotMachine, own: Buffer | null): void {
    const answers = this.#answers;
    if (answers === null) return;
    bornSince(before, this.machine, (subject) => this.born(subject));
    answers.restored();
    revokedSince(before, this.machine, own, ({ subject, hash, base }) =>
      answers.revoked(subject, 0, subject.length, hash, base),
    );
  }

  // --- AllotSink: answers to this process's own requests go to its shards ---

  origin(payload: Uint8Array, nodeStart: number, nodeEnd: number, low: number, high: number): void {
    this.#isOwnOrigin =
      this.#answers !== null &&
      low === this.#low &&
      high === this.#high &&
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
    if (verdict === AllotVerdict.REVOKED && applied) {
      this.#answers?.revoked(names, start, end, hash, base);
      // Its owner may be gone, and readers of every node wait for the mark: looked after with the next tick.
      this.#lookAt = 0;
    }
    // Of what has its verdict the log forgets whose it was: whoever waits for this answer is found by the name.
    const isOver = verdict === AllotVerdict.VOID || verdict === AllotVerdict.SETTLED;
    if (isOver && !applied && this.#isOwnOrigin) this.#answers?.gone(names, start, end, hash, base);
    if (!this.#answersCloses || !this.#isOwn(owner)) return;
    if (verdict === AllotVerdict.STORED && applied) this.#answers?.closed(owner.shard, owner.counter, true);
    // What was revoked cannot be closed as stored; a revoke of it counts as applied however often it comes.
    else if (verdict === AllotVerdict.REVOKED && !applied) this.#answers?.closed(owner.shard, owner.counter, false);
  }

  #isOwn({ node, incarnationLow, incarnationHigh }: AllotmentOwner): boolean {
    return node >= 0 && incarnationLow === this.#low && incarnationHigh === this.#high;
  }

  nodeStarted(_node: number, low: number, high: number): void {
    if (low === this.#low && high === this.#high) this.#onStarted();
  }

  moved(subject: number): void {
    this.#answers?.moved(subject);
  }

  born(subject: number): void {
    this.#answers?.born(subject);
  }

  trimmed(names: Uint8Array, start: number, end: number, hash: number, first: number): void {
    // Another node's shard does it in the store that both have.
    if (this.#isOwnOrigin || this.#links === null) this.#answers?.trimmed(names, start, end, hash, first);
  }
}

export function line(level: LogLine['level'], message: string, fields: LogLine['fields']): LogLine {
  return { kind: 'log', level, message, fields };
}
