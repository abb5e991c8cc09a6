import type { AllotMachine } from '../allot/allot-machine.ts';
import type { AllotLimits } from '../allot/allot-state.ts';
import { LIMITS_BYTES, writeLimits } from '../allot/commands.ts';
import type { AllotmentInfo } from '../allot/queries.ts';
import { soundRun } from '../allot/sound-run.ts';
import type { AllotSink, RunSink } from '../allot/verdicts.ts';
import { assert, unreachable } from '../base/assert.ts';
import { type ProposalResult, RaftCore, type ReadResult } from '../raft/core.ts';
import {
  type ConfigState,
  ENTRY_NORMAL,
  type Entry,
  type Index,
  type Message,
  NOBODY,
  type NodeId,
  type Ready,
  type Role,
  type Snapshot,
  type Term,
} from '../raft/messages.ts';
import { type ChangeAnswer, Changes } from './changes.ts';
import { ENTRY_KIND_ALLOT, ENTRY_KIND_MEMBER } from './entry-kinds.ts';
import { Intake } from './intake.ts';
import { LogClock } from './log-clock.ts';
import { decodeRowChange, encodeRowChange, isSameRow, type MemberRowChange, MemberTable } from './member-table.ts';
import { OwnRuns } from './own-runs.ts';
import { CLOCK_LEAD_MAX_MS, PeerClocks } from './peer-clocks.ts';
import {
  type EntryCodec,
  LIMITS,
  type OutgoingFrame,
  type ReplicaCounters,
  type ReplicaLimits,
  type ReplicaOptions,
} from './replica-options.ts';
import { Supervision } from './supervision.ts';
import type { ClusterView, Member, MemberChange, MemberView, PeerFrame } from './types.ts';

/** Election timeouts in which a change of the members must come to its end. */
const CHANGE_TIMEOUTS = 10;

export type { EntryCodec, OutgoingFrame, ReplicaCounters, ReplicaLimits, ReplicaOptions } from './replica-options.ts';

/**
 * The pure core of a node (docs/adr/0012-cluster.md): what it asks of the log, what it takes in for others while it leads, the members, and
 * the watch over those that are silent. No IO, clock or randomness.
 *
 * The caller's loop: `receive`, `tick`, `submit` at any time; then, while `hasWork()`:
 *   1. `ready(wallMs)`, then `takeFrames()` and send them. null: there is nothing to write or to apply.
 *   2. Install `ready.snapshot` if there is one (its bytes, then `installed`), write `hardState` and `entries` as RaftCore says, to
 *      the WAL and to the storage.
 *   3. `persisted(ready)`, then `takeFrames()` and send them. Several Readies may be under way; they are reported in order.
 *   4. `apply` each of `ready.committedEntries` in order, any time after 1, then `appliedTo` with the last one's index.
 *   5. `ready.readStates`: reads that may go on once `applied` has reached their index.
 *   6. `takeChanges()`, answer them.
 */
export class Replica {
  readonly id: NodeId;
  readonly counters: ReplicaCounters = {
    runsMalformed: 0,
    runsRepeated: 0,
    runsDropped: 0,
    runsResent: 0,
    framesRefused: 0,
  };
  readonly #own: Member;
  readonly #name: Uint8Array;
  readonly #low: number;
  readonly #high: number;
  readonly #core: RaftCore;
  readonly #codec: EntryCodec;
  readonly #limits: ReplicaLimits;
  readonly #electionTicks: number;
  readonly #secondTicks: number;
  readonly #votersMax: number;
  readonly #allotLimits: AllotLimits | null;
  readonly #members: MemberTable;
  readonly #clock: LogClock;
  readonly #runs: OwnRuns;
  readonly #intake: Intake;
  readonly #changes: Changes;
  readonly #supervision: Supervision;
  readonly #clocks: PeerClocks;
  readonly #runSink: RunSink;
  #machine: AllotMachine;
  #frames: OutgoingFrame[] = [];
  #tick = 0;
  /** Wall clock as of the last call that said it, epoch ms. */
  #wallMs = 0;
  /** As of the last look. */
  #role: Role = 'follower';
  #leader: NodeId = NOBODY;
  /** The last other node that led. */
  #followed: NodeId = NOBODY;
  #term: Term = 0;
  /** The entry with which this node's leadership began; 0 elsewhere. */
  #termStart: Index = 0;
  /** The core takes no proposal until something is applied, or a tick has passed. */
  #isBlocked = false;
  /** This node leads, and its clock is too far ahead, or not compared with a majority's yet: it proposes nothing. */
  #isClockDoubtful = false;
  /** Tick at which a run of this node was applied, or sent while none was under way. */
  #progressTick = 0;
  /** The own run that holds the last revokes; no more are made before it is applied. */
  #revokeRun = 0;
  /** The row change that was proposed for a node's own sake; no other is made before it is applied. */
  #rowIndex: Index = 0;
  #isReplaced = false;

  constructor(options: ReplicaOptions) {
    this.#own = options.own;
    this.id = options.own.node;
    this.#name = new TextEncoder().encode(this.id);
    this.#low = options.incarnationLow;
    this.#high = options.incarnationHigh;
    this.#codec = options.codec;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#electionTicks = options.electionTicks;
    this.#secondTicks = Math.max(1, options.secondTicks);
    this.#votersMax = options.votersMax;
    this.#allotLimits = options.allotLimits ?? null;
    this.#machine = options.machine;
    this.#members = new MemberTable(options.members);
    this.#clock = new LogClock(options.machine.time);
    const id = this.id;
    const { electionTicks } = options;
    this.#core = new RaftCore({
      id,
      storage: options.storage,
      applied: options.applied,
      seed: options.seed,
      electionTicks: options.electionTicks,
      heartbeatTicks: options.heartbeatTicks,
    });
    this.#runs = new OwnRuns(this.#name, this.#low, this.#high, this.#limits.runBytesMax);
    this.#intake = new Intake(this.#limits.intakeBytesMax);
    this.#supervision = new Supervision(id, 2 * electionTicks, this.#limits.openMsMax);
    this.#clocks = new PeerClocks(this.#secondTicks);
    const host = {
      core: this.#core,
      members: this.#members,
      proposeRow: (change: MemberRowChange) => this.#proposeRow(change),
      isActive: (node: NodeId) => this.#isActive(node),
    };
    this.#changes = new Changes(host, this.#limits.changesMax, CHANGE_TIMEOUTS * electionTicks);
    this.#runSink = {
      run: (payload, start, end, low, high, run, applied) => this.#onRun(payload, start, end, low, high, run, applied),
    };
  }

  /** Changes with a snapshot of the leader (`installed`). */
  get machine(): AllotMachine {
    return this.#machine;
  }
  get role(): Role {
    return this.#core.role;
  }
  /** '' while none is known. `ready.softState` is set when it or the role changed. */
  get leader(): NodeId {
    return this.#core.leader;
  }
  get term(): Term {
    return this.#core.term;
  }
  get committed(): Index {
    return this.#core.committed;
  }
  get applied(): Index {
    return this.#core.applied;
  }
  get lastIndex(): Index {
    return this.#core.lastIndex();
  }
  /** Epoch ms: of the last entry that this node knows. */
  get logTime(): number {
    return this.#clock.last;
  }
  /** Bytes of runs that are not applied. */
  get outstandingBytes(): number {
    return this.#runs.bytes;
  }
  /** Run 1 was given and is applied: the log knows this process. */
  get isStarted(): boolean {
    return this.#runs.lastApplied > 0;
  }
  /** A later process of the same name has started: nothing of this one is applied any more. It must end. */
  get isReplaced(): boolean {
    return this.#isReplaced;
  }

  /** The voters and learners as of `applied`. */
  configState(): ConfigState {
    return this.#core.configState();
  }

  get isOnlyVoter(): boolean {
    return this.#core.isOnlyVoter;
  }

  member(node: NodeId): Member | null {
    return this.#members.get(node);
  }

  /** The rows of the table of members as of what is applied, by name: for the metadata of a snapshot, and whom to dial. The same array while nothing changes. */
  membersForSnapshot(): readonly Member[] {
    return this.#members.list();
  }

  /** Stands for election now. Of use to a lone voter, which need not wait for its timeout. */
  campaign(): void {
    this.#core.campaign();
    this.#look();
  }

  /** `wallMs`: wall clock, epoch ms. */
  tick(wallMs: number): void {
    this.#seesWall(wallMs);
    this.#tick += 1;
    this.#isBlocked = false;
    this.#core.tick();
    this.#look();
    if (this.#tick % this.#secondTicks === 0) this.#tickSecond(wallMs);
    if (this.#tick % this.#electionTicks === 0) this.#tickElection();
    // Clients of a dead node wait for the verdict on what it had open: each tick counts.
    if (this.#intake.isOpen) this.#supervise(wallMs);
    if (this.#runs.underWay > 0 && this.#tick - this.#progressTick >= this.#electionTicks) this.#sendAgain();
    this.#changes.advance(this.#tick);
    this.#maybePromote();
  }

  /** A frame of a member; `from` is (by its hello) who it says it is. `wallMs`: now. */
  receive(from: NodeId, frame: PeerFrame, wallMs: number): void {
    this.#seesWall(wallMs);
    this.#supervision.heard(from, this.#tick);
    switch (frame.kind) {
      case 'raft':
        if (frame.message.from !== from) this.counters.framesRefused += 1;
        else this.#core.step(frame.message);
        this.#look();
        return;
      case 'runs':
        this.#takeIn(from, frame.runs);
        return;
      case 'member':
        this.#takeRow(from, frame.member);
        return;
      case 'clock':
        if (!Number.isFinite(frame.wallMs)) return;
        this.#clocks.saw(from, frame.wallMs - wallMs, this.#tick);
        this.#checkClock();
        return;
      default:
        unreachable(frame);
    }
  }

  /** Numbers run 1, with which this process may write: before it `submit` takes nothing. Once. */
  start(keepOpen: boolean): void {
    this.#runs.start(keepOpen, this.#machine.startedIndex(this.#name));
    const wanted = this.#allotLimits;
    if (wanted !== null && !isSameLimits(wanted, this.#machine.limits)) this.#runs.add([limitsCommand(wanted)]);
  }

  /** Number of the last run that `submit` made, and of the last that is applied. */
  get lastRun(): number {
    return this.#runs.last;
  }
  get lastAppliedRun(): number {
    return this.#runs.lastApplied;
  }

  /**
   * The commands become runs of this node, in order; each piece, which has no origin in it, stays whole. False: too much is outstanding, and
   * nothing was taken.
   */
  submit(commands: readonly Uint8Array[]): boolean {
    if (!this.#runs.isStarted) return false;
    let bytes = 0;
    for (const each of commands) bytes += each.length;
    // One of any size is let through when nothing waits, or it would be refused for ever.
    if (this.#runs.bytes > 0 && this.#runs.bytes + bytes > this.#limits.outstandingBytesMax) return false;
    this.#runs.add(commands);
    return true;
  }

  hasWork(): boolean {
    return (
      this.#core.hasReady() ||
      this.#frames.length > 0 ||
      this.#changes.hasAnswers ||
      this.#mayPropose() ||
      (this.#core.leader !== NOBODY && this.#runs.hasToSend(this.#limits.windowBytes))
    );
  }

  /** Proposes or forwards what waits, and takes out the work of the core. */
  ready(wallMs: number): Ready | null {
    this.#seesWall(wallMs);
    this.#look();
    this.#forward();
    this.#propose();
    if (!this.#core.hasReady()) return null;
    const ready = this.#core.ready();
    this.#send(ready.messages);
    return ready;
  }

  takeFrames(): OutgoingFrame[] {
    const frames = this.#frames;
    this.#frames = [];
    return frames;
  }

  persisted(ready: Ready): void {
    this.#core.persisted(ready);
    this.#send(ready.messagesAfterPersist);
    this.#look();
  }

  /** Answers of runs that are applied go to `sink`, as AllotMachine.apply gives them; those of skipped runs are none. */
  apply(entry: Entry, sink: AllotSink): void {
    if (entry.type !== ENTRY_NORMAL || entry.data.length === 0) return;
    const { kind, time, payload } = this.#codec.decode(entry.data);
    this.#clock.saw(time);
    if (kind === ENTRY_KIND_MEMBER) this.#members.apply(decodeRowChange(payload));
    else {
      assert(kind === ENTRY_KIND_ALLOT, () => `log entry of unknown kind ${kind}`);
      this.#machine.apply(entry.index, time, payload, sink, this.#runSink);
    }
  }

  appliedTo(index: Index): void {
    this.#core.appliedTo(index);
    this.#isBlocked = false;
    this.#look();
    this.#changes.advance(this.#tick);
  }

  /**
   * A snapshot of the leader is installed: before `persisted` of its Ready. Returns the own runs that are applied in it: their answers
   * will never come.
   */
  installed(snapshot: Snapshot, machine: AllotMachine, members: readonly Member[]): Uint8Array[] {
    assert(machine.index <= snapshot.index, 'a snapshot holds more than it says');
    this.#machine = machine;
    this.#members.replace(members);
    this.#clock.saw(machine.time);
    const lastRun = machine.lastRun(this.#name, this.#low, this.#high);
    if (lastRun >= 0) return this.#runs.appliedTo(lastRun);
    if (this.#runs.lastApplied > 0) this.#isReplaced = true;
    else if (this.#runs.isStarted) this.#runs.skipped(1, machine.startedIndex(this.#name));
    return [];
  }

  /** Answered by a ReadState of a later Ready with this number; may never be. */
  readIndex(context: number): ReadResult {
    return this.#core.readIndex(context);
  }

  reportUnreachable(node: NodeId): void {
    this.#core.reportUnreachable(node);
  }

  /** Must follow every snapshot message. */
  reportSnapshot(node: NodeId, outcome: 'delivered' | 'failed'): void {
    this.#core.reportSnapshot(node, outcome);
  }

  /** Answered by `takeChanges`, sooner or later. */
  change(token: number, change: MemberChange): void {
    this.#changes.add(token, change, this.#tick);
    this.#look();
  }

  takeChanges(): ChangeAnswer[] {
    return this.#changes.takeAnswers();
  }

  /** Leader: revoked allotments whose owner will not mark them void, at most `limit`. Elsewhere none. */
  orphans(limit: number, visit: (allotment: AllotmentInfo) => void): void {
    if (!this.#intake.isOpen) return;
    const isMember = (node: NodeId): boolean => this.#isMember(node);
    this.#supervision.orphans(this.#machine, this.#tick, this.#timeOfNext(this.#wallMs), isMember, limit, visit);
  }

  view(): ClusterView {
    const { leader, term, committed, applied } = this.#core;
    const { voters, learners } = this.#core.configState();
    const matches = new Map(this.#core.status().peers.map(({ node, match }) => [node, match]));
    matches.set(this.id, this.#core.lastIndex());
    const isLeading = this.#core.role === 'leader';
    const members: MemberView[] = [...voters, ...learners].sort().map((node) => {
      const row = this.#members.get(node) ?? { node, instance: '', raft: '', grpc: '', protocol: 0 };
      return {
        ...row,
        isVoter: voters.includes(node),
        isLeader: node === leader,
        match: isLeading ? (matches.get(node) ?? 0) : -1,
        isActive: isLeading && this.#isActive(node),
        openAllotments: this.#machine.unresolvedOf(new TextEncoder().encode(node)),
        clockOffsetMs: node === this.id ? 0 : this.#clocks.leastOffsetOf(node, this.#tick),
      };
    });
    return { node: this.id, leader, term, lastIndex: this.#core.lastIndex(), committed, applied, members };
  }

  /** What a change of leader, role or term brings with it. Behind every call that may have changed them. */
  #look(): void {
    const { role, leader, term, applied } = this.#core;
    if (role !== this.#role || leader !== this.#leader || term !== this.#term) {
      const wasLeading = this.#role === 'leader' && (role !== 'leader' || term !== this.#term);
      const isNew = role === 'leader' && (this.#role !== 'leader' || term !== this.#term);
      this.#role = role;
      this.#leader = leader;
      if (leader !== NOBODY && leader !== this.id) this.#followed = leader;
      this.#term = term;
      if (wasLeading) this.#becomeFollower();
      if (isNew) this.#becomeLeader();
      if (leader !== NOBODY) this.#sendAgain();
      // It proposes nothing before it has heard it.
      if (leader !== NOBODY && leader !== this.id)
        this.#frames.push({ to: leader, frame: { kind: 'clock', wallMs: this.#wallMs } });
    }
    if (this.#termStart > 0 && applied >= this.#termStart && !this.#intake.isOpen) this.#intake.open(this.#machine);
  }

  #becomeLeader(): void {
    // Looked at before anything else is proposed.
    this.#termStart = this.#core.lastIndex();
    this.#supervision.lead(this.#tick, this.#followed);
    this.#intake.clear();
    this.#isBlocked = false;
    this.#revokeRun = 0;
    this.#rowIndex = 0;
    this.#checkClock();
  }

  #becomeFollower(): void {
    this.#termStart = 0;
    this.#isClockDoubtful = false;
    // Its senders send again, to whoever leads.
    this.#intake.clear();
    this.#changes.lost();
  }

  #sendAgain(): void {
    this.counters.runsResent += this.#runs.underWay;
    this.#runs.sendAgain();
    this.#progressTick = this.#tick;
  }

  /** Gives the leader, which may be this node, the next runs of this node. */
  #forward(): void {
    const leader = this.#core.leader;
    if (leader === NOBODY || !this.#runs.hasToSend(this.#limits.windowBytes)) return;
    if (this.#runs.underWay === 0) this.#progressTick = this.#tick;
    const runs = this.#runs.takeToSend(this.#limits.windowBytes);
    if (leader !== this.id) {
      for (const part of inParts(runs, this.#limits.entryBytesMax)) {
        this.#frames.push({ to: leader, frame: { kind: 'runs', runs: part } });
      }
    } else for (const run of runs) this.#takeRun(this.id, this.#name, run);
  }

  #takeIn(from: NodeId, runs: readonly Uint8Array[]): void {
    if (this.#termStart === 0 || !this.#isMember(from)) {
      this.counters.framesRefused += 1;
      return;
    }
    const name = new TextEncoder().encode(from);
    for (const run of runs) this.#takeRun(from, name, run);
  }

  #takeRun(from: NodeId, name: Uint8Array, run: Uint8Array): void {
    const header = soundRun(run);
    if (header === null || !isSameBytes(run, header.nodeStart, header.nodeEnd, name)) {
      this.counters.runsMalformed += 1;
      return;
    }
    const result = this.#intake.add(from, name, header, run, this.#machine);
    if (result === 'repeated') this.counters.runsRepeated += 1;
    else if (result === 'dropped') this.counters.runsDropped += 1;
  }

  #mayPropose(): boolean {
    return this.#intake.isOpen && !this.#intake.isEmpty && !this.#isBlocked && !this.#isClockDoubtful;
  }

  #propose(): void {
    while (this.#mayPropose()) {
      const runs = this.#intake.front(this.#limits.entryBytesMax);
      const result = this.#proposeEntry(ENTRY_KIND_ALLOT, concat(runs));
      if (result !== 'accepted') {
        this.#isBlocked = true;
        return;
      }
      this.#intake.proposed(runs.length);
    }
  }

  #proposeEntry(kind: number, payload: Uint8Array): ProposalResult {
    return this.#core.propose(this.#codec.encode({ kind, time: this.#clock.next(this.#wallMs), payload }));
  }

  /** The entry's index, or 0. */
  #proposeRow(change: MemberRowChange): Index {
    if (!this.#intake.isOpen || this.#isClockDoubtful) return 0;
    const result = this.#proposeEntry(ENTRY_KIND_MEMBER, encodeRowChange(change));
    return result === 'accepted' ? this.#core.lastIndex() : 0;
  }

  #onRun(
    payload: Uint8Array,
    start: number,
    end: number,
    low: number,
    high: number,
    run: number,
    applied: boolean,
  ): void {
    const isOwn = low === this.#low && high === this.#high && isSameBytes(payload, start, end, this.#name);
    const lastRun = applied ? run : this.#machine.lastRun(payload.subarray(start, end), low, high);
    if (isOwn) {
      if (applied) this.#runs.appliedTo(run);
      else if (run > lastRun) this.#ownSkipped(run, lastRun);
      this.#progressTick = this.#tick;
    } else if (applied && run === 1 && this.#runs.lastApplied > 0 && isSameBytes(payload, start, end, this.#name)) {
      this.#isReplaced = true;
    }
    if (!applied && run > lastRun) {
      this.#intake.skipped(new TextDecoder().decode(payload.subarray(start, end)), low, high, this.#machine);
    }
  }

  #ownSkipped(run: number, lastRun: number): void {
    if (lastRun < 0 && this.#runs.lastApplied > 0) this.#isReplaced = true;
    else this.#runs.skipped(run, this.#machine.startedIndex(this.#name));
  }

  #tickSecond(wallMs: number): void {
    this.#broadcast({ kind: 'clock', wallMs });
    this.#checkClock();
  }

  #broadcast(frame: PeerFrame): void {
    const { voters, learners } = this.#core.configState();
    for (const to of [...voters, ...learners]) if (to !== this.id) this.#frames.push({ to, frame });
  }

  /** Between two looks a clock that nobody sets goes on by less than this. */
  #seesWall(wallMs: number): void {
    const isStep = wallMs - this.#wallMs > CLOCK_LEAD_MAX_MS;
    this.#wallMs = wallMs;
    if (!isStep) return;
    this.#clocks.forget();
    this.#checkClock();
  }

  /** Design section 2, log time: a leader that is far ahead would make everybody's messages expire early, for ever. */
  #checkClock(): void {
    if (this.#core.role !== 'leader') return;
    const { isUsable, behind } = this.#clocks.judge(this.#core.configState().voters, this.id, this.#tick);
    this.#isClockDoubtful = !isUsable;
    const target = this.#changes.bestVoter(behind);
    if (target !== NOBODY) this.#core.transferLeadership(target);
  }

  #tickElection(): void {
    const { voters, learners } = this.#core.configState();
    const nodes = [...voters, ...learners];
    this.#supervision.keepOnly(nodes);
    this.#clocks.keepOnly(nodes);
    this.#announce();
    if (!this.#intake.isOpen || !this.#changes.isIdle) return;
    this.#sweepRows(nodes);
  }

  /**
   * A learner that has caught up becomes a voter (R16); the core says which has. Tried with every tick: each election timeout the core forgets
   * for a moment whom it has heard of.
   */
  #maybePromote(): void {
    if (!this.#intake.isOpen || !this.#changes.isIdle) return;
    const { voters, learners } = this.#core.configState();
    if (learners.length === 0 || voters.length >= this.#votersMax) return;
    for (const node of learners) {
      const result = this.#core.proposeConfigChange({ kind: 'add-voter', node, context: new Uint8Array(0) });
      if (result !== 'not-caught-up') return;
    }
  }

  /** Rows that an unfinished change has left. */
  #sweepRows(nodes: readonly NodeId[]): void {
    if (this.#rowIndex > this.#core.applied) return;
    const row = this.#members.list().find(({ node }) => !nodes.includes(node));
    if (row !== undefined) this.#rowIndex = this.#proposeRow({ op: 'delete', node: row.node });
  }

  #supervise(wallMs: number): void {
    if (!this.#runs.isStarted || this.#runs.lastApplied < this.#revokeRun || this.#isClockDoubtful) return;
    const commands = this.#supervision.revokes(this.#machine, this.#tick, this.#timeOfNext(wallMs));
    if (commands.length === 0) return;
    this.#runs.add(commands);
    this.#revokeRun = this.#runs.last;
  }

  /** The time that the next entry would have: in a log that stands still nothing would ever be old. */
  #timeOfNext(wallMs: number): number {
    return Math.max(this.#clock.last, wallMs);
  }

  /** Has the cluster's row of this node say what this node is. */
  #announce(): void {
    const row = this.#members.get(this.id);
    const isOther = row !== null && row.instance !== this.#own.instance;
    if (isOther || (row !== null && isSameRow(row, this.#own)) || !this.#isMember(this.id)) return;
    if (this.#core.leader === this.id) this.#takeRow(this.id, this.#own);
    // Who leads cannot reach this node at its former address, so it may know of no leader: it tells everybody (G4).
    else this.#broadcast({ kind: 'member', member: this.#own });
  }

  #takeRow(from: NodeId, member: Member): void {
    if (member.node !== from || !this.#isMember(from)) {
      this.counters.framesRefused += 1;
      return;
    }
    if (!this.#intake.isOpen || !this.#changes.isIdle || this.#rowIndex > this.#core.applied) return;
    const row = this.#members.get(from);
    if (row !== null && (row.instance !== member.instance || isSameRow(row, member))) return;
    // A member without a row is from before there were any.
    this.#rowIndex = this.#proposeRow({ op: row === null ? 'set' : 'update', member });
  }

  #isActive(node: NodeId): boolean {
    return this.#supervision.isActive(node, this.#tick, this.#electionTicks);
  }

  #isMember(node: NodeId): boolean {
    const { voters, learners } = this.#core.configState();
    return voters.includes(node) || learners.includes(node);
  }

  #send(messages: readonly Message[]): void {
    for (const message of messages) this.#frames.push({ to: message.to, frame: { kind: 'raft', message } });
  }
}

function isSameLimits(a: AllotLimits, b: AllotLimits): boolean {
  return a.subjectsMax === b.subjectsMax && a.producersMax === b.producersMax && a.openPerNodeMax === b.openPerNodeMax;
}

function limitsCommand({ subjectsMax, producersMax, openPerNodeMax }: AllotLimits): Uint8Array {
  const bytes = new Uint8Array(LIMITS_BYTES);
  writeLimits(new DataView(bytes.buffer), 0, subjectsMax, producersMax, openPerNodeMax);
  return bytes;
}

function isSameBytes(bytes: Uint8Array, start: number, end: number, name: Uint8Array): boolean {
  if (end - start !== name.length) return false;
  for (let i = 0; i < name.length; i++) if (bytes[start + i] !== name[i]) return false;
  return true;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** Neighbours together, each part of at most `bytesMax` unless it is one. */
function inParts(runs: readonly Uint8Array[], bytesMax: number): Uint8Array[][] {
  const parts: Uint8Array[][] = [];
  let part: Uint8Array[] = [];
  let bytes = 0;
  for (const run of runs) {
    if (part.length > 0 && bytes + run.length > bytesMax) {
      parts.push(part);
      part = [];
      bytes = 0;
    }
    part.push(run);
    bytes += run.length;
  }
  if (part.length > 0) parts.push(part);
  return parts;
}
