import { assert } from '../base/assert.ts';

/**
 * The live subscribers of one subject that share deliveries. The group is itself a cursor: runs are sent for `next` and on. While no member is
 * live the group sends nothing and only moves on, and members that are behind read the store until they meet it.
 */
export class TailGroup {
  readonly id: number;
  /** First id of the next run that the group sends. */
  next: number;
  #members = 0;
  #live = 0;

  constructor(id: number, next: number) {
    this.id = id;
    this.next = next;
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

  constructor(subscription: number, next: number, credit: number) {
    this.subscription = subscription;
    this.state = 'reading';
    this.next = next;
    this.credit = credit;
  }

  /** A reader that has met its group is live: the group's next run continues what it was sent. */
  maybeMeet(group: TailGroup): boolean {
    if (this.state !== 'reading' || this.next < group.next) return false;
    this.state = 'live';
    group.becameLive();
    return true;
  }

  pause(group: TailGroup): void {
    if (this.state === 'live') group.becameBehind();
    this.state = 'paused';
  }

  resume(next: number, credit: number): void {
    if (this.state !== 'paused') return;
    this.state = 'reading';
    this.next = next;
    this.credit = credit;
  }
}
