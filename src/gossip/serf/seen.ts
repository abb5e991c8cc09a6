import { EVENT_BUFFER_BYTES_MAX, EVENTS_PER_SLOT_MAX, QUERIES_PER_SLOT_MAX, SEEN_SLOTS } from './limits.ts';
import type { EventsOfTime, SeenEvent } from './messages.ts';

/**
 * Whether `time` is still recognised when the clock is at `clock`: older messages may have been seen or not, and are not taken
 * (hashicorp/serf serf/serf.go handleUserEvent, handleQuery).
 */
function isTooOld(time: number, clock: number): boolean {
  return clock > SEEN_SLOTS && time < clock - SEEN_SLOTS;
}

/**
 * User events of the newest SEEN_SLOTS Lamport times, so that none is told twice, and for those who join. Bounded in events and bytes: what does not
 * fit goes from the oldest end, and `timeMin` rises above it, so that what was forgotten is not told again.
 */
export class SeenEvents {
  readonly #slots: ({ readonly time: number; readonly events: SeenEvent[] } | undefined)[] = [];
  #bytes = 0;
  #timeMin: number;

  constructor(timeMin: number) {
    this.#timeMin = timeMin;
  }

  /** Events before it are not taken. */
  get timeMin(): number {
    return this.#timeMin;
  }

  raiseTimeMin(time: number): void {
    this.#timeMin = Math.max(this.#timeMin, time);
  }

  /** Whether it is news: not seen, not too old, and within the bounds. `clock` has witnessed it. */
  add(time: number, event: SeenEvent, clock: number): boolean {
    if (time < this.#timeMin || isTooOld(time, clock)) return false;
    const at = time % SEEN_SLOTS;
    const slot = this.#slots[at];
    if (slot?.time === time) {
      if (slot.events.length >= EVENTS_PER_SLOT_MAX || slot.events.some((one) => isSameEvent(one, event))) return false;
      slot.events.push(event);
    } else {
      this.#forget(at);
      this.#slots[at] = { time, events: [event] };
    }
    this.#bytes += eventBytes(event);
    while (this.#bytes > EVENT_BUFFER_BYTES_MAX) this.#forgetOldest();
    return time >= this.#timeMin;
  }

  list(): readonly EventsOfTime[] {
    return this.#slots.filter((slot) => slot !== undefined);
  }

  #forgetOldest(): void {
    let oldest = -1;
    for (const [at, slot] of this.#slots.entries()) {
      if (slot !== undefined && (oldest < 0 || slot.time < (this.#slots[oldest]?.time ?? 0))) oldest = at;
    }
    this.raiseTimeMin((this.#slots[oldest]?.time ?? 0) + 1);
    this.#forget(oldest);
  }

  #forget(at: number): void {
    for (const event of this.#slots[at]?.events ?? []) this.#bytes -= eventBytes(event);
    this.#slots[at] = undefined;
  }
}

/** What the object itself takes, so that a flood of empty events is bounded too. */
const EVENT_OVERHEAD_BYTES = 64;

function eventBytes(event: SeenEvent): number {
  return event.name.length + event.payload.length + EVENT_OVERHEAD_BYTES;
}

function isSameEvent(a: SeenEvent, b: SeenEvent): boolean {
  if (a.name !== b.name || a.payload.length !== b.payload.length) return false;
  return a.payload.every((byte, at) => byte === b.payload[at]);
}

/** Queries of the newest SEEN_SLOTS Lamport times, by their ids. */
export class SeenQueries {
  readonly #slots: ({ readonly time: number; readonly ids: Set<number> } | undefined)[] = [];
  readonly #timeMin: number;

  constructor(timeMin: number) {
    this.#timeMin = timeMin;
  }

  /** Whether it is news. `clock` has witnessed it. */
  add(time: number, id: number, clock: number): boolean {
    if (time < this.#timeMin || isTooOld(time, clock)) return false;
    const slot = this.#slots[time % SEEN_SLOTS];
    if (slot?.time !== time) {
      this.#slots[time % SEEN_SLOTS] = { time, ids: new Set([id]) };
      return true;
    }
    if (slot.ids.has(id) || slot.ids.size >= QUERIES_PER_SLOT_MAX) return false;
    slot.ids.add(id);
    return true;
  }
}
