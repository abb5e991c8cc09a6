import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { createLogger, createThreadLog, type LogLevel, type ThreadLine } from '../../src/telemetry/log.ts';

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

test('lines under the level are neither written nor posted', () => {
  const { lines, logger } = capture('json', 'warn');
  logger.info('no');
  logger.error('yes');
  assert.equal(lines.length, 1);
  const sent: ThreadLine[] = [];
  const log = createThreadLog('warn', (line) => sent.push(line));
  log.debug('no');
  log.info('no');
  log.warn('yes');
  assert.deepEqual(sent, [{ kind: 'log', level: 'warn', message: 'yes', fields: {} }]);
});

test("a thread's line can be posted whatever its fields hold, and names its thread", () => {
  const { lines, logger } = capture('json');
  const log = createThreadLog('debug', (line) => logger.forward('shard 1', structuredClone(line)));
  const hostile = {
    error: new Error('boom'),
    list: [1, 2],
    missing: undefined,
    big: 5n,
    call: (): number => 1,
    count: 2,
    on: true,
  };
  log.error('group failed', hostile);
  const { thread, error, list, missing, big, count, on, level } = JSON.parse(lines[0] as string) as Record<
    string,
    unknown
  >;
  assert.deepEqual(
    { thread, list, missing, big, count, on, level },
    {
      thread: 'shard 1',
      list: '[1,2]',
      missing: 'undefined',
      big: '5',
      count: 2,
      on: true,
      level: 'error',
    },
  );
  assert.match(error as string, /Error: boom\n/);
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
