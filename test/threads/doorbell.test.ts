import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Prng } from '../../src/base/prng.ts';
import { createDoorbell, DoorbellRinger } from '../../src/shm/doorbell.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { createRing, RingProducer } from '../../src/shm/ring-producer.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { pauseFor } from './checked-records.ts';
import { messageOf, runOwner, startWorker, withoutInsurance } from './start-worker.ts';

const LONG = process.env.BROKER_LONG === '1';

const rounds = LONG ? 2_000_000 : 10_000;
test(`[W4] no wake-up is lost in ${rounds} round trips with random pauses between two parking threads`, {
  timeout: LONG ? 3_600_000 : 240_000,
}, async (t) => {
  const [there, back, ownBell, peerBell] = [createRing(1_024), createRing(1_024), createDoorbell(), createDoorbell()];
  const task = {
    role: 'echo',
    ring: there,
    back,
    bodyBytesMax: 0,
    sequence: 0,
    ownBell: peerBell,
    peerBell: ownBell,
  } as const;
  const insured = globalThis.setInterval;
  withoutInsurance();
  t.after(() => {
    globalThis.setInterval = insured;
  });
  const worker = startWorker(t, task);
  await messageOf(worker, 'up');
  const prng = new Prng(3);
  const producer = new RingProducer(there);
  const consumer = new RingConsumer(back);
  const ringer = new DoorbellRinger(peerBell);
  const signal = { stopped: false };
  let answers = 0;
  const send = (): void => {
    // The ring falls before, into and behind the other side's going to sleep.
    pauseFor(prng.nextBelow(50));
    producer.claim(1, 8);
    producer.commit();
    ringer.ring();
  };
  const onAnswer = (): void => {
    answers += 1;
    signal.stopped = answers === rounds;
    if (!signal.stopped) send();
  };
  send();
  await runOwner(t, ownBell, () => consumer.drain(onAnswer, 1), signal);
  await worker.terminate();
  assert.equal(answers, rounds);
});

test('[W5] a peer that dies between publishing and ringing delays the record by at most 1 s', async (t) => {
  const ring = createRing(1_024);
  const consumer = new RingConsumer(ring);
  const worker = startWorker(t, { role: 'commit and die silently', ring, bodyBytesMax: 40, sequence: 0, delayMs: 30 });
  let diedAt = 0;
  worker.on('exit', () => {
    diedAt = performance.now();
  });
  const signal = { stopped: false };
  await runOwner(
    t,
    createDoorbell(),
    () => {
      const drained = consumer.drain(() => undefined, 10);
      signal.stopped = drained > 0;
      return drained;
    },
    signal,
  );
  if (diedAt === 0) await once(worker, 'exit');
  const delayMs = performance.now() - diedAt;
  assert.ok(delayMs < (await onThisMachine(1_300)), `not by the insurance interval, but after ${delayMs} ms`);
});

test('[W5] a thread that is parked can be terminated within 1 s, and ringing its bell afterwards is harmless', async (t) => {
  const [ring, ownBell] = [createRing(1_024), createDoorbell()];
  const worker = startWorker(t, {
    role: 'read for ever',
    ring,
    bodyBytesMax: 8,
    sequence: 0,
    result: new SharedArrayBuffer(4),
    ownBell,
  });
  await messageOf(worker, 'up');
  await new Promise((resolve) => setTimeout(resolve, 50));
  const started = performance.now();
  await worker.terminate();
  const endedMs = performance.now() - started;
  assert.ok(endedMs < (await onThisMachine(1_000)), `${endedMs} ms`);
  const ringer = new DoorbellRinger(ownBell);
  for (let i = 0; i < 1_000; i += 1) ringer.ring();
});

test('[W7] a producer that finds its ring full is told so and uses under 5 % of a core', async (t) => {
  const ring = createRing(1_024);
  const task = {
    role: 'measure full',
    ring,
    bodyBytesMax: 40,
    sequence: 0,
    ownBell: createDoorbell(),
    measureMs: 1_500,
  } as const;
  const worker = startWorker(t, task);
  await messageOf(worker, 'up');
  const [figures] = (await once(worker, 'message')) as [{ cpuPercent: number; refused: number; written: number }];
  await worker.terminate();
  assert.ok(figures.written > 0 && figures.refused > 0);
  assert.ok(figures.refused < 100, `it tried ${figures.refused} times: it spins`);
  assert.ok(figures.cpuPercent < 5, `${figures.cpuPercent} % of a core`);
});

test('three parked threads together use under 1 % of a core', async (t) => {
  const module = new URL('../../src/shm/doorbell.ts', import.meta.url).href;
  const code = `const { parentPort } = require('node:worker_threads');
    import('${module}').then(({ createDoorbell, Doorbell }) => {
      void new Doorbell(createDoorbell()).run(() => 0, { stopped: false });
      parentPort.postMessage('up');
    });`;
  const workers = Array.from({ length: 3 }, () => new Worker(code, { eval: true }));
  t.after(() => Promise.all(workers.map((worker) => worker.terminate())));
  await Promise.all(workers.map((worker) => once(worker, 'message')));
  await new Promise((resolve) => setTimeout(resolve, 700));
  const before = process.cpuUsage();
  const started = performance.now();
  await new Promise((resolve) => setTimeout(resolve, 2_000));
  const { user, system } = process.cpuUsage(before);
  const cpuPercent = (user + system) / 10 / (performance.now() - started);
  assert.ok(cpuPercent < 1, `${cpuPercent} % of a core`);
});
