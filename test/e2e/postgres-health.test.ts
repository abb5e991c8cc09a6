/** How a broker takes what happens to its database beside its own writes: readiness while nobody publishes, changed tables, broken answers, expired partitions. */
import assert from 'node:assert/strict';
import { createServer, connect as dial, type Socket } from 'node:net';
import { after, describe, it, type TestContext } from 'node:test';
import { connectWithClient } from '../../src/cli/client-connection.ts';
import { sliceOf } from '../../src/storage/postgres/slices.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { Relay } from '../servers/relay.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { lookupStorm } from '../support/lookup-storm.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { refusal, until } from './flow-rig.ts';

const server = await PostgresServer.start();
after(() => server.remove());

const BODY = Buffer.from('body');

function schemaOf(flags: readonly string[]): string {
  return flags[flags.indexOf('--postgres-schema') + 1] as string;
}

async function readiness(broker: BrokerProcess): Promise<string> {
  const response = await fetch(`http://${broker.adminAddress}/readyz`);
  return `${response.status} ${((await response.json()) as { reasons: string[] }).reasons}`;
}

async function untilReadiness(broker: BrokerProcess, wanted: RegExp): Promise<void> {
  let seen = '';
  await until(
    async () => {
      seen = await readiness(broker);
      return wanted.test(seen);
    },
    () => `${seen}\n${broker.logs}`,
  );
}

async function warnings(broker: BrokerProcess): Promise<string> {
  const interrupt = new AbortController().signal;
  const admin = connectWithClient({ addresses: [broker.address], timeoutMs: 10_000, interrupt });
  const status = await admin.status();
  await admin.close();
  return status.warnings.join('\n');
}

/** Takes messages again, by the same process. */
async function untilTaken(broker: BrokerProcess, client: BrokerClient, subject: string): Promise<number> {
  let id = 0;
  await until(
    async () => {
      id = await client.publish({ subject, body: BODY }).catch(() => 0);
      return id > 0;
    },
    () => broker.logs,
  );
  return id;
}

describe('readiness, while nobody publishes', () => {
  it('follows a database that goes away and comes back, and one that becomes read-only, and says which', async (t) => {
    await using broker = await startBroker({ flags: server.brokerFlags() });
    t.after(() => server.configure({ default_transaction_read_only: null }));
    const { pid } = broker;
    await server.stop();
    await untilReadiness(broker, /^503 STORE_UNAVAILABLE: .*\(it does not answer\)/);
    assert.match(await warnings(broker), /new messages are refused: STORE_UNAVAILABLE: .*\(it does not answer\)/);
    await server.run();
    await untilReadiness(broker, /^200 $/);
    await server.configure({ default_transaction_read_only: 'on' });
    await untilReadiness(broker, /^503 STORE_UNAVAILABLE: .*\(the database is read-only\)/);
    await server.configure({ default_transaction_read_only: null });
    await untilReadiness(broker, /^200 $/);
    assert.equal(await warnings(broker), '');
    assert.equal(broker.pid, pid);
  });
});

describe('settings that lose acknowledged messages', () => {
  it('are told while the broker runs, by log, status, metric and the answers of streams, and so is their end', async (t) => {
    await using broker = await startBroker({ flags: server.brokerFlags() });
    t.after(() => server.configure({ synchronous_commit: null }));
    const { pid } = broker;
    const metric = async (): Promise<string> => {
      const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
      return /^broker_store_weak (\d)$/m.exec(text)?.[1] ?? text;
    };
    const told = async (wanted: RegExp): Promise<void> => {
      let seen = '';
      await until(
        async () => {
          seen = await warnings(broker);
          return wanted.test(seen);
        },
        () => `${seen}\n${broker.logs}`,
      );
    };
    assert.equal(await metric(), '0');
    await server.configure({ synchronous_commit: 'off' });
    await told(/^acknowledged messages are replicated, not durable: synchronous_commit is off/);
    assert.equal(await metric(), '1');
    const logged = (line: RegExp): Promise<void> =>
      until(
        () => line.test(broker.logs),
        () => broker.logs,
      );
    await logged(/STORE_WEAK.*synchronous_commit is off/);
    assert.match(await readiness(broker), /^200 /);
    {
      using stream = await PublishStream.open(broker.address, 'p');
      assert.equal(stream.opened?.durability, 2);
    }
    await server.configure({ synchronous_commit: null });
    await told(/^$/);
    assert.equal(await metric(), '0');
    await logged(/a weakness of the database is gone/);
    assert.equal(broker.pid, pid);
  });
});

describe('a shard thread that starts while the settings of the database lose acknowledged messages', () => {
  it('serves as the others do, which were there before', async (t) => {
    const flags = [...server.brokerFlags(), '--shards', '1', '--shards-max', '2'];
    await using broker = await startBroker({ flags });
    t.after(() => server.configure({ synchronous_commit: null }));
    await server.configure({ synchronous_commit: 'off' });
    await until(
      () => /STORE_WEAK.*synchronous_commit is off/.test(broker.logs),
      () => broker.logs,
    );
    const interrupt = new AbortController().signal;
    const admin = connectWithClient({ addresses: [broker.address], timeoutMs: 30_000, interrupt });
    t.after(() => admin.close());
    await admin.resizeShards(2);
    await until(
      async () => !(await admin.listShards()).change.running,
      () => broker.logs,
    );
    const { change, shards } = await admin.listShards();
    assert.deepEqual([change.error, shards.length], ['', 2]);
    const client = new BrokerClient(broker.address);
    t.after(() => client.close());
    for (const subject of ['a', 'b', 'c', 'd']) assert.equal(await client.publish({ subject, body: BODY }), 1);
  });
});

describe('a trim that the database did not carry out', () => {
  it('is repeated until it is, without another trim of the subject', async () => {
    const flags = server.brokerFlags();
    const schema = schemaOf(flags);
    await using broker = await startBroker({ flags: [...flags, '--shards', '1', '--store-timeout', '2s'] });
    const client = new BrokerClient(broker.address);
    for (let id = 1; id <= 4; id++) assert.equal(await client.publish({ subject: 'trimmed', body: BODY }), id);
    const rows = async (): Promise<number> => (await server.sql(`SELECT base FROM ${schema}.batch`)).length;
    await server.sql(
      `CREATE FUNCTION ${schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$`,
    );
    await server.sql(
      `CREATE TRIGGER refuse BEFORE DELETE ON ${schema}.batch FOR EACH ROW EXECUTE FUNCTION ${schema}.refuse()`,
    );
    const interrupt = new AbortController().signal;
    const admin = connectWithClient({ addresses: [broker.address], timeoutMs: 10_000, interrupt });
    await admin.trim('trimmed', 3);
    await admin.close();
    await until(
      () => broker.logs.includes('trimmed messages are still in the database'),
      () => broker.logs,
    );
    assert.equal(await rows(), 4);
    await server.sql(`DROP TRIGGER refuse ON ${schema}.batch`);
    await until(
      async () => (await rows()) === 2,
      () => broker.logs,
    );
    client.close();
  });
});

describe('a database far away', () => {
  it('with more lookups than connections takes every publish, and the broker stays ready', async (t) => {
    const relay = await Relay.start('127.0.0.1', server.port);
    t.after(() => relay.close());
    const flags = [...server.brokerFlags(relay.through(server.url)), '--store-timeout', '3s', '--shards', '1'];
    await using broker = await startBroker({ flags });
    await lookupStorm(broker, () => relay.delayReplies(40));
  });
});

describe('a table that is changed under the broker', () => {
  for (const [what, change, back] of [
    ['is gone', 'ALTER TABLE $.batch RENAME TO other', 'ALTER TABLE $.other RENAME TO batch'],
    ['has other columns', 'ALTER TABLE $.batch RENAME bytes TO octets', 'ALTER TABLE $.batch RENAME octets TO bytes'],
    [
      'refuses every row',
      'ALTER TABLE $.batch ADD CONSTRAINT nothing CHECK (base < 0) NOT VALID',
      'ALTER TABLE $.batch DROP CONSTRAINT nothing',
    ],
  ] as const) {
    it(`${what}: messages are refused until it is back, and the process lives`, async () => {
      const flags = server.brokerFlags();
      await using broker = await startBroker({ flags });
      const client = new BrokerClient(broker.address);
      const { pid } = broker;
      const schema = schemaOf(flags);
      assert.equal(await client.publish({ subject: 'changed', body: BODY }), 1);
      await server.sql(change.replaceAll('$', schema));
      const refused = await refusal(client.publish({ subject: 'changed', body: BODY }));
      assert.equal(`${refused.statusName} ${refused.reason} ${refused.outcome}`, 'UNAVAILABLE STORE_UNAVAILABLE none');
      await server.sql(back.replaceAll('$', schema));
      const id = await untilTaken(broker, client, 'changed');
      assert.deepEqual((await client.fetch('changed', 1)).body, BODY);
      assert.deepEqual((await client.fetch('changed', id)).body, BODY);
      assert.equal(broker.pid, pid);
      client.close();
    });
  }
});

/** In front of the server; while `isMad` every answer of it is replaced by bytes that are no message of its protocol. */
async function madProxy(t: TestContext): Promise<{ url: string; isMad: boolean }> {
  const target = new URL(server.url);
  const port = Number(target.port);
  const sockets = new Set<Socket>();
  const proxy = { url: '', isMad: false };
  const listener = createServer((client) => {
    const upstream = dial(port, '127.0.0.1');
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => socket.destroy());
    }
    client.pipe(upstream);
    upstream.on('data', (data) => client.write(proxy.isMad ? Buffer.alloc(data.length, 0x21) : data));
    client.on('close', () => upstream.destroy());
    upstream.on('close', () => client.destroy());
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    listener.close();
  });
  target.port = String((listener.address() as { port: number }).port);
  target.hostname = '127.0.0.1';
  proxy.url = String(target);
  return proxy;
}

describe('answers that are no answers', () => {
  it('and sessions that are ended leave the broker alive: what was acknowledged is there, and it takes messages again', async (t) => {
    const proxy = await madProxy(t);
    await using broker = await startBroker({ flags: [...server.brokerFlags(proxy.url), '--store-timeout', '2s'] });
    const client = new BrokerClient(broker.address);
    const { pid } = broker;
    assert.equal(await client.publish({ subject: 'mad', body: BODY }), 1);
    proxy.isMad = true;
    const refused = await refusal(client.publish({ subject: 'mad', body: BODY }));
    assert.equal(`${refused.statusName} ${refused.reason} ${refused.outcome}`, 'UNAVAILABLE STORE_UNAVAILABLE none');
    proxy.isMad = false;
    const id = await untilTaken(broker, client, 'mad');
    assert.ok((await server.endSessions()) > 0);
    const next = await untilTaken(broker, client, 'mad');
    assert.ok(next > id);
    for (const each of [1, id, next]) assert.deepEqual((await client.fetch('mad', each)).body, BODY);
    assert.equal(broker.pid, pid);
    client.close();
  });
});

describe('a shard thread that dies while the database is away', () => {
  /** Of the third message; a replacement counts from the beginning. */
  const env = { BROKER_FAILPOINTS: 'shard.before-append=throw@3' };

  let isAway = false;
  async function bringBack(): Promise<void> {
    if (isAway) await server.run();
    isAway = false;
  }

  async function dieWhileAway(t: TestContext): Promise<{ broker: BrokerProcess; client: BrokerClient }> {
    const broker = await startBroker({ flags: [...server.brokerFlags(), '--shards', '1'], env });
    t.after(() => broker.dispose());
    const client = new BrokerClient(broker.address);
    t.after(() => client.close());
    for (const id of [1, 2]) assert.equal(await client.publish({ subject: 'orphan', body: BODY }), id);
    await server.stop();
    isAway = true;
    t.after(bringBack);
    assert.equal((await refusal(client.publish({ subject: 'orphan', body: BODY }))).outcome, 'unknown');
    await until(
      () => /the database is waited for/.test(broker.logs),
      () => broker.logs,
    );
    return { broker, client };
  }

  it('is replaced; its subjects are refused with a delay until the database is back, and then what was open is resolved', async (t) => {
    const { broker, client } = await dieWhileAway(t);
    const { pid } = broker;
    for (const call of [() => client.publish({ subject: 'orphan', body: BODY }), () => client.fetch('orphan', 1)]) {
      const { statusName, outcome, retryAfterMs } = await refusal(call());
      assert.equal(`${statusName} ${outcome}`, 'UNAVAILABLE none');
      assert.ok((retryAfterMs ?? 0) > 0, 'no RetryInfo');
    }
    await untilReadiness(broker, /^503 STORE_UNAVAILABLE/);
    await bringBack();
    assert.equal(await untilTaken(broker, client, 'orphan'), 4);
    for (const id of [1, 2, 4]) assert.deepEqual((await client.fetch('orphan', id)).body, BODY);
    assert.equal((await refusal(client.fetch('orphan', 3))).reason, 'ID_VOID');
    await untilReadiness(broker, /^200 $/);
    assert.equal(broker.pid, pid);
    assert.equal(broker.logs.match(/a shard thread died/g)?.length, 1);
  });

  it('does not hold up the end of the broker', async (t) => {
    const { broker } = await dieWhileAway(t);
    assert.equal((await broker.stop()).code, 0, broker.logs);
  });
});

describe('[P8] partitions', () => {
  it('in which everything has expired are dropped by the broker, and the others stay', async () => {
    const flags = server.brokerFlags();
    await using broker = await startBroker({ flags });
    const client = new BrokerClient(broker.address);
    const schema = schemaOf(flags);
    await client.publish({ subject: 'kept', body: BODY });
    await client.publish({ subject: 'kept', body: BODY, expirationSeconds: 3_600 });
    client.close();
    const partitions = async (): Promise<string[]> => {
      const rows = await server.sql<{ name: string }>(
        'SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = to_regclass($1)',
        [`${schema}.batch`],
      );
      return rows.map(({ name }) => name).sort();
    };
    const kept = await partitions();
    assert.equal(kept.length, 2);
    // Of a message that was published an hour ago, to live for a minute.
    const over = sliceOf(Date.now() - 3_600_000, 60);
    await server.sql(
      `CREATE TABLE ${schema}.batch_${over} PARTITION OF ${schema}.batch FOR VALUES FROM ('${over}') TO ('${over + 1}')`,
    );
    assert.equal((await partitions()).length, 3);
    await broker.restart();
    await until(
      async () => (await partitions()).length === 2,
      () => broker.logs,
    );
    assert.deepEqual(await partitions(), kept);
  });
});
