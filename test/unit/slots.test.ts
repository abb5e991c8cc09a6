/** Slots and shards: the table, which moves a number of shards needs, what waits meanwhile. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import fc from 'fast-check';
import { Exclusive } from '../../src/base/exclusive.ts';
import { SLOT_COUNT } from '../../src/base/subject.ts';
import { HoldQueue } from '../../src/workers/front/hold-queue.ts';
import { PIECE_SLOTS_MAX, PieceSize, planResize } from '../../src/workers/slots/move-plan.ts';
import { HELD, SlotOwners, SlotTable } from '../../src/workers/slots/slot-table.ts';

const SHARDS_MAX = 64;
const shardCounts = fc.integer({ min: 1, max: SHARDS_MAX });

function counts(owners: Uint8Array): number[] {
  const found = new Array<number>(SHARDS_MAX).fill(0);
  for (const owner of owners) found[owner] = (found[owner] as number) + 1;
  return found;
}

test('a plan ends with every slot at one of the wanted shards, evenly, and moves as few slots as that takes', () => {
  const anyTable = fc.array(fc.integer({ min: 0, max: SHARDS_MAX - 1 }), {
    minLength: SLOT_COUNT,
    maxLength: SLOT_COUNT,
  });
  fc.assert(
    fc.property(anyTable, shardCounts, (table, shards) => {
      const owners = Uint8Array.from(table);
      const before = counts(owners);
      let moved = 0;
      for (const { from, to, slots } of planResize(owners, shards)) {
        for (const slot of slots) {
          assert.equal(owners[slot], from, 'it moves a slot from its owner, once');
          owners[slot] = to;
        }
        moved += slots.length;
      }
      const after = counts(owners);
      assert.equal(
        after.slice(shards).reduce((sum, count) => sum + count, 0),
        0,
      );
      const wanted = after.slice(0, shards);
      assert.ok(Math.max(...wanted) - Math.min(...wanted) <= 1);
      // No plan can do with less: what is above the even share has to go, and who has most may keep one more.
      const least = Math.floor(SLOT_COUNT / shards);
      const larger = SLOT_COUNT % shards;
      const shares = before.map((count, shard) => ({ count, shard })).filter(({ shard }) => shard < shards);
      shares.sort((a, b) => b.count - a.count);
      const kept = shares.reduce((sum, { count }, rank) => sum + Math.min(count, least + (rank < larger ? 1 : 0)), 0);
      assert.equal(moved, SLOT_COUNT - kept);
    }),
    { numRuns: 60 },
  );
});

test('from an even table a plan to the same number of shards is empty', () => {
  for (const shards of [1, 2, 3, 7, 64]) assert.deepEqual(planResize(new SlotTable(shards).snapshot(), shards), []);
});

test('a held slot goes nowhere, then to its new owner; another thread sees the owner at once', () => {
  const table = new SlotTable(2);
  const elsewhere = new SlotOwners(table.buffer);
  assert.deepEqual([table.route(0), table.route(1_023), table.epoch], [0, 1, 0]);
  table.hold([0, 1]);
  assert.deepEqual([table.route(0), table.route(2), table.held], [HELD, 0, 2]);
  assert.equal(elsewhere.ownerOf(0), 0);
  table.assign([0, 1], 5);
  assert.equal(elsewhere.ownerOf(0), 5);
  assert.equal(table.route(0), HELD);
  table.release([0, 1]);
  assert.deepEqual([table.route(0), table.route(1), table.held, table.epoch], [5, 5, 0, 1]);
  assert.deepEqual([table.count(0), table.count(1), table.count(5)], [510, 512, 2]);
});

test('a slot that work goes to changes its owner never', () => {
  const table = new SlotTable(2);
  assert.throws(() => table.assign([0], 1), /while work goes to it/);
  table.hold([0]);
  assert.throws(() => table.hold([0]), /held already/);
  table.release([0]);
  assert.throws(() => table.release([0]), /is not held/);
});

test('pieces grow while pauses are short and shrink when they are long, from 1 to 64 slots', () => {
  const size = new PieceSize();
  const start = size.slots;
  size.paused(15);
  assert.equal(size.slots, start, 'neither short nor long');
  for (let i = 0; i < 10; i++) size.paused(1);
  assert.equal(size.slots, PIECE_SLOTS_MAX);
  for (let i = 0; i < 10; i++) size.paused(100);
  assert.equal(size.slots, 1);
});

test('held calls go out in the order in which they came, also over several attempts', () => {
  const queue = new HoldQueue();
  const sent: number[] = [];
  let room = 0;
  const send = (call: number) => () => {
    if (room === 0) return false;
    room -= 1;
    sent.push(call);
    return true;
  };
  for (let call = 0; call < 5; call++) queue.push(call, send(call));
  assert.equal(queue.flush(), false);
  room = 2;
  assert.equal(queue.flush(), false);
  assert.deepEqual([sent, queue.size], [[0, 1], 3]);
  queue.push(5, send(5));
  room = 10;
  assert.equal(queue.flush(), true);
  assert.deepEqual([sent, queue.size], [[0, 1, 2, 3, 4, 5], 0]);
});

test('a call that was sent is let go of, though one behind it waits all the time', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const queue = new HoldQueue();
  const sent: WeakRef<Buffer>[] = [];
  let room = 0;
  const push = (call: number): void => {
    const request = Buffer.alloc(16 << 10);
    sent.push(new WeakRef(request));
    queue.push(call, () => {
      if (room === 0) return false;
      room -= 1;
      return request.length > 0;
    });
  };
  push(0);
  for (let call = 1; call <= 1_000; call++) {
    push(call);
    room = 1;
    assert.equal(queue.flush(), false);
    assert.equal(queue.size, 1);
  }
  // What a WeakRef was made of stays until the turn is over.
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  const kept = sent.filter((ref) => ref.deref() !== undefined).length;
  assert.ok(kept < 10, `${kept} requests`);
});

test('calls that are still held at the end can be taken out', () => {
  const queue = new HoldQueue();
  let room = 1;
  for (let call = 0; call < 3; call++) queue.push(call, () => room-- > 0);
  queue.flush();
  assert.deepEqual([queue.takeAll(), queue.size, queue.flush()], [[1, 2], 0, true]);
});

test('exclusive work runs in order, one at a time, also when some of it fails', async () => {
  const turns = new Exclusive();
  const seen: string[] = [];
  const work = (name: string, fails: boolean) => async () => {
    seen.push(`${name} begins`);
    await Promise.resolve();
    seen.push(`${name} ends`);
    if (fails) throw new Error(name);
    return name;
  };
  const first = turns.run(work('a', true));
  const second = turns.run(work('b', false));
  await assert.rejects(first, /^Error: a$/);
  assert.equal(await second, 'b');
  assert.deepEqual(seen, ['a begins', 'a ends', 'b begins', 'b ends']);
});
