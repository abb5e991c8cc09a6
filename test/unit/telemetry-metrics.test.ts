import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { AssertionError } from '../../src/base/assert.ts';
import { CounterBlock } from '../../src/shm/counters.ts';
import { DURATION_SHAPE, SharedHistogram } from '../../src/shm/histogram.ts';
import {
  CALL_DURATION,
  RAFT_METRICS,
  RAFT_SLOTS,
  SHARD_METRICS,
  SHARD_SUMS,
  STORE_WRITE,
} from '../../src/telemetry/catalogue.ts';
import { MetricsRegistry } from '../../src/telemetry/metrics.ts';
import { parseExposition } from '../support/exposition.ts';

const STATUSES = 17;

function registry(): MetricsRegistry {
  return new MetricsRegistry({ processMetrics: false });
}

function histogram(name: string): SharedHistogram {
  return new SharedHistogram(new CounterBlock(SharedHistogram.slotNames(name, DURATION_SHAPE)), name, DURATION_SHAPE);
}

function linesOf(text: string, name: string): string[] {
  return text.split('\n').filter((line) => line.startsWith(name));
}

test("the predecessor's three metrics have its names and labels", async () => {
  const metrics = registry();
  const publish = histogram('publish');
  const calls = {
    methods: ['Publish', 'Subscribe'],
    counts: new Float64Array(2 * STATUSES),
    durations: [publish, null],
    duration: CALL_DURATION,
  };
  metrics.addCalls(calls);
  metrics.addActiveSubscribers(() => 3);
  calls.counts[0] = 5;
  calls.counts[STATUSES + 3] = 2;
  for (const microseconds of [62, 500, 501, 2_000_000]) publish.observe(microseconds);
  const text = await metrics.text();
  const zeros = (method: string, codes: readonly string[]): string[] =>
    codes.map((code) => `rpc_request_get_method_count{method="${method}",status="failed",code="${code}"} 0`);
  assert.deepEqual(linesOf(text, 'rpc_request_get_method_count'), [
    'rpc_request_get_method_count{method="publish",status="successful",code="OK"} 5',
    ...zeros('publish', ['UNKNOWN', 'INTERNAL', 'DATA_LOSS']),
    'rpc_request_get_method_count{method="subscribe",status="successful",code="OK"} 0',
    ...zeros('subscribe', ['UNKNOWN']),
    'rpc_request_get_method_count{method="subscribe",status="failed",code="INVALID_ARGUMENT"} 2',
    ...zeros('subscribe', ['INTERNAL', 'DATA_LOSS']),
  ]);
  const durations = linesOf(text, 'rpc_request_get_method_duration');
  const labels = 'method="publish",rpc_duration="publish_duration"';
  assert.deepEqual(
    ['0.0000625', '0.00025', '0.0005', '0.00075', '1.024', '2.048', '+Inf'].map(
      (le) =>
        durations
          .find((line) => line.startsWith(`rpc_request_get_method_duration_bucket{${labels},le="${le}"} `))
          ?.split(' ')[1],
    ),
    ['1', '1', '2', '3', '3', '4', '4'],
  );
  assert.deepEqual(durations.slice(-2), [
    `rpc_request_get_method_duration_sum{${labels}} 2.001063`,
    `rpc_request_get_method_duration_count{${labels}} 4`,
  ]);
  assert.ok(!durations.some((line) => line.includes('subscribe')), 'how long a stream was open is no duration');
  assert.deepEqual(linesOf(text, 'active_subscribers'), ['active_subscribers 3']);
  assert.ok(text.includes('# TYPE rpc_request_get_method_count counter'));
  assert.ok(text.includes('# TYPE rpc_request_get_method_duration histogram'));
  assert.ok(text.includes('# TYPE active_subscribers gauge'));
});

test('a code whose increase is an alert is shown as 0 before its first error, which is else no increase', async () => {
  const rules = readFileSync(new URL('../../deploy/prometheus/rules.yml', import.meta.url), 'utf8');
  const watched = [...rules.matchAll(/increase\(rpc_request_get_method_count\{code=~"([A-Z_|]+)"/g)];
  const codes = watched.flatMap(([, names]) => (names as string).split('|'));
  assert.ok(codes.length > 0, 'no alert on codes was found');
  const metrics = registry();
  const counts = new Float64Array(STATUSES);
  metrics.addCalls({ methods: ['Publish'], counts, durations: [null], duration: CALL_DURATION });
  const lines = linesOf(await metrics.text(), 'rpc_request_get_method_count');
  for (const code of codes)
    assert.ok(
      lines.some((line) => line.endsWith(`code="${code}"} 0`)),
      code,
    );
});

test('slots of two shards become one metric with two label sets, read at each scrape; a replaced shard takes its own place', async () => {
  const metrics = registry();
  const names = SHARD_METRICS.map(({ slot }) => slot);
  const blocks = [new CounterBlock(names), new CounterBlock(names)];
  blocks.forEach((block, shard) => {
    metrics.addBlock(SHARD_METRICS, (slot) => block.get(block.indexOf(slot)), { shard: String(shard) });
  });
  const values = async (name: string): Promise<string[]> => linesOf(await metrics.text(), `${name}{`);
  blocks[1]?.add(0, 7);
  blocks[1]?.set(blocks[1].indexOf('queue_wait_ms'), 1_500);
  assert.deepEqual(await values('broker_shard_messages_total'), [
    'broker_shard_messages_total{shard="0"} 0',
    'broker_shard_messages_total{shard="1"} 7',
  ]);
  assert.deepEqual(
    (await values('broker_shard_queue_wait_seconds'))[1],
    'broker_shard_queue_wait_seconds{shard="1"} 1.5',
  );
  const heir = new CounterBlock(names);
  metrics.addBlock(SHARD_METRICS, (slot) => heir.get(heir.indexOf(slot)), { shard: '1' });
  heir.add(0, 1);
  assert.deepEqual((await values('broker_shard_messages_total'))[1], 'broker_shard_messages_total{shard="1"} 1');
});

test('a histogram of several threads is shown as one, cumulative, in seconds, with equal count and +Inf', async () => {
  const metrics = registry();
  const shards = [histogram('a'), histogram('b')];
  metrics.addHistogram(STORE_WRITE, { store: 'embedded' }, shards);
  const observed = [1, 62.5, 63, 600, 900, 5_000, 100_000, 17_000_000];
  for (const [i, microseconds] of observed.entries()) shards[i % 2]?.observe(microseconds);
  const { samples } = parseExposition(await metrics.text());
  const named = samples.filter(({ name }) => name.startsWith(STORE_WRITE.name));
  const buckets = named.filter(({ name }) => name.endsWith('_bucket'));
  for (const { labels, value } of buckets) {
    const limit = labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(labels.le) * 1e6;
    assert.equal(value, observed.filter((microseconds) => microseconds <= limit * (1 + 1e-9)).length, labels.le);
  }
  assert.equal(buckets.at(-1)?.labels.le, '+Inf');
  assert.equal(named.find(({ name }) => name.endsWith('_count'))?.value, observed.length);
  assert.ok(Math.abs((named.find(({ name }) => name.endsWith('_sum'))?.value ?? 0) - 17.1066265) < 1e-6);
  // Wide enough for a 99th percentile between 1 and 100 ms that is right to a half.
  const seconds = buckets.map(({ labels }) => Number(labels.le)).filter((limit) => limit >= 0.001 && limit <= 0.128);
  for (let i = 1; i < seconds.length; i += 1) assert.ok((seconds[i] as number) / (seconds[i - 1] as number) <= 1.51);
});

test('a limit that no bucket has is a defect', () => {
  const metric = { name: 'h_seconds', help: 'h', scale: 1, limits: [100] };
  assert.throws(() => registry().addHistogram(metric, {}, [histogram('a')]), AssertionError);
  assert.throws(() => registry().addHistogram(STORE_WRITE, {}, []), AssertionError);
});

test('[P10] a metric that does not fit is left out whole, the last ones first, and the series that are missing are counted', async () => {
  const metrics = new MetricsRegistry({ processMetrics: false, seriesMax: 10 });
  const many = (count: number) => Array.from({ length: count }, (_, i) => ({ labels: { i: String(i) }, value: i }));
  metrics.addSamples('gauge', 'first', 'help', () => many(4));
  let second = 3;
  metrics.addSamples('gauge', 'second', 'help', () => many(second));
  metrics.addSamples('gauge', 'third', 'help', () => many(2));
  const counted = async (): Promise<number[]> => {
    const { samples } = parseExposition(await metrics.text());
    const of = (name: string) => samples.filter((sample) => sample.name === name);
    const own = ['broker_metrics_series', 'broker_metrics_left_out_series'].map((name) => of(name)[0]?.value ?? -1);
    assert.equal(samples.length, own[0]);
    assert.ok(samples.length <= 10);
    return [of('first').length, of('second').length, of('third').length, ...own];
  };
  assert.deepEqual(await counted(), [4, 3, 0, 10, 2]);
  second = 4;
  assert.deepEqual(await counted(), [4, 0, 2, 9, 4]);
  second = 1;
  assert.deepEqual(await counted(), [4, 1, 2, 10, 0]);
});

test('values of labels come back as they were, whatever a subject may hold', async () => {
  const metrics = registry();
  const subjects = [
    'a"b',
    'a\\b',
    '\\',
    '"',
    'a\\"',
    'a{b="c"} 1',
    'ü.日本.🚀',
    'a,b=c',
    '#x',
    'a\u2028b',
    "'",
    '\\n',
    'a b',
  ];
  metrics.addSamples('gauge', 'top', 'help', () => subjects.map((subject, value) => ({ labels: { subject }, value })));
  const { samples } = parseExposition(await metrics.text());
  const shown = samples.filter(({ name }) => name === 'top').map(({ labels }) => labels.subject);
  assert.deepEqual(shown, subjects);
});

test('what is asked before a scrape is waited for', async () => {
  const metrics = registry();
  let value = 0;
  metrics.beforeScrape(async () => {
    await Promise.resolve();
    value += 1;
  });
  metrics.addGauge('asked', 'help', {}, () => value);
  assert.match(await metrics.text(), /^asked 1$/m);
});

test('metric names follow broker_<area>_<what>, counters end in _total, none occurs twice; process metrics can be had', async () => {
  const all = [...SHARD_METRICS, ...SHARD_SUMS, ...RAFT_METRICS];
  assert.equal(new Set(all.map(({ name }) => name)).size, all.length);
  for (const { name, kind } of all) {
    assert.match(name, /^broker_(shard|raft|store|peers)_[a-z_]+$/);
    assert.equal(name.endsWith('_total'), kind === 'counter', name);
  }
  assert.equal(new CounterBlock(RAFT_SLOTS).names.length, RAFT_METRICS.length);
  const metrics = registry();
  metrics.addGauge('one', 'help', {}, () => 1);
  assert.throws(() => metrics.addCounter('one', 'help', {}, () => 1), AssertionError);
  assert.match(await new MetricsRegistry().text(), /^process_cpu_seconds_total \d/m);
});
