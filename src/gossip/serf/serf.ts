import { assert, defined } from '../../base/assert.ts';
import {
  type Address,
  type AliveMessage,
  META_BYTES_MAX,
  type Member,
  type MemberDelegate,
  type NodeState,
  PACKET_BYTES,
} from '../types.ts';
import { BroadcastQueue } from './broadcasts.ts';
import { MemberEventCoalescer, UserEventCoalescer } from './coalesce.ts';
import { isValidCoordinate, OWN_COORDINATE } from './coordinates.ts';
import { internalName } from './key-queries.ts';
import { LamportClock } from './lamport.ts';
import {
  COORDINATE_BYTES_MAX,
  DEFAULTS,
  EVENT_BYTES_MAX,
  MESSAGE_BYTES_MAX,
  NODE_NAME_BYTES_MAX,
  STATE_BYTES_MAX,
} from './limits.ts';
import { SerfMembers } from './members.ts';
import type { Coordinate, LeaveIntent, SerfCodec, SerfMessage, SerfState, Tags, UserEventMessage } from './messages.ts';
import { NameVote } from './name-conflict.ts';
import { Queries } from './queries.ts';
import { Rejoin } from './rejoin.ts';
import { SeenEvents } from './seen.ts';
import type { SeenTimes } from './snapshot.ts';
import type {
  KeyOperation,
  MemberEventKind,
  QueryRequest,
  QueryStart,
  QueryWatcher,
  SerfList,
  SerfMember,
  SerfOptions,
  SerfPort,
  SerfRefusal,
  SerfStatistics,
} from './types.ts';

/** The tag that tells clusters apart. */
export const CLUSTER_TAG = 'cluster';
/** Of conflicts about the names of others: not more often are they told. */
const CONFLICT_EVENT_INTERVAL_MS = 1_000;

/** Null, or why these tags cannot be a node's: encoded they are more than META_BYTES_MAX bytes. */
export function whyNotTags(codec: SerfCodec, tags: Tags): SerfRefusal | null {
  return codec.encodeTags(tags).length > META_BYTES_MAX ? 'TAGS_TOO_LARGE' : null;
}

type Phase = 'alive' | 'leaving' | 'left';

/**
 * Serf's rules (hashicorp/serf serf/serf.go, serf/delegate.go), on top of memberlist's: who is a member and how it stands, events and queries that go through
 * the cluster. Pure: bytes, randomness and the keyring come from the port, time from `now` (milliseconds of one steady clock).
 *
 * The interface for who drives it:
 * - `new Serf(options, port, now)`, then `new MemberList(..., serf, now)`, then `attach(list)`; and from then on `tick(now)` whenever `nextAt` has come
 *   (ask anew after every call, of memberlist's rules too).
 * - What happens comes through `port.onEvent` (SerfEvent), inside calls; `respond` may be called in it.
 * - `join`, `leave`, `forceLeave`, `setTags`, `event`, `query`, `queryKeys` return at once, with a SerfRefusal where they can be refused.
 * - `leave` ends with the event `left`; only then the network is closed.
 * - `members`, `member(node)`, `tags`, `state`, `statistics`, `coordinate(node)` look at it; `times` is for the snapshot (snapshot.ts).
 */
export class Serf implements MemberDelegate {
  readonly #options: SerfOptions & typeof DEFAULTS;
  readonly #port: SerfPort;
  readonly #clock = new LamportClock();
  readonly #eventClock = new LamportClock();
  readonly #queryClock = new LamportClock();
  readonly #members: SerfMembers;
  readonly #seenEvents: SeenEvents;
  readonly #queries: Queries;
  readonly #rejoin: Rejoin;
  readonly #intentQueue: BroadcastQueue;
  readonly #eventQueue: BroadcastQueue;
  readonly #queryQueue: BroadcastQueue;
  readonly #userEvents: UserEventCoalescer;
  readonly #memberEvents: MemberEventCoalescer;
  readonly #coordinates = new Map<string, Coordinate>();
  readonly #ackPayload: Uint8Array;

  #list: SerfList | null = null;
  #tags: Tags;
  #meta: Uint8Array;
  #phase: Phase = 'alive';
  /** What a leave waits for next, and until when; infinite: nothing. */
  #leaveAt = Number.POSITIVE_INFINITY;
  #leaveStep: 'intent' | 'list' | 'delay' = 'intent';
  /** A join of ours is under way, and events from before it are to be passed over or not. */
  #joining: { readonly ignoresOldEvents: boolean } | null = null;
  #vote: NameVote | null = null;
  #conflictToldAt = Number.NEGATIVE_INFINITY;
  #lastEventTime = 0;
  #reapAt: number;
  #refused = 0;
  /** The newest `now`, for what is told inside of a call. */
  #now: number;

  constructor(options: SerfOptions, port: SerfPort, now: number) {
    const all = { ...DEFAULTS, ...options };
    const { restored } = options;
    assert(options.node.length > 0 && options.node.length <= NODE_NAME_BYTES_MAX, 'a node name of 1 to 128 bytes');
    assert(whyNotTags(port, options.tags) === null, 'tags of at most 512 bytes');
    assert(all.eventBytesMax <= EVENT_BYTES_MAX, 'events of at most 9 KiB');
    this.#options = all;
    this.#port = port;
    this.#now = now;
    this.#tags = options.tags;
    this.#meta = port.encodeTags(options.tags);
    this.#ackPayload = port.encodeCoordinate(OWN_COORDINATE);
    this.#reapAt = now + all.reapIntervalMs;
    // At least 1: a time of 0 means that none is known.
    for (const clock of [this.#clock, this.#eventClock, this.#queryClock]) clock.increment();
    this.#clock.witness(restored?.time ?? 0);
    this.#eventClock.witness(restored?.eventTime ?? 0);
    this.#queryClock.witness(restored?.queryTime ?? 0);
    this.#lastEventTime = restored?.eventTime ?? 0;
    this.#seenEvents = new SeenEvents(restored === undefined ? 0 : restored.eventTime + 1);
    this.#intentQueue = new BroadcastQueue(all.retransmitMultiplier);
    this.#eventQueue = new BroadcastQueue(all.retransmitMultiplier);
    this.#queryQueue = new BroadcastQueue(all.retransmitMultiplier);
    this.#userEvents = new UserEventCoalescer(
      { coalesceMs: all.userCoalescePeriodMs, quiescentMs: all.userQuiescentPeriodMs },
      port.onEvent.bind(port),
    );
    this.#memberEvents = new MemberEventCoalescer(
      { coalesceMs: all.coalescePeriodMs, quiescentMs: all.quiescentPeriodMs },
      port.onEvent.bind(port),
    );
    this.#members = new SerfMembers({
      self: options.node,
      decodeTags: (meta) => port.decodeTags(meta),
      onEvent: (kind, member) => this.#onMemberEvent(kind, member),
      recentIntentTimeoutMs: all.recentIntentTimeoutMs,
      reconnectTimeoutMs: all.reconnectTimeoutMs,
      tombstoneTimeoutMs: all.tombstoneTimeoutMs,
      pruneDelayMs: all.broadcastTimeoutMs + all.leavePropagateDelayMs,
    });
    this.#queries = new Queries({
      port,
      node: options.node,
      members: this.#members,
      clock: this.#queryClock,
      timeMin: restored === undefined ? 0 : restored.queryTime + 1,
      tags: () => this.#tags,
      address: () => this.#list?.self.address ?? null,
      send: (to, node, payload) => this.#list?.sendUserTo(to, node, payload) ?? false,
      broadcast: (message) => this.#gossip(this.#queryQueue, message),
    });
    this.#rejoin = new Rejoin(
      {
        random: (below) => port.random(below),
        reconnectIntervalMs: all.reconnectIntervalMs,
        rejoinIntervalMs: all.rejoinIntervalMs,
      },
      (restored?.nodes ?? []).filter(({ node }) => node !== options.node),
      now,
    );
  }

  /** Once, before anything else but what the constructor of `list` calls. */
  attach(list: SerfList): void {
    assert(this.#list === null, 'attached once');
    this.#list = list;
    if (this.#members.get(this.#options.node) === undefined) this.#members.handleJoin(list.self);
  }

  // What may be asked of it.

  get members(): readonly SerfMember[] {
    return this.#members.list();
  }

  member(node: string): SerfMember | undefined {
    return this.#members.get(node);
  }

  get tags(): Tags {
    return this.#tags;
  }

  get state(): Phase {
    return this.#phase;
  }

  /** Where `node` says that it is, if it ever did. */
  coordinate(node: string): Coordinate | null {
    return this.#coordinates.get(node) ?? null;
  }

  get times(): SeenTimes {
    return { time: this.#clock.time - 1, eventTime: this.#lastEventTime, queryTime: this.#queries.lastTime };
  }

  get statistics(): SerfStatistics {
    const queues = [this.#intentQueue, this.#eventQueue, this.#queryQueue];
    return {
      members: this.#members.size,
      failed: this.#members.withStatus('failed').length,
      left: this.#members.withStatus('left').length,
      memberTime: this.#clock.time,
      eventTime: this.#eventClock.time,
      queryTime: this.#queryClock.time,
      intentQueue: this.#intentQueue.length,
      eventQueue: this.#eventQueue.length,
      queryQueue: this.#queryQueue.length,
      isEncrypted: this.#port.keyring !== null,
      refused: this.#refused,
      dropped: queues.reduce((sum, queue) => sum + queue.dropped, 0),
    };
  }

  /** How long a query waits for answers by default: longer in a larger cluster (serf/query.go DefaultQueryTimeout). */
  get queryTimeoutMs(): number {
    const { gossipIntervalMs, queryTimeoutMultiplier } = this.#options;
    return gossipIntervalMs * queryTimeoutMultiplier * Math.ceil(Math.log10(this.#members.livingCount + 1));
  }

  // What it may be told to do.

  /** Meets these nodes. `ignoresOldEvents`: events from before are not told. */
  join(
    addresses: readonly Address[],
    options: { readonly ignoresOldEvents: boolean },
    now: number,
  ): SerfRefusal | null {
    if (this.#phase !== 'alive') return 'NOT_ALIVE';
    this.#joining = options;
    this.#attached().join(addresses, now);
    return null;
  }

  /** Gossips that this node leaves, has memberlist say so too, waits for both to go round, and tells `left`. */
  leave(now: number): void {
    if (this.#phase !== 'alive') return;
    this.#now = now;
    this.#phase = 'leaving';
    const intent: LeaveIntent = { kind: 'leave', time: this.#clock.time, node: this.#options.node, prune: false };
    this.#clock.increment();
    this.#members.handleLeaveIntent(intent, now);
    if (!this.#members.hasOthersAlive) {
      this.#continueLeave(now);
      return;
    }
    this.#leaveAt = now + this.#options.broadcastTimeoutMs;
    this.#intentQueue.push(this.#port.encode(intent), {
      onSent: () => {
        // memberlist is told in a tick, not inside its own call.
        if (this.#leaveStep === 'intent') this.#leaveAt = Number.NEGATIVE_INFINITY;
      },
    });
  }

  /** Calls a failed member left, for everybody. `prune`: and forgets it. A node that lives refutes it. */
  forceLeave(node: string, options: { readonly prune: boolean }, now: number): SerfRefusal | null {
    if (this.#phase !== 'alive') return 'NOT_ALIVE';
    this.#now = now;
    const intent: LeaveIntent = { kind: 'leave', time: this.#clock.time, node, prune: options.prune };
    this.#clock.increment();
    this.#handleLeaveIntent(intent, now);
    if (this.#members.hasOthersAlive) this.#gossip(this.#intentQueue, this.#port.encode(intent));
    return null;
  }

  setTags(tags: Tags, now: number): SerfRefusal | null {
    const refusal = whyNotTags(this.#port, tags);
    if (refusal !== null) return refusal;
    this.#now = now;
    this.#tags = tags;
    this.#meta = this.#port.encodeTags(tags);
    this.#attached().updateMeta(now);
    return null;
  }

  /** Tells an event to every node, this one too. `coalesce`: of several of one name the newest is enough. */
  event(name: string, payload: Uint8Array, options: { readonly coalesce: boolean }, now: number): SerfRefusal | null {
    const { eventBytesMax } = this.#options;
    this.#now = now;
    const message: UserEventMessage = { kind: 'userEvent', time: this.#eventClock.time, name, payload, ...options };
    if (name.length + payload.length > eventBytesMax) return 'EVENT_TOO_LARGE';
    const encoded = this.#port.encode(message);
    if (encoded.length > eventBytesMax) return 'EVENT_TOO_LARGE';
    this.#eventClock.increment();
    this.#handleUserEvent(message, now);
    this.#gossip(this.#eventQueue, encoded);
    return null;
  }

  /** Asks every node that `request` means. The watcher is called inside of calls, this one too. */
  query(request: QueryRequest, watcher: QueryWatcher, now: number): QueryStart {
    this.#now = now;
    return this.#queries.ask(request, this.queryTimeoutMs, watcher, now);
  }

  /** Ends a query of this node before its time. */
  endQuery(handle: number): void {
    this.#queries.end(handle);
  }

  /** Asks every node to change or list its keys; each answers with a KeyResponse (`port.decode`). `key`: null for list-keys. */
  queryKeys(
    operation: KeyOperation | 'list-keys',
    key: Uint8Array | null,
    watcher: QueryWatcher,
    now: number,
  ): QueryStart {
    if (this.#port.keyring === null) return { refusal: 'KEYRING_ABSENT' };
    const payload = this.#port.encode({ kind: 'keyRequest', key: key ?? new Uint8Array(0) });
    return this.query({ name: internalName(operation), payload }, watcher, now);
  }

  /** Answers a query event, once. */
  respond(handle: number, payload: Uint8Array, now: number): SerfRefusal | null {
    return this.#queries.respond(handle, payload, now);
  }

  /** When `tick` is wanted next. */
  get nextAt(): number {
    return Math.min(
      this.#reapAt,
      this.#phase === 'alive' ? this.#rejoin.nextAt() : Number.POSITIVE_INFINITY,
      this.#leaveAt,
      this.#hasJoined || this.#isLeaveStepDone(this.#now) ? this.#now : Number.POSITIVE_INFINITY,
      this.#members.nextAt(),
      this.#queries.nextAt(),
      this.#userEvents.nextAt,
      this.#memberEvents.nextAt,
    );
  }

  tick(now: number): void {
    this.#now = now;
    this.#queries.tick(now);
    this.#members.tick(now);
    if (now >= this.#reapAt) {
      this.#reapAt = now + this.#options.reapIntervalMs;
      this.#members.reap(now);
    }
    if (this.#phase === 'alive' && now >= this.#rejoin.nextAt()) {
      const target = this.#rejoin.tick(now, this.#members);
      if (target !== null) this.#attached().join([target.address], now);
    }
    if (this.#hasJoined) this.#joining = null;
    if (this.#isLeaveStepDone(now)) this.#continueLeave(now);
    this.#userEvents.tick(now);
    this.#memberEvents.tick(now);
  }

  // What memberlist calls.

  meta(): Uint8Array {
    return this.#meta;
  }

  onUser(payload: Uint8Array, now: number): void {
    this.#now = now;
    const message = payload.length <= MESSAGE_BYTES_MAX ? this.#port.decode(payload) : null;
    if (message === null || !this.#handleMessage(message, payload, now)) this.#refused++;
  }

  broadcasts(overhead: number, limit: number): readonly Uint8Array[] {
    const messages: Uint8Array[] = [];
    let free = limit;
    for (const queue of [this.#intentQueue, this.#queryQueue, this.#eventQueue]) {
      free = queue.take(messages, overhead, free, this.#members.size);
    }
    return messages;
  }

  localState(_join: boolean, _now: number): Uint8Array {
    const members = this.#members.list();
    return this.#port.encode({
      kind: 'pushPull',
      time: this.#clock.time,
      statusTimes: new Map(members.map(({ node, statusTime }) => [node, statusTime])),
      leftMembers: members.filter(({ status }) => status === 'left').map(({ node }) => node),
      eventTime: this.#eventClock.time,
      events: this.#seenEvents.list(),
      queryTime: this.#queryClock.time,
    });
  }

  mergeState(state: Uint8Array, join: boolean, now: number): void {
    this.#now = now;
    const message = state.length <= STATE_BYTES_MAX ? this.#port.decode(state) : null;
    if (message?.kind !== 'pushPull') {
      this.#refused++;
      return;
    }
    this.#mergeMembers(message, now);
    const joining = join ? this.#joining : null;
    if (joining?.ignoresOldEvents === true) this.#seenEvents.raiseTimeMin(message.eventTime);
    for (const { time, events } of message.events) {
      for (const { name, payload } of events) {
        this.#handleUserEvent({ kind: 'userEvent', time, name, payload, coalesce: false }, now);
      }
    }
    if (joining !== null) this.#gossipJoin(now);
  }

  onJoin(member: Member, now: number): void {
    this.#now = now;
    this.#members.handleJoin(member);
  }

  onLeave(member: Member, now: number): void {
    this.#now = now;
    this.#members.handleLeave(member.node, now);
  }

  onUpdate(member: Member, now: number): void {
    this.#now = now;
    this.#members.handleUpdate(member);
  }

  onConflict(known: Member, other: Member, now: number): void {
    this.#now = now;
    const isOwn = known.node === this.#options.node;
    if (isOwn && this.#vote !== null) return;
    if (now - this.#conflictToldAt >= CONFLICT_EVENT_INTERVAL_MS || isOwn) {
      this.#conflictToldAt = now;
      this.#port.onEvent({ kind: 'nameConflict', known, other });
    }
    if (isOwn && this.#phase === 'alive' && this.#options.resolvesNameConflicts !== false) this.#startVote(now);
  }

  refuseMerge(members: readonly NodeState[]): string | null {
    for (const { node, meta } of members) {
      const refusal = this.#whyOtherCluster(node, meta);
      if (refusal !== null) return refusal;
    }
    return null;
  }

  refuseAlive(member: AliveMessage): string | null {
    return this.#whyOtherCluster(member.node, member.meta);
  }

  ackPayload(): Uint8Array {
    return this.#ackPayload;
  }

  onPingDone(member: Member, _rttMs: number, payload: Uint8Array, _now: number): void {
    if (payload.length === 0 || this.#members.get(member.node) === undefined) return;
    const coordinate = payload.length <= COORDINATE_BYTES_MAX ? this.#port.decodeCoordinate(payload) : null;
    if (coordinate === null || !isValidCoordinate(coordinate)) this.#refused++;
    else this.#coordinates.set(member.node, coordinate);
  }

  // How it does that.

  #attached(): SerfList {
    return defined(this.#list, 'attach comes first');
  }

  /** False: it broke a bound, or is of a kind that nobody sends on its own. */
  #handleMessage(message: SerfMessage, bytes: Uint8Array, now: number): boolean {
    switch (message.kind) {
      case 'join':
        this.#clock.witness(message.time);
        if (this.#members.handleJoinIntent(message, now)) this.#gossip(this.#intentQueue, new Uint8Array(bytes));
        return true;
      case 'leave':
        if (this.#handleLeaveIntent(message, now)) this.#gossip(this.#intentQueue, new Uint8Array(bytes));
        return true;
      case 'userEvent':
        if (this.#handleUserEvent(message, now)) this.#gossip(this.#eventQueue, new Uint8Array(bytes));
        return true;
      case 'query':
        // Larger ones could not be gossiped on.
        if (bytes.length > PACKET_BYTES) return false;
        if (this.#queries.handleQuery(message, now)) this.#gossip(this.#queryQueue, new Uint8Array(bytes));
        return true;
      case 'queryResponse':
        return this.#queries.handleResponse(message, now);
      case 'relay':
        return this.#queries.handleRelay(message, now);
      case 'pushPull':
      case 'conflictResponse':
      case 'keyRequest':
      case 'keyResponse':
        return false;
    }
  }

  #handleLeaveIntent(intent: LeaveIntent, now: number): boolean {
    this.#clock.witness(intent.time);
    const isSelf = intent.node === this.#options.node;
    if (isSelf && this.#phase === 'alive') {
      // Somebody has this node leave, or it left in an earlier life. It is here.
      if (this.#members.isNews(intent.node, intent.time)) this.#gossipJoin(now);
      return false;
    }
    return this.#members.handleLeaveIntent(intent, now);
  }

  /** Whether it was news, to be gossiped on. */
  #handleUserEvent(message: UserEventMessage, now: number): boolean {
    this.#eventClock.witness(message.time);
    const { name, payload, time, coalesce } = message;
    if (name.length + payload.length > EVENT_BYTES_MAX) return false;
    if (!this.#seenEvents.add(time, { name, payload }, this.#eventClock.time)) return false;
    this.#lastEventTime = Math.max(this.#lastEventTime, time);
    this.#userEvents.add({ kind: 'user', time, name, payload, coalesce }, now);
    return true;
  }

  #mergeMembers(state: SerfState, now: number): void {
    // Less 1: nothing with that time has been sent yet.
    for (const [clock, time] of [
      [this.#clock, state.time],
      [this.#eventClock, state.eventTime],
      [this.#queryClock, state.queryTime],
    ] as const) {
      if (time > 0) clock.witness(time - 1);
    }
    const left = new Set(state.leftMembers);
    for (const node of left) {
      // The time of its intent to leave is not told; it was behind that of its join.
      this.#handleLeaveIntent({ kind: 'leave', time: (state.statusTimes.get(node) ?? 0) + 1, node, prune: false }, now);
    }
    for (const [node, time] of state.statusTimes) {
      if (left.has(node)) continue;
      this.#clock.witness(time);
      this.#members.handleJoinIntent({ kind: 'join', time, node }, now);
    }
  }

  /** Says that this node is here, as of now. */
  #gossipJoin(now: number): void {
    const { node } = this.#options;
    const intent = { kind: 'join', time: this.#clock.time, node } as const;
    this.#clock.witness(intent.time);
    this.#members.handleJoinIntent(intent, now);
    // The newest is enough: a flood of false farewells does not fill the queue with refutations.
    this.#intentQueue.push(this.#port.encode(intent), { name: node });
  }

  #gossip(queue: BroadcastQueue, message: Uint8Array): void {
    // What no packet can hold would wait for ever; an event of that size travels with push/pulls.
    if (message.length < PACKET_BYTES) queue.push(message);
  }

  /** The join is over: its last connection has ended. */
  get #hasJoined(): boolean {
    return this.#joining !== null && this.#attached().joinsPending === 0;
  }

  #isLeaveStepDone(now: number): boolean {
    if (this.#phase !== 'leaving') return false;
    return now >= this.#leaveAt || (this.#leaveStep === 'list' && this.#attached().isLeaveSpread);
  }

  #continueLeave(now: number): void {
    switch (this.#leaveStep) {
      case 'intent':
        this.#leaveStep = 'list';
        this.#leaveAt = now + this.#options.broadcastTimeoutMs;
        this.#attached().leave(now);
        return;
      case 'list':
        // To be there for those who ask before they have heard of it.
        this.#leaveStep = 'delay';
        this.#leaveAt = now + this.#options.leavePropagateDelayMs;
        return;
      case 'delay':
        this.#leaveAt = Number.POSITIVE_INFINITY;
        this.#phase = 'left';
        this.#port.onEvent({ kind: 'left' });
    }
  }

  #startVote(now: number): void {
    const vote = new NameVote(this.#attached().self.address);
    this.#vote = vote;
    const payload = new TextEncoder().encode(this.#options.node);
    const watcher: QueryWatcher = {
      onResponse: (_node, answer) => vote.count(this.#port.decode(answer)),
      onDone: () => {
        this.#vote = null;
        const { matching, responses } = vote;
        if (vote.isLost) this.#port.onEvent({ kind: 'nameLost', matching, responses });
      },
    };
    if ('refusal' in this.query({ name: internalName('conflict'), payload }, watcher, now)) this.#vote = null;
  }

  #whyOtherCluster(node: string, meta: Uint8Array): string | null {
    const own = this.#tags.get(CLUSTER_TAG);
    if (own === undefined) return null;
    const other = this.#port.decodeTags(meta).get(CLUSTER_TAG);
    // An agent of Serf has no such tag; it may listen.
    if (other === undefined || other === own) return null;
    return `node ${JSON.stringify(node)} is of cluster ${JSON.stringify(other)}, this one of ${JSON.stringify(own)}`;
  }

  #onMemberEvent(kind: MemberEventKind, member: SerfMember): void {
    if (kind === 'memberReap') this.#coordinates.delete(member.node);
    this.#memberEvents.add(kind, member, this.#now);
  }
}
