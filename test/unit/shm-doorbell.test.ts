import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createDoorbell, Doorbell, DoorbellRinger } from '../../src/shm/doorbell.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { createRing, RingProducer } from '../../src/shm/ring-producer.ts';

const INSURANCE_MS = 1_000;
const ENDS = { timeout: 30_000 } as const;

/**
 * One owner with a ring, driven from its own thread, so that each interleaving of the race in doorbell.ts is played exactly. Its insurance
 * interval passes by t.mock.timers.tick() alone: who is awake was woken, and a wake-up that is lost is a test that does not end.
 */
function owner(t: TestContext) {
  t.mock.timers.enable({ apis: ['setInterval'] });
  // In place of the interval: it keeps the process alive while nothing but a wait is left.
  const alive = setTimeout(() => undefined, 3_600_000);
  t.after(() => clearTimeout(alive));
  const shared = createRing(1_024);
  const bellBuffer = createDoorbell();
  const producer = new RingProducer(shared);
  const consumer = new RingConsumer(shared);
  const ringer = new DoorbellRinger(bellBuffer);
  const publish = (): void => {
    assert.ok(producer.claim(1, 8) >= 0);
    producer.commit();
    ringer.ring();
  };
  const bell = new Doorbell(bellBuffer);
  const signal = { stopped: false };
  // A failed test must not leave a running loop that keeps the process alive.
  t.after(() => {
    signal.stopped = true;
    bell.poke();
  });
  return { bell, consumer, publish, signal };
}

async function loopTurns(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) await new Promise(setImmediate);
}

/** Runs the owner until it consumed one record; `after` is called behind each look that found nothing, with the number of that look. */
async function consumeOne(t: TestContext, after: (look: number, publish: () => void) => void): Promise<void> {
  const { bell, consumer, publish, signal } = owner(t);
  let look = 0;
  const work = (): number => {
    const found = consumer.drain(() => undefined, 10);
    if (found > 0) signal.stopped = true;
    else after(++look, publish);
    return found;
  };
  await bell.run(work, signal);
}

for (const [name, lookAt] of [
  ['between the last look and "I sleep"', 1],
  ['between the look behind "I sleep" and waitAsync', 2],
] as const) {
  test(`[W4] a record published ${name} wakes the owner`, ENDS, async (t) => {
    await consumeOne(t, (look, publish) => {
      if (look === lookAt) publish();
    });
  });
}

test('[W4] a record published while the owner sleeps wakes it', ENDS, async (t) => {
  await consumeOne(t, (look, publish) => {
    if (look === 2) setTimeout(publish, 20);
  });
});

test(
  '[W4] after being poked awake and asleep again, the owner keeps its one wait and a ring still wakes it',
  ENDS,
  async (t) => {
    const waits = t.mock.method(Atomics, 'waitAsync');
    const { bell, consumer, publish, signal } = owner(t);
    let looks = 0;
    let records = 0;
    const running = bell.run(() => {
      looks += 1;
      const found = consumer.drain(() => undefined, 10);
      records += found;
      return found;
    }, signal);
    await loopTurns(3);
    assert.equal(waits.mock.callCount(), 1);
    for (let round = 0; round < 20; round += 1) {
      const before = looks;
      bell.poke();
      await loopTurns(2);
      assert.ok(looks > before, 'poke did not run work');
    }
    assert.equal(waits.mock.callCount(), 1, 'a thread may have one pending wait only');
    publish();
    while (records === 0) await loopTurns(1);
    // Rung while the resolution of the ring before is still on its way (second half of step 8).
    await loopTurns(2);
    publish();
    bell.poke();
    await loopTurns(1);
    publish();
    while (records < 3) await loopTurns(1);
    signal.stopped = true;
    bell.poke();
    await running;
  },
);

test('many pokes cost one run of work, and a poke during work makes it run once more', async (t) => {
  const { bell, signal } = owner(t);
  let runs = 0;
  let pokeInside = false;
  const running = bell.run(() => {
    runs += 1;
    if (pokeInside) {
      pokeInside = false;
      bell.poke();
    }
    return 0;
  }, signal);
  await loopTurns(3);
  runs = 0;
  for (let i = 0; i < 10_000; i += 1) bell.poke();
  await loopTurns(3);
  assert.equal(runs, 2, 'one run, and one look behind "I sleep"');
  runs = 0;
  pokeInside = true;
  bell.poke();
  await loopTurns(3);
  assert.equal(runs, 3);
  signal.stopped = true;
  bell.poke();
  await running;
});

test('an owner that always has work lets timers and immediates run', async (t) => {
  const { bell, signal } = owner(t);
  const running = bell.run(() => 1, signal);
  await new Promise((resolve) => setTimeout(resolve, 5));
  await loopTurns(10);
  signal.stopped = true;
  await running;
});

test('a ring while the owner is awake makes no system call, and of many rings one does', async (t) => {
  const notifies = t.mock.method(Atomics, 'notify');
  const { bell, consumer, publish, signal } = owner(t);
  let rungAwake = false;
  const running = bell.run(() => {
    if (!rungAwake) {
      rungAwake = true;
      publish();
      assert.equal(notifies.mock.callCount(), 0);
    }
    return consumer.drain(() => undefined, 10);
  }, signal);
  await loopTurns(3);
  assert.equal(notifies.mock.callCount(), 0);
  for (let i = 0; i < 20; i += 1) publish();
  assert.equal(notifies.mock.callCount(), 1);
  signal.stopped = true;
  bell.poke();
  await running;
});

test('run rejects with what work throws, and may be called again afterwards', async (t) => {
  const { bell, consumer, publish, signal } = owner(t);
  await assert.rejects(
    bell.run(() => {
      throw new Error('work');
    }, signal),
    /work/,
  );
  setTimeout(publish, 10);
  await bell.run(() => {
    const found = consumer.drain(() => undefined, 10);
    signal.stopped = found > 0;
    return found;
  }, signal);
});

test(
  '[W5] a publisher that dies before it rings delays its record by at most the insurance interval of 1 s',
  ENDS,
  async (t) => {
    const { bell, signal } = owner(t);
    let published = false;
    let looks = 0;
    const running = bell.run(() => {
      looks += 1;
      if (published) signal.stopped = true;
      return 0;
    }, signal);
    await loopTurns(3);
    published = true;
    const before = looks;
    t.mock.timers.tick(INSURANCE_MS - 1);
    await loopTurns(3);
    assert.equal(looks, before, 'it was asleep');
    t.mock.timers.tick(1);
    await running;
  },
);

test('[W5] Atomics.wait, waitAsync and notify are used in doorbell.ts only, and no wait blocks a thread that has work', () => {
  const root = join(import.meta.dirname, '../../src');
  const users: string[] = [];
  const blocking: string[] = [];
  const pausing: string[] = [];
  for (const path of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
    if (!path.endsWith('.ts')) continue;
    const code = readFileSync(join(root, path), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '');
    if (/Atomics\s*\.\s*(wait|notify)/.test(code)) users.push(path);
    if (/Atomics\s*\.\s*wait\s*\(/.test(code)) blocking.push(path);
    if (/\bpause\b.*shm\/doorbell\.ts/.test(code)) pausing.push(path);
  }
  // Failpoints sleep and die on purpose, with a time limit; a verification paces a thread that has nothing else to do.
  assert.deepEqual([blocking.sort(), pausing], [['base/failpoint.ts', 'shm/doorbell.ts'], ['verify/pace.ts']]);
  assert.deepEqual(users.sort(), ['base/failpoint.ts', 'shm/doorbell.ts']);
});
