/** What nodes want of each other: announced by one, gathered by the others, told to their shards. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { slotOfSubject } from '../../src/base/subject-space.ts';
import type { PeerInterest } from '../../src/grpc/peer-codec.ts';
import { encodeInterest, INTEREST_SUBJECTS_MAX } from '../../src/grpc/peer-codec.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { ShardLink } from '../../src/workers/front/shard-link.ts';
import { CONTROL_RING_BYTES, PEERS_HEADER, ToShard } from '../../src/workers/link.ts';
import { Demand } from '../../src/workers/peers/demand.ts';
import { InterestSet } from '../../src/workers/peers/interest-set.ts';
import { LINGER_MS, OwnInterest } from '../../src/workers/peers/own-interest.ts';

const bytes = (name: string): Buffer => Buffer.from(name);

const told = (parts: readonly PeerInterest[]): unknown[] =>
  parts.map(({ everything, first, last, added, removed }) =>
    everything
      ? 'everything'
      : `${first ? '[' : ''}+${added.map(String).join()} -${removed.map(String).join()}${last ? ']' : ''}`,
  );

describe('what a node wants', () => {
  it('is announced once for all that one turn brings, and taken back some seconds behind the last subscriber', () => {
    let now = 0;
    let calls = 0;
    const own = new OwnInterest(100, () => now);
    own.activate(() => void calls++);
    for (const name of ['a', 'b', 'a']) own.began(bytes(name));
    assert.equal(calls, 1);
    assert.deepEqual(told(own.takeChanges()), ['+a,b -']);
    own.ended(bytes('a'));
    own.ended(bytes('b'));
    now += LINGER_MS + 1;
    own.sweep();
    assert.equal(calls, 2);
    assert.deepEqual(told(own.takeChanges()), ['+ -b'], 'a has another group');
    own.ended(bytes('a'));
    now += LINGER_MS - 1;
    own.sweep();
    assert(own.wants('a'));
    own.began(bytes('a'));
    now += LINGER_MS * 2;
    own.sweep();
    assert.deepEqual(told(own.takeChanges()), [], 'a reconnect was announced');
    assert.deepEqual(told(own.whole()), ['[+a -]']);
  });

  it('that begins and ends between two announcements is not announced', () => {
    let now = 0;
    const own = new OwnInterest(100, () => now);
    own.activate(() => undefined);
    own.began(bytes('a'));
    own.ended(bytes('a'));
    now += LINGER_MS + 1;
    own.sweep();
    assert.deepEqual(told(own.takeChanges()), []);
    assert.equal(own.size, 0);
  });

  it('is everything above its bound, and named again below half of it', () => {
    let now = 0;
    const own = new OwnInterest(4, () => now);
    own.activate(() => undefined);
    for (let i = 0; i < 5; i++) own.began(bytes(`s${i}`));
    assert.deepEqual(told(own.takeChanges()), ['everything']);
    assert.deepEqual(told(own.whole()), ['everything']);
    for (let i = 0; i < 3; i++) own.ended(bytes(`s${i}`));
    now += LINGER_MS + 1;
    own.sweep();
    assert.deepEqual(told(own.takeChanges()), ['[+s3,s4 -]']);
  });

  it('is everything above its bound in bytes too, and named again below half of it', () => {
    let now = 0;
    const own = new OwnInterest(100, () => now, 10);
    own.activate(() => undefined);
    for (const name of ['aaaa', 'bbbb', 'cccc']) own.began(bytes(name));
    assert.deepEqual(told(own.takeChanges()), ['everything']);
    own.ended(bytes('aaaa'));
    now += LINGER_MS + 1;
    own.sweep();
    assert.deepEqual(told(own.takeChanges()), []);
    own.ended(bytes('cccc'));
    now += LINGER_MS + 1;
    own.sweep();
    assert.deepEqual(told(own.takeChanges()), ['[+bbbb -]']);
  });

  it('comes in parts that every node takes, whatever its limits.message_bytes', () => {
    const own = new OwnInterest();
    own.activate(() => undefined);
    const names = Array.from({ length: 1_000 }, (_, i) => `${i}.${'n'.repeat(250)}`);
    for (const name of names) own.began(bytes(name));
    for (const parts of [own.takeChanges(), own.whole()]) {
      for (const part of parts) assert(encodeInterest(part).length <= 33 << 10);
      assert.deepEqual(
        parts.flatMap(({ added }) => added.map(String)),
        names,
      );
    }
  });

  it('comes in several parts when it is long, also when it is nothing', () => {
    const own = new OwnInterest();
    own.activate(() => undefined);
    assert.deepEqual(told(own.whole()), ['[+ -]']);
    for (let i = 0; i <= INTEREST_SUBJECTS_MAX; i++) own.began(bytes(`s${i}`));
    assert.equal(own.takeChanges().length, 2);
    assert.deepEqual(
      own.whole().map(({ first, last, added }) => [first, last, added.length]),
      [
        [true, false, INTEREST_SUBJECTS_MAX],
        [false, true, 1],
      ],
    );
  });

  it('costs nothing on a node alone', () => {
    const own = new OwnInterest();
    own.began(bytes('a'));
    assert.equal(own.size, 0);
    own.ended(bytes('a'));
  });
});

describe('what a peer wants', () => {
  const part = (added: string, removed = '', flags: Partial<PeerInterest> = {}): PeerInterest => {
    const names = (list: string): Buffer[] => list.split(' ').filter(Boolean).map(bytes);
    return { everything: false, first: false, last: false, ...flags, added: names(added), removed: names(removed) };
  };
  const watched = (max = 100): { readonly set: InterestSet; readonly events: string[] } => {
    const events: string[] = [];
    const set = new InterestSet(
      {
        began: (subject) => void events.push(`+${subject}`),
        ended: (subject) => void events.push(`-${subject}`),
        everything: (isOn) => void events.push(isOn ? 'everything' : 'named'),
      },
      max,
    );
    return { set, events };
  };

  it('is what it said last: a whole set takes the place of the one before without taking back what is in both', () => {
    const { set, events } = watched();
    set.apply(part('a b', '', { first: true }));
    set.apply(part('c', '', { last: true }));
    set.apply(part('d', 'a'));
    assert.deepEqual(events.splice(0), ['+a', '+b', '+c', '+d', '-a']);
    set.apply(part('b e', '', { first: true }));
    assert(set.wants('d'), 'taken back before the whole set has come');
    set.apply(part('', '', { last: true }));
    assert.deepEqual(events.splice(0), ['+e', '-c', '-d']);
    set.clear();
    assert.deepEqual(events, ['-b', '-e']);
  });

  it('is everything when it says so, and when it names more than it may', () => {
    const { set, events } = watched(2);
    set.apply(part('a'));
    set.apply(part('', '', { everything: true }));
    assert(set.wants('anything'));
    set.apply(part('b', '', { first: true, last: true }));
    assert(!set.wants('anything'));
    set.apply(part('c d e f'));
    assert(set.wants('anything'));
    assert.equal(set.size, 0);
    assert.deepEqual(events, ['+a', '-a', 'everything', '+b', 'named', '+c', '-b', '-c', 'everything']);
  });
});

describe('what some peer wants', () => {
  class Rig {
    readonly links: ShardLink[] = [];
    readonly #rings: RingConsumer[] = [];
    /** Shard of each slot; null: it is on its way. */
    owner: (slot: number) => number | null = () => 0;
    readonly demand = new Demand({
      linkOf: (hash) => this.links[this.owner(hash % 1024) ?? -1] ?? null,
      links: () => this.links,
      touched: () => undefined,
    });

    constructor(shards: number) {
      for (let shard = 0; shard < shards; shard++) this.attach(shard);
    }

    attach(shard: number): ShardLink {
      const ring = (): SharedArrayBuffer => createRing(CONTROL_RING_BYTES);
      const rings = {
        mainControl: ring(),
        mainPayload: ring(),
        toMainControl: ring(),
        toMainPayload: ring(),
        toRaft: ring(),
        fromRaft: ring(),
      };
      this.#rings[shard] = new RingConsumer(rings.mainControl);
      const link = new ShardLink({ shard, rings, doorbell: createDoorbell() });
      this.links[shard] = link;
      return link;
    }

    told(shard: number): string[] {
      const found: string[] = [];
      const ring = this.#rings[shard] as RingConsumer;
      ring.drain((type, offset, length) => {
        assert.equal(type, ToShard.PEERS);
        const isOn = ring.view.getUint32(offset + 4, true) === 1;
        found.push(`${isOn ? '+' : '-'}${ring.buffer.toString('utf8', offset + PEERS_HEADER, offset + length)}`);
      }, 1_000);
      return found;
    }
  }

  it('is told once to the shard that owns it, and taken back with the last peer', () => {
    const rig = new Rig(2);
    rig.owner = (slot) => (slot === slotOfSubject('a') ? 1 : 0);
    rig.demand.began('a');
    rig.demand.began('a');
    rig.demand.began('b');
    rig.demand.ended('a');
    assert.deepEqual([rig.told(0), rig.told(1)], [['+b'], ['+a']]);
    rig.demand.ended('a');
    rig.demand.everything(true);
    rig.demand.everything(true);
    rig.demand.everything(false);
    assert.deepEqual([rig.told(0), rig.told(1)], [['+'], ['-a', '+']]);
    rig.demand.everything(false);
    assert.deepEqual([rig.told(0), rig.told(1)], [['-'], ['-']]);
  });

  it('is told again to a shard that was replaced, and to the one that a slot has moved to', () => {
    const rig = new Rig(2);
    rig.demand.began('a');
    rig.demand.began('b');
    rig.demand.everything(true);
    rig.told(0);
    rig.told(1);
    rig.demand.attached(rig.attach(0));
    assert.deepEqual(rig.told(0), ['+', '+a', '+b']);
    const slot = slotOfSubject('a');
    rig.owner = (asked) => (asked === slot ? null : 0);
    rig.demand.holdSlots();
    rig.owner = (asked) => (asked === slot ? 1 : 0);
    rig.demand.resumeSlots(new Set([slot]));
    assert.deepEqual([rig.told(0), rig.told(1)], [[], ['+a']]);
  });

  it('is taken back behind a move that was given up if it ended meanwhile', () => {
    const rig = new Rig(1);
    rig.demand.began('a');
    rig.owner = () => null;
    rig.demand.ended('a');
    rig.demand.began('b');
    assert.deepEqual(rig.told(0), ['+a']);
    rig.owner = () => 0;
    rig.demand.resumeSlots(new Set([slotOfSubject('a'), slotOfSubject('b')]));
    assert.deepEqual(rig.told(0), ['-a', '+b']);
  });
});
