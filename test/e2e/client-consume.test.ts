/** Subscriptions of the client over Consume: several subjects, patterns, credit, and restarts of the broker under them. */
import assert from 'node:assert/strict';
import { after, it } from 'node:test';
import { connect, type Message, type MessageBatch } from '../../src/client/index.ts';
import { startBroker } from '../support/broker.ts';

const broker = await startBroker();
const client = connect(broker.address);

after(async () => {
  await client.close();
  await broker.dispose();
});

let counter = 0;
const newPrefix = (): string => `consume-${++counter}`;

async function collect(messages: AsyncIterable<Message>, count: number): Promise<Message[]> {
  const found: Message[] = [];
  for await (const message of messages) {
    found.push(message);
    if (found.length === count) break;
  }
  return found;
}

/** Ids are 1, 2, 3, … for each subject. */
function assertOrdered(messages: readonly Message[]): Map<string, number> {
  const heads = new Map<string, number>();
  for (const { subject, id } of messages) {
    assert.equal(id, (heads.get(subject) ?? 0) + 1, `${subject} ${id}`);
    heads.set(subject, id);
  }
  return heads;
}

it('several subjects and a pattern come on one stream, each in order, new subjects too', async () => {
  const prefix = newPrefix();
  await using publisher = client.publisher();
  await publisher.publishMany(`${prefix}.a`, ['1', '2', '3']);
  await publisher.publishMany(`${prefix}-other`, ['1', '2']);
  const subscription = client.subscribe([`${prefix}.*`, `${prefix}-other`], { start: 'earliest' });
  const collected = collect(subscription, 8);
  await subscription.started;
  await publisher.publishMany(`${prefix}.b`, ['1', '2', '3']);
  const heads = assertOrdered(await collected);
  assert.deepEqual(
    [...heads].sort(),
    [
      [`${prefix}-other`, 2],
      [`${prefix}.a`, 3],
      [`${prefix}.b`, 3],
    ].sort(),
  );
  assert.equal(subscription.streams, 1);
});

it('what is published after the start of a new subscription comes, what was before does not', async () => {
  const subject = newPrefix();
  await client.publish(subject, 'before', { headers: { k: 'v' } });
  const subscription = client.subscribe(subject);
  await subscription.started;
  const collected = collect(subscription, 1);
  await client.publish(subject, 'after', { headers: { k: 'w' }, expirationSeconds: 60 });
  const [message] = await collected;
  assert.equal(message?.text, 'after');
  assert.equal(message?.id, 2);
  assert.equal(String(message?.headers[0]?.value), 'w');
  assert.equal(message?.expirationSeconds, 60);
});

it('[F2] a reader that stops is sent its credit and no more, and gets all of it when it goes on', async () => {
  const subject = newPrefix();
  await using publisher = client.publisher({ batchBytes: 16 * 1024 });
  const COUNT = 2_000;
  const published: Promise<unknown>[] = [];
  for (let i = 0; i < COUNT / 10; i++)
    published.push(publisher.publishMany(subject, Array(10).fill(Buffer.alloc(1_000))));
  await Promise.all(published);
  const subscription = client.subscribe(subject, { start: 'earliest', credit: { bytes: 100_000 } });
  await subscription.started;
  let taken = 0;
  for await (const batch of subscription.batches()) {
    taken += batch.count;
    assert.equal(batch.lastId, taken);
    if (taken === COUNT) break;
  }
  assert.equal(taken, COUNT);
});

it('[P6] patterns and subjects go on over restarts of the broker: each id once, in order', async (t) => {
  const own = await startBroker();
  const near = connect(own.address);
  t.after(async () => {
    await near.close();
    await own.dispose();
  });
  const publisher = near.publisher({ batchBytes: 2_048 });
  const SUBJECTS = 5;
  const COUNT = 4_000;
  const subscriptions = [
    near.subscribe('r.*', { start: 'earliest', heartbeatMs: 100 }),
    near.subscribe('r.>', { start: 'new', heartbeatMs: 100 }),
    near.subscribe(
      Array.from({ length: SUBJECTS }, (_, i) => `r.${i}`),
      { start: 'earliest' },
    ),
  ];
  const readers = subscriptions.map((subscription) => collect(subscription, COUNT));
  for (const subscription of subscriptions) await subscription.started;
  for (let i = 0; i < COUNT; i++) {
    const published = publisher.publish(`r.${i % SUBJECTS}`, String(i));
    if (i % 100 === 0) await published;
    else published.catch(() => undefined);
    if (i % 1_000 === 999) {
      await publisher.flush();
      await own.restart();
    }
  }
  await publisher.close();
  for (const messages of await Promise.all(readers)) {
    const heads = assertOrdered(messages);
    assert.deepEqual([...heads.values()], Array(SUBJECTS).fill(COUNT / SUBJECTS));
  }
  assert.ok(subscriptions.every(({ streams }) => streams > 1));
});

it('a subscription that is closed ends its loop, and says where it stood', async () => {
  const subject = newPrefix();
  await client.publish(subject, 'x');
  const subscription = client.subscribe(subject, { start: 'earliest', heartbeatMs: 100 });
  const batches: MessageBatch[] = [];
  for await (const batch of subscription.batches()) {
    batches.push(batch);
    break;
  }
  await subscription.closed;
  const [position] = subscription.positions;
  assert.equal(position?.subject, subject);
  assert.equal(position?.nextId, 2);
});
