import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReadQueue } from '../../src/raft/read-only.ts';

test('reads that arrive before a round begins share it; later ones wait for the next', () => {
  const queue = new ReadQueue(10);
  queue.add('a', 1, 5);
  queue.add('b', 2, 6);
  assert.equal(queue.needsRound, true);
  const first = queue.beginRound();
  assert.equal(queue.needsRound, false);
  assert.equal(queue.beginRound(), first, 'a heartbeat in between repeats the last round');
  queue.add('a', 3, 7);
  const second = queue.beginRound();
  assert.ok(second > first);
  assert.deepEqual(
    queue.takeProven(first).map(({ context }) => context),
    [1, 2],
  );
  assert.deepEqual(queue.takeProven(first), []);
  assert.deepEqual(
    queue.takeProven(second).map(({ index }) => index),
    [7],
  );
  assert.equal(queue.beginRound(), 0, 'nothing waits');
});

test('[R11] a new leadership knows of no answers, and never uses the number of a round again', () => {
  const queue = new ReadQueue(10);
  queue.add('a', 1, 5);
  const before = queue.beginRound();
  queue.onAck('b', before);
  queue.onAck('b', before - 1);
  assert.equal(queue.acks.get('b'), before);
  queue.reset();
  assert.equal(queue.acks.size, 0);
  queue.add('a', 2, 9);
  assert.ok(queue.beginRound() > before);
});

test('the limit counts reads that wait for a round and those that wait for the first commit', () => {
  const queue = new ReadQueue(2);
  queue.addEarly('a', 1);
  queue.add('a', 2, 3);
  assert.equal(queue.isFull, true);
  assert.equal(queue.takeEarly().length, 1);
  assert.deepEqual([queue.isFull, queue.hasEarly], [false, false]);
});
