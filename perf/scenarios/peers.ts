/** The broker beside other brokers, each a real server on loopback, on the same machine, with messages of the same size, in the same run. */
import { generatorWarnings } from '../lib/bottleneck.ts';
import { type ConsumeResult, runConsume } from '../lib/consume-load.ts';
import { subjectName } from '../lib/frames.ts';
import { type Options, UsageError } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import { type Figure, type Finding, formatNumber } from '../lib/report.ts';
import {
  alternate,
  CONSUME_PATH,
  errorNotes,
  histogramsOf,
  type Pair,
  PREFIX,
  plotsOf,
  type Scenario,
  withServers,
} from '../lib/scenario.ts';
import { fillStreams } from '../lib/stream-fill.ts';
import { runStreams, type StreamResult } from '../lib/stream-load.ts';
import type { Target } from '../lib/targets.ts';
import { installEtcd } from '../peers/etcd.ts';
import { kafkaDefault, kafkaFlush } from '../peers/kafka.ts';
import { natsAlways, natsDefault } from '../peers/nats.ts';
import type { Peer, PeerGoal, PeerResult } from '../peers/peer.ts';
import { predecessor } from '../peers/predecessor.ts';
import { rabbitmq } from '../peers/rabbitmq.ts';
import { streamLoad } from './stream.ts';

const PEERS: readonly Peer[] = [natsAlways, natsDefault, kafkaFlush, kafkaDefault, rabbitmq, predecessor];
const CREDIT_BYTES = 8 << 20;
/** Of its maximum: the rate at which latencies are compared. */
const HALF = 0.5;

/** Share of the messages that a peer is given beforehand: a JVM is slow until it has compiled. */
const WARM_UP = 0.5;

type Measured = PeerResult;

function chosen(names: readonly string[]): readonly Peer[] {
  for (const name of names) {
    if (!PEERS.some((peer) => peer.name.startsWith(name))) {
      throw new UsageError(`no peer is named ${name}: there are ${PEERS.map((peer) => peer.name).join(', ')}`);
    }
  }
  return names.length === 0 ? PEERS : PEERS.filter((peer) => names.some((name) => peer.name.startsWith(name)));
}

/** Installs what is missing; for `--install`. */
export function installPeers(names: readonly string[]): void {
  const isEtcd = names.length === 0 || names.includes('etcd');
  for (const peer of chosen(names.filter((name) => name !== 'etcd'))) if (peer.version() === null) peer.install();
  if (isEtcd) installEtcd();
}

/** What the broker did, by what stood beside it. */
type Taken = Record<string, StreamResult[]>;

async function publish(
  pair: Pair,
  options: Options,
  rate: string | null,
  taken: { readonly by: Taken; readonly name: string },
): Promise<Measured> {
  const result = await runStreams(streamLoad(pair, options, 'broker', rate));
  const results = taken.by[taken.name] ?? [];
  taken.by[taken.name] = results;
  results.push(result);
  return { messagesPerSecond: result.messagesPerSecond, p99Ms: result.latency.p99Ms, cost: result.cost };
}

async function read(broker: Target, options: Options, messages: number): Promise<Measured> {
  const { subjects, client } = options;
  const result: ConsumeResult = await runConsume(broker.pid, {
    address: broker.address,
    path: CONSUME_PATH,
    protocol: 'broker',
    subjects: Array.from({ length: subjects }, (_, index) => subjectName(PREFIX, index)),
    start: 'earliest',
    connections: 1,
    streams: 1,
    creditBytes: CREDIT_BYTES,
    messagesPerStream: messages,
    warmupMs: 0,
    durationMs: 0,
    client,
    captureBytes: 0,
  });
  return { messagesPerSecond: result.messagesPerSecond, p99Ms: null, cost: result.cost };
}

async function beside(peer: Peer, pair: Pair, options: Options, progress: Progress, by: Taken): Promise<Figure[]> {
  const { bodyBytes, messages, rounds } = options;
  const load = { bodyBytes, messages };
  progress.say(`starting ${peer.name}`);
  const running = await peer.start();
  const show = (result: Measured): string => `${peer.name} ${formatNumber(result.messagesPerSecond)}/s`;
  try {
    progress.say(`warming ${peer.name} up`);
    await running.publish({ bodyBytes, messages: Math.ceil(messages * WARM_UP) });
    const published = await alternate<Measured>(rounds, progress, {
      subject: () => publish(pair, options, null, { by, name: `beside ${peer.name}` }),
      baseline: () => running.publish(load),
      show,
    });
    const figures = figuresOf(peer, 'publish', published.subject, published.baseline);
    progress.say(`${peer.name}: at half of its rate`);
    const half = HALF * (published.baseline.at(-1)?.messagesPerSecond ?? 0);
    const theirs = await running.publishAt(load, half);
    if (theirs?.p99Ms != null) {
      const name = `at half of ${peer.name}`;
      const ours = await publish(pair, options, String(Math.round(half)), { by, name });
      figures.push({
        name: `${peer.name}: p99 at half of its rate`,
        key: `${peer.name}.half-p99`,
        unit: 'ms',
        subject: [ours.p99Ms ?? Number.NaN],
        baseline: [theirs.p99Ms],
        baselineName: peer.name,
      });
    }
    const first = await running.read(load);
    if (first !== null) {
      const filled = await fillStreams(pair.broker, options, progress, messages);
      const reads = [await read(pair.broker, options, filled.messages)];
      figures.push(...figuresOf(peer, 'read', reads, [first]));
    }
    return figures;
  } finally {
    progress.clear();
    await running.stop();
  }
}

function figuresOf(
  peer: Peer,
  what: 'publish' | 'read',
  ours: readonly Measured[],
  theirs: readonly Measured[],
): Figure[] {
  const figure = (name: string, key: string, unit: string, pick: (result: Measured) => number): Figure => ({
    name: `${peer.name}: ${name}`,
    key: `${peer.name}.${key}`,
    unit,
    subject: ours.map(pick),
    baseline: theirs.map(pick),
    baselineName: peer.name,
  });
  const goalOf = (better: 'higher' | 'lower', goal: PeerGoal | undefined) =>
    goal === undefined ? {} : { goal: { better, ...goal } };
  const rate = {
    ...figure(`${what}, messages`, what, '1/s', (it) => it.messagesPerSecond),
    ...goalOf('higher', what === 'read' ? peer.readGoal : peer.goal),
  };
  const cpu = figure(`${what}, CPU seconds per million`, `${what}-cpu`, 's CPU', (it) => it.cost.totalMicrosPerCall);
  if (what === 'read') return [rate, cpu];
  return [
    rate,
    cpu,
    ...(theirs.every((it) => it.p99Ms !== null)
      ? [
          {
            ...figure('publish at full speed, p99', 'publish-p99', 'ms', (it) => it.p99Ms ?? Number.NaN),
            ...goalOf('lower', peer.p99Goal),
          },
        ]
      : []),
    figure('RSS', 'rss', 'MiB', (it) => it.cost.rssBytes / 2 ** 20),
  ];
}

async function run(options: Options, progress: Progress): Promise<Finding> {
  const figures: Figure[] = [];
  const taken: Taken = {};
  const notes = ['broker: durable, every group is synced before its acknowledgement, one node, embedded store'];
  for (const peer of chosen(options.peers)) {
    const version = peer.version();
    if (version === null) {
      const note = `LEFT OUT: ${peer.name} is not installed (npm run perf -- peers --install ${peer.name})`;
      process.stderr.write(`${note}\n`);
      notes.push(note);
      continue;
    }
    // A fresh broker beside each: neither side inherits what an earlier one wrote.
    figures.push(
      ...(await withServers(options, { answerBytes: 16 }, (pair) => beside(peer, pair, options, progress, taken))),
    );
    notes.push(`${peer.name}: ${version}, one node; ${peer.setting}`);
  }
  if (figures.length === 0) throw new UsageError(`no peer is installed: npm run perf -- peers --install`);
  return {
    scenario: 'peers',
    setting: `${options.messages} messages of ${options.bodyBytes} B to each peer by its own load tool; broker: ${options.streams} publish streams, frames of ${options.frameBytes >> 10} KiB`,
    figures,
    notes: [
      ...notes,
      `each peer was warmed up with ${WARM_UP * 100} % of the messages`,
      ...errorNotes(Object.values(taken).flat()),
      ...generatorWarnings(taken),
    ],
    plots: plotsOf(taken, 'messages/s of the broker'),
    histograms: histogramsOf(taken),
  };
}

export const peers: Scenario = {
  name: 'peers',
  about:
    "beside NATS JetStream, Kafka and RabbitMQ, those that are installed, and unary calls as the predecessor's: peers [NAME…] [--install]",
  defaults: { streams: 4, rounds: 2, durationMs: 4_000, warmupMs: 1_000 },
  examples: ['npm run perf -- peers --install nats', 'npm run perf -- peers nats-always kafka --messages 500000'],
  run,
};
