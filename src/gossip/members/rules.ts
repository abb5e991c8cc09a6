import { assert, defined } from '../../base/assert.ts';
import { isPlanted } from '../../base/planted.ts';
import {
  type AliveMessage,
  type DeadMessage,
  META_BYTES_MAX,
  type Member,
  type MemberDelegate,
  type MemberPort,
  type NodeState,
  type PacketMessage,
  type SuspectMessage,
} from '../types.ts';
import type { Awareness } from './awareness.ts';
import type { Broadcast, BroadcastQueue } from './broadcast-queue.ts';
import type { MemberCounters } from './counters.ts';
import { compareIncarnations, isIncarnation, nextIncarnation } from './incarnation.ts';
import {
  isAddressAllowed,
  isNameAllowed,
  isNameShort,
  isSameAddress,
  isSameBytes,
  isSameVersions,
  isVersionsAllowed,
} from './limits.ts';
import { MEMBERS_MAX, type MemberListOptions } from './options.ts';
import { isGone, type MemberRecord, type Roster } from './roster.ts';
import { suspicionTimeout } from './scale.ts';
import { Suspicion } from './suspicion.ts';

/** What the rules of a member's state work with. */
export interface RulesContext {
  readonly options: MemberListOptions;
  readonly port: MemberPort;
  readonly delegate: MemberDelegate;
  readonly roster: Roster;
  readonly queue: BroadcastQueue;
  readonly awareness: Awareness;
  readonly counters: MemberCounters;
}

/**
 * Who is alive, suspected, dead or left (state.go aliveNode, suspectNode, deadNode, refute, mergeState). Of two messages about a member the one of
 * the newer incarnation holds; of one incarnation dead is above suspect, and suspect above alive.
 */
export class MemberRules {
  readonly #context: RulesContext;
  readonly #self: MemberRecord;
  /** The newest incarnation that we have gone by. */
  #incarnation: number;
  #leaving: Broadcast | null = null;

  /** memberlist.go setAlive */
  constructor(context: RulesContext, now: number) {
    const { options, delegate, roster } = context;
    this.#context = context;
    this.#incarnation = options.incarnation;
    this.#self = roster.add(
      {
        node: options.node,
        address: options.address,
        meta: this.#meta(),
        versions: options.versions,
        state: 'alive',
        incarnation: options.incarnation,
      },
      now,
    );
    this.#broadcast(aliveOf(this.#self.member));
    delegate.onJoin(this.#self.member, now);
  }

  get self(): Member {
    return this.#self.member;
  }

  /** What the others are to know of us. */
  get aliveMessage(): AliveMessage {
    return aliveOf(this.#self.member);
  }

  get hasLeft(): boolean {
    return this.#leaving !== null;
  }

  get isLeaveSpread(): boolean {
    return this.#leaving !== null && (this.#leaving.isFinished || this.#context.roster.present === 0);
  }

  /** state.go aliveNode */
  alive(message: AliveMessage, now: number): void {
    const { options, delegate, roster, counters } = this.#context;
    if (!isAliveAllowed(message)) {
      counters.refused += 1;
      return;
    }
    if (message.node === options.node && this.hasLeft) return;
    if (delegate.refuseAlive(message) !== null) {
      counters.aliveRefused += 1;
      return;
    }
    const record = roster.get(message.node);
    if (record === undefined) {
      this.#addAlive(message, now);
      return;
    }
    const isMoved = !isSameAddress(record.member.address, message.address);
    if (isMoved && !this.#mayMove(record, now)) {
      counters.conflicts += 1;
      delegate.onConflict(record.member, memberOf(message), now);
      return;
    }
    const order = compareIncarnations(message.incarnation, record.member.incarnation);
    if (record === this.#self) this.#answerAlive(message, order);
    else if (order > 0 || isMoved || isPlanted('G4-same-incarnation-revives')) this.#becomeAlive(record, message, now);
  }

  /** state.go suspectNode. `isOwn`: our own probe had no answer. */
  suspect(message: SuspectMessage, isOwn: boolean, now: number): void {
    const { roster, counters } = this.#context;
    if (!isAccusationAllowed(message)) {
      counters.refused += 1;
      return;
    }
    const record = roster.get(message.node);
    if (record === undefined) return;
    const { member, suspicion } = record;
    const order = compareIncarnations(message.incarnation, member.incarnation);
    if (order < 0) return;
    // It refuted since what we know of, or there would be no newer incarnation to suspect: then its time begins anew.
    if (suspicion !== null && order === 0) {
      if (suspicion.confirm(message.from)) this.#broadcast(message);
      return;
    }
    if (isGone(member.state)) return;
    if (record === this.#self) this.#refute(message.incarnation);
    else this.#becomeSuspect(record, message, isOwn, now);
  }

  /** state.go deadNode */
  dead(message: DeadMessage, now: number): void {
    const { roster, counters } = this.#context;
    if (!isAccusationAllowed(message)) {
      counters.refused += 1;
      return;
    }
    const record = roster.get(message.node);
    if (record === undefined) return;
    const { member } = record;
    const order = compareIncarnations(message.incarnation, member.incarnation);
    if (order < 0) return;
    if (record === this.#self) {
      if (!this.hasLeft) this.#refute(message.incarnation);
    } else if (isGone(member.state)) {
      // Not upstream's: without it an alive message between the two incarnations would be taken, but only by those who heard the older death.
      if (order > 0) roster.set(record, { ...member, incarnation: message.incarnation }, null, now);
    } else {
      this.#becomeGone(record, message, now);
    }
  }

  /** state.go mergeState. What another calls dead is only suspected here, so that it may refute. */
  merge(nodes: readonly NodeState[], now: number): void {
    for (const { state, ...rest } of nodes) {
      const { node, incarnation } = rest;
      switch (state) {
        case 'alive':
          this.alive(
            { kind: 'alive', ...rest, ...(isPlanted('G4-push-pull-revives') && { incarnation: incarnation + 1 }) },
            now,
          );
          break;
        case 'left':
          this.dead({ kind: 'dead', incarnation, node, from: node }, now);
          break;
        default:
          this.suspect({ kind: 'suspect', incarnation, node, from: this.#context.options.node }, false, now);
      }
    }
  }

  /** Suspicions whose time is up (state.go suspectNode, its timer). `isLate`: packets may wait to be read, among them a refutation. */
  tick(now: number, isLate: boolean): void {
    const { roster, counters, options } = this.#context;
    for (const record of [...roster.suspected]) {
      const { member, suspicion } = record;
      if (suspicion === null || suspicion.dueAt > now) continue;
      if (isLate && suspicion.grace(now, options.profile.gossipIntervalMs)) continue;
      counters.failures += 1;
      const { node, incarnation } = member;
      this.dead({ kind: 'dead', incarnation, node, from: options.node }, now);
    }
  }

  /** memberlist.go Leave */
  leave(now: number): void {
    if (this.#leaving !== null) return;
    const { node, incarnation } = this.#self.member;
    this.#leaving = this.#becomeGone(this.#self, { kind: 'dead', incarnation, node, from: node }, now);
  }

  /** memberlist.go UpdateNode: the tags as the delegate has them now, under a new incarnation. */
  updateMeta(now: number): void {
    if (this.hasLeft) return;
    this.#incarnation = nextIncarnation(this.#incarnation);
    const before = this.#self.member;
    const member = { ...before, meta: this.#meta(), incarnation: this.#incarnation };
    this.#become(member, now);
    this.#broadcast(aliveOf(member));
    if (!isSameBytes(before.meta, member.meta)) this.#context.delegate.onUpdate(member, now);
  }

  #become(member: Member, now: number): void {
    this.#context.roster.set(this.#self, member, null, now);
  }

  #addAlive(message: AliveMessage, now: number): void {
    const { options, roster, delegate, counters } = this.#context;
    if (roster.size >= (options.membersMax ?? MEMBERS_MAX)) {
      counters.membersRefused += 1;
      return;
    }
    const { member } = roster.add(memberOf(message), now);
    this.#broadcast(message);
    delegate.onJoin(member, now);
  }

  /** A name moves to another address when its member has left, or failed some time ago. */
  #mayMove({ member, changedAt }: MemberRecord, now: number): boolean {
    const { deadNodeReclaimMs } = this.#context.options.profile;
    const isReclaimable = deadNodeReclaimMs > 0 && now - changedAt > deadNodeReclaimMs;
    return member.state === 'left' || (member.state === 'dead' && isReclaimable);
  }

  #becomeAlive(record: MemberRecord, message: AliveMessage, now: number): void {
    const { roster, delegate } = this.#context;
    const before = record.member;
    const member = memberOf(message);
    roster.set(record, member, null, now);
    this.#broadcast(message);
    if (isGone(before.state)) delegate.onJoin(member, now);
    else if (!isSameBytes(before.meta, member.meta) || !isSameVersions(before.versions, member.versions)) {
      delegate.onUpdate(member, now);
    }
  }

  /** An alive message about us: our own that comes back, or one of an earlier life of ours, which is corrected. */
  #answerAlive(message: AliveMessage, order: number): void {
    const { meta, versions } = this.#self.member;
    if (order < 0) return;
    if (order === 0 && isSameBytes(message.meta, meta) && isSameVersions(message.versions, versions)) return;
    this.#refute(message.incarnation);
  }

  #becomeSuspect(record: MemberRecord, message: SuspectMessage, isOwn: boolean, now: number): void {
    const { roster, counters, options } = this.#context;
    const { profile } = options;
    counters.suspicions += 1;
    this.#broadcast(message);
    const minMs = suspicionTimeout(profile.suspicionMultiplier, roster.size, profile.probeIntervalMs);
    // We do not know the phase of the others, so their confirmations are expected two probe intervals before the least time is over. Neither we
    // nor the accused confirm.
    const wanted = profile.suspicionMultiplier - 2;
    const suspicion = new Suspicion({
      from: message.from,
      isOwn,
      wanted: roster.size - 2 < wanted ? 0 : wanted,
      minMs,
      maxMs: profile.suspicionMaxMultiplier * minMs,
      now,
    });
    roster.set(record, { ...record.member, state: 'suspect', incarnation: message.incarnation }, suspicion, now);
  }

  #becomeGone(record: MemberRecord, message: DeadMessage, now: number): Broadcast {
    const { roster, delegate } = this.#context;
    const broadcast = this.#broadcast(message);
    const state = message.from === message.node ? 'left' : 'dead';
    const member: Member = { ...record.member, state, incarnation: message.incarnation };
    roster.set(record, member, null, now);
    delegate.onLeave(member, now);
    return broadcast;
  }

  /** state.go refute: an incarnation above our own and the accused one. */
  #refute(accused: number): void {
    if (isPlanted('G1-no-refutation')) return;
    const { awareness, counters, roster } = this.#context;
    const own = nextIncarnation(this.#incarnation);
    this.#incarnation =
      compareIncarnations(accused, own) < 0 || isPlanted('G1-refutes-too-low') ? own : nextIncarnation(accused);
    counters.refutations += 1;
    awareness.change(1);
    const member: Member = { ...this.#self.member, incarnation: this.#incarnation };
    roster.set(this.#self, member, null, this.#self.changedAt);
    this.#broadcast(aliveOf(member));
  }

  #broadcast(message: PacketMessage & { readonly node: string }): Broadcast {
    const { queue, port } = this.#context;
    return queue.put(message.node, port.encode(message));
  }

  #meta(): Uint8Array {
    const meta = defined(this.#context.delegate.meta(), 'no tags');
    assert(meta.length <= META_BYTES_MAX, 'tags have at most 512 bytes');
    return meta;
  }
}

function isAliveAllowed(message: AliveMessage): boolean {
  return (
    isNameAllowed(message.node) &&
    isAddressAllowed(message.address) &&
    isVersionsAllowed(message.versions) &&
    isIncarnation(message.incarnation) &&
    message.meta.length <= META_BYTES_MAX
  );
}

function isAccusationAllowed(message: SuspectMessage | DeadMessage): boolean {
  return isNameAllowed(message.node) && isNameShort(message.from) && isIncarnation(message.incarnation);
}

function memberOf({ node, address, meta, versions, incarnation }: AliveMessage): Member {
  return { node, address, meta, versions, incarnation, state: 'alive' };
}

function aliveOf({ node, address, meta, versions, incarnation }: Member): AliveMessage {
  return { kind: 'alive', incarnation, node, address, meta, versions };
}
