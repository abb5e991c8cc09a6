/** What Envoy in front costs: the same load on the broker itself and through envoy/one-node.yaml, in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EnvoyProcess, findEnvoy, httpFilter } from '../../test/servers/envoy.ts';
import { startRateLimit } from '../../test/servers/ratelimit.ts';
import { generatorWarnings } from '../lib/bottleneck.ts';
import type { LoadResult } from '../lib/load.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import {
  alternate,
  alternateLoads,
  errorNotes,
  latencyFigures,
  loadOf,
  modeOf,
  PUBLISH_PATH,
  PUBLISH_STREAM_PATH,
  type Rounds,
  type Scenario,
} from '../lib/scenario.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import { type BrokerTarget, startBrokerTarget, type Target } from '../lib/targets.ts';
import { settingOf, streamFrames } from './stream.ts';
import { publishFrames } from './unary.ts';

const DIRECT = 'the broker itself';
/** Above what any load reaches: what is measured is the counting. */
const UNREACHED = { unit: 'second', requests_per_unit: 10_000_000 } as const;
const RULES = {
  domain: 'broker',
  descriptors: [{ key: 'tenant', rate_limit: UNREACHED, descriptors: [{ key: 'method', rate_limit: UNREACHED }] }],
} as const;

/** `ratelimit`: HOST:PORT of the service; null: limits of this Envoy alone. */
async function startFront(program: string, broker: Target, ratelimit: string | null): Promise<Target> {
  const folder = mkdtempSync(join(tmpdir(), 'envoy-perf-'));
  const envoy = await EnvoyProcess.start(program, {
    file: 'envoy/one-node.yaml',
    brokers: [broker.address],
    ratelimit: ratelimit ?? undefined,
    folder,
    change: (config) => {
      const percent = ratelimit === null ? 0 : 100;
      httpFilter(config, 'limit.global').filter_enabled = { default_value: { numerator: percent } };
    },
  });
  await envoy.waitForHealthy(1);
  const stop = async (): Promise<void> => {
    await envoy[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  };
  return { name: 'Envoy', address: envoy.address, pid: envoy.pid, stop };
}

function unaryRounds(front: Target, broker: Target, options: Options, progress: Progress): Promise<Rounds<LoadResult>> {
  const rest = { path: PUBLISH_PATH, frames: publishFrames(options), mode: modeOf(options) };
  return alternateLoads(options, progress, {
    subject: loadOf(front, options, rest),
    baseline: loadOf(broker, options, rest),
  });
}

function streamRounds(
  front: Target,
  broker: Target,
  options: Options,
  progress: Progress,
): Promise<Rounds<StreamResult>> {
  const { warmupMs, durationMs, connections, streams, framesInFlight, threads, client } = options;
  const run = ({ address, pid }: Target) =>
    runStreams({
      ...{ address, pid, warmupMs, durationMs, connections, streams, framesInFlight, threads, client },
      path: PUBLISH_STREAM_PATH,
      protocol: 'broker',
      frames: streamFrames(options),
      schedule: null,
    });
  return alternate(options.rounds, progress, {
    subject: () => run(front),
    baseline: () => run(broker),
    show: (result) => `${formatNumber(result.messagesPerSecond)}/s`,
  });
}

/** Of pairs of runs: the rate, the latency, what Envoy takes for a call or a message, and what failed. */
function figuresOf<T extends LoadResult | StreamResult>(
  what: string,
  unit: 'call' | 'message',
  { subject, baseline }: Rounds<T>,
  rateOf: (result: T) => number,
): Figure[] {
  const key = what.replaceAll(' ', '-');
  const of = (pick: (result: T) => number) => ({
    subject: subject.map(pick),
    baseline: baseline.map(pick),
    baselineName: DIRECT,
  });
  const latencies = latencyFigures<T>(of).filter((it) => it.key === 'p50' || it.key === 'p99');
  return [
    { name: `${what}: ${unit}s`, key: `${key}-rate`, unit: '1/s', ...of(rateOf) },
    ...latencies.map((it) => ({ ...it, name: `${what}: ${it.name}`, key: `${key}-${it.key}`, baselineName: DIRECT })),
    {
      name: `${what}: CPU of Envoy a ${unit}`,
      key: `${key}-cpu`,
      unit: 'us',
      subject: subject.map((it) => it.cost.totalMicrosPerCall),
    },
    {
      name: `${what}: CPU of the broker without it a ${unit}`,
      key: `${key}-broker-cpu`,
      unit: 'us',
      subject: baseline.map((it) => it.cost.totalMicrosPerCall),
    },
    {
      name: `${what}: failed`,
      key: `${key}-errors`,
      unit: '',
      subject: subject.map((it) => Object.values(it.errors).reduce((sum, count) => sum + count, 0)),
    },
  ];
}

async function measure(program: string, broker: BrokerTarget, options: Options, progress: Progress): Promise<Finding> {
  const figures: Figure[] = [];
  const notes: string[] = [];
  const note = (sides: Readonly<Record<string, readonly (LoadResult | StreamResult)[]>>): void => {
    notes.push(...errorNotes(Object.values(sides).flat()), ...generatorWarnings(sides));
  };
  const front = await startFront(program, broker, null);
  try {
    const calls = await unaryRounds(front, broker, options, progress);
    figures.push(...figuresOf('unary', 'call', calls, (it) => it.callsPerSecond));
    const streams = await streamRounds(front, broker, options, progress);
    figures.push(...figuresOf('stream', 'message', streams, (it) => it.messagesPerSecond));
    note({ 'Envoy, unary': calls.subject, 'broker, unary': calls.baseline });
    note({ 'Envoy, stream': streams.subject, 'broker, stream': streams.baseline });
  } finally {
    await front.stop();
  }
  if (process.env.BROKER_TEST_RATELIMIT === undefined) {
    notes.push('no rate-limit service: BROKER_TEST_RATELIMIT names its program (npm run check:envoy -- --build)');
    return finding(options, figures, notes);
  }
  const folder = mkdtempSync(join(tmpdir(), 'ratelimit-perf-'));
  const service = await startRateLimit(RULES, folder);
  try {
    const limited = await startFront(program, broker, service.address);
    try {
      const calls = await unaryRounds(limited, broker, options, progress);
      figures.push(...figuresOf('unary with the service', 'call', calls, (it) => it.callsPerSecond));
      note({ 'Envoy and service, unary': calls.subject });
    } finally {
      await limited.stop();
    }
  } finally {
    await service.stop();
    rmSync(folder, { recursive: true });
  }
  return finding(options, figures, notes);
}

function finding(options: Options, figures: readonly Figure[], notes: readonly string[]): Finding {
  const { bodyBytes, inFlight, connections } = options;
  const unary = `${bodyBytes} B bodies, ${inFlight} in flight on ${connections} connections`;
  return {
    scenario: 'envoy',
    setting: `Envoy with one thread, envoy/one-node.yaml, against ${DIRECT}; unary: ${unary}; stream: ${settingOf(options)}`,
    figures,
    notes,
  };
}

export const envoy: Scenario = {
  name: 'envoy',
  about: 'publishing through Envoy against the broker itself: unary, streams, and unary with the rate-limit service',
  defaults: {},
  examples: [
    'npm run perf -- envoy',
    'BROKER_TEST_RATELIMIT=.cache/ratelimit/HASH/service_cmd npm run perf -- envoy   # the service too; it needs redis-server',
  ],
  async run(options, progress) {
    const found = findEnvoy();
    if ('why' in found) throw new Error(`there is no Envoy here: ${found.why}`);
    const { shards, cpuProfileDir, serveFlags } = options;
    const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
    try {
      return await measure(found.path, broker, options, progress);
    } finally {
      await broker.stop();
    }
  },
};
