/** `broker cluster recover`, `broker backup` and `broker restore` on real stores: no id of before is given again, and what is stored stays readable. */
import assert from 'node:assert/strict';
import { cpSync, existsSync, globSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Client, type ClientError, connect } from '../../src/client/index.ts';
import { reachDatabase } from '../../src/storage/bind-store.ts';
import { openDatabase } from '../../src/storage/open-database.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { command, refused, succeeded } from '../support/commands.ts';
import { largest } from '../support/largest.ts';
import { STORES } from '../support/stores.ts';
import { temporaryFolder } from '../support/temporary.ts';

const GAP = 2 ** 20;

async function withClient<T>(broker: BrokerProcess, work: (client: Client) => Promise<T>): Promise<T> {
  const client = connect(broker.address);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** The text of a message, or the reason why there is none. */
function shown(client: Client, subject: string, id: number): Promise<string | null> {
  return client.fetch(subject, id).then(
    ({ text }) => text,
    (error: ClientError) => error.reason,
  );
}

async function started(t: TestContext, flags: readonly string[], dataDir?: string): Promise<BrokerProcess> {
  const broker = await BrokerProcess.create({ flags: [...flags, '--shards', '2'], ...(dataDir && { dataDir }) });
  t.after(() => broker.dispose());
  await broker.restart();
  return broker;
}

async function fill(client: Client): Promise<void> {
  for (let i = 1; i <= 5; i++) assert.equal(await client.publish('orders', `order ${i}`), i);
  for (let i = 1; i <= 3; i++) await client.publish('trimmed', `t${i}`);
  await client.trim('trimmed', 3);
  await client.publish('void', 'first');
  await client.incrementId('void');
}

/** What a subscription from the beginning gets until it has seen `last`. */
async function idsUpTo(client: Client, subject: string, last: number): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of client.subscribe(subject, { start: 'earliest', signal: AbortSignal.timeout(20_000) })) {
    ids.push(id);
    if (id === last) break;
  }
  return ids;
}

// Cassandra, and a kill at every step: `npm run faults -- recover`.
for (const { name, flags: flagsOf } of STORES.filter((store) => store.name !== 'cassandra')) {
  test(`${name}: backed up, published on, restored elsewhere: no id is given again, and old messages are there`, {
    timeout: 300_000,
  }, async (t) => {
    const flags = await flagsOf((end) => t.after(end));
    if (typeof flags === 'string') return t.skip(flags);
    const folder = temporaryFolder(t);
    const [to, dataDir] = [join(folder, 'backup'), join(folder, 'restored')];
    const broker = await started(t, flags);
    await withClient(broker, fill);
    await refused(['backup', '--data-dir', broker.dataDir, '--to', to], /is in use by another process/);
    await broker.stop();
    const made = await succeeded(['backup', '--data-dir', broker.dataDir, '--to', to, ...flags]);
    assert.deepEqual([made.store, made.subjects], [name, 3]);
    await refused(['backup', '--data-dir', broker.dataDir, '--to', to, ...flags], /is not empty/);
    await broker.restart();
    await withClient(broker, async (client) => {
      for (let i = 6; i <= 7; i++) assert.equal(await client.publish('orders', `order ${i}`), i);
      assert.equal(await client.publish('late', 'late'), 1);
    });
    await broker.stop();

    const restore = ['restore', '--from', to, '--data-dir', dataDir, ...flags];
    const plan = await command(restore);
    assert.equal(plan.code, 2, plan.err);
    assert.deepEqual([plan.row.done, existsSync(dataDir)], [false, false]);
    const done = await succeeded([...restore, '--yes']);
    const isShared = name !== 'embedded';
    const last = isShared ? 7 : 5;
    assert.deepEqual(
      [done.done, done.subjects, done.subjects_of_log, done.largest_head, done.floor],
      [true, isShared ? 4 : 3, 3, last, last + GAP],
    );
    assert.equal(done.floor, plan.row.floor);
    await refused([...restore, '--yes'], /is a data directory already/);

    const next = await started(t, flags, dataDir);
    await withClient(next, async (client) => {
      for (let i = 1; i <= last; i++) assert.equal(await shown(client, 'orders', i), `order ${i}`);
      assert.deepEqual(await Promise.all([1, 2].map((id) => shown(client, 'void', id))), ['first', 'ID_VOID']);
      assert.deepEqual(await Promise.all([2, 3].map((id) => shown(client, 'trimmed', id))), ['ID_TRIMMED', 't3']);
      assert.equal(await client.publish('orders', 'after'), last + GAP + 1);
      assert.equal(await client.publish('late', 'again'), (isShared ? 1 : last) + GAP + 1);
      const waiting = idsUpTo(client, 'un.known', last + GAP + 1);
      const pattern = idsUpTo(client, 'un.*', last + GAP + 1);
      assert.equal(await shown(client, 'un.known', last + GAP + 1), 'ID_NOT_FOUND');
      assert.equal(await client.publish('un.known', 'new'), last + GAP + 1);
      assert.deepEqual(await Promise.all([waiting, pattern]), [[last + GAP + 1], [last + GAP + 1]]);
      for (const id of [last + 1, last + GAP]) assert.equal(await shown(client, 'orders', id), 'ID_VOID');
      assert.equal(await shown(client, 'un.known', 1), 'ID_TRIMMED');
      assert.equal(await shown(client, 'orders', last + GAP + 1), 'after');
      const ids = Array.from({ length: last }, (_, i) => i + 1);
      assert.deepEqual(await idsUpTo(client, 'orders', last + GAP + 1), [...ids, last + GAP + 1]);
      assert.deepEqual(await idsUpTo(client, 'un.known', last + GAP + 1), [last + GAP + 1]);
    });
    await next.restart();
    await withClient(next, async (client) => {
      assert.equal(await client.publish('orders', 'later'), last + GAP + 2);
      assert.equal(await shown(client, 'orders', 1), 'order 1');
    });
    assert.ok(!next.logs.includes('DATA_LOSS'), next.logs);
    // The directory of before belongs to a cluster that the database has no more.
    if (isShared) await assert.rejects(broker.restart(), /STORE_UNUSABLE/);
  });

  test(`${name}: the Raft state is lost: recovered from the store, killed with -9 at some steps before`, {
    timeout: 300_000,
  }, async (t) => {
    const flags = await flagsOf((end) => t.after(end));
    if (typeof flags === 'string') return t.skip(flags);
    const broker = await started(t, flags);
    await withClient(broker, fill);
    await broker.stop();
    const recover = ['cluster', 'recover', '--data-dir', broker.dataDir, ...flags];
    await refused([...recover, '--yes'], /has Raft state: it knows 3 subjects/);
    rmSync(join(broker.dataDir, 'raft'), { recursive: true });
    const plan = await command(recover);
    assert.deepEqual(
      [plan.code, plan.row.subjects, plan.row.floor, plan.row.producers_forgotten],
      [2, 3, 5 + GAP, null],
    );
    for (const step of name === 'embedded' ? ['marked', 'built', 'bound'] : ['given', 'placed']) {
      const killed = await command([...recover, '--yes'], `recover.${step}=kill`);
      assert.equal(killed.signal, 'SIGKILL', `${step}: ${killed.err}`);
      await assert.rejects(broker.restart(), /RECOVERY_UNFINISHED/, step);
    }
    const done = await succeeded([...recover, '--yes']);
    assert.deepEqual([done.done, done.largest_head, done.largest_subject], [true, 5, 'orders']);
    await broker.restart();
    await withClient(broker, async (client) => {
      for (let i = 1; i <= 5; i++) assert.equal(await shown(client, 'orders', i), `order ${i}`);
      assert.equal(await client.publish('orders', 'after'), 5 + GAP + 1);
      assert.equal(await client.publish('un.known', 'new'), 5 + GAP + 1);
    });
    await broker.stop();
    await refused([...recover, '--yes'], /has Raft state/);
    // Again, with the state put aside: a second gap behind the first.
    const again = await succeeded([...recover, '--yes', '--discard-state']);
    assert.deepEqual([again.subjects, again.floor], [4, 5 + 1 + 2 * GAP]);
    assert.ok(existsSync(String(again.discarded)));
    await broker.restart();
    await withClient(broker, async (client) => {
      assert.equal(await shown(client, 'orders', 5 + GAP + 1), 'after');
      assert.equal(await client.publish('orders', 'once more'), 5 + 1 + 2 * GAP + 1);
    });
  });
}

test('embedded: killed with -9 in the middle of a restore: it goes on, and no broker starts before', async (t) => {
  const folder = temporaryFolder(t);
  const [to, dataDir] = [join(folder, 'backup'), join(folder, 'restored')];
  const broker = await started(t, []);
  await withClient(broker, fill);
  await broker.stop();
  await succeeded(['backup', '--data-dir', broker.dataDir, '--to', to]);
  const restore = ['restore', '--from', to, '--data-dir', dataDir, '--yes'];
  for (const step of ['prepared', 'bound']) {
    assert.equal((await command(restore, `recover.${step}=kill`)).signal, 'SIGKILL');
    await refused(['cluster', 'recover', '--data-dir', dataDir, '--yes'], /`broker restore` was cut off/);
    await assert.rejects(started(t, [], dataDir), /RECOVERY_UNFINISHED/);
  }
  await succeeded(restore);
  const next = await started(t, [], dataDir);
  await withClient(next, async (client) => {
    assert.equal(await shown(client, 'orders', 5), 'order 5');
    assert.equal(await client.publish('orders', 'after'), 5 + GAP + 1);
  });
});

test('embedded: a copy of the files of a running broker, as a snapshot of the file system makes it, is backed up and restored', async (t) => {
  const folder = temporaryFolder(t);
  const [copy, to, dataDir] = [join(folder, 'copy'), join(folder, 'backup'), join(folder, 'restored')];
  const broker = await started(t, []);
  await withClient(broker, fill);
  // Nothing is written meanwhile.
  cpSync(broker.dataDir, copy, { recursive: true });
  await succeeded(['backup', '--data-dir', copy, '--to', to]);
  await succeeded(['restore', '--from', to, '--data-dir', dataDir, '--yes', '--node-id', 'other']);
  const next = await started(t, [], dataDir);
  await withClient(next, async (client) => {
    for (let i = 1; i <= 5; i++) assert.equal(await shown(client, 'orders', i), `order ${i}`);
    assert.equal(await client.publish('orders', 'after'), 5 + GAP + 1);
  });
});

test('a backup that is damaged, cut or of something else is refused by the name of its file, and nothing is made', async (t) => {
  const folder = temporaryFolder(t);
  const broker = await started(t, []);
  await withClient(broker, fill);
  await broker.stop();
  const dataDir = join(folder, 'restored');
  let number = 0;
  const damaged = async (spoil: (to: string) => void, why: RegExp): Promise<void> => {
    number += 1;
    const to = join(folder, `backup-${number}`);
    await succeeded(['backup', '--data-dir', broker.dataDir, '--to', to]);
    spoil(to);
    await refused(['restore', '--from', to, '--data-dir', dataDir, '--yes'], why);
    assert.ok(!existsSync(dataDir));
  };
  const segmentIn = (to: string): string => join(to, globSync('segments/**/*.seg', { cwd: to })[0] ?? 'none');
  const flip = (path: string): void => {
    const bytes = readFileSync(path);
    bytes[100] = (bytes[100] as number) ^ 1;
    writeFileSync(path, bytes);
  };
  await damaged((to) => flip(segmentIn(to)), /\.seg is damaged: its checksum/);
  await damaged((to) => truncateSync(segmentIn(to), 200), /\.seg is damaged: it has 200 bytes/);
  await damaged((to) => rmSync(segmentIn(to)), /\.seg is missing/);
  await damaged((to) => flip(join(to, 'state')), /state is damaged/);
  await damaged((to) => rmSync(join(to, 'manifest.json')), /has no manifest\.json/);
  await damaged((to) => {
    const path = join(to, 'manifest.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('"subjects": 3', '"subjects": 4'));
  }, /manifest\.json is damaged: its checksum/);
});

test('postgres: brokers that still run on a database that is recovered end; what they acknowledged is there, and none of their ids is given again', {
  timeout: 300_000,
}, async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const flags = server.brokerFlags();
  const folder = temporaryFolder(t);
  const broker = await started(t, flags);
  const acked = new Set<number>();
  const load = withClient(broker, async (client) => {
    for (;;) acked.add(await client.publish('orders', 'x'));
  });
  load.catch(() => 'it ends with its broker');
  while (acked.size < 100) await new Promise((resolve) => setTimeout(resolve, 5));
  const dataDir = join(folder, 'new');
  const done = await succeeded(['cluster', 'recover', '--data-dir', dataDir, ...flags, '--yes']);
  assert.equal(done.nodes_fenced, 1);
  assert.deepEqual(await broker.exited, { code: 78, signal: null }, broker.logs);
  await assert.rejects(load);
  const newest = largest(acked);
  assert.ok(Number(done.largest_head) >= newest);
  const next = await started(t, flags, dataDir);
  await withClient(next, async (client) => {
    for (const id of acked) assert.equal(await shown(client, 'orders', id), 'x');
    assert.equal(await client.publish('orders', 'after'), Number(done.largest_head) + GAP + 1);
  });
  await assert.rejects(broker.restart(), /belongs to cluster/);
});

test('postgres: a start that passed the birth row before the recovery and claims behind it is refused', async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const options = {
    kind: 'postgres',
    url: server.url,
    schema: 'broker',
    pool: 2,
    timeoutMs: 10_000,
    tls: null,
    acceptWeakDurability: false,
  } as const;
  const reached = await reachDatabase(options);
  const row = await reached.claimBirth({ clusterId: 'one', name: 'broker' });
  const claimed = await reached.use({ clusterId: 'one', nodeId: 'a' }, row);
  t.after(() => claimed.close());
  const other = await openDatabase(options);
  t.after(() => other.close());
  assert.equal((await other.birth.replace('one', 'two'))?.clusterId, 'two');
  await assert.rejects(claimed.takeOver(), /belongs to cluster two/);
});

test('postgres: the heads of a log that is discarded count; another cluster, name, node or store is refused, and nothing is changed', {
  timeout: 300_000,
}, async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const flags = server.brokerFlags();
  const folder = temporaryFolder(t);
  const broker = await started(t, flags);
  await withClient(broker, fill);
  await broker.stop();
  const schema = flags.at(-1);
  const recover = ['cluster', 'recover', '--data-dir', broker.dataDir, ...flags, '--yes'];
  const birth = await server.sql(`SELECT cluster_id FROM ${schema}.birth`);
  await refused(
    [...recover, '--discard-state', '--cluster', 'other'],
    /belongs to cluster "broker", the configuration says "other"/,
  );
  await refused([...recover, '--discard-state', '--node-id', 'other'], /belongs to node/);
  await refused(
    ['cluster', 'recover', '--data-dir', broker.dataDir, '--discard-state', '--yes'],
    /in a database \(postgres\)/,
  );
  await refused(
    ['cluster', 'recover', '--data-dir', join(folder, 'x'), ...server.brokerFlags(), '--yes'],
    /no cluster yet/,
  );
  const other = await started(t, server.brokerFlags());
  await other.stop();
  rmSync(join(other.dataDir, 'raft'), { recursive: true });
  await refused(['cluster', 'recover', '--data-dir', other.dataDir, ...flags, '--yes'], /not of one cluster/);
  assert.ok(!readdirSync(other.dataDir).includes('RECOVERY'));
  assert.deepEqual(await server.sql(`SELECT cluster_id FROM ${schema}.birth`), birth);

  // An older dump: the log knows more.
  await server.sql(`DELETE FROM ${schema}.batch WHERE subject = 'orders'::bytea AND base > 3`);
  const done = await succeeded([...recover, '--discard-state', '--floor', String(3 * GAP)]);
  assert.deepEqual([done.largest_head, done.ids_beyond_store, done.floor], [5, 2, 3 * GAP]);
  await broker.restart();
  await withClient(broker, async (client) => {
    assert.deepEqual(await Promise.all([3, 4].map((id) => shown(client, 'orders', id))), ['order 3', 'ID_VOID']);
    assert.equal(await client.publish('orders', 'after'), 3 * GAP + 1);
    assert.equal(await client.publish('un.known', 'new'), 3 * GAP + 1);
  });
});
