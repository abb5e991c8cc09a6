import { assert } from '../base/assert.ts';

/**
 * The live subscribers of one subject that share deliveries. The group is itself a cursor: runs are sent for `next` and on. While no member is
 * live the group sends nothing and only moves on, and members that are behind read the store until they meet it.
 */
export class TailGroup {
  readonly id: number;
  /** How deliveries of its members are written: one group for each kind that a subject has subscribers of. */
  readonly encoding: number;
  /** Its members. */
  readonly cursors: Cursor[] = [];
  /** First id of the next run that the group sends. */
  next: number;
  /** A read of the store for the group is on its way. */
  isFetching = false;
  #members = 0;
  #live = 0;

  constructor(id: number, next: number, encoding = 0) {
    this.id = id;
    this.next = next;
    this.encoding = encoding;
  }

  get empty(): boolean {
    return this.#members === 0;
  }

  get live(): number {
    return this.#live;
  }

  join(): void {
    this.#members += 1;
  }

  leave(wasLive: boolean): void {
    if (wasLive) this.becameBehind();
    this.#members -= 1;
    assert(this.#members >= this.#live, 'a tail group has more live members than members');
  }

  becameLive(): void {
    this.#live += 1;
    assert(this.#live <= this.#members, 'a tail group has more live members than members');
  }

  becameBehind(): void {
    this.#live -= 1;
    assert(this.#live >= 0, 'a tail group has a negative number of live members');
  }
}

/**
 * One subscription in the shard that owns its subject. `live` members are served by their group; a `reading` one is served from the store,
 * within its credit, until it meets the group; a `paused` one waits for its stream to drain.
 */
export class Cursor {
  readonly subscription: number;
  state: 'live' | 'reading' | 'paused';
  /** Next id to send while `reading`. */
  next: number;
  /** Bytes that may be sent while `reading`; may fall below 0 by one run. */
  credit: number;
  /** The credit when nothing is on its way. */
  creditMax: number;
  /** A read of the store for this cursor is on its way. */
  isFetching = false;

  constructor(subscription: number, next: number, credit: number) {
    this.subscription = subscription;
    this.state = 'reading';
    this.next = next;
    this.credit = credit;
    this.creditMax = credit;
  }

  /** Half of its credit is there: enough for a read that is worth it, while the other half is on its way. */
  get mayFetch(): boolean {
    return this.credit > 0 && this.credit * 2 >= this.creditMax;
  }

  /** A reader that has met its group is live: the group's next run continues what it was sent. */
  maybeMeet(group: TailGroup): boolean {
    if (this.state !== 'reading' || this.next < group.next) return false;
    this.state = 'live';
    group.becameLive();
    return true;
  }

  /** Its stream stands at `next`. */
  pause(group: TailGroup, next = this.next): void {
    if (this.state === 'live') group.becameBehind();
    this.state = 'paused';
    this.next = next;
  }

  /** Reads on from `next`, whatever it did before: the pause may have come before it had joined. */
  resume(group: TailGroup, next: number, credit: number): void {
    if (this.state === 'live') group.becameBehind();
    this.state = 'reading';
    this.next = next;
    this.credit = credit;
    this.creditMax = credit;
  }
}
