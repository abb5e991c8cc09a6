/** SIGHUP of a broker that runs on a terminal: when that is closed it stops, as any program does, and else it reads its configuration. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import { httpStatus, LAUNCHER, makeDataDirectory } from '../support/broker.ts';
import { freePorts } from '../support/ports.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';

test('a broker on a terminal reads its configuration at SIGHUP, and stops when the terminal is closed', async (t) => {
  if (!requireTool(t, 'script')) return;
  const [grpc, admin] = await freePorts(2);
  const dataDir = makeDataDirectory();
  t.after(() => rmSync(dataDir, { recursive: true, force: true }));
  const flags = ['--data-dir', dataDir, '--grpc-listen', `127.0.0.1:${grpc}`, '--admin-listen', `127.0.0.1:${admin}`];
  const line = [process.execPath, LAUNCHER, 'serve', ...flags, '--shards', '1', '--log-format', 'json'].join(' ');
  const terminal = spawn('script', ['-qec', `exec ${line}`, '/dev/null'], {
    env: { PATH: process.env.PATH ?? '', UV_THREADPOOL_SIZE: '8', SHELL: '/bin/sh' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(terminal, 'exit');
  let text = '';
  terminal.stdout.setEncoding('utf8').on('data', (some: string) => {
    text += some;
  });
  await until(
    () => text.includes('"msg":"ready"'),
    () => text,
  );
  const pid = Number(/"pid":(\d+)/.exec(text)?.[1]);
  t.after(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));

  process.kill(pid, 'SIGHUP');
  await until(
    () => text.includes('the configuration is read again'),
    () => text,
  );
  assert.equal(await httpStatus(`127.0.0.1:${admin}`, '/readyz'), 200);

  terminal.kill('SIGKILL');
  await ended;
  await until(
    () => !isAlive(pid),
    () => 'the broker goes on without its terminal',
  );
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
