/** Quotas of tenants on a real broker: calls, publish streams, tenants by the thousand, nodes that share. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { type BrokerOptions, BrokerProcess, LAUNCHER } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { command, refused, succeeded } from '../support/commands.ts';
import { PublishStream, type StreamBatch, sendRound } from '../support/publish-stream.ts';
import { pause, until } from '../support/until.ts';

const BODY = Buffer.from('x');
const MESSAGE = Buffer.alloc(50, 'x');
/** Little that waits in the client, which shares the machine with the broker. */
const SMALL = { batchBytes: 8 << 10, bufferBytes: 64 << 10 };

async function start(rules: string, options: BrokerOptions = {}): Promise<BrokerProcess> {
  const flags = ['--shards', '1', '--quotas-rules', rules, ...(options.flags ?? [])];
  const broker = await BrokerProcess.create({ ...options, flags });
  await broker.restart();
  return broker;
}

async function refusalOf(call: Promise<unknown>): Promise<CallError | null> {
  try {
    await call;
    return null;
  } catch (error) {
    if (error instanceof CallError) return error;
    throw error;
  }
}

function bodies(count: number, from: number): string[] {
  return Array.from({ length: count }, (_, index) => `${from + index}`);
}

describe('calls', () => {
  it('what a tenant has saved passes, the next call is refused with a retry delay, and other tenants go on', async () => {
    // Six at once, and one more in ten seconds.
    await using broker = await start('acme=0.1msg/s', { flags: ['--quotas-burst', '1m'] });
    const acme = new BrokerClient(broker.address, { tenant: 'acme' });
    for (let i = 0; i < 6; i++) await acme.publish({ subject: 's', body: BODY });
    for (const method of ['publish', 'broadcast', 'incIdx'] as const) {
      const call = method === 'incIdx' ? acme.incIdx('s') : acme[method]({ subject: 's', body: BODY });
      const refusal = await refusalOf(call);
      assert.deepEqual(
        [refusal?.statusName, refusal?.reason, refusal?.outcome],
        ['RESOURCE_EXHAUSTED', 'QUOTA_EXCEEDED', 'none'],
        method,
      );
      const delay = refusal?.retryAfterMs ?? 0;
      assert.ok(delay > 0 && delay <= 10_000, `${delay}`);
    }
    const shown = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
    assert.match(shown, /^broker_refused_total\{at="admission",reason="QUOTA_EXCEEDED"\} 3$/m);
    for (const method of ['publish', 'broadcast', 'incidx']) {
      assert.match(
        shown,
        new RegExp(`^rpc_request_get_method_count\\{method="${method}",.*code="RESOURCE_EXHAUSTED"\\} 1$`, 'm'),
      );
    }
    // Reading is not metered, and what was refused was not stored.
    assert.equal((await acme.fetch('s', 6)).body.toString(), 'x');
    assert.equal((await refusalOf(acme.fetch('s', 7)))?.reason, 'ID_NOT_FOUND');
    const others = new BrokerClient(broker.address);
    for (let i = 0; i < 20; i++) await others.publish({ subject: 's', body: BODY });
    acme.close();
    others.close();
  });

  it('after the retry delay the same call is taken', async () => {
    await using broker = await start('acme=20msg/s', { flags: ['--quotas-burst', '10ms'] });
    const acme = new BrokerClient(broker.address, { tenant: 'acme' });
    let waits = 0;
    for (let i = 0; i < 5; i++) {
      // It is full again then, and enough for one of two that come at once, however long the disk takes for that one.
      await pause(100);
      const two = Array.from({ length: 2 }, () => refusalOf(acme.publish({ subject: 's', body: BODY })));
      const [refusal] = (await Promise.all(two)).filter((each) => each !== null);
      if (refusal === undefined) continue;
      waits += 1;
      await pause(refusal.retryAfterMs ?? 0);
      await acme.publish({ subject: 's', body: BODY });
    }
    assert.ok(waits > 0);
    acme.close();
    // The client does so by itself.
    await using client = connect(broker.address, { tenant: 'acme' });
    for (let i = 0; i < 3; i++) await Promise.all([client.publish('s', 'x'), client.publish('s', 'x')]);
    assert.ok(client.stats.attempts > client.stats.calls, JSON.stringify(client.stats));
  });

  it('a message that is larger than what may be saved up is taken, and paid off before the next', async () => {
    await using broker = await start('acme=1KiB/s');
    const acme = new BrokerClient(broker.address, { tenant: 'acme' });
    await acme.publish({ subject: 's', body: Buffer.alloc(64 << 10) });
    const refusal = await refusalOf(acme.publish({ subject: 's', body: BODY }));
    assert.equal(refusal?.reason, 'QUOTA_EXCEEDED');
    assert.ok((refusal?.retryAfterMs ?? 0) > 30_000, `${refusal?.retryAfterMs}`);
    acme.close();
  });

  it('a load that waits for its quota ends at the first signal', { timeout: 240_000 }, async (t) => {
    await using broker = await start('acme=0.1msg/s');
    const argv = [
      'bench',
      'publish',
      '--address',
      broker.address,
      '--tenant',
      'acme',
      '--msgs',
      '300',
      '--batch',
      '100',
    ];
    const child = spawn(process.execPath, [LAUNCHER, ...argv], { stdio: 'ignore' });
    t.after(() => child.kill('SIGKILL'));
    const ended = once(child, 'exit');
    const metrics = async (): Promise<string> => (await fetch(`http://${broker.adminAddress}/metrics`)).text();
    await until(async () => /^broker_tenant_shrunk_total\{tenant="acme"\} [1-9]/m.test(await metrics()), metrics);
    child.kill('SIGINT');
    assert.deepEqual(await ended, [130, null]);
  });

  it('a quota for a prefix is for these subjects only', async () => {
    await using broker = await start('acme/orders=0.1msg/s', { flags: ['--quotas-burst', '10s'] });
    const acme = new BrokerClient(broker.address, { tenant: 'acme' });
    await acme.publish({ subject: 'orders.eu', body: BODY });
    assert.equal((await refusalOf(acme.publish({ subject: 'orders', body: BODY })))?.reason, 'QUOTA_EXCEEDED');
    assert.equal((await refusalOf(acme.incIdx('orders.us')))?.reason, 'QUOTA_EXCEEDED');
    await acme.publish({ subject: 'ordersx', body: BODY });
    await acme.publish({ subject: 'other', body: BODY });
    acme.close();
  });

  it('a tenant that is no name, or is named twice, is refused on every method, and nothing is done for it', async () => {
    await using broker = await start('*=unlimited');
    for (const tenant of ['a b', '*', 'x'.repeat(65), ['a', 'b'], ['a', 'a']]) {
      const client = new BrokerClient(broker.address, { tenant });
      const calls = [
        client.publish({ subject: 's', body: BODY }),
        client.broadcast({ subject: 's', body: BODY }),
        client.incIdx('s'),
        client.fetch('s', 1),
      ];
      for (const call of calls) {
        const refusal = await refusalOf(call);
        assert.deepEqual([refusal?.statusName, refusal?.reason], ['INVALID_ARGUMENT', 'TENANT_INVALID'], `${tenant}`);
      }
      client.close();
    }
    const stream = await PublishStream.open(broker.address, '', 0, 'a/b');
    assert.equal(stream.status?.reason, 'TENANT_INVALID');
    stream.cancel();
    const client = new BrokerClient(broker.address);
    assert.equal(await client.publish({ subject: 's', body: BODY }), 1);
    client.close();
  });
});

describe('publish streams', () => {
  it('a stream runs at the rate of its tenant, smoothly, and nothing of it is refused', async () => {
    const rate = 2_000;
    await using broker = await start(`acme=${rate}msg/s`);
    await using client = connect(broker.address, { tenant: 'acme' });
    const publisher = client.publisher({ ...SMALL, batchMessages: 20 });
    const startedAt = performance.now();
    const counts: number[] = [];
    const flood = keepFull(() => publisher.tryPublish('s', MESSAGE), publisher);
    // The first second has what was saved up.
    await until(
      () => publisher.stats.stored >= rate,
      () => publisher.stats,
    );
    const [storedBefore, measuredFrom] = [publisher.stats.stored, performance.now()];
    for (let i = 0; i < 8; i++) {
      const before = publisher.stats.stored;
      await pause(250);
      counts.push(publisher.stats.stored - before);
    }
    const measured = (publisher.stats.stored - storedBefore) / ((performance.now() - measuredFrom) / 1_000);
    const most = rate * ((performance.now() - startedAt) / 1_000) + rate;
    assert.ok(publisher.stats.stored <= most, `${publisher.stats.stored} of ${most}`);
    assert.ok(measured > rate * 0.7, `${measured} messages/s of ${rate}: ${counts}`);
    assert.ok(counts.filter((count) => count > 0).length >= 6, `not on and off: ${counts}`);
    assert.equal(publisher.stats.streams, 1);
    const { tenants } = await client.tenants();
    const usage = tenants.find(({ tenant }) => tenant === 'acme');
    assert.deepEqual([usage?.refused, usage?.messagesPerSecondMax], [0, rate]);
    assert.ok((usage?.shrunk ?? 0) > 0);
    flood.stop();
  });

  it('[promise 5] batches beyond window and quota are refused one by one in their order, and the stream lives on', async () => {
    await using broker = await start('acme=200msg/s');
    using stream = await PublishStream.open(broker.address, 'p', 0, 'acme');
    assert.ok(stream.window.messagesLimit <= 40, 'the window is what the quota brings in 200 ms');
    const left = new Map<number, StreamBatch>();
    for (let sequence = 1; sequence <= 90; sequence++) {
      left.set(sequence, { subject: `s.${sequence % 3}`, sequence, bodies: bodies(10, sequence * 10) });
    }
    const round = { stream, left, ids: new Map<number, number>(), reasons: new Set<string>() };
    let rounds = 0;
    for (; left.size > 0; rounds++) await sendRound(round);
    assert.ok(rounds > 1);
    assert.deepEqual([...round.reasons].sort(), ['PREDECESSOR_FAILED', 'QUOTA_EXCEEDED']);
    // What is stored has the order in which it was sent first.
    const client = new BrokerClient(broker.address);
    for (let subject = 0; subject < 3; subject++) {
      const sequences = [...round.ids.keys()].filter((sequence) => sequence % 3 === subject).sort((a, b) => a - b);
      assert.deepEqual(
        sequences.map((sequence) => round.ids.get(sequence)),
        sequences.map((_, index) => 1 + index * 10),
      );
    }
    assert.equal((await client.fetch('s.0', 1)).body.toString(), '30');
    client.close();
    stream.halfClose();
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status, null);
  });

  it('streams of one tenant get equal shares, whatever the sizes of their batches', async () => {
    await using broker = await start('acme=1000msg/s');
    await using client = connect(broker.address, { tenant: 'acme' });
    const large = client.publisher({ ...SMALL, batchMessages: 100 });
    const small = client.publisher({ ...SMALL, batchMessages: 5 });
    const floods = [large, small].map((publisher) => keepFull(() => publisher.tryPublish('s', MESSAGE), publisher));
    const both = (): number => large.stats.stored + small.stats.stored;
    await until(() => both() > 1_500, both);
    const before = [large.stats.stored, small.stats.stored] as const;
    await until(() => both() > 5_000, both);
    const [a, b] = [large.stats.stored - before[0], small.stats.stored - before[1]];
    assert.ok(a / b > 0.7 && a / b < 1.4, `${a} and ${b}`);
    for (const flood of floods) flood.stop();
  });
});

describe('changes', () => {
  it('a quota is given, raised and taken away while the broker runs, at once for calls and for batches that wait', async () => {
    await using broker = await start('acme=0.001msg/s', { flags: ['--quotas-burst', '1m'] });
    const at = ['--address', broker.address];
    using stream = await PublishStream.open(broker.address, 'p', 0, 'acme');
    using idle = await PublishStream.open(broker.address, 'q', 0, 'acme');
    // The first leaves a debt of days, the second is allowed with nothing in flight, and waits.
    stream.send({ subject: 's', sequence: 1, bodies: bodies(1_000, 0) });
    await stream.settled(1);
    stream.send({ subject: 's', sequence: 2, bodies: bodies(10, 0) });
    const acme = new BrokerClient(broker.address, { tenant: 'acme' });
    assert.equal((await refusalOf(acme.publish({ subject: 's', body: BODY })))?.reason, 'QUOTA_EXCEEDED');
    assert.equal(stream.results.has(2), false);
    await succeeded(['quotas', 'set', 'acme', '1000000msg/s', ...at]);
    // Windows grow without anything that is sent or answered.
    await idle.until(() => idle.window.messagesLimit > 1_000);
    assert.deepEqual(await stream.outcomes(2), ['1001..1010']);
    await acme.publish({ subject: 's', body: BODY });

    await succeeded(['quotas', 'set', 'new', '0.001msg/s', ...at]);
    const other = new BrokerClient(broker.address, { tenant: 'new' });
    await other.publish({ subject: 's', body: BODY });
    assert.equal((await refusalOf(other.publish({ subject: 's', body: BODY })))?.reason, 'QUOTA_EXCEEDED');
    const { row } = await command(['quotas', 'list', ...at, '-o', 'json']);
    assert.deepEqual([row.tenant, row.messages_s_max], ['acme', 1_000_000]);
    await succeeded(['quotas', 'remove', 'new', ...at]);
    await other.publish({ subject: 's', body: BODY });
    // What a start would say is in force again.
    process.kill(broker.pid, 'SIGHUP');
    await until(
      async () => (await refusalOf(other.publishAs('acme', { subject: 's', body: Buffer.alloc(9) }))) !== null,
      () => broker.logs,
    );
    await refused(['config', 'set', 'quotas.rules', 'acme=5', ...at], /a limit is such as 100msg\/s/);
    acme.close();
    other.close();
  });
});

describe('tenants', () => {
  it('an honest tenant is untouched by a greedy one', async () => {
    await using broker = await start('greedy=1000msg/s; *=unlimited');
    const honest = new BrokerClient(broker.address, { tenant: 'honest' });
    const before = await publishesIn(honest, 1_500);
    await using client = connect(broker.address, { tenant: 'greedy' });
    const publishers = Array.from({ length: 4 }, () => client.publisher({ ...SMALL, batchMessages: 50 }));
    const floods = publishers.map((publisher) => keepFull(() => publisher.tryPublish('g', MESSAGE), publisher));
    await until(
      () => publishers.every((publisher) => publisher.stats.stored > 0),
      () => publishers.map(({ stats }) => stats),
    );
    // The machine has other work too, which comes and goes: the one in the middle.
    const windows: number[] = [];
    for (let i = 0; i < 3; i++) windows.push(await publishesIn(honest, 1_500));
    const [, beside = 0] = windows.sort((a, b) => a - b);
    for (const flood of floods) flood.stop();
    await Promise.all(publishers.map((publisher) => publisher.flush()));
    const alone = Math.min(before, await publishesIn(honest, 1_500));
    assert.ok(beside > alone * 0.5, `${beside} beside the greedy one, ${alone} alone`);
    const { tenants } = await client.tenants();
    assert.deepEqual(
      tenants.filter(({ tenant }) => tenant === 'honest').map(({ refused, shrunk }) => [refused, shrunk]),
      [[0, 0]],
    );
    honest.close();
  });

  it('tenants that are invented share one quota beyond quotas.tenants_max, and are few in the list and in the metrics', async () => {
    await using broker = await start('*=1000msg/s; named=500msg/s', { flags: ['--quotas-tenants-max', '50'] });
    const refused = new Set<string>();
    let next = 0;
    const work = async (): Promise<void> => {
      while (next < 10_000) {
        const tenant = `t${next}`;
        next += 1;
        const client = clients[next % clients.length] as BrokerClient;
        const refusal = await refusalOf(client.publishAs(tenant, { subject: 's', body: BODY }));
        if (refusal !== null) refused.add(`${refusal.reason}`);
      }
    };
    const clients = Array.from({ length: 4 }, () => new BrokerClient(broker.address));
    await Promise.all(Array.from({ length: 64 }, work));
    assert.ok(
      [...refused].every((reason) => reason === 'QUOTA_EXCEEDED'),
      [...refused].join(),
    );
    // One that a rule names always has a place of its own.
    await clients[0]?.publishAs('named', { subject: 's', body: BODY });
    await using client = connect(broker.address);
    const { tenants } = await client.tenants(1_000);
    assert.ok(tenants.length <= 52, `${tenants.length}`);
    assert.equal(tenants[0]?.tenant, 'other');
    assert.equal(tenants.find(({ tenant }) => tenant === 'named')?.messages, 1);
    const sum = tenants.reduce((total, { messages, refused: held }) => total + messages + held, 0);
    assert.equal(sum, 10_001);
    const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
    const series = text.split('\n').filter((line) => line.startsWith('broker_tenant_messages_total{'));
    assert.ok(series.length <= 21 && series.some((line) => line.includes('"other"')), `${series.length}`);
    for (const one of clients) one.close();
  });
});

/** Offers more than anybody takes, without keeping this thread busy. */
function keepFull(offer: () => boolean, publisher: { ready(): Promise<void> }): { stop(): void } {
  let isStopped = false;
  const work = async (): Promise<void> => {
    for (let count = 0; !isStopped; count++) {
      if (!offer()) await publisher.ready();
      else if (count % 100 === 0) await pause(1);
    }
  };
  // It ends with the publisher.
  work().catch(() => undefined);
  return {
    stop: () => {
      isStopped = true;
    },
  };
}

async function publishesIn(client: BrokerClient, ms: number): Promise<number> {
  let count = 0;
  for (const end = performance.now() + ms; performance.now() < end; count++) {
    await client.publish({ subject: 'h', body: BODY });
  }
  return count;
}
