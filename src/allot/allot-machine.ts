import { assert } from '../base/assert.ts';
import { readSafeUint } from '../base/bytes.ts';
import { crc32 } from '../base/checksum.ts';
import { REASON_CODE } from '../base/errors.ts';
import { SLOT_COUNT, subjectHash } from '../base/subject.ts';
import type { SubjectScope } from '../base/subject-space.ts';
import { type AllotCounts, type AllotLimits, AllotState, rowOfSubject, subjectNumber } from './allot-state.ts';
import {
  CLOSE_HEADER,
  FLOOR_BYTES,
  Kind,
  LIMITS_BYTES,
  NODE_STARTED_AFTER_BYTES,
  NODE_STARTED_BYTES,
  OPEN_HEADER,
  OpenFlag,
  ORIGIN_HEADER,
  ORIGIN_RUN_HEADER,
  PRODUCER_BYTES_MAX,
  PRODUCER_COMMAND_HEADER,
  REVOKE_NODE_HEADER,
  RevokeReach,
  StartedFlag,
} from './commands.ts';
import { PartsOpener } from './parts-opener.ts';
import { BUCKET_COUNT } from './producers.ts';
import {
  type AllotmentInfo,
  allotmentInfo,
  listSubjects,
  reportOf,
  type SubjectReport,
  type SubjectVisitor,
  unresolvedOf,
} from './queries.ts';
import { Revocations } from './revocations.ts';
import { type SlotSubjects, SubjectFlag } from './slot-subjects.ts';
import { restoreState } from './snapshot-reader.ts';
import { SnapshotWriter } from './snapshot-writer.ts';
import { AllotmentOwner, type AllotSink, AllotVerdict, NO_SINK, type RunSink } from './verdicts.ts';

/** What a refusal adds to the chain of hashes: not its reason code, whose number is the process's own. */
const REFUSED = 0;

/**
 * The replicated state machine (design section 7). Its state changes only inside `apply`, in the order of the log, so that every replica
 * that has applied the same entries is in the same state and has given the same answers. Commands come from our own log: a malformed
 * one is an AssertionError. What a client may cause (a full table, a used sequence) is an answer.
 */
export class AllotMachine {
  readonly #state: AllotState;
  readonly #parts: PartsOpener;
  readonly #revocations: Revocations;
  readonly #owner = new AllotmentOwner();
  /** The entry being applied. */
  #payload: Uint8Array = new Uint8Array(0);
  #sink: AllotSink = NO_SINK;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;
  /** Where the commands of the run end, or the payload. */
  #end = 0;
  /** The process that the last ORIGIN of this payload named; node -1 = unknown or none. */
  #node = -1;
  #nodeStart = 0;
  #nodeEnd = 0;
  #incarnationLow = 0;
  #incarnationHigh = 0;
  #hasOrigin = false;
  /** Whether it is its node's latest, so that it may open. */
  #latest = false;

  constructor(limits: AllotLimits, state = new AllotState(limits)) {
    this.#state = state;
    this.#parts = new PartsOpener(state);
    this.#revocations = new Revocations(state);
  }

  /** Rebuilds a machine from all chunks of one snapshot, in order. Damage, a missing or a doubled chunk is an AssertionError. */
  static restore(chunks: Iterable<Uint8Array>, limits: AllotLimits): AllotMachine {
    const state = new AllotState(limits);
    restoreState(state, chunks);
    return new AllotMachine(limits, state);
  }

  /** As the log has set them, or what this machine was made with. */
  get limits(): AllotLimits {
    return this.#state.limits;
  }

  /** Raft index of the last entry applied. */
  get index(): number {
    return this.#state.index;
  }

  /** Log time of the last entry applied, ms since 1970. */
  get time(): number {
    return this.#state.time;
  }

  /** Subjects that do not exist yet start behind it (`cluster recover`). */
  get floor(): number {
    return this.#state.floor;
  }

  /**
   * Applies one committed entry. `index` rises, `time` (log time, ms) never falls; both asserted. `payload`: a run of commands, see
   * commands.ts; it is not kept. Answers go to `sink` during the call, and what became of each run to `runs`.
   */
  apply(index: number, time: number, payload: Uint8Array, sink: AllotSink, runs: RunSink | null = null): void {
    const state = this.#state;
    assert(index > state.index && Number.isSafeInteger(index), () => `index ${index} is not above ${state.index}`);
    assert(time >= state.time && Number.isSafeInteger(time), () => `log time ${time} is below ${state.time}`);
    state.index = index;
    state.time = time;
    state.chain = crc32(payload, state.chain >>> 0);
    this.#state.mix(index);
    this.#state.mix(time);
    state.producers.expire(index % BUCKET_COUNT, time);
    this.#payload = payload;
    this.#sink = sink;
    this.#view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    this.#hasOrigin = false;
    this.#at = 0;
    this.#end = payload.length;
    while (this.#at < payload.length) {
      if (payload[this.#at] === Kind.ORIGIN_RUN) this.#applyRun(sink, runs);
      else this.#command(sink);
    }
    assert(this.#at === payload.length, 'the last command runs past the end of its entry');
  }

  /** A number for a subject that stays the same for ever, or -1 if nothing was ever published to it. `hash`: its subjectHash. */
  find(bytes: Uint8Array, start: number, end: number, hash: number): number {
    const slot = this.#state.slots[hash & (SLOT_COUNT - 1)] ?? null;
    if (slot === null) return -1;
    const row = slot.names.find(bytes, start, end, hash);
    return row < 0 ? -1 : subjectNumber(hash & (SLOT_COUNT - 1), row);
  }

  /** Last allotted id. `subject`: from `find`. */
  head(subject: number): number {
    return this.#state.slotOf(subject).head(rowOfSubject(subject));
  }

  /** Highest id such that every allotment up to it is stored or void. */
  settled(subject: number): number {
    return this.#state.slotOf(subject).settled(rowOfSubject(subject));
  }

  /** Lowest id that may still be there. */
  first(subject: number): number {
    return this.#state.slotOf(subject).first(rowOfSubject(subject));
  }

  /** Whether any batch ever opened may expire as a whole; where false, a missing row is DATA_LOSS (section 7, rule 7). */
  everExpires(subject: number): boolean {
    return (this.#state.slotOf(subject).flags(rowOfSubject(subject)) & SubjectFlag.EVER_EXPIRES) !== 0;
  }

  /** An AllotVerdict. */
  verdictOf(subject: number, id: number): number {
    return this.#state.verdictOf(this.#state.slotOf(subject), rowOfSubject(subject), id);
  }

  /** The allotment above `settled` that holds an id, or null (settled, or above the head). Neighbours that are both stored or both void are one. */
  allotmentOf(subject: number, id: number): AllotmentInfo | null {
    const holder = this.#state.holderOf(this.#state.slotOf(subject), rowOfSubject(subject), id);
    return holder === 0 ? null : allotmentInfo(this.#state, holder);
  }

  /** What `verify` holds the store against. */
  reportOf(subject: number): SubjectReport {
    return reportOf(this.#state, subject);
  }

  /** The subject's name: a view, valid until the next `apply`. */
  nameOf(subject: number): Uint8Array {
    return this.#state.slotOf(subject).names.nameAt(rowOfSubject(subject));
  }

  /** Number of a node by its name, or -1 if it never started. */
  nodeNumber(name: Uint8Array): number {
    return this.#state.nodes.find(name, 0, name.length);
  }

  nodeName(node: number): Uint8Array {
    return this.#state.nodes.get(node).name;
  }

  /** Whether this incarnation is the node's latest. */
  isLatest(node: number, incarnationLow: number, incarnationHigh: number): boolean {
    const row = this.#state.nodes.get(node);
    return row.incarnationLow === incarnationLow && row.incarnationHigh === incarnationHigh;
  }

  /** Raft index of the last node-started of a node, 0 if it never started. */
  startedIndex(name: Uint8Array): number {
    const node = this.nodeNumber(name);
    return node < 0 ? 0 : this.#state.nodes.get(node).startedIndex;
  }

  /** The last run of an incarnation that was applied; 0: none yet, -1: it is not the node's latest. */
  lastRun(name: Uint8Array, incarnationLow: number, incarnationHigh: number): number {
    const node = this.nodeNumber(name);
    return node >= 0 && this.isLatest(node, incarnationLow, incarnationHigh) ? this.#state.nodes.get(node).lastRun : -1;
  }

  /** Allotments of a node that are open or revoked. */
  unresolvedOf(name: Uint8Array): number {
    const node = this.nodeNumber(name);
    return node < 0 ? 0 : this.#state.nodes.get(node).unresolved;
  }

  /** Calls `visit` for each open allotment of a node, in the order of opening; false from `visit` stops. For start-up and supervision. */
  openAllotmentsOf(node: Uint8Array, visit: (allotment: AllotmentInfo) => boolean | undefined): void {
    unresolvedOf(this.#state, this.nodeNumber(node), AllotVerdict.OPEN, visit);
  }

  /** The same for revoked allotments, which wait for a void mark. */
  revokedAllotmentsOf(node: Uint8Array, visit: (allotment: AllotmentInfo) => boolean | undefined): void {
    unresolvedOf(this.#state, this.nodeNumber(node), AllotVerdict.REVOKED, visit);
  }

  /** Names of the nodes that have started, by number. */
  nodeNames(): Uint8Array[] {
    return this.#state.nodes.rows.map((row) => row.name);
  }

  /**
   * Visits the subjects of `scope`, up to `limit` of them, and looks at no more than `limit` + 4,096 rows. `cursor`: 0 to
   * begin, then what the call before returned; -1 = that was all. Order: by slot, then by first publish. A subject that is added
   * meanwhile may be missed; none is visited twice.
   */
  listSubjects(cursor: number, scope: SubjectScope, limit: number, visit: SubjectVisitor): number {
    return listSubjects(this.#state, cursor, scope, limit, visit);
  }

  counts(): AllotCounts {
    const state = this.#state;
    return {
      subjects: state.subjects,
      producers: state.producers.size,
      nodes: state.nodes.rows.length,
      open: state.open,
      revoked: state.revoked,
      bytes: state.byteLength(),
    };
  }

  /**
   * A snapshot of the state as it is now; the machine may go on applying while chunks are taken. One at a time: the writer must be
   * drained or abandoned before the next begins.
   */
  beginSnapshot(): SnapshotWriter {
    return new SnapshotWriter(this.#state);
  }

  /** Chain over every entry applied and every answer given: equal on all replicas at the same index [R28]. Survives snapshots. */
  hash(): number {
    return this.#state.chain >>> 0;
  }

  /** CRC of the whole state, by way of a snapshot: slow, for tests and `verify`. Must not be called while a snapshot is in progress. */
  stateHash(): number {
    const writer = this.beginSnapshot();
    let hash = 0;
    for (let chunk = writer.nextChunk(1 << 20); chunk !== null; chunk = writer.nextChunk(1 << 20)) {
      hash = crc32(chunk, hash);
    }
    return hash;
  }

  #command(sink: AllotSink): void {
    const kind = this.#payload[this.#at] as number;
    assert(kind === Kind.ORIGIN || this.#hasOrigin, 'a run of commands does not begin with its origin');
    switch (kind) {
      case Kind.ORIGIN:
        this.#applyOrigin(sink);
        return;
      case Kind.OPEN:
        this.#applyOpen(sink);
        return;
      case Kind.CLOSE:
      case Kind.REVOKE:
        this.#applyClose(sink, kind);
        return;
      case Kind.TRIM:
        this.#applyTrim(sink);
        return;
      case Kind.NODE_STARTED:
        this.#applyNodeStarted(sink);
        return;
      case Kind.REVOKE_NODE:
        this.#applyRevokeNode(sink);
        return;
      case Kind.RECOVERED:
        this.#applyRecovered();
        return;
      case Kind.FLOOR:
        this.#applyFloor();
        return;
      case Kind.LIMITS:
        this.#applyLimits();
        return;
      case Kind.PRODUCER:
        this.#applyProducer(sink);
        return;
      default:
        assert(false, () => `unknown command ${kind} at ${this.#at}: written by a newer version, or damaged`);
    }
  }

  /** Moves behind `length` bytes, which must be there; returns where they start. */
  #take(length: number): number {
    const start = this.#at;
    assert(length <= this.#end - start, 'a command runs past the end of its run or entry');
    this.#at = start + length;
    return start;
  }

  /** A run: all of it, or nothing. */
  #applyRun(sink: AllotSink, runs: RunSink | null): void {
    const payload = this.#payload;
    const at = this.#take(ORIGIN_RUN_HEADER);
    const run = readSafeUint(this.#view, at + 10);
    const byteCount = this.#view.getUint32(at + 18, true);
    this.#readOrigin(at);
    const [nodeStart, nodeEnd] = [this.#nodeStart, this.#nodeEnd];
    const [low, high] = [this.#incarnationLow, this.#incarnationHigh];
    const start = this.#take(byteCount);
    const applied = this.#isNext(run, start, byteCount);
    this.#state.mix(applied ? run : REFUSED);
    if (applied) {
      sink.origin(payload, nodeStart, nodeEnd, low, high);
      this.#at = start;
      this.#end = start + byteCount;
      while (this.#at < this.#end) {
        assert(payload[this.#at] !== Kind.ORIGIN, 'a run has an origin inside');
        this.#command(sink);
      }
      assert(this.#at === this.#end, 'the last command runs past the end of its run');
      this.#end = payload.length;
      this.#state.nodes.ran(this.#node, run);
    }
    // What follows must name its origin anew.
    this.#hasOrigin = false;
    runs?.run(payload, nodeStart, nodeEnd, low, high, run, applied);
  }

  /**
   * Whether this run is the next one of its node. Run 1 makes its incarnation the latest, and names the start before it: so one of an older
   * process, however late it comes, does not take the node back from a younger one, also if it was never applied before.
   */
  #isNext(run: number, start: number, byteCount: number): boolean {
    if (this.#latest) return this.#state.nodes.isNextRun(this.#node, run);
    if (run !== 1 || byteCount < NODE_STARTED_AFTER_BYTES || this.#payload[start] !== Kind.NODE_STARTED) return false;
    if (((this.#payload[start + 1] as number) & StartedFlag.AFTER) === 0) return false;
    if (this.#node < 0) return readSafeUint(this.#view, start + 2) === 0 && this.#addNode();
    return readSafeUint(this.#view, start + 2) === this.#state.nodes.get(this.#node).startedIndex;
  }

  /** False with too many nodes that have unresolved allotments: this one is refused until it has said again that it started. */
  #addNode(): boolean {
    this.#node = this.#state.nodes.tryAdd(Uint8Array.from(this.#payload.subarray(this.#nodeStart, this.#nodeEnd)));
    return this.#node >= 0;
  }

  #applyOrigin(sink: AllotSink): void {
    this.#readOrigin(this.#take(ORIGIN_HEADER));
    sink.origin(this.#payload, this.#nodeStart, this.#nodeEnd, this.#incarnationLow, this.#incarnationHigh);
  }

  /** The fields that ORIGIN and ORIGIN_RUN share; the name is what comes next. */
  #readOrigin(at: number): void {
    const length = this.#payload[at + 1] as number;
    assert(length > 0, 'an origin has no node id');
    this.#nodeStart = this.#take(length);
    this.#nodeEnd = this.#at;
    this.#incarnationLow = this.#view.getUint32(at + 2, true);
    this.#incarnationHigh = this.#view.getUint32(at + 6, true);
    this.#hasOrigin = true;
    this.#node = this.#state.nodes.find(this.#payload, this.#nodeStart, this.#nodeEnd);
    this.#latest = this.#node >= 0 && this.isLatest(this.#node, this.#incarnationLow, this.#incarnationHigh);
  }

  #applyOpen(sink: AllotSink): void {
    const view = this.#view;
    const at = this.#take(OPEN_HEADER);
    const length = this.#payload[at + 1] as number;
    const flags = this.#payload[at + 2] as number;
    assert(length > 0 && flags <= 3 && this.#payload[at + 3] === 0, 'an open has no subject or unknown flags');
    const subjectStart = this.#take(length);
    const subjectEnd = this.#at;
    const expectedHead = (flags & OpenFlag.EXPECTED_HEAD) === 0 ? -1 : readSafeUint(view, this.#take(8));
    const hash = view.getUint32(at + 4, true);
    const shard = view.getUint32(at + 8, true);
    const counter = view.getUint32(at + 12, true);
    const count = view.getUint32(at + 16, true);
    assert(count > 0, 'an open of no ids');
    const number = hash & (SLOT_COUNT - 1);
    const slot = this.#state.slots[number] ?? null;
    let row = slot === null ? -1 : slot.names.find(this.#payload, subjectStart, subjectEnd, hash);
    const refusal = this.#refusalOf(slot, row, expectedHead);
    if ((flags & OpenFlag.PARTS) !== 0) {
      this.#applyOpenParts(sink, at, row, refusal);
      return;
    }
    const head = row < 0 ? this.#state.floor : (slot as SlotSubjects).head(row);
    if (refusal >= 0 || count > Number.MAX_SAFE_INTEGER - head) {
      const reason = refusal >= 0 ? refusal : REASON_CODE.IDS_EXHAUSTED;
      this.#state.mix(REFUSED);
      sink.openRefused(shard, counter, reason);
      return;
    }
    if (row < 0) row = this.#insertSubject(subjectStart, subjectEnd, hash);
    this.#allot(at, number, row, head + count);
    this.#state.mix(head + 1);
    sink.opened(shard, counter, head + 1, count, this.#state.time);
  }

  /** Why the open as a whole cannot get ids, or -1. */
  #refusalOf(slot: SlotSubjects | null, row: number, expectedHead: number): number {
    const state = this.#state;
    if (!this.#latest) return REASON_CODE.NOT_READY;
    if (expectedHead >= 0) {
      const head = row < 0 || slot === null ? 0 : slot.head(row);
      if (head !== expectedHead) return REASON_CODE.HEAD_MISMATCH;
    }
    if (row < 0 && state.subjects >= state.limits.subjectsMax) return REASON_CODE.SUBJECTS_FULL;
    if (state.nodes.get(this.#node).unresolved >= state.limits.openPerNodeMax) return REASON_CODE.ALLOTMENTS_FULL;
    return -1;
  }

  #insertSubject(start: number, end: number, hash: number): number {
    // A wrong hash would give the subject a second row, and its ids twice.
    assert(subjectHash(this.#payload, start, end) === hash, 'the hash of an open is not that of its subject');
    const row = this.#state.insertSubject(this.#payload, start, end, hash);
    this.#sink.born(subjectNumber(hash & (SLOT_COUNT - 1), row));
    return row;
  }

  /** Allots (head, end] to the origin; `at`: the OPEN command. */
  #allot(at: number, number: number, row: number, end: number): number {
    const state = this.#state;
    const slot = state.slots[number] as SlotSubjects;
    const view = this.#view;
    state.beforeSubjectChange(number, row);
    const taken = state.append(slot, number, row, end, AllotVerdict.OPEN);
    const expiry = view.getUint32(at + 24, true);
    state.pool.describe(
      taken,
      state.time,
      this.#incarnationLow,
      this.#incarnationHigh,
      view.getUint32(at + 8, true),
      view.getUint32(at + 12, true),
      expiry,
      view.getUint32(at + 20, true),
    );
    state.nodes.link(state.pool, taken, this.#node);
    state.open += 1;
    if (expiry > 0) slot.addFlags(row, SubjectFlag.EVER_EXPIRES);
    this.#sink.moved(subjectNumber(number, row));
    return taken;
  }

  #applyOpenParts(sink: AllotSink, at: number, knownRow: number, refusal: number): void {
    const state = this.#state;
    const view = this.#view;
    const subjectStart = at + OPEN_HEADER;
    const subjectEnd = subjectStart + (this.#payload[at + 1] as number);
    const hash = view.getUint32(at + 4, true);
    const number = hash & (SLOT_COUNT - 1);
    const parts = this.#parts;
    const partCount = view.getUint16(this.#take(2), true);
    parts.read(this.#payload, view, this.#at, partCount, view.getUint32(at + 16, true));
    this.#at = parts.endOffset;
    const shard = view.getUint32(at + 8, true);
    const counter = view.getUint32(at + 12, true);
    if (!this.#latest) {
      this.#state.mix(REFUSED);
      sink.openRefused(shard, counter, refusal);
      return;
    }
    const head = knownRow < 0 ? state.floor : (state.slots[number] as SlotSubjects).head(knownRow);
    const subject = knownRow < 0 ? this.#nextSubjectNumber(number) : subjectNumber(number, knownRow);
    const count = parts.decide(subject, knownRow >= 0, head, refusal);
    if (count > 0) {
      const row = knownRow < 0 ? this.#insertSubject(subjectStart, subjectEnd, hash) : knownRow;
      parts.remember(this.#allot(at, number, row, head + count));
    }
    const base = count === 0 ? 0 : head + 1;
    this.#state.mix(base);
    this.#state.mix(parts.answersHash());
    sink.partsOpened(shard, counter, base, count, state.time, parts.answers);
  }

  /** The number that the next new subject of a slot will have. */
  #nextSubjectNumber(number: number): number {
    return subjectNumber(number, this.#state.slots[number]?.size ?? 0);
  }

  #applyClose(sink: AllotSink, kind: number): void {
    const at = this.#take(CLOSE_HEADER);
    const length = this.#payload[at + 1] as number;
    const wanted = this.#payload[at + 2] as number;
    const reach = this.#payload[at + 3] as number;
    const isClose = kind === Kind.CLOSE && (wanted === AllotVerdict.STORED || wanted === AllotVerdict.VOID);
    const isRevoke = kind === Kind.REVOKE && wanted === AllotVerdict.REVOKED && reach <= RevokeReach.BEHIND;
    assert(length > 0 && (isClose || isRevoke), 'a close is malformed');
    const start = this.#take(length);
    const hash = this.#view.getUint32(at + 4, true);
    const base = readSafeUint(this.#view, at + 8);
    const number = hash & (SLOT_COUNT - 1);
    const slot = this.#state.slots[number] ?? null;
    const row = slot === null ? -1 : slot.names.find(this.#payload, start, this.#at, hash);
    const owner = this.#owner;
    owner.node = -1;
    let verdict: number = AllotVerdict.UNKNOWN;
    let count = 0;
    let applied = false;
    /** What was open until now, and takes those behind it along. */
    let first = 0;
    if (slot !== null && row >= 0) {
      const holder = this.#state.holderOf(slot, row, base);
      verdict = this.#state.verdictOf(slot, row, base);
      if (holder !== 0 && this.#state.pool.isUnresolved(holder)) {
        // Inside an unresolved allotment only its base names it.
        if (this.#state.pool.base(holder) !== base) verdict = AllotVerdict.UNKNOWN;
        else {
          count = this.#state.pool.end(holder) - base + 1;
          this.#state.describeOwner(owner, holder);
          this.#state.beforeSubjectChange(number, row);
          if (isRevoke && reach === RevokeReach.BEHIND && verdict === AllotVerdict.OPEN) first = holder;
          verdict = this.#move(slot, row, holder, verdict, wanted);
          sink.moved(subjectNumber(number, row));
        }
      }
      applied = verdict === wanted;
    }
    this.#state.mix(verdict);
    sink.verdict(this.#payload, start, this.#at, hash, base, count, verdict, applied, owner);
    if (first !== 0) this.#state.mix(this.#revocations.behind(sink, first));
  }

  /** Moves an unresolved allotment from `verdict` to `wanted` if that is a legal step; returns where it stands then. */
  #move(slot: SlotSubjects, row: number, holder: number, verdict: number, wanted: number): number {
    if (verdict === AllotVerdict.OPEN && wanted === AllotVerdict.STORED) this.#state.becomeStored(slot, row, holder);
    else if (verdict === AllotVerdict.OPEN && wanted === AllotVerdict.REVOKED) this.#state.becomeRevoked(holder);
    else if (verdict === AllotVerdict.REVOKED && wanted === AllotVerdict.VOID)
      this.#state.becomeVoid(slot, row, holder);
    else if (wanted === AllotVerdict.STORED && this.#state.tryUnrevoke(holder))
      this.#state.becomeStored(slot, row, holder);
    else return verdict;
    return wanted;
  }

  #applyTrim(sink: AllotSink): void {
    const at = this.#take(CLOSE_HEADER);
    const length = this.#payload[at + 1] as number;
    assert(length > 0 && this.#payload[at + 2] === 0, 'a trim is malformed');
    const start = this.#take(length);
    const hash = this.#view.getUint32(at + 4, true);
    const wanted = readSafeUint(this.#view, at + 8);
    const number = hash & (SLOT_COUNT - 1);
    const slot = this.#state.slots[number] ?? null;
    const row = slot === null ? -1 : slot.names.find(this.#payload, start, this.#at, hash);
    let first = 0;
    if (slot !== null && row >= 0) {
      // first never goes back, and never past settled + 1: what has no verdict yet is not trimmed away (section 2).
      first = Math.max(slot.first(row), Math.min(wanted, slot.settled(row) + 1));
      if (first !== slot.first(row)) {
        this.#state.beforeSubjectChange(number, row);
        slot.setFirst(row, first);
        sink.moved(subjectNumber(number, row));
      }
    }
    this.#state.mix(first);
    sink.trimmed(this.#payload, start, this.#at, hash, first);
  }

  #applyNodeStarted(sink: AllotSink): void {
    const state = this.#state;
    const flags = this.#payload[this.#take(NODE_STARTED_BYTES) + 1] as number;
    assert(flags <= (StartedFlag.KEEP_OPEN | StartedFlag.AFTER), 'a node-started is malformed');
    // The run was let in by it already.
    if ((flags & StartedFlag.AFTER) !== 0) this.#take(NODE_STARTED_AFTER_BYTES - NODE_STARTED_BYTES);
    if (this.#node < 0 && !this.#addNode()) return;
    const row = state.nodes.get(this.#node);
    if (!this.#latest) row.lastRun = 0;
    row.incarnationLow = this.#incarnationLow;
    row.incarnationHigh = this.#incarnationHigh;
    row.startedIndex = state.index;
    this.#latest = true;
    const revoked =
      (flags & StartedFlag.KEEP_OPEN) !== 0
        ? 0
        : this.#revocations.ofNode(sink, this.#node, { shard: -1, keepLatest: true });
    this.#state.mix(revoked);
    sink.nodeStarted(this.#node, this.#incarnationLow, this.#incarnationHigh, revoked);
  }

  #applyRevokeNode(sink: AllotSink): void {
    const at = this.#take(REVOKE_NODE_HEADER);
    const length = this.#payload[at + 1] as number;
    const hasShard = this.#payload[at + 2] as number;
    assert(length > 0 && hasShard <= 1, 'a revoke of a node is malformed');
    const start = this.#take(length);
    const node = this.#state.nodes.find(this.#payload, start, this.#at);
    if (node < 0) return;
    const shard = hasShard === 1 ? this.#view.getUint32(at + 4, true) : -1;
    this.#state.mix(this.#revocations.ofNode(sink, node, { shard, keepLatest: false }));
  }

  /** Section 10: ids above the store's highest are void up to the new head. Only for a subject with nothing unsettled. */
  #applyRecovered(): void {
    const state = this.#state;
    const at = this.#take(CLOSE_HEADER);
    const length = this.#payload[at + 1] as number;
    assert(length > 0 && this.#payload[at + 2] === 0, 'a recovered is malformed');
    const start = this.#take(length);
    const end = this.#at;
    const hash = this.#view.getUint32(at + 4, true);
    const storeHighest = readSafeUint(this.#view, at + 8);
    const head = readSafeUint(this.#view, this.#take(8));
    assert(head > storeHighest, 'a recovered head is not above the store');
    const number = hash & (SLOT_COUNT - 1);
    let row = state.slots[number]?.names.find(this.#payload, start, end, hash) ?? -1;
    if (row < 0) row = this.#insertSubject(start, end, hash);
    const slot = state.slots[number] as SlotSubjects;
    if (slot.head(row) >= head) return;
    state.beforeSubjectChange(number, row);
    assert(slot.tail(row) === 0, 'a recovered subject has unsettled allotments');
    slot.recover(row, storeHighest, head);
  }

  #applyFloor(): void {
    const floor = readSafeUint(this.#view, this.#take(FLOOR_BYTES) + 2);
    this.#state.floor = Math.max(this.#state.floor, floor);
  }

  #applyLimits(): void {
    const at = this.#take(LIMITS_BYTES);
    const [subjectsMax, producersMax, openPerNodeMax] = [2, 10, 18].map((offset) =>
      readSafeUint(this.#view, at + offset),
    );
    this.#state.limits = { subjectsMax, producersMax, openPerNodeMax } as AllotLimits;
  }

  /** A producer opens a stream: what it may go on from (design section 3, promise 7). */
  #applyProducer(sink: AllotSink): void {
    const { producers, limits, time } = this.#state;
    const at = this.#take(PRODUCER_COMMAND_HEADER);
    const length = this.#payload[at + 1] as number;
    const mayBeNew = this.#payload[at + 2] as number;
    assert(length > 0 && length <= PRODUCER_BYTES_MAX && mayBeNew <= 1, 'a producer command is malformed');
    const start = this.#take(length);
    const shard = this.#view.getUint32(at + 4, true);
    const counter = this.#view.getUint32(at + 8, true);
    const hash = subjectHash(this.#payload, start, this.#at);
    let producer = producers.find(this.#payload, start, this.#at, hash, time);
    if (producer === null) {
      const isFull = mayBeNew === 1 && !producers.tryMakeRoom(limits.producersMax, time);
      if (mayBeNew === 0 || isFull) {
        this.#state.mix(REFUSED);
        sink.openRefused(shard, counter, REASON_CODE[isFull ? 'PRODUCERS_FULL' : 'SEQUENCE_UNKNOWN']);
        return;
      }
      producer = producers.add(Uint8Array.from(this.#payload.subarray(start, this.#at)), hash);
    }
    producers.touch(producer, time);
    this.#state.mix(producer.window.last + 1);
    sink.producerOpened(shard, counter, producer.window.last);
  }
}
