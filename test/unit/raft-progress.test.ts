import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Inflights, Progress } from '../../src/raft/progress.ts';

function progressAt(match: number, next: number, messagesMax = 4): Progress {
  const inflights = new Inflights(messagesMax, 1_000);
  return new Progress({ match, next, isLearner: false, isActive: true, inflights });
}

test('[R21] the window is full at its count or its bytes, and frees what is acknowledged', () => {
  const window = new Inflights(3, 100);
  window.add(1, 10);
  window.add(3, 10);
  window.add(4, 10);
  assert.equal(window.isFull, true);
  assert.throws(() => window.add(5, 1));
  window.freeTo(2);
  assert.equal(window.count, 2);
  window.add(5, 90);
  window.freeTo(3);
  assert.equal(window.isFull, true, '100 bytes');
  window.freeTo(5);
  assert.deepEqual([window.count, window.isFull], [0, false]);
});

test('the window behaves like a list', () => {
  const steps = fc.array(
    fc.oneof(fc.record({ add: fc.integer({ min: 1, max: 50 }) }), fc.record({ free: fc.nat({ max: 60 }) })),
    { maxLength: 80 },
  );
  fc.assert(
    fc.property(steps, (list) => {
      const window = new Inflights(5, 120);
      let model: { last: number; bytes: number }[] = [];
      let last = 0;
      for (const step of list) {
        if ('add' in step) {
          if (!window.isFull) {
            last += 1;
            window.add(last, step.add);
            model.push({ last, bytes: step.add });
          }
        } else {
          window.freeTo(step.free);
          model = model.filter((item) => item.last > step.free);
        }
        assert.equal(window.count, model.length);
        assert.equal(window.isFull, model.length === 5 || model.reduce((sum, item) => sum + item.bytes, 0) >= 120);
      }
    }),
    { numRuns: 200 },
  );
});

test('probe: one append, then wait', () => {
  const progress = progressAt(0, 5);
  assert.equal(progress.isBlocked, false);
  progress.onSent(2, 10, 3);
  assert.deepEqual([progress.isBlocked, progress.next], [true, 5]);
  assert.equal(progress.maybeAdvance(6), true);
  progress.becomeReplicate();
  assert.deepEqual([progress.isBlocked, progress.next, progress.match], [false, 7, 6]);
});

test('replicate: appends follow each other until the window is full', () => {
  const progress = progressAt(4, 5, 2);
  progress.becomeReplicate();
  progress.onSent(3, 10, 0);
  assert.deepEqual([progress.isBlocked, progress.next], [false, 8]);
  progress.onSent(1, 10, 0);
  assert.deepEqual([progress.isBlocked, progress.next], [true, 9]);
  progress.maybeAdvance(7);
  progress.inflights.freeTo(7);
  assert.equal(progress.isBlocked, false);
});

test('[R20] a snapshot that arrived is where the probe goes on; one that failed is not', () => {
  const arrived = progressAt(1, 2);
  arrived.becomeSnapshot(10);
  assert.deepEqual([arrived.isBlocked, arrived.next], [true, 11]);
  arrived.becomeProbe();
  assert.deepEqual([arrived.state, arrived.next], ['probe', 11]);
  const failed = progressAt(1, 2);
  failed.becomeSnapshot(10);
  failed.pendingSnapshot = 0;
  failed.becomeProbe();
  assert.deepEqual([failed.state, failed.next], ['probe', 2]);
});

const REFUSALS: readonly [
  state: 'probe' | 'replicate',
  match: number,
  next: number,
  rejected: number,
  hint: number,
  after: number | null,
][] = [
  ['replicate', 5, 10, 5, 5, null],
  ['replicate', 5, 10, 4, 4, null],
  ['replicate', 5, 10, 9, 9, 6],
  ['probe', 0, 10, 0, 0, null],
  ['probe', 0, 10, 5, 5, null],
  ['probe', 0, 10, 9, 9, 9],
  ['probe', 0, 10, 9, 2, 3],
  ['probe', 3, 10, 9, 0, 4],
  ['probe', 0, 2, 1, 1, 1],
];

test('a refusal moves the next position back, unless it is old', () => {
  for (const [state, match, next, rejected, hint, after] of REFUSALS) {
    const progress = progressAt(match, next);
    progress.state = state;
    assert.equal(
      progress.maybeRetreat(rejected, hint),
      after !== null,
      `${state} ${match} ${next} ${rejected} ${hint}`,
    );
    assert.equal(progress.next, after ?? next, `${state} ${match} ${next} ${rejected} ${hint}`);
    assert.ok(progress.match < progress.next);
  }
});

test('[R22] the commit index is told once per step, and again after a step back', () => {
  const progress = progressAt(4, 5);
  progress.becomeReplicate();
  assert.equal(progress.needsCommit(3), true);
  progress.onSent(0, 0, 3);
  assert.equal(progress.needsCommit(3), false);
  assert.equal(progress.needsCommit(4), true);
  progress.onSent(0, 0, 4);
  assert.equal(progress.needsCommit(9), false, 'it has nothing more to commit');
  progress.onSent(3, 10, 6);
  progress.maybeRetreat(7, 7);
  assert.equal(progress.sentCommit, 4);
});
