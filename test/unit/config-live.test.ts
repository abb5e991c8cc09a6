/** Settings that change while the broker runs. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { BrokerError } from '../../src/base/errors.ts';
import { ConfigError } from '../../src/config/config-error.ts';
import { LiveSettings } from '../../src/config/live-settings.ts';
import { loadConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/schema.ts';
import { temporaryFolder } from '../support/temporary.ts';

function running(yaml: { text: string } = { text: '' }, argv: readonly string[] = []) {
  const settings = new LiveSettings(
    loadConfig({
      argv: ['--config=b.yaml', ...argv],
      environment: {},
      machine: { cores: 4 },
      readFile: () => yaml.text,
    }),
  );
  const levels: string[] = [];
  settings.register('log.level', ({ log }: Config) => {
    levels.push(log.level);
  });
  return { settings, levels };
}

function refusal(change: () => unknown): BrokerError {
  try {
    change();
  } catch (error) {
    if (error instanceof BrokerError) return error;
    throw error;
  }
  return assert.fail('it was taken');
}

const rowOf = (settings: LiveSettings, key: string) => settings.list().find((row) => row.key === key);

test('a live setting is in force at once, and its origin says so', () => {
  const { settings, levels } = running();
  assert.deepEqual(rowOf(settings, 'log.level')?.origin, { source: 'default', place: '' });
  const row = settings.change('log.level', 'debug');
  assert.deepEqual(row, {
    key: 'log.level',
    value: 'debug',
    origin: { source: 'changed', place: 'config set' },
    live: true,
  });
  assert.deepEqual(levels, ['debug']);
  assert.equal(settings.config.log.level, 'debug');
  assert.deepEqual(rowOf(settings, 'log.level'), row);
});

for (const [key, value, reason, text] of [
  ['log.levle', 'debug', 'SETTING_UNKNOWN', /did you mean log\.level\?/],
  ['zzzzzzzzzzz', 'debug', 'SETTING_UNKNOWN', /broker config show/],
  ['shards', '2', 'SETTING_NOT_LIVE', /\(shards\.count; `broker shards resize N` does\).*restart/],
  ['log.format', 'json', 'SETTING_NOT_LIVE', /\(log\.format\).*restart/],
  ['log.level', 'wran', 'SETTING_INVALID', /log\.level "wran" \(config set\): must be one of .*did you mean warn\?/],
] as const) {
  test(`config set ${key} ${value} is refused with ${reason}, and nothing changes`, () => {
    const { settings, levels } = running();
    const before = settings.list();
    const error = refusal(() => settings.change(key, value));
    assert.equal(error.reason, reason);
    assert.match(error.message, text);
    assert.deepEqual([levels, settings.list()], [[], before]);
  });
}

test('what a part cannot run with is refused with its words, and stays as it was', () => {
  const settings = new LiveSettings(loadConfig({ argv: [], environment: {} }));
  settings.register('log.level', () => {
    throw new Error('the lamp is broken');
  });
  const error = refusal(() => settings.change('log.level', 'debug'));
  assert.deepEqual([error.reason, settings.config.log.level], ['SETTING_INVALID', 'info']);
  assert.match(error.message, /the lamp is broken/);
});

test('a key that the schema does not mark as live, or that has a part already, is a mistake of the programmer', () => {
  const { settings } = running();
  assert.throws(() => settings.register('shards.count', () => undefined), /not marked as live/);
  assert.throws(() => settings.register('log.level', () => undefined), /has a part already/);
});

test('reading the files again applies what is live and names what needs a restart', () => {
  const yaml = { text: 'log:\n  level: warn\nshards: 2\n' };
  const { settings, levels } = running(yaml);
  yaml.text = '# moved\nlog:\n  level: error\nshards: 3\n';
  const { changed, needRestart } = settings.reload();
  assert.deepEqual([levels, needRestart], [['error'], ['shards.count']]);
  assert.deepEqual(
    changed.map(({ key, value, origin }) => [key, value, origin.source, origin.place]),
    [['log.level', 'error', 'file', 'b.yaml:3']],
  );
  assert.equal(settings.config.shards.count, 2, 'it runs with what it was started with');
  assert.deepEqual(rowOf(settings, 'shards.count')?.value, '2');
});

test('reading the files again ends what was changed at run time', () => {
  const { settings, levels } = running();
  settings.change('log.level', 'debug');
  settings.reload();
  assert.deepEqual(levels, ['debug', 'info']);
  assert.deepEqual(rowOf(settings, 'log.level')?.origin, { source: 'default', place: '' });
});

test('reading the files again changes nothing that a flag is stronger for', () => {
  const yaml = { text: '' };
  const { settings, levels } = running(yaml, ['--log-level=warn']);
  yaml.text = 'log: { level: debug }';
  assert.deepEqual(settings.reload(), { changed: [], needRestart: [], warnings: [] });
  assert.deepEqual([levels, settings.config.log.level], [[], 'warn']);
});

test('what one part cannot run with takes the others back', () => {
  const yaml = { text: '' };
  const settings = new LiveSettings(
    loadConfig({ argv: ['--config=b.yaml'], environment: {}, readFile: () => yaml.text }),
  );
  const bursts: number[] = [];
  settings.register('quotas.burst', ({ quotas }) => {
    bursts.push(quotas.burstMs);
  });
  // The later one in the schema, so that the other has changed by then.
  settings.register('log.level', ({ log }) => {
    if (log.level === 'debug') throw new Error('not on this node');
  });
  yaml.text = 'quotas: { burst: 5s }\nlog: { level: debug }';
  assert.throws(() => settings.reload(), /not on this node/);
  assert.deepEqual(bursts, [5_000, 1_000]);
  assert.deepEqual([settings.config.log.level, settings.config.quotas.burstMs], ['info', 1_000]);
});

test('files with a problem are not taken, not even in part', () => {
  const yaml = { text: 'log: { level: warn }' };
  const { settings, levels } = running(yaml);
  yaml.text = 'log: { level: error }\nshrads: 3';
  assert.throws(() => settings.reload(), ConfigError);
  assert.deepEqual([levels, settings.config.log.level], [[], 'warn']);
});

test('what was a pipe at the start is not read again: it would be empty, or hold the broker until somebody writes', (t) => {
  const folder = temporaryFolder(t);
  const pipe = join(folder, 'pipe');
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
  const module = new URL('../../src/config/load.ts', import.meta.url).href;
  const code = `import { loadConfig } from '${module}';
    const [, , ...argv] = process.argv;
    const loaded = loadConfig({ argv, environment: {} });
    process.stdout.write(loaded.config.log.level + ': ');
    try {
      process.stdout.write(loaded.reload().config.log.level);
    } catch (error) {
      process.stdout.write(error.problems.join());
    }`;
  writeFileSync(join(folder, 'code.mjs'), code);
  const reloaded = (argv: string, beside: string): string => {
    const program = `'${process.execPath}' '${join(folder, 'code.mjs')}' ${argv}`;
    const options = { encoding: 'utf8', timeout: 30_000, killSignal: 'SIGKILL', cwd: folder } as const;
    // Ended by the limit, should it hang.
    return spawnSync('timeout', ['-s', 'KILL', '20', 'bash', '-c', `${beside} ${program}`], options).stdout;
  };
  const text = 'log: {level: debug}';
  const told = 'it is a pipe, which has been read: put an ordinary file in its place';
  assert.equal(
    reloaded(`--config '${pipe}'`, `echo '${text}' > '${pipe}' &`),
    `debug: config file ${JSON.stringify(pipe)}: cannot be read: ${told}`,
  );
  assert.match(
    reloaded(`--config <(echo '${text}')`, ''),
    /^debug: config file "\/dev\/fd\/\d+": cannot be read: it is a pipe/,
  );
  const key = Buffer.alloc(32, 1).toString('base64');
  assert.match(
    reloaded(`--gossip-key-file '${pipe}'`, `echo '${key}' > '${pipe}' &`),
    /^info: gossip\.key \(--gossip-key-file ".*"\): cannot be read: it is a pipe/,
  );
});
