/** How a process watches whether the database is still its own. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { BrokerError } from '../../src/base/errors.ts';
import { FenceWatch } from '../../src/workers/store/fence-watch.ts';

interface Watched {
  readonly lost: string[];
  readonly lines: string[];
  questions: number;
  /** What the next questions are answered with. */
  answer: () => Promise<string | null>;
  second(): Promise<void>;
}

function watch(t: TestContext): { watched: Watched; fence: FenceWatch } {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const watched: Watched = {
    lost: [],
    lines: [],
    questions: 0,
    answer: () => Promise.resolve(null),
    async second() {
      t.mock.timers.tick(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
  const fence = new FenceWatch({
    fence: {
      lostTo() {
        watched.questions += 1;
        return watched.answer();
      },
    },
    log: ({ message }) => watched.lines.push(message),
    onLost: (to) => watched.lost.push(to),
  });
  fence.start();
  return { watched, fence };
}

test('it asks every second, one question at a time, and tells once who has it now', async (t) => {
  const { watched } = watch(t);
  for (let i = 1; i <= 3; i++) {
    await watched.second();
    assert.equal(watched.questions, i);
  }
  let answer: (to: string) => void = () => undefined;
  watched.answer = () =>
    new Promise((resolve) => {
      answer = resolve;
    });
  for (let i = 0; i < 3; i++) await watched.second();
  assert.equal(watched.questions, 4);
  answer('incarnation b');
  for (let i = 0; i < 3; i++) await watched.second();
  assert.deepEqual(watched.lost, ['incarnation b']);
  assert.equal(watched.questions, 4, 'asked after it was lost');
});

test('a question that is not answered proves nothing, is told once for each absence, and asked again', async (t) => {
  const { watched } = watch(t);
  for (const absence of [1, 2]) {
    watched.answer = () => Promise.reject(new BrokerError('STORE_UNAVAILABLE'));
    for (let i = 0; i < 3; i++) await watched.second();
    assert.equal(watched.lines.length, absence);
    watched.answer = () => Promise.resolve(null);
    await watched.second();
  }
  assert.deepEqual(watched.lost, []);
  watched.answer = () => Promise.resolve('incarnation b');
  await watched.second();
  assert.deepEqual(watched.lost, ['incarnation b']);
});

test('an answer that comes after the stop ends nothing', async (t) => {
  const { watched, fence } = watch(t);
  watched.answer = () => Promise.resolve('incarnation b');
  t.mock.timers.tick(1_000);
  fence.stop();
  await watched.second();
  assert.equal(watched.questions, 1);
  assert.deepEqual(watched.lost, []);
});
