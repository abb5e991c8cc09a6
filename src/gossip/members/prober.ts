import { isPlanted } from '../../base/planted.ts';
import type { Member, MemberDelegate, MemberPort, PacketMessage } from '../types.ts';
import type { Awareness } from './awareness.ts';
import type { MemberCounters } from './counters.ts';
import type { MemberListOptions } from './options.ts';
import type { Outbox } from './outbox.ts';
import { isGone, type Roster } from './roster.ts';
import type { MemberRules } from './rules.ts';

/** Protocol versions from which on a member understands pings over a connection, and sends nacks (net.go ProtocolVersion2Compatible). */
const STREAM_PING_VERSION = 3;
const NACK_VERSION = 4;

/** What probing works with. `nextNumber` numbers pings and connections. */
export interface ProberContext {
  readonly options: MemberListOptions;
  readonly port: MemberPort;
  readonly delegate: MemberDelegate;
  readonly roster: Roster;
  readonly rules: MemberRules;
  readonly outbox: Outbox;
  readonly awareness: Awareness;
  readonly counters: MemberCounters;
  readonly nextNumber: () => number;
}

interface Probe {
  readonly target: Member;
  readonly seq: number;
  readonly sentAt: number;
  /** When others are asked to ping; infinite once they were. */
  directUntil: number;
  endAt: number;
  nacksWanted: number;
  nacks: number;
  /** 0: no connection was tried. */
  streamToken: number;
  isStreamAcked: boolean;
  /** Whether the time to the ack says something about the network: only a direct answer, and only if we ran meanwhile. */
  isTimed: boolean;
  hasGrace: boolean;
}

/** One member after another is pinged, each once a round, in a new order each round (state.go probe, probeNode, resetNodes). */
export class Prober {
  readonly #context: ProberContext;
  #probe: Probe | null = null;
  #next = 0;
  #startAt: number;

  constructor(context: ProberContext, now: number) {
    this.#context = context;
    const { probeIntervalMs } = context.options.profile;
    this.#startAt = now + context.port.random(probeIntervalMs) + 1;
  }

  get dueAt(): number {
    return this.#probe === null ? this.#startAt : Math.min(this.#probe.directUntil, this.#probe.endAt);
  }

  /** `isLate`: packets may wait to be read, among them an ack. */
  tick(now: number, isLate: boolean): void {
    const { probeIntervalMs } = this.#context.options.profile;
    if (this.#probe !== null && this.#probe.directUntil <= now) this.#askOthers(this.#probe);
    if (this.#probe !== null && this.#probe.endAt <= now) this.#end(this.#probe, now, isLate);
    if (this.#probe !== null || this.#startAt > now) return;
    this.#startAt = Math.max(this.#startAt, now) + probeIntervalMs;
    const target = this.#nextTarget(now);
    if (target !== null) this.#start(target, now);
  }

  /** state.go invokeAckHandler */
  onAck(seq: number, payload: Uint8Array, now: number): void {
    const probe = this.#probe;
    if (probe === null || probe.seq !== seq) return;
    if (probe.isTimed) this.#context.delegate.onPingDone(probe.target, now - probe.sentAt, payload, now);
    this.#succeed();
  }

  onNack(seq: number): void {
    const probe = this.#probe;
    if (probe !== null && probe.seq === seq && probe.nacks < probe.nacksWanted) probe.nacks += 1;
  }

  /** Kept until the end of the probe: an answer to packets is better news, and may still come. */
  onStreamPingDone(token: number, isAcked: boolean): void {
    if (this.#probe !== null && this.#probe.streamToken === token && token !== 0) this.#probe.isStreamAcked = isAcked;
  }

  /** We did not run for `pausedMs`: the probe under way has that time again, and `holdMs` at least. */
  pardon(now: number, pausedMs: number, holdMs: number): void {
    const probe = this.#probe;
    if (probe === null) return;
    probe.isTimed = false;
    const endAt = Math.max(probe.endAt + pausedMs, now + holdMs);
    probe.directUntil += endAt - probe.endAt;
    probe.endAt = endAt;
  }

  /** state.go probe: the next that is neither ourselves nor gone; null if there is none. */
  #nextTarget(now: number): Member | null {
    const { roster, options, counters } = this.#context;
    const { node, profile } = options;
    for (let looked = 0; looked <= roster.size; looked++) {
      if (this.#next >= roster.size) {
        this.#next = 0;
        counters.forgotten += roster.renew(node, profile.gossipToTheDeadMs, now);
      }
      const member = roster.list[this.#next]?.member;
      this.#next += 1;
      if (member !== undefined && member.node !== node && !isGone(member.state)) return member;
    }
    return null;
  }

  /** The suspected is told at once, so that it may refute as soon as it can. */
  #start(target: Member, now: number): void {
    const { options, outbox, awareness, counters, nextNumber } = this.#context;
    const { node, address, profile } = options;
    const seq = nextNumber();
    counters.probes += 1;
    this.#probe = {
      target,
      seq,
      sentAt: now,
      directUntil: now + profile.probeTimeoutMs,
      endAt: now + awareness.scale(profile.probeIntervalMs),
      nacksWanted: 0,
      nacks: 0,
      streamToken: 0,
      isStreamAcked: false,
      isTimed: true,
      hasGrace: true,
    };
    const ping: PacketMessage = { kind: 'ping', seq, node: target.node, source: { address, node } };
    if (target.state === 'alive') {
      outbox.send(target.address, target.node, ping);
    } else {
      const { incarnation } = target;
      outbox.sendOnly(target.address, target.node, [
        ping,
        { kind: 'suspect', incarnation, node: target.node, from: node },
      ]);
    }
  }

  /** state.go probeNode, HANDLE_REMOTE_FAILURE: others ping it, and we try a connection. */
  #askOthers(probe: Probe): void {
    const { options, port, outbox, roster, nextNumber } = this.#context;
    const { node, address, profile } = options;
    const { target, seq } = probe;
    probe.directUntil = Number.POSITIVE_INFINITY;
    probe.isTimed = false;
    const askable = (name: string): boolean => name !== node && name !== target.node;
    const helpers = roster.pick(
      profile.indirectChecks,
      ({ member }) => member.state === 'alive' && askable(member.node),
    );
    for (const { member } of helpers) {
      const nack = member.versions[1] >= NACK_VERSION;
      if (nack) probe.nacksWanted += 1;
      outbox.send(member.address, member.node, {
        kind: 'indirectPing',
        seq,
        target: target.address,
        node: target.node,
        nack,
        source: { address, node },
      });
    }
    if (isPlanted('G1-no-stream-ping')) return;
    if (profile.streamPings && target.versions[1] >= STREAM_PING_VERSION) {
      probe.streamToken = nextNumber();
      port.streamPing(probe.streamToken, target.address, target.node, seq);
    }
  }

  /**
   * No ack came. Missing nacks say that it may be us who are cut off (Lifeguard, "local health"); where nobody sends them, each failed probe
   * counts a little against us.
   */
  #end(probe: Probe, now: number, isLate: boolean): void {
    const { options, rules, awareness, counters } = this.#context;
    if (probe.isStreamAcked) {
      counters.probesStreamOnly += 1;
      this.#succeed();
      return;
    }
    if (isLate && probe.hasGrace) {
      probe.hasGrace = false;
      probe.endAt = now + options.profile.gossipIntervalMs;
      return;
    }
    this.#probe = null;
    counters.probesFailed += 1;
    awareness.change(probe.nacksWanted > 0 ? probe.nacksWanted - probe.nacks : 1);
    const { node, incarnation } = probe.target;
    rules.suspect({ kind: 'suspect', incarnation, node, from: options.node }, true, now);
  }

  #succeed(): void {
    this.#probe = null;
    this.#context.awareness.change(-1);
  }
}
