/** The servers that are measured, each a process of its own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { BrokerProcess, makeDataDirectory } from '../../test/support/broker.ts';

export interface Target {
  readonly name: string;
  readonly address: string;
  readonly pid: number;
  stop(): Promise<void>;
}

export interface BrokerTarget extends Target {
  readonly broker: BrokerProcess;
  /** When /readyz answered 200, in ms from the start. */
  readonly readyMs: number;
}

export interface BrokerTargetOptions {
  readonly shards: number | null;
  /** Writes a CPU profile of each thread to this folder when the broker stops. */
  readonly cpuProfileDir: string | null;
  /** Flags of `broker serve` beside the addresses and the data folder. */
  readonly flags: readonly string[];
}

export async function startBrokerTarget(options: BrokerTargetOptions): Promise<BrokerTarget> {
  const { shards, cpuProfileDir, flags } = options;
  const dataDir = makeDataDirectory('broker-perf-');
  const broker = await BrokerProcess.create({
    dataDir,
    flags: [...(shards === null ? [] : ['--shards', String(shards)]), ...flags],
    nodeFlags: cpuProfileDir === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${cpuProfileDir}`],
    readyTimeoutMs: 120_000,
  });
  const stop = async (): Promise<void> => {
    try {
      await broker.stop();
    } finally {
      rmSync(dataDir, { recursive: true, force: true });
    }
  };
  try {
    const readyMs = await broker.restart();
    return { name: 'broker', address: broker.address, pid: broker.pid, broker, readyMs, stop };
  } catch (error) {
    await broker.kill();
    rmSync(dataDir, { recursive: true, force: true });
    throw error;
  }
}

export interface EchoOptions {
  /** Size of what Fixed and Stream send. */
  readonly answerBytes: number;
  readonly streams?: number;
  /** Of lib/frame-file.ts: what Replay and Stream send. */
  readonly framesFile?: string;
  readonly cpuProfileDir?: string | null;
}

export async function startEcho(options: EchoOptions): Promise<Target> {
  const { answerBytes, streams = 20, framesFile, cpuProfileDir = null } = options;
  const script = fileURLToPath(new URL('../echo-server.ts', import.meta.url));
  const profile = cpuProfileDir === null ? [] : ['--cpu-prof', `--cpu-prof-dir=${cpuProfileDir}`];
  const child = spawn(
    process.execPath,
    [
      ...[...profile, script, '--answer-bytes', String(answerBytes), '--streams', String(streams)],
      ...(framesFile === undefined ? [] : ['--frames', framesFile]),
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const port = await listeningPort(child);
  return {
    name: 'bare echo',
    address: `127.0.0.1:${port}`,
    pid: child.pid as number,
    stop: () => stopChild(child),
  };
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

function listeningPort(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
      const match = /listening (\d+)\n/.exec(text);
      if (match !== null) resolve(Number(match[1]));
    });
    child.once('error', reject);
    child.once('exit', (code) => reject(new Error(`the echo server ended with code ${code} before it listened`)));
  });
}
