/** How many series a node shows, and what a scrape of them costs, with everything that the front shows and more shards than most machines have. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { REASON_NAMES } from '../../src/base/errors.ts';
import { loadConfig } from '../../src/config/load.ts';
import { RING_RECORD_OVERHEAD_BYTES } from '../../src/config/rules.ts';
import type { ConnectionNote } from '../../src/grpc/connection-note.ts';
import type { Receiving } from '../../src/grpc/receive-budget.ts';
import { PROCESS_SERIES_MAX } from '../../src/telemetry/metrics.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { METHODS } from '../../src/workers/front/call-table.ts';
import { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import { dispatcherLimits } from '../../src/workers/front/dispatcher-limits.ts';
import type { ClusterView } from '../../src/workers/messages.ts';
import { frontMetrics } from '../../src/workers/metrics/front-metrics.ts';
import { addMembers } from '../../src/workers/metrics/raft-metrics.ts';
import { TopSubjects } from '../../src/workers/metrics/top-subjects.ts';
import { RaftCounters } from '../../src/workers/raft/raft-counters.ts';
import { ShardCounters } from '../../src/workers/shard/shard-counters.ts';
import { MoveCounters } from '../../src/workers/slots/move-counters.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { type Exposed, parseExposition } from '../support/exposition.ts';

const SHARDS_MAX = 64;
const MEMBERS = 9;
/** Of gossip, tenants and the disk, which are added elsewhere: test/operate/metrics.test.ts has the real ones. */
const ELSEWHERE = 150;

/** Codes that calls of a method can get at all, beside OK. */
const CODES_A_METHOD = 8;
/** Reasons for which a broker refuses in the course of one life, in each of the three places. */
const REASONS_SEEN = 25;

function node(argv: readonly string[] = []) {
  const { config } = loadConfig({
    argv: ['--shards', String(SHARDS_MAX), '--shards-max', String(SHARDS_MAX), ...argv],
    environment: {},
  });
  const table = new SlotTable(SHARDS_MAX);
  const guard = new OverloadGuard({ targetMs: 1, intervalMs: 1 });
  const dispatcher = new Dispatcher(dispatcherLimits(config, RING_RECORD_OVERHEAD_BYTES), guard, table);
  const counters = Array.from({ length: SHARDS_MAX }, () => new ShardCounters());
  const shards = { counters, table, moves: new MoveCounters(SHARDS_MAX), isThere: () => true };
  const registry = frontMetrics({
    dispatcher,
    shards,
    raft: new RaftCounters(),
    config,
    nodeId: 'n',
    isReady: () => true,
    connections: () => null,
  });
  const members = Array.from({ length: MEMBERS }, (_, i) => ({
    ...{ node: i === 0 ? 'n' : `n${i}`, instance: '', raft: '', grpc: '', protocol: 1 },
    ...{ isVoter: true, isLeader: i === 0, match: 5, isActive: true, openAllotments: 0, clockOffsetMs: -1_500 },
  }));
  const view: ClusterView = { node: 'n', leader: 'n', term: 1, lastIndex: 7, committed: 7, applied: 7, members };
  addMembers(registry, { cluster: () => Promise.resolve(view) });
  for (let method = 0; method < METHODS.length; method += 1) {
    for (let code = 0; code <= CODES_A_METHOD; code += 1) dispatcher.metrics.answered(method, code, 3);
  }
  for (const reason of REASON_NAMES.slice(0, REASONS_SEEN)) {
    for (const at of ['admission', 'shard', 'batch'] as const) dispatcher.metrics.refusedFor(at, reason);
  }
  return { registry, config, dispatcher };
}

const figure = (samples: readonly Exposed[], name: string): number =>
  samples.find((sample) => sample.name === name)?.value ?? Number.NaN;

test('[P10] a node shows at most 2,000 series by default, whatever it has met, and with 64 shards nothing is left out', async () => {
  const { registry, config } = node();
  assert.equal(config.metrics.seriesMax, 2_000);
  await registry.text();
  const { samples } = parseExposition(await registry.text());
  assert.equal(figure(samples, 'broker_metrics_left_out_series'), 0);
  assert.ok(samples.length + ELSEWHERE <= 2_000, `${samples.length} series`);
  const ofProcess = samples.filter(({ name }) => /^(process|nodejs)_/.test(name)).length;
  assert.ok(ofProcess > 20 && ofProcess <= PROCESS_SERIES_MAX, `${ofProcess} series of the process`);
  assert.equal(figure(samples, 'broker_metrics_series'), samples.length - ofProcess);
});

test('with less room the shards are left out first, whole, and what is missing is counted', async () => {
  const all = parseExposition(await node().registry.text()).samples;
  const { samples } = parseExposition(await node(['--metrics-series-max', '1000']).registry.text());
  assert.ok(samples.length <= 1_000);
  const missing = figure(samples, 'broker_metrics_left_out_series');
  assert.ok(missing > 0);
  // The first texts of two registries of one process: what the process has differs by what is measured meanwhile.
  const own = (of: readonly Exposed[]): number => of.filter(({ name }) => !/^(process|nodejs)_/.test(name)).length;
  assert.equal(own(samples) + missing, own(all));
  for (const { name } of all.filter(({ labels }) => labels.shard === undefined)) {
    if (/^(process|nodejs)_/.test(name)) continue;
    assert.ok(
      samples.some((sample) => sample.name === name),
      `${name} is missing, and shards are there`,
    );
  }
  const shards = Object.groupBy(
    samples.filter(({ labels }) => labels.shard !== undefined),
    ({ name }) => name,
  );
  for (const [name, rows] of Object.entries(shards)) assert.equal(rows?.length, SHARDS_MAX, name);
});

test('a request that gave way to another one before it had come to its end is counted', async () => {
  const { registry, config, dispatcher } = node();
  const part = (heldBytes: number): Receiving => ({
    ...{ heldBytes: 0, seenBytes: 0, movedAt: 0, beganAt: 0, receivedBytes: heldBytes },
    connection: { heldBytes: 0 } as ConnectionNote,
    ...{ deadlineMs: Number.POSITIVE_INFINITY, isPaused: false, isGone: false, stalled: () => undefined },
  });
  const all = config.limits.inFlightBytes;
  const count = async (): Promise<number> =>
    figure(parseExposition(await registry.text()).samples, 'broker_requests_evicted_total');
  assert.ok(dispatcher.receiving.tryHold(part(all), all));
  assert.equal(await count(), 0);
  assert.ok(dispatcher.receiving.tryHold(part(1), 1), 'a connection that holds everything gives way');
  assert.equal(await count(), 1);
});

test('members of a cluster are shown by the leader: how far they are behind, whether it hears them, their clocks', async () => {
  const { samples } = parseExposition(await node().registry.text());
  const of = (name: string) => samples.filter((sample) => sample.name === name);
  assert.deepEqual(of('broker_raft_peer_lag_entries').at(-1), {
    ...{ name: 'broker_raft_peer_lag_entries', labels: { peer: 'n8' }, value: 2 },
  });
  assert.equal(of('broker_raft_peer_active').length, MEMBERS);
  assert.equal(of('broker_raft_peer_clock_offset_seconds')[0]?.value, -1.5);
  assert.deepEqual(
    of('broker_raft_members').map(({ labels, value }) => [labels.kind, value]),
    [
      ['voter', MEMBERS],
      ['learner', 0],
    ],
  );
});

test('of the busiest subjects only so many are named as the setting says, of all shards together, and shards that do not answer hold nobody', async () => {
  const { registry } = node();
  const hot = (shard: number) => ({
    subjects: Array.from({ length: 5 }, (_, i) => ({ tenant: '', subject: `s${shard}.${i}`, messages: 10 - i })),
    total: 100,
  });
  let answers = true;
  const pool = {
    members: [0, 1, 2],
    ask: (shard: number) =>
      answers
        ? Promise.resolve({ kind: 'hot' as const, token: 1, hot: hot(shard) })
        : new Promise<null>(() => undefined),
  };
  const monitor = {
    load: (members: readonly number[], found: readonly (ReturnType<typeof hot> | null)[]) => ({
      ...{ cores: 4, shardsMax: 8, mainUtilization: 0, cpuUtilization: 0 },
      shards: members.map((shard, i) => ({
        ...{
          shard,
          utilization: 0,
          storeBusy: 0,
          bytesPerSecond: 0,
          queueWaitMs: 0,
          storeWriteMs: 0,
          groupMessages: 0,
        },
        messagesPerSecond: 1_000 * shard,
        hotSubjects: (found[i]?.subjects ?? []).map(({ subject, messages }) => ({
          tenant: '',
          subject,
          share: messages / 100,
        })),
      })),
    }),
  };
  new TopSubjects(pool, monitor, 4).addTo(registry);
  const shown = async () =>
    parseExposition(await registry.text())
      .samples.filter(({ name }) => name === 'broker_top_subject_messages_per_second')
      .map(({ labels, value }) => [labels.subject, value]);
  const expected = [
    ['s2.0', 200],
    ['s2.1', 180],
    ['s2.2', 160],
    ['s2.3', 140],
  ];
  assert.deepEqual(await shown(), expected);
  answers = false;
  assert.deepEqual(await shown(), expected);
});
