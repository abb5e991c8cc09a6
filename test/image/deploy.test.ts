/** Files for other programs, read by those programs. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT } from '../support/source-tree.ts';
import { requireTool } from '../support/tools.ts';
import { readCompose } from './compose.ts';
import { run, succeed } from './engine.ts';

test('docker-compose takes the file: with and without Cassandra, and not without a password', async (t) => {
  if (!requireTool(t, 'docker-compose')) return;
  const usual = Object.keys((await readCompose()).services).sort();
  assert.deepEqual(
    usual.filter((name) => name !== 'cassandra'),
    [
      ...[
        'broker-1',
        'broker-2',
        'broker-3',
        'envoy',
        'grafana',
        'jaeger',
        'postgres',
        'prometheus',
        'ratelimit',
        'redis',
      ],
    ],
  );
  assert.ok(Object.hasOwn((await readCompose(['--profile', 'cassandra'])).services, 'cassandra'));
  const { code, err } = await run('docker-compose', ['config'], { cwd: ROOT, env: { POSTGRES_PASSWORD: '' } });
  assert.notEqual(code, 0);
  assert.match(err, /POSTGRES_PASSWORD/);
});

test('promtool takes configuration and rules, and the rules raise the alerts that they are for', async (t) => {
  if (!requireTool(t, 'promtool')) return;
  const folder = { cwd: join(ROOT, 'deploy/prometheus') };
  await succeed('promtool', ['check', 'config', 'prometheus.yml'], folder);
  await succeed('promtool', ['test', 'rules', 'rules.test.yml'], folder);
});
