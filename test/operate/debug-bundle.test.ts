/** `broker debug bundle` of a real node. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { command } from '../support/commands.ts';
import { temporaryFolder } from '../support/temporary.ts';

const BODY = 'the-body-of-a-message';

async function bundle(t: TestContext, ...argv: string[]) {
  const folder = temporaryFolder(t);
  const archive = join(folder, 'b.tar.gz');
  const { code, err, row } = await command(['debug', 'bundle', '-f', archive, ...argv]);
  assert.equal(code, 0, err);
  execFileSync('tar', ['-xzf', archive, '-C', folder, '--strip-components=1']);
  const read = (name: string): string => readFileSync(join(folder, name), 'utf8');
  const all = execFileSync('tar', ['-xzOf', archive], { encoding: 'latin1' });
  return { read, json: (name: string) => JSON.parse(read(name)), all, err, row };
}

test('a bundle has what a report needs: settings, threads with their load, log, metrics, profiles; and no messages', async (t) => {
  await using broker = await startBroker({ flags: ['--shards', '2', '--log-level', 'debug'] });
  const client = new BrokerClient(broker.address);
  t.after(() => client.close());
  for (let n = 0; n < 20; n += 1) await client.publish({ subject: 'secret.project', body: Buffer.from(BODY) });
  const at = ['--address', broker.address];
  const { read, json, all } = await bundle(t, '--cpu-profile', '300ms', '--data-dir', broker.dataDir, ...at);

  assert.deepEqual(json('bundle.json').missing, []);
  assert.equal(json('process.json').pid, broker.pid);
  const settings = json('settings.json') as Record<string, unknown>[];
  assert.deepEqual(
    settings.find(({ key }) => key === 'shards.count'),
    { key: 'shards.count', value: '2', origin: 'flag', place: '--shards', live: false },
  );
  const threads = json('threads.json') as { thread: string; busy: number; heap: { used_heap_size: number } }[];
  assert.deepEqual(
    threads.map(({ thread }) => thread.replace(/\d+$/, 'N')),
    ['main', 'raft', 'shard-thread-N', 'shard-thread-N'],
  );
  for (const { busy, heap } of threads) assert.ok(busy >= 0 && busy <= 1 && heap.used_heap_size > 0);
  for (const { thread } of threads) assert.ok(json(`profiles/${thread}.cpuprofile`).nodes.length > 0, thread);
  assert.match(read('metrics.txt'), /^broker_/m);
  assert.match(read('log.jsonl'), /"msg":"ready"/);
  assert.equal(json('status.json').messagesPublished, 20);
  for (const name of ['members', 'shards', 'subscriptions', 'connections', 'subjects', 'tenants']) {
    assert.equal(typeof json(`${name}.json`), 'object', name);
  }
  assert.equal(json('node.json').nodeId, json('status.json').nodeId);
  assert.ok(json('data-directory.json').files.length > 5);
  assert.ok(!all.includes(BODY), 'a message is in the bundle');

  const hidden = await bundle(t, '--hash-subjects', '--data-dir', broker.dataDir, ...at);
  assert.ok(
    all.includes('secret.project') && !hidden.all.includes('project'),
    'the name of a subject is in the bundle',
  );
});

test('two profiles at a time are not recorded: one of the bundles says that it has none', async (t) => {
  await using broker = await startBroker({ flags: ['--shards', '1'] });
  const argv = ['--cpu-profile', '10s', '--address', broker.address];
  const both = await Promise.all([bundle(t, ...argv), bundle(t, ...argv)]);
  const without = both.filter(({ err }) => /missing: profiles: another one is being recorded/.test(err));
  assert.equal(without.length, 1);
  assert.equal(
    (await bundle(t, '--cpu-profile', '100ms', '--address', broker.address)).json('profiles/main.cpuprofile').nodes
      .length > 0,
    true,
  );
});

test('of a node that is down a bundle has its files, and says that it has no more', async (t) => {
  await using broker = await startBroker({ flags: ['--shards', '1'] });
  await broker.kill();
  const { json, err } = await bundle(t, '--data-dir', broker.dataDir, '--address', broker.address);
  assert.match(err, /missing: the node: cannot connect/);
  assert.match(json('node.json').nodeId, /./);
  const refused = await command(['debug', 'bundle', '--address', broker.address]);
  assert.equal(refused.code, 3);
});
