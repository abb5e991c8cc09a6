import { Session } from 'node:inspector/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { inTime } from '../../base/within.ts';

/** The longest that a profile may take, in ms: it slows the threads down a little, and grows. */
export const PROFILE_MS_MAX = 30_000;

/** How long a thread may take to begin and to hand over what it has. */
const ANSWER_MS_MAX = 5_000;

export interface WorkerThread {
  readonly name: string;
  readonly worker: Worker;
}

export interface Profile {
  readonly thread: string;
  /** As browsers and `node --cpu-prof` have it (.cpuprofile); an error for a thread of which there is none. */
  readonly content: string | Error;
}

/** Where this thread, which must be the main one, and the given ones spend the next `ms`. */
export async function recordProfiles(
  threads: readonly WorkerThread[],
  ms: number,
  signal: AbortSignal,
): Promise<readonly Profile[]> {
  // What nobody waits for any more still ends in good order.
  const over = sleep(Math.min(ms, PROFILE_MS_MAX), undefined, { signal }).catch(() => undefined);
  return await Promise.all([
    profileOf('main', () => recordMain(over)),
    ...threads.map(({ name, worker }) => profileOf(name, () => recordWorker(worker, over))),
  ]);
}

async function profileOf(thread: string, record: () => Promise<string>): Promise<Profile> {
  try {
    return { thread, content: await record() };
  } catch (error) {
    return { thread, content: error instanceof Error ? error : new Error(String(error)) };
  }
}

async function recordMain(over: Promise<void>): Promise<string> {
  const session = new Session();
  session.connect();
  try {
    await session.post('Profiler.enable');
    await session.post('Profiler.start');
    await over;
    const { profile } = await session.post('Profiler.stop');
    return JSON.stringify(profile);
  } finally {
    session.disconnect();
  }
}

/** A thread that hangs neither starts one nor ends it. */
async function recordWorker(worker: Worker, over: Promise<void>): Promise<string> {
  const started = worker.startCpuProfile();
  try {
    const handle = await inTime(started, ANSWER_MS_MAX, 'the thread');
    await over;
    return await inTime(handle.stop(), ANSWER_MS_MAX, 'the thread');
  } catch (error) {
    // If it comes back one day, it is not left recording.
    started.then((handle) => handle.stop()).catch(() => 'the thread is gone, or has stopped it');
    throw error;
  }
}
