import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AssertionError } from '../../src/base/assert.ts';
import { CounterBlock, Log2Histogram } from '../../src/shm/counters.ts';
import { RAFT_METRICS, RAFT_SLOTS, SHARD_METRICS, SHARD_STORE_WRITE } from '../../src/telemetry/catalogue.ts';
import { MetricsRegistry } from '../../src/telemetry/metrics.ts';

const STATUSES = 17;

function registry(): MetricsRegistry {
  return new MetricsRegistry({ processMetrics: false });
}

function linesOf(text: string, name: string): string[] {
  return text.split('\n').filter((line) => line.startsWith(name));
}

test("the predecessor's three metrics have its names and labels", async () => {
  const metrics = registry();
  const calls = {
    methods: ['Publish', 'Fetch'],
    counts: new Float64Array(2 * STATUSES),
    buckets: new Float64Array(2 * 3),
    sumsMs: new Float64Array(2),
    bucketLimitsMs: [1, 2, Number.POSITIVE_INFINITY],
  };
  metrics.addCalls(calls);
  metrics.addActiveSubscribers(() => 3);
  calls.counts[0] = 5;
  calls.counts[STATUSES + 3] = 2;
  calls.buckets.set([4, 0, 1], 0);
  calls.sumsMs[0] = 2_500;
  const text = await metrics.text();
  assert.deepEqual(linesOf(text, 'rpc_request_get_method_count'), [
    'rpc_request_get_method_count{method="publish",status="successful",code="OK"} 5',
    'rpc_request_get_method_count{method="fetch",status="successful",code="OK"} 0',
    'rpc_request_get_method_count{method="fetch",status="failed",code="INVALID_ARGUMENT"} 2',
  ]);
  assert.deepEqual(
    linesOf(text, 'rpc_request_get_method_duration').filter((line) => line.includes('publish')),
    [
      'rpc_request_get_method_duration_bucket{method="publish",rpc_duration="publish_duration",le="0.001"} 4',
      'rpc_request_get_method_duration_bucket{method="publish",rpc_duration="publish_duration",le="0.002"} 4',
      'rpc_request_get_method_duration_bucket{method="publish",rpc_duration="publish_duration",le="+Inf"} 5',
      'rpc_request_get_method_duration_sum{method="publish",rpc_duration="publish_duration"} 2.5',
      'rpc_request_get_method_duration_count{method="publish",rpc_duration="publish_duration"} 5',
    ],
  );
  assert.deepEqual(linesOf(text, 'active_subscribers'), ['active_subscribers 3']);
  assert.ok(text.includes('# TYPE rpc_request_get_method_count counter'));
  assert.ok(text.includes('# TYPE rpc_request_get_method_duration histogram'));
  assert.ok(text.includes('# TYPE active_subscribers gauge'));
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

test('a log2 histogram is shown cumulative, in seconds, with equal count and +Inf', async () => {
  const metrics = registry();
  const shape = { smallest: 32, buckets: 4 };
  const block = new CounterBlock(Log2Histogram.slotNames('write', shape));
  const histogram = new Log2Histogram(block, 0, shape);
  const { name, help, scale } = SHARD_STORE_WRITE;
  metrics.addHistogram(name, help, { shard: '0' }, histogram, scale);
  for (const microseconds of [1, 32, 33, 128, 1_000_000]) histogram.observe(microseconds);
  assert.deepEqual(linesOf(await metrics.text(), name), [
    `${name}_bucket{shard="0",le="0.000032"} 2`,
    `${name}_bucket{shard="0",le="0.000064"} 3`,
    `${name}_bucket{shard="0",le="0.000128"} 4`,
    `${name}_bucket{shard="0",le="+Inf"} 5`,
    `${name}_sum{shard="0"} 1.000194`,
    `${name}_count{shard="0"} 5`,
  ]);
});

test('metric names follow broker_<area>_<what>, counters end in _total, none occurs twice; process metrics can be had', async () => {
  const all = [...SHARD_METRICS, ...RAFT_METRICS];
  assert.equal(new Set(all.map(({ name }) => name)).size, all.length);
  for (const { name, kind } of all) {
    assert.match(name, /^broker_(shard|raft)_[a-z_]+$/);
    assert.equal(name.endsWith('_total'), kind === 'counter', name);
  }
  assert.equal(new CounterBlock(RAFT_SLOTS).names.length, RAFT_METRICS.length);
  const metrics = registry();
  metrics.addGauge('one', 'help', {}, () => 1);
  assert.throws(() => metrics.addCounter('one', 'help', {}, () => 1), AssertionError);
  assert.match(await new MetricsRegistry().text(), /^process_cpu_seconds_total \d/m);
});
