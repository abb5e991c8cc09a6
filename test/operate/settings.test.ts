/** What a running node runs with, changed by commands and by SIGHUP. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { command, refused, succeeded } from '../support/commands.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

/** Lines of the log with a message, as objects. */
function lines(broker: BrokerProcess, message: string): Record<string, unknown>[] {
  return broker.logs
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ msg }) => msg === message);
}

const CHANGED = 'a setting was changed';

test('the log level of a running broker is changed, shown with its origin, and changed back by SIGHUP', async (t) => {
  const file = join(temporaryFolder(t), 'broker.yaml');
  writeFileSync(file, 'log:\n  level: info\n');
  await using broker = await startBroker({ env: { BROKER_CONFIG: file }, flags: ['--shards', '1'] });
  const at = ['--address', broker.address];

  assert.equal((await succeeded(['config', 'set', 'log.level', 'error', ...at])).origin, 'changed');
  const shown = await succeeded(['config', 'show', '--live', '--set', ...at]);
  assert.deepEqual(shown, { key: 'log.level', value: 'error', origin: 'changed', place: 'config set', live: true });
  assert.deepEqual(lines(broker, CHANGED), [], 'told at a level that is not written any more');

  const flags = await command(['config', 'show', '--set', ...at]);
  assert.match(JSON.stringify(flags.row), /"data_dir".*"flag","place":"--data-dir","live":false/);

  process.kill(broker.pid, 'SIGHUP');
  await until(
    () => lines(broker, CHANGED).length === 1,
    () => broker.logs,
  );
  assert.equal((await succeeded(['config', 'show', '--live', '--set', ...at])).origin, 'file');

  writeFileSync(file, 'log:\n  level: debug\nshards: 1\nlimits: { body_bytes: 512KiB }\n');
  process.kill(broker.pid, 'SIGHUP');
  const warning = 'some settings have changed and need a restart';
  await until(
    () => lines(broker, warning).length === 1,
    () => broker.logs,
  );
  assert.equal(lines(broker, warning)[0]?.keys, 'limits.body_bytes');
  assert.equal(lines(broker, CHANGED).at(-1)?.value, 'debug');

  writeFileSync(file, 'shrads: 1\n');
  process.kill(broker.pid, 'SIGHUP');
  await until(
    () => lines(broker, 'the configuration has problems, and nothing of it was taken').length === 1,
    () => broker.logs,
  );
  assert.equal((await succeeded(['config', 'show', '--live', '--set', ...at])).value, 'debug');
  await refused(['config', 'set', 'log.levle', 'debug', ...at], /did you mean log\.level/);
  await refused(['config', 'set', 'shards', '2', ...at], /restart the node/);
  await refused(['config', 'set', 'log.level', 'loud', ...at], /must be one of debug, info, warn, error/);
  assert.equal((await broker.stop()).code, 0);
});
