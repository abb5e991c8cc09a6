/** Starts embedded-child.ts, alone or under strace, and reads what it said. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { NodeDisk } from '../../src/storage/disk.ts';
import { EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { type SealReport, sealLanes } from '../../src/storage/embedded/seal-lanes.ts';
import { readAll } from '../contract/message-store.ts';
import { type ChildOptions, SUBJECT } from './embedded-child.ts';

const CHILD = fileURLToPath(new URL('./embedded-child.ts', import.meta.url));

export interface Said {
  readonly lines: readonly string[];
  readonly acked: readonly number[];
  /** Of these, what was said before an instant of process.hrtime (PowerCutDisk.cut). */
  ackedBefore(time: bigint): number[];
  readonly errors: string;
  readonly exitCode: number | null;
  /** From the first line on stderr to the exit, ms. */
  readonly dyingMs: number;
}

export interface Running {
  readonly child: ChildProcess;
  /** Resolves when a line begins with `start`. */
  line(start: string): Promise<void>;
  finished(): Promise<Said>;
}

/** `inject`: strace's -e inject=… expressions, on paths below `options.dir` only. */
export function startChild(options: ChildOptions, inject: readonly string[] = []): Running {
  const node = [process.execPath, '--no-warnings', CHILD, JSON.stringify(options)];
  const segment = join(options.dir, 'lane-000', '00000001.seg');
  const traced = [
    'strace',
    '-f',
    '-o',
    '/dev/null',
    '-P',
    segment,
    ...inject.flatMap((one) => ['-e', `inject=${one}`]),
  ];
  const [program, ...args] = inject.length === 0 ? node : [...traced, ...node];
  // strace counts calls per thread: one pool thread makes the n-th asynchronous sync the n-th.
  const env = { ...process.env, UV_THREADPOOL_SIZE: '1' };
  return follow(spawn(program as string, args, { stdio: ['ignore', 'pipe', 'pipe'], env }));
}

function follow(child: ChildProcess): Running {
  let out = '';
  let errors = '';
  let dyingSince = 0;
  const waiting: { start: string; resolve: () => void }[] = [];
  const lines = (): string[] => out.split('\n').filter((line) => line !== '');
  child.stdout?.on('data', (chunk: Buffer) => {
    out += chunk.toString();
    for (const wait of waiting) if (lines().some((line) => line.startsWith(wait.start))) wait.resolve();
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    if (errors === '') dyingSince = performance.now();
    errors += chunk.toString();
  });
  const closed = once(child, 'close');
  return {
    child,
    line: (start) =>
      new Promise((resolve, reject) => {
        if (lines().some((line) => line.startsWith(start))) resolve();
        waiting.push({ start, resolve });
        closed.then(() => reject(new Error(`the child ended before it said "${start}": ${out} ${errors}`)), reject);
      }),
    async finished() {
      const [exitCode] = (await closed) as [number | null];
      const dyingMs = dyingSince === 0 ? 0 : performance.now() - dyingSince;
      const acks = lines().flatMap((line) => (line.startsWith('ack ') ? [line.split(' ')] : []));
      const acked = acks.map((ack) => Number(ack[1]));
      const ackedBefore = (time: bigint): number[] =>
        acks.filter((ack) => BigInt(ack[2] ?? 0) < time).map((ack) => Number(ack[1]));
      return { lines: lines(), acked, ackedBefore, errors, exitCode, dyingMs };
    },
  };
}

/** What a new process finds: kind and first id of everything readable, and the report of the start. */
export async function found(
  dir: string,
): Promise<{ items: string[]; report: SealReport; bodies: Map<number, string> }> {
  const disk = new NodeDisk();
  const report = sealLanes(disk, dir);
  const store = new EmbeddedStore({
    directory: dir,
    lane: 0,
    ownsSlot: () => true,
    segmentBytes: 1024 * 1024,
    lowSpaceBytes: 0,
    cacheBytes: 0,
    onFatal: () => undefined,
    disk,
  });
  const all = await readAll(store, SUBJECT);
  await store.close();
  const bodies = new Map(
    all.flatMap(({ from, bodies: [body] = [] }) => (body === undefined ? [] : [[from, body] as const])),
  );
  return { items: all.map(({ kind, from }) => `${kind} ${from}`), report, bodies };
}
