/**
 * Run while the image is made: starts a broker, asks for its health, and stops it, so that what Node compiles of them on the way is kept in the
 * folder that NODE_COMPILE_CACHE names. A probe then takes half the processor time, and it is made every ten seconds for ever.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, globSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const TRIES = 200;

/** The machine's network may be this one's, with another broker at the usual ports. */
async function freeAddress() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return `127.0.0.1:${port}`;
}

const [grpc, admin] = [await freeAddress(), await freeAddress()];
const ports = ['--grpc-listen', grpc, '--admin-listen', admin];
const broker = spawn('broker', ['serve', '--data-dir', '/tmp/data', '--log-level', 'error', ...ports], {
  stdio: 'inherit',
});
const ended = once(broker, 'exit');
let isHealthy = false;
for (let tries = 0; tries < TRIES && !isHealthy && broker.exitCode === null; tries += 1) {
  await sleep(50);
  isHealthy = spawnSync('broker', ['health', '--address', grpc]).status === 0;
}
broker.kill('SIGTERM');
const [code] = await ended;
if (!isHealthy || code !== 0) throw new Error(`healthy: ${isHealthy}, exit code: ${code}`);

// It becomes root's, so that the broker cannot change its own code, and has to be read.
const { NODE_COMPILE_CACHE: folder } = process.env;
for (const path of [folder, ...globSync(`${folder}/**`)]) chmodSync(path, statSync(path).isDirectory() ? 0o755 : 0o644);
