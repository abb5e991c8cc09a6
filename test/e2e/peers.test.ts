/** What travels between the main threads of two real nodes that share a PostgreSQL: broadcasts, and stored batches that need not be read. */
import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { freePorts } from '../support/ports.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { follow, Metrics, range, until } from './flow-rig.ts';

const server = await PostgresServer.start();

const BATCHES = 200;

class Pair implements AsyncDisposable {
  readonly a: BrokerProcess;
  readonly b: BrokerProcess;

  private constructor(a: BrokerProcess, b: BrokerProcess) {
    this.a = a;
    this.b = b;
  }

  static async start(): Promise<Pair> {
    const [first, second] = await freePorts(2);
    const store = server.brokerFlags();
    const node = (name: string, port: number | undefined): string[] => [
      ...store,
      ...['--node-id', name, '--raft-listen', `127.0.0.1:${port}`, '--shards', '2'],
    ];
    const a = await startBroker({ flags: [...node('a', first), '--bootstrap'], readyTimeoutMs: 60_000 });
    const b = await startBroker({ flags: [...node('b', second), '--join', a.address], readyTimeoutMs: 60_000 });
    const pair = new Pair(a, b);
    await pair.meet();
    return pair;
  }

  /** Both take what the other one sends. */
  async meet(): Promise<void> {
    const haveMet = async ({ adminAddress }: BrokerProcess): Promise<boolean> => {
      const metrics = await Metrics.of({ adminAddress });
      return metrics.sum('broker_peers_open') + metrics.sum('broker_peers_heard') === 2;
    };
    await until(
      async () => (await haveMet(this.a)) && (await haveMet(this.b)),
      () => `${this.a.logs}\n${this.b.logs}`,
    );
  }

  /** Another node than `reader` knows that this one has subscribers. */
  async wanted(at: BrokerProcess): Promise<void> {
    await until(
      async () => (await Metrics.of(at)).sum('broker_peers_demanded_subjects') > 0,
      () => at.logs,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.b.dispose();
    await this.a.dispose();
  }
}

/** Batches of ten messages, some on their way at a time. */
async function publish(at: BrokerProcess, subject: string, batches: number): Promise<void> {
  using stream = await PublishStream.open(at.address, '');
  for (let sequence = 1; sequence <= batches; sequence++) {
    stream.send({ subject, sequence, bodies: range(1, 10).map(String) });
    if (sequence % 5 === 0) await stream.outcomes(sequence);
  }
  await stream.outcomes(batches);
}

const pair = await Pair.start();
after(async () => {
  await pair[Symbol.asyncDispose]();
  await server.remove();
});

describe('two nodes', () => {
  it('have a broadcast on one reach the live subscribers of both, once', { timeout: 300_000 }, async () => {
    const clients = [pair.a, pair.b].map(({ address }) => new BrokerClient(address));
    const followers = clients.map((client) => follow(client, 'p.cast', { at: 'new' }));
    await Promise.all(followers.map(({ live }) => live));
    for (let i = 0; i < 20; i++) {
      const [client] = i % 2 === 0 ? clients : [...clients].reverse();
      assert.equal(await client?.broadcast({ subject: 'p.cast', body: Buffer.from([i, 0, 0, 0]) }), true);
    }
    await until(
      () => followers.every(({ numbers }) => numbers.length >= 20),
      () => followers.map(({ numbers }) => numbers.length),
    );
    for (const { numbers } of followers) {
      assert.deepEqual(
        [...numbers].sort((a, b) => a - b),
        range(0, 19),
      );
    }
    for (const client of clients) client.close();
  });

  it('deliver what the other one stores without reading the database, also behind a restart and a kill', {
    timeout: 240_000,
  }, async () => {
    let published = 0;
    const rounds = [
      () => Promise.resolve(),
      async () => {
        await pair.b.stop();
        await pair.b.restart();
      },
      async () => {
        await pair.b.kill();
        await pair.b.restart();
      },
    ];
    for (const round of rounds) {
      await round();
      await pair.meet();
      const client = new BrokerClient(pair.b.address);
      const follower = follow(client, 'p.stored', { at: 'new' });
      await follower.live;
      await pair.wanted(pair.a);
      const before = await Metrics.of(pair.b);
      await publish(pair.a, 'p.stored', BATCHES);
      const first = published + 1;
      published += BATCHES * 10;
      await until(
        () => follower.ids.length >= BATCHES * 10,
        () => `${follower.ids.length} came`,
      );
      assert.deepEqual(follower.ids, range(first, published));
      const now = await Metrics.of(pair.b);
      const grown = (name: string): number => now.sum(name) - before.sum(name);
      assert(grown('broker_peers_batches_kept_total') > 0);
      assert.equal(grown('broker_peers_batches_refused_total'), 0);
      // The first one may come behind the read for it, and a machine that stands still may hold up a few more.
      const reads = grown('broker_store_database_reads_total');
      assert(reads <= BATCHES / 10, `${reads} reads of the database for ${BATCHES} batches`);
      client.close();
    }
  });
});
