/** What real brokers show at /metrics: by Prometheus' own rules, what alerts and dashboards ask for, and no more with many subjects than with few. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { Cluster } from '../support/cluster.ts';
import { type Exposition, familyOf, parseExposition } from '../support/exposition.ts';
import { freePorts } from '../support/ports.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { ROOT } from '../support/source-tree.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';
import { allQueries, unknownNames } from '../support/watching.ts';

/** The only names that may break the rules: clients of the predecessor have dashboards with them. */
const PREDECESSOR = ['rpc_request_get_method_count', 'rpc_request_get_method_duration', 'active_subscribers'];

const MANY = 100_000;
const FEW = 10;
/** Subjects of a request of the stream that makes them. */
const A_REQUEST = 500;
const SCRAPES = 40;

async function scrape({ adminAddress }: Pick<BrokerProcess, 'adminAddress'>): Promise<string> {
  const answer = await fetch(`http://${adminAddress}/metrics`);
  assert.equal(answer.status, 200);
  return answer.text();
}

/** What promtool has against a text, without what it has against the predecessor's names. */
function complaints(text: string): string[] {
  const { stdout, stderr, error } = spawnSync('promtool', ['check', 'metrics'], { input: text, encoding: 'utf8' });
  assert.equal(error, undefined);
  return `${stdout}${stderr}`
    .split('\n')
    .filter((line) => line !== '' && !PREDECESSOR.some((name) => line.startsWith(`${name} `)));
}

function sum({ samples }: Exposition, name: string, labels: Readonly<Record<string, string>> = {}): number {
  return samples
    .filter((sample) => sample.name === name)
    .filter((sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))
    .reduce((total, { value }) => total + value, 0);
}

describe('a broker with the embedded store, gossip and two shards', () => {
  /** Every byte that a subject may hold and that means something in the text format. */
  const ODD = ['a"b', 'a\\b\\', '{x="y"} 1', 'ü.日本.🚀', '\\n', 'a b', '#', "'"];
  let broker: BrokerProcess;
  let text: string;
  let shown: Exposition;

  before(async () => {
    const [gossip] = await freePorts(1);
    broker = await startBroker({
      flags: ['--shards', '2', '--gossip', '--gossip-listen', `127.0.0.1:${gossip}`, '--metrics-top-subjects', '20'],
    });
    const client = new BrokerClient(broker.address);
    const stream = await PublishStream.open(broker.address, 'p');
    const messages: string[] = [];
    const subscription = client.subscribe(
      ODD[0] as string,
      { at: 'earliest' },
      { onMessage: ({ body }) => messages.push(body.toString()) },
    );
    let sequence = 0;
    const publish = async (): Promise<void> => {
      for (const subject of ODD) {
        await client.publish({ subject, body: Buffer.from('x') });
        sequence += 1;
        stream.send({ sequence, subject, bodies: ['a', 'b', 'c'] });
      }
      await stream.settled(sequence);
    };
    await publish();
    await assert.rejects(client.publish({ subject: 'a..b', body: Buffer.from('x') }));
    await assert.rejects(client.fetch('a b', 1_000));
    sequence += 1;
    stream.send({ sequence, subject: '*', bodies: ['x'] });
    await stream.settled(sequence);
    // Figures that are counted once a second, and rates over some seconds.
    await until(
      async () => {
        await publish();
        text = await scrape(broker);
        shown = parseExposition(text);
        const subjects = shown.samples.filter(({ name }) => name === 'broker_top_subject_messages_per_second');
        return (
          subjects.length === ODD.length &&
          sum(shown, 'broker_raft_role', { role: 'leader' }) === 1 &&
          messages.length > 0
        );
      },
      () => text,
    );
    subscription.cancel();
    stream.cancel();
    client.close();
  });
  after(() => broker.dispose());

  it('[P10] its metrics keep the rules of Prometheus but for the three names of the predecessor', (t) => {
    if (!requireTool(t, 'promtool')) return;
    assert.deepEqual(complaints(text), []);
    const planted = `${text}# HELP broker_planted_count A name that breaks the rules.\n# TYPE broker_planted_count counter\nbroker_planted_count 1\n`;
    assert.equal(complaints(planted).length, 2);
  });

  it('names subjects as they are, whatever is in them', () => {
    const subjects = shown.samples
      .filter(({ name }) => name === 'broker_top_subject_messages_per_second')
      .map(({ labels, value }) => {
        assert.ok(value > 0);
        return labels.subject;
      });
    assert.deepEqual(subjects.sort(), [...ODD].sort());
    // No other metric has a label that grows with what clients name.
    const named = shown.samples.filter(({ labels }) => Object.values(labels).some((value) => ODD.includes(value)));
    assert.equal(named.length, ODD.length);
  });

  it('counts what was done: calls, refusals by reason, batches, times of the store and of the log', () => {
    const reasons = shown.samples
      .filter(({ name }) => name === 'broker_refused_total')
      .map(({ labels, value }) => [labels.at, labels.reason, value]);
    assert.deepEqual(reasons.sort(), [
      ['admission', 'SUBJECT_EMPTY_TOKEN', 1],
      // An alert watches these: the first one of a series that begins with it would not be seen.
      ['batch', 'DATA_LOSS', 0],
      ['batch', 'INTERNAL_ERROR', 0],
      ['batch', 'OUTCOME_UNKNOWN', 0],
      ['batch', 'SUBJECT_WILDCARD_TOKEN', 1],
      ['shard', 'ID_NOT_FOUND', 1],
    ]);
    const stored = sum(shown, 'broker_shard_messages_total');
    const published = sum(shown, 'rpc_request_get_method_count', { method: 'publish', code: 'OK' });
    assert.equal(stored, published + sum(shown, 'broker_publish_stream_messages_total'));
    for (const name of [
      'broker_store_write_seconds',
      'broker_raft_sync_seconds',
      'broker_raft_append_seconds',
      'broker_publish_stream_batch_seconds',
    ]) {
      assert.ok(sum(shown, `${name}_count`) > 0, name);
      assert.ok(sum(shown, `${name}_sum`) > 0, name);
    }
    assert.equal(sum(shown, 'broker_store_write_seconds_count'), sum(shown, 'broker_shard_store_write_seconds_count'));
    assert.equal(sum(shown, 'broker_ready'), 1);
    assert.ok(sum(shown, 'broker_connections') > 0);
    assert.ok(sum(shown, 'broker_disk_free_bytes') > 0);
  });

  it('shows nothing twice, and each metric with help and type', () => {
    for (const { name } of shown.samples) assert.ok(shown.types.has(familyOf(name, shown.types)), name);
    for (const name of shown.types.keys()) assert.match(text, new RegExp(`^# HELP ${name} \\S`, 'm'));
  });
});

/** Beside what every node shows. */
const clusterNames = [
  'broker_raft_members',
  'broker_raft_peer_active',
  'broker_raft_peer_clock_offset_seconds',
  'broker_raft_peer_lag_entries',
];

describe('three nodes on PostgreSQL that gossip', () => {
  let server: PostgresServer;
  let cluster: Cluster;
  const answers: string[] = [];

  before(async () => {
    server = await PostgresServer.start();
    // All that a node can show is on; nobody listens for traces.
    const [nobody] = await freePorts(1);
    cluster = await Cluster.start({
      nodes: 3,
      storeFlags: server.brokerFlags(),
      gossips: true,
      flags: ['--shards', '1', '--quotas-rules', '*=1000000msg/s', '--tracing-endpoint', `http://127.0.0.1:${nobody}`],
    });
    await cluster.untilVoters();
    const leader = await cluster.untilLeader();
    const client = new BrokerClient(leader.address);
    await until(
      async () => {
        await client.publish({ subject: 's', body: Buffer.from('x') });
        await assert.rejects(client.fetch('s', 1_000_000));
        answers.splice(0, answers.length, ...(await Promise.all(cluster.nodes.map(({ broker }) => scrape(broker)))));
        const shown = answers.map(parseExposition);
        const has = (name: string): boolean =>
          shown.some(({ samples }) => samples.some((sample) => sample.name === name));
        const isBusy = ['broker_top_subject_messages_per_second', 'broker_tenant_messages_total'].every(has);
        return (
          isBusy &&
          shown.some((one) => sum(one, 'broker_refused_total') > 0) &&
          shown.every((one) => sum(one, 'broker_raft_members', { kind: 'voter' }) === 3) &&
          shown.every((one) => sum(one, 'broker_store_connections', { store: 'postgres' }) > 0) &&
          shown.every((one) => sum(one, 'broker_raft_role') === 1) &&
          clusterNames.every(has)
        );
      },
      () => answers.join('\n').slice(0, 20_000),
    );
    client.close();
  });
  after(async () => {
    await cluster?.[Symbol.asyncDispose]();
    await server?.stop();
  });

  it('[P10] their metrics keep the rules of Prometheus but for the three names of the predecessor', (t) => {
    if (!requireTool(t, 'promtool')) return;
    for (const text of answers) assert.deepEqual(complaints(text), []);
  });

  it('show the store and its connections, one leader, and the other members as the leader sees them', () => {
    const shown = answers.map(parseExposition);
    assert.equal(
      shown.map((one) => sum(one, 'broker_raft_role', { role: 'leader' })).reduce((a, b) => a + b),
      1,
    );
    assert.ok(shown.some((one) => sum(one, 'broker_store_write_seconds_count', { store: 'postgres' }) > 0));
    const lags = shown.flatMap(({ samples }) => samples.filter(({ name }) => name === 'broker_raft_peer_lag_entries'));
    assert.equal(lags.length, 3);
    assert.equal(
      shown.map((one) => sum(one, 'broker_raft_peer_active')).reduce((a, b) => a + b),
      3,
    );
  });

  it('are described in docs/operations.md: each metric with its type, labels and help, and no other', () => {
    const document = readFileSync(join(ROOT, 'docs/operations.md'), 'utf8');
    const section = /\n## All metrics\n([\s\S]*?)(\n## |$)/.exec(document)?.[1] ?? '';
    const expected = tableOf(answers.map(parseExposition), answers);
    const rows = section.split('\n').filter((line) => line.startsWith('| `'));
    assert.deepEqual(rows, expected);
  });

  it('[P10] every name, label and value that an alert or a dashboard asks for is one that they show; a misspelt one is found', () => {
    const shown = answers.map(parseExposition);
    const queries = allQueries();
    assert.ok(queries.length > 100);
    assert.deepEqual(unknownNames(queries, shown), []);
    const ask = (expr: string, ...labels: string[]) => unknownNames([{ where: 'q', expr, shown: labels }], shown);
    assert.deepEqual(ask('rate(broker_shard_message_total[1m])'), ['q: no metric broker_shard_message_total']);
    assert.deepEqual(ask('broker_raft_term{shard="0"}'), ['q: broker_raft_term has no label shard']);
    assert.deepEqual(ask('sum by (shards) (broker_shard_slots)'), ['q: nothing has a label shards']);
    assert.deepEqual(ask('broker_raft_term', 'peer'), ['q: nothing has a label peer']);
    assert.deepEqual(ask('broker_raft_role{role="boss"}'), ['q: no role of broker_raft_role is boss']);
    assert.deepEqual(ask('broker_store_write_seconds'), ['q: no metric broker_store_write_seconds']);
  });
});

/** Rows of the table in docs/operations.md: name, type, labels, what it is; sorted. */
function tableOf(answers: readonly Exposition[], texts: readonly string[]): string[] {
  const types = new Map(answers.flatMap((answer) => [...answer.types]));
  const labels = new Map<string, Set<string>>();
  for (const { name, labels: found } of answers.flatMap(({ samples }) => samples)) {
    const family = familyOf(name, types);
    const own = labels.get(family) ?? new Set();
    labels.set(family, own);
    for (const label of Object.keys(found)) if (label !== 'le') own.add(label);
  }
  const helps = new Map(
    texts.flatMap((text) => [...text.matchAll(/^# HELP (\S+) (.*)$/gm)].map(([, name, help]) => [name, help])),
  );
  return [...types]
    .filter(([name]) => !/^(process|nodejs)_/.test(name))
    .map(([name, type]) => {
      const named = [...(labels.get(name) ?? [])]
        .sort()
        .map((label) => `\`${label}\``)
        .join(', ');
      return `| \`${name}\` | ${type} | ${named} | ${helps.get(name)} |`;
    })
    .sort();
}

describe('brokers with few and with many subjects', () => {
  const brokers: BrokerProcess[] = [];

  before(async () => {
    for (const subjects of [FEW, MANY]) {
      const broker = await startBroker({ flags: ['--shards', '1'] });
      brokers.push(broker);
      const stream = await PublishStream.open(broker.address, 'p');
      for (let made = 0; made < subjects; made += A_REQUEST) {
        const count = Math.min(A_REQUEST, subjects - made);
        stream.send(
          ...Array.from({ length: count }, (_, i) => ({
            sequence: made + i + 1,
            subject: `s.${made + i}`,
            bodies: ['x'],
          })),
        );
        await stream.settled(made + count);
      }
      stream.cancel();
      await until(
        async () => sum(parseExposition(await scrape(broker)), 'broker_raft_subjects') === subjects,
        () => broker.logs,
      );
    }
  });
  after(() => Promise.all(brokers.map((broker) => broker.dispose())));

  it('[P10] a scrape costs no more with 100,000 subjects than with 10, and shows as much', async () => {
    const times: number[][] = brokers.map(() => []);
    const series: number[] = [];
    // In turns, so that whatever else the machine does meets both.
    for (let i = 0; i < SCRAPES; i += 1) {
      for (const [index, broker] of brokers.entries()) {
        const startedAt = performance.now();
        const text = await scrape(broker);
        times[index]?.push(performance.now() - startedAt);
        series[index] = parseExposition(text).samples.filter(({ name }) => !/^(process|nodejs)_/.test(name)).length;
      }
    }
    const [few, many] = times.map((of) => of.sort((a, b) => a - b)[Math.floor(of.length / 4)] as number) as [
      number,
      number,
    ];
    assert.ok(many < 3 * few, `${many.toFixed(2)} ms against ${few.toFixed(2)} ms`);
    assert.ok(Math.abs((series[1] as number) - (series[0] as number)) <= 10, `${series} series`);
  });
});
