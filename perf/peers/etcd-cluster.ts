/** etcd on one node or three, on this machine. */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/broker.ts';
import { BrokerClient } from '../../test/support/client.ts';
import { freePorts } from '../../test/support/ports.ts';
import { UsageError } from '../lib/options.ts';
import { etcdBinary } from './etcd.ts';
import { stopProcess } from './peer.ts';

const READY_MS = 30_000;

export interface EtcdCluster {
  /** HOST:PORT of each node. */
  readonly addresses: readonly string[];
  /** Of the first. */
  readonly pid: number;
  stop(): Promise<void>;
}

export async function startEtcdCluster(nodes: number): Promise<EtcdCluster> {
  const binary = etcdBinary();
  if (binary === null) throw new UsageError('etcd is not installed: npm run perf -- peers --install etcd');
  const folder = makeDataDirectory('etcd-perf-');
  const ports = await freePorts(2 * nodes);
  const clients = ports.slice(0, nodes).map((port) => `127.0.0.1:${port}`);
  const peers = ports.slice(nodes).map((port) => `http://127.0.0.1:${port}`);
  const members = peers.map((url, i) => `n${i}=${url}`).join();
  const children: ChildProcess[] = clients.map((client, i) => {
    const url = `http://${client}`;
    const peer = peers[i] as string;
    const args = [
      ...['--name', `n${i}`, '--data-dir', join(folder, `n${i}`), '--log-level', 'panic'],
      ...['--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
      ...['--initial-cluster', members, '--quota-backend-bytes', String(8 * 2 ** 30)],
    ];
    return spawn(binary, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  });
  const stop = async (): Promise<void> => {
    await Promise.all(children.map(stopProcess));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const address of clients) {
      const probe = new BrokerClient(address);
      await probe.ready(READY_MS);
      probe.close();
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { addresses: clients, pid: children[0]?.pid as number, stop };
}
