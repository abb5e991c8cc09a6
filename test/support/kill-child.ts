import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

/** kill -9 of a child, if there is one that still runs; resolves when it has ended. */
export async function killChild(child: ChildProcess | null): Promise<void> {
  if (child === null || child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
