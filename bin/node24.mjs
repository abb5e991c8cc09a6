#!/usr/bin/env node
/**
 * Finds the Node that the broker needs and runs a script on it: `node bin/node24.mjs FILE.ts ARGUMENTS…`. bin/broker.mjs uses its
 * functions. Plain JavaScript that any Node from 18 on can run, because its work is to get away from a Node that is too old.
 *
 * The environment of the new process has UV_THREADPOOL_SIZE (libuv reads it once, before any script could set it) and the chosen Node's
 * folder in front of PATH, so that every `node` started further down is the same one.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The oldest Node that is good enough, as in `engines` of package.json (a test keeps them equal). */
export const NODE_VERSION_MIN = '24.21.0';

/** libuv threads for file system calls, DNS and compression of the whole process; its own default of 4 is too few for several shards. */
export const THREADPOOL_SIZE_DEFAULT = '8';

/** True if `version` (such as 24.21.0) is at least `minimum`. */
export function isVersionAtLeast(version, minimum) {
  const left = version.split('.').map((part) => Number.parseInt(part, 10));
  const right = minimum.split('.').map((part) => Number.parseInt(part, 10));
  for (let index = 0; index < right.length; index += 1) {
    if ((left[index] ?? 0) !== right[index]) return (left[index] ?? 0) > right[index];
  }
  return true;
}

/** The path of a Node that is new enough: the running one, else the one of the npm package for this platform, else null. */
export function findNode() {
  if (isVersionAtLeast(process.versions.node, NODE_VERSION_MIN)) return process.execPath;
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  try {
    const manifest = createRequire(import.meta.url).resolve(`node-${platform}-${process.arch}/package.json`);
    const { version } = JSON.parse(readFileSync(manifest, 'utf8'));
    const binary = join(dirname(manifest), 'bin', platform === 'win' ? 'node.exe' : 'node');
    return isVersionAtLeast(version, NODE_VERSION_MIN) && existsSync(binary) ? binary : null;
  } catch (error) {
    if (error.code === 'MODULE_NOT_FOUND') return null;
    throw error;
  }
}

/** The environment that a process of the broker is started with. */
export function launchEnvironment(node) {
  const folder = dirname(node);
  const path = (process.env.PATH ?? '').split(delimiter).filter((entry) => entry !== '' && entry !== folder);
  return {
    ...process.env,
    UV_THREADPOOL_SIZE: process.env.UV_THREADPOOL_SIZE || THREADPOOL_SIZE_DEFAULT,
    PATH: [folder, ...path].join(delimiter),
  };
}

/** True if this process already is what `launch` would start. */
export function isLaunched() {
  return isVersionAtLeast(process.versions.node, NODE_VERSION_MIN) && Boolean(process.env.UV_THREADPOOL_SIZE);
}

/** Runs Node on `args`, with the flags that this one was given, in place of this process (where the system and this Node can), else as its child, with whose end this process ends. */
export function launch(args) {
  const node = findNode();
  if (node === null) {
    process.stderr.write(
      `broker: needs Node >= ${NODE_VERSION_MIN}, this is ${process.versions.node}: install it, or run \`npm ci\` here, which brings one along\n`,
    );
    process.exitCode = 1;
    return;
  }
  const env = launchEnvironment(node);
  if (typeof process.execve === 'function' && process.platform !== 'win32') {
    process.execve(node, [node, ...process.execArgv, ...args], env);
  }
  follow(spawn(node, [...process.execArgv, ...args], { env, stdio: ['inherit', 'inherit', 'inherit', 'ipc'] }));
}

/** Passes signals on to the child, and its end to our caller. The IPC channel only tells the child that this process is gone. */
function follow(child) {
  const atTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT']) {
    // A terminal sends its signals to the whole foreground group: passed on as well, the child would see each of them twice.
    const isFromTerminal = atTerminal && signal !== 'SIGTERM';
    process.on(signal, () => isFromTerminal || child.kill(signal));
  }
  child.on('error', (error) => {
    process.stderr.write(`broker: cannot start ${child.spawnfile}: ${error.message}\n`);
    process.exitCode = 1;
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
    // Reached only if the signal is one that does not end this process: then its usual exit code says the same.
    setTimeout(() => process.exit(128 + (constants.signals[signal] ?? 0)), 100);
  });
}

/** In a process started by `follow`: stops in good order when the launcher was killed, instead of staying behind without anyone's knowledge. */
export function stopWithLauncher() {
  if (process.channel === undefined || process.channel === null) return;
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.channel.unref();
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  if (process.argv.length < 3) {
    process.stderr.write('usage: node bin/node24.mjs FILE [ARGUMENTS…]\n');
    process.exitCode = 2;
  } else {
    launch(process.argv.slice(2));
  }
}
