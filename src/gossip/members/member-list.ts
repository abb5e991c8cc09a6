import { unreachable } from '../../base/assert.ts';
import { isPlanted } from '../../base/planted.ts';
import type {
  Address,
  DeadMessage,
  Member,
  MemberDelegate,
  MemberPort,
  PacketMessage,
  PushPull,
  SuspectMessage,
} from '../types.ts';
import { Awareness } from './awareness.ts';
import { BroadcastQueue } from './broadcast-queue.ts';
import { type MemberCounters, noCounts } from './counters.ts';
import { Exchanges } from './exchanges.ts';
import { compareIncarnations } from './incarnation.ts';
import { isSameAddress } from './limits.ts';
import { checkOptions, type MemberListOptions } from './options.ts';
import { Outbox } from './outbox.ts';
import { Prober } from './prober.ts';
import { Relays } from './relays.ts';
import { type MemberRecord, Roster } from './roster.ts';
import { MemberRules } from './rules.ts';

export type { MemberCounters } from './counters.ts';
export { MEMBERS_MAX, type MemberListOptions } from './options.ts';
export { lanProfile, localProfile, type Profile, wanProfile } from './profile.ts';

/** Highest number of a ping or a connection; the next is 1. */
const NUMBER_MAX = 0xffff_ffff;

/**
 * The rules of hashicorp/memberlist (SWIM with Lifeguard) as a step machine: calls and messages in, packets and connections asked of the port.
 * `now` is in ms, of a clock that is never set, the same in all calls.
 *
 * The rule of pauses. Call `tick` at `nextAt`, which is never more than a gossip interval away. If a call shows that we did not run in between
 * (the event loop was blocked, the process stopped, the machine starved), packets wait to be read, and no silence proves anything. So:
 * 1. Late by more than a gossip interval: no probe fails and no suspicion ends in that call; each may be put off so once, for a gossip interval.
 * 2. Late by more than a probe interval: the probe under way and all suspicions have the time of the pause again, and from now on at least a
 *    probe interval; we are less well by one for each probe interval lost (`health`), so that what we say of others counts for less.
 * 3. A suspicion that others told us of is put off so by its longest time in all: they have watched meanwhile. Our own ends after its time of our
 *    running, however often we pause; others find who is really dead.
 * What others call dead is dead at once, as always, and what is alive again by its refutation too.
 */
export class MemberList {
  readonly #options: MemberListOptions;
  readonly #delegate: MemberDelegate;
  readonly #counters: MemberCounters = noCounts();
  readonly #awareness: Awareness;
  readonly #roster: Roster;
  readonly #outbox: Outbox;
  readonly #rules: MemberRules;
  readonly #prober: Prober;
  readonly #queue: BroadcastQueue;
  readonly #relays: Relays;
  readonly #exchanges: Exchanges;
  #number: number;
  #gossipAt: number;
  #now: number;

  constructor(options: MemberListOptions, port: MemberPort, delegate: MemberDelegate, now: number) {
    checkOptions(options);
    const { profile } = options;
    this.#options = options;
    this.#delegate = delegate;
    this.#now = now;
    // Not 1, so that an ack to a ping of our former life is not one to us.
    this.#number = port.random(NUMBER_MAX);
    this.#gossipAt = now + port.random(profile.gossipIntervalMs) + 1;
    const awareness = new Awareness(profile.awarenessMax);
    const roster = new Roster((below) => port.random(below));
    const queue = new BroadcastQueue(profile.retransmitMultiplier);
    const outbox = new Outbox(port, delegate, queue, roster, options.overheadBytes);
    const nextNumber = (): number => this.#nextNumber();
    const counters = this.#counters;
    const common = { options, port, delegate, roster, awareness, counters, queue, outbox, nextNumber };
    const rules = new MemberRules(common, now);
    this.#awareness = awareness;
    this.#roster = roster;
    this.#outbox = outbox;
    this.#queue = queue;
    this.#rules = rules;
    this.#prober = new Prober({ ...common, rules }, now);
    this.#relays = new Relays(outbox, counters);
    this.#exchanges = new Exchanges({ ...common, rules }, now);
  }

  get self(): Member {
    return this.#rules.self;
  }

  /** 0: we keep time well; up to `awarenessMax` - 1 (Lifeguard). */
  get health(): number {
    return this.#awareness.score;
  }

  /** Messages about nodes that wait to be gossiped. */
  get queueLength(): number {
    return this.#queue.length;
  }

  /** All that are known, dead and left until they are forgotten. */
  get members(): readonly Member[] {
    return this.#roster.list.map(({ member }) => member);
  }

  get(node: string): Member | null {
    return this.#roster.get(node)?.member ?? null;
  }

  /** Alive or suspected, ourselves included. */
  get aliveCount(): number {
    return this.#roster.present;
  }

  get counters(): Readonly<MemberCounters> {
    return this.#counters;
  }

  /** Joins whose connection has not ended; how they ended is in `counters`. */
  get joinsPending(): number {
    return this.#exchanges.joinsPending;
  }

  get hasLeft(): boolean {
    return this.#rules.hasLeft;
  }

  /** Our leaving was sent often enough, or nobody is there to tell. */
  get isLeaveSpread(): boolean {
    return this.#rules.isLeaveSpread;
  }

  /** When `tick` is wanted next. */
  get nextAt(): number {
    let due = Math.min(this.#gossipAt, this.#prober.dueAt, this.#relays.dueAt, this.#exchanges.dueAt);
    for (const { suspicion } of this.#roster.suspected) due = Math.min(due, suspicion?.dueAt ?? due);
    return due;
  }

  /** Does what is due: at most one probe, one round of gossip and one exchange, however late it is. */
  tick(now: number): void {
    const time = this.#observe(now);
    const isLate = !isPlanted('G5-late-tick-judges') && time - this.#gossipAt > this.#options.profile.gossipIntervalMs;
    this.#prober.tick(time, isLate);
    this.#rules.tick(time, isLate);
    this.#relays.tick(time);
    this.#exchanges.tick(time);
    if (this.#gossipAt <= time) this.#gossip(time);
  }

  onMessage(from: Address, message: PacketMessage, now: number): void {
    const time = this.#observe(now);
    switch (message.kind) {
      case 'ping':
        this.#answerPing(from, message);
        break;
      case 'indirectPing':
        this.#relay(from, message, time);
        break;
      case 'ack':
        this.#prober.onAck(message.seq, message.payload, time);
        this.#relays.onAck(message.seq);
        break;
      case 'nack':
        this.#prober.onNack(message.seq);
        break;
      case 'suspect':
        this.#rules.suspect(message, false, time);
        this.#contradict(from, message);
        break;
      case 'alive':
        this.#rules.alive(message, time);
        break;
      case 'dead':
        this.#rules.dead(message, time);
        this.#contradict(from, message);
        break;
      case 'user':
        this.#delegate.onUser(message.payload, time);
        break;
      default:
        unreachable(message);
    }
  }

  /** A peer opened a connection: what to answer, or why we do not take its state (sent as an error). */
  onPushPull(remote: PushPull, now: number): PushPull | string {
    return this.#exchanges.answer(remote, this.#observe(now));
  }

  /** Whether to ack a ping over a connection. */
  onStreamPing(node: string): boolean {
    return node === '' || node === this.#options.node;
  }

  /** null: it failed. */
  pushPullDone(token: number, remote: PushPull | null, now: number): void {
    this.#exchanges.done(token, remote, this.#observe(now));
  }

  streamPingDone(token: number, isAcked: boolean, now: number): void {
    this.#observe(now);
    this.#prober.onStreamPingDone(token, isAcked);
  }

  /** Exchanges everything with each of these, as one who is new. Asking again does no harm. */
  join(addresses: readonly Address[], now: number): void {
    this.#exchanges.join(addresses, this.#observe(now));
  }

  /** Tells the others that we go. Keep on calling `tick` until `isLeaveSpread`. */
  leave(now: number): void {
    this.#rules.leave(this.#observe(now));
  }

  /** The tags of the delegate have changed. */
  updateMeta(now: number): void {
    this.#rules.updateMeta(this.#observe(now));
  }

  /** One packet; false if the node is not known or the payload does not fit. */
  sendUser(node: string, payload: Uint8Array): boolean {
    const member = this.get(node);
    return member !== null && this.#outbox.sendUser(member.address, node, payload);
  }

  /** The same to one who may not be known here (the asker of a query). `node`: its name, or empty. */
  sendUserTo(to: Address, node: string, payload: Uint8Array): boolean {
    return this.#outbox.sendUser(to, node, payload);
  }

  /** The rule of pauses, points 2 and 3. The clock never goes back here. */
  #observe(now: number): number {
    const { probeIntervalMs } = this.#options.profile;
    this.#now = Math.max(this.#now, now);
    const time = this.#now;
    const lateMs = time - this.#gossipAt;
    if (lateMs <= probeIntervalMs || isPlanted('G5-late-tick-judges')) return time;
    this.#counters.pauses += 1;
    this.#awareness.change(Math.ceil(lateMs / probeIntervalMs));
    this.#prober.pardon(time, lateMs, probeIntervalMs);
    for (const { suspicion } of this.#roster.suspected) suspicion?.pardon(time, lateMs, probeIntervalMs);
    this.#relays.pardon(lateMs);
    this.#exchanges.pardon(lateMs);
    // Counted once, whichever call comes first.
    this.#gossipAt = time;
    return time;
  }

  /** state.go gossip */
  #gossip(time: number): void {
    const { node, profile } = this.#options;
    this.#gossipAt = time + profile.gossipIntervalMs;
    const isWanted = ({ member, changedAt }: MemberRecord): boolean => {
      if (member.node === node || member.state === 'left') return false;
      return member.state !== 'dead' || time - changedAt <= profile.gossipToTheDeadMs;
    };
    for (const { member } of this.#roster.pick(profile.gossipNodes, isWanted)) {
      if (!this.#outbox.gossip(member.address, member.node)) return;
    }
  }

  /** net.go handlePing: a ping for another was meant for one who had our address before. */
  #answerPing(from: Address, message: Extract<PacketMessage, { readonly kind: 'ping' }>): void {
    if (!this.onStreamPing(message.node)) return;
    const { seq, source } = message;
    const to = source?.address ?? from;
    this.#outbox.send(to, source?.node ?? '', { kind: 'ack', seq, payload: this.#delegate.ackPayload() });
  }

  /** net.go handleIndirectPing */
  #relay(from: Address, message: Extract<PacketMessage, { readonly kind: 'indirectPing' }>, time: number): void {
    const { address, node, profile } = this.#options;
    const seq = this.#nextNumber();
    if (!this.#relays.start(seq, message, from, time + profile.probeTimeoutMs)) return;
    this.#outbox.send(message.target, message.node, {
      kind: 'ping',
      seq,
      node: message.node,
      source: { address, node },
    });
  }

  /**
   * Whoever accuses us is answered at once, also when it does not know of our last refutation. Not upstream's: there a member that missed it, since
   * gossip reaches everybody only most likely, is told by the next exchange of everything, and has called us failed meanwhile.
   * To its address only, so that no forged packet makes us write to a stranger.
   */
  #contradict(from: Address, { node, from: accuser, incarnation }: SuspectMessage | DeadMessage): void {
    if (node !== this.#options.node || this.hasLeft || isPlanted('G1-not-contradicted')) return;
    const record = this.#roster.get(accuser);
    if (record === undefined || !isSameAddress(record.member.address, from)) return;
    if (compareIncarnations(incarnation, this.self.incarnation) >= 0) return;
    this.#outbox.sendOnly(from, accuser, [this.#rules.aliveMessage]);
  }

  /** state.go nextSeqNo */
  #nextNumber(): number {
    this.#number = this.#number >= NUMBER_MAX ? 1 : this.#number + 1;
    return this.#number;
  }
}
