/** Refusals under load, deadlines and memory bounds of a real broker process whose store is made slow. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { History } from '../support/checker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { encodePublish } from '../support/wire.ts';
import {
  cpuShare,
  follow,
  Metrics,
  MIB,
  numbered,
  pause,
  peakRss,
  publishAll,
  refusal,
  rssOf,
  until,
} from './flow-rig.ts';

/** Publishers without a pause but for what a refusal tells them to wait. */
class Load {
  readonly history = new History();
  readonly #broker: BrokerProcess;
  readonly #clients: readonly BrokerClient[];
  readonly #subject: string;
  readonly #bodyBytes: number;
  #sent = 0;
  acked = 0;
  readonly refusals = new Map<string, number>();

  constructor(broker: BrokerProcess, clients: readonly BrokerClient[], subject: string, bodyBytes: number) {
    this.#broker = broker;
    this.#clients = clients;
    this.#subject = subject;
    this.#bodyBytes = bodyBytes;
  }

  /**
   * Publishes with `width` calls at a time until the store has written so many groups, and `isEnough`; returns the messages acknowledged per group.
   * A group takes the time that its failpoint says, however fast the machine is: so this is a rate without a clock.
   */
  async run(width: number, groups: number, isEnough: () => boolean = () => true): Promise<number> {
    const written = async (): Promise<number> => (await Metrics.of(this.#broker)).sum('broker_shard_groups_total');
    const [acked, before] = [this.acked, await written()];
    let isOver = false;
    const worker = async (): Promise<void> => {
      while (!isOver) await this.publish();
    };
    const workers = Promise.all(Array.from({ length: width }, worker));
    await Promise.race([
      workers,
      until(
        async () => (await written()) - before >= groups && isEnough(),
        () => `${this.acked - acked} were acknowledged, refused: ${[...this.refusals]}`,
        60_000,
      ),
    ]).finally(() => {
      isOver = true;
    });
    await workers;
    return (this.acked - acked) / ((await written()) - before);
  }

  #client(): BrokerClient {
    return this.#clients[this.#sent % this.#clients.length] as BrokerClient;
  }

  async publish(): Promise<void> {
    const body = numbered(this.#sent++, this.#bodyBytes);
    const submission = this.history.submit({ subject: this.#subject, payload: body });
    const attempt = this.history.beginAttempt(submission);
    try {
      const id = await this.#client().publish({ subject: this.#subject, body });
      this.history.endAttempt(attempt, { outcome: 'ok', id });
      this.acked += 1;
    } catch (error) {
      assert(error instanceof CallError, String(error));
      assert.equal(error.statusName, 'RESOURCE_EXHAUSTED', String(error));
      assert(error.retryAfterMs !== null && error.retryAfterMs > 0, `${error.reason} without a delay`);
      this.history.endAttempt(attempt, { outcome: error.outcome });
      const reason = error.reason ?? '';
      this.refusals.set(reason, (this.refusals.get(reason) ?? 0) + 1);
      // The delay is the least; a crowd that comes back all at once would only measure how fast refusals are.
      await pause(error.retryAfterMs * 4);
    }
  }

  /** Reads everything back: what was acknowledged is there, what was refused is not. */
  async judge(): Promise<void> {
    await this.history.readBack(
      async (subject, id) => {
        try {
          const { body, publishedAt } = await this.#client().fetch(subject, id);
          return { kind: 'message', payload: body, publishedAt };
        } catch (error) {
          assert(error instanceof CallError, String(error));
          return error.reason === 'ID_NOT_FOUND' ? { kind: 'absent' } : { kind: 'failed', detail: String(error) };
        }
      },
      // Fetches count as calls in flight too.
      { from: 'start', concurrency: 16 },
    );
    assert.deepEqual(this.history.judge().violations, []);
  }
}

/** A durable write takes at least 40 ms and blocks its shard: what a group holds and how long it takes is a matter of limits, not of the machine. */
const SLOW_STORE = { BROKER_FAILPOINTS: 'segment.sync=sleep:40' };
const SMALL = ['--shards', '1', '--limits-message-bytes', '64KiB', '--limits-body-bytes', '16KiB'];
const SMALL_LIMITS = [...SMALL, '--limits-headers-bytes', '4KiB', '--batch-bytes', '16KiB', '--segment-bytes', '64MiB'];

/** Writes of the Raft log that a start on an empty folder makes; a test that holds up a later one counts from here. */
const SYNCS_OF_START = 3;

it('a start on an empty folder makes the number of Raft writes that these tests count on', async () => {
  await using broker = await startBroker({ flags: SMALL_LIMITS });
  assert.equal((await Metrics.of(broker)).sum('broker_raft_sync_seconds_count'), SYNCS_OF_START);
});

describe('overload', () => {
  const rows = [
    {
      reason: 'QUEUE_FULL',
      calm: 24,
      crowd: 240,
      groups: 15,
      bytes: 1_024,
      env: SLOW_STORE,
      flags: ['--ring-bytes', '64KiB'],
    },
    {
      reason: 'IN_FLIGHT_FULL',
      calm: 24,
      crowd: 240,
      groups: 15,
      bytes: 1_024,
      env: SLOW_STORE,
      flags: ['--ring-bytes', '1MiB', '--limits-in-flight-calls', '60'],
    },
    {
      // A shard takes 512 requests at a time, and here as many every 500 ms: the rest of the crowd waits on the ring, and the last one long.
      reason: 'OVERLOADED',
      calm: 24,
      crowd: 2_400,
      groups: 3,
      bytes: 64,
      env: { BROKER_FAILPOINTS: 'raft.before-append=sleep:500' },
      flags: [
        ...['--ring-bytes', '1MiB', '--groups-in-flight', '1'],
        ...['--overload-target', '200ms', '--overload-interval', '400ms'],
      ],
    },
  ];
  for (const { reason, calm, crowd, groups, bytes, env, flags } of rows) {
    it(`[F9] ${reason}: refusals say when to come back and leave nothing, the rest is as fast as without them, and they end with the load`, {
      timeout: 300_000,
    }, async () => {
      await using broker = await startBroker({ flags: [...SMALL_LIMITS, ...flags], env });
      const clients = Array.from({ length: 4 }, () => new BrokerClient(broker.address, { timeoutMs: 30_000 }));
      const load = new Load(broker, clients, 't.flow.over', bytes);
      await load.run(calm, 2);
      const alone = await load.run(calm, groups);
      assert.deepEqual([...load.refusals.keys()], [], 'refused before it was overloaded');
      const crowded = await load.run(crowd, groups, () => load.refusals.size > 0);
      assert.deepEqual([...load.refusals.keys()], [reason]);
      assert(crowded >= alone * 0.5, `${crowded} messages a group against ${alone} without the crowd`);
      // The guard looks back over an interval.
      let after = 0;
      const isCalm = async (): Promise<boolean> => {
        load.refusals.clear();
        after = await load.run(calm, groups);
        return load.refusals.size === 0;
      };
      await until(isCalm, () => `still refusing after the crowd has gone: ${[...load.refusals]}`);
      assert(after >= alone * 0.5, `${after} messages a group afterwards against ${alone}`);
      await load.judge();
      for (const client of clients) client.close();
    });
  }

  it('[W7] while nothing can be stored and every queue is full the process is idle, and then answers all it took in', {
    timeout: 240_000,
  }, async (t) => {
    const gate = new Gate(t);
    // The first publish holds up the Raft thread; shard and main thread are free to spin.
    await using broker = await startBroker({
      flags: [...SMALL_LIMITS, '--ring-bytes', '64KiB'],
      env: { BROKER_FAILPOINTS: gate.at('raft.before-append', SYNCS_OF_START + 1) },
    });
    const client = new BrokerClient(broker.address, { timeoutMs: 30_000 });
    const follower = follow(client, 't.flow.stop', { at: 'new' });
    await follower.live;
    const load = new Load(broker, [client], 't.flow.stop', 1_024);
    const crowd = [load.publish()];
    // One wave fills what is on its way, the next what waits in the shard, the next the ring.
    for (let wave = 0; wave < 4; wave++) {
      let answered = 0;
      for (let i = 0; i < 150; i++) crowd.push(load.publish().then(() => void answered++));
      await until(
        () => answered > 50,
        () => `${answered} of a wave were refused`,
      );
    }
    await pause(300);
    const isFull = async (): Promise<void> => {
      const body = Buffer.alloc(4_096);
      assert.equal((await refusal(client.publish({ subject: 't.flow.other', body }))).reason, 'QUEUE_FULL');
    };
    await isFull();
    const share = await cpuShare(broker, 1_000);
    await isFull();
    assert.equal(load.acked, 0, 'the Raft thread was not held up');
    gate.open();
    assert(share < 0.25, `uses ${Math.round(share * 100)} % of a core`);
    await Promise.all(crowd);
    assert.deepEqual([...load.refusals.keys()], ['QUEUE_FULL']);
    assert(load.acked > 60, `${load.acked} were taken in`);
    await load.judge();
    client.close();
  });
});

describe('deadlines', { concurrency: 2 }, () => {
  const rows = [
    // Before it: the start of the node, the open and the close of the first publish.
    {
      where: 'in the open batch, while the group before them gets its ids',
      site: 'raft.before-append',
      hit: SYNCS_OF_START + 3,
    },
    // Before it: the segment's header, the first group.
    { where: 'on the ring, while the shard writes', site: 'segment.sync', hit: 3 },
  ];
  for (const { where, site, hit } of rows) {
    it(`[F10] calls that expire ${where} get no ids`, { timeout: 240_000 }, async (t) => {
      const gate = new Gate(t);
      await using broker = await startBroker({
        flags: ['--shards', '1', '--groups-in-flight', '1'],
        env: { BROKER_FAILPOINTS: gate.at(site, hit) },
      });
      const client = new BrokerClient(broker.address, { timeoutMs: 30_000 });
      const subject = 't.flow.late';
      let acked = 0;
      let expired = 0;
      const publish = (timeoutMs: number): Promise<void> =>
        client.publish({ subject, body: numbered(0, 100) }, timeoutMs).then(
          () => {
            acked += 1;
          },
          (error: CallError) => {
            assert.equal(error.statusName, 'DEADLINE_EXCEEDED', String(error));
            expired += 1;
          },
        );
      const metric = async (name: string): Promise<number> => (await Metrics.of(broker)).sum(name);
      await publish(30_000);
      await until(
        async () => (await metric('broker_raft_entries_total')) === 3,
        () => 'the first publish was not closed',
      );
      // The first of these is held up; the others wait behind it.
      const patient = [publish(30_000)];
      await until(
        async () => (await metric('broker_shard_groups_total')) === 2,
        () => 'the first call was not taken up',
      );
      const hasty = Array.from({ length: 100 }, () => publish(150));
      patient.push(...Array.from({ length: 5 }, () => publish(30_000)));
      await Promise.all(hasty);
      // The broker counts from when a call came in.
      await pause(1_000);
      gate.open();
      await Promise.all(patient);
      const head = await client.publish({ subject, body: numbered(0, 100) });
      const count = async (status: string): Promise<number> =>
        (await Metrics.of(broker)).sum('rpc_request_get_method_count', 'publish"', status);
      // Every call that got an id was served, and there is no other id.
      assert.equal(head, await count('"OK"'));
      // Some may have expired at the client alone, while their ids were being stored: not many.
      assert(expired >= 80, `only ${expired} of 100 expired`);
      assert(head - 1 - acked <= expired / 4, `${head - 1 - acked} of ${expired} expired calls cost an id`);
      assert.equal(await count('"DEADLINE_EXCEEDED"'), expired - (head - 1 - acked));
      client.close();
    });
  }
});

describe('memory', () => {
  it('[W6] 384 publishes of 1 MiB to a store that stands still are bounded by limits.in_flight_bytes', {
    timeout: 240_000,
  }, async (t) => {
    const gate = new Gate(t);
    // A ring that would take it all: the budget alone is in the way.
    await using broker = await startBroker({
      flags: ['--shards', '1', '--limits-in-flight-bytes', '16MiB', '--ring-bytes', '256MiB'],
      env: { BROKER_FAILPOINTS: gate.at('raft.before-append', SYNCS_OF_START + 1) },
    });
    const clients = Array.from({ length: 4 }, () => new BrokerClient(broker.address, { timeoutMs: 30_000 }));
    const request = encodePublish({ subject: 't.flow.flood', body: Buffer.alloc(MIB - 1_024, 7) });
    const base = rssOf(broker);
    const reasons = new Map<string, number>();
    let acked = 0;
    const flood = publishAll(384, 128, (n) =>
      (clients[n % 4] as BrokerClient).call('Publish', request).then(
        () => {
          acked += 1;
        },
        (error: CallError) => void reasons.set(`${error.reason}`, (reasons.get(`${error.reason}`) ?? 0) + 1),
      ),
    );
    let taken = 0;
    let isOver = false;
    // Awaited, so that no look outlives the broker.
    const watch = (async (): Promise<void> => {
      while (!isOver) {
        taken = Math.max(taken, (await Metrics.of(broker)).sum('broker_in_flight_bytes'));
        await pause(100);
      }
    })();
    void until(
      () => (reasons.get('IN_FLIGHT_FULL') ?? 0) > 200,
      () => `${reasons.get('IN_FLIGHT_FULL')} were refused`,
    ).finally(() => gate.open());
    const peak = await peakRss(
      broker,
      flood.finally(() => {
        isOver = true;
      }),
    );
    await watch;
    assert.deepEqual([...reasons.keys()], ['IN_FLIGHT_FULL']);
    assert(acked >= 8, `${acked} were stored`);
    assert(taken >= 8 * MIB && taken <= 16 * MIB, `${Math.round(taken / MIB)} MiB were taken in`);
    // The budget is in memory up to three times; the rest is what 128 streams were receiving and the collector had not freed.
    const grown = peak - base;
    assert(grown <= 512 * MIB, `memory rose by ${Math.round(grown / MIB)} MiB`);
    for (const client of clients) client.close();
  });

  it('[W6] a body that no ring could carry is refused, and the broker lives', { timeout: 240_000 }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const client = new BrokerClient(broker.address);
    const tooLong = await refusal(client.publish({ subject: 't.flow.long', body: Buffer.alloc(3 * MIB) }));
    assert.equal(tooLong.reason, 'BODY_TOO_LARGE');
    // 3 MiB of a field that nobody knows: number 15, length-delimited.
    const padding = Buffer.concat([Buffer.from([0x7a, 0x80, 0x80, 0xc0, 0x01]), Buffer.alloc(3 * MIB)]);
    const padded = Buffer.concat([encodePublish({ subject: 't.flow.long', body: Buffer.from('x') }), padding]);
    assert.equal((await refusal(client.call('Publish', padded))).reason, 'MESSAGE_TOO_LARGE');
    assert.equal(await client.publish({ subject: 't.flow.long', body: Buffer.from('x') }), 1);
    client.close();
  });

  it('[W6] subjects.max and producers.max hold against a client that invents them; reading an unknown subject creates nothing', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({
      flags: ['--shards', '1', '--subjects-max', '1000', '--producers-max', '50'],
    });
    const client = new BrokerClient(broker.address, { timeoutMs: 30_000 });
    const body = Buffer.from('x');
    for (let n = 0; n < 100; n++) follow(client, `t.flow.unknown-${n}`, { at: 'earliest' });
    await publishAll(500, 100, async (n) => {
      assert.equal((await refusal(client.fetch(`t.flow.unknown-${n}`, 1))).reason, 'ID_NOT_FOUND');
    });
    let created = 0;
    const refused = new Set<string>();
    await publishAll(1_300, 100, async (n) => {
      try {
        const subject = `t.flow.new-${n}`;
        await (n % 10 === 0 ? client.incIdx(subject) : client.publish({ subject, body }));
        created += 1;
      } catch (error) {
        assert(error instanceof CallError);
        assert.equal(error.statusName, 'RESOURCE_EXHAUSTED');
        assert(error.retryAfterMs !== null && error.retryAfterMs > 0);
        refused.add(`${error.reason}`);
      }
    });
    assert.equal(created, 1_000);
    assert.deepEqual([...refused], ['SUBJECTS_FULL']);
    const subject = 't.flow.new-1';
    assert.equal(await client.publish({ subject, body }), 2, 'a subject that exists goes on');

    let known = 0;
    refused.clear();
    await publishAll(80, 20, async (n) => {
      try {
        await client.publish({ subject, body, producerId: `p-${n}`, sequence: 1 });
        known += 1;
      } catch (error) {
        assert(error instanceof CallError);
        refused.add(`${error.reason}`);
      }
    });
    assert.equal(known, 50);
    assert.deepEqual([...refused], ['PRODUCERS_FULL']);
    assert.equal(await client.publish({ subject, body }), 53, 'refused producers cost no id');
    client.close();
  });

  it('IncIdx is answered on a broker where nothing else happens', { timeout: 240_000 }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '1'] });
    const client = new BrokerClient(broker.address);
    assert.equal(await client.incIdx('t.flow.alone'), 1);
    assert.equal(await client.incIdx('t.flow.alone'), 2);
    client.close();
  });
});

describe('pauses', { concurrency: 2 }, () => {
  const STILL_MS = 2_000;
  const rows = [
    { what: 'the loop of a shard is blocked for 2 s', atOnce: false },
    { what: 'every thread stands still for 2 s, twice the election timeout', atOnce: true },
  ];
  for (const { what, atOnce } of rows) {
    it(`[W9] ${what}: no call fails, no term and no shard is replaced`, { timeout: 300_000 }, async (t) => {
      const gate = new Gate(t);
      await using broker = await startBroker({
        flags: ['--shards', '1'],
        env: atOnce ? {} : { BROKER_FAILPOINTS: gate.at('shard.round', 300) },
      });
      const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
      const termOf = async (): Promise<number> => (await Metrics.of(broker)).sum('broker_raft_term');
      await until(
        async () => (await termOf()) > 0,
        () => 'no term is shown',
      );
      const term = await termOf();
      const subject = 't.flow.pause';
      const reader = follow(client, subject, { at: 'new' });
      await reader.live;
      let published = 0;
      let answered = 0;
      let isOver = false;
      const worker = async (): Promise<void> => {
        // On until the pause is over and some more were answered.
        for (let rest = 20; rest > 0; ) {
          await client.publish({ subject, body: numbered(published++, 100) });
          answered += 1;
          if (isOver) rest -= 1;
        }
      };
      const workers = Promise.all(Array.from({ length: 8 }, worker));
      if (atOnce) {
        await until(
          () => answered > 200,
          () => 'no load',
        );
        process.kill(broker.pid, 'SIGSTOP');
      }
      // Since when nobody was answered, as this process saw it.
      let [seen, since] = [-1, 0];
      const standsStill = (): boolean => {
        if (answered !== seen) [seen, since] = [answered, performance.now()];
        return performance.now() - since >= STILL_MS;
      };
      await until(standsStill, () => 'it is answering all the time');
      isOver = true;
      gate.open();
      process.kill(broker.pid, 'SIGCONT');
      await workers;
      await until(
        () => reader.ids.length === published,
        () => `the reader has ${reader.ids.length} of ${published}`,
      );
      assert.deepEqual(
        reader.ids,
        reader.ids.map((_, i) => i + 1),
      );
      assert.equal(await termOf(), term);
      assert(!broker.logs.includes('a shard thread died'), broker.logs);
      client.close();
    });
  }
});
