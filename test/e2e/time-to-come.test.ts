/** Subscriptions from a time that has not come: the first message published then or later is the first that they get. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { connectWithClient } from '../../src/cli/client-connection.ts';
import { startBroker } from '../support/broker.ts';
import { BrokerClient, type CallError } from '../support/client.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { pause, until } from './flow-rig.ts';

/** Time for what is to happen before it. What is slower only shows less: what is wanted goes by the times in the messages. */
const AHEAD_MS = 4_000;
const MESSAGES = 5;

interface Follower {
  readonly what: string;
  idsOf(subject: string): readonly number[];
}

/** Subscribe and Consume, by name and by pattern, of `SUBJECTS`. */
const SUBJECTS = ['time.a', 'time.b', 'time.c'];

async function publishTo(client: BrokerClient, subjects: readonly string[]): Promise<void> {
  for (const subject of subjects) {
    for (let n = 0; n < MESSAGES; n++) await client.publish({ subject, body: Buffer.from(String(n)) });
  }
}

async function subscribe(client: BrokerClient, subject: string, ms: number): Promise<Follower> {
  const ids: number[] = [];
  const live = Promise.withResolvers<void>();
  client.subscribe(subject, { at: 'time', ms }, { onLive: live.resolve, onMessage: ({ id }) => ids.push(id) });
  await live.promise;
  return { what: `Subscribe ${subject}`, idsOf: (of) => (of === subject ? ids : []) };
}

/** Ids of the messages that were published at `ms` or later. */
async function idsSince(client: BrokerClient, subject: string, ms: number): Promise<number[]> {
  const ids: number[] = [];
  for (let id = 1; ; id++) {
    try {
      const { publishedAt } = await client.fetch(subject, id);
      if (publishedAt >= ms) ids.push(id);
    } catch (error) {
      const { reason } = error as CallError;
      if (reason === 'ID_NOT_FOUND') return ids;
      assert.equal(reason, 'ID_VOID');
    }
  }
}

async function passed(ms: number): Promise<void> {
  while (Date.now() < ms) await pause(ms - Date.now());
}

describe('a start at a time to come', () => {
  for (const change of ['nothing', 'its subjects move to other shards', 'its shard thread is replaced'] as const) {
    it(`gets no message published before it, when ${change} meanwhile`, { timeout: 400_000 }, async () => {
      // More writes than come after it, so that the next thread lives.
      const env =
        change === 'its shard thread is replaced' ? { BROKER_FAILPOINTS: 'shard.before-append=throw@45' } : {};
      await using broker = await startBroker({ flags: ['--shards', '1', '--shards-max', '4'], env });
      const client = new BrokerClient(broker.address);
      // The third is born before the time, but after the subscriptions.
      await publishTo(client, SUBJECTS.slice(0, 1));
      const time = Date.now() + AHEAD_MS;
      const followers: Follower[] = await Promise.all(SUBJECTS.map((subject) => subscribe(client, subject, time)));
      const named = await ConsumeStream.open(
        broker.address,
        SUBJECTS.map((subject) => ({ subject, time })),
      );
      const found = await ConsumeStream.open(broker.address, [{ subject: 'time.*', time }]);
      const streams = [named, found];
      if (change === 'its subjects move to other shards') {
        await publishTo(client, SUBJECTS.slice(1, 2));
        const interrupt = new AbortController().signal;
        const admin = connectWithClient({ addresses: [broker.address], timeoutMs: 10_000, interrupt });
        await admin.resizeShards(4);
        await until(
          async () => !(await admin.listShards()).change.running,
          () => 'the change does not end',
          300_000,
        );
        admin.close();
      }
      if (change === 'its shard thread is replaced') {
        const isTaken = async (): Promise<boolean> =>
          client.publish({ subject: 'time.b', body: Buffer.from('x') }).then(
            () => true,
            () => false,
          );
        await until(
          async () => !(await isTaken()),
          () => 'no thread dies',
        );
        await until(isTaken, () => 'the thread is not replaced');
      }
      await publishTo(client, SUBJECTS);
      await passed(time);
      await publishTo(client, SUBJECTS);
      const all: Follower[] = [
        ...followers,
        ...streams.map((stream, i) => ({ what: `stream ${i}`, idsOf: (of: string) => stream.idsOf(of) })),
      ];
      for (const subject of SUBJECTS) {
        const wanted = await idsSince(client, subject, time);
        assert(wanted.length >= MESSAGES);
        for (const follower of all) {
          if (follower.what.startsWith('Subscribe') && follower.what !== `Subscribe ${subject}`) continue;
          await until(
            () => follower.idsOf(subject).at(-1) === wanted.at(-1),
            () => `${follower.what} has ${follower.idsOf(subject)} of ${subject}, not ${wanted}`,
          );
          assert.deepEqual(follower.idsOf(subject), wanted, `${follower.what}, ${subject}`);
        }
      }
      for (const stream of streams) {
        assert.deepEqual(stream.violations, []);
        stream.cancel();
      }
      client.close();
    });
  }

  it('stays one in a resume token, also over a restart', { timeout: 240_000 }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    const client = new BrokerClient(broker.address);
    await publishTo(client, ['time.a']);
    const time = Date.now() + AHEAD_MS;
    const specs = [
      { subject: 'time.a', time },
      { subject: 'time.*', time },
    ];
    const first = await ConsumeStream.open(broker.address, specs);
    await first.nextHeartbeat();
    first.cancel();
    await broker.kill();
    await broker.restart();
    await publishTo(client, ['time.a', 'time.born']);
    const second = await ConsumeStream.open(broker.address, specs, { resumeToken: first.resumeToken });
    await publishTo(client, ['time.a']);
    await passed(time);
    await publishTo(client, ['time.a', 'time.born']);
    for (const subject of ['time.a', 'time.born']) {
      const wanted = await idsSince(client, subject, time);
      await second.until(() => second.idsOf(subject).length >= wanted.length);
      assert.deepEqual(second.idsOf(subject), wanted);
    }
    second.cancel();
    client.close();
  });
});
