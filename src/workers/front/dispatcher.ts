import type { ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js';
import { type Caller, type CallOrigin, Verb } from '../../access/caller.ts';
import { assert, defined } from '../../base/assert.ts';
import { BrokerError, REASON_NAMES, type Reason } from '../../base/errors.ts';
import { slotOfHash, subjectHash } from '../../base/subject.ts';
import { innerSubjectFault } from '../../base/subject-space.ts';
import type { CallTrace } from '../../base/trace-context.ts';
import { originOf } from '../../grpc/callers.ts';
import {
  decodeId,
  encodeBroadcastResponse,
  encodeId,
  FetchScan,
  PublishScan,
  SubscribeScan,
  scanFetch,
  scanPublish,
  scanSubscribe,
} from '../../grpc/codec.ts';
import { DeliveryStream } from '../../grpc/delivery-stream.ts';
import type { Done, Engine } from '../../grpc/engine.ts';
import { ReceiveBudget } from '../../grpc/receive-budget.ts';
import { type ErrorStatus, StatusBook, statusCodeOf } from '../../grpc/status.ts';
import { UnsentBudget } from '../../grpc/unsent-budget.ts';
import { recordBytesMaxOf } from '../../shm/layout.ts';
import {
  BORN_HEADER,
  DELIVERY_EXTRA_BYTES,
  FETCH_HEADER,
  PUBLISH_HEADER_MAX,
  StreamToken,
  ToMain,
  ToShard,
} from '../link.ts';
import { Peers } from '../peers/peers.ts';
import type { ShardConnection } from '../shard-pool.ts';
import { HELD, type SlotTable } from '../slots/slot-table.ts';
import type { Tracing } from '../tracing/tracing.ts';
import { Address } from './address.ts';
import type { OverloadGuard } from './admission.ts';
import { takeBatchRun } from './batch-run.ts';
import { Broadcasts, innerRequest } from './broadcasts.ts';
import { CallMetrics } from './call-metrics.ts';
import { CallTable, Method } from './call-table.ts';
import { type ConsumerRoutes, Consumers } from './consumers.ts';
import type { DispatcherLimits } from './dispatcher-limits.ts';
import { GoneSeats } from './gone-seats.ts';
import { HoldQueue } from './hold-queue.ts';
import { PositionAsks } from './position-asks.ts';
import { type ProducerRoutes, ProducerStreams } from './producer-streams.ts';
import type { Quotas } from './quotas.ts';
import {
  claimControl,
  publishBytes,
  putAdministration,
  putCredit,
  putLookUp,
  putOpenProducer,
  putPublish,
  putSubscribe,
  putUnsubscribe,
} from './request-records.ts';
import { takeRun } from './run.ts';
import { Seats } from './seats.ts';
import { ShardLink } from './shard-link.ts';
import { SlotFront } from './slot-front.ts';
import type { Seat, StartPosition } from './subject-group.ts';
import { type SubjectInfo, takeSubjectInfo } from './subject-info.ts';
import { Subscriptions } from './subscriptions.ts';
import { TurnBells } from './turn-bells.ts';

const RECORDS_A_ROUND = 1_024;
/** A run is up to 128 KiB and goes to many streams: a few at a time, so that calls are not kept waiting. */
const RUNS_A_ROUND = 64;
/** What a call without a body counts for in limits.in_flight_bytes. */
const LOOK_UP_BYTES = 512;
const EMPTY = Buffer.alloc(0);

/**
 * The engine behind the gRPC handlers, on the main thread: finds the shard of a request, admits or refuses it before any work is done, copies it
 * to the shard's ring, and answers calls when their answers come back.
 */
export class Dispatcher implements Engine, ProducerRoutes, ConsumerRoutes {
  readonly metrics = new CallMetrics();
  readonly subscriptions: Subscriptions;
  readonly #broadcasts: Broadcasts;
  readonly producers: ProducerStreams;
  readonly consumers: Consumers;
  /** The other nodes; does nothing on a node alone. */
  readonly peers: Peers;
  readonly positions = new PositionAsks((link) => this.touched(link));
  /** Of Subscribe and of Consume. */
  readonly seats: Seats;
  /** What deliveries hold until it has gone out. */
  readonly unsent: UnsentBudget;
  /** Requests that have not come to their end. */
  readonly receiving: ReceiveBudget;
  /** This thread has no idle time left; told to the shards, which then make larger groups. */
  isBusy = false;
  /** Null: nothing is traced. */
  tracing: Tracing | null = null;
  readonly #limits: DispatcherLimits;
  readonly #calls: CallTable;
  readonly #links: (ShardLink | null)[];
  readonly #table: SlotTable;
  readonly #held = new HoldQueue();
  readonly slots: SlotFront;
  readonly #gone = new GoneSeats((seat) => this.unsubscribe(seat));
  /** The longest publish that travels on a ring. */
  readonly #publishBytesMax: number;
  readonly #guard: OverloadGuard;
  /** Of the request at hand, and the shard that owns its subject, or HELD. Valid until the next call. */
  readonly #address = new Address();
  #shard = 0;
  readonly #fetchScan = new FetchScan();
  readonly #publishScan = new PublishScan();
  readonly #subscribeScan = new SubscribeScan();
  readonly #statuses = new StatusBook();
  readonly #infos = new Map<number, (info: SubjectInfo) => void>();
  /** Calls that ask for the last sequence of a producer. */
  readonly #opening = new Map<number, (lastSequence: number) => void>();
  readonly #onControl = (type: number, offset: number, length: number): void => this.#control(type, offset, length);
  readonly #onPayload = (type: number, offset: number, length: number): void => this.#payload(type, offset, length);
  /** The link whose records are being handled. */
  #draining: ShardLink | null = null;
  #refusing: Reason | null = 'NOT_READY';
  readonly #bells: TurnBells;

  constructor(limits: DispatcherLimits, guard: OverloadGuard, table: SlotTable, quotas?: Quotas) {
    this.#limits = limits;
    this.#guard = guard;
    this.#table = table;
    this.#publishBytesMax = recordBytesMaxOf(limits.ringBytes) - DELIVERY_EXTRA_BYTES - PUBLISH_HEADER_MAX;
    this.#calls = new CallTable(limits.callsMax);
    this.#links = new Array<ShardLink | null>(limits.shardsMax).fill(null);
    this.#bells = new TurnBells(this.#links);
    this.seats = new Seats(limits.subscriptionsMax);
    this.unsent = new UnsentBudget(limits.unsentBytesMax);
    this.receiving = new ReceiveBudget(limits.bytesMax, limits.receiveTimeoutMs, limits.requestTimeoutMs);
    this.producers = new ProducerStreams(limits, this, this.receiving, { quotas, metrics: this.metrics });
    this.peers = new Peers(this, this.producers.received);
    const { own, demand } = this.peers;
    this.subscriptions = new Subscriptions(this, this.seats, this.unsent, limits, own);
    this.#broadcasts = new Broadcasts(this.subscriptions, limits.scan);
    this.consumers = new Consumers(this, this.seats, this.unsent, limits, own, this.positions);
    this.slots = new SlotFront({
      table,
      held: this.#held,
      linkTo: (shard) => this.#links[shard] ?? null,
      followers: [this.#gone, this.subscriptions, this.consumers, demand],
      onResumed: () => this.producers.retry(),
    });
  }

  get callsInFlight(): number {
    return this.#calls.inFlight;
  }

  /** Of calls and of batches of publish streams. */
  get bytesInFlight(): number {
    return this.#calls.bytesInFlight + this.producers.bytesInFlight;
  }

  get refusing(): Reason | null {
    return this.#refusing;
  }

  /** From now on calls are admitted. */
  admit(): void {
    this.#refusing = null;
  }

  /** From now on new calls get `reason`; those in flight go on. */
  refuseNew(reason: Reason): void {
    this.#refusing = reason;
  }

  // --- shards come and go ---

  attach(connection: ShardConnection): void {
    const link = new ShardLink(connection);
    this.#links[connection.shard] = link;
    this.subscriptions.resume(({ group }) => group.shard === connection.shard);
    this.consumers.attached(link);
    this.peers.demand.attached(link);
  }

  /** The thread has died: nobody knows what became of its calls. */
  detach(shard: number): void {
    this.#disconnect(shard);
    this.producers.shardDied(shard);
  }

  /** The thread was stopped when it owned no slot and had nothing in hand. */
  retire(shard: number): void {
    this.#disconnect(shard);
    this.producers.shardRetired(shard);
  }

  #disconnect(shard: number): void {
    this.#links[shard]?.close();
    this.#links[shard] = null;
    for (const call of this.#calls.callsOfShard(shard)) this.#fail(call, 'OUTCOME_UNKNOWN');
    this.consumers.shardDied(shard);
    this.positions.shardDied(shard);
  }

  // --- Engine ---

  publish(
    request: Buffer,
    deadlineMs: number,
    done: Done,
    caller: Caller,
    from: CallOrigin | null,
    trace: CallTrace | null = null,
  ): void {
    const refusal = this.#admit(request, request.length, deadlineMs, Verb.PUBLISH, caller, from);
    if (refusal !== null) {
      this.#refuse(Method.PUBLISH, refusal, done);
      return;
    }
    const { hash, tail } = this.#address;
    if (request.length + tail.length > this.#publishBytesMax) {
      // No valid request is that long (config/rules.ts): it is over a limit, or padded with fields that nobody knows.
      const fault = scanPublish(request, 0, request.length, this.#publishScan, this.#limits.scan);
      this.#refuse(Method.PUBLISH, fault ?? 'MESSAGE_TOO_LARGE', done);
      return;
    }
    const shard = this.#shard;
    if (shard === HELD) {
      const call = this.#calls.open(done, Method.PUBLISH, HELD, request.length, performance.now());
      const kept = Buffer.from(tail);
      this.#holdCall(call, hash, (link) => {
        const at = link.payload.claim(ToShard.PUBLISH, publishBytes(request, kept, trace));
        if (at >= 0) putPublish(link, at, call, hash, request, kept, deadlineMs, this.isBusy, trace);
        return at >= 0;
      });
      return;
    }
    const link = this.#links[shard] as ShardLink;
    const at = link.payload.claim(ToShard.PUBLISH, publishBytes(request, tail, trace));
    if (at < 0) {
      this.#refuse(Method.PUBLISH, 'QUEUE_FULL', done);
      return;
    }
    const call = this.#calls.open(done, Method.PUBLISH, shard, request.length, performance.now());
    putPublish(link, at, call, hash, request, tail, deadlineMs, this.isBusy, trace);
    this.touched(link);
  }

  refusePublish(bytes: number): ErrorStatus | null {
    const reason = this.#refusing ?? this.#fullness(bytes);
    if (reason === null) return null;
    this.metrics.refused(Method.PUBLISH, reason);
    return this.#statuses.of(reason);
  }

  fetch(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void {
    const scan = this.#fetchScan;
    const fault = scanFetch(request, 0, request.length, scan);
    this.#lookUp(ToShard.FETCH, Method.FETCH, request, fault, scan.id, deadlineMs, done, caller, from);
  }

  incIdx(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void {
    this.#lookUp(ToShard.INCREMENT, Method.INCREMENT, request, null, 0, deadlineMs, done, caller, from);
  }

  broadcast(request: Buffer, _deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void {
    const fault = this.#refusing ?? this.#findAllowed(request, Verb.PUBLISH, caller, from);
    const inner = fault === null ? innerRequest(request, this.#address) : request;
    const refusal = fault ?? this.broadcastHere(inner);
    if (refusal !== null) {
      this.#refuse(Method.BROADCAST, refusal, done);
      return;
    }
    this.peers.broadcastToAll(inner);
    this.metrics.answered(Method.BROADCAST, 0, 0);
    done(null, encodeBroadcastResponse(true));
  }

  broadcastHere(request: Buffer): Reason | null {
    return this.#broadcasts.here(request);
  }

  subscribe(request: Buffer, stream: ServerWritableStream<Buffer, Buffer>, caller: Caller): void {
    const scan = this.#subscribeScan;
    const fault = scanSubscribe(request, 0, request.length, scan);
    const refusal =
      this.#refusing ??
      fault ??
      this.#findAllowed(request, Verb.SUBSCRIBE, caller, originOf(stream)) ??
      (this.seats.full ? 'SUBSCRIPTIONS_FULL' : null) ??
      (this.isBlocked(this.#shard) ? 'QUEUE_FULL' : null);
    if (refusal !== null) {
      this.metrics.refused(Method.SUBSCRIBE, refusal);
      stream.emit('error', this.#statuses.of(refusal));
      return;
    }
    const { subject, hash } = this.#address;
    this.metrics.answered(Method.SUBSCRIBE, 0, 0);
    const position = { kind: scan.start, value: scan.value };
    const seat = this.subscriptions.open(subject, hash, this.#shard, position, new DeliveryStream(stream));
    this.subscriptions.follow(stream, caller, seat);
  }

  // --- consume streams ---

  consume(stream: ServerDuplexStream<Buffer, Buffer>, caller: Caller): void {
    const refusal = this.consumers.accept(stream, caller);
    this.metrics.opened(Method.CONSUME, refusal);
  }

  shardOf(hash: number): number {
    return this.#table.route(slotOfHash(hash));
  }

  // --- publish streams ---

  publishStream(stream: ServerDuplexStream<Buffer, Buffer>, caller: Caller): void {
    const refusal = this.producers.accept(stream, caller);
    this.metrics.opened(Method.PUBLISH_STREAM, refusal);
  }

  linkOf(hash: number): ShardLink | null {
    return this.#links[this.#table.route(slotOfHash(hash))] ?? null;
  }

  /** Changes when slots change their shard; -1 while some are on their way. */
  get slotsEpoch(): number {
    return this.#table.held > 0 ? -1 : this.#table.epoch;
  }

  isBlocked(shard: number): boolean {
    return this.#links[shard]?.controlOutbox.blocked === true;
  }

  links(): readonly ShardLink[] {
    return this.#links.filter((link) => link !== null);
  }

  /** Something must be in flight for it to be full, so that what is larger than the limit can pass alone. */
  hasRoom(bytes: number): boolean {
    const { bytesInFlight } = this;
    return bytesInFlight === 0 || bytesInFlight + bytes <= this.#limits.bytesMax;
  }

  openProducer(producer: Buffer, mayBeNew: boolean): Promise<number> {
    return new Promise((resolve, reject) => {
      // Any shard can ask the log. The owner of the slot of its name can also while that slot is on its way to another.
      const owner = this.#table.ownerOf(slotOfHash(subjectHash(producer, 0, producer.length)));
      const fault = this.#faultAt(owner);
      if (fault !== null) {
        reject(this.#statuses.of(fault));
        return;
      }
      const link = this.#links[owner] as ShardLink;
      const done: Done = (error) => {
        this.#opening.delete(call);
        if (error !== null) reject(error);
      };
      const call = this.#calls.open(done, Method.PUBLISH_STREAM, link.shard, LOOK_UP_BYTES, performance.now());
      this.#opening.set(call, resolve);
      putOpenProducer(link, call, producer, mayBeNew);
      this.touched(link);
    });
  }

  // --- administration: subjects as they are called inside the broker ---
  info(subject: Buffer): Promise<SubjectInfo> {
    return this.#administer(ToShard.INFO, Method.INFO, subject, 0) as Promise<SubjectInfo>;
  }

  /** Resolves with the first id as applied. */
  trim(subject: Buffer, first: number): Promise<number> {
    return this.#administer(ToShard.TRIM, Method.TRIM, subject, first) as Promise<number>;
  }

  // --- SubscriptionPort: what must not be lost waits in the link's outbox, also while it is blocked: no more than is open ---

  subscribeAt(seat: Seat, start: StartPosition, creditBytes: number): void {
    const link = this.#links[seat.group.shard];
    // A shard that is being replaced, or a slot on its way to another: `resume` asks again when there is one.
    if (link === null || link === undefined) return;
    putSubscribe(link, seat, start, creditBytes);
    this.touched(link);
  }

  credit(seat: Seat, kind: number, next: number, creditBytes: number): void {
    const link = this.#links[seat.group.shard];
    if (link === null || link === undefined) return;
    putCredit(link, seat.id, kind, next, creditBytes);
    this.touched(link);
  }

  unsubscribe(seat: Seat): void {
    if (seat.group.shard === HELD) this.#gone.add(seat);
    const link = this.#links[seat.group.shard];
    if (link === null || link === undefined) return;
    putUnsubscribe(link, seat.id);
    this.touched(link);
  }

  // --- answers of the shards ---

  /** One round over all links. Returns the number of things done. */
  doWork(): number {
    let done = 0;
    for (const link of this.#links) {
      if (link === null) continue;
      if (link.controlOutbox.blocked && link.controlOutbox.flush()) link.markDirty();
      this.#draining = link;
      done += link.fromControl.drain(this.#onControl, RECORDS_A_ROUND);
      done += link.fromPayload.drain(this.#onPayload, RUNS_A_ROUND);
      link.settleReaders();
      link.ringIfDirty();
    }
    if (this.producers.isBlocked) this.producers.retry();
    return done;
  }

  /** About ten times a second: judges overload, ends stalled subscribers. `wait` and `queued` come from the shards' counters. */
  observe(waitMs: number | null, isQueued: boolean, now: number): void {
    this.#guard.observe(waitMs, now, isQueued);
  }

  #started(view: DataView, offset: number): void {
    const [id, isAwaiting] = [view.getUint32(offset + 8, true), view.getUint32(offset + 12, true) === 1];
    const next = view.getFloat64(offset, true);
    const [head, settled] = [view.getFloat64(offset + 16, true), view.getFloat64(offset + 24, true)];
    if (!this.consumers.started(id, next, head, settled, isAwaiting)) this.subscriptions.started(id, next, isAwaiting);
  }

  #control(type: number, offset: number, length: number): void {
    const { view } = this.#source().fromControl;
    switch (type) {
      case ToMain.ACKS: {
        const base = view.getFloat64(offset, true);
        const count = view.getUint32(offset + 8, true);
        for (let i = 0; i < count; i++) this.#succeed(view.getUint32(offset + 16 + i * 4, true), encodeId(base + i));
        return;
      }
      case ToMain.ACK_ROWS: {
        let id = view.getFloat64(offset, true);
        const end = offset + 16 + view.getUint32(offset + 8, true) * 8;
        for (let at = offset + 16; at < end; at += 8) {
          this.#acknowledge(view.getUint32(at, true), id);
          id += view.getUint32(at + 4, true);
        }
        return;
      }
      case ToMain.ACK_ONE:
        this.#acknowledge(view.getUint32(offset + 8, true), view.getFloat64(offset, true));
        return;
      case ToMain.PRODUCER: {
        const call = view.getUint32(offset + 8, true);
        this.#opening.get(call)?.(view.getFloat64(offset, true));
        this.#opening.delete(call);
        this.#succeed(call, EMPTY);
        return;
      }
      case ToMain.REFUSE: {
        const reason = REASON_NAMES[view.getUint32(offset, true)] as Reason;
        const count = view.getUint32(offset + 4, true);
        for (let i = 0; i < count; i++) {
          const call = view.getUint32(offset + 8 + i * 4, true);
          if (StreamToken.is(call)) this.producers.refuse(call, reason);
          else this.#fail(call, reason);
        }
        return;
      }
      case ToMain.WATCHED:
        this.consumers.watched(view.getUint32(offset, true));
        return;
      case ToMain.BORN: {
        const { bytes } = this.#source().fromControl;
        const subject = Buffer.from(bytes.subarray(offset + BORN_HEADER, offset + length));
        this.consumers.born(subject, view.getUint32(offset, true));
        return;
      }
      case ToMain.POSITIONS:
        this.positions.answered(view, offset);
        return;
      case ToMain.INFO: {
        const call = view.getUint32(offset + 40, true);
        this.#infos.get(call)?.(takeSubjectInfo(view, offset));
        this.#infos.delete(call);
        this.#succeed(call, EMPTY);
        return;
      }
      default:
        assert(false, () => `unknown record ${type} from shard ${this.#source().shard}`);
    }
  }

  #payload(type: number, offset: number, length: number): void {
    const { view, bytes } = this.#source().fromPayload;
    switch (type) {
      case ToMain.FETCHED:
        this.#succeed(view.getUint32(offset, true), Buffer.from(bytes.subarray(offset + 8, offset + length)));
        return;
      case ToMain.SUBSCRIBED:
        this.#started(view, offset);
        return;
      case ToMain.UNSUBSCRIBED: {
        const id = view.getUint32(offset, true);
        const reason = REASON_NAMES[view.getUint32(offset + 4, true)] as Reason;
        if (!this.consumers.refused(id, reason)) this.subscriptions.refused(id, reason);
        return;
      }
      case ToMain.GROUP_BATCHES:
        this.consumers.groupRun(takeBatchRun(this.consumers.frames, bytes, view, offset, length));
        return;
      case ToMain.READER_BATCHES:
        this.consumers.readerRun(takeBatchRun(this.consumers.frames, bytes, view, offset, length));
        return;
      case ToMain.PEER_BATCH:
        this.peers.stored(this.#source().fromPayload, offset, length);
        return;
      case ToMain.TRACE:
        this.tracing?.answered(view, bytes, offset);
        return;
      case ToMain.GROUP_RUN:
        this.subscriptions.groupRun(takeRun(bytes, view, offset, length));
        return;
      case ToMain.READER_RUN:
        this.subscriptions.readerRun(takeRun(bytes, view, offset, length));
        return;
      default:
        assert(false, () => `unknown run ${type} from shard ${this.#source().shard}`);
    }
  }

  #source(): ShardLink {
    return defined(this.#draining, 'a record is handled outside a round');
  }

  // --- admission ---

  /** Fills the address; null if the request may go on. `size`: bytes that it will hold until it is answered. */
  #admit(
    request: Buffer,
    size: number,
    deadlineMs: number,
    verb: Verb,
    caller: Caller,
    from: CallOrigin | null,
  ): Reason | null {
    if (this.#refusing !== null) return this.#refusing;
    const fault = this.#findAllowed(request, verb, caller, from);
    if (fault !== null) return fault;
    const fullness = this.#fullness(size);
    if (fullness !== null) return fullness;
    if (this.#links[this.#shard] === null) return 'NOT_READY';
    return deadlineMs <= Date.now() ? 'DEADLINE_PASSED' : null;
  }

  /** What keeps out whatever comes, whoever sends it. */
  #fullness(size: number): Reason | null {
    if (this.#calls.full || this.bytesInFlight + size > this.#limits.bytesMax) return 'IN_FLIGHT_FULL';
    return this.#guard.overloaded ? 'OVERLOADED' : null;
  }

  /** Why a shard (or HELD) cannot be asked for what has no caller's deadline, or null. */
  #faultAt(shard: number): Reason | null {
    if (this.#links[shard] === null) return 'NOT_READY';
    if (this.#calls.full) return 'IN_FLIGHT_FULL';
    return this.isBlocked(shard) ? 'QUEUE_FULL' : null;
  }

  /** Finds the address and its shard, for a caller who may do that with its subject, which it does not see the space of. */
  #findAllowed(request: Buffer, verb: Verb, caller: Caller, from: CallOrigin | null): Reason | null {
    const address = this.#address;
    const fault = address.find(request, caller);
    if (fault !== null) return fault;
    this.#shard = this.#table.route(slotOfHash(address.hash));
    return caller.demand(verb, address.bytes, address.start + caller.space.length, address.end, from);
  }

  /** A request of a subject and an id, on the control ring. */
  #lookUp(
    type: number,
    method: number,
    request: Buffer,
    fault: Reason | null,
    id: number,
    deadlineMs: number,
    done: Done,
    caller: Caller,
    from: CallOrigin | null,
  ): void {
    const verb = type === ToShard.FETCH ? Verb.FETCH : Verb.PUBLISH;
    const refusal = this.#admit(request, LOOK_UP_BYTES, deadlineMs, verb, caller, from) ?? fault;
    if (refusal !== null) {
      this.#refuse(method, refusal, done);
      return;
    }
    const shard = this.#shard;
    const { subject, hash } = this.#address;
    const length = FETCH_HEADER + subject.length;
    if (shard === HELD) {
      const call = this.#calls.open(done, method, HELD, LOOK_UP_BYTES, performance.now());
      const kept = Buffer.from(subject);
      this.#holdCall(call, hash, (link) => {
        const at = claimControl(link, type, length);
        if (at >= 0) putLookUp(link, at, call, hash, kept, id, deadlineMs);
        return at >= 0;
      });
      return;
    }
    const link = this.#links[shard] as ShardLink;
    const at = claimControl(link, type, length);
    if (at < 0) {
      this.#refuse(method, 'QUEUE_FULL', done);
      return;
    }
    const call = this.#calls.open(done, method, shard, LOOK_UP_BYTES, performance.now());
    putLookUp(link, at, call, hash, subject, id, deadlineMs);
    this.touched(link);
  }

  #administer(type: number, method: number, subject: Buffer, first: number): Promise<SubjectInfo | number> {
    return new Promise((resolve, reject) => {
      const hash = subjectHash(subject, 0, subject.length);
      const shard = this.#table.route(slotOfHash(hash));
      const fault = this.#refusing ?? innerSubjectFault(subject, 0, subject.length) ?? this.#faultAt(shard);
      if (fault !== null) {
        reject(new BrokerError(fault));
        return;
      }
      const done: Done = (error, response) => {
        this.#infos.delete(call);
        if (error !== null) reject(error);
        else if (type === ToShard.TRIM && response !== undefined) resolve(decodeId(response));
      };
      const call = this.#calls.open(done, method, shard, LOOK_UP_BYTES, performance.now());
      if (type === ToShard.INFO) this.#infos.set(call, resolve);
      const put = (link: ShardLink): boolean => {
        // What was held: meanwhile the shard may have stopped reading.
        if (link.controlOutbox.blocked) return false;
        putAdministration(link, type, call, subject, hash, first);
        this.touched(link);
        return true;
      };
      if (shard === HELD) this.#holdCall(call, hash, put);
      else put(this.#links[shard] as ShardLink);
    });
  }

  // --- slots that change their shard ---

  /** What is still held when the process ends was never sent to a shard. */
  refuseHeld(reason: Reason): void {
    for (const call of this.#held.takeAll()) this.#fail(call, reason);
  }

  /** An open call for a held slot waits for the slot's owner; `put` is false while there is no room on its ring. */
  #holdCall(call: number, hash: number, put: (link: ShardLink) => boolean): void {
    this.#held.push(call, () => {
      const owner = this.#table.ownerOf(slotOfHash(hash));
      const link = this.#links[owner];
      if (link === null || link === undefined || !put(link)) return false;
      this.touched(link);
      this.#calls.assign(call, owner);
      return true;
    });
  }

  // --- answers ---

  /** `call`: the number of a call, or a stream token. */
  #acknowledge(call: number, firstId: number): void {
    if (StreamToken.is(call)) this.producers.stored(call, firstId);
    else this.#succeed(call, encodeId(firstId));
  }

  #succeed(call: number, response: Buffer): void {
    this.#count(call, 0);
    this.#calls.close(call)(null, response);
  }

  #fail(call: number, reason: Reason): void {
    this.#count(call, statusCodeOf(reason));
    this.metrics.refusedFor('shard', reason);
    this.#calls.close(call)(this.#statuses.of(reason));
  }

  #count(call: number, status: number): void {
    this.metrics.answered(this.#calls.method(call), status, performance.now() - this.#calls.startedAt(call));
  }

  #refuse(method: number, reason: Reason, done: Done): void {
    this.metrics.refused(method, reason);
    done(this.#statuses.of(reason));
  }

  touched(link: ShardLink): void {
    this.#bells.touched(link);
  }
}
