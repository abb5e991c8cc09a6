/** Starts wal-child.ts, alone or under strace, and reads what it said. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { ChildOptions } from './wal-child.ts';

export interface Said {
  readonly lines: readonly string[];
  readonly acked: number;
  /** term -> candidate. */
  readonly votes: ReadonlyMap<number, string>;
  readonly errors: string;
  readonly exitCode: number | null;
  /** From the first line on stderr to the exit. */
  readonly dyingMs: number;
}

const CHILD = fileURLToPath(new URL('./wal-child.ts', import.meta.url));

export interface Running {
  readonly child: ChildProcess;
  /** Resolves when a line begins with `start`. */
  line(start: string): Promise<void>;
  /** Resolves when nothing was said for so long: the process stands at a failpoint. */
  quiet(ms: number): Promise<void>;
  /** What it said, up to the instant of a power cut if there was one: what came later is no promise (power-cut.ts). */
  finished(cutAt?: bigint): Promise<Said>;
}

/** `inject`: strace's -e inject=… expressions. */
export function startChild(options: ChildOptions, inject: readonly string[] = []): Running {
  const node = [process.execPath, '--no-warnings', CHILD, JSON.stringify(options)];
  const traced = ['strace', '-f', '-o', '/dev/null', ...inject.flatMap((one) => ['-e', `inject=${one}`])];
  const [program, ...args] = inject.length === 0 ? node : [...traced, ...node];
  const child = spawn(program as string, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    // strace counts calls per thread: one pool thread makes the n-th asynchronous sync the n-th.
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
  });
  return follow(child);
}

function follow(child: ChildProcess): Running {
  let output = '';
  let errors = '';
  let failedAt = 0;
  const waiting: { start: string; resolve: () => void }[] = [];
  child.stdout?.on('data', (data) => {
    output += String(data);
    for (const waiter of [...waiting]) {
      if (!output.split('\n').some((one) => one.startsWith(waiter.start))) continue;
      waiting.splice(waiting.indexOf(waiter), 1);
      waiter.resolve();
    }
  });
  child.stderr?.on('data', (data) => {
    if (failedAt === 0) failedAt = performance.now();
    errors += String(data);
  });
  const closed = once(child, 'close');
  return {
    child,
    line: async (start) => {
      if (output.split('\n').some((one) => one.startsWith(start))) return;
      const seen = new Promise<void>((resolve) => waiting.push({ start, resolve }));
      await Promise.race([
        seen,
        closed.then(() => Promise.reject(new Error(`the child ended before "${start}": ${errors}`))),
      ]);
    },
    quiet: async (ms) => {
      for (let seen = -1; seen !== output.length; ) {
        seen = output.length;
        await new Promise((resolve) => setTimeout(resolve, ms));
      }
    },
    finished: async (cutAt) => {
      await closed;
      return {
        ...summary(output, cutAt),
        errors,
        exitCode: child.exitCode,
        dyingMs: failedAt === 0 ? 0 : performance.now() - failedAt,
      };
    },
  };
}

function summary(output: string, cutAt?: bigint): Pick<Said, 'lines' | 'acked' | 'votes'> {
  const stamped = output.split('\n').flatMap((one) => {
    const match = /^(.*) @(\d+)$/.exec(one);
    return match === null ? [] : [{ line: match[1] as string, at: BigInt(match[2] as string) }];
  });
  const lines = stamped.filter(({ at }) => cutAt === undefined || at < cutAt).map(({ line }) => line);
  let acked = 0;
  const votes = new Map<number, string>();
  for (const one of lines) {
    const [word, first, second] = one.split(' ');
    if (word === 'ack') acked = Number(first);
    if (word === 'vote') votes.set(Number(first), second as string);
  }
  return { lines, acked, votes };
}
