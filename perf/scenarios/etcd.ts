/** The broker's durable publishes beside etcd's durable puts, where an etcd binary is found. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/broker.ts';
import { BrokerClient } from '../../test/support/client.ts';
import { freePorts } from '../../test/support/ports.ts';
import { UsageError } from '../lib/options.ts';
import { alternateLoads, errorNotes, loadFigures, loadOf, PUBLISH_PATH, type Scenario } from '../lib/scenario.ts';
import { startBrokerTarget, type Target } from '../lib/targets.ts';
import { etcdBinary } from '../peers/etcd.ts';
import { publishFrames } from './unary.ts';

async function startEtcd(): Promise<Target> {
  const binary = etcdBinary();
  if (binary === null) throw new UsageError('etcd is not installed: npm run perf -- peers --install etcd');
  const folder = makeDataDirectory('etcd-perf-');
  const [client, peer] = await freePorts(2);
  const child = spawn(
    binary,
    [
      ...['--data-dir', join(folder, 'data'), '--log-level', 'error'],
      ...[
        '--listen-client-urls',
        `http://127.0.0.1:${client}`,
        '--advertise-client-urls',
        `http://127.0.0.1:${client}`,
      ],
      ...[
        '--listen-peer-urls',
        `http://127.0.0.1:${peer}`,
        '--initial-advertise-peer-urls',
        `http://127.0.0.1:${peer}`,
      ],
      ...['--initial-cluster', `default=http://127.0.0.1:${peer}`, '--quota-backend-bytes', String(8 * 2 ** 30)],
    ],
    { stdio: ['ignore', 'inherit', 'inherit'] },
  );
  const address = `127.0.0.1:${client}`;
  const probe = new BrokerClient(address);
  await probe.ready(20_000);
  probe.close();
  const stop = async (): Promise<void> => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { name: 'etcd', address, pid: child.pid as number, stop };
}

export const etcd: Scenario = {
  name: 'etcd',
  about: 'durable Publish against durable puts of etcd, one node each (needs etcd)',
  defaults: { inFlight: 1_000, connections: 100 },
  async run(options, progress) {
    const { shards, cpuProfileDir, serveFlags, bodyBytes, inFlight, connections } = options;
    const peer = await startEtcd();
    try {
      const broker = await startBrokerTarget({ shards, cpuProfileDir, flags: serveFlags });
      try {
        const mode = { kind: 'closed' as const };
        const puts = { kind: 'put' as const, keys: 10_000, valueBytes: bodyBytes };
        const results = await alternateLoads(options, progress, {
          subject: loadOf(broker, options, { path: PUBLISH_PATH, frames: publishFrames(options), mode }),
          baseline: loadOf(peer, options, { path: '/etcdserverpb.KV/Put', frames: puts, mode }),
        });
        return {
          scenario: 'etcd',
          setting: `${bodyBytes} B, ${inFlight} in flight on ${connections} connections; baseline: etcd, one node, fsync on`,
          figures: loadFigures(results, { rate: { better: 'higher', must: 1, aim: 1.3 } }),
          notes: errorNotes([...results.subject, ...results.baseline]),
        };
      } finally {
        await broker.stop();
      }
    } finally {
      await peer.stop();
    }
  },
};
