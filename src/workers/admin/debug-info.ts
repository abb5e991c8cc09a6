import { availableParallelism, freemem, loadavg, release, totalmem } from 'node:os';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { getHeapStatistics, type HeapInfo } from 'node:v8';
import type { Redactor } from '../../base/redactor.ts';
import { VERSION } from '../../base/version.ts';
import { inTime } from '../../base/within.ts';
import type { DebugPort } from '../../grpc/debug.ts';
import type { DebugInfoPart, DebugInfoRequest } from '../../grpc/gen/broker/v1/inspect.ts';
import type { RecentLines } from '../../telemetry/recent-lines.ts';
import { recordProfiles, type WorkerThread } from './cpu-profiles.ts';

/** A part of a file: well below what a client takes in one message. */
const PART_BYTES = 256 * 1024;
/** How long one file may take: a thread that hangs answers never, and that is worth knowing too. */
const FILE_MS_MAX = 5_000;
const THREAD_MS_MAX = 2_000;
/** Over which the load of the threads is measured. */
const LOAD_MS = 500;

export interface DebugInfoOptions {
  readonly log: Pick<RecentLines, 'text'>;
  readonly redactor: Redactor;
  /** As a scrape gets them. */
  readonly metrics: () => Promise<string>;
  readonly settings: () => readonly object[];
  /** All but the main one. */
  readonly threads: () => readonly WorkerThread[];
}

/** What only the process itself knows. Messages are not a part of it. */
export class DebugInfo implements DebugPort {
  readonly #options: DebugInfoOptions;
  #isProfiling = false;

  constructor(options: DebugInfoOptions) {
    this.#options = options;
  }

  async *parts({ cpuProfileMs }: DebugInfoRequest, signal: AbortSignal): AsyncGenerator<DebugInfoPart> {
    const { log, metrics, settings } = this.#options;
    const files: readonly (readonly [string, () => Promise<string>])[] = [
      ['process.json', async () => json(processInfo())],
      ['settings.json', async () => json(settings())],
      ['log.jsonl', async () => log.text()],
      ['metrics.txt', metrics],
      ['threads.json', async () => json(await this.#threads())],
    ];
    for (const [name, make] of files) {
      if (signal.aborted) return;
      yield* this.#file(name, make);
    }
    if (cpuProfileMs > 0) yield* this.#profiles(cpuProfileMs, signal);
  }

  async *#file(name: string, make: () => Promise<string>): AsyncGenerator<DebugInfoPart> {
    let content: string | Error;
    try {
      content = await inTime(make(), FILE_MS_MAX, name);
    } catch (error) {
      content = error instanceof Error ? error : new Error(String(error));
    }
    yield* this.#cut(name, content);
  }

  *#cut(name: string, content: string | Error): Generator<DebugInfoPart> {
    const { redactor } = this.#options;
    if (content instanceof Error) {
      yield { name: `${name}.missing`, content: Buffer.from(redactor.redact(content.message)) };
      return;
    }
    const bytes = Buffer.from(redactor.redact(content));
    // A file that is empty is there all the same.
    for (let start = 0; start === 0 || start < bytes.length; start += PART_BYTES) {
      yield { name, content: bytes.subarray(start, start + PART_BYTES) };
    }
  }

  async *#profiles(ms: number, signal: AbortSignal): AsyncGenerator<DebugInfoPart> {
    if (this.#isProfiling) {
      yield* this.#cut('profiles', new Error('another one is being recorded: ask again in a moment'));
      return;
    }
    this.#isProfiling = true;
    try {
      for (const { thread, content } of await recordProfiles(this.#options.threads(), ms, signal)) {
        yield* this.#cut(`profiles/${thread}.cpuprofile`, content);
      }
    } finally {
      this.#isProfiling = false;
    }
  }

  /** Busy: the share of time, 0 to 1, in which a thread's event loop did not wait. */
  async #threads(): Promise<readonly object[]> {
    const workers = this.#options.threads();
    const mainBefore = performance.eventLoopUtilization();
    const before = workers.map(({ worker }) => worker.performance.eventLoopUtilization());
    await sleep(LOAD_MS);
    const main = {
      thread: 'main',
      busy: performance.eventLoopUtilization(mainBefore).utilization,
      busy_since_start: performance.eventLoopUtilization().utilization,
      heap: getHeapStatistics(),
    };
    const others = workers.map(async ({ name, worker }, index) => {
      const { eventLoopUtilization } = worker.performance;
      const [heap, cpu] = await Promise.all([orWhyNot(worker.getHeapStatistics()), orWhyNot(worker.cpuUsage())]);
      return {
        thread: name,
        busy: eventLoopUtilization(before[index]).utilization,
        busy_since_start: eventLoopUtilization().utilization,
        heap,
        cpu_microseconds: cpu,
      };
    });
    return [main, ...(await Promise.all(others))];
  }
}

/** One thread that does not answer says nothing against the others. */
async function orWhyNot<T extends HeapInfo | NodeJS.CpuUsage>(answer: Promise<T>): Promise<T | string> {
  try {
    return await inTime(answer, THREAD_MS_MAX, 'the thread');
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function processInfo(): object {
  const resources: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
  return {
    broker: VERSION,
    versions: process.versions,
    platform: process.platform,
    kernel: release(),
    arch: process.arch,
    pid: process.pid,
    node_flags: process.execArgv,
    now: new Date().toISOString(),
    uptime_seconds: Math.round(process.uptime()),
    cores: availableParallelism(),
    load: loadavg(),
    memory: {
      ...process.memoryUsage(),
      machine_total: totalmem(),
      machine_free: freemem(),
      limit: process.constrainedMemory(),
      available: process.availableMemory(),
    },
    resource_usage: process.resourceUsage(),
    active_resources: resources,
  };
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
