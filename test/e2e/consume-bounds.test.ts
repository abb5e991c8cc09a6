/** What bounds a consume stream: lost data, subscriptions, many subjects, tokens of short lives, frames that nobody should send. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { connect } from 'node:http2';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ConsumeRequest } from '../../src/grpc/gen/broker/v1/consumer.ts';
import { startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { ConsumeStream } from '../support/consume-stream.ts';
import { mutate, numbersFrom } from '../support/fuzz.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { CONSUME_PATH, RawStream } from '../support/raw-stream.ts';
import { Metrics, publishAll, range, until } from './flow-rig.ts';

const NO_TOKEN = Buffer.alloc(0);

describe('a consume stream and a lost segment', () => {
  it('[S11] ends with DATA_LOSS behind what was stored before it, names where, and begins anew behind it', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--segment-bytes', '1MiB'] });
    const client = new BrokerClient(broker.address);
    const large = Buffer.alloc(256 << 10, 7);
    for (let i = 0; i < 24; i++) await client.publish({ subject: 't.lost', body: large });
    await broker.stop();
    const lane = join(broker.dataDir, 'segments', 'lane-000');
    for (const suffix of ['seg', 'idx']) rmSync(join(lane, `00000003.${suffix}`));
    await broker.restart();
    await client.ready();
    const isLost = (id: number) =>
      client.fetch('t.lost', id).then(
        () => false,
        (error: unknown) => error instanceof CallError && error.reason === 'DATA_LOSS',
      );
    const lost: number[] = [];
    for (let id = 1; id <= 24; id++) if (await isLost(id)) lost.push(id);
    const [first, last] = [lost[0] as number, lost.at(-1) as number];
    assert.deepEqual(lost, range(first, last));
    assert(first > 1 && last < 24, `lost ${lost}`);
    const stream = await ConsumeStream.open(broker.address, [{ subject: 't.lost', earliest: true }]);
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status?.reason, 'DATA_LOSS');
    assert.match(stream.status?.message ?? '', new RegExp(`t\\.lost, next id ${first}\\b`));
    assert.deepEqual(stream.idsOf('t.lost'), range(1, first - 1));
    assert.deepEqual(stream.violations, []);
    stream.cancel();
    using behind = await ConsumeStream.open(broker.address, [{ subject: 't.lost', id: last + 1 }]);
    await behind.until(() => behind.status !== undefined || behind.messages === 24 - last);
    assert.deepEqual(behind.idsOf('t.lost'), range(last + 1, 24));
    client.close();
  });
});

describe('limits.subscriptions', () => {
  it('is shared by all consume streams and by Subscribe: who finds none left is refused, and the others go on', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '2', '--limits-subscriptions', '6'] });
    const client = new BrokerClient(broker.address);
    const subjectsOf = (name: string, count: number) => range(1, count).map((n) => ({ subject: `${name}.${n}` }));
    using four = await ConsumeStream.open(broker.address, subjectsOf('q', 4));
    using three = await ConsumeStream.open(broker.address, subjectsOf('r', 3));
    await three.until(() => three.status !== undefined);
    assert.equal(three.status?.reason, 'SUBSCRIPTIONS_FULL');
    // What it had taken is free again.
    using growing = await ConsumeStream.open(broker.address, [{ subject: 's.*' }]);
    for (const n of range(1, 2)) await client.publish({ subject: `s.${n}`, body: Buffer.from('x') });
    await growing.until(() => growing.messages === 2);
    assert.equal((await Metrics.of(broker)).sum('active_subscribers'), 6);
    using none = await ConsumeStream.open(broker.address, [{ subject: 'q.1' }]);
    assert.equal(none.status?.reason, 'SUBSCRIPTIONS_FULL');
    const refused = Promise.withResolvers<CallError | null>();
    client.subscribe('q.1', { at: 'new' }, { onMessage: () => assert.fail('a message'), onEnd: refused.resolve });
    assert.equal((await refused.promise)?.reason, 'SUBSCRIPTIONS_FULL');
    await client.publish({ subject: 's.3', body: Buffer.from('x') });
    await growing.until(() => growing.status !== undefined);
    assert.equal(growing.status?.reason, 'SUBSCRIPTIONS_FULL');
    await client.publish({ subject: 'q.4', body: Buffer.from('x') });
    await four.until(() => four.messages === 1);
    assert.deepEqual([four.idsOf('q.4'), four.status, four.violations], [[1], undefined, []]);
    await until(
      async () => (await Metrics.of(broker)).sum('active_subscribers') === 4,
      () => 'subscriptions of ended streams are still counted',
    );
    client.close();
  });
});

describe('many subjects on one consume stream', () => {
  it('10,000 by name and 5,000 by a pattern: each starts, and each message of each comes once', {
    timeout: 300_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '2', '--limits-subscriptions', '20000'] });
    const named = range(1, 10_000).map((n) => `many.${n % 2 === 0 ? 'even' : 'odd'}.${n}`);
    const even = named.filter((subject) => subject.startsWith('many.even.'));
    using publisher = await PublishStream.open(broker.address, '');
    let sequence = 0;
    const publish = async (body: string): Promise<void> => {
      for (let at = 0; at < named.length; at += 100) {
        const batches = named.slice(at, at + 100).map((subject) => ({ subject, sequence: ++sequence, bodies: [body] }));
        publisher.send(...batches);
        const outcomes = await publisher.outcomes(...batches.map((batch) => batch.sequence));
        assert(
          outcomes.length === batches.length && outcomes.every((outcome) => outcome.includes('..')),
          outcomes.join(),
        );
      }
    };
    await publish('first');
    using byName = await ConsumeStream.open(
      broker.address,
      named.map((subject) => ({ subject, earliest: true })),
    );
    using byPattern = await ConsumeStream.open(broker.address, [{ subject: 'many.even.*', earliest: true }]);
    await publish('second');
    for (const [stream, subjects] of [
      [byName, named],
      [byPattern, even],
    ] as const) {
      await stream.until(() => stream.status !== undefined || stream.messages === 2 * subjects.length);
      assert.equal(stream.status, undefined);
      assert.deepEqual(stream.violations, []);
      assert.deepEqual([...stream.ids.keys()].toSorted(), subjects.toSorted());
      for (const subject of subjects) assert.deepEqual(stream.bodies.get(subject), ['first', 'second']);
      await stream.nextHeartbeat();
      for (const subject of subjects) assert.equal(stream.positions.get(subject)?.nextId, 3, subject);
    }
    const resumeToken = byName.resumeToken;
    byName.cancel();
    using again = await ConsumeStream.open(
      broker.address,
      named.map((subject) => ({ subject, earliest: true })),
      { resumeToken },
    );
    await publish('third');
    await again.until(() => again.status !== undefined || again.messages === named.length);
    for (const subject of named) assert.deepEqual(again.bodies.get(subject), ['third']);
  });
});

describe('the first token of a consume stream', () => {
  it('comes with the start: a pattern that begins new loses no subject born after it, however short its stream lived', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    const client = new BrokerClient(broker.address);
    await client.publish({ subject: 'born.old', body: Buffer.from('before') });
    const pattern = [{ subject: 'born.*', new: true }];
    // No heartbeat comes by time.
    const short = await ConsumeStream.open(broker.address, pattern, { heartbeatMs: 600_000 });
    await short.until(() => short.resumeToken.length > 0);
    short.cancel();
    await publishAll(20, 4, (n) => client.publish({ subject: `born.${n}`, body: Buffer.from('after') }));
    await client.publish({ subject: 'born.old', body: Buffer.from('after') });
    using stream = await ConsumeStream.open(broker.address, pattern, { resumeToken: short.resumeToken });
    await stream.until(() => stream.messages === 21);
    for (const [subject, ids] of stream.ids) assert.deepEqual(ids, subject === 'born.old' ? [2] : [1], subject);
    assert.equal(stream.ids.size, 21);
    assert.deepEqual(stream.violations, []);
    client.close();
  });
});

describe('frames that nobody should send', () => {
  it('end their own stream with a status or are obeyed; the broker lives and serves everybody else', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    const client = new BrokerClient(broker.address);
    using witness = await ConsumeStream.open(broker.address, [{ subject: 'w' }, { subject: '>' }]);
    const valid = (resumeToken: Buffer): Buffer =>
      Buffer.from(
        ConsumeRequest.encode({
          open: {
            subjects: [
              { subject: 'f.a', id: 3 },
              { subject: 'f.*', earliest: true },
            ],
            resumeToken,
            heartbeatMs: 100,
          },
          credit: { bytes: 1 << 20, messages: 1_000 },
        }).finish(),
      );
    const seeds = [valid(NO_TOKEN), valid(witness.resumeToken)];
    const seed = 0x5eed_0004;
    const number = numbersFrom(seed);
    const session = connect(`http://${broker.address}`);
    session.on('error', () => undefined);
    const ends = new Map<string, number>();
    const attack = async (): Promise<void> => {
      const stream = new RawStream(session, CONSUME_PATH);
      for (let frames = 1 + number(3); frames > 0; frames--) {
        void stream.send(mutate(seeds[number(seeds.length)] as Buffer, number));
      }
      // The client has enough: whatever lives ends with OK.
      stream.halfClose();
      const status = String((await stream.ended).status ?? 'none');
      ends.set(status, (ends.get(status) ?? 0) + 1);
    };
    for (let round = 0; round < 40; round++) {
      await Promise.all(range(1, 25).map(attack));
      await client.publish({ subject: 'w', body: Buffer.from(String(round)) });
    }
    await witness.until(() => witness.status !== undefined || witness.idsOf('w').length === 40);
    assert.deepEqual([witness.idsOf('w'), witness.status, witness.violations], [range(1, 40), undefined, []]);
    const told = `seed ${seed.toString(16)}: ${JSON.stringify([...ends])}`;
    assert(!ends.has('none'), `streams without a status; ${told}`);
    // UNKNOWN and INTERNAL are what a defect would be.
    assert(!ends.has('2') && !ends.has('13'), told);
    assert((ends.get('0') ?? 0) > 0 && (ends.get('3') ?? 0) > 0, told);
    await until(
      async () => (await Metrics.of(broker)).sum('active_subscribers') === witness.positions.size,
      () => 'subscriptions stay',
    );
    session.close();
    client.close();
  });
});
