/** broker.v1.Producer/PublishStream on a real broker. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { PublishStreamRequest } from '../../src/grpc/gen/broker/v1/producer.ts';
import { BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient, type CallError } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { PublishStream, type StreamBatch, sendRound } from '../support/publish-stream.ts';
import { PUBLISH_STREAM_PATH, RawStream } from '../support/raw-stream.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { Metrics, range } from './flow-rig.ts';

async function start(flags: readonly string[] = []): Promise<BrokerProcess> {
  const broker = await BrokerProcess.create({ flags: ['--shards', '2', ...flags] });
  await broker.restart();
  return broker;
}

describe('PublishStream', () => {
  it('batches get id ranges, are acknowledged in order, and can be fetched by their ids', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p');
    assert.deepEqual(
      [stream.opened?.lastSequence, stream.opened?.durability, stream.opened?.batchesInFlightMax],
      [0, 1, 1024],
    );
    stream.send(
      { subject: 's.a', sequence: 1, bodies: ['one', 'two', 'three'] },
      { subject: 's.b', sequence: 2, bodies: [Buffer.alloc(3, 0xff)] },
    );
    stream.send({ subject: 's.a', sequence: 3, bodies: ['four'] });
    assert.deepEqual(await stream.outcomes(1, 2, 3), ['1..3', '1..1', '4..4']);
    assert.equal(stream.acknowledged, 3);
    const client = new BrokerClient(broker.address);
    assert.equal((await client.fetch('s.a', 2)).body.toString(), 'two');
    assert.equal((await client.fetch('s.a', 4)).body.toString(), 'four');
    assert.deepEqual((await client.fetch('s.b', 1)).body, Buffer.alloc(3, 0xff));
    client.close();
    stream.halfClose();
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status, null);
  });

  it('[R25] what is sent again, on the same or another stream and after a restart, gets its first ids and is stored once', async () => {
    await using broker = await start();
    const first = await PublishStream.open(broker.address, 'p');
    first.send({ subject: 's', sequence: 1, bodies: ['a', 'b'] }, { subject: 's', sequence: 2, bodies: ['c'] });
    assert.deepEqual(await first.outcomes(1, 2), ['1..2', '3..3']);
    first.cancel();
    await broker.kill();
    await broker.restart();
    using second = await PublishStream.open(broker.address, 'p', 2);
    assert.equal(second.opened?.lastSequence, 2);
    second.send({ subject: 's', sequence: 2, bodies: ['c'] }, { subject: 's', sequence: 3, bodies: ['d'] });
    assert.deepEqual(await second.outcomes(2, 3), ['3..3', '4..4']);
  });
});

describe('[R27] batches that the store refuses', () => {
  it('come back with all that follow them of their subject, and sent again in order they are stored in order, once', async () => {
    await using broker = await BrokerProcess.create({
      flags: ['--shards', '1', '--batch-linger', '0'],
      env: { BROKER_FAILPOINTS: 'segment.write=eio@2' },
    });
    await broker.restart();
    using stream = await PublishStream.open(broker.address, 'p');
    const batches = Array.from({ length: 120 }, (_, i) => ({
      subject: `s.${i % 3}`,
      sequence: i + 1,
      bodies: [`batch ${i + 1}`, 'x'.repeat(6_000)],
    }));
    const retrying = {
      stream,
      left: new Map(batches.map((b) => [b.sequence, b])),
      ids: new Map(),
      reasons: new Set<string>(),
    };
    let rounds = 0;
    while (retrying.left.size > 0 && rounds++ < 20) await sendRound(retrying);
    assert.equal(retrying.left.size, 0);
    assert.ok(retrying.reasons.has('STORE_UNAVAILABLE'), [...retrying.reasons].join());
    for (const subject of ['s.0', 's.1', 's.2']) {
      const ids = batches.filter((b) => b.subject === subject).map((b) => retrying.ids.get(b.sequence) as number);
      assert.deepEqual(
        ids,
        [...ids].sort((a, b) => a - b),
        `ids of ${subject} in the order of the sequences`,
      );
    }
    const client = new BrokerClient(broker.address);
    for (const { subject, sequence } of batches) {
      const message = await client.fetch(subject, retrying.ids.get(sequence) as number);
      assert.equal(message.body.toString(), `batch ${sequence}`);
    }
    client.close();
  });

  it('two producers that expect the same last id: one of them has it in each round', async () => {
    await using broker = await start();
    using one = await PublishStream.open(broker.address, 'one');
    using two = await PublishStream.open(broker.address, 'two');
    for (let round = 1; round <= 50; round++) {
      const batch = { subject: 's', sequence: round, bodies: ['a'], expectedLastId: round - 1 };
      for (const stream of [one, two]) stream.send(batch);
      const outcomes = [...(await one.outcomes(round)), ...(await two.outcomes(round))];
      assert.deepEqual(outcomes.sort(), [`${round}..${round}`, 'HEAD_MISMATCH']);
    }
  });

  it('a batch that can never be stored fails alone', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p');
    const batches: { batch: Omit<StreamBatch, 'sequence'>; outcome: string }[] = [
      { batch: { subject: 's', bodies: ['a'] }, outcome: '1..1' },
      { batch: { subject: 'bad..subject', bodies: ['b'] }, outcome: 'SUBJECT_EMPTY_TOKEN' },
      { batch: { subject: 's', bodies: [] }, outcome: 'MALFORMED_MESSAGE' },
      { batch: { subject: 's', bodies: ['c'], expectedLastId: 9 }, outcome: 'HEAD_MISMATCH' },
      { batch: { subject: 's', bodies: ['d'], expirationSeconds: -1 }, outcome: 'EXPIRATION_NEGATIVE' },
      { batch: { subject: 's', bodies: ['e'], expectedLastId: 1 }, outcome: '2..2' },
      { batch: { subject: 's', bodies: ['f'] }, outcome: '3..3' },
    ];
    batches.forEach(({ batch }, i) => {
      stream.send({ ...batch, sequence: i + 1 });
    });
    const outcomes = await stream.outcomes(...batches.map((_, i) => i + 1));
    assert.deepEqual(
      outcomes,
      batches.map(({ outcome }) => outcome),
    );
    // Larger than the window, so alone.
    stream.send({ subject: 's', sequence: 8, bodies: [Buffer.alloc((1 << 20) + 1)] });
    assert.deepEqual(await stream.outcomes(8), ['BODY_TOO_LARGE']);
    assert.equal(stream.acknowledged, 8);
  });
});

describe('a client that breaks the rules', () => {
  const cases: { what: string; send: (stream: PublishStream) => void; reason: string }[] = [
    {
      what: 'opens twice',
      send: (s) => s.write({ open: { producerId: 'p', firstSequence: 0 }, batches: [] }),
      reason: 'STREAM_NOT_OPENED',
    },
    {
      what: 'goes back',
      send: (s) => s.send({ subject: 's', sequence: 1, bodies: ['b'] }),
      reason: 'SEQUENCE_OUT_OF_ORDER',
    },
    {
      what: 'leaves the sequence out',
      send: (s) => s.send({ subject: 's', sequence: 0, bodies: ['b'] }),
      reason: 'SEQUENCE_OUT_OF_ORDER',
    },
  ];
  for (const { what, send, reason } of cases) {
    it(`${what}: its stream ends with ${reason}, and another one serves`, async () => {
      await using broker = await start();
      using stream = await PublishStream.open(broker.address, 'p');
      stream.send({ subject: 's', sequence: 1, bodies: ['a'] });
      assert.deepEqual(await stream.outcomes(1), ['1..1']);
      send(stream);
      await stream.until(() => stream.status !== undefined);
      assert.equal(stream.status?.reason, reason);
      using next = await PublishStream.open(broker.address, 'p', 2);
      next.send({ subject: 's', sequence: 2, bodies: ['c'] });
      assert.deepEqual(await next.outcomes(2), ['2..2']);
    });
  }

  it('[F9] ignores the window: it loses its stream, and nobody else notices', async () => {
    await using broker = await start(['--publish-window-max', '64KiB', '--publish-window-min', '64KiB']);
    using good = await PublishStream.open(broker.address, 'good');
    using bad = await PublishStream.open(broker.address, 'bad');
    const bodies = Array.from({ length: 16 }, () => Buffer.alloc(4_000));
    // The broker is not given the time to answer: all of it is on its way at once.
    bad.send(...Array.from({ length: 50 }, (_, i) => ({ subject: 's', sequence: i + 1, bodies })));
    await bad.until(() => bad.status !== undefined);
    assert.equal(bad.status?.reason, 'WINDOW_EXCEEDED');
    good.send({ subject: 't', sequence: 1, bodies: ['a'] });
    assert.deepEqual(await good.outcomes(1), ['1..1']);
  });

  it('[F2] sends 100,000 batches in a frame that are all refused: the results come in many responses, and others are served between them', async () => {
    await using broker = await start();
    using good = await PublishStream.open(broker.address, 'good');
    using bad = await PublishStream.open(broker.address, 'bad');
    bad.pause();
    bad.send(...Array.from({ length: 100_000 }, (_, i) => ({ subject: 'a..b', sequence: i + 1, bodies: [] })));
    good.send({ subject: 't', sequence: 1, bodies: ['a'] });
    assert.deepEqual(await good.outcomes(1), ['1..1']);
    bad.resume();
    bad.halfClose();
    await bad.until(() => bad.status !== undefined);
    // A stock client takes no response above 4 MiB; all results in one would be 8.
    assert.equal(bad.status, null);
    assert.deepEqual([bad.results.size, bad.acknowledged], [100_000, 100_000]);
  });

  it('leaves more refused batches behind than may come again: its stream ends, and shards remember no more of it', async () => {
    await using broker = await start(['--subjects-max', '10']);
    using stream = await PublishStream.open(broker.address, 'p');
    for (let from = 1; stream.status === undefined; from += 500) {
      assert.ok(from < 10_000, 'the stream goes on');
      const batches = Array.from({ length: 500 }, (_, i) => ({
        ...{ subject: `s.${from + i}`, sequence: from + i },
        bodies: ['x'],
      }));
      stream.send(...batches);
      await stream.until(
        () => stream.status !== undefined || batches.every(({ sequence }) => stream.results.has(sequence)),
      );
    }
    assert.equal(stream.status?.reason, 'WINDOW_EXCEEDED');
    assert.match(stream.status?.message ?? '', /have not come again/);
    using next = await PublishStream.open(broker.address, 'q');
    const [stored] = [...stream.results.values()].filter(({ firstId }) => firstId > 0);
    next.send({ subject: `s.${stored?.sequence}`, sequence: 1, bodies: ['a'] });
    assert.deepEqual(await next.outcomes(1), ['2..2']);
    const remembered = async (): Promise<number> => (await Metrics.of(broker)).sum('broker_shard_active_subjects');
    await until(
      async () => (await remembered()) < 100,
      async () => `${await remembered()} subjects are remembered`,
    );
  });

  it('sends 100,000 tiny batches in a frame: the 1,025th ends the stream, and those before it are stored', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p');
    stream.send(...Array.from({ length: 100_000 }, (_, i) => ({ subject: 's', sequence: i + 1, bodies: ['a'] })));
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status?.reason, 'WINDOW_EXCEEDED');
    using next = await PublishStream.open(broker.address, 'p', 1);
    next.send({ subject: 's', sequence: 1_024, bodies: ['a'] }, { subject: 's', sequence: 1_025, bodies: ['b'] });
    assert.deepEqual(await next.outcomes(1_024, 1_025), ['1024..1024', '1025..1025']);
  });

  it('lets the last batch of a frame be cut: the stream ends with MALFORMED_MESSAGE, and the batches before it are stored', async () => {
    await using broker = await start();
    using raw = new RawStream(broker.address, PUBLISH_STREAM_PATH);
    const records = { records: [{ body: Buffer.from('a'), headers: [], expirationSeconds: 0 }] };
    const batch = { subject: 's', sequence: 1, records, expectedLastId: undefined };
    const whole = PublishStreamRequest.encode({ open: undefined, batches: [batch] }).finish();
    void raw.send(PublishStreamRequest.encode({ open: { producerId: 'p', firstSequence: 0 }, batches: [] }).finish());
    void raw.send(Buffer.concat([whole, whole.subarray(0, -1)]));
    assert.equal((await raw.ended).reason, 'MALFORMED_MESSAGE');
    using next = await PublishStream.open(broker.address, 'p', 1);
    next.send({ subject: 's', sequence: 1, bodies: ['a'] }, { subject: 's', sequence: 2, bodies: ['b'] });
    assert.deepEqual(await next.outcomes(1, 2), ['1..1', '2..2']);
  });

  it('does not notice that its deadline has passed: it is cut off, and does not hold up the end of the broker', async () => {
    await using broker = await start(['--shutdown-drain', '60s']);
    using raw = new RawStream(broker.address, PUBLISH_STREAM_PATH, { 'grpc-timeout': '50m' });
    void raw.send(PublishStreamRequest.encode({ open: { producerId: 'p', firstSequence: 0 }, batches: [] }).finish());
    assert.equal((await raw.told).status, 4);
    // It never ends its own side.
    await broker.stop(30_000);
  });

  it('opens a second stream with the same producer id: the first one ends with PRODUCER_REPLACED', async () => {
    await using broker = await start();
    using first = await PublishStream.open(broker.address, 'p');
    using second = await PublishStream.open(broker.address, 'p');
    await first.until(() => first.status !== undefined);
    assert.equal(first.status?.reason, 'PRODUCER_REPLACED');
    second.send({ subject: 's', sequence: 1, bodies: ['a'] });
    assert.deepEqual(await second.outcomes(1), ['1..1']);
  });

  it('[R25] opens a second stream while batches of the first are on their way: it is answered when they have their results, and knows them all', async (t) => {
    const gate = join(temporaryFolder(t), 'disk-is-fine');
    writeFileSync(gate, '');
    await using broker = await BrokerProcess.create({
      flags: ['--shards', '2', '--batch-linger', '0'],
      env: { BROKER_FAILPOINTS: `segment.sync=wait:${gate}` },
    });
    await broker.restart();
    const names = range(1, 8).map((number) => `p${number}`);
    const first = await Promise.all(names.map((name) => PublishStream.open(broker.address, name)));
    const client = new BrokerClient(broker.address);
    rmSync(gate);
    const before = client.publish({ subject: 's', body: Buffer.from('before') });
    // Until the shard that owns `s` stands before its disk: then what follows stays on its ring.
    const isServing = (): Promise<boolean> =>
      client.fetch('s', 99, 250).then(
        () => true,
        ({ reason }: CallError) => reason !== null,
      );
    while (await isServing());
    for (const stream of first) stream.send({ subject: 's', sequence: 1, bodies: ['a'] });
    for (const stream of first) stream.send({ subject: 's', sequence: 2, bodies: ['b'] });
    const second = names.map(() => new PublishStream(broker.address));
    second.forEach((stream, i) => {
      stream.write({ open: { producerId: names[i] as string, firstSequence: 1 }, batches: [] });
    });
    await Promise.all(first.map((stream) => stream.until(() => stream.status !== undefined)));
    // About half of all producers are opened by the other shard: one that is new proves that those before it could have been.
    const fresh = range(1, 8).map(() => new PublishStream(broker.address));
    fresh.forEach((stream, i) => {
      stream.write({ open: { producerId: `fresh${i}`, firstSequence: 1 }, batches: [] });
    });
    await Promise.any(fresh.map((stream) => stream.until(() => stream.opened !== null)));
    writeFileSync(gate, '');
    await Promise.all(second.map((stream) => stream.until(() => stream.opened !== null)));
    assert.deepEqual(
      second.map((stream) => stream.opened?.lastSequence),
      names.map(() => 2),
    );
    // A new one behind it: had the first stream's still been on its way, it would have been taken for a repeat.
    for (const stream of second) stream.send({ subject: 't', sequence: 3, bodies: ['c'] });
    const outcomes = await Promise.all(second.map((stream) => stream.outcomes(3)));
    assert.equal(new Set(outcomes.flat()).size, names.length);
    assert.equal(await before, 1);
    client.close();
    for (const stream of [...first, ...second, ...fresh]) stream.cancel();
  });

  it('goes on with a producer that nobody knows: SEQUENCE_UNKNOWN', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p', 7);
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status?.reason, 'SEQUENCE_UNKNOWN');
  });
});

describe('the end of a stream', () => {
  it('[W8] its shard dies: the stream ends with OUTCOME_UNKNOWN, and what is sent again on another one is stored once', async () => {
    await using broker = await BrokerProcess.create({
      flags: ['--shards', '1'],
      env: { BROKER_FAILPOINTS: 'segment.synced=exit@3' },
    });
    await broker.restart();
    // Every thread that follows dies as early.
    const left = new Map(
      Array.from({ length: 6 }, (_, i) => [i + 1, { subject: 's', sequence: i + 1, bodies: [`${i + 1}`] }]),
    );
    const ids: number[] = [];
    const ends = new Set<string>();
    for (const until = performance.now() + 120_000; left.size > 0 && performance.now() < until; ) {
      using stream = await PublishStream.open(broker.address, 'p', Math.min(...left.keys()));
      for (const batch of [...left.values()]) {
        if (stream.status !== undefined) break;
        stream.send(batch);
        const [result] = await stream.settled(batch.sequence);
        if (result === undefined) break;
        assert.equal(result.error, undefined);
        ids.push(result.firstId);
        left.delete(batch.sequence);
      }
      if (stream.status !== undefined && stream.status !== null) {
        ends.add(stream.status.reason ?? stream.status.message);
        // As any client does that is told to wait: the shard is being replaced.
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
    assert.deepEqual(ids, [1, 2, 3, 4, 5, 6], 'stored once, in order, without a hole');
    assert.ok(ends.has('OUTCOME_UNKNOWN'), [...ends].join());
    const client = new BrokerClient(broker.address);
    for (const id of ids) assert.equal((await client.fetch('s', id)).body.toString(), `${id}`);
    client.close();
  });

  it('SIGTERM: what was taken has its result, then the stream ends with SHUTTING_DOWN', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p');
    stream.send(...Array.from({ length: 40 }, (_, i) => ({ subject: `s.${i}`, sequence: i + 1, bodies: ['a'] })));
    await stream.settled(1);
    process.kill(broker.pid, 'SIGTERM');
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status?.reason, 'SHUTTING_DOWN');
    assert.ok(stream.results.size > 0);
    assert.deepEqual(await broker.exited, { code: 0, signal: null });
  });

  it('half-closed behind the last batch: every result comes, then OK', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, '');
    for (let sequence = 1; sequence <= 300; sequence++) stream.send({ subject: 's', sequence, bodies: ['a'] });
    stream.halfClose();
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status, null);
    assert.deepEqual([stream.results.size, stream.acknowledged], [300, 300]);
  });

  it('[W6] half-closed while limits.in_flight_bytes are used up: unary calls are refused, then every batch is stored', async (t) => {
    const gate = new Gate(t);
    gate.open();
    await using broker = await BrokerProcess.create({
      flags: ['--shards', '1', '--limits-in-flight-bytes', '16MiB', '--ring-bytes', '64MiB'],
      env: { BROKER_FAILPOINTS: gate.each('segment.sync') },
    });
    await broker.restart();
    const streams = await Promise.all(Array.from({ length: 40 }, () => PublishStream.open(broker.address, '')));
    gate.shut();
    for (const stream of streams) {
      stream.send({ subject: 's', sequence: 1, bodies: [Buffer.alloc(800 << 10)] });
      stream.halfClose();
    }
    const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
    const reasons = new Set<string>();
    const calls: Promise<unknown>[] = [];
    // Those that are taken wait for the disk as well.
    const isRefused = (): boolean => {
      const call = client.publish({ subject: 't', body: Buffer.alloc(900 << 10) });
      calls.push(call.catch((error: CallError) => reasons.add(`${error.reason}`)));
      return reasons.size > 0;
    };
    await until(isRefused, () => 'no call is refused');
    assert.ok(
      streams.some(({ status }) => status === undefined),
      'no stream was on its way',
    );
    gate.open();
    await Promise.all(calls);
    assert.deepEqual([...reasons], ['IN_FLIGHT_FULL']);
    for (const stream of streams) await stream.until(() => stream.status !== undefined);
    const ids = streams.map(({ results }) => results.get(1)?.firstId ?? 0).sort((a, b) => a - b);
    assert.deepEqual(
      ids,
      streams.map((_, i) => i + 1),
    );
    assert.ok((await client.publish({ subject: 't', body: Buffer.alloc(1) })) > 0);
    client.close();
    for (const stream of streams) stream.cancel();
  });

  it('[F2] a client that reads no results: it is read from no more, and the broker keeps its memory', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p');
    stream.pause();
    for (let sequence = 1; sequence <= 1_000; sequence++) stream.send({ subject: 's', sequence, bodies: ['a'] });
    using other = await PublishStream.open(broker.address, 'q');
    other.send({ subject: 't', sequence: 1, bodies: ['b'] });
    assert.deepEqual(await other.outcomes(1), ['1..1']);
    stream.resume();
    await stream.settled(...Array.from({ length: 1_000 }, (_, i) => i + 1));
    assert.equal(stream.acknowledged, 1_000);
  });
});

describe('limits.producer_streams', () => {
  it('refuses who finds none left with the time to wait, and the others go on', { timeout: 240_000 }, async () => {
    await using broker = await startBroker({ flags: ['--limits-producer-streams', '2'] });
    using first = await PublishStream.open(broker.address, 'full-1', 1);
    const second = await PublishStream.open(broker.address, '');
    using third = await PublishStream.open(broker.address, '');
    assert.equal(third.status?.reason, 'STREAMS_FULL');
    assert((third.status?.retryAfterMs ?? 0) > 0);
    first.send({ subject: 's.full', sequence: 1, bodies: ['x'] });
    await first.settled(1);
    second[Symbol.dispose]();
    // The broker hears of the end of a stream a little later than its client.
    for (let opened = false; !opened; ) {
      using next = await PublishStream.open(broker.address, '');
      opened = next.opened !== null;
      if (!opened) assert.equal(next.status?.reason, 'STREAMS_FULL');
    }
  });
});
