/** What a promise of the product that has a time in it may take on the machine at hand, which other programs may keep busy. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** A machine with nothing else to do starts and ends an empty Node process in 40 ms: a second is 25 of them. */
const PROCESSES_A_SECOND = 25;

/** From the start of an empty Node process to its end, in ms. */
async function processMs(): Promise<number> {
  const began = performance.now();
  await once(spawn(process.execPath, ['-e', ''], { stdio: 'ignore' }), 'close');
  return performance.now() - began;
}

/** `ms`, or as much more as this machine is slower just now than one with nothing else to do. Ask right after what is to be judged. */
export async function onThisMachine(ms: number): Promise<number> {
  return Math.max(ms, (ms / 1_000) * PROCESSES_A_SECOND * (await processMs()));
}
