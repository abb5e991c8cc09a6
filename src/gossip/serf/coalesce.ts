import { COALESCED_EVENTS_MAX, COALESCED_NAMES_MAX } from './limits.ts';
import type { MemberEvent, MemberEventKind, SerfMember, UserEvent } from './types.ts';

/** When what was gathered is told: so long after the last, at most so long after the first (hashicorp/serf serf/coalesce.go). Milliseconds; 0: off. */
export interface CoalescePeriods {
  readonly coalesceMs: number;
  readonly quiescentMs: number;
}

class Window {
  readonly #periods: CoalescePeriods;
  #quantumAt = Number.POSITIVE_INFINITY;
  #quiescentAt = Number.POSITIVE_INFINITY;

  constructor(periods: CoalescePeriods) {
    this.#periods = periods;
  }

  get isOn(): boolean {
    return this.#periods.coalesceMs > 0 && this.#periods.quiescentMs > 0;
  }

  get nextAt(): number {
    return Math.min(this.#quantumAt, this.#quiescentAt);
  }

  touch(now: number): void {
    if (this.#quantumAt === Number.POSITIVE_INFINITY) this.#quantumAt = now + this.#periods.coalesceMs;
    this.#quiescentAt = now + this.#periods.quiescentMs;
  }

  clear(): void {
    this.#quantumAt = Number.POSITIVE_INFINITY;
    this.#quiescentAt = Number.POSITIVE_INFINITY;
  }
}

/** Of user events of one name only the newest Lamport time is told (coalesce_user.go). */
export class UserEventCoalescer {
  readonly #window: Window;
  readonly #emit: (event: UserEvent) => void;
  readonly #newest = new Map<string, { readonly time: number; readonly events: UserEvent[] }>();

  constructor(periods: CoalescePeriods, emit: (event: UserEvent) => void) {
    this.#window = new Window(periods);
    this.#emit = emit;
  }

  get nextAt(): number {
    return this.#window.nextAt;
  }

  add(event: UserEvent, now: number): void {
    if (!this.#window.isOn || !event.coalesce) {
      this.#emit(event);
      return;
    }
    this.#window.touch(now);
    const newest = this.#newest.get(event.name);
    if (newest === undefined || newest.time < event.time) {
      this.#newest.set(event.name, { time: event.time, events: [event] });
    } else if (newest.time === event.time) {
      newest.events.push(event);
    }
    if (this.#newest.size >= COALESCED_NAMES_MAX || (newest?.events.length ?? 0) >= COALESCED_EVENTS_MAX) this.#flush();
  }

  tick(now: number): void {
    if (now >= this.nextAt) this.#flush();
  }

  #flush(): void {
    this.#window.clear();
    const gathered = [...this.#newest.values()].flatMap(({ events }) => events);
    this.#newest.clear();
    for (const event of gathered) this.#emit(event);
  }
}

/** Of a member only what came last is told, and nothing if that was told last time too, but for updates (coalesce_member.go). */
export class MemberEventCoalescer {
  readonly #window: Window;
  readonly #emit: (event: MemberEvent) => void;
  /** Bounded by the number of members: a reaped one is forgotten when that is told. */
  readonly #told = new Map<string, MemberEventKind>();
  readonly #latest = new Map<string, { readonly kind: MemberEventKind; readonly member: SerfMember }>();

  constructor(periods: CoalescePeriods, emit: (event: MemberEvent) => void) {
    this.#window = new Window(periods);
    this.#emit = emit;
  }

  get nextAt(): number {
    return this.#window.nextAt;
  }

  add(kind: MemberEventKind, member: SerfMember, now: number): void {
    if (!this.#window.isOn) {
      this.#emit({ kind, members: [member] });
      return;
    }
    this.#window.touch(now);
    this.#latest.set(member.node, { kind, member });
    if (this.#latest.size >= COALESCED_NAMES_MAX) this.#flush();
  }

  tick(now: number): void {
    if (now >= this.nextAt) this.#flush();
  }

  #flush(): void {
    this.#window.clear();
    const events = new Map<MemberEventKind, SerfMember[]>();
    for (const [node, { kind, member }] of this.#latest) {
      if (this.#told.get(node) === kind && kind !== 'memberUpdate') continue;
      this.#told.set(node, kind);
      if (kind === 'memberReap') this.#told.delete(node);
      const members = events.get(kind);
      if (members === undefined) events.set(kind, [member]);
      else members.push(member);
    }
    this.#latest.clear();
    for (const [kind, members] of events) this.#emit({ kind, members });
  }
}
