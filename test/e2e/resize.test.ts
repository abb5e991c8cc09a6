/** Shards of a real broker are added and taken away: what clients and operators see of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import { connectWithClient } from '../../src/cli/client-connection.ts';
import type { Connection } from '../../src/cli/connection.ts';
import { connect as connectTo } from '../../src/client/index.ts';
import { logLines } from '../faults/rig.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { ConsumeStream, PLENTY } from '../support/consume-stream.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { follow, Metrics, numbered, pause, publishAll, range, until } from './flow-rig.ts';

function connect(broker: BrokerProcess): Connection {
  const interrupt = new AbortController().signal;
  return connectWithClient({ addresses: [broker.address], timeoutMs: 10_000, interrupt });
}

/** Pieces whose pause is over 20 ms shrink to one slot (src/workers/slots/move-plan.ts): 768 of them, each as slow as the machine. */
const CHANGE_MS_MAX = 300_000;

async function resized(admin: Connection, shards: number): Promise<void> {
  await admin.resizeShards(shards);
  await until(
    async () => !(await admin.listShards()).change.running,
    () => 'the change does not end',
    CHANGE_MS_MAX,
  );
  assert.equal((await admin.listShards()).change.error, '');
}

describe('resize', () => {
  it('[R25] streams notice nothing: every batch gets its ids, in order, and is consumed once, on 12 subjects, over 1 -> 4 -> 2 shards', async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const admin = connect(broker);
    using stream = await PublishStream.open(broker.address, 'p');
    const subjects = range(1, 12).map((number) => `s.${number}`);
    using consumer = await ConsumeStream.open(broker.address, [{ subject: 's.>', earliest: true }]);
    const over = { isOver: false };
    let sequence = 0;
    const load = (async () => {
      while (!over.isOver) {
        const first = sequence + 1;
        for (const subject of subjects) stream.send({ subject, sequence: ++sequence, bodies: ['a', 'b', 'c'] });
        await stream.settled(...range(first, sequence));
      }
    })();
    await resized(admin, 4);
    await resized(admin, 2);
    over.isOver = true;
    await load;
    const outcomes = await stream.outcomes(...range(1, sequence));
    const expected = range(0, sequence / subjects.length - 1).flatMap((round) =>
      subjects.map(() => `${round * 3 + 1}..${round * 3 + 3}`),
    );
    assert.deepEqual(outcomes, expected);
    await consumer.until(() => consumer.messages === sequence * 3 || consumer.status !== undefined);
    assert.equal(consumer.status, undefined);
    assert.deepEqual(consumer.violations, []);
    for (const subject of subjects) assert.deepEqual(consumer.idsOf(subject), range(1, (sequence / 12) * 3));
    assert.ok(sequence > 100, `${sequence} batches are no load`);
    await admin.close();
  });

  it('[F2] a subscriber whose stream does not drain while its subject moves misses nothing', async () => {
    await using broker = await startBroker({ flags: ['--shards', '1', '--subscribe-buffer-bytes', '64KiB'] });
    const admin = connect(broker);
    const [client, slowClient] = [new BrokerClient(broker.address), new BrokerClient(broker.address)];
    const readers = range(1, 8).map((number) => follow(slowClient, `t.${number}`, { at: 'earliest' }));
    const reader = follow(client, 't.1', { at: 'earliest' });
    await Promise.all([reader, ...readers].map(({ live }) => live));
    for (const { subscription } of readers) subscription.pause();
    const publish = (from: number, to: number): Promise<unknown> =>
      publishAll(to - from, 8, async (n) => {
        for (const number of range(1, 8)) {
          await client.publish({ subject: `t.${number}`, body: numbered(from + n, 32 << 10) });
        }
      });
    await publish(0, 12);
    const moving = resized(admin, 3);
    await publish(12, 24);
    await moving;
    await publish(24, 36);
    for (const { subscription } of readers) subscription.resume();
    for (const { ids } of [reader, ...readers]) {
      await until(
        () => ids.length === 36,
        () => `it has ${ids}`,
      );
      assert.deepEqual(ids, range(1, 36));
    }
    await admin.close();
    client.close();
    slowClient.close();
  });

  it('refuses what cannot be: numbers out of bounds, unknown slots and shards, a second change while one runs', async () => {
    await using broker = await startBroker({ flags: ['--shards', '2', '--shards-max', '4'] });
    const admin = connect(broker);
    await assert.rejects(admin.resizeShards(5), /SHARDS_INVALID|shards\.max, which is 4/);
    await assert.rejects(admin.moveSlot(1_024, 0), /there are slots 0 to 1023/);
    await assert.rejects(admin.moveSlot(0, 2), /there are shards 0, 1/);
    await admin.resizeShards(4);
    await assert.rejects(admin.resizeShards(1), /a change of the shards is under way \(2 -> 4 shards\)/);
    await until(
      async () => !(await admin.listShards()).change.running,
      () => 'the change does not end',
      CHANGE_MS_MAX,
    );
    await admin.moveSlot(0, 3);
    await until(
      async () => !(await admin.listShards()).change.running,
      () => 'the move does not end',
    );
    const slots = (await admin.listShards()).shards.map((shard) => shard.slots);
    assert.deepEqual(slots, [255, 256, 256, 257]);
    await admin.close();
  });

  it('status, metrics and segments follow: what a shard that goes has stored is counted by another', async () => {
    await using broker = await startBroker({ flags: ['--shards', '4', '--segment-bytes', '1MiB'] });
    const admin = connect(broker);
    const client = new BrokerClient(broker.address);
    await publishAll(64, 8, (n) => client.publish({ subject: `m.${n % 16}`, body: numbered(n, 100_000) }));
    assert.equal((await admin.status()).shards, 4);
    const stored = async (): Promise<number> => (await Metrics.of(broker)).sum('broker_shard_store_bytes');
    await until(
      async () => (await stored()) > 6_400_000,
      () => 'what was stored is not counted',
    );
    const before = await stored();
    await resized(admin, 1);
    assert.equal((await admin.status()).shards, 1);
    assert.equal((await Metrics.of(broker)).sum('broker_shard_slots'), 1_024);
    await until(
      async () => (await stored()) === before,
      async () => `${await stored()} bytes are counted of ${before}`,
    );
    const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
    assert.doesNotMatch(text, /shard="[1-3]"/);
    for (const number of range(0, 15)) assert.equal((await client.fetch(`m.${number}`, 4)).id, 4);
    await resized(admin, 2);
    await until(
      async () => (await stored()) === before,
      async () => `${await stored()} bytes are counted of ${before}`,
    );
    await admin.close();
    client.close();
  });

  it('[S10] while retention drops segments: consumers at the tail get each id once, and from the first id that is left on everything is there', {
    timeout: 440_000,
  }, async () => {
    const MAX_BYTES = 16 << 20;
    await using broker = await startBroker({
      // A round is larger than the smallest window.
      flags: [
        ...['--shards', '1', '--segment-bytes', '1MiB', '--retention-max-bytes', '16MiB'],
        ...['--publish-window-min', '1MiB'],
      ],
    });
    const admin = connect(broker);
    const client = new BrokerClient(broker.address);
    using stream = await PublishStream.open(broker.address, 'p');
    const subjects = range(1, 8).map((number) => `r.${number}`);
    using consumer = await ConsumeStream.open(broker.address, [{ subject: 'r.>', earliest: true }]);
    consumer.keepsBodies = false;
    const isOver = { value: false };
    let rounds = 0;
    const load = (async () => {
      for (let sequence = 0; !isOver.value; rounds++) {
        const first = sequence + 1;
        for (const subject of subjects) {
          stream.send({ subject, sequence: ++sequence, bodies: [numbered(rounds, 32 << 10)] });
        }
        const outcomes = await stream.outcomes(...range(first, sequence));
        assert.deepEqual(
          outcomes,
          subjects.map(() => `${rounds + 1}..${rounds + 1}`),
        );
        await consumer.until(() => consumer.messages === sequence || consumer.status !== undefined);
      }
    })();
    const broken = { why: null as Error | null };
    load.catch((error: Error) => {
      broken.why = error;
    });
    const firstId = async (): Promise<number> => (await admin.subjectInfo('r.1')).first;
    let trims = 0;
    let before = 1;
    // A change is always under way, so that some of the drops fall between two of its pieces.
    for (let round = 0; trims < 3; round++) {
      await resized(admin, [3, 2, 4, 1][round % 4] as number);
      const first = await firstId();
      if (first > before) trims += 1;
      before = first;
      assert.equal(broken.why, null);
    }
    isOver.value = true;
    await load;
    assert.deepEqual([consumer.status, consumer.violations], [undefined, []]);
    for (const subject of subjects) assert.deepEqual(consumer.idsOf(subject), range(1, rounds));
    const check = async (): Promise<void> => {
      for (const subject of subjects) {
        const { first, head } = await admin.subjectInfo(subject);
        assert.equal(head, rounds);
        for (const id of range(first, rounds)) {
          assert.ok((await client.fetch(subject, id)).body.equals(numbered(id - 1, 32 << 10)), `${subject} ${id}`);
        }
        await assert.rejects(client.fetch(subject, 1), /ID_TRIMMED/);
      }
    };
    await until(
      async () => (await Metrics.of(broker)).sum('broker_shard_store_bytes') <= MAX_BYTES + (8 << 20),
      async () => `${(await Metrics.of(broker)).sum('broker_shard_store_bytes')} bytes are left`,
    );
    await check();
    await broker.restart();
    await client.ready();
    await check();
    await admin.close();
    client.close();
  });

  it('SIGTERM during a change under load: the process ends with 0, and what was acknowledged is there', async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const admin = connect(broker);
    const client = new BrokerClient(broker.address);
    const acked: { subject: string; id: number }[] = [];
    const load = publishAll(100_000, 32, async (n) => {
      const subject = `z.${n % 40}`;
      acked.push({ subject, id: await client.publish({ subject, body: numbered(n, 200) }) });
    }).catch((error: Error) => error);
    await admin.resizeShards(4);
    await until(
      async () => (await admin.listShards()).change.slotsMoved > 0,
      () => 'nothing moves',
    );
    const exit = await broker.stop();
    assert.deepEqual(exit, { code: 0, signal: null }, broker.logs);
    assert.match(String(await load), /SHUTTING_DOWN|UNAVAILABLE/);
    await admin.close();
    await broker.restart();
    for (const { subject, id } of acked) assert.equal((await client.fetch(subject, id)).id, id);
    client.close();
  });
});

describe('shards.auto', () => {
  it('follows the advice once it has stood for its time, and then rests; without it the same advice is only given', {
    timeout: 400_000,
  }, async () => {
    // Idle shards are too many on every machine. Fewer are made after ten times this.
    const AFTER_MS = 200;
    const flags = ['--shards', '3', '--shards-auto-after', `${AFTER_MS}ms`, '--log-format', 'json'];
    await using still = await startBroker({ flags });
    await using auto = await startBroker({ flags: [...flags, '--shards-auto', 'true'] });
    await using stillClient = connectTo(still.address);
    await using client = connectTo(auto.address);
    await publishAll(30, 3, (n) => client.publish(`a.${n}`, numbered(n, 100)));
    assert.deepEqual([(await stillClient.shards()).auto, (await client.shards()).auto], [false, true]);
    await until(
      async () => (await client.shards()).shards.length === 1,
      () => auto.logs,
      CHANGE_MS_MAX,
    );
    const lines = logLines(auto.logs);
    const ready = lines.find(({ message }) => message === 'ready')?.at ?? 0;
    const followed = lines.filter(({ message }) => message.startsWith('following the advice'));
    assert.equal(followed.length, 1, auto.logs);
    assert.ok((followed[0]?.at ?? 0) - ready >= 9 * AFTER_MS, `followed after ${(followed[0]?.at ?? 0) - ready} ms`);
    const advice = await stillClient.adviseShards();
    assert.deepEqual([advice.shards, advice.recommended], [3, 1]);
    assert.equal((await stillClient.shards()).shards.length, 3);
    const { epoch, change } = await client.shards();
    assert.equal(change?.error, '');
    // Advice that is followed asks for nothing more: nothing moves over many times its time.
    await pause(15 * AFTER_MS);
    assert.equal((await client.shards()).epoch, epoch);
    for (const n of range(0, 29)) assert.equal((await client.fetch(`a.${n}`, 1)).id, 1);
  });
});

describe('a reader that is behind', () => {
  it('[R25] goes on when its subject is trimmed past where it stands and then moves to another shard', async () => {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    const admin = connect(broker);
    const client = new BrokerClient(broker.address);
    const subject = 't.behind';
    const bytes = Buffer.from(subject);
    const slot = slotOfHash(subjectHash(bytes, 0, bytes.length));
    const move = async (shard: number): Promise<void> => {
      await admin.moveSlot(slot, shard);
      await until(
        async () => !(await admin.listShards()).change.running,
        () => 'the move does not end',
        CHANGE_MS_MAX,
      );
    };
    for (const n of range(1, 20)) await client.publish({ subject, body: Buffer.from(String(n)) });
    const few = { credit: { bytes: 1 << 20, messages: 5 } };
    using stream = await ConsumeStream.open(broker.address, [{ subject, earliest: true }], few);
    await stream.until(() => stream.messages === 5);
    assert.equal((await admin.trim(subject, 11)).first, 11);
    await move(0);
    await move(1);
    stream.grant(PLENTY.bytes, PLENTY.messages);
    await client.publish({ subject, body: Buffer.from('21') });
    await stream.until(() => stream.idsOf(subject).includes(21) || stream.status !== undefined);
    assert.equal(stream.status, undefined);
    assert.deepEqual(stream.idsOf(subject), [...range(1, 5), ...range(11, 21)]);
    await admin.close();
    client.close();
  });
});
