/** What another process uses, from /proc (Linux). Elsewhere everything is 0 and says so in the report. */
import { readdirSync, readFileSync } from 'node:fs';

/** Clock ticks of /proc/PID/stat a second: fixed in the kernel's interface (USER_HZ). */
const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4_096;

export interface ThreadSample {
  readonly id: number;
  readonly name: string;
  readonly cpuSeconds: number;
}

export interface ProcessSample {
  readonly atSeconds: number;
  readonly pid: number;
  readonly threads: readonly ThreadSample[];
  /** Of all threads, ended ones too. */
  readonly cpuSeconds: number;
  readonly rssBytes: number;
  /** Highest RSS so far. */
  readonly peakRssBytes: number;
}

export interface ServerCost {
  /** CPU microseconds of the server's main thread, and of all its threads, for each call. */
  readonly mainMicrosPerCall: number;
  readonly totalMicrosPerCall: number;
  /** Cores in use, 1 = one core all the time. */
  readonly mainCores: number;
  readonly totalCores: number;
  readonly rssBytes: number;
}

export function sampleProcess(pid: number): ProcessSample {
  const atSeconds = performance.now() / 1_000;
  if (process.platform !== 'linux') {
    return { atSeconds, pid, threads: [], cpuSeconds: 0, rssBytes: 0, peakRssBytes: 0 };
  }
  const threads = readdirSync(`/proc/${pid}/task`).flatMap((id): ThreadSample[] => {
    const stat = readIfThere(`/proc/${pid}/task/${id}/stat`);
    return stat === null ? [] : [{ id: Number(id), ...readStat(stat) }];
  });
  const whole = readStat(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  const pages = Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);
  const peak = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return {
    atSeconds,
    pid,
    threads,
    cpuSeconds: whole.cpuSeconds,
    rssBytes: pages * PAGE_BYTES,
    peakRssBytes: Number(peak?.[1] ?? 0) * 1_024,
  };
}

/** Threads come and go between listing and reading. */
function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** The name stands in brackets and may hold anything; utime and stime are the 14th and 15th field. */
function readStat(stat: string): { name: string; cpuSeconds: number } {
  const close = stat.lastIndexOf(')');
  const fields = stat.slice(close + 2).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]);
  return { name: stat.slice(stat.indexOf('(') + 1, close), cpuSeconds: ticks / TICKS_PER_SECOND };
}

export function costBetween(before: ProcessSample, after: ProcessSample, calls: number): ServerCost {
  const seconds = Math.max(1e-9, after.atSeconds - before.atSeconds);
  const main = mainCpu(after) - mainCpu(before);
  const total = after.cpuSeconds - before.cpuSeconds;
  return {
    mainMicrosPerCall: calls === 0 ? 0 : (main * 1e6) / calls,
    totalMicrosPerCall: calls === 0 ? 0 : (total * 1e6) / calls,
    mainCores: main / seconds,
    totalCores: total / seconds,
    rssBytes: after.rssBytes,
  };
}

function mainCpu(sample: ProcessSample): number {
  return sample.threads.find((thread) => thread.id === sample.pid)?.cpuSeconds ?? 0;
}

/** CPU and memory over time. */
export interface ProcessTrace {
  readonly stepMs: number;
  readonly cores: readonly number[];
  readonly rssMiB: readonly number[];
}

/** Samples a process every `stepMs` between `start` and `stop`. */
export class ProcessWatch {
  readonly #pid: number;
  readonly #stepMs: number;
  readonly #cores: number[] = [];
  readonly #rss: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #last: ProcessSample | null = null;

  constructor(pid: number, stepMs: number) {
    this.#pid = pid;
    this.#stepMs = stepMs;
  }

  start(): void {
    this.#last = sampleProcess(this.#pid);
    this.#timer = setInterval(() => this.#sample(), this.#stepMs);
  }

  stop(): ProcessTrace {
    clearInterval(this.#timer);
    return { stepMs: this.#stepMs, cores: this.#cores, rssMiB: this.#rss };
  }

  #sample(): void {
    const now = sampleProcess(this.#pid);
    const before = this.#last ?? now;
    const seconds = Math.max(1e-9, now.atSeconds - before.atSeconds);
    this.#cores.push((now.cpuSeconds - before.cpuSeconds) / seconds);
    this.#rss.push(now.rssBytes / 2 ** 20);
    this.#last = now;
  }
}

/** CPU of each thread between two samples, in percent of one core. */
export function threadPercentages(
  before: ProcessSample,
  after: ProcessSample,
): { id: number; name: string; percent: number }[] {
  const seconds = after.atSeconds - before.atSeconds;
  return after.threads.map(({ id, name, cpuSeconds }) => {
    const earlier = before.threads.find((thread) => thread.id === id)?.cpuSeconds ?? 0;
    return { id, name: id === after.pid ? 'main' : name, percent: ((cpuSeconds - earlier) / seconds) * 100 };
  });
}
