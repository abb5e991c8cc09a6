/** The other thread of the ring tests. One role a worker; see Task. */
import { parentPort, workerData } from 'node:worker_threads';
import { Prng } from '../../src/base/prng.ts';
import { Doorbell, DoorbellRinger } from '../../src/shm/doorbell.ts';
import { HEAD_INDEX, TAIL_INDEX } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RingProducer } from '../../src/shm/ring-producer.ts';
import { pauseFor, RecordReader, RecordWriter } from './checked-records.ts';
import { withoutInsurance } from './start-worker.ts';

export interface Death {
  /** A site of RecordWriter, 'handler', or 'before store' / 'after store' of the position in commit or drain. */
  readonly site: string;
  /** Which visit of the site, from 1. */
  readonly visit: number;
  /** `exit` ends the thread there at once; `terminate` says so and waits to be terminated. */
  readonly by: 'exit' | 'terminate';
}

export type Task = {
  readonly ring: SharedArrayBuffer;
  readonly bodyBytesMax: number;
  readonly sequence: number;
  readonly death?: Death;
} & (
  | { readonly role: 'write' | 'read'; readonly count: number }
  | {
      readonly role: 'stream';
      readonly count: number;
      readonly ownBell: SharedArrayBuffer;
      readonly peerBell: SharedArrayBuffer;
    }
  | { readonly role: 'read for ever'; readonly result: SharedArrayBuffer; readonly ownBell: SharedArrayBuffer }
  | {
      readonly role: 'echo';
      readonly back: SharedArrayBuffer;
      readonly ownBell: SharedArrayBuffer;
      readonly peerBell: SharedArrayBuffer;
    }
  | { readonly role: 'commit and die silently'; readonly delayMs: number }
  | { readonly role: 'measure full'; readonly ownBell: SharedArrayBuffer; readonly measureMs: number }
);

const task = workerData as Task;
const visits = new Map<string, number>();

function site(name: string): void {
  if (task.death?.site !== name) return;
  const visit = (visits.get(name) ?? 0) + 1;
  visits.set(name, visit);
  if (visit !== task.death.visit) return;
  if (task.death.by === 'exit') process.exit(0);
  parentPort?.postMessage('here');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20_000);
}

/** Puts sites around the stores of tail and head, which are out of reach from here otherwise. */
function watchStores(): void {
  const store = Atomics.store.bind(Atomics) as (array: Int32Array, index: number, value: number) => number;
  const watched = (array: Int32Array, index: number, value: number): number => {
    const isPosition = array.buffer === task.ring && (index === TAIL_INDEX || index === HEAD_INDEX);
    if (isPosition) site('before store');
    store(array, index, value);
    if (isPosition) site('after store');
    return value;
  };
  Object.defineProperty(Atomics, 'store', { value: watched });
}

function nowhere(): void {
  // No site is of interest.
}

async function stream(count: number, ownBell: SharedArrayBuffer, peerBell: SharedArrayBuffer): Promise<void> {
  const writer = new RecordWriter(new RingProducer(task.ring), task.bodyBytesMax, task.sequence);
  const ringer = new DoorbellRinger(peerBell);
  const signal = { stopped: false };
  let left = count;
  await new Doorbell(ownBell).run(() => {
    let done = 0;
    while (done < 64 && left > 0 && writer.tryWrite(nowhere)) {
      done += 1;
      left -= 1;
    }
    if (done > 0) ringer.ring();
    signal.stopped = left === 0;
    return done;
  }, signal);
}

async function echo(back: SharedArrayBuffer, ownBell: SharedArrayBuffer, peerBell: SharedArrayBuffer): Promise<void> {
  withoutInsurance();
  const consumer = new RingConsumer(task.ring);
  const producer = new RingProducer(back);
  const ringer = new DoorbellRinger(peerBell);
  const answer = (): void => {
    producer.claim(1, 8);
    producer.commit();
    ringer.ring();
  };
  const prng = new Prng(4);
  await new Doorbell(ownBell).run(
    () => {
      const count = consumer.drain(answer, 10);
      // Widens the gap between looking and going to sleep, in which a wake-up could be lost, to the length of a round trip.
      if (count === 0) pauseFor(prng.nextBelow(100));
      return count;
    },
    { stopped: false },
  );
}

async function readForEver(result: SharedArrayBuffer, ownBell: SharedArrayBuffer): Promise<void> {
  const reader = new RecordReader(new RingConsumer(task.ring), task.bodyBytesMax, task.sequence);
  const bad = new Int32Array(result);
  await new Doorbell(ownBell).run(
    () => {
      const count = reader.drain(16);
      Atomics.store(bad, 0, reader.bad);
      return count;
    },
    { stopped: false },
  );
}

async function measureFull(ownBell: SharedArrayBuffer, measureMs: number): Promise<void> {
  const writer = new RecordWriter(new RingProducer(task.ring), task.bodyBytesMax, task.sequence);
  const bell = new Doorbell(ownBell);
  let refused = 0;
  const running = bell.run(
    () => {
      if (writer.tryWrite(nowhere)) return 1;
      refused += 1;
      return 0;
    },
    { stopped: false },
  );
  await new Promise((resolve) => setTimeout(resolve, 300));
  const before = process.threadCpuUsage();
  const started = performance.now();
  await new Promise((resolve) => setTimeout(resolve, measureMs));
  const { user, system } = process.threadCpuUsage(before);
  const cpuPercent = (user + system) / 10 / (performance.now() - started);
  parentPort?.postMessage({ cpuPercent, refused, written: writer.sequence - task.sequence });
  await running;
}

function run(): Promise<void> | void {
  switch (task.role) {
    case 'write': {
      watchStores();
      const writer = new RecordWriter(new RingProducer(task.ring), task.bodyBytesMax, task.sequence);
      for (let i = 0; i < task.count; i += 1) writer.tryWrite(site);
      return;
    }
    case 'read': {
      watchStores();
      const reader = new RecordReader(new RingConsumer(task.ring), task.bodyBytesMax, task.sequence);
      const handler = (type: number, offset: number, length: number): void => {
        reader.read(type, offset, length);
        site('handler');
      };
      new RingConsumer(task.ring).drain(handler, task.count);
      return;
    }
    case 'stream':
      return stream(task.count, task.ownBell, task.peerBell);
    case 'read for ever':
      return readForEver(task.result, task.ownBell);
    case 'echo':
      return echo(task.back, task.ownBell, task.peerBell);
    case 'commit and die silently':
      setTimeout(() => {
        new RecordWriter(new RingProducer(task.ring), task.bodyBytesMax, task.sequence).tryWrite(nowhere);
        process.exit(0);
      }, task.delayMs);
      return;
    case 'measure full':
      return measureFull(task.ownBell, task.measureMs);
  }
}

parentPort?.postMessage('up');
await run();
