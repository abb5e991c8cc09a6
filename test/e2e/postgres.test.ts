/** What clients see of a broker whose messages are in PostgreSQL: every way of reading, trims, expiry, and a change of the shards. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { AdminClient } from '../../src/grpc/gen/broker/v1/admin.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient, type CallError } from '../support/client.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { follow, range, refusal, until } from './flow-rig.ts';

const server = await PostgresServer.start();
after(() => server.remove());

const texts = (from: number, to: number): string[] => range(from, to).map(String);

function start(...flags: string[]): Promise<BrokerProcess> {
  return startBroker({ flags: [...server.brokerFlags(), ...flags] });
}

/** Bodies are their numbers; batches of `size`, each acknowledged before the next. */
async function publishBatches(broker: BrokerProcess, subject: string, from: number, to: number, size: number) {
  using stream = await PublishStream.open(broker.address, '');
  for (let at = from, sequence = 1; at <= to; at += size, sequence++) {
    stream.send({ subject, sequence, bodies: texts(at, Math.min(to, at + size - 1)) });
    assert.deepEqual(await stream.outcomes(sequence), [`${at}..${Math.min(to, at + size - 1)}`]);
  }
}

/** Rows of the schema that a broker was started with. */
async function rowsOf(schema: string, subject: string): Promise<number> {
  const [row] = await server.sql<{ rows: string }>(`SELECT count(*) AS rows FROM ${schema}.batch WHERE subject = $1`, [
    Buffer.from(subject),
  ]);
  return Number(row?.rows);
}

describe('postgres', () => {
  it('streams begin at the earliest, at an id in the middle of a batch, at a time and new, by Subscribe and by Consume, before and after a restart', async () => {
    await using broker = await start('--shards', '2');
    const client = new BrokerClient(broker.address);
    const subject = 'c.start';
    await publishBatches(broker, subject, 1, 30, 10);
    // The clock of the log is the machine's, in ms.
    const before = Date.now();
    await until(
      () => Date.now() > before,
      () => 'time stands still',
    );
    const time = Date.now();
    await publishBatches(broker, subject, 31, 40, 10);
    const fresh = follow(client, subject, { at: 'new' });
    await fresh.live;
    const starts = [
      { consume: { earliest: true }, subscribe: { at: 'earliest' }, first: 1 },
      { consume: { id: 15 }, subscribe: { at: 'id', id: 15 }, first: 15 },
      { consume: { id: 35 }, subscribe: { at: 'id', id: 35 }, first: 35 },
      { consume: { time }, subscribe: { at: 'time', ms: time }, first: 31 },
    ] as const;
    const check = async (last: number): Promise<void> => {
      for (const { consume, subscribe, first } of starts) {
        using stream = await ConsumeStream.open(broker.address, [{ subject, ...consume }]);
        const subscriber = follow(client, subject, subscribe);
        await stream.until(() => stream.messages === last + 1 - first || stream.status !== undefined);
        await until(
          () => subscriber.ids.length === last + 1 - first,
          () => `${JSON.stringify(subscribe)}: ${subscriber.ids}`,
        );
        assert.deepEqual(stream.idsOf(subject), range(first, last));
        assert.deepEqual(stream.bodies.get(subject), texts(first, last));
        assert.deepEqual(stream.violations, []);
        assert.deepEqual(subscriber.ids, range(first, last));
        subscriber.subscription.cancel();
      }
    };
    await check(40);
    await publishBatches(broker, subject, 41, 45, 5);
    await until(
      () => fresh.ids.length === 5,
      () => fresh.ids,
    );
    assert.deepEqual(fresh.ids, range(41, 45));
    // Nothing of it is in memory any more: all comes out of the database.
    await broker.restart();
    await client.ready();
    await check(45);
    for (const id of [1, 10, 11, 45]) assert.equal((await client.fetch(subject, id)).body.toString(), String(id));
    assert.equal((await refusal(client.fetch(subject, 46))).reason, 'ID_NOT_FOUND');
    client.close();
  });

  it('a pattern has every subject, and a resume token goes on behind what was delivered, over a restart', async () => {
    await using broker = await start('--shards', '2');
    const subjects = range(1, 8).map((n) => `p.${n}.x`);
    for (const subject of subjects) await publishBatches(broker, subject, 1, 4, 2);
    await publishBatches(broker, 'other.1', 1, 2, 2);
    const open = (resumeToken: Buffer = Buffer.alloc(0)) =>
      ConsumeStream.open(broker.address, [{ subject: 'p.*.x', earliest: true }], { resumeToken });
    const first = await open();
    await first.until(() => first.messages === subjects.length * 4);
    await first.nextHeartbeat();
    const token = first.resumeToken;
    first.cancel();
    assert.deepEqual([...first.ids.keys()].sort(), subjects);
    for (const subject of subjects) await publishBatches(broker, subject, 5, 6, 1);
    await broker.restart();
    await publishBatches(broker, 'p.born.x', 1, 3, 3);
    using second = await open(token);
    await second.until(() => second.messages === subjects.length * 2 + 3 || second.status !== undefined);
    for (const subject of subjects) assert.deepEqual(second.idsOf(subject), [5, 6], subject);
    assert.deepEqual(second.idsOf('p.born.x'), [1, 2, 3]);
    assert.deepEqual([...first.violations, ...second.violations], []);
  });

  it('a broadcast reaches who listens, and is not in the database; a trim takes rows away for ever; an expired message is not read, after a restart neither', async () => {
    const flags = server.brokerFlags();
    const schema = flags.at(-1) as string;
    await using broker = await startBroker({ flags: [...flags, '--shards', '1'] });
    const client = new BrokerClient(broker.address);
    const bodies: string[] = [];
    const { promise: live, resolve: isLive } = Promise.withResolvers<void>();
    const listening = client.subscribe(
      'b.x',
      { at: 'new' },
      {
        onLive: () => isLive(),
        onMessage: ({ id, body }) => bodies.push(`${id} ${body}`),
      },
    );
    await live;
    assert.equal(await client.broadcast({ subject: 'b.x', body: Buffer.from('loud') }), true);
    await until(
      () => bodies.length === 1,
      () => bodies,
    );
    assert.deepEqual(bodies, ['0 loud']);
    assert.equal(await rowsOf(schema, 'b.x'), 0);
    listening.cancel();

    await publishBatches(broker, 't.x', 1, 12, 3);
    // 7 is in the middle of a batch, which stays for those above it.
    const admin = new AdminClient(broker.address, credentials.createInsecure());
    const first = await new Promise<number>((resolve, reject) =>
      admin.trimSubject({ subject: 't.x', first: 8, tenant: '' }, (error, answer) =>
        error ? reject(error) : resolve(answer.first),
      ),
    );
    admin.close();
    assert.equal(first, 8);
    await until(
      async () => (await rowsOf(schema, 't.x')) === 2,
      async () => 'the rows stay',
    );
    // Between the short one and its fetch is nothing but its own way to the database.
    const long = await client.publish({ subject: 'e.x', body: Buffer.from('long'), expirationSeconds: 3_600 });
    const short = await client.publish({ subject: 'e.x', body: Buffer.from('short'), expirationSeconds: 4 });
    assert.equal((await client.fetch('e.x', short)).body.toString(), 'short');
    await until(
      async () => (await client.fetch('e.x', short).catch((error: CallError) => error.reason)) === 'ID_EXPIRED',
      () => 'it does not expire',
    );
    const check = async (): Promise<void> => {
      using trimmed = await ConsumeStream.open(broker.address, [{ subject: 't.x', earliest: true }]);
      await trimmed.until(() => trimmed.messages === 5 || trimmed.status !== undefined);
      assert.deepEqual(trimmed.bodies.get('t.x'), texts(8, 12));
      assert.equal((await refusal(client.fetch('t.x', 7))).reason, 'ID_TRIMMED');
      using expired = await ConsumeStream.open(broker.address, [{ subject: 'e.x', earliest: true }]);
      await expired.until(() => expired.messages === 1 || expired.status !== undefined);
      assert.deepEqual(expired.bodies.get('e.x'), ['long']);
      assert.equal((await refusal(client.fetch('e.x', short))).reason, 'ID_EXPIRED');
      assert.equal((await client.fetch('e.x', long)).body.toString(), 'long');
    };
    await check();
    await broker.restart();
    await client.ready();
    await check();
    client.close();
  });
});
