/** A pipe that is full and that nobody reads, as a log pipeline that hangs leaves it. */
import { execFileSync } from 'node:child_process';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { temporaryFolder } from './temporary.ts';

const FILLING = Buffer.alloc(4096, '\n');

export interface FullPipe {
  /** For the `stdio` of a child; its own, since libuv makes those of a child blocking, and Node what it writes to by `process.stdout` not. */
  readonly forChild: number;
  readonly path: string;
  /** Takes all out that is in it now. */
  read(): string;
}

export function fullPipe(context: TestContext): FullPipe {
  const path = join(temporaryFolder(context), 'pipe');
  execFileSync('mkfifo', [path]);
  // Open at both ends, so that it neither blocks for want of a reader nor ends.
  const descriptor = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const forChild = openSync(path, constants.O_WRONLY);
  context.after(() => {
    for (const end of [descriptor, forChild]) closeSync(end);
  });
  for (let size = FILLING.length; size > 0; ) {
    if (untilAgain(() => writeSync(descriptor, FILLING, 0, size)) === 0) size = Math.floor(size / 2);
  }
  const buffer = Buffer.alloc(1 << 20);
  return {
    forChild,
    path,
    read: () =>
      buffer.toString(
        'utf8',
        0,
        untilAgain(() => readSync(descriptor, buffer)),
      ),
  };
}

/** Bytes moved; 0 when the pipe is full, or empty. */
function untilAgain(move: () => number): number {
  try {
    return move();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    return 0;
  }
}
