/** `npm run faults -- io-errors…`: every call that writes, makes or syncs something fails once, the n-th of each kind on each kind of file. */
import { Prng } from '../../src/base/prng.ts';
import { isUsable } from '../support/tools.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { resultOf, Tally } from './damage-runs.ts';
import type { IoCall, IoError, IoFault } from './failing-calls.ts';
import { FAILING_CALLS, failOne } from './io-error-brokers.ts';
import { ioRun } from './io-error-files.ts';

/** The first calls of each kind on each kind of file. */
export const CALLS_MAX = 50;

/** Every fault that the workload can meet. */
export async function ioFaults(): Promise<IoFault[]> {
  const { counts, violations } = await ioRun(null);
  if (violations.length > 0) throw new Error(`without any fault: ${violations.join('; ')}`);
  return [...counts].flatMap(([key, count]) => {
    const [call, file] = key.split(' of ') as [IoCall, string];
    const errors: IoError[] = call === 'write' ? ['EIO', 'ENOSPC', 'short'] : ['EIO', 'ENOSPC'];
    return errors.flatMap((error) =>
      Array.from({ length: Math.min(count, CALLS_MAX) }, (_, i) => ({ call, file, error, number: i + 1 })),
    );
  });
}

async function inProcess({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const faults = shuffled(await ioFaults(), seed).slice(first, first + runs);
  const tally = new Tally();
  for (const [done, fault] of faults.entries()) {
    onProgress(done, faults.length, `${fault.error} of ${fault.call} ${fault.number} of ${fault.file}`);
    const { ending, violations } = await ioRun(fault);
    tally.add(`${fault.file}: ${fault.call}, ${fault.error}`, ending);
    tally.violations.push(...violations.map((one) => `${JSON.stringify(fault)}: ${one}`));
  }
  return resultOf(tally, ['ended', 'refused', 'told', 'went on', 'not reached']);
}

async function brokers({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  if (!isUsable('strace')) return { rows: [], violations: ['strace cannot be used here'], notes: [] };
  const errors = ['EIO', 'ENOSPC'] as const;
  const numbers = Array.from({ length: CALLS_MAX }, (_, i) => i + 1);
  const all = FAILING_CALLS.flatMap((what) =>
    errors.flatMap((error) => numbers.map((number) => ({ what, error, number }))),
  );
  const chosen = shuffled(all, seed);
  /** Of a file that is written a few times only: from here on the call is not made. */
  const reached = new Map<string, number>();
  const tally = new Tally();
  let done = 0;
  for (const { what, error, number } of chosen.slice(first)) {
    const key = `${what.file}: ${what.call}`;
    if (number >= (reached.get(key) ?? Number.POSITIVE_INFINITY)) continue;
    if (done >= runs) break;
    onProgress(
      done,
      runs,
      `${error} of ${what.call} ${number} of the ${what.file}; ${tally.violations.length} violations`,
    );
    const { ending, violations } = await failOne(what, error, number);
    if (ending === 'not reached') reached.set(key, number);
    else done += 1;
    tally.add(`${key}, ${error}`, ending);
    tally.violations.push(...violations.map((one) => `${error} of ${what.call} ${number} of ${what.path}: ${one}`));
  }
  return resultOf(tally, ['ended', 'refused', 'went on', 'not reached']);
}

function shuffled<T>(items: readonly T[], seed: number): T[] {
  const prng = new Prng(seed);
  const left = [...items];
  const order: T[] = [];
  while (left.length > 0) order.push(...left.splice(prng.nextBelow(left.length), 1));
  return order;
}

export const IO_ERRORS: readonly Campaign[] = [
  {
    name: 'io-errors-files',
    about:
      'EIO, ENOSPC or a short write at one of the first 50 calls of each kind on each kind of file, in this process',
    defaultRuns: 10_000,
    goesOn: true,
    run: inProcess,
  },
  {
    name: 'io-errors',
    about: 'the same with real brokers, by strace',
    defaultRuns: 300,
    goesOn: true,
    run: brokers,
  },
];
