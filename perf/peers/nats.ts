/** NATS JetStream: file store, one replica; its fastest publishers for each durability (atomic batches, fast ingest). */
import { spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/broker.ts';
import { freePorts } from '../../test/support/ports.ts';
import {
  inCache,
  lastNumber,
  must,
  outputOf,
  type Peer,
  type PeerGoal,
  type PeerLoad,
  type PeerResult,
  type RunningPeer,
  runTool,
  stopProcess,
  untilListening,
} from './peer.ts';

const SERVER = 'github.com/nats-io/nats-server/v2@v2.15.2';
const TOOL = 'github.com/nats-io/natscli/nats@v0.5.1';
const BATCH = 500;
const CLIENTS = 4;

function binary(name: string): string {
  return inCache('bin', name);
}

async function start(isSynced: boolean): Promise<RunningPeer> {
  const folder = makeDataDirectory('nats-perf-');
  const [port] = (await freePorts(1)) as [number];
  const sync = isSynced ? '  sync_interval: always\n' : '';
  const config = `listen: "127.0.0.1:${port}"\njetstream {\n  store_dir: "${join(folder, 'store')}"\n${sync}}\n`;
  writeFileSync(join(folder, 'nats.conf'), config);
  const log = join(folder, 'nats.log');
  const child = spawn(binary('nats-server'), ['-c', join(folder, 'nats.conf'), '-l', log], { stdio: 'ignore' });
  const pid = child.pid as number;
  const bench = async (args: readonly string[], load: PeerLoad): Promise<PeerResult> => {
    const common = ['--size', String(load.bodyBytes), '--msgs', String(load.messages), '--no-progress'];
    const url = `nats://127.0.0.1:${port}`;
    const tool = await runTool(pid, binary('nats'), ['-s', url, '--no-context', 'bench', 'js', ...args, ...common]);
    const p99 = /P99 ([\d,.]+)us/.exec(tool.output)?.[1];
    return {
      messagesPerSecond: lastNumber(tool.output, / stats: ([\d,]+) msgs\/sec/g),
      p99Ms: p99 === undefined ? null : Number(p99.replaceAll(',', '')) / 1_000,
      cost: tool.costOf(load.messages),
    };
  };
  const mode = isSynced ? 'atomic' : 'fast';
  const stream = ['--create', '--purge', '--maxbytes', '8GB', '--replicas', '1', '--stream', 'perf'];
  await untilListening(child, port, 20_000);
  return {
    pid,
    publish: (load) =>
      bench(['pub', mode, 'perf', ...stream, '--clients', String(CLIENTS), '--batch', String(BATCH)], load),
    publishAt: () => Promise.resolve(null),
    read: (load) => bench(['ordered', '--stream', 'perf', '--clients', '1'], load),
    async stop() {
      await stopProcess(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function peer(name: string, isSynced: boolean, setting: string, goal: PeerGoal): Peer {
  return {
    name,
    setting,
    goal,
    readGoal: { must: 1, aim: 1 },
    version: () =>
      outputOf(binary('nats'), ['--version']) === null ? null : outputOf(binary('nats-server'), ['--version']),
    install() {
      mkdirSync(inCache('bin'), { recursive: true });
      const env = { GOBIN: inCache('bin'), CGO_ENABLED: '0' };
      for (const module of [SERVER, TOOL]) must('go', ['install', '-trimpath', '-ldflags', '-s -w', module], env);
    },
    start: () => start(isSynced),
  };
}

export const natsAlways = peer(
  'nats-always',
  true,
  `file store, R1, sync_interval: always (synced before the ack), atomic batches of ${BATCH}, ${CLIENTS} clients`,
  { must: 4, aim: 8 },
);

export const natsDefault = peer(
  'nats-default',
  false,
  `file store, R1, its default: fsync every 2 minutes, fast-ingest batches of ${BATCH}, ${CLIENTS} clients`,
  { must: 1.5, aim: 3 },
);
