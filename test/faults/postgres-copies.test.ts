/**
 * A broker whose data directory and whose PostgreSQL are not of one moment, and commits that arrive after the process that sent them is gone. The
 * late commit is made by stopping the server's process of a connection (SIGSTOP): what is sent to it waits in its socket until it goes on.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PostgresConnection } from '../../src/storage/postgres/connection.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess, BrokerStartError } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { copyTakesOver, overtakenUnderLoad } from './copied-directory.ts';
import { logLines } from './rig.ts';

/** In a slice that is 60 years wide: a test does not meet its end. */
const LONG_LIFE_SECONDS = 2_000_000_000;

class Rig {
  readonly server: PostgresServer;
  readonly broker: BrokerProcess;
  readonly client: BrokerClient;

  private constructor(server: PostgresServer, broker: BrokerProcess) {
    this.server = server;
    this.broker = broker;
    this.client = new BrokerClient(broker.address);
  }

  static async start(t: TestContext): Promise<Rig> {
    const server = await PostgresServer.start(['log_statement=all', 'log_line_prefix=%p ']);
    t.after(() => server.remove());
    const flags = ['--store', 'postgres', '--postgres-url', server.url, '--log-format', 'json'];
    // One shard, and no write that is repeated on another connection while the test holds the one that it is on.
    const broker = await BrokerProcess.create({ flags: [...flags, '--shards', '1', '--store-timeout', '60s'] });
    t.after(() => broker.dispose());
    const rig = new Rig(server, broker);
    t.after(() => rig.client.close());
    await broker.restart();
    return rig;
  }

  async publish(subject: string, body: string, expirationSeconds = 0): Promise<number> {
    return await this.client.publish({ subject, body: Buffer.from(body), expirationSeconds });
  }

  /** The body, or the reason why there is none. */
  async fetch(subject: string, id: number): Promise<string> {
    try {
      return Buffer.from((await this.client.fetch(subject, id)).body).toString();
    } catch (error) {
      if (error instanceof CallError && error.reason !== null) return error.reason;
      throw error;
    }
  }

  /** On a connection of its own, which is closed again: every other one is the broker's. */
  async #ask<Row>(text: string, values: readonly unknown[] = []): Promise<Row[]> {
    const connection = new PostgresConnection({
      url: this.server.url,
      schema: 'broker',
      pool: 1,
      timeoutMs: 10_000,
      tls: null,
    });
    try {
      return await connection.database.any<Row>(text, [...values]);
    } finally {
      connection.end();
    }
  }

  /** Base and kind, 1 data and 2 void mark, of every row of a subject. */
  async rows(subject: string): Promise<string[]> {
    const rows = await this.#ask<{ base: string; kind: number }>(
      'SELECT base, kind FROM broker.batch WHERE subject = $1 ORDER BY base, slice',
      [Buffer.from(subject)],
    );
    return rows.map(({ base, kind }) => `${base}:${kind}`);
  }

  /** Everything that the database has of messages. */
  async content(): Promise<unknown> {
    const order = 'ORDER BY subject, base, slice';
    return await this.#ask(`SELECT count(*), md5(string_agg(b::text, ' ' ${order})) FROM broker.batch b`);
  }

  /** Pids of the server's processes for the broker's connections. */
  backends(): number[] {
    const listed = execFileSync('ps', ['--ppid', String(this.server.pid), '-o', 'pid=,args='], { encoding: 'utf8' });
    const lines = listed.split('\n').filter((line) => line.includes('127.0.0.1('));
    return lines.map((line) => Number.parseInt(line, 10));
  }

  /** Stops the server's processes for the broker. `requestWaits` resolves when something waits in a socket for one that has written: others are asked other things. */
  async stopBackends(): Promise<{ readonly pids: number[]; readonly requestWaits: () => Promise<void> }> {
    const pids = this.backends();
    const writers = pids.filter((pid) => this.insertsOf([pid]) > 0);
    const rows = await this.#ask<{ port: number }>(
      'SELECT client_port AS port FROM pg_stat_activity WHERE pid = ANY($1)',
      [writers],
    );
    const hex = (port: number): string => `:${port.toString(16).toUpperCase().padStart(4, '0')}`;
    const [local, remotes] = [hex(this.server.port), rows.map(({ port }) => hex(port))];
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    const requestWaits = async (): Promise<void> => {
      for (;;) {
        const sockets = readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1);
        for (const socket of sockets) {
          const [, to = '', from = '', , queues = ''] = socket.trim().split(/\s+/);
          const isOurs = to.endsWith(local) && remotes.some((remote) => from.endsWith(remote));
          if (isOurs && Number.parseInt(queues.split(':')[1] as string, 16) > 0) return;
        }
        await sleep(5);
      }
    };
    return { pids, requestWaits };
  }

  /** Prepared inserts of data that one of the server's processes has begun. */
  insertsOf(pids: readonly number[]): number {
    const lines = readFileSync(join(this.server.folder, 'log'), 'utf8').split('\n');
    return lines.filter((line) => pids.some((pid) => line.startsWith(`${pid} `)) && line.includes('execute insert'))
      .length;
  }

  /** The last error of a start that has to fail with exit code 1. */
  async refusedStart(): Promise<{ readonly reason: string; readonly message: string }> {
    const failure = await this.broker.restart().then(
      () => null,
      (error: unknown) => error,
    );
    assert.ok(failure instanceof BrokerStartError, 'it has started');
    assert.deepEqual(failure.exit, { code: 1, signal: null }, failure.message);
    const last = logLines(this.broker.logs).findLast(({ level }) => level === 'error');
    assert.ok(last !== undefined, this.broker.logs);
    return last;
  }

  save(copy: string): void {
    cpSync(this.broker.dataDir, copy, { recursive: true });
  }

  putBack(copy: string): void {
    rmSync(this.broker.dataDir, { recursive: true });
    cpSync(copy, this.broker.dataDir, { recursive: true });
  }
}

async function ended(pids: readonly number[]): Promise<void> {
  const isThere = (pid: number): boolean => {
    try {
      return process.kill(pid, 0);
    } catch {
      return false;
    }
  };
  while (pids.some(isThere)) await sleep(10);
}

for (const [what, publish] of [
  ['a subject that the copy knows', (rig: Rig) => rig.publish('known', 'newer')],
  ['a subject that it does not', (rig: Rig) => rig.publish('unknown', 'newer')],
] as const) {
  test(`an older data directory beside a newer database, by ${what}: STORE_AHEAD_OF_LOG, and nothing is written; the right one starts`, async (t) => {
    const folder = temporaryFolder(t);
    const rig = await Rig.start(t);
    for (let i = 1; i <= 3; i++) assert.equal(await rig.publish('known', `m${i}`), i);
    await rig.broker.stop();
    rig.save(join(folder, 'older'));
    await rig.broker.restart();
    const id = await publish(rig);
    const subject = what.includes('not') ? 'unknown' : 'known';
    const verdict = await rig.fetch(subject, id);
    await rig.broker.stop();
    rig.save(join(folder, 'newer'));
    const before = await rig.content();
    rig.putBack(join(folder, 'older'));
    // Again and again: a start that was refused must not make the log look newer.
    for (let attempt = 0; attempt < 2; attempt++) {
      const { reason, message } = await rig.refusedStart();
      assert.equal(reason, 'STORE_AHEAD_OF_LOG');
      assert.match(
        message,
        new RegExp(`has id ${id} of subject "${subject}", but the log has given ids up to ${id - 1} only`),
      );
      assert.deepEqual(await rig.content(), before);
    }
    rig.putBack(join(folder, 'newer'));
    await rig.broker.restart();
    assert.deepEqual(await Promise.all([1, 2, 3].map((i) => rig.fetch('known', i))), ['m1', 'm2', 'm3']);
    assert.equal(await rig.fetch(subject, id), verdict);
    assert.equal(await rig.publish(subject, 'next'), id + 1);
  });
}

test('a copy of the log that lacks only the close of an acknowledged batch: it is found in the database, and stays', async (t) => {
  const folder = temporaryFolder(t);
  const rig = await Rig.start(t);
  await rig.publish('s', 'first');
  const { pids, requestWaits } = await rig.stopBackends();
  const published = rig.publish('s', 'second', LONG_LIFE_SECONDS);
  await requestWaits();
  rig.save(join(folder, 'open'));
  for (const pid of pids) process.kill(pid, 'SIGCONT');
  assert.equal(await published, 2);
  await rig.broker.kill();
  rig.putBack(join(folder, 'open'));
  await rig.broker.restart();
  assert.deepEqual([await rig.fetch('s', 1), await rig.fetch('s', 2)], ['first', 'second']);
  assert.equal(await rig.publish('s', 'third'), 3);
});

for (const [life, expirations] of [
  ['all of whose messages expire', [LONG_LIFE_SECONDS, 60]],
  ['of which one message never expires', [60, 0]],
] as const) {
  test(`[S12] a commit that arrives after the void mark of the next process, of a batch ${life}: the mark wins`, async (t) => {
    const rig = await Rig.start(t);
    using stream = await PublishStream.open(rig.broker.address, '');
    const send = (sequence: number): void => {
      const records = expirations.map((expirationSeconds) => ({
        body: Buffer.from('m'),
        headers: [],
        expirationSeconds,
      }));
      const batch = { subject: 's', sequence, records: { records }, expectedLastId: undefined };
      stream.write({ open: undefined, batches: [batch] });
    };
    // Makes the partition.
    send(1);
    assert.deepEqual(await stream.outcomes(1), ['1..2']);
    const { pids, requestWaits } = await rig.stopBackends();
    const insertsBefore = rig.insertsOf(pids);
    send(2);
    await requestWaits();
    await rig.broker.restart();
    assert.equal(await rig.fetch('s', 3), 'ID_VOID');
    for (const pid of pids) process.kill(pid, 'SIGCONT');
    await ended(pids);
    assert.equal(rig.insertsOf(pids), insertsBefore + 1, 'the late insert was not made');
    assert.deepEqual(await rig.rows('s'), ['1:1', '3:2']);
    await rig.broker.restart();
    assert.deepEqual(await Promise.all([3, 4].map((id) => rig.fetch('s', id))), ['ID_VOID', 'ID_VOID']);
    assert.equal(await rig.publish('s', 'next'), 5);
  });
}

test('an older database beside a newer log: DATA_LOSS at the start and to readers, and ids go on', async (t) => {
  const rig = await Rig.start(t);
  await rig.publish('s', 'kept');
  await rig.broker.stop();
  await rig.server.stop();
  const copy = join(rig.server.folder, 'copy');
  // With owners and permissions: the server insists on them.
  execFileSync('cp', ['-a', rig.server.data, copy]);
  await rig.server.run();
  await rig.broker.restart();
  const isWarned = (): boolean => logLines(rig.broker.logs).some(({ reason }) => reason === 'DATA_LOSS');
  assert.ok(!isWarned(), rig.broker.logs);
  await rig.publish('s', 'lost');
  await rig.broker.stop();
  await rig.server.stop();
  rmSync(rig.server.data, { recursive: true });
  execFileSync('cp', ['-a', copy, rig.server.data]);
  await rig.server.run();
  await rig.broker.restart();
  const found = logLines(rig.broker.logs).find(({ reason }) => reason === 'DATA_LOSS');
  assert.match(found?.message ?? '', /the database lacks acknowledged messages/);
  assert.deepEqual([await rig.fetch('s', 1), await rig.fetch('s', 2)], ['kept', 'DATA_LOSS']);
  assert.equal(await rig.publish('s', 'next'), 3);
  assert.equal(await rig.fetch('s', 3), 'next');
});

test('a copy of the data directory starts beside its original: that ends with DATA_DIRECTORY_COPIED, and is refused from then on', {
  timeout: 300_000,
}, async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  await copyTakesOver(t, { flags: [...server.brokerFlags(), '--log-format', 'json'] });
});

test('another process claims the database under load: the broker ends, no call hangs, and what was acknowledged is there', {
  timeout: 300_000,
}, async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const flags = server.brokerFlags();
  const claim = `UPDATE ${flags.at(-1)}.incarnation SET incarnation = 'theirs'`;
  await overtakenUnderLoad({ flags }, () => server.sql(claim));
});
