/** `broker store copy` between real stores, and brokers that go on with the ids on the store that their messages were moved to. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, type ClientError, connect } from '../../src/client/index.ts';
import { PostgresConnection } from '../../src/storage/postgres/connection.ts';
import { chooseCassandra, choosePostgres, ServerMissing } from '../servers/chosen-server.ts';
import { Relay } from '../servers/relay.ts';
import { BrokerProcess, LAUNCHER } from '../support/broker.ts';
import { Terminal } from '../support/terminal.ts';
import { isUsable } from '../support/tools.ts';

interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** One for each line of JSON. */
  readonly rows: Record<string, unknown>[];
  readonly err: string;
}

interface Running {
  readonly pid: number;
  readonly ended: Promise<Ended>;
}

function storeCopy(dataDir: string, flags: readonly string[]): Running {
  const child = spawn(process.execPath, [LAUNCHER, 'store', 'copy', '-o', 'json', '--data-dir', dataDir, ...flags], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const [out, err] = [[] as string[], [] as string[]];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const ended = once(child, 'close').then(([code, signal]): Ended => {
    const lines = out.join('').split('\n').filter(Boolean);
    return { code, signal, rows: lines.map((line) => JSON.parse(line)), err: err.join('') };
  });
  return { pid: child.pid as number, ended };
}

async function copied(dataDir: string, flags: readonly string[]): Promise<Record<string, unknown>> {
  const { code, rows, err } = await storeCopy(dataDir, flags).ended;
  assert.equal(code, 0, err);
  return rows.at(-1) ?? {};
}

/** What people see of a run that does well: a bar that moves on, and nothing of it at the end. */
async function assertShownOnTerminal(dataDir: string, flags: readonly string[], ids: number): Promise<void> {
  const { NODE_OPTIONS: _, NODE_TEST_CONTEXT: __, ...rest } = process.env;
  const argv = [process.execPath, LAUNCHER, 'store', 'copy', '--data-dir', dataDir, ...flags];
  const env = { ...rest, UV_THREADPOOL_SIZE: '8' };
  await using terminal = new Terminal(argv, { rows: 24, columns: 80, cwd: process.cwd(), env });
  assert.equal(await terminal.ended(), 0, terminal.text);
  const bars = [...terminal.written.matchAll(/comparing \[#*\.*\] ([\d,]+) of ([\d,]+) ids, [\d.]+ MB\/s/g)];
  const done = bars.map(([, text = '']) => Number(text.replaceAll(',', '')));
  assert.ok(done.length > 0, terminal.text);
  assert.deepEqual(
    done,
    done.toSorted((left, right) => left - right),
  );
  assert.ok((done.at(-1) as number) <= ids, `${done.at(-1)} of ${ids}`);
  for (const [, , total] of bars) assert.equal(total, ids.toLocaleString('en-US'));
  assert.doesNotMatch(terminal.text, /comparing/);
}

/** Every message of a subject that can be fetched, and the reason for every id that cannot. */
async function contentOf(client: Client, subject: string): Promise<string[]> {
  const { head } = await client.subject(subject);
  const found: string[] = [];
  for (let id = 1; id <= head; id++) {
    const shown = client.fetch(subject, id).then(
      ({ body, headers, publishedAt, expirationSeconds }) =>
        JSON.stringify([id, Buffer.from(body).toString('base64'), headers, publishedAt, expirationSeconds]),
      (error: ClientError) => `${id} ${error.reason}`,
    );
    found.push(await shown);
  }
  return found;
}

async function contents(address: string, subjects: readonly string[]): Promise<Map<string, string[]>> {
  const client = connect(address);
  try {
    const found = new Map<string, string[]>();
    for (const subject of subjects) found.set(subject, await contentOf(client, subject));
    return found;
  } finally {
    await client.close();
  }
}

async function withClient(address: string, work: (client: Client) => Promise<void>): Promise<void> {
  const client = connect(address);
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

async function query({ url, schema }: Place, text: string): Promise<void> {
  const connection = new PostgresConnection({ url, schema, pool: 1, timeoutMs: 10_000, tls: null });
  try {
    await connection.database.none(text);
  } finally {
    connection.end();
  }
}

const PLAIN = ['orders', 'ü.orders', 'void', 'expiring', 'trimmed'];

/** Subjects with everything that a subject may have. */
async function fill(client: Client): Promise<void> {
  const every = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  for (let i = 0; i < 20; i++) await client.publish('orders', `order ${i}`, { headers: { n: String(i) } });
  await client.publish('ü.orders', Buffer.alloc(600_000, every));
  for (let i = 0; i < 3; i++) {
    await client.publish('void', `before ${i}`);
    await client.incrementId('void');
  }
  await client.publish('expiring', 'gone', { expirationSeconds: 1 });
  await client.publish('expiring', 'stays', { expirationSeconds: 86_400 });
  for (let i = 0; i < 10; i++) await client.publish('trimmed', `t${i}`);
  await client.trim('trimmed', 6);
  const isExpired = (error: ClientError): boolean => error.reason === 'ID_EXPIRED';
  while (!(await client.fetch('expiring', 1).then(() => false, isExpired))) await sleep(20);
}

/** A schema that nobody else has. */
interface Place {
  readonly url: string;
  readonly schema: string;
  /** Of a copy; `url`: another way to the server. */
  access(url?: string): string[];
  /** Of a broker. */
  readonly flags: string[];
}

/** A schema, and a broker on its own files. */
async function start(t: TestContext): Promise<{ place: Place; broker: BrokerProcess }> {
  const server = await choosePostgres();
  t.after(() => server.remove());
  const schema = newName();
  const { url } = server;
  const access = (way = url): string[] => ['--postgres-url', way, '--postgres-schema', schema];
  const broker = await BrokerProcess.create({ flags: ['--shards', '2'] });
  t.after(() => broker.dispose());
  await broker.restart();
  return { place: { url, schema, access, flags: server.flags(schema) }, broker };
}

/** Of a schema or a keyspace. */
function newName(): string {
  return `t_${randomBytes(6).toString('hex')}`;
}

test('embedded to postgres and back: every id has what it had, the next is head + 1, and the store before is refused', async (t) => {
  const { place, broker } = await start(t);
  const url = place.access();
  await withClient(broker.address, fill);
  const before = await contents(broker.address, PLAIN);
  assert.equal(before.get('void')?.filter((line) => line.endsWith('ID_VOID')).length, 3);
  const running = await storeCopy(broker.dataDir, ['--from', 'embedded', '--to', 'postgres', ...url]).ended;
  assert.match(running.err, /is in use by another process/);
  assert.equal(running.code, 1);
  await broker.stop();

  // Copied while the broker may go on with its old store afterwards, and what is new when it has.
  const early = await copied(broker.dataDir, ['--from', 'embedded', '--to', 'postgres', '--no-switch', ...url]);
  assert.deepEqual(
    [early.switched, early.differing_subjects, early.missing_ids, early.damaged_batches],
    [false, 0, 0, 0],
  );
  await broker.restart();
  await withClient(broker.address, async (client) => {
    assert.equal(await client.publish('orders', 'order 20'), 21);
  });
  await broker.stop();
  const late = await copied(broker.dataDir, ['--from', 'embedded', '--to', 'postgres', ...url]);
  assert.deepEqual([late.switched, late.copied_batches, late.found_batches], [true, 1, early.batches]);
  const again = await storeCopy(broker.dataDir, ['--from', 'embedded', '--to', 'postgres', ...url]).ended;
  assert.match(again.err, /copied already/);

  await assert.rejects(broker.restart(), /keeps its messages in a database \(postgres\)/);
  await broker.restart({ flags: place.flags });
  const moved = await contents(broker.address, PLAIN);
  assert.equal(moved.get('orders')?.length, 21);
  for (const subject of PLAIN)
    assert.deepEqual(moved.get(subject)?.slice(0, before.get(subject)?.length), before.get(subject));
  await withClient(broker.address, async (client) => {
    await publishNext(client, 'on postgres');
    assert.equal(await client.trim('trimmed', 8), 8);
  });
  const onPostgres = await contents(broker.address, PLAIN);
  await broker.stop();

  const back = await copied(broker.dataDir, ['--from', 'postgres', '--to', 'embedded', ...url]);
  assert.deepEqual([back.switched, back.copied_batches], [true, PLAIN.length]);
  await assert.rejects(broker.restart({ flags: place.flags }), /in its own segments/);
  await broker.restart({ flags: [] });
  assert.deepEqual(await contents(broker.address, PLAIN), onPostgres);
  await withClient(broker.address, async (client) => {
    const { head } = await client.subject('orders');
    assert.equal(await client.publish('orders', 'home again'), head + 1);
  });
});

test('a copy killed with -9 in the middle goes on: nothing is copied twice, and no byte is missing', async (t) => {
  const { place, broker } = await start(t);
  const { hostname, port } = new URL(place.url);
  const relay = await Relay.start(hostname, Number(port || 5432));
  t.after(() => relay.close());
  const subjects = Array.from({ length: 40 }, (_, i) => `bulk.${i}`);
  await withClient(broker.address, async (client) => {
    await using publisher = client.publisher();
    const body = Buffer.alloc(4_096, 'bulk ');
    for (let round = 0; round < 60; round++) {
      for (const subject of subjects) while (!publisher.tryPublish(subject, body)) await publisher.ready();
    }
    await publisher.flush();
  });
  await broker.stop();
  const flags = (url: string): string[] => [
    ...['--from', 'embedded', '--to', 'postgres', ...place.access(url), '--store-timeout', '60s'],
  ];
  // Of about 10 MB.
  const held = relay.holdAfter(4_000_000);
  const first = storeCopy(broker.dataDir, flags(relay.through(place.url)));
  await held;
  process.kill(first.pid, 'SIGKILL');
  assert.equal((await first.ended).signal, 'SIGKILL');
  relay.restore();
  const halfway = await storeCopy(broker.dataDir, [...flags(place.url), '--compare-only']).ended;
  assert.equal(halfway.code, 1);
  assert.ok(Number(halfway.rows.at(-1)?.differing_subjects) > 0);
  const second = await copied(broker.dataDir, flags(place.url));
  const [batches, copiedBatches, foundBatches] = ['batches', 'copied_batches', 'found_batches'].map((key) =>
    Number(second[key]),
  );
  assert.equal(Number(copiedBatches) + Number(foundBatches), batches);
  assert.ok(Number(foundBatches) > 0, 'the first run had copied something');
  assert.deepEqual([second.switched, second.messages, second.differing_subjects], [true, 2_400, 0]);
  if (isUsable('terminal')) await assertShownOnTerminal(broker.dataDir, [...flags(place.url), '--compare-only'], 2_400);
  await broker.restart({ flags: place.flags });
  await withClient(broker.address, async (client) => {
    for (const subject of subjects) assert.equal((await client.fetch(subject, 60)).body.length, 4_096);
    assert.equal(await client.publish('bulk.0', 'next'), 61);
  });
});

test('a broker that was killed has to be started and stopped before its messages move: nothing acknowledged is left behind', async (t) => {
  const { place, broker } = await start(t);
  const flags = ['--from', 'embedded', '--to', 'postgres', ...place.access()];
  const acked: number[] = [];
  await withClient(broker.address, async (client) => {
    // What is stored is told to the log with the next request for ids, so under load something is always open there.
    const publish = async (): Promise<void> => {
      for (;;) {
        acked.push(await client.publish('killed', 'x'));
        if (acked.length === 300) await broker.kill();
      }
    };
    await Promise.allSettled(Array.from({ length: 32 }, publish));
  });
  const refused = await storeCopy(broker.dataDir, flags).ended;
  assert.match(refused.err, /not stopped cleanly/);
  assert.equal(refused.code, 1);
  await broker.restart();
  await broker.stop();
  const summary = await copied(broker.dataDir, flags);
  assert.deepEqual([summary.switched, summary.missing_ids], [true, 0]);
  await broker.restart({ flags: place.flags });
  await withClient(broker.address, async (client) => {
    for (const id of acked) assert.equal((await client.fetch('killed', id)).text, 'x');
  });
});

test('what differs is told by subject and id; a target of another cluster is refused; the broker stays where it is', async (t) => {
  const { place, broker } = await start(t);
  const flags = ['--from', 'embedded', '--to', 'postgres', ...place.access()];
  await withClient(broker.address, fill);
  await broker.stop();
  await copied(broker.dataDir, [...flags, '--no-switch']);
  await query(place, `DELETE FROM ${place.schema}.batch WHERE subject = 'orders'::bytea AND base = 3`);
  const compared = await storeCopy(broker.dataDir, [...flags, '--compare-only', '--list']).ended;
  assert.equal(compared.code, 1);
  const rows = compared.rows.filter(({ subject }) => subject !== undefined);
  assert.deepEqual(rows.map(({ subject }) => subject).toSorted(), PLAIN.toSorted());
  assert.deepEqual(
    rows.filter(({ same }) => same === false).map(({ subject, difference }) => [subject, difference]),
    [['orders', 'the target lacks ids 3 to 3']],
  );
  // Rows under ids that the log never gave.
  await query(place, `UPDATE ${place.schema}.batch SET base = 100 WHERE subject = 'orders'::bytea AND base = 20`);
  const ahead = await storeCopy(broker.dataDir, flags).ended;
  assert.equal(ahead.code, 1);
  assert.match(String(ahead.rows[0]?.difference), /the target has id 100, the log has given ids up to 20 only/);

  const other = await BrokerProcess.create();
  t.after(() => other.dispose());
  await other.restart();
  await other.stop();
  const foreign = await storeCopy(other.dataDir, flags).ended;
  assert.match(foreign.err, /belongs to cluster/);
  assert.ok(!readdirSync(broker.dataDir).includes('STORE'));
  await broker.restart();
  assert.equal((await contents(broker.address, ['orders'])).get('orders')?.length, 20);
  assert.ok(readdirSync(join(broker.dataDir, 'segments')).length > 0);
});

test('embedded to cassandra, to postgres, to cassandra (killed with -9 in the middle) and back: every id has what it had, the next is head + 1', async (t) => {
  const cassandra = await chooseCassandra().catch((error: unknown) => {
    if (error instanceof ServerMissing) return error;
    throw error;
  });
  if (cassandra instanceof ServerMissing) return t.skip(cassandra.message);
  t.after(() => cassandra.remove());
  const { place, broker } = await start(t);
  const contact = cassandra.contactPoints.split(',', 1)[0] as string;
  const [host, port] = contact.split(':') as [string, string | undefined];
  const relay = await Relay.start(host, Number(port ?? 9042));
  t.after(() => relay.close());
  const move = (from: string, to: string, keyspace: string, way = contact): string[] => [
    ...['--from', from, '--to', to, ...place.access(), ...cassandra.access(way)],
    ...['--cassandra-keyspace', keyspace, '--store-timeout', '60s'],
  ];
  const [early, late] = [newName(), newName()];
  await withClient(broker.address, fill);
  const before = await contents(broker.address, PLAIN);
  await broker.stop();
  const first = await copied(broker.dataDir, move('embedded', 'cassandra', early));
  assert.deepEqual([first.switched, first.differing_subjects, first.copied_batches], [true, 0, first.batches]);
  // The database before is refused as the one behind it: both name the same cluster.
  await assert.rejects(broker.restart({ flags: place.flags }), /in a database \(cassandra\)/);
  const second = await copied(broker.dataDir, move('cassandra', 'postgres', early));
  assert.deepEqual([second.switched, second.batches, second.bytes], [true, first.batches, first.bytes]);
  await broker.restart({ flags: place.flags });
  assert.deepEqual(await contents(broker.address, PLAIN), before);
  await withClient(broker.address, (client) => publishNext(client, 'on postgres'));
  const onPostgres = await contents(broker.address, PLAIN);
  await broker.stop();

  // Of about 620 kB, most of which is one message.
  const held = relay.holdAfter(200_000);
  const cut = storeCopy(broker.dataDir, move('postgres', 'cassandra', late, `127.0.0.1:${relay.port}`));
  await held;
  process.kill(cut.pid, 'SIGKILL');
  assert.equal((await cut.ended).signal, 'SIGKILL');
  const third = await copied(broker.dataDir, move('postgres', 'cassandra', late));
  assert.deepEqual([third.switched, third.differing_subjects, third.missing_ids], [true, 0, 0]);
  assert.equal(Number(third.copied_batches) + Number(third.found_batches), third.batches);
  assert.ok(Number(third.copied_batches) > 0, 'the message that was held back');
  assert.equal(third.batches, Number(first.batches) + PLAIN.length);
  const onCassandra = cassandra.flags(late);
  await assert.rejects(broker.restart({ flags: place.flags }), /in a database \(cassandra\)/);
  await broker.restart({ flags: onCassandra });
  assert.deepEqual(await contents(broker.address, PLAIN), onPostgres);
  await withClient(broker.address, (client) => publishNext(client, 'on cassandra'));
  const last = await contents(broker.address, PLAIN);
  await broker.stop();

  const home = await copied(broker.dataDir, move('cassandra', 'embedded', late));
  // What was published elsewhere meanwhile is new to the broker's own files; the rest they have still.
  assert.deepEqual(
    [home.switched, home.differing_subjects, home.copied_batches, home.found_batches],
    [true, 0, 2 * PLAIN.length, first.batches],
  );
  await assert.rejects(broker.restart({ flags: onCassandra }), /in its own segments/);
  await broker.restart({ flags: [] });
  assert.deepEqual(await contents(broker.address, PLAIN), last);
  await withClient(broker.address, (client) => publishNext(client, 'home again'));
});

/** The next message of every subject, under the id behind its head. */
async function publishNext(client: Client, body: string): Promise<void> {
  for (const subject of PLAIN) {
    const { head } = await client.subject(subject);
    assert.equal(await client.publish(subject, body), head + 1);
  }
}
