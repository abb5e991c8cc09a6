import { AllotMachine } from '../../src/allot/allot-machine.ts';
import type { AllotLimits } from '../../src/allot/allot-state.ts';
import type { AllotmentInfo } from '../../src/allot/queries.ts';
import { crc32 } from '../../src/base/checksum.ts';
import { isPlanted } from '../../src/base/planted.ts';
import type { Prng } from '../../src/base/prng.ts';
import { subjectHash } from '../../src/base/subject.ts';
import type { MemoryRaftStorage } from '../../src/raft/memory-storage.ts';
import type { Entry, NodeId, Ready, Snapshot } from '../../src/raft/messages.ts';
import { hearingOf, isHeard, SpokenTo } from '../../src/replica/admission.ts';
import { revokedSince } from '../../src/replica/after-snapshot.ts';
import { Replica } from '../../src/replica/replica.ts';
import { type Member, type MemberChange, type PeerFrame, PROTOCOL_VERSION } from '../../src/replica/types.ts';
import { EnvelopeCodec } from '../../src/storage/raft-wal/envelope.ts';
import { type ClusterOracle, EntrySink, type NodeEars } from './cluster-oracle.ts';
import { SimShard } from './cluster-shard.ts';
import type { SimStore } from './cluster-store.ts';
import { type RaftCheckers, SafetyViolation } from './raft-checkers.ts';
import { SimDisk } from './raft-disk.ts';

export const LIMITS: AllotLimits = { subjectsMax: 1_000, producersMax: 1_000, openPerNodeMax: 10_000 };
export const ELECTION_TICKS = 10;
export const TICK_MS = 100;
const HEARTBEAT_TICKS = 1;
const VOTERS_MAX = 3;
const CHUNK_BYTES = 4_096;
const ORPHANS_A_LOOK = 64;
/** Readies of one step. The core has no clock: what gives more than these gives them for ever. */
const READIES_A_STEP = 10_000;
/** Between two looks for orphans, in ticks: once a second. */
const LOOK_TICKS = 10;

/** What a snapshot holds beyond the metadata that Raft knows. */
export interface SnapshotBytes {
  readonly chunks: readonly Uint8Array[];
  readonly members: readonly Member[];
}

export interface ClusterWorld {
  readonly now: number;
  readonly prng: Prng;
  readonly checkers: RaftCheckers;
  readonly oracle: ClusterOracle;
  readonly store: SimStore;
  readonly snapshots: Map<string, SnapshotBytes>;
  readonly writeStepsMax: number;
  /** How long anybody may have ids open, in ms of log time. */
  readonly openMsMax: number;
  send(from: ClusterNode, to: NodeId, frame: PeerFrame): void;
  disk(node: NodeId): DiskProof;
}

export interface Letter {
  readonly from: ClusterNode;
  /** Of the sender, when it sent this. */
  readonly instance: string;
  readonly to: NodeId;
  /** Whom the sender takes it for; '' if its table does not say. */
  readonly toInstance: string;
  readonly frame: PeerFrame;
}

/** Also of what was durable on a disk that is lost by now. */
export type DiskProof = Pick<SimDisk, 'holds'>;

interface Write {
  readonly ready: Ready;
  readonly doneAt: number;
}

/** A data directory, and the process that runs on it or not: the Replica of production over a disk that loses what was not finished. */
export class ClusterNode implements NodeEars {
  readonly id: NodeId;
  readonly #world: ClusterWorld;
  disk = new SimDisk();
  instance = '';
  replica: Replica | null = null;
  shard: SimShard | null = null;
  #storage: MemoryRaftStorage | null = null;
  #sink: EntrySink | null = null;
  #writes: Write[] = [];
  #spokenTo = new SpokenTo();
  #committedSeen = 0;
  #isStarted = false;
  /** Its own requests are in a snapshot that it was sent: nobody will answer them, and the process ends. */
  #isLost = false;
  /** Disks of earlier instances. */
  readonly #lost: SimDisk[] = [];
  #snapshots = 0;
  /** SIGSTOP: neither ticks nor messages until this step. */
  pausedUntil = 0;
  /** The next write that has to be synced fails (EIO). The process ends then, as in production, and nobody knows how much of it is on the disk. */
  isDiskFailing = false;
  ioErrors = 0;
  /** Changes of members that it was asked for and has not answered. */
  changing = 0;
  /** Answers that the clients of this process wait for end here with it. */
  life = 0;
  ticks = 0;

  constructor(id: NodeId, world: ClusterWorld) {
    this.id = id;
    this.#world = world;
    this.renew();
  }

  holds(index: number, term: number): boolean {
    return [this.disk, ...this.#lost].some((disk) => disk.holds(index, term));
  }

  get isUp(): boolean {
    return this.replica !== null;
  }

  /** Takes publishes. */
  get isServing(): boolean {
    return this.replica !== null && this.#isStarted;
  }

  get isIdle(): boolean {
    return this.#writes.length === 0 && (this.shard?.isIdle ?? true);
  }

  get member(): Member {
    return {
      node: this.id,
      instance: this.instance,
      raft: `${this.id}:12000`,
      grpc: `${this.id}:8081`,
      protocol: PROTOCOL_VERSION,
    };
  }

  /** Another data directory, empty. */
  renew(): void {
    const { prng } = this.#world;
    this.#lost.push(this.disk);
    this.disk = new SimDisk();
    this.instance = Array.from({ length: 4 }, () => prng.nextUint32().toString(16).padStart(8, '0')).join('');
  }

  start(): void {
    const { prng, oracle } = this.#world;
    const storage = this.disk.load();
    const { snapshot } = this.disk;
    const bytes = snapshot === null ? null : this.#bytesOf(snapshot);
    const machine = bytes === null ? new AllotMachine(LIMITS) : AllotMachine.restore(bytes.chunks, LIMITS);
    const [low, high] = [prng.nextUint32(), prng.nextUint32()];
    this.#storage = storage;
    const replica = new Replica({
      own: this.member,
      incarnationLow: low,
      incarnationHigh: high,
      storage,
      applied: snapshot?.index ?? 0,
      seed: prng.nextUint32(),
      heartbeatTicks: HEARTBEAT_TICKS,
      electionTicks: ELECTION_TICKS,
      secondTicks: LOOK_TICKS,
      machine,
      members: bytes?.members ?? [],
      codec: new EnvelopeCodec(),
      votersMax: VOTERS_MAX,
      allotLimits: LIMITS,
      limits: { openMsMax: this.#world.openMsMax },
    });
    this.replica = replica;
    const world = this.#world;
    this.shard = new SimShard({
      get now() {
        return world.now;
      },
      store: world.store,
      submit: (commands) => replica.submit(commands),
      onAck: (publish, base) => oracle.onAck(publish, base),
    });
    this.#sink = new EntrySink({
      node: Buffer.from(this.id),
      low,
      high,
      ears: this,
      oracle,
      nameOf: (subject) => new TextDecoder().decode(replica.machine.nameOf(subject)),
    });
    this.#spokenTo = new SpokenTo();
    this.#committedSeen = snapshot?.index ?? 0;
    this.#isStarted = false;
    this.#isLost = false;
    this.isDiskFailing = false;
    this.changing = 0;
    this.life += 1;
    this.ticks = 0;
    replica.start(true);
  }

  #bytesOf({ ref }: Snapshot): SnapshotBytes {
    const bytes = this.#world.snapshots.get(ref);
    if (bytes === undefined) {
      throw new Error(`no snapshot ${ref}`);
    }
    return bytes;
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
    this.replica = null;
    this.shard = null;
    this.#storage = null;
    this.#sink = null;
    this.#writes = [];
  }

  tick(wallMs: number): void {
    const replica = this.#running();
    this.ticks += 1;
    replica.tick(wallMs);
    if (this.ticks % LOOK_TICKS === 0) {
      replica.orphans(ORPHANS_A_LOOK, ({ subject, base, count }) => {
        this.shard?.mark(new TextDecoder().decode(subject), base, count);
      });
    }
  }

  change(change: MemberChange): void {
    this.changing += 1;
    this.#running().change(1, change);
  }

  /** Which instance what this node sends is for; '' for whichever it is. */
  instanceOf(to: NodeId): string {
    const row = this.replica?.member(to) ?? null;
    return row === null ? '' : this.#spokenTo.instanceOf(row);
  }

  /** As src/net and its use: each side speaks only to the instance that its table names (R23), or answers another one that asks. */
  receive({ from, instance, toInstance, frame }: Letter, wallMs: number): void {
    const replica = this.#running();
    const isMeant = toInstance === '' || toInstance === this.instance || isPlanted('R23-any-instance');
    const members = replica.membersForSnapshot();
    const hearing = hearingOf(members, replica.leader, from.id, instance);
    if (isMeant && from.instance === instance) {
      this.#spokenTo.heard(members, from.id, instance, hearing);
    }
    if (!isMeant || !isHeard(hearing, frame)) {
      return;
    }
    replica.receive(from.id, frame, wallMs);
    if (frame.kind === 'raft') {
      this.#world.checkers.onHeard(this.id, frame.message, this.ticks);
    }
  }

  /** What is due in this step. */
  run(wallMs: number): void {
    this.#finishWrites();
    if (this.isUp) {
      this.#drive(wallMs);
    }
    if (this.isUp) {
      this.shard?.step();
      this.#drive(wallMs);
    }
    if (!this.isUp) {
      return;
    }
    const replica = this.#running();
    const { role, term } = replica;
    if (role === 'leader') {
      const { checkers } = this.#world;
      checkers.onLeader(this.id, term);
      checkers.onLeading(this.id, { ...replica.configState(), term, ticks: this.ticks });
    }
    if (this.#isLost || replica.isReplaced) {
      this.crash();
    }
  }

  #running(): Replica {
    if (this.replica === null) {
      throw new Error(`${this.id} is down`);
    }
    return this.replica;
  }

  get #isInstalling(): boolean {
    return this.#writes.at(-1)?.ready.snapshot != null;
  }

  #drive(wallMs: number): void {
    const replica = this.#running();
    const { prng, now, writeStepsMax, checkers } = this.#world;
    for (let taken = 0; !this.#isInstalling && this.#writes.length < 8 && replica.hasWork(); taken += 1) {
      if (taken === READIES_A_STEP) {
        throw new SafetyViolation(`${this.id} has work without end: ${JSON.stringify(replica.view())}`);
      }
      const ready = replica.ready(wallMs);
      this.#sendFrames();
      this.changing -= replica.takeChanges().length;
      if (ready === null) {
        continue;
      }
      const first = ready.entries[0];
      if (first !== undefined) {
        checkers.onAppend(ready.entries, this.#termBefore(first.index, ready));
      }
      this.#applyAll(ready);
      this.#writes.push({ ready, doneAt: now + (ready.mustSync ? prng.nextBelow(writeStepsMax + 1) : 0) });
      this.#finishWrites();
      if (!this.isUp) {
        return;
      }
    }
    this.#sendFrames();
    this.#watchCommit();
  }

  #sendFrames(): void {
    for (const { to, frame } of this.#running().takeFrames()) {
      if (frame.kind === 'raft') {
        this.#world.checkers.onSend(frame.message, this.disk);
      }
      this.#world.send(this, to, frame);
    }
  }

  /** -1 where it is compacted away, or not on its way to the disk yet. */
  #termOf(index: number): number {
    for (const { ready } of [...this.#writes].reverse()) {
      const first = ready.entries[0]?.index ?? Number.POSITIVE_INFINITY;
      if (first <= index) {
        return ready.entries[index - first]?.term ?? -1;
      }
    }
    return this.#storage?.term(index) ?? -1;
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

  #finishWrites(): void {
    const replica = this.#running();
    const storage = this.#storage as MemoryRaftStorage;
    const { checkers } = this.#world;
    while (this.#writes[0] !== undefined && this.#writes[0].doneAt <= this.#world.now) {
      if (this.isDiskFailing && this.#writes[0].ready.mustSync) {
        this.ioErrors += 1;
        this.crash();
        return;
      }
      const { ready } = this.#writes.shift() as Write;
      this.disk.write(ready);
      if (ready.snapshot !== null) {
        const bytes = this.#bytesOf(ready.snapshot);
        storage.applySnapshot(ready.snapshot);
        const before = replica.machine;
        const lost = replica.installed(ready.snapshot, AllotMachine.restore(bytes.chunks, LIMITS), bytes.members);
        this.#isLost ||= lost.length > 0;
        if (!this.#isLost) {
          revokedSince(before, replica.machine, Buffer.from(this.id), ({ subject, base }) =>
            this.shard?.revoked(new TextDecoder().decode(subject), base),
          );
        }
        checkers.onMachineState(this.id, ready.snapshot.index, this.#stateHash());
      }
      if (ready.hardState !== null) {
        storage.setHardState(ready.hardState);
      }
      storage.append(ready.entries);
      replica.persisted(ready);
      this.#watchCommit();
      this.#sendFrames();
    }
  }

  #applyAll({ committedEntries }: Ready): void {
    const replica = this.#running();
    const { checkers } = this.#world;
    this.#watchCommit();
    for (const entry of committedEntries) {
      this.#apply(entry);
      replica.appliedTo(entry.index);
      checkers.onApply(this.id, entry, this.#stateHash(), this.disk);
    }
  }

  #apply(entry: Entry): void {
    const { oracle } = this.#world;
    const sink = this.#sink as EntrySink;
    const replica = this.#running();
    sink.isNews = entry.index > oracle.index;
    sink.moves.clear();
    replica.apply(entry, sink);
    if (!sink.isNews) {
      return;
    }
    oracle.index = entry.index;
    for (const subject of sink.moves) {
      oracle.onSettled(new TextDecoder().decode(replica.machine.nameOf(subject)), replica.machine.settled(subject));
    }
  }

  /** The chain of the state machine, and the table of members. */
  #stateHash(): number {
    const replica = this.#running();
    return crc32(Buffer.from(JSON.stringify(replica.membersForSnapshot())), replica.machine.hash());
  }

  #watchCommit(): void {
    const replica = this.#running();
    const { checkers } = this.#world;
    const { committed } = replica;
    for (let index = this.#committedSeen + 1; index <= committed; index += 1) {
      const term = this.#termOf(index);
      // Of another term there may be an older version on the disk than the core has; that is looked at when it is applied.
      if (replica.role === 'leader' && term === replica.term) {
        const { voters } = replica.configState();
        checkers.onCommitted(this.id, index, term);
        checkers.onLeaderCommit(this.id, index, term, voters, (node) => this.#world.disk(node));
      }
    }
    this.#committedSeen = Math.max(this.#committedSeen, committed);
  }

  /** A snapshot of what is applied; the log keeps a tail of some entries. */
  compact(): void {
    const replica = this.#running();
    const storage = this.#storage as MemoryRaftStorage;
    const index = replica.applied;
    if (index <= (this.disk.snapshot?.index ?? 0) || this.#isInstalling) {
      return;
    }
    this.#snapshots += 1;
    const ref = `${this.instance}/${this.#snapshots}`;
    this.#world.snapshots.set(ref, snapshotOf(replica.machine, replica.membersForSnapshot()));
    const snapshot = storage.createSnapshot(index, replica.configState(), ref);
    const upTo = Math.max(0, index - this.#world.prng.nextBelow(8));
    storage.compact(upTo);
    this.disk.compact(snapshot, upTo);
  }

  read(subject: string): void {
    const { machine } = this.#running();
    const name = Buffer.from(subject);
    const number = machine.find(name, 0, name.length, subjectHash(name, 0, name.length));
    if (number >= 0) {
      this.#world.oracle.onRead(this.id, subject, machine.settled(number));
    }
  }

  // --- answers of the log to this process ---

  started(): void {
    this.#isStarted = true;
    const { machine } = this.#running();
    const left: AllotmentInfo[] = [];
    const keep = (allotment: AllotmentInfo): undefined => {
      left.push(allotment);
    };
    machine.openAllotmentsOf(Buffer.from(this.id), keep);
    machine.revokedAllotmentsOf(Buffer.from(this.id), keep);
    this.shard?.takeOver(left);
  }

  opened(counter: number, base: number): void {
    this.shard?.opened(counter, base);
  }

  openRefused(counter: number): void {
    this.shard?.openRefused(counter);
  }

  partsOpened(counter: number, base: number, parts: Parameters<NodeEars['partsOpened']>[2]): void {
    this.shard?.partsOpened(counter, base, parts);
  }

  closed(counter: number, isApplied: boolean): void {
    this.shard?.closed(counter, isApplied);
  }

  revoked(subject: string, base: number): void {
    this.shard?.revoked(subject, base);
  }

  gone(subject: string, base: number): void {
    this.shard?.gone(subject, base);
  }
}

export function snapshotOf(machine: AllotMachine, members: readonly Member[]): SnapshotBytes {
  const chunks: Uint8Array[] = [];
  const writer = machine.beginSnapshot();
  for (let chunk = writer.nextChunk(CHUNK_BYTES); chunk !== null; chunk = writer.nextChunk(CHUNK_BYTES)) {
    chunks.push(Uint8Array.from(chunk));
  }
  return { chunks, members };
}
