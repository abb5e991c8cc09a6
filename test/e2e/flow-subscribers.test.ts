/** Slow, stalled and short-lived subscribers of a real broker process. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { follow, Metrics, MIB, numbered, pause, publishAll, range, rssOf, until } from './flow-rig.ts';

const RESOURCE_EXHAUSTED = 8;

describe('a subscriber that never reads', () => {
  it('[F2] costs at most 32 MiB while 96 MiB go past it in bodies of 256 KiB, and delays nobody for ever', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({
      flags: ['--shards', '1', '--subscribe-buffer-bytes', '256KiB', '--store-cache-bytes', '1MiB'],
    });
    const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
    const stalledClient = new BrokerClient(broker.address);
    const subject = 't.flow.stalled';
    const publish = (to: string, count: number): Promise<void> =>
      publishAll(count, 8, (n) => client.publish({ subject: to, body: numbered(n, 256 << 10) }));
    /** What the main thread cannot let go of: the least it holds while a load elsewhere keeps the collector at work. */
    const held = async (): Promise<number> => {
      let least = Number.POSITIVE_INFINITY;
      for (let round = 0; round < 24; round++) {
        await publish('t.flow.elsewhere', 16);
        least = Math.min(least, (await Metrics.of(broker)).sum('nodejs_external_memory_bytes'));
      }
      return least;
    };
    const without = await held();
    const stalled = follow(stalledClient, subject, { at: 'new' });
    const reader = follow(client, subject, { at: 'new' });
    await Promise.all([stalled.live, reader.live]);
    stalled.subscription.pause();
    const count = 384;
    await publish(subject, count);
    await until(
      () => reader.ids.length === count,
      () => `the live reader has ${reader.ids.length} of ${count}`,
    );
    assert.deepEqual(reader.ids, range(1, count));
    const beside = await held();
    assert(
      beside - without <= 32 * MIB,
      `${Math.round(beside / MIB)} MiB with it, ${Math.round(without / MIB)} MiB without`,
    );
    // It was not cut yet: what it did not read is in the store.
    stalled.subscription.resume();
    await until(
      () => stalled.ids.length === count,
      () => `the stalled one has ${stalled.ids.length} of ${count}`,
    );
    assert.deepEqual(stalled.ids, range(1, count));
    client.close();
    stalledClient.close();
  });

  for (const { title, count, size } of [
    { title: '200 bodies of 64 KiB', count: 200, size: 64 << 10 },
    // A paused client of grpc-js still takes 16.
    { title: 'fewer messages than the 16 that a stream takes before it asks to wait', count: 24, size: MIB },
  ]) {
    it(`[F3] with ${title} it is reset after subscribe.stall_timeout and counted; others go on`, {
      timeout: 240_000,
    }, async () => {
      await using broker = await startBroker({ flags: ['--shards', '1', '--subscribe-stall-timeout', '1s'] });
      const client = new BrokerClient(broker.address);
      const stalledClient = new BrokerClient(broker.address);
      const subject = 't.flow.cut';
      const stalled = follow(stalledClient, subject, { at: 'new' });
      const reader = follow(client, subject, { at: 'new' });
      await Promise.all([stalled.live, reader.live]);
      stalled.subscription.pause();
      await publishAll(count, 2, (n) => client.publish({ subject, body: numbered(n, size) }));
      let metrics = await Metrics.of(broker);
      await until(
        async () => {
          metrics = await Metrics.of(broker);
          return metrics.sum('broker_subscribers_stalled_total') === 1;
        },
        () => 'it was not cut',
      );
      assert.equal(metrics.sum('active_subscribers'), 1);
      const rest = await client.publish({ subject, body: numbered(count, size) });
      await until(
        () => reader.ids.at(-1) === rest,
        () => `the other reader stands at ${reader.ids.at(-1)}`,
      );
      assert.deepEqual(reader.ids, range(1, rest));
      // The reset (ENHANCE_YOUR_CALM) overtakes what waits: gRPC shows it as RESOURCE_EXHAUSTED.
      stalled.subscription.resume();
      const error = await stalled.ended;
      assert.equal(error?.code, RESOURCE_EXHAUSTED, String(error));
      // A status of the broker would have had to wait its turn, and with it the memory of what waits.
      assert.equal(error?.reason, null);
      assert(stalled.ids.length < count);
      assert.deepEqual(stalled.ids, range(1, stalled.ids.length));
      client.close();
      stalledClient.close();
    });
  }

  it('[F3] one that takes a little now and then, less than a buffer in the time of a stall, is not cut', {
    timeout: 300_000,
  }, async () => {
    // Ten times what the reader rests: a machine that is late by less than the rest of it cuts nobody.
    await using broker = await startBroker({ flags: ['--shards', '1', '--subscribe-stall-timeout', '5s'] });
    const client = new BrokerClient(broker.address);
    const subject = 't.flow.little';
    const count = 160;
    await publishAll(count, 8, (n) => client.publish({ subject, body: numbered(n, 128 << 10) }));
    const reader = follow(client, subject, { at: 'earliest' });
    // A message, then nothing for a while: in 5 s less than the server may have waiting, here and in HTTP/2.
    reader.hooks.onMessage = () => {
      reader.subscription.pause();
      const waits = reader.ids.length > 24 ? 0 : 500;
      setTimeout(() => reader.subscription.resume(), waits);
    };
    await until(
      () => reader.ids.length === count,
      () => `it has ${reader.ids.length} of ${count}`,
      60_000,
    );
    assert.deepEqual(reader.ids, range(1, count));
    assert.equal((await Metrics.of(broker)).sum('broker_subscribers_stalled_total'), 0);
    client.close();
  });
});

describe('a subscriber that reads slowly', () => {
  it('[F3, P6] loses nothing and gets nothing twice: it falls back to the store and meets the tail again', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({
      flags: ['--shards', '1', '--subscribe-buffer-bytes', '128KiB', '--store-cache-bytes', '1MiB'],
    });
    const client = new BrokerClient(broker.address);
    const slowClient = new BrokerClient(broker.address);
    const subject = 't.flow.slow';
    const slow = follow(slowClient, subject, { at: 'new' });
    const quick = follow(client, subject, { at: 'new' });
    await Promise.all([slow.live, quick.live]);
    let publishing = true;
    let published = 0;
    let resumeAt = 0;
    // It takes 16 while 64 are published: behind on a machine of any speed.
    slow.hooks.onMessage = () => {
      if (!publishing || slow.ids.length % 16 !== 0) return;
      slow.subscription.pause();
      resumeAt = published + 64;
    };
    const publish = async (n: number): Promise<void> => {
      await client.publish({ subject, body: numbered(n, 32 << 10) });
      published += 1;
      if (published === resumeAt) slow.subscription.resume();
    };
    const count = 1_200;
    // Three bursts with a rest between them: it meets the tail in the rest and is left behind again.
    for (let burst = 0; burst < 3; burst++) {
      publishing = true;
      const from = (burst * count) / 3;
      await publishAll(count / 3, 16, (n) => publish(from + n));
      const behind = slow.ids.length;
      assert(behind < from + count / 3, 'the slow one was not behind');
      publishing = false;
      slow.subscription.resume();
      await until(
        () => slow.ids.length === from + count / 3,
        () => `the slow one has ${slow.ids.length}`,
      );
    }
    assert.deepEqual(slow.ids, range(1, count));
    assert.deepEqual(slow.numbers, quick.numbers);
    assert.deepEqual(
      slow.numbers.toSorted((a, b) => a - b),
      range(0, count - 1),
    );
    client.close();
    slowClient.close();
  });

  it('[P6] 3 MiB of expired messages, more than its buffer, do not use up its credit', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const client = new BrokerClient(broker.address);
    const subject = 't.flow.expired';
    await publishAll(48, 8, (n) => client.publish({ subject, body: numbered(n, 64 << 10), expirationSeconds: 1 }));
    await pause(1_200);
    const reader = follow(client, subject, { at: 'earliest' });
    const id = await client.publish({ subject, body: numbered(48, 64) });
    await until(
      () => reader.ids.length === 1,
      () => 'what came behind the expired messages was not delivered',
    );
    assert.deepEqual(reader.ids, [id]);
    client.close();
  });
});

describe('a subscriber whose shard is replaced', () => {
  it('[F3, W8] while its stream does not drain: goes on where it stood once it reads again', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({
      flags: ['--shards', '1', '--subscribe-buffer-bytes', '64KiB'],
      env: { BROKER_FAILPOINTS: 'segment.written=exit@40' },
    });
    const client = new BrokerClient(broker.address);
    const slowClient = new BrokerClient(broker.address);
    const subject = 't.flow.replaced';
    const slow = follow(slowClient, subject, { at: 'new' });
    await slow.live;
    slow.subscription.pause();
    // A paused client of grpc-js still takes 16 messages; then the stream fills up.
    let last = 0;
    let deaths = 0;
    let isBack = false;
    // On until one is stored behind the death: the message of unknown outcome may be stored, and must not be the last.
    for (let n = 0; n < 56 || !isBack; n++) {
      try {
        last = await client.publish({ subject, body: numbered(n, 128 << 10) });
        isBack = deaths > 0;
      } catch (error) {
        assert(error instanceof CallError, String(error));
        if (error.reason === 'OUTCOME_UNKNOWN') deaths += 1;
        await pause(25);
      }
    }
    assert.equal(deaths, 1, broker.logs);
    assert(slow.ids.length < 32, 'it was not behind');
    slow.subscription.resume();
    await until(
      () => slow.ids.at(-1) === last,
      () => `the slow one stands at ${slow.ids.at(-1)}, not at ${last}`,
    );
    // At most the message whose outcome is unknown is a void.
    assert.deepEqual(
      slow.ids,
      slow.ids.toSorted((a, b) => a - b),
    );
    assert(slow.ids.length >= last - 1, `${slow.ids.length} of ${last}`);
    client.close();
    slowClient.close();
  });
});

describe('subscriptions that come and go', () => {
  it('[P6] 2,000 subscribe and cancel, every other before it is live, leave no trace', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const client = new BrokerClient(broker.address);
    const subjectOf = (n: number): string => `t.flow.come-${n % 20}`;
    await publishAll(20, 20, (n) => client.publish({ subject: subjectOf(n), body: numbered(n, 1_024) }));
    const churn = (count: number): Promise<void> =>
      publishAll(count, 100, async (n) => {
        const follower = follow(client, subjectOf(n), { at: n % 3 === 0 ? 'new' : 'earliest' });
        if (n % 2 === 0) await follower.live;
        else await pause(n % 7);
        follower.subscription.cancel();
        await follower.ended;
      });
    const isEmpty = async (): Promise<boolean> => {
      const metrics = await Metrics.of(broker);
      return metrics.sum('active_subscribers') === 0 && metrics.sum('broker_shard_subscriptions') === 0;
    };
    await churn(1_000);
    await until(isEmpty, () => 'subscriptions are left after the first 1,000');
    const base = rssOf(broker);
    await churn(1_000);
    // The shard counts its levels once a second: a figure from before the churn must not pass for one after it.
    await pause(1_100);
    await until(isEmpty, () => 'subscriptions are left');
    assert(rssOf(broker) - base <= 48 * MIB, `memory grew by ${Math.round((rssOf(broker) - base) / MIB)} MiB`);
    const before = (await Metrics.of(broker)).sum('broker_deliveries_total');
    await publishAll(20, 20, (n) => client.publish({ subject: subjectOf(n), body: numbered(n, 1_024) }));
    assert.equal((await Metrics.of(broker)).sum('broker_deliveries_total'), before, 'somebody was still delivered to');
    client.close();
  });
});
