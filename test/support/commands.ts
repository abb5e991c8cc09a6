/** Runs `broker` commands and reads their answers as JSON. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { LAUNCHER } from './broker.ts';

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The first line of its answer; empty if it has none. */
  readonly row: Record<string, unknown>;
  readonly err: string;
}

export async function command(argv: readonly string[], failpoints = ''): Promise<Ended> {
  const child = spawn(process.execPath, [LAUNCHER, ...argv, '-o', 'json'], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '8', BROKER_FAILPOINTS: failpoints },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const [out, err] = [[] as string[], [] as string[]];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const [code, signal] = await once(child, 'close');
  const [line] = out.join('').split('\n').filter(Boolean);
  return { code, signal, row: line === undefined ? {} : JSON.parse(line), err: err.join('') };
}

export async function succeeded(argv: readonly string[]): Promise<Record<string, unknown>> {
  const { code, row, err } = await command(argv);
  assert.equal(code, 0, err);
  return row;
}

export async function refused(argv: readonly string[], why: RegExp): Promise<void> {
  const { code, err } = await command(argv);
  assert.match(err, why);
  assert.equal(code, 1);
}
