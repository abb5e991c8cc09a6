/** Two live copies of one data directory on one database: the older process ends, and nothing hangs. For each database. */
import assert from 'node:assert/strict';
import { cpSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type BrokerOptions, BrokerProcess } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { FaultRig, logLines } from './rig.ts';

const COPIED = { code: 78, signal: null };

function assertTold(broker: BrokerProcess, to: RegExp): void {
  const last = logLines(broker.logs).findLast(({ level }) => level === 'error');
  assert.equal(last?.reason, 'DATA_DIRECTORY_COPIED', broker.logs);
  assert.match(last.error, to);
}

/** `options` have JSON logs. */
export async function copyTakesOver(t: TestContext, options: BrokerOptions): Promise<void> {
  await using original = await BrokerProcess.create(options);
  await original.restart();
  const client = new BrokerClient(original.address);
  t.after(() => client.close());
  assert.equal(await client.publish({ subject: 's', body: Buffer.from('one') }), 1);
  await original.stop();
  const dataDir = join(temporaryFolder(t), 'copy');
  cpSync(original.dataDir, dataDir, { recursive: true });
  await original.restart();
  await using copy = await BrokerProcess.create({ ...options, dataDir });
  await copy.restart();
  assert.deepEqual(await original.exited, COPIED, original.logs);
  assertTold(original, /another broker has started on a copy of this data directory/);
  const next = new BrokerClient(copy.address);
  t.after(() => next.close());
  assert.equal((await next.fetch('s', 1)).body.toString(), 'one');
  assert.equal(await next.publish({ subject: 's', body: Buffer.from('two') }), 2);
  // The one that has been left behind is refused, again and again, and does not end the one that serves.
  for (let attempt = 0; attempt < 2; attempt++) await assert.rejects(original.restart(), /STORE_AHEAD_OF_LOG/);
  const { pid } = copy;
  assert.equal(await next.publish({ subject: 's', body: Buffer.from('three') }), 3);
  // A killed one takes over from itself.
  await copy.restart();
  assert.notEqual(copy.pid, pid);
  assert.equal((await next.fetch('s', 3)).body.toString(), 'three');
}

/** `options` have no log format. `claim`: what the start of another process does, at its last step. */
export async function overtakenUnderLoad(options: BrokerOptions, claim: () => Promise<unknown>): Promise<void> {
  await using rig = await FaultRig.start(options);
  rig.startLoad();
  await rig.loaded(100);
  await claim();
  assert.deepEqual(await rig.broker.exited, COPIED, rig.broker.logs);
  assertTold(rig.broker, /the database is of incarnation theirs/);
  await rig.load.stop();
  await rig.broker.restart();
  await rig.assertKept(100);
}
