/** Tail group, cursors and delivery windows together, against a plain model: the set of ids that each subscriber must be given. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { DeliveryWindow } from '../../src/subscribe/delivery-window.ts';
import { Cursor, TailGroup } from '../../src/subscribe/tail-group.ts';

interface Run {
  /** Null = for the whole group. */
  readonly target: Subscriber | null;
  readonly from: number;
  readonly to: number;
}

interface Subscriber {
  readonly start: number;
  readonly window: DeliveryWindow;
  readonly cursor: Cursor;
  readonly taken: number[];
  left: boolean;
}

type Note = { readonly subscriber: Subscriber; readonly kind: 'pause' | 'resume' | 'leave'; readonly next: number };

const CREDIT = 1_000;

/** A shard that owns one subject and a main thread with its streams; what they say to each other arrives in order, and late. */
class World {
  /** Ids 1..head; false = void. */
  readonly stored: boolean[] = [];
  readonly subscribers: Subscriber[] = [];
  readonly toMain: Run[] = [];
  readonly toShard: Note[] = [];
  readonly sent: Run[] = [];
  group = new TailGroup(1, 1);
  live = (subscriber: Subscriber): boolean => subscriber.cursor.state === 'live';

  get head(): number {
    return this.stored.length;
  }

  publish(batch: readonly boolean[]): void {
    this.stored.push(...batch);
    if (this.group.live > 0) this.#send({ target: null, from: this.group.next, to: this.head + 1 });
    this.group.next = this.head + 1;
  }

  subscribe(back: number): void {
    const start = Math.max(1, this.head + 1 - back);
    const cursor = new Cursor(this.subscribers.length, start, CREDIT);
    this.subscribers.push({ start, window: new DeliveryWindow(start), cursor, taken: [], left: false });
    this.group.join();
    cursor.maybeMeet(this.group);
  }

  /** The shard reads at most `count` ids for one of its readers. */
  read(which: number, count: number): void {
    const readers = this.subscribers.filter(({ cursor, left }) => !left && cursor.state === 'reading');
    const reader = readers[which % Math.max(1, readers.length)];
    if (reader === undefined || reader.cursor.maybeMeet(this.group)) return;
    const { cursor } = reader;
    const to = Math.min(cursor.next + count, this.group.next);
    this.#send({ target: reader, from: cursor.next, to });
    cursor.next = to;
    cursor.maybeMeet(this.group);
  }

  /** A run that was sent before comes once more. */
  repeat(which: number): void {
    const run = this.sent[which % Math.max(1, this.sent.length)];
    if (run !== undefined) this.toMain.push(run);
  }

  arriveAtMain(): void {
    const run = this.toMain.shift();
    if (run === undefined) return;
    for (const subscriber of run.target === null ? this.subscribers : [run.target]) {
      if (subscriber.left || subscriber.window.judge(run.from, run.to) !== 'take') continue;
      for (let id = Math.max(run.from, subscriber.window.next); id < run.to; id++) {
        if (this.stored[id - 1]) subscriber.taken.push(id);
      }
      subscriber.window.took(run.to);
    }
  }

  arriveAtShard(): void {
    const note = this.toShard.shift();
    if (note === undefined) return;
    const { cursor } = note.subscriber;
    if (note.kind === 'pause') cursor.pause(this.group);
    else if (note.kind === 'leave') this.group.leave(cursor.state === 'live');
    else {
      cursor.resume(this.group, note.next, CREDIT);
      cursor.maybeMeet(this.group);
    }
    if (note.kind === 'leave') cursor.state = 'paused';
  }

  tell(which: number, kind: Note['kind']): void {
    const subscriber = this.subscribers[which % Math.max(1, this.subscribers.length)];
    if (subscriber === undefined || subscriber.left) return;
    const { window } = subscriber;
    if (kind !== 'leave' && window.paused === (kind === 'pause')) return;
    if (kind === 'pause') window.pause();
    else if (kind === 'resume') window.resume();
    else subscriber.left = true;
    this.toShard.push({ subscriber, kind, next: window.next });
  }

  /** Everything arrives, everybody reads on. */
  settle(): void {
    this.subscribers.forEach((_, i) => {
      this.tell(i, 'resume');
    });
    for (let round = 0; round < 10_000; round++) {
      while (this.toShard.length > 0) this.arriveAtShard();
      while (this.toMain.length > 0) this.arriveAtMain();
      if (!this.subscribers.some(({ cursor, left }) => !left && cursor.state === 'reading')) return;
      this.read(round, 3);
    }
    assert.fail('the subscribers never meet the tail');
  }

  check(): void {
    for (const { start, window, taken } of this.subscribers) {
      const wanted: number[] = [];
      for (let id = start; id < window.next; id++) if (this.stored[id - 1]) wanted.push(id);
      assert.deepEqual(taken, wanted);
    }
    const members = this.subscribers.filter(({ left }) => !left).length;
    assert(this.group.live <= members + this.toShard.length);
  }

  #send(run: Run): void {
    this.toMain.push(run);
    this.sent.push(run);
  }
}

const small = fc.nat({ max: 30 });
const step = fc.oneof(
  fc.record({ do: fc.constant('publish' as const), batch: fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }) }),
  fc.record({ do: fc.constant('subscribe' as const), back: fc.nat({ max: 12 }) }),
  fc.record({ do: fc.constant('read' as const), which: small, count: fc.integer({ min: 1, max: 5 }) }),
  fc.record({ do: fc.constantFrom('pause' as const, 'resume' as const, 'leave' as const), which: small }),
  fc.record({ do: fc.constant('repeat' as const), which: small }),
  fc.record({ do: fc.constantFrom('main' as const, 'shard' as const) }),
);

describe('tail group, cursors and windows', () => {
  it('[P6, F3] in any mixture of tail runs, catch-up runs, repeats, pauses and late messages each id comes once, in order, none is lost', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120, size: 'max' }), (steps) => {
        const world = new World();
        for (const action of steps) {
          switch (action.do) {
            case 'publish':
              world.publish(action.batch);
              break;
            case 'subscribe':
              world.subscribe(action.back);
              break;
            case 'read':
              world.read(action.which, action.count);
              break;
            case 'repeat':
              world.repeat(action.which);
              break;
            case 'main':
              world.arriveAtMain();
              break;
            case 'shard':
              world.arriveAtShard();
              break;
            default:
              world.tell(action.which, action.do);
          }
          world.check();
        }
        world.settle();
        world.check();
        const staying = world.subscribers.filter(({ left }) => !left);
        for (const { window, cursor } of staying) {
          assert.equal(window.next, Math.max(world.head + 1, window.next));
          assert.equal(cursor.state, 'live');
        }
        assert.equal(world.group.live, staying.length);
        for (const subscriber of staying) world.tell(world.subscribers.indexOf(subscriber), 'leave');
        world.settle();
        assert(world.group.empty);
      }),
      { numRuns: 300 },
    );
  });
});

describe('delivery window', () => {
  const rows: { from: number; to: number; verdict: string }[] = [
    { from: 10, to: 12, verdict: 'take' },
    { from: 7, to: 12, verdict: 'take' },
    { from: 7, to: 11, verdict: 'take' },
    { from: 7, to: 10, verdict: 'repeat' },
    { from: 10, to: 10, verdict: 'repeat' },
    { from: 11, to: 12, verdict: 'gap' },
  ];
  for (const { from, to, verdict } of rows) {
    it(`at next = 10 the run [${from}, ${to}) is judged ${verdict}`, () => {
      const window = new DeliveryWindow(10);
      assert.equal(window.judge(from, to), verdict);
      window.pause();
      assert.equal(window.judge(from, to), 'paused');
      window.resume();
      assert.equal(window.judge(from, to), verdict);
    });
  }

  it('takes nothing while it waits for its time', () => {
    const window = new DeliveryWindow(10, true);
    assert.equal(window.judge(10, 12), 'gap');
    window.isAwaiting = false;
    assert.equal(window.judge(10, 12), 'take');
  });

  it('never goes back', () => {
    const window = new DeliveryWindow(10);
    window.took(15);
    window.took(12);
    assert.equal(window.next, 15);
  });
});

describe('tail group', () => {
  it('counts members and live members apart, and does not let them go wrong', () => {
    const group = new TailGroup(3, 10);
    assert(group.empty);
    const cursor = new Cursor(1, 5, CREDIT);
    group.join();
    assert.equal(cursor.maybeMeet(group), false);
    cursor.next = 10;
    assert.equal(cursor.maybeMeet(group), true);
    assert.equal(cursor.maybeMeet(group), false, 'a live cursor meets nobody');
    assert.equal(group.live, 1);
    cursor.pause(group);
    assert.equal(group.live, 0);
    assert.throws(() => group.becameBehind());
    assert.throws(() => {
      const empty = new TailGroup(4, 1);
      empty.becameLive();
    });
  });

  it('a reader whose runs were dropped while it was paused goes back to where its stream stands', () => {
    const group = new TailGroup(3, 10);
    const cursor = new Cursor(1, 5, CREDIT);
    cursor.next = 9;
    cursor.pause(group);
    cursor.resume(group, 6, 7);
    assert.equal(cursor.next, 6);
    assert.equal(cursor.credit, 7);
  });

  it('a live cursor whose pause came before it had joined goes back all the same, and its group has one live member less', () => {
    const group = new TailGroup(3, 5);
    const cursor = new Cursor(1, 5, CREDIT);
    group.join();
    assert(cursor.maybeMeet(group));
    cursor.resume(group, 2, 7);
    assert.deepEqual([cursor.state, cursor.next, cursor.credit, group.live], ['reading', 2, 7, 0]);
  });
});
