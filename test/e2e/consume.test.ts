/** broker.v1.Consumer/Consume of a real broker process, with a stock client. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { ConsumeStream, PLENTY } from '../support/consume-stream.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { follow, Metrics, MIB, numbered, pause, publishAll, range, rssOf, until } from './flow-rig.ts';

const FLAGS = ['--shards', '2'];

/** `count` messages in batches of `size`, each acknowledged; bodies are their numbers from `from` on. */
async function publishBatches(
  broker: BrokerProcess,
  subject: string,
  { count, size, from = 1, seconds = 0 }: { count: number; size: number; from?: number; seconds?: number },
): Promise<void> {
  using stream = await PublishStream.open(broker.address, '');
  const sequences: number[] = [];
  for (let at = 0; at < count; at += size) {
    const bodies = range(from + at, from + Math.min(count, at + size) - 1).map(String);
    const sequence = sequences.length + 1;
    sequences.push(sequence);
    stream.send({ subject, sequence, bodies, expirationSeconds: seconds });
    // The window begins small: one batch after the other.
    await stream.settled(sequence);
  }
  const results = await stream.outcomes(...sequences);
  assert(
    results.every((outcome) => outcome.includes('..')),
    results.join(),
  );
}

const texts = (from: number, to: number): string[] => range(from, to).map(String);

describe('a consume stream', () => {
  it('begins new, at the earliest, at an id in the middle of a batch, and at a time, each subject in order', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await publishBatches(broker, 'c.start', { count: 30, size: 10 });
    await pause(20);
    const time = Date.now();
    await publishBatches(broker, 'c.start', { count: 10, size: 10, from: 31 });
    const starts = [{ earliest: true }, { id: 15 }, { id: 35 }, { time }, { new: true }, {}];
    const streams = await Promise.all(
      starts.map((start) => ConsumeStream.open(broker.address, [{ subject: 'c.start', ...start }])),
    );
    await publishBatches(broker, 'c.start', { count: 5, size: 5, from: 41 });
    const firsts = [1, 15, 35, 31, 41, 41];
    for (const [i, stream] of streams.entries()) {
      const first = firsts[i] as number;
      await stream.until(() => stream.messages === 46 - first);
      assert.deepEqual(stream.idsOf('c.start'), range(first, 45));
      assert.deepEqual(stream.bodies.get('c.start'), texts(first, 45));
      assert.deepEqual(stream.violations, []);
      stream.cancel();
    }
  });

  it('of a pattern has what exists and what comes later from its first id, while subjects are born all the time', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    const client = new BrokerClient(broker.address);
    const publish = (subject: string) => client.publish({ subject, body: Buffer.from(subject) });
    for (let n = 0; n < 30; n++) await publish(`p.old.${n}`);
    let born = 0;
    let isOver = false;
    const births = (async () => {
      while (!isOver) {
        await Promise.all([publish(`p.born.${born}`), publish(`p.born.${born}`), publish(`other.${born}`)]);
        born += 1;
      }
    })();
    await until(
      () => born > 20,
      () => 'nothing is born',
    );
    using stream = await ConsumeStream.open(broker.address, [{ subject: 'p.*.*', earliest: true }]);
    const seen = born;
    await until(
      () => born > seen + 50,
      () => 'nothing is born any more',
    );
    isOver = true;
    await births;
    await stream.until(() => stream.messages === 30 + 2 * born);
    assert.equal(stream.ids.size, 30 + born);
    for (let n = 0; n < born; n++) assert.deepEqual(stream.idsOf(`p.born.${n}`), [1, 2]);
    assert.deepEqual(stream.violations, []);
    client.close();
  });

  it('beside Subscribe on one subject gets the same messages in the same order', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    const client = new BrokerClient(broker.address);
    const subscriber = follow(client, 'c.both', { at: 'new' });
    await subscriber.live;
    const consumers = await Promise.all(
      range(1, 3).map(() => ConsumeStream.open(broker.address, [{ subject: 'c.both' }])),
    );
    await publishAll(500, 32, (n) => client.publish({ subject: 'c.both', body: Buffer.from(String(n)) }));
    await publishBatches(broker, 'c.both', { count: 500, size: 100 });
    await until(
      () => subscriber.ids.length === 1_000,
      () => subscriber.ids.length,
    );
    for (const stream of consumers) {
      await stream.until(() => stream.messages === 1_000);
      assert.deepEqual(stream.idsOf('c.both'), subscriber.ids);
      assert.deepEqual(stream.violations, []);
      stream.cancel();
    }
    assert.deepEqual(subscriber.ids, range(1, 1_000));
    client.close();
  });

  it('skips what has expired of a batch, and voids', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    const client = new BrokerClient(broker.address);
    const subject = 'c.expired';
    // One group: mixed batches of messages that expire and that do not.
    const ids = await Promise.all(
      range(1, 40).map((n) =>
        client.publish({ subject, body: Buffer.from(String(n)), expirationSeconds: n % 3 === 0 ? 1 : 0 }),
      ),
    );
    const voided = await client.incIdx(subject);
    const last = await client.publish({ subject, body: Buffer.from('last') });
    await pause(1_100);
    using stream = await ConsumeStream.open(broker.address, [{ subject, earliest: true }]);
    await stream.until(() => stream.idsOf(subject).at(-1) === last);
    const kept = ids.filter((_, i) => (i + 1) % 3 !== 0).toSorted((a, b) => a - b);
    assert.deepEqual(stream.idsOf(subject), [...kept, last]);
    assert(!stream.idsOf(subject).includes(voided));
    assert.deepEqual(stream.violations, []);
    client.close();
  });

  it('takes up again with its token over 100 reconnects: each id once, in order, new subjects from their first', {
    timeout: 300_000,
  }, async () => {
    await using broker = await startBroker({ flags: FLAGS });
    const client = new BrokerClient(broker.address);
    const subjects = ['r.a', 'r.b', 'r.c'];
    let published = 0;
    let isOver = false;
    const load = publishAll(Number.POSITIVE_INFINITY, 4, async (n) => {
      if (isOver) return;
      // A subject is born now and then.
      const subject = n % 50 === 0 ? `r.born-${n}` : (subjects[n % 3] as string);
      await client.publish({ subject, body: Buffer.from('x') });
      published += 1;
      if (isOver) throw new Error('over');
    }).catch(() => undefined);
    const seen = new Map<string, number[]>();
    let resumeToken: Buffer = Buffer.alloc(0);
    for (let round = 0; round <= 100; round++) {
      if (round === 100) {
        isOver = true;
        await load;
      }
      const stream = await ConsumeStream.open(broker.address, [{ subject: 'r.>', earliest: true }], { resumeToken });
      if (round === 100) {
        await until(
          () => [...seen.values(), ...stream.ids.values()].reduce((sum, { length }) => sum + length, 0) >= published,
          () => 'something is missing',
        );
      }
      // Deliveries behind the last token come again; only what is before it counts as seen.
      await stream.nextHeartbeat();
      const settledIds = new Map(
        [...stream.ids].map(([subject, ids]) => [
          subject,
          ids.filter((id) => id < (stream.positions.get(subject)?.nextId ?? 0)),
        ]),
      );
      for (const [subject, ids] of settledIds) seen.set(subject, [...(seen.get(subject) ?? []), ...ids]);
      resumeToken = stream.resumeToken;
      assert.deepEqual(stream.violations, []);
      assert.equal(stream.status, undefined);
      stream.cancel();
    }
    let total = 0;
    for (const [subject, ids] of seen) {
      assert.deepEqual(ids, range(1, ids.length), subject);
      total += ids.length;
    }
    assert.equal(total, published);
    client.close();
  });

  it('survives the replacement of its shard thread, with credit and without', { timeout: 240_000 }, async () => {
    await using broker = await startBroker({
      flags: ['--shards', '1'],
      env: { BROKER_FAILPOINTS: 'shard.before-append=throw@60' },
    });
    const client = new BrokerClient(broker.address);
    const open = (credit: typeof PLENTY | null) =>
      ConsumeStream.open(broker.address, [{ subject: 'k.a' }, { subject: 'k.*', earliest: true }], { credit });
    const [quick, poor] = await Promise.all([open(PLENTY), open({ bytes: 1_000, messages: 10 })]);
    let acked = 0;
    for (let n = 0; n < 150; n++) {
      await client.publish({ subject: 'k.a', body: Buffer.from(String(n)) }).then(
        () => (acked += 1),
        // The call that died with the thread, and those that find no shard.
        () => pause(20),
      );
    }
    // The last ones may have found no shard either.
    await until(
      () =>
        client.publish({ subject: 'k.born', body: Buffer.from('after') }).then(
          () => true,
          () => false,
        ),
      () => broker.logs,
    );
    assert(broker.logs.includes('a shard thread died'), 'no thread died');
    poor.grant(PLENTY.bytes / 2, PLENTY.messages / 2);
    for (const stream of [quick, poor]) {
      await until(
        () => stream.idsOf('k.a').length >= acked && stream.idsOf('k.born').length === 1,
        () => `${stream.idsOf('k.a').length} of ${acked}, ${stream.status}`,
      );
      assert.deepEqual(stream.violations, []);
      assert.deepEqual(stream.idsOf('k.a'), quick.idsOf('k.a'));
      stream.cancel();
    }
    client.close();
  });
});

describe('credit of a consume stream', () => {
  it('[F2, F3] that is spent stops it within one delivery; it costs no memory and nobody else notices', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '1', '--store-cache-bytes', '1MiB'] });
    const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
    const subject = 'c.credit';
    const open = (credit: typeof PLENTY) => ConsumeStream.open(broker.address, [{ subject }], { credit });
    const quick = await open(PLENTY);
    quick.keepsBodies = false;
    const size = 64 << 10;
    const load = (from: number) =>
      publishAll(800, 8, (n) => client.publish({ subject, body: numbered(from + n, size) }));
    await load(0);
    const before = rssOf(broker);
    const poor = await Promise.all(range(1, 20).map((n) => open({ bytes: n * size, messages: 1_000 })));
    await load(800);
    await quick.until(() => quick.messages === 1_600);
    assert.deepEqual(quick.idsOf(subject), range(1, 1_600));
    for (const [i, stream] of poor.entries()) {
      await stream.nextHeartbeat();
      // n messages have a little more than n bodies; the delivery that spends the rest may have 8.
      assert(stream.messages >= i + 1 && stream.messages <= i + 1 + 8, `${stream.messages} for ${i + 1}`);
      assert.equal(stream.positions.get(subject)?.head, 1_600);
      assert.equal(stream.positions.get(subject)?.nextId, 801 + stream.messages);
    }
    const grown = rssOf(broker) - before;
    assert(grown < 64 * MIB, `memory grew by ${Math.round(grown / MIB)} MiB`);
    for (const stream of poor) {
      stream.grant(PLENTY.bytes / 2, PLENTY.messages / 2);
      await stream.until(() => stream.messages === 800);
      assert.deepEqual(stream.idsOf(subject), range(801, 1_600));
      assert.deepEqual(stream.violations, []);
      stream.cancel();
    }
    quick.cancel();
    client.close();
  });

  it('granted message by message gives each delivery in turn', async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const client = new BrokerClient(broker.address);
    for (let n = 0; n < 50; n++) await client.publish({ subject: 'c.one', body: Buffer.from(String(n)) });
    using stream = await ConsumeStream.open(broker.address, [{ subject: 'c.one', earliest: true }], { credit: null });
    assert.equal(stream.messages, 0);
    for (let n = 1; n <= 50; n++) {
      stream.grant(1_000, 1);
      await stream.until(() => stream.messages >= n);
      assert.equal(stream.messages, n);
    }
    assert.deepEqual(stream.idsOf('c.one'), range(1, 50));
    client.close();
  });

  it('[F3] is shared by the subjects of a stream: none waits for another to be read to its end', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '2', '--subscribe-buffer-bytes', '64KiB'] });
    const names = range(0, 7).map((n) => `c.fair.${n}`);
    for (const subject of names) await publishBatches(broker, subject, { count: 4_000, size: 1_000 });
    using stream = await ConsumeStream.open(broker.address, [{ subject: 'c.fair.*', earliest: true }], {
      credit: { bytes: 200_000, messages: 100_000 },
    });
    await stream.nextHeartbeat();
    assert.equal(stream.ids.size, names.length, `only ${[...stream.ids.keys()]} were served`);
    stream.grant(PLENTY.bytes / 2, PLENTY.messages / 2);
    await stream.until(() => stream.messages === 32_000);
    for (const subject of names) assert.deepEqual(stream.bodies.get(subject), texts(1, 4_000));
    assert.deepEqual(stream.violations, []);
  });

  it('[F3] a client that does not read is cut off after subscribe.stall_timeout', { timeout: 240_000 }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '1', '--subscribe-stall-timeout', '1s'] });
    const client = new BrokerClient(broker.address);
    const stream = await ConsumeStream.open(broker.address, [{ subject: 'c.stall' }]);
    stream.pause();
    await publishAll(400, 4, (n) => client.publish({ subject: 'c.stall', body: numbered(n, 64 << 10) }));
    await until(
      async () => (await Metrics.of(broker)).sum('broker_subscribers_stalled_total') === 1,
      () => 'it was not cut',
    );
    stream.resume();
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status?.statusName, 'RESOURCE_EXHAUSTED');
    assert.deepEqual(stream.violations, []);
    stream.cancel();
    client.close();
  });
});

describe('the end of a consume stream', () => {
  it('comes with SHUTTING_DOWN behind what was sent, and with OK when the client half-closes', async () => {
    await using broker = await startBroker({ flags: FLAGS });
    await publishBatches(broker, 'c.end', { count: 100, size: 50 });
    const [stream, closing] = await Promise.all(
      range(1, 2).map(() => ConsumeStream.open(broker.address, [{ subject: 'c.end', earliest: true }])),
    );
    assert(stream !== undefined && closing !== undefined);
    await closing.until(() => closing.messages === 100);
    closing.halfClose();
    await closing.until(() => closing.status !== undefined);
    assert.equal(closing.status, null);
    await stream.until(() => stream.messages === 100);
    await broker.stop();
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status?.reason, 'SHUTTING_DOWN');
    for (const each of [stream, closing]) each.cancel();
  });

  it('names what is wrong with how it was opened or used', async () => {
    await using broker = await startBroker({ flags: [...FLAGS, '--limits-consumer-subjects', '3'] });
    const client = new BrokerClient(broker.address);
    const endOf = async (subjects: Parameters<typeof ConsumeStream.open>[1], options = {}): Promise<string> => {
      using stream = await ConsumeStream.open(broker.address, subjects, options);
      return stream.status?.reason ?? 'open';
    };
    assert.equal(await endOf([{ subject: '>.a' }]), 'PATTERN_INVALID');
    assert.equal(await endOf([{ subject: 'a..b' }]), 'SUBJECT_EMPTY_TOKEN');
    assert.equal(await endOf([{ subject: 'a' }], { resumeToken: Buffer.from('nonsense') }), 'RESUME_TOKEN_INVALID');
    assert.equal(await endOf(['a', 'b', 'c', 'd'].map((subject) => ({ subject }))), 'CONSUMER_SUBJECTS_FULL');
    assert.equal(await endOf([{ subject: 'a' }], { credit: { bytes: -1, messages: 0 } }), 'CREDIT_INVALID');
    using early = new ConsumeStream(broker.address);
    early.grant(1, 1);
    await early.until(() => early.status !== undefined);
    assert.equal(early.status?.reason, 'STREAM_NOT_OPENED');
    using twice = await ConsumeStream.open(broker.address, [{ subject: 'a' }]);
    twice.write({
      open: { subjects: [{ subject: 'a' }], resumeToken: Buffer.alloc(0), heartbeatMs: 0 },
      credit: undefined,
    });
    await twice.until(() => twice.status !== undefined);
    assert.equal(twice.status?.reason, 'STREAM_NOT_OPENED');
    using growing = await ConsumeStream.open(broker.address, [{ subject: 'g.*' }]);
    for (let n = 0; n < 4; n++) await client.publish({ subject: `g.${n}`, body: Buffer.from('x') });
    await growing.until(() => growing.status !== undefined);
    assert.equal(growing.status?.reason, 'CONSUMER_SUBJECTS_FULL');
    assert.deepEqual((await Metrics.of(broker)).sum('active_subscribers'), 0);
    client.close();
  });
});
