/** What every peer is to the harness: a real server of another project on loopback, and the load tool that its own people use. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { costBetween, type ServerCost, sampleProcess } from '../lib/process.ts';

/** Where `--install` puts what is downloaded or built. */
export const CACHE = fileURLToPath(new URL('../../.cache/peers', import.meta.url));

export interface PeerLoad {
  readonly bodyBytes: number;
  readonly messages: number;
}

export interface PeerResult {
  readonly messagesPerSecond: number;
  /** Of one acknowledgement, where the peer's tool tells it. */
  readonly p99Ms: number | null;
  /** Of the server, for each message. */
  readonly cost: ServerCost;
}

export interface RunningPeer {
  readonly pid: number;
  publish(load: PeerLoad): Promise<PeerResult>;
  /** At this rate, for a latency that is not the queue of the client; null where the tool cannot. */
  publishAt(load: PeerLoad, messagesPerSecond: number): Promise<PeerResult | null>;
  /** Reads back what was published, from the first message; null where the tool cannot. */
  read(load: PeerLoad): Promise<PeerResult | null>;
  stop(): Promise<void>;
}

export interface PeerGoal {
  readonly must: number;
  readonly aim: number;
}

export interface Peer {
  readonly name: string;
  /** How durable an acknowledged message is, and with what load. */
  readonly setting: string;
  /** Times its rate that must be reached and should be, from the table of goals; none: it has no row there. */
  readonly goal?: PeerGoal;
  /** The same of reading, and of the p99 of an acknowledgement at full speed. */
  readonly readGoal?: PeerGoal;
  readonly p99Goal?: PeerGoal;
  /** Its version, or null if it is not installed. */
  version(): string | null;
  /** Commands of the ordinary package clients. */
  install(): void;
  start(): Promise<RunningPeer>;
}

export function inCache(...parts: readonly string[]): string {
  return join(CACHE, ...parts);
}

/** Output of a program, or null if it is not there or fails. */
export function outputOf(command: string, args: readonly string[]): string | null {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return result.status === 0 ? `${result.stdout}${result.stderr}`.trim() : null;
}

/** Its output goes to stderr: stdout is for the report. Throws if it fails. */
export function must(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): void {
  process.stderr.write(`$ ${[command, ...args].join(' ')}\n`);
  const result = spawnSync(command, args, { stdio: ['ignore', 2, 'inherit'], env: { ...process.env, ...env } });
  if (result.error !== undefined) throw result.error;
  if (result.status !== 0) throw new Error(`${command} ended with code ${result.status}`);
}

/** Runs a load tool to its end; what it wrote, and what the server used meanwhile. */
export async function runTool(
  pid: number,
  command: string,
  args: readonly string[],
): Promise<{ readonly output: string; readonly costOf: (messages: number) => ServerCost }> {
  const before = sampleProcess(pid);
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== 0) throw new Error(`${command} ended with code ${code}: ${output.slice(-2_000)}`);
  const after = sampleProcess(pid);
  return { output, costOf: (messages) => costBetween(before, after, messages) };
}

/** The number that the pattern's first group finds last, without the commas of thousands. */
export function lastNumber(output: string, pattern: RegExp): number {
  const match = [...output.matchAll(pattern)].at(-1)?.[1];
  if (match === undefined) throw new Error(`${pattern} is not in the tool's output: ${output.slice(-2_000)}`);
  return Number(match.replaceAll(',', ''));
}

/** Resolves when a connection is taken; rejects after `timeoutMs`, or when the server ends first. */
export async function untilListening(child: ChildProcess, port: number, timeoutMs: number): Promise<void> {
  for (const deadline = performance.now() + timeoutMs; performance.now() < deadline; ) {
    if (child.exitCode !== null) throw new Error(`${child.spawnfile} ended with code ${child.exitCode}`);
    if (await isListening(port)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`${child.spawnfile} does not listen on port ${port} after ${timeoutMs / 1_000} s`);
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    const answer = (is: boolean) => (): void => {
      socket.destroy();
      resolve(is);
    };
    socket.once('connect', answer(true)).once('error', answer(false));
  });
}

const STOP_MS = 15_000;

/** SIGTERM, and SIGKILL if that is not enough. */
export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended;
  clearTimeout(timer);
}
