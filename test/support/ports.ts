/** Ports that nothing listens on, outside the range from which the kernel takes the local ports of outgoing connections. */
import { randomInt } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * A port below Linux' ephemeral range (32768-60999). From inside that range a client that keeps reconnecting to a killed server can be
 * given the server's own port as its local one; it then talks to itself, and the server cannot come back.
 */
const LOWEST = 12_100;
const HIGHEST = 32_700;
/** A file for each port that a process of this user was given: the port is bound later, and is free again while its server is down. */
const CLAIMS = join(tmpdir(), `broker-test-ports-${process.getuid?.() ?? 0}`);

const claimed: string[] = [];
process.on('exit', () => {
  for (const path of claimed) rmSync(path, { force: true });
});

/** Nobody else is given them as long as this process lives. */
export async function freePorts(count: number): Promise<number[]> {
  const found = new Set<number>();
  for (let attempt = 0; found.size < count; attempt += 1) {
    if (attempt > 1_000) throw new Error('no free ports found');
    const port = randomInt(LOWEST, HIGHEST);
    if (claim(port) && (await isFree(port))) found.add(port);
  }
  return [...found];
}

function claim(port: number): boolean {
  const path = join(CLAIMS, String(port));
  mkdirSync(CLAIMS, { recursive: true });
  try {
    writeFileSync(path, String(process.pid), { flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    removeIfLeft(path);
    return false;
  }
  claimed.push(path);
  return true;
}

/** By a process that was killed. */
function removeIfLeft(path: string): void {
  try {
    process.kill(Number(readFileSync(path, 'utf8')), 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') rmSync(path, { force: true });
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
