import type { ServerDuplexStream } from '@grpc/grpc-js';
import { type Caller, Verb } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';
import { isPlanted } from '../../base/planted.ts';
import { SUBJECT_BYTES_MAX, slotOfHash, subjectFault, subjectHash } from '../../base/subject.ts';
import { inSpace, isOfSpace, type SubjectScope } from '../../base/subject-space.ts';
import { type ConsumeOpening, ConsumeScan, type SubjectSpec, scanConsume } from '../../grpc/consumer-codec.ts';
import { decodeResumeToken, type StreamPositions } from '../../grpc/resume-token.ts';
import { makeStatus } from '../../grpc/status.ts';
import { HeldBytes, type UnsentBudget } from '../../grpc/unsent-budget.ts';
import { hasWildcard, Pattern } from '../../subscribe/pattern.ts';
import { Encoding, POSITIONS_MAX, Start } from '../link.ts';
import type { SubjectRow } from '../messages.ts';
import { HELD } from '../slots/slot-table.ts';
import type { DeliveryTraces } from '../tracing/delivery-traces.ts';
import type { BatchRun } from './batch-run.ts';
import { ConsumerReader } from './consumer-reader.ts';
import { ConsumerStream, type ConsumerStreamPort, type Reader, type StreamPattern } from './consumer-stream.ts';
import { FramePool } from './frame-pool.ts';
import type { PositionAsks } from './position-asks.ts';
import type { Seats } from './seats.ts';
import type { ShardLink } from './shard-link.ts';
import {
  type GroupObserver,
  GroupTable,
  goingOn,
  type Seat,
  type StartPosition,
  type SubjectGroup,
  type SubscriptionPort,
} from './subject-group.ts';
import { SubjectWatch } from './subject-watch.ts';

/** Subjects asked for at a time. */
const PAGE_SUBJECTS = 1_000;
const FIRST_ID: StartPosition = { kind: Start.ID, value: 1 };

/** Where a subject begins that has come since its pattern was there: with its first message, unless that is too early for a start at a time. */
function laterStart(start: StartPosition): StartPosition {
  return start.kind === Start.TIME ? start : FIRST_ID;
}

/** What a pattern has found is asked for by itself: it does not bring along what its caller may not have. `subject`: as the client calls it. */
function mayHave({ caller }: ConsumerStream, subject: Buffer): boolean {
  return caller.may(Verb.SUBSCRIBE, subject, 0, subject.length);
}

export interface ConsumerLimits {
  /** limits.consumer_subjects */
  readonly consumerSubjectsMax: number;
  /** subscribe.buffer_bytes */
  readonly bufferBytes: number;
  /** subscribe.stall_timeout in ms. */
  readonly stallTimeoutMs: number;
}

/** What the streams need of the dispatcher. */
export interface ConsumerRoutes extends SubscriptionPort {
  shardOf(hash: number): number;
  /** The shard does not read what it is told already: nothing new may be asked of it. Not true of HELD. */
  isBlocked(shard: number): boolean;
  /** All links that are there. */
  links(): readonly ShardLink[];
  touched(link: ShardLink): void;
  /** Why nothing new is taken, or null. */
  readonly refusing: Reason | null;
}

/** All subjects that exist, as they are called inside the broker, in pages. */
export interface SubjectDirectory {
  listSubjects(
    scope: SubjectScope,
    cursor: number,
    limit: number,
  ): Promise<{ readonly rows: readonly SubjectRow[]; readonly next: number }>;
}

/** A subject that a stream is to have, as its client calls it. */
interface Found {
  readonly subject: Buffer;
  /** Of the subject inside the broker. */
  readonly hash?: number;
  readonly start: StartPosition;
  /** What has brought it, if it was one. */
  readonly pattern?: Pattern | null;
}

/** A heartbeat that waits for what the shards know. */
interface Round {
  unanswered: number;
}

/** All consume streams of this node. */
export class Consumers implements ConsumerStreamPort {
  readonly stallTimeoutMs: number;
  /** Memory of the runs. */
  readonly frames = new FramePool();
  readonly #limits: ConsumerLimits;
  readonly #routes: ConsumerRoutes;
  readonly #seats: Seats;
  readonly #unsent: UnsentBudget;
  readonly #groups: GroupTable<Reader>;
  readonly #byId = new Map<number, Reader>();
  readonly #streams = new Set<ConsumerStream>();
  readonly #patternStreams = new Set<ConsumerStream>();
  readonly #watch: SubjectWatch;
  readonly #scan = new ConsumeScan();
  readonly #positions: PositionAsks;
  readonly #rounds = new Map<ConsumerStream, Round>();
  #directory: SubjectDirectory | null = null;
  stalled = 0;
  messages = 0;
  bytes = 0;
  /** Null: nothing is traced. */
  traces: DeliveryTraces | null = null;

  constructor(
    routes: ConsumerRoutes,
    seats: Seats,
    unsent: UnsentBudget,
    limits: ConsumerLimits,
    observer: GroupObserver,
    positions: PositionAsks,
  ) {
    this.#positions = positions;
    this.#unsent = unsent;
    this.#routes = routes;
    this.#seats = seats;
    this.#limits = limits;
    this.stallTimeoutMs = limits.stallTimeoutMs;
    this.#groups = new GroupTable(Encoding.BATCHES, seats, observer);
    this.#watch = new SubjectWatch(
      (link) => routes.touched(link),
      () => this.#searchAgain(),
    );
  }

  get bufferBytes(): number {
    return this.#unsent.allowance(this.#limits.bufferBytes);
  }

  /** Streams that are open. */
  get count(): number {
    return this.#streams.size;
  }

  /** Of each subject; for a look at them. */
  groups(): Iterable<SubjectGroup<Reader>> {
    return this.#groups.all();
  }

  /** Before the first stream is accepted. */
  useDirectory(directory: SubjectDirectory): void {
    this.#directory = directory;
  }

  accept(call: ServerDuplexStream<Buffer, Buffer>, caller: Caller): Reason | null {
    const refusal = this.#routes.refusing ?? (this.#seats.full ? 'SUBSCRIPTIONS_FULL' : null);
    if (refusal === null) this.#streams.add(new ConsumerStream(call, caller, this));
    else call.emit('error', makeStatus(refusal, ''));
    return refusal;
  }

  /** Ends what has not taken a byte for stall_timeout; called about once a second. */
  sweep(now: number): void {
    for (const stream of this.#streams) {
      const { unsentBytes, sentBytes } = stream.out;
      if (unsentBytes === 0 || sentBytes !== stream.sentSeen) {
        stream.sentSeen = sentBytes;
        stream.movedAt = now;
      }
      if (now - stream.movedAt < this.stallTimeoutMs) continue;
      this.stalled += 1;
      stream.end('SUBSCRIBER_STALLED');
      stream.out.reset();
    }
  }

  endAll(reason: Reason): void {
    for (const stream of [...this.#streams]) stream.end(reason);
  }

  // --- answers of the shards ---

  /** False if the subscription is none of these. */
  started(id: number, next: number, head: number, settled: number, isAwaiting = false): boolean {
    const reader = this.#byId.get(id);
    reader?.stream.started(reader, next, head, settled, isAwaiting);
    return reader !== undefined;
  }

  refused(id: number, reason: Reason): boolean {
    const reader = this.#byId.get(id);
    if (reader === undefined) return false;
    const where = reader.window === null ? '' : `, next id ${reader.window.next}`;
    reader.stream.end(reason, `subject ${reader.name}${where}`);
    return true;
  }

  groupRun(run: BatchRun): void {
    const group = this.#groups.ofId(run.target);
    const held = new HeldBytes(this.#unsent, run.frame.length);
    for (const reader of group?.members ?? []) reader.stream.offer(reader, run, held);
    run.pooled.release();
    const { traces } = this;
    if (traces !== null && traces.size > 0) traces.delivered(run.target, run.to, group?.members.size ?? 0);
  }

  /** -1: nobody is subscribed to it. */
  groupOf(subject: Buffer): number {
    return this.#groups.ofSubject(subject)?.id ?? -1;
  }

  readerRun(run: BatchRun): void {
    const reader = this.#byId.get(run.target);
    reader?.stream.offerOwn(reader, run, new HeldBytes(this.#unsent, run.frame.length));
    run.pooled.release();
  }

  watched(token: number): void {
    this.#watch.watched(token);
  }

  /** A subject was given its first id. */
  born(subject: Buffer, hash: number): void {
    for (const stream of [...this.#patternStreams]) this.#found(stream, [{ subject, hash }], true);
  }

  attached(link: ShardLink): void {
    this.resume(({ group }) => group.shard === link.shard);
    this.#watch.attached(link);
  }

  shardDied(shard: number): void {
    this.#watch.shardDied(shard);
  }

  /** A shard was replaced, or subjects have another one now: their readers go on from where each one stands. */
  resume(isAffected: (seat: Seat) => boolean): void {
    for (const reader of this.#byId.values()) {
      if (isAffected(reader)) reader.stream.resubscribe(reader);
    }
  }

  /** Subjects of these slots have no shard for a while: nothing is said of their readers to one. */
  holdSlots(slots: ReadonlySet<number>): void {
    this.#groups.setShard(slots, () => HELD);
  }

  /** Subjects of these slots have a shard again, perhaps another. */
  resumeSlots(slots: ReadonlySet<number>, ownerOf: (slot: number) => number): void {
    this.#groups.setShard(slots, ownerOf);
    if (isPlanted('B4-reader-not-rejoined')) return;
    this.resume(({ group }) => slots.has(slotOfHash(group.hash)));
  }

  // --- ConsumerStreamPort ---

  subscribeAt(seat: Seat, start: StartPosition, creditBytes: number): void {
    this.#routes.subscribeAt(seat, start, creditBytes);
  }

  credit(seat: Seat, kind: number, next: number, bytes: number): void {
    this.#routes.credit(seat, kind, next, bytes);
  }

  unsubscribe(seat: Seat): void {
    this.#routes.unsubscribe(seat);
  }

  delivered(messages: number, bytes: number): void {
    this.messages += messages;
    this.bytes += bytes;
  }

  onFrame(stream: ConsumerStream, frame: Buffer): void {
    const scan = this.#scan;
    const fault = scanConsume(frame, this.#limits.consumerSubjectsMax, scan);
    const { opening, bytes, messages } = scan;
    if (fault !== null) {
      stream.end(fault);
      return;
    }
    if ((opening !== null) !== (stream.state === 'new')) {
      stream.end('STREAM_NOT_OPENED', stream.state === 'new' ? '' : 'it is open already');
      return;
    }
    if (opening !== null) this.#open(stream, opening);
    if (!stream.ended && (bytes > 0 || messages > 0)) stream.grant(bytes, messages);
  }

  askPositions(stream: ConsumerStream): void {
    // What an answer is missing for is told as it was known, and not asked for again: a shard that does not read would be asked without end.
    if (this.#rounds.has(stream)) {
      stream.heartbeat();
      return;
    }
    const byShard = Map.groupBy(stream.readers.values(), ({ group }) => group.shard);
    const round: Round = { unanswered: 0 };
    this.#rounds.set(stream, round);
    for (const link of this.#routes.links()) {
      const readers = byShard.get(link.shard) ?? [];
      for (let i = 0; i < readers.length; i += POSITIONS_MAX) {
        this.#ask(stream, round, link, readers.slice(i, i + POSITIONS_MAX));
      }
    }
    if (round.unanswered === 0) this.#heartbeat(stream);
  }

  permissionsChanged(stream: ConsumerStream): void {
    if (stream.ended) return;
    for (const { name } of stream.readers.values()) {
      if (mayHave(stream, Buffer.from(name))) continue;
      // By name: it is one that the client has had.
      stream.end('PERMISSION_DENIED', 'it may subscribe to less than before');
      return;
    }
    if (stream.patterns.length > 0) this.#search(stream, Promise.resolve(), true);
  }

  closed(stream: ConsumerStream): void {
    for (const reader of stream.readers.values()) {
      this.#groups.leave(reader.group, reader);
      this.#byId.delete(reader.id);
      this.#seats.release();
      this.unsubscribe(reader);
    }
    stream.readers.clear();
    this.#streams.delete(stream);
    this.#patternStreams.delete(stream);
    this.#rounds.delete(stream);
  }

  // --- opening ---

  #open(stream: ConsumerStream, { specs, resumeToken, heartbeatMs }: ConsumeOpening): void {
    const subjectsMax = this.#limits.consumerSubjectsMax;
    const subjectBytesMax = SUBJECT_BYTES_MAX - stream.caller.space.length;
    const isResumed = resumeToken.length > 0;
    const token = isResumed ? decodeResumeToken(resumeToken, subjectsMax, subjectBytesMax) : null;
    if (isResumed && token === null) {
      stream.end('RESUME_TOKEN_INVALID');
      return;
    }
    const wanted = new Map<string, StartPosition>();
    const patterns: StreamPattern[] = [];
    for (const spec of specs) {
      const fault = this.#addSpec(spec, stream, token, wanted, patterns);
      if (fault !== null) {
        stream.end(fault, spec.name.toString());
        return;
      }
    }
    const found = new Map<string, Pattern>();
    for (const [name, next] of token?.next ?? []) {
      const first = patterns.find(({ pattern }) => pattern.matches(Buffer.from(name)));
      if (!wanted.has(name) && (first === undefined || !mayHave(stream, Buffer.from(name)))) continue;
      if (!wanted.has(name) && first !== undefined) found.set(name, first.pattern);
      const time = token?.times.get(name);
      const start = time === undefined ? FIRST_ID : { kind: Start.TIME, value: time };
      wanted.set(name, goingOn(start, next));
    }
    if (this.#isBlocked(stream.caller, wanted.keys(), patterns.length > 0)) {
      stream.end('QUEUE_FULL');
      return;
    }
    stream.patterns = patterns;
    this.#join(
      stream,
      [...wanted].map(([name, start]) => ({ subject: Buffer.from(name), start, pattern: found.get(name) ?? null })),
    );
    if (stream.ended) return;
    if (patterns.length > 0) this.#searchFirst(stream);
    stream.open(heartbeatMs);
  }

  /** A new stream would have to tell a shard of subjects that does not read what it is told already. What a pattern finds may be any shard's. */
  #isBlocked({ space }: Caller, names: Iterable<string>, hasPatterns: boolean): boolean {
    const routes = this.#routes;
    if (!routes.links().some(({ shard }) => routes.isBlocked(shard))) return false;
    if (hasPatterns) return true;
    for (const name of names) {
      const inner = inSpace(space, Buffer.from(name));
      if (routes.isBlocked(routes.shardOf(subjectHash(inner, 0, inner.length)))) return true;
    }
    return false;
  }

  /** Null, or why the subject or pattern cannot be had. */
  #addSpec(
    { name, start: kind, value }: SubjectSpec,
    { caller, from }: ConsumerStream,
    token: StreamPositions | null,
    wanted: Map<string, StartPosition>,
    patterns: StreamPattern[],
  ): Reason | null {
    const start = { kind, value };
    const text = name.toString();
    if (caller.space.length + name.length > SUBJECT_BYTES_MAX) return 'SUBJECT_TOO_LONG';
    if (!hasWildcard(name)) {
      const fault = subjectFault(name, 0, name.length) ?? caller.demand(Verb.SUBSCRIBE, name, 0, name.length, from);
      if (fault === null && !wanted.has(text)) wanted.set(text, start);
      return fault;
    }
    const pattern = Pattern.parse(name);
    if (typeof pattern === 'string') return pattern;
    if (!caller.mayFind(Verb.SUBSCRIBE, name)) return caller.demand(Verb.SUBSCRIBE, name, 0, name.length, from);
    // What it matches and the token does not know has come since.
    patterns.push({ pattern, start: token?.patterns.has(text) === true ? laterStart(start) : start });
    return null;
  }

  /** New subjects of a stream; ends it when they are too many. */
  #join(stream: ConsumerStream, found: readonly Found[]): void {
    if (stream.readers.size + found.length > this.#limits.consumerSubjectsMax) {
      stream.end('CONSUMER_SUBJECTS_FULL');
      return;
    }
    const readers: Reader[] = [];
    const { space } = stream.caller;
    for (const { subject, hash, start, pattern = null } of found) {
      if (this.#seats.full) break;
      const inner = space.length === 0 ? subject : inSpace(space, subject);
      const known = hash ?? subjectHash(inner, 0, inner.length);
      const group = this.#groups.get(inner, known, this.#routes.shardOf(known));
      const reader = new ConsumerReader(this.#seats.take(), group, stream, subject.toString(), start, pattern);
      group.members.add(reader);
      this.#byId.set(reader.id, reader);
      readers.push(reader);
    }
    stream.join(readers);
    if (readers.length < found.length) stream.end('SUBSCRIPTIONS_FULL');
  }

  // --- patterns ---

  #searchFirst(stream: ConsumerStream): void {
    this.#patternStreams.add(stream);
    const watched = this.#watch.on(this.#routes.links());
    this.#search(stream, watched, false);
  }

  #searchAgain(): void {
    for (const stream of this.#patternStreams) this.#search(stream, Promise.resolve(), true);
  }

  /** `isLater`: what is found now was not there when the stream began. */
  #search(stream: ConsumerStream, ready: Promise<void>, isLater: boolean): void {
    stream.searches += 1;
    stream.searching = Promise.all([stream.searching, ready]).then(async () => {
      for (const { pattern } of stream.patterns) await this.#searchPages(stream, pattern, isLater);
      stream.searches -= 1;
      stream.announce();
    });
  }

  async #searchPages(stream: ConsumerStream, pattern: Pattern, isLater: boolean): Promise<void> {
    let cursor = 0;
    const scope = { space: stream.caller.space, prefix: pattern.prefix };
    while (cursor >= 0 && !stream.ended && this.#directory !== null) {
      const { rows, next } = await this.#directory.listSubjects(scope, cursor, PAGE_SUBJECTS);
      this.#found(
        stream,
        rows.map(({ subject }) => ({ subject: Buffer.from(subject) })),
        isLater,
      );
      cursor = next;
    }
  }

  /** `subjects`: as they are called inside the broker, of whichever space. */
  #found(stream: ConsumerStream, subjects: readonly { subject: Buffer; hash?: number }[], isLater: boolean): void {
    if (stream.ended) return;
    const { space } = stream.caller;
    const fresh = subjects.flatMap((found) => {
      // A pattern matches what is in the space of its caller, also that of a caller who has none.
      if (!isOfSpace(found.subject, space)) return [];
      const subject = found.subject.subarray(space.length);
      const first = stream.patterns.find(({ pattern }) => pattern.matches(subject));
      if (first === undefined || stream.readers.has(subject.toString())) return [];
      if (!mayHave(stream, subject)) return [];
      return [{ ...found, subject, start: isLater ? laterStart(first.start) : first.start, pattern: first.pattern }];
    });
    if (fresh.length > 0) this.#join(stream, fresh);
  }

  // --- heartbeats ---

  #ask(stream: ConsumerStream, round: Round, link: ShardLink, readers: readonly Reader[]): void {
    round.unanswered += 1;
    this.#positions.ask(
      link,
      readers.map(({ id }) => id),
      (index, head, settled) => {
        const reader = readers[index];
        if (reader === undefined || head < 0) return;
        reader.head = head;
        reader.settled = settled;
      },
      () => {
        round.unanswered -= 1;
        if (round.unanswered === 0 && this.#rounds.get(stream) === round) this.#heartbeat(stream);
      },
    );
  }

  #heartbeat(stream: ConsumerStream): void {
    this.#rounds.delete(stream);
    stream.heartbeat();
  }
}
