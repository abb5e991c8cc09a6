import type { Member } from '../types.ts';
import { MEMBERS_MAX, RECENT_INTENTS_MAX } from './limits.ts';
import type { JoinIntent, LeaveIntent, MemberStatus, Tags } from './messages.ts';
import type { MemberEventKind, SerfMember } from './types.ts';

interface Intent {
  readonly kind: 'join' | 'leave';
  readonly time: number;
  /** By the clock of `now`. */
  readonly at: number;
}

export interface MembersOptions {
  readonly self: string;
  readonly decodeTags: (meta: Uint8Array) => Tags;
  readonly onEvent: (kind: MemberEventKind, member: SerfMember) => void;
  readonly recentIntentTimeoutMs: number;
  readonly reconnectTimeoutMs: number;
  readonly tombstoneTimeoutMs: number;
  /** How long a member that is leaving has before it is pruned. */
  readonly pruneDelayMs: number;
}

/**
 * Who is a member, and how it stands: what memberlist saw, put together with what nodes said they intend (hashicorp/serf serf/serf.go handleNodeJoin,
 * handleNodeLeave, handleNodeJoinIntent, handleNodeLeaveIntent). A member that goes without having said so has failed.
 */
export class SerfMembers {
  readonly #options: MembersOptions;
  readonly #members = new Map<string, SerfMember>();
  /** Intents of nodes that are not members, the newest of each. */
  readonly #intents = new Map<string, Intent>();
  /** Leaving members to forget, and when. */
  readonly #prunes = new Map<string, number>();

  constructor(options: MembersOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#members.size;
  }

  get(node: string): SerfMember | undefined {
    return this.#members.get(node);
  }

  list(): readonly SerfMember[] {
    return [...this.#members.values()];
  }

  withStatus(status: MemberStatus): readonly SerfMember[] {
    return this.list().filter((member) => member.status === status);
  }

  /** Those that memberlist takes to live. */
  get livingCount(): number {
    let count = 0;
    for (const { status } of this.#members.values()) if (status === 'alive' || status === 'leaving') count++;
    return count;
  }

  /** Whether anybody but this node is alive. */
  get hasOthersAlive(): boolean {
    for (const member of this.#members.values()) {
      if (member.status === 'alive' && member.node !== this.#options.self) return true;
    }
    return false;
  }

  handleJoin(from: Member): void {
    const known = this.#members.get(from.node);
    if (known === undefined && this.#members.size >= MEMBERS_MAX) return;
    const standing =
      known === undefined ? this.#firstStanding(from.node) : { status: 'alive' as const, statusTime: known.statusTime };
    const member = this.#put({ ...this.#shape(from), ...standing, leaveTime: 0 });
    this.#prunes.delete(from.node);
    this.#options.onEvent('memberJoin', member);
  }

  /** What its intent made of it before it came. */
  #firstStanding(node: string): { readonly status: MemberStatus; readonly statusTime: number } {
    const intent = this.#intents.get(node);
    // Its status has it from now on; kept here, it would be told apart from a later one of the same node after it was reaped.
    this.#intents.delete(node);
    return { status: intent?.kind === 'leave' ? 'leaving' : 'alive', statusTime: intent?.time ?? 0 };
  }

  handleLeave(node: string, now: number): void {
    const known = this.#members.get(node);
    if (known?.status === 'leaving') {
      this.#options.onEvent('memberLeave', this.#put({ ...known, status: 'left', leaveTime: now }));
    } else if (known?.status === 'alive') {
      this.#options.onEvent('memberFailed', this.#put({ ...known, status: 'failed', leaveTime: now }));
    }
  }

  handleUpdate(from: Member): void {
    const known = this.#members.get(from.node);
    if (known === undefined) return;
    this.#options.onEvent('memberUpdate', this.#put({ ...known, ...this.#shape(from) }));
  }

  /** Whether it was news, to be gossiped on. */
  handleJoinIntent(intent: JoinIntent, now: number): boolean {
    const known = this.#members.get(intent.node);
    if (known === undefined) return this.#keepIntent(intent.node, { kind: 'join', time: intent.time, at: now });
    if (intent.time <= known.statusTime) return false;
    // Back to alive: the intent to leave was of an older time.
    const status = known.status === 'leaving' ? 'alive' : known.status;
    this.#put({ ...known, status, statusTime: intent.time });
    this.#prunes.delete(intent.node);
    return true;
  }

  /** Whether it was news, to be gossiped on. That it is not about a living self is the caller's to see to. */
  handleLeaveIntent(intent: LeaveIntent, now: number): boolean {
    const known = this.#members.get(intent.node);
    if (known === undefined) return this.#keepIntent(intent.node, { kind: 'leave', time: intent.time, at: now });
    if (intent.time <= known.statusTime) return false;
    // The time rises also where the status stays: else two nodes would send each other this intent without end (hashicorp/consul issue 8179).
    const status = known.status === 'alive' ? 'leaving' : known.status === 'failed' ? 'left' : known.status;
    const member = this.#put({ ...known, status, statusTime: intent.time });
    if (known.status === 'failed') this.#options.onEvent('memberLeave', member);
    if (intent.prune) this.#prune(member, now);
    return true;
  }

  /** Whether `time` is newer than what is known about `node`. */
  isNews(node: string, time: number): boolean {
    return time > (this.#members.get(node)?.statusTime ?? -1);
  }

  #prune(member: SerfMember, now: number): void {
    if (member.node === this.#options.self) return;
    if (member.status !== 'leaving') this.#erase(member);
    else if (!this.#prunes.has(member.node)) this.#prunes.set(member.node, now + this.#options.pruneDelayMs);
  }

  /** When a leaving member is to be pruned. */
  nextAt(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...this.#prunes.values());
  }

  tick(now: number): void {
    for (const [node, at] of this.#prunes) {
      if (now < at) continue;
      this.#prunes.delete(node);
      const member = this.#members.get(node);
      if (member?.status === 'leaving' || member?.status === 'left') this.#erase(member);
    }
  }

  /** Forgets whoever is gone long enough, and old intents. */
  reap(now: number): void {
    for (const member of [...this.#members.values()]) {
      const { status, leaveTime, node } = member;
      if (status !== 'failed' && status !== 'left') continue;
      const timeout = status === 'failed' ? this.#options.reconnectTimeoutMs : this.#options.tombstoneTimeoutMs;
      if (now - leaveTime > timeout && node !== this.#options.self) this.#erase(member);
    }
    for (const [node, intent] of this.#intents) {
      if (now - intent.at > this.#options.recentIntentTimeoutMs) this.#intents.delete(node);
    }
  }

  #erase(member: SerfMember): void {
    this.#members.delete(member.node);
    this.#options.onEvent('memberReap', member);
  }

  #keepIntent(node: string, intent: Intent): boolean {
    const known = this.#intents.get(node);
    if (known !== undefined && intent.time <= known.time) return false;
    if (known === undefined && this.#intents.size >= RECENT_INTENTS_MAX) return false;
    this.#intents.set(node, intent);
    return true;
  }

  #put(member: SerfMember): SerfMember {
    this.#members.set(member.node, member);
    return member;
  }

  #shape(from: Member): Pick<SerfMember, 'node' | 'address' | 'tags' | 'versions'> {
    const { node, address, versions } = from;
    return { node, address, versions, tags: this.#options.decodeTags(from.meta) };
  }
}
