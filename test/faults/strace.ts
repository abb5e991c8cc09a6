/** Brokers whose system calls strace answers, and what it wrote down. Needs requireTool(t, 'strace'). */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Every call on this list is a sync of the broker: fdatasync for files, fsync for directories. */
const SYNCS = 'fdatasync,fsync';

/**
 * With one thread for asynchronous file calls: strace counts `when=N` for each thread, so there are two counts only beside that of the
 * start, the Raft thread's and that of the segments.
 */
export const ONE_FILE_THREAD = { UV_THREADPOOL_SIZE: '1' } as const;

export interface SyncCall {
  /** Epoch ms at which the call began. */
  readonly at: number;
  readonly injected: boolean;
}

export class Strace implements Disposable {
  readonly #folder = mkdtempSync(join(tmpdir(), 'strace-'));

  /** What to start the broker under; with `onlyPath` calls on other files are left alone. -D: strace is the grandchild, so the pid and the exit code are the broker's own. */
  under(inject: string, onlyPath?: string): string[] {
    const output = ['-q', '-ttt', '-o', join(this.#folder, 'calls')];
    const path = onlyPath === undefined ? [] : ['-P', onlyPath];
    return [
      'strace',
      '-D',
      '-f',
      '--seccomp-bpf',
      ...output,
      ...path,
      '-e',
      `trace=${SYNCS},${inject.slice(0, inject.indexOf(':'))}`,
      '-e',
      `inject=${inject}`,
    ];
  }

  get #lines(): string[] {
    return readFileSync(join(this.#folder, 'calls'), 'utf8').split('\n');
  }

  /** The calls so far that came back, in that order. */
  syncs(): SyncCall[] {
    /** By thread: when the call began that another thread's line has cut in two. */
    const begun = new Map<string, number>();
    const calls: SyncCall[] = [];
    for (const line of this.#lines) {
      if (!/f(data)?sync(\(| resumed)/.test(line)) continue;
      const thread = line.slice(0, line.indexOf(' '));
      if (line.includes('<unfinished')) {
        begun.set(thread, timeOf(line));
        continue;
      }
      const at = line.includes(' resumed') ? (begun.get(thread) ?? timeOf(line)) : timeOf(line);
      calls.push({ at, injected: line.includes('(INJECTED)') });
    }
    return calls;
  }

  /** Epoch ms at which the first call came back that was made to fail; 0 if none was. */
  injectedAt(): number {
    return (
      Math.min(...this.#lines.filter((line) => line.includes('(INJECTED)')).map(timeOf), Number.MAX_VALUE) %
      Number.MAX_VALUE
    );
  }

  /** Epoch ms at which the last thread had gone; 0 if none has. */
  exitedAt(): number {
    return Math.max(0, ...this.#lines.filter((line) => /\+\+\+ (exited|killed)/.test(line)).map(timeOf));
  }

  [Symbol.dispose](): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function timeOf(line: string): number {
  return Number(/^\d+ +([\d.]+) /.exec(line)?.[1] ?? 0) * 1_000;
}
