import type { Address, MemberDelegate, MemberPort, NodeState, PushPull } from '../types.ts';
import type { MemberCounters } from './counters.ts';
import { MEMBERS_MAX, type MemberListOptions } from './options.ts';
import { protocolFault } from './protocol-check.ts';
import type { Roster } from './roster.ts';
import type { MemberRules } from './rules.ts';
import { pushPullScale } from './scale.ts';

/** Exchanges that we opened, under way at once; a join beyond fails at once. */
const EXCHANGES_MAX = 64;

export interface ExchangesContext {
  readonly options: MemberListOptions;
  readonly port: MemberPort;
  readonly delegate: MemberDelegate;
  readonly roster: Roster;
  readonly rules: MemberRules;
  readonly counters: MemberCounters;
  readonly nextNumber: () => number;
}

interface Exchange {
  readonly isJoin: boolean;
  /** If the port has not answered by then it is taken for failed. Three times as long as a connection may take. */
  until: number;
}

/** Everything that two members know, exchanged over a connection (state.go pushPull, net.go sendAndReceiveState and mergeRemoteState). */
export class Exchanges {
  readonly #context: ExchangesContext;
  readonly #pending = new Map<number, Exchange>();
  #startAt: number;

  constructor(context: ExchangesContext, now: number) {
    this.#context = context;
    const { pushPullIntervalMs } = context.options.profile;
    this.#startAt =
      pushPullIntervalMs === 0
        ? Number.POSITIVE_INFINITY
        : now + context.port.random(pushPullIntervalMs) + pushPullIntervalMs;
  }

  get dueAt(): number {
    let due = this.#startAt;
    for (const { until } of this.#pending.values()) due = Math.min(due, until);
    return due;
  }

  get joinsPending(): number {
    let count = 0;
    for (const { isJoin } of this.#pending.values()) count += Number(isJoin);
    return count;
  }

  tick(now: number): void {
    for (const [token, { until }] of this.#pending) {
      if (until <= now) this.done(token, null, now);
    }
    if (this.#startAt > now) return;
    const { options, roster } = this.#context;
    this.#startAt = now + pushPullScale(options.profile.pushPullIntervalMs, roster.size);
    const [peer] = roster.pick(1, ({ member }) => member.state === 'alive' && member.node !== options.node);
    if (peer !== undefined) this.#start(peer.member.address, peer.member.node, false, now);
  }

  /** memberlist.go Join */
  join(addresses: readonly Address[], now: number): void {
    for (const address of addresses) this.#start(address, '', true, now);
  }

  /** One that we opened has ended. */
  done(token: number, remote: PushPull | null, now: number): void {
    const exchange = this.#pending.get(token);
    if (exchange === undefined) return;
    this.#pending.delete(token);
    const isMerged = remote !== null && this.#merge(remote, exchange.isJoin, now) === null;
    this.#count(exchange.isJoin, isMerged);
  }

  /**
   * net.go handleConn: one that another opened; what to answer, or why not. The answer is made after the merge, so that a refutation or what
   * the other has to know of itself is in it.
   */
  answer(remote: PushPull, now: number): PushPull | string {
    const fault = this.#merge(remote, remote.join, now);
    if (fault === null) return this.#state(remote.join, now);
    this.#context.counters.pushPullsFailed += 1;
    return fault;
  }

  pardon(pausedMs: number): void {
    for (const exchange of this.#pending.values()) exchange.until += pausedMs;
  }

  #start(to: Address, node: string, isJoin: boolean, now: number): void {
    const { options, port, nextNumber } = this.#context;
    if (this.#pending.size >= EXCHANGES_MAX) {
      this.#count(isJoin, false);
      return;
    }
    const token = nextNumber();
    this.#pending.set(token, { isJoin, until: now + 3 * options.profile.streamTimeoutMs });
    port.pushPull(token, to, node, this.#state(isJoin, now));
  }

  /** net.go mergeRemoteState; null, or why it was not merged. */
  #merge(remote: PushPull, isJoin: boolean, now: number): string | null {
    const { options, delegate, roster, rules } = this.#context;
    const nodesMax = 2 * (options.membersMax ?? MEMBERS_MAX);
    if (remote.nodes.length > nodesMax) return `more than ${nodesMax} nodes`;
    const known = roster.list.map(({ member }) => member);
    const fault = protocolFault(remote.nodes, known) ?? (isJoin ? delegate.refuseMerge(remote.nodes) : null);
    if (fault !== null) return fault;
    rules.merge(remote.nodes, now);
    if (remote.userState.length > 0) delegate.mergeState(remote.userState, isJoin, now);
    return null;
  }

  /** net.go sendLocalState */
  #state(join: boolean, now: number): PushPull {
    const nodes: NodeState[] = this.#context.roster.list.map(({ member }) => member);
    return { join, nodes, userState: this.#context.delegate.localState(join, now) };
  }

  #count(isJoin: boolean, isDone: boolean): void {
    const { counters } = this.#context;
    if (!isDone) counters.pushPullsFailed += 1;
    if (isJoin && isDone) counters.joinsDone += 1;
    if (isJoin && !isDone) counters.joinsFailed += 1;
  }
}
