import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { createLogger, type LogLevel } from '../../src/telemetry/log.ts';
import { fullPipe } from '../support/full-pipe.ts';
import { until } from '../support/until.ts';

function capture(format: 'auto' | 'json' | 'pretty', level: LogLevel = 'debug') {
  const lines: string[] = [];
  const logger = createLogger({ level, format, destination: { write: (line) => lines.push(line) } });
  return { lines, logger };
}

for (const format of ['auto', 'json'] as const) {
  test(`format ${format} where there is no terminal: one JSON object a line, level by name, time in ISO 8601`, () => {
    const { lines, logger } = capture(format);
    logger.warn('disk is slow', { ms: 12, path: 'a\nb' });
    assert.equal(lines.length, 1);
    assert.equal(lines[0]?.indexOf('\n'), (lines[0]?.length ?? 0) - 1);
    const { time, pid, ...rest } = JSON.parse(lines[0] as string) as Record<string, unknown>;
    assert.deepEqual(rest, { level: 'warn', ms: 12, path: 'a\nb', msg: 'disk is slow' });
    assert.match(time as string, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.equal(pid, process.pid);
  });
}

test('format pretty: a line for people, made at once', () => {
  const { lines, logger } = capture('pretty');
  logger.info('serving', { port: 8081 });
  assert.equal(lines.length, 1);
  assert.match(lines[0] as string, /INFO.*serving.*"port":8081/);
});

test('lines of the audit are written at every level, marked, and with their own', () => {
  const { lines, logger } = capture('json', 'error');
  logger.audit('info', 'an operator has acted', { method: 'TrimSubject' });
  logger.setLevel('warn');
  logger.audit('info', 'an operator has acted', { method: 'Verify' });
  const shown = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    shown.map(({ level, audit, method }) => [level, audit, method]),
    [
      ['info', true, 'TrimSubject'],
      ['info', true, 'Verify'],
    ],
  );
});

test('lines under the level are not written', () => {
  const { lines, logger } = capture('json', 'warn');
  logger.info('no');
  logger.error('yes');
  assert.equal(lines.length, 1);
});

test("a thread's line is written with the name of its thread", () => {
  const { lines, logger } = capture('json');
  logger.forward('shard 1', { kind: 'log', level: 'error', message: 'group failed', fields: { count: 2, on: true } });
  const { thread, level, msg, count, on } = JSON.parse(lines[0] as string) as Record<string, unknown>;
  assert.deepEqual([thread, level, msg, count, on], ['shard 1', 'error', 'group failed', 2, true]);
});

test('every line is written before the process ends, to stdout or stderr, also when it ends by process.exit', () => {
  const module = new URL('../../src/telemetry/log.ts', import.meta.url).href;
  for (const destination of ['stdout', 'stderr'] as const) {
    const code = `import { createLogger } from '${module}';
      const logger = createLogger({ level: 'info', format: 'auto', destination: '${destination}' });
      for (let i = 0; i < 2000; i += 1) logger.info('line', { i });
      process.exit(3);`;
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', code], { encoding: 'utf8' });
    assert.equal(ended.status, 3);
    const lines = ended[destination].trimEnd().split('\n');
    assert.deepEqual([lines.length, JSON.parse(lines[1_999] as string).i], [2_000, 1_999]);
    assert.equal(ended[destination === 'stdout' ? 'stderr' : 'stdout'], '');
  }
});

for (const [name, redirection] of [
  ['whose reader goes away', '| true'],
  ['on a full disk', '> /dev/full'],
] as const) {
  test(`a log ${name} does not end the process`, () => {
    const module = new URL('../../src/telemetry/log.ts', import.meta.url).href;
    const code = `import { createLogger } from '${module}';
      const logger = createLogger({ level: 'info', format: 'json', destination: 'stdout' });
      let i = 0;
      const timer = setInterval(() => {
        logger.info('line', { i });
        if (i === 10) logger.flush();
        if (++i === 20) { clearInterval(timer); process.stderr.write('lived'); }
      }, 5);`;
    const script = `"$0" --input-type=module -e "$1" ${redirection}`;
    const ended = spawnSync('sh', ['-c', script, process.execPath, code], { encoding: 'utf8', timeout: 20_000 });
    assert.equal(ended.stderr, 'lived');
  });
}

for (const [name, end] of [
  ['when it has nothing else to do', 'logger.flush()'],
  ['by process.exit', 'process.exit(0)'],
] as const) {
  test(`a log into a full pipe that nobody reads does not keep the process: it ends ${name}`, async (t) => {
    const pipe = fullPipe(t);
    const module = new URL('../../src/telemetry/log.ts', import.meta.url).href;
    // Asking for process.stdout makes a pipe non-blocking, as the `broker` command does.
    // After the pause the first line is in hand, to be tried again; in hand or waiting, nothing may keep the process.
    const code = `import { createLogger } from '${module}';
      process.stdout;
      const logger = createLogger({ level: 'info', format: 'json', destination: 'stdout' });
      logger.info('in hand');
      setTimeout(() => { logger.info('waiting'); ${end}; }, 50);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
      stdio: ['ignore', pipe.forChild, 'inherit'],
    });
    // Only ends a wait that would never end.
    const timer = setTimeout(() => child.kill('SIGKILL'), 30_000);
    const exit = await once(child, 'exit');
    clearTimeout(timer);
    assert.deepEqual(exit, [0, null]);
  });
}

test('what a full pipe has not taken when a flush gives up is dropped and counted, and the log goes on once it is read', async (t) => {
  const pipe = fullPipe(t);
  const module = new URL('../../src/telemetry/log.ts', import.meta.url).href;
  const code = `import { createLogger } from '${module}';
    process.stdout;
    const logger = createLogger({ level: 'info', format: 'json', destination: 'stdout' });
    logger.info('one');
    setTimeout(() => {
      logger.info('two');
      logger.flush();
      process.send('flushed');
      process.once('message', () => logger.info('three'));
    }, 50);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', pipe.forChild, 'inherit', 'ipc'],
  });
  t.after(() => child.kill('SIGKILL'));
  await once(child, 'message');
  let text = pipe.read();
  child.send('read');
  await until(
    () => {
      text += pipe.read();
      return text.includes('"three"') && text.endsWith('\n');
    },
    () => `no third line in ${text.trim()}`,
  );
  const lines = text.split('\n').filter((line) => line !== '');
  const said = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  // The first line may be in hand just when the flush is called: then it is written by that write, and not counted.
  const isInHand = said[0]?.msg === 'one';
  assert.deepEqual(
    said.map(({ msg, dropped }) => ({ msg, dropped })),
    [
      ...(isInHand ? [{ msg: 'one', dropped: undefined }] : []),
      { msg: 'three', dropped: undefined },
      { msg: 'log lines were dropped', dropped: isInHand ? 1 : 2 },
    ],
  );
});
