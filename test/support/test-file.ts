/** Runs one file of tests in a process group of its own, so that nothing it starts can outlive it unseen or hang the run. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as setTimeoutPromise } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import type { ReportedTest } from './reporter.ts';

export interface FileResult {
  readonly file: string;
  readonly tests: readonly ReportedTest[];
  /** What went wrong with the file as a whole; '' if nothing. */
  readonly problem: string;
  /** The end of what the tests printed. */
  readonly output: string;
  readonly durationMs: number;
}

export interface FileOptions {
  readonly root: string;
  readonly file: string;
  /** The whole group is killed after this time. */
  readonly timeoutMs: number;
  /** Runs only tests whose name matches; null for all. */
  readonly grep: string | null;
  /** Ids of groups that are running, for an interrupted run to kill. */
  readonly groups: Set<number>;
}

/** How much of a file's output is kept. */
const OUTPUT_BYTES_MAX = 32 * 1024;

export async function runTestFile(options: FileOptions): Promise<FileResult> {
  const folder = mkdtempSync(join(tmpdir(), 'broker-test-'));
  try {
    const eventsPath = join(folder, 'events');
    const began = performance.now();
    const end = await runGroup(options, commandLine(options, eventsPath));
    const durationMs = performance.now() - began;
    const events = readEvents(eventsPath);
    const tests = events.filter((event) => event.kind !== 'begun');
    const problem = problemOf(options, end, events, tests);
    return { file: options.file, tests, problem, output: end.output, durationMs };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function commandLine(options: FileOptions, eventsPath: string): string[] {
  const reporter = pathToFileURL(join(options.root, 'test/support/reporter.ts')).href;
  const pattern = options.grep === null ? [] : [`--test-name-pattern=${options.grep}`];
  return [`--test-reporter=${reporter}`, `--test-reporter-destination=${eventsPath}`, ...pattern, options.file];
}

interface GroupEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly isTimedOut: boolean;
  /** True if processes of the group were still alive after its leader had ended; they were killed. */
  readonly isLeaking: boolean;
  readonly output: string;
}

function runGroup(options: FileOptions, args: readonly string[]): Promise<GroupEnd> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, {
      cwd: options.root,
      // Where bin/broker.mjs keeps it too: without it each file strips the types of all that it imports again, a third of its time for most.
      env: { NODE_COMPILE_CACHE: join(options.root, 'node_modules', '.cache', 'compiled'), ...process.env },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const group = child.pid;
    if (group !== undefined) options.groups.add(group);
    let output = '';
    let isTimedOut = false;
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        output = (output + text).slice(-OUTPUT_BYTES_MAX);
      });
    }
    const timer = setTimeout(() => {
      isTimedOut = true;
      if (group !== undefined) killGroup(group);
    }, options.timeoutMs);
    child.on('error', reject);
    let isLeaking = false;
    const left = Promise.withResolvers<void>();
    child.on('exit', async () => {
      // A process that stays behind would hold the pipes open and `close` would never come.
      isLeaking = !isTimedOut && group !== undefined && (await isGroupAlive(group));
      if (isLeaking && group !== undefined) killGroup(group);
      left.resolve();
    });
    child.on('close', async (code, signal) => {
      clearTimeout(timer);
      await left.promise;
      if (group !== undefined) options.groups.delete(group);
      resolve({ code, signal, isTimedOut, isLeaking, output });
    });
  });
}

const LEAVE_TRIES = 20;

/** True if a process of the group is still there after a second: one that is just ending is given the time to. */
async function isGroupAlive(group: number): Promise<boolean> {
  for (let tries = 0; tries < LEAVE_TRIES; tries += 1) {
    if (!hasLivingProcess(group)) return false;
    await setTimeoutPromise(50);
  }
  return true;
}

/** Orphans that have ended stay as zombies where process 1 collects none (containers): they do not count. Without /proc nothing is known. */
function hasLivingProcess(group: number): boolean {
  if (process.platform !== 'linux') return false;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    // `pid (name) state parent group …`; the name may hold anything.
    const [state, , member] = statOf(entry);
    if (Number(member) === group && state !== 'Z' && state !== 'X') return true;
  }
  return false;
}

function statOf(pid: string): string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  } catch (error) {
    // The process ended between the listing and now.
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** Kills every process of a group. False if there was none. */
export function killGroup(group: number): boolean {
  try {
    process.kill(-group, 'SIGKILL');
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

function readEvents(path: string): ReportedTest[] {
  const lines = readFileSync(path, { encoding: 'utf8', flag: 'a+' }).split('\n');
  // The last line of a killed process may be cut short.
  return lines.slice(0, -1).map((line) => JSON.parse(line) as ReportedTest);
}

function problemOf(
  options: FileOptions,
  end: GroupEnd,
  events: readonly ReportedTest[],
  tests: readonly ReportedTest[],
): string {
  if (end.isTimedOut) {
    const open = new Set(events.filter((event) => event.kind === 'begun').map((event) => event.name));
    for (const test of tests) open.delete(test.name);
    const what = open.size === 0 ? 'all its tests had ended: something keeps the process alive' : [...open].join(', ');
    return `killed after ${options.timeoutMs / 1_000} s; not ended: ${what}`;
  }
  const isFailed = tests.some((test) => test.kind === 'failed');
  if (end.signal !== null) return `ended by ${end.signal}`;
  if (end.code !== 0 && !isFailed) return `ended with code ${end.code}`;
  if (end.isLeaking) return 'left processes running when it ended; they were killed';
  if (tests.length === 0 && options.grep === null) return 'has no test';
  return '';
}
