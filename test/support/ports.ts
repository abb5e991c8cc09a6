/** Ports that nothing listens on, outside the range from which the kernel takes the local ports of outgoing connections. */
import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * A port below Linux' ephemeral range (32768-60999). From inside that range a client that keeps reconnecting to a killed server can be
 * given the server's own port as its local one; it then talks to itself, and the server cannot come back.
 */
const LOWEST = 12_100;
const HIGHEST = 32_700;

export async function freePorts(count: number): Promise<number[]> {
  const found = new Set<number>();
  for (let attempt = 0; found.size < count; attempt += 1) {
    if (attempt > 1_000) throw new Error('no free ports found');
    const port = randomInt(LOWEST, HIGHEST);
    if (await isFree(port)) found.add(port);
  }
  return [...found];
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}
