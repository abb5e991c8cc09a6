/** Whether load alone ever makes a cluster elect: streams and unary publishes through every node as fast as they are taken. */
import { runLoad } from '../lib/load.ts';
import { Cluster } from '../lib/nodes.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Finding } from '../lib/report.ts';
import { errorNotes, loadOf, PUBLISH_PATH, type Scenario } from '../lib/scenario.ts';
import { runStreams } from '../lib/stream-load.ts';
import { startStoreServer } from '../stores/server.ts';
import { settingOf, streamLoad } from './stream.ts';
import { publishFrames } from './unary.ts';

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const { shards, cpuProfileDir, serveFlags, store, durationMs } = options;
  progress.say(`starting ${store} and three nodes`);
  const server = await startStoreServer(store);
  try {
    const flags = [...server.flags, ...serveFlags];
    const cluster = await Cluster.start({ shards, cpuProfileDir, flags });
    try {
      const before = await cluster.term();
      progress.say(`full load on three nodes for ${durationMs / 1_000} s`);
      const parts = cluster.nodes.length;
      const share = {
        ...options,
        inFlight: Math.ceil(options.inFlight / parts),
        connections: 1,
        streams: 1,
        threads: 1,
      };
      const frames = publishFrames(options);
      const [calls, streams] = await Promise.all([
        Promise.all(
          cluster.nodes.map((node) =>
            runLoad(loadOf(node, share, { path: PUBLISH_PATH, frames, mode: { kind: 'closed' } })),
          ),
        ),
        Promise.all(
          cluster.nodes.map((broker) => runStreams(streamLoad({ broker, echo: broker }, share, 'broker', null))),
        ),
      ]);
      const terms = (await cluster.term()) - before;
      progress.clear();
      const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
      const failed = [...calls, ...streams].map(({ errors }) => sum(Object.values(errors)));
      return {
        scenario: 'elections',
        setting: `three nodes on one ${store} for ${durationMs / 1_000} s; ${options.inFlight} calls in flight and one publish stream a node; ${settingOf(share)}`,
        figures: [
          {
            name: 'changes of term',
            key: 'terms',
            unit: '',
            subject: [terms],
            goal: { better: 'lower', must: 0, aim: 0 },
          },
          { name: 'unary: calls', key: 'unary', unit: '1/s', subject: [sum(calls.map((it) => it.callsPerSecond))] },
          {
            name: 'streams: messages',
            key: 'streams',
            unit: '1/s',
            subject: [sum(streams.map((it) => it.messagesPerSecond))],
          },
          {
            name: 'cores of all nodes',
            key: 'cores',
            unit: '',
            subject: [sum(calls.map((it) => it.cost.totalCores))],
          },
          { name: 'failed', key: 'errors', unit: '', subject: [sum(failed)] },
        ],
        notes: errorNotes([...calls, ...streams]),
      };
    } finally {
      await cluster.stop();
    }
  } finally {
    await server.stop();
    progress.clear();
  }
}

export const elections: Scenario = {
  name: 'elections',
  about: 'changes of term while three nodes are under full load for --duration seconds; there should be none',
  defaults: { durationMs: 120_000, inFlight: 256 },
  examples: ['npm run perf -- elections --duration 1800'],
  run: measure,
};
