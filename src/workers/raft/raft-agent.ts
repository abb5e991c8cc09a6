import { slotOfSubject } from '../../allot/allot-state.ts';
import type { AllotmentInfo } from '../../allot/queries.ts';
import { AllotVerdict, type PartAnswers } from '../../allot/verdicts.ts';
import { assert } from '../../base/assert.ts';
import { slotOfHash, subjectHash } from '../../base/subject.ts';
import type { SubjectScope } from '../../base/subject-space.ts';
import { TRACE_CONTEXT_BYTES } from '../../base/trace-context.ts';
import { DoorbellRinger } from '../../shm/doorbell.ts';
import { RingConsumer } from '../../shm/ring-consumer.ts';
import { RingProducer } from '../../shm/ring-producer.ts';
import {
  FromRaft,
  INTEREST_HEADER,
  MARK_HEADER,
  OPENED_PARTS_HEADER,
  PART_BYTES,
  PROGRESS_HEADER,
  QUERY_HEADER,
  RAFT_BORN_HEADER,
  StateFlag,
  SUBJECT_ANSWER_HEADER,
  ToRaft,
} from '../link.ts';
import type { OpenAllotment, RaftStatus, RaftThreadData, ShardRings, SubjectRow } from '../messages.ts';
import { Outbox } from '../outbox.ts';
import { SlotOwners } from '../slots/slot-table.ts';
import type { LogTraces } from '../tracing/log-traces.ts';
import { HeadCheck, type HeadVisitor } from './head-check.ts';
import { Interests, type ProgressWriter } from './interests.ts';
import type { AnswerPort, RaftNode } from './raft-node.ts';

/** Most bytes of commands in one log entry; a shard's record may exceed it once. */
const ENTRY_BYTES_MAX = 1 << 20;
const RECORDS_A_ROUND = 256;
/** Subjects of a shard whose loss is told one by one; where more are concerned their number says enough. */
const MISSING_NAMED_MAX = 100;

/** The Raft thread's ends of the rings to one shard. */
export class ShardSide {
  readonly requests: RingConsumer;
  readonly answers: Outbox;
  /** It wants to hear of new subjects of its slots. */
  isWatching = false;
  /** What the shard knows of the log's floor. */
  floor = 0;
  readonly #ringer: DoorbellRinger;
  #dirty = false;

  constructor(rings: ShardRings, doorbell: SharedArrayBuffer) {
    this.requests = new RingConsumer(rings.toRaft);
    this.answers = new Outbox(new RingProducer(rings.fromRaft));
    this.#ringer = new DoorbellRinger(doorbell);
  }

  touched(): void {
    this.#dirty = true;
  }

  flush(): void {
    this.answers.flush();
    if (!this.#dirty && !this.answers.blocked) return;
    this.#dirty = false;
    this.#ringer.ring();
  }
}

interface Query {
  readonly shard: number;
  readonly counter: number;
  readonly id: number;
  readonly hash: number;
  readonly subject: Uint8Array;
}

/**
 * The Raft thread's loop: everything that the shards asked for since the last round is proposed as one run, here or through the leader. It is answered
 * when it is committed and applied on this node. Reads are answered from the state machine once a read index covers them.
 */
export class RaftAgent implements AnswerPort {
  readonly #node: RaftNode;
  readonly #wake: () => void;
  readonly #owners: SlotOwners;
  readonly #interests: Interests;
  readonly #heads: HeadCheck;
  /** By shard: 1 = its part of the store was held against the log. */
  readonly #verified: Uint8Array;
  /** Null: nothing is traced. */
  readonly #traces: LogTraces | null;
  readonly #hasPeers: boolean;
  readonly #sides: (ShardSide | null)[];
  readonly #payload: Uint8Array[] = [];
  #payloadBytes = 0;
  /** The log has not taken what is gathered. */
  #isRefused = false;
  /** They wait for what is gathered, which may be of a shard that is gone. */
  #detached: (() => void)[] = [];
  #queries: Query[] = [];
  #reading: Query[] = [];
  #from = 0;
  readonly #onTrimmed: HeadVisitor = (names, start, end, hash, first) => this.trimmed(names, start, end, hash, first);
  readonly #onRequest = (type: number, offset: number, length: number): void => this.#request(type, offset, length);

  /** `wake`: calls doWork soon. */
  constructor(node: RaftNode, data: RaftThreadData, wake: () => void, traces: LogTraces | null = null) {
    this.#node = node;
    this.#traces = traces;
    this.#hasPeers = data.cluster !== null;
    this.#wake = wake;
    this.#interests = new Interests(() => node.machine);
    this.#owners = new SlotOwners(data.owners);
    this.#heads = new HeadCheck(node.machine);
    this.#verified = new Uint8Array(data.shardsMax);
    this.#sides = new Array<ShardSide | null>(data.shardsMax).fill(null);
  }

  attach(shard: number, rings: ShardRings, doorbell: SharedArrayBuffer): void {
    assert(this.#sides[shard] === null, () => `shard ${shard} is attached already`);
    this.#sides[shard] = new ShardSide(rings, doorbell);
  }

  /**
   * Commands that the dead shard left on its ring are dropped: nothing waits for them, and what was applied stays. Calls back when nothing more of it can be
   * applied.
   */
  detach(shard: number, then: () => void): void {
    this.#sides[shard] = null;
    this.#interests.endAll(shard);
    this.#queries = this.#queries.filter((query) => query.shard !== shard);
    this.#reading = this.#reading.filter((query) => query.shard !== shard);
    if (this.#payloadBytes > 0) this.#detached.push(then);
    else this.#node.whenApplied(then);
  }

  tick(): void {
    this.#node.tick();
    if (this.#isWaiting) this.#wake();
  }

  /** Something could not be done, and no ring will say when it can. */
  get #isWaiting(): boolean {
    return this.#queries.length + this.#reading.length + this.#payloadBytes > 0;
  }

  doWork(): number {
    let done = 0;
    if (this.#isRefused) this.#propose();
    this.#tellFloor();
    for (let shard = 0; shard < this.#sides.length; shard++) {
      const side = this.#sides[shard];
      if (side === null || side === undefined) continue;
      // A shard that does not read its answers gets no new ones: it has asked for what is on its ring, so it waits for itself.
      if (side.answers.blocked && !side.answers.flush()) continue;
      // The log takes no more: what a shard asks for waits on its ring, and is refused in front of it when that is full.
      if (this.#isRefused) continue;
      this.#from = shard;
      done += side.requests.drain(this.#onRequest, RECORDS_A_ROUND);
      if (this.#payloadBytes >= ENTRY_BYTES_MAX) this.#propose();
    }
    if (this.#payloadBytes > 0) this.#propose();
    if (this.#queries.length + this.#reading.length > 0) this.#askToRead();
    done += this.#node.work();
    this.#traces?.look(this.#node.machine, this.#node.standing.role === 'leader');
    done += this.#interests.tell(this.#writeProgress);
    for (const side of this.#sides) side?.flush();
    return done;
  }

  /** Of a log that was recovered; before the first answer to a shard, and before the next one when a snapshot brought another floor. */
  #tellFloor(): void {
    const { floor } = this.#node.machine;
    for (const side of this.#sides) {
      if (side === null || side.floor === floor) continue;
      side.floor = floor;
      const at = side.answers.begin(FromRaft.FLOOR, 8);
      side.answers.view.setFloat64(at, floor, true);
      side.answers.end();
      side.touched();
    }
  }

  // --- requests of the shards ---

  #request(type: number, offset: number, length: number): void {
    const { requests } = this.#sides[this.#from] as ShardSide;
    switch (type) {
      case ToRaft.COMMANDS: {
        // The ring's space is given back when the round is over, but the entry lives on in the log: copy.
        this.#payload.push(requests.bytes.slice(offset, offset + length));
        this.#payloadBytes += length;
        return;
      }
      case ToRaft.TRACE: {
        const context = requests.bytes.slice(offset + 4, offset + 4 + TRACE_CONTEXT_BYTES);
        this.#traces?.asked(this.#from, requests.view.getUint32(offset, true), context);
        return;
      }
      case ToRaft.QUERY: {
        const { view } = requests;
        this.#queries.push({
          shard: this.#from,
          id: view.getFloat64(offset, true),
          counter: view.getUint32(offset + 8, true),
          hash: view.getUint32(offset + 12, true),
          subject: requests.bytes.slice(offset + QUERY_HEADER, offset + length),
        });
        return;
      }
      case ToRaft.VERIFY:
        this.#heads.take(requests.bytes.slice(offset, offset + length), this.#onTrimmed);
        return;
      case ToRaft.VERIFIED:
        this.#tellMissing(this.#from);
        return;
      case ToRaft.INTEREST: {
        const { view } = requests;
        const name = requests.bytes.slice(offset + INTEREST_HEADER, offset + length);
        const hash = view.getUint32(offset, true);
        if (view.getUint32(offset + 4, true) === 1) this.#interests.begin(this.#from, name, hash);
        else this.#interests.end(this.#from, name, hash);
        return;
      }
      case ToRaft.WATCH:
        (this.#sides[this.#from] as ShardSide).isWatching = requests.view.getUint32(offset, true) === 1;
        return;
      default:
        assert(false, () => `unknown record ${type} from shard ${this.#from}`);
    }
  }

  #propose(): void {
    this.#isRefused = !this.#node.propose(this.#payload);
    if (this.#isRefused) return;
    this.#traces?.submitted(this.#node.standing.lastRun, this.#hasPeers);
    this.#payload.length = 0;
    this.#payloadBytes = 0;
    for (const then of this.#detached.splice(0)) this.#node.whenApplied(then);
  }

  /** Once a process: a shard that is replaced later has its slots from the same segments. */
  #tellMissing(shard: number): void {
    if (this.#verified[shard] === 1) return;
    this.#verified[shard] = 1;
    let subjects = 0;
    this.#heads.missing(
      (slot) => this.#owners.ownerOf(slot) === shard,
      (names, start, end, hash, id) => {
        subjects += 1;
        if (subjects <= MISSING_NAMED_MAX) this.#writeSubjectAnswer(FromRaft.MISSING, names, start, end, hash, id);
      },
    );
    if (subjects > 0) this.#node.tell('error', 'the store lacks messages that it had', { shard, subjects });
  }

  // --- reads ---

  #askToRead(): void {
    // One read index serves every query that was there when it was asked for; one that was lost with its leader is asked for anew.
    if (!this.#node.askToRead()) return;
    this.#reading = this.#reading.length === 0 ? this.#queries : this.#reading.concat(this.#queries);
    this.#queries = [];
  }

  /** A read index that was asked for is applied. */
  onReadable(): void {
    const queries = this.#reading;
    this.#reading = [];
    for (const query of queries) this.#answer(query);
  }

  #answer(query: Query): void {
    const side = this.#sides[query.shard];
    if (side === null || side === undefined) return;
    const { subject, hash, id } = query;
    const { machine } = this.#node;
    const handle = machine.find(subject, 0, subject.length, hash);
    const exists = handle >= 0;
    let flags = 0;
    if (exists) {
      flags = StateFlag.EXISTS | (machine.everExpires(handle) ? StateFlag.EVER_EXPIRES : 0);
      const verdict = id === 0 ? AllotVerdict.UNKNOWN : machine.verdictOf(handle, id);
      if (verdict === AllotVerdict.OPEN || verdict === AllotVerdict.REVOKED) flags |= StateFlag.UNDECIDED;
      if (verdict === AllotVerdict.VOID) flags |= StateFlag.VOID;
    }
    const at = side.answers.begin(FromRaft.STATE, 32);
    const view = side.answers.view;
    // One that does not exist will begin behind the floor: whoever waits for its first message must not miss ids below.
    view.setFloat64(at, exists ? machine.first(handle) : machine.floor + 1, true);
    view.setFloat64(at + 8, exists ? machine.head(handle) : machine.floor, true);
    view.setFloat64(at + 16, exists ? machine.settled(handle) : machine.floor, true);
    view.setUint32(at + 24, query.counter, true);
    view.setUint32(at + 28, flags, true);
    side.answers.end();
    side.touched();
  }

  // --- answers of the state machine (AllotSink) ---

  opened(shard: number, counter: number, base: number, time: number): void {
    const side = this.#sides[shard];
    if (side === null || side === undefined) return;
    this.#tellTraced(side, shard, counter);
    const at = side.answers.begin(FromRaft.OPENED, 24);
    const view = side.answers.view;
    view.setFloat64(at, base, true);
    view.setFloat64(at + 8, time, true);
    view.setUint32(at + 16, counter, true);
    side.answers.end();
    side.touched();
  }

  /** In front of the answer, so that the shard has it when it goes on. */
  #tellTraced(side: ShardSide, shard: number, counter: number): void {
    const traces = this.#traces;
    if (traces === null || traces.isEmpty) return;
    const traced = traces.take(shard, counter);
    if (traced === null) return;
    const at = side.answers.begin(FromRaft.TRACED, 32);
    const { view } = side.answers;
    view.setFloat64(at, traced.receivedAt, true);
    view.setFloat64(at + 8, traced.submittedAt, true);
    view.setFloat64(at + 16, performance.now(), true);
    view.setUint32(at + 24, counter, true);
    view.setUint32(at + 28, this.#node.standing.role === 'leader' ? 1 : 0, true);
    side.answers.end();
  }

  openRefused(shard: number, counter: number, reasonCode: number): void {
    const side = this.#sides[shard];
    if (side === null || side === undefined) return;
    this.#tellTraced(side, shard, counter);
    const at = side.answers.begin(FromRaft.REFUSED, 8);
    side.answers.view.setUint32(at, counter, true);
    side.answers.view.setUint32(at + 4, reasonCode, true);
    side.answers.end();
    side.touched();
  }

  partsOpened(shard: number, counter: number, base: number, time: number, parts: PartAnswers): void {
    const side = this.#sides[shard];
    if (side === null || side === undefined) return;
    this.#tellTraced(side, shard, counter);
    const at = side.answers.begin(FromRaft.OPENED_PARTS, OPENED_PARTS_HEADER + parts.length * PART_BYTES);
    const view = side.answers.view;
    view.setFloat64(at, base, true);
    view.setFloat64(at + 8, time, true);
    view.setUint32(at + 16, counter, true);
    view.setUint32(at + 20, parts.length, true);
    for (let i = 0; i < parts.length; i++) {
      const part = at + OPENED_PARTS_HEADER + i * PART_BYTES;
      view.setFloat64(part, parts.first[i] as number, true);
      view.setUint32(part + 8, parts.verdict[i] as number, true);
      view.setUint32(part + 12, parts.reason[i] as number, true);
    }
    side.answers.end();
    side.touched();
  }

  producerOpened(shard: number, counter: number, lastSequence: number): void {
    const side = this.#sides[shard];
    if (side === null || side === undefined) return;
    const at = side.answers.begin(FromRaft.PRODUCER, 16);
    side.answers.view.setFloat64(at, lastSequence, true);
    side.answers.view.setUint32(at + 8, counter, true);
    side.answers.end();
    side.touched();
  }

  /** A verdict concerns the shard that owns the subject now, whoever opened the allotment. */
  revoked(names: Uint8Array, start: number, end: number, hash: number, base: number): void {
    this.#writeSubjectAnswer(FromRaft.REVOKED, names, start, end, hash, base);
  }

  gone(names: Uint8Array, start: number, end: number, hash: number, base: number): void {
    this.#writeSubjectAnswer(FromRaft.GONE, names, start, end, hash, base);
  }

  closed(shard: number, counter: number, isApplied: boolean): void {
    const side = this.#sides[shard];
    if (side === null || side === undefined) return;
    const at = side.answers.begin(FromRaft.CLOSED, 8);
    side.answers.view.setUint32(at, counter, true);
    side.answers.view.setUint32(at + 4, isApplied ? 1 : 0, true);
    side.answers.end();
    side.touched();
  }

  trimmed(names: Uint8Array, start: number, end: number, hash: number, first: number): void {
    this.#writeSubjectAnswer(FromRaft.TRIMMED, names, start, end, hash, first);
  }

  moved(subject: number): void {
    this.#interests.moved(subject);
  }

  born(subject: number): void {
    this.#interests.born(subject);
    const side = this.#sides[this.#owners.ownerOf(slotOfSubject(subject))];
    if (side?.isWatching !== true) return;
    const name = this.#node.machine.nameOf(subject);
    const at = side.answers.begin(FromRaft.BORN, RAFT_BORN_HEADER + name.length);
    side.answers.view.setUint32(at, subjectHash(name, 0, name.length), true);
    side.answers.view.setUint32(at + 4, 0, true);
    side.answers.bytes.set(name, at + RAFT_BORN_HEADER);
    side.answers.end();
    side.touched();
  }

  restored(): void {
    this.#tellFloor();
    this.#interests.restored();
  }

  readonly #writeProgress: ProgressWriter = (shard, subject, name, hash) => {
    const side = this.#sides[shard];
    if (side === null || side === undefined) return true;
    if (side.answers.blocked) return false;
    const { machine } = this.#node;
    const at = side.answers.begin(FromRaft.PROGRESS, PROGRESS_HEADER + name.length);
    const { view, bytes } = side.answers;
    view.setFloat64(at, machine.first(subject), true);
    view.setFloat64(at + 8, machine.head(subject), true);
    view.setFloat64(at + 16, machine.settled(subject), true);
    view.setUint32(at + 24, hash, true);
    view.setUint32(at + 28, StateFlag.EXISTS | (machine.everExpires(subject) ? StateFlag.EVER_EXPIRES : 0), true);
    bytes.set(name, at + PROGRESS_HEADER);
    side.answers.end();
    side.touched();
    return true;
  };

  /** A revoked allotment that its owner cannot mark. False: its shard takes no more now. */
  mark({ subject, hash, base, count, openedAt, expiresMax }: AllotmentInfo): boolean {
    const side = this.#sides[this.#owners.ownerOf(slotOfHash(hash))];
    if (side === null || side === undefined || side.answers.blocked) return false;
    const at = side.answers.begin(FromRaft.MARK, MARK_HEADER + subject.length);
    const { view, bytes } = side.answers;
    view.setFloat64(at, base, true);
    view.setFloat64(at + 8, openedAt, true);
    view.setUint32(at + 16, count, true);
    view.setUint32(at + 20, expiresMax, true);
    view.setUint32(at + 24, hash, true);
    view.setUint32(at + 28, 0, true);
    bytes.set(subject, at + MARK_HEADER);
    side.answers.end();
    side.touched();
    return true;
  }

  #writeSubjectAnswer(type: number, names: Uint8Array, start: number, end: number, hash: number, id: number): void {
    const side = this.#sides[this.#owners.ownerOf(slotOfHash(hash))];
    if (side === null || side === undefined) return;
    const at = side.answers.begin(type, SUBJECT_ANSWER_HEADER + end - start);
    side.answers.view.setFloat64(at, id, true);
    side.answers.view.setUint32(at + 8, hash, true);
    side.answers.bytes.set(names.subarray(start, end), at + SUBJECT_ANSWER_HEADER);
    side.answers.end();
    side.touched();
  }

  // --- administration ---

  /** What of this node is neither stored nor void: to be looked up in the store by the shards. */
  openAllotments(): OpenAllotment[] {
    const found: OpenAllotment[] = [];
    const collect = ({ subject, hash, base, count, verdict, openedAt, expiresMax }: AllotmentInfo): boolean => {
      found.push({ subject, hash, base, count, revoked: verdict === AllotVerdict.REVOKED, openedAt, expiresMax });
      return true;
    };
    this.#node.machine.openAllotmentsOf(this.#node.name, collect);
    this.#node.machine.revokedAllotmentsOf(this.#node.name, collect);
    return found;
  }

  listSubjects(scope: SubjectScope, cursor: number, limit: number): { rows: SubjectRow[]; next: number } {
    const rows: SubjectRow[] = [];
    const { machine } = this.#node;
    const next = machine.listSubjects(cursor, scope, limit, (handle, names, start, end) => {
      rows.push({
        subject: names.slice(start, end),
        first: machine.first(handle),
        head: machine.head(handle),
        settled: machine.settled(handle),
      });
    });
    return { rows, next };
  }

  status(): RaftStatus {
    return this.#node.status();
  }
}
