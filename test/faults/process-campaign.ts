/** What the process cannot live without dies: the Raft thread, the main thread, the process itself. It ends at once, says why where it can, and loses nothing. */
import type { Exit } from '../support/broker.ts';
import { onThisMachine } from '../support/yardstick.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { FaultRig, within } from './rig.ts';

export interface ProcessDeath {
  readonly name: string;
  readonly env: Readonly<Record<string, string>>;
  /** Sent when the load runs; null: it comes by itself. */
  readonly signal: NodeJS.Signals | null;
  readonly exit: Exit;
  /** What the broker says in its log; null where it cannot say anything. */
  readonly reason: RegExp | null;
}

const DIED: Exit = { code: 70, signal: null };
/** What was to be written next may find out first that something is missing. */
const FAILED = /^raft_thread_(failed|error)$/;

function raft(name: string, failpoints: string, reason: RegExp): ProcessDeath {
  return {
    name: `the Raft thread by ${name}`,
    env: { BROKER_FAILPOINTS: failpoints },
    signal: null,
    exit: DIED,
    reason,
  };
}

/** `does`: JavaScript that the main thread runs when it is sent a signal that the broker itself does not use. */
function main(name: string, does: string, exit: Exit, reason: RegExp | null): ProcessDeath {
  const code = `import { isMainThread } from 'node:worker_threads'; if (isMainThread) process.on('SIGUSR2', () => { ${does} });`;
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(code)}` };
  return { name: `the main thread by ${name}`, env, signal: 'SIGUSR2', exit, reason };
}

export const PROCESS_DEATHS: readonly ProcessDeath[] = [
  raft('an exception behind a sync', 'raft.after-sync=throw@60', FAILED),
  raft('process.exit', 'raft.after-apply=exit@60', /^raft_thread_exit$/),
  raft('an exception before an append', 'raft.before-append=throw@60', FAILED),
  raft('an exhausted heap', 'raft.after-apply=oom@60', /^raft_thread_error$/),
  main('an exception', "throw new Error('a defect');", DIED, /^main_thread_failed$/),
  main(
    'an exhausted heap',
    'for (const kept = []; ; ) kept.push(new Array(1 << 14).fill(kept.length));',
    { code: null, signal: 'SIGABRT' },
    null,
  ),
  main('process.exit', 'process.exit(99);', { code: 99, signal: null }, null),
  {
    name: 'the process by a native crash',
    env: {},
    signal: 'SIGSEGV',
    exit: { code: null, signal: 'SIGSEGV' },
    reason: null,
  },
];

/** Keeps the heap that has to be filled small. */
const HEAP_FLAGS = ['--max-old-space-size=96'];
/** Only ends a wait for a process that stays. */
const EXIT_MS_MAX = 40_000;
/** On one folder: reading back costs what was written. */
const DEATHS_A_FOLDER = 10;
/** No zombie for longer than this: from the last acknowledgement to the end of the process. */
const DYING_MS = 1_000;
const ACKED_BEFORE = 20;

export interface ProcessDeaths {
  readonly deaths: number;
  /** From the last acknowledgement to the end of the process, of each death, in ms. */
  readonly dyingMs: readonly number[];
  readonly acked: number;
  readonly violations: readonly string[];
}

/** That many deaths on one folder, each under load; then everything is read back. */
export async function processDeaths(death: ProcessDeath, deaths: number, seed: number): Promise<ProcessDeaths> {
  await using rig = await FaultRig.create({ nodeFlags: HEAP_FLAGS }, seed);
  const violations: string[] = [];
  const dyingMs: number[] = [];
  for (let i = 0; i < deaths; i++) {
    await rig.broker.restart({ env: death.env });
    rig.startLoad();
    if (death.signal !== null) {
      await rig.loaded(ACKED_BEFORE);
      process.kill(rig.broker.pid, death.signal);
    }
    const exit = await within(rig.broker.exited, EXIT_MS_MAX);
    const ms = Date.now() - rig.load.lastAckAt;
    dyingMs.push(ms);
    const isSlow = ms > (await onThisMachine(DYING_MS));
    if (isSlow) violations.push(`${Math.round(ms)} ms from the last acknowledgement to the end`);
    const said = rig.lines.findLast(({ message }) => message === 'the broker cannot go on')?.reason ?? null;
    const isAsExpected =
      exit?.code === death.exit.code &&
      exit.signal === death.exit.signal &&
      (death.reason === null ? said === null : death.reason.test(said ?? ''));
    if (!isAsExpected) {
      violations.push(`death ${i + 1} ended with ${JSON.stringify(exit)} and said ${said}\n${rig.broker.logs}`);
    }
    await rig.load.stop();
    if (violations.length > 0) break;
  }
  await rig.broker.restart({ env: { BROKER_FAILPOINTS: '', NODE_OPTIONS: '' } });
  const { violations: found, counts } = await rig.judge();
  violations.push(...found.map(({ rule, subject, id, detail }) => `${rule}: ${subject} id ${id}: ${detail}`));
  return { deaths: dyingMs.length, dyingMs, acked: counts.acked, violations };
}

export async function runProcessCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const rows = [];
  const violations: string[] = [];
  const each = Math.ceil(runs / PROCESS_DEATHS.length);
  let done = 0;
  for (const death of PROCESS_DEATHS) {
    let acked = 0;
    const dyingMs: number[] = [];
    while (dyingMs.length < each && violations.length === 0) {
      onProgress(done, runs, death.name);
      const result = await processDeaths(death, Math.min(DEATHS_A_FOLDER, each - dyingMs.length), seed + done);
      done += result.deaths;
      acked += result.acked;
      dyingMs.push(...result.dyingMs);
      violations.push(...result.violations.map((violation) => `${death.name}: ${violation}`));
    }
    rows.push({
      dies: death.name,
      deaths: dyingMs.length,
      acked,
      'to its end, ms at most': Math.round(Math.max(0, ...dyingMs)),
    });
  }
  return { rows, violations, notes: [] };
}

export const processes: Campaign = {
  name: 'processes',
  about:
    'the Raft thread, the main thread and the process die by exceptions, exits, exhausted heaps and a crash, under load',
  defaultRuns: 400,
  run: runProcessCampaign,
};
