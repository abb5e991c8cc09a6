/** What a real broker process says of its subscriptions, connections and subjects. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type Client, connect } from '../../src/client/index.ts';
import { type OpenSubscription, SubscriptionOrder } from '../../src/grpc/gen/broker/v1/inspect.ts';
import { startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { until } from '../support/until.ts';

const FLAGS = ['--shards', '2'];

/** Asks until `holds`; what is shared for half a second is asked for again. */
async function untilListed(
  client: Client,
  holds: (rows: readonly OpenSubscription[]) => boolean,
  request: Parameters<Client['subscriptions']>[0] = {},
) {
  let last = await client.subscriptions(request);
  await until(
    async () => {
      last = await client.subscriptions(request);
      return holds(last.subscriptions);
    },
    () => JSON.stringify(last),
  );
  return last;
}

describe('what runs on a node', () => {
  it('subscriptions: where each stands, how far it is behind, and why', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await using client = connect(broker.address, { retries: false });
    const reader = new BrokerClient(broker.address);
    for (let n = 0; n < 10; n++) await client.publish('lag.a', `message ${n}`);
    await client.publish('lag.b', 'one');
    using poor = await ConsumeStream.open(broker.address, [{ subject: 'lag.*', earliest: true }], { credit: null });
    const got: number[] = [];
    reader.subscribe('lag.a', { at: 'earliest' }, { onMessage: ({ id }) => got.push(id) });
    await until(
      () => got.length === 10,
      () => `${got.length} messages`,
    );

    const listed = await untilListed(client, (rows) => rows.length === 3 && rows[0]?.lag === 10);
    assert.equal(listed.total, 3);
    assert.equal(listed.lagMax, 10);
    const [a, b, tail] = listed.subscriptions;
    const shown = (row: OpenSubscription | undefined) =>
      row && [row.kind, row.subject, row.pattern, row.sent, row.settled, row.lag, row.state, row.messages, row.tenant];
    assert.deepEqual(shown(a), ['consume', 'lag.a', 'lag.*', 0, 10, 10, 'waiting', 0, 'default']);
    assert.deepEqual(shown(b), ['consume', 'lag.b', 'lag.*', 0, 1, 1, 'waiting', 0, 'default']);
    assert.deepEqual(shown(tail), ['subscribe', 'lag.a', '', 10, 10, 0, 'tail', 10, 'default']);
    assert.equal(a?.id, b?.id, 'subjects of one stream share its number');
    assert.notEqual(a?.id, tail?.id);
    assert((a?.id ?? 0) > 0);
    assert.match(a?.peer ?? '', /^127\.0\.0\.1:\d+$/);
    assert((tail?.bytes ?? 0) > 100);

    poor.grant(2 ** 30, 100);
    const level = await untilListed(client, (rows) => rows.every(({ lag, state }) => lag === 0 && state === 'tail'));
    assert.equal(level.lagMax, 0);
    reader.close();
  });

  it('subscriptions: in the order that is asked for, as many as are asked for, of the subjects that begin with a prefix', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await using client = connect(broker.address, { retries: false });
    const subjects = Array.from({ length: 20 }, (_, n) => `o.${String(n).padStart(2, '0')}`);
    for (const [n, subject] of subjects.entries()) {
      for (let m = 0; m < n % 5; m++) await client.publish(subject, 'm');
    }
    const specs = subjects.map((subject) => ({ subject, earliest: true }));
    using stream = await ConsumeStream.open(broker.address, specs, { credit: null });
    assert.equal(stream.isComplete, true);
    await untilListed(client, (rows) => rows.length === 20 && rows[0]?.lag === 4);
    const names = async (request: Parameters<Client['subscriptions']>[0]) =>
      (await client.subscriptions(request)).subscriptions.map(({ subject }) => subject);
    const bySubject = SubscriptionOrder.SUBSCRIPTION_ORDER_SUBJECT;
    assert.deepEqual(await names({ limit: 3 }), ['o.04', 'o.09', 'o.14']);
    assert.deepEqual(await names({ order: bySubject, limit: 2 }), ['o.00', 'o.01']);
    assert.deepEqual(await names({ order: bySubject, prefix: 'o.1', limit: 2 }), ['o.10', 'o.11']);
    assert.deepEqual(await names({ prefix: 'nothing' }), []);
    const { total, lagMax } = await client.subscriptions({ prefix: 'nothing' });
    assert.deepEqual([total, lagMax], [20, 4], 'of the node, shown or not');
    await assert.rejects(client.subscriptions({ prefix: 'x'.repeat(256) }), /SUBJECT_TOO_LONG|longer than 255/);
  });

  it('connections: who is there, with what the socket has carried and what is open on it', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await using client = connect(broker.address, { retries: false });
    using stream = await PublishStream.open(broker.address, '');
    const body = Buffer.alloc(50_000, 7);
    stream.send({ subject: 'c.big', sequence: 1, bodies: [body] });
    await stream.settled(1);
    const reader = new BrokerClient(broker.address);
    const live: number[] = [];
    for (let n = 0; n < 3; n++) {
      reader.subscribe('c.quiet', { at: 'new' }, { onMessage: () => undefined, onLive: () => live.push(n) });
    }
    await until(
      () => live.length === 3,
      () => `${live.length} live`,
    );
    const { connections, total } = await client.connections();
    assert.equal(total, 3);
    const [busiest] = connections;
    assert((busiest?.bytesIn ?? 0) > body.length, `${busiest?.bytesIn} bytes`);
    assert.deepEqual([busiest?.publishStreams, busiest?.subscriptions, busiest?.calls], [1, 0, 1]);
    const subscribed = connections.find(({ subscriptions }) => subscriptions > 0);
    assert.deepEqual([subscribed?.subscriptions, subscribed?.calls, subscribed?.callsTotal], [3, 3, 3]);
    assert.match(subscribed?.agent ?? '', /^grpc-node-js\//);
    assert.match(subscribed?.peer ?? '', /^127\.0\.0\.1:\d+$/);
    assert.equal((await client.connections(1)).connections.length, 1);
    await using other = connect(broker.address, { tenant: 'acme' });
    await other.health();
    await until(
      async () => (await client.connections()).connections.filter(({ tenant }) => tenant === 'acme').length === 1,
      () => 'no connection of the tenant',
    );
    await other.close();
    reader.close();
    await until(
      async () => (await client.connections()).total === 2,
      () => 'a closed connection is still there',
    );
  });

  it('subjects: those that most is published to, with their shard and rate', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await using client = connect(broker.address, { retries: false });
    let subjects: Awaited<ReturnType<Client['topSubjects']>>['subjects'] = [];
    await until(
      async () => {
        await Promise.all(Array.from({ length: 30 }, () => client.publish('t.hot', 'x')));
        await client.publish('t.cold', 'x');
        ({ subjects } = await client.topSubjects());
        return subjects.length === 2 && (subjects[0]?.share ?? 0) > 0.9;
      },
      () => JSON.stringify(subjects),
    );
    assert.deepEqual(
      subjects.map(({ subject }) => subject),
      ['t.hot', 't.cold'],
    );
    assert((subjects[0]?.messagesPerSecond ?? 0) > (subjects[1]?.messagesPerSecond ?? 0));
    assert.equal((await client.topSubjects(1)).subjects.length, 1);
  });

  it('is the same answer for all who ask within half a second, and too many different questions are refused', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await using client = connect(broker.address, { retries: false });
    const answers = await Promise.allSettled(
      Array.from({ length: 60 }, (_, n) => client.subscriptions({ prefix: `p${n}` })),
    );
    const refused = answers.filter(({ status }) => status === 'rejected');
    assert(refused.length > 0 && refused.length < 60, `${refused.length} refused`);
    for (const answer of refused) assert.equal((answer as PromiseRejectedResult).reason.reason, 'IN_FLIGHT_FULL');
    const same = await Promise.allSettled(Array.from({ length: 60 }, () => client.connections()));
    await until(
      async () => (await Promise.allSettled([client.connections()]))[0].status === 'fulfilled',
      () => JSON.stringify(same.map(({ status }) => status)),
    );
  });
});
