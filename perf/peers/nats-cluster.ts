/** Three NATS servers on this machine, one stream with three replicas, synced before the ack. */
import { type ChildProcess, spawn } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/broker.ts';
import { freePorts } from '../../test/support/ports.ts';
import { inCache, lastNumber, outputOf, runTool, stopProcess, untilListening } from './peer.ts';

const NODES = 3;
const CLIENTS = 4;
const BATCH = 500;
/** For the servers to find each other, in ms. */
const PATIENCE_MS = 30_000;

export type NatsMode = 'fast' | 'atomic' | 'async';

export interface NatsCluster {
  /** Messages a second. */
  publish(mode: NatsMode, messages: number, bodyBytes: number): Promise<number>;
  stop(): Promise<void>;
}

export function hasNats(): boolean {
  return ['nats', 'nats-server'].every((name) => outputOf(inCache('bin', name), ['--version']) !== null);
}

export async function startNatsCluster(): Promise<NatsCluster> {
  const folder = makeDataDirectory('nats-perf-');
  const ports = await freePorts(2 * NODES);
  const clients = ports.slice(0, NODES);
  const routes = ports.slice(NODES);
  const children: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    await Promise.all(children.map(stopProcess));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (let i = 0; i < NODES; i++) {
      const config = join(folder, `n${i}.conf`);
      const others = routes.map((port) => `"nats-route://127.0.0.1:${port}"`).join(', ');
      const lines = [
        `server_name: n${i}`,
        `listen: "127.0.0.1:${clients[i]}"`,
        `jetstream { store_dir: "${join(folder, `store${i}`)}", sync_interval: always }`,
        `cluster { name: perf, listen: "127.0.0.1:${routes[i]}", routes: [${others}] }`,
      ];
      writeFileSync(config, `${lines.join('\n')}\n`);
      const args = ['-c', config, '-l', join(folder, `n${i}.log`)];
      children.push(spawn(inCache('bin', 'nats-server'), args, { stdio: 'ignore' }));
    }
    for (const [i, child] of children.entries()) await untilListening(child, clients[i] as number, PATIENCE_MS);
  } catch (error) {
    await stop();
    throw error;
  }
  const url = clients.map((port) => `nats://127.0.0.1:${port}`).join();
  const pid = children[0]?.pid as number;
  return {
    async publish(mode, messages, bodyBytes) {
      const batch = mode === 'async' ? [] : ['--batch', String(BATCH)];
      const args = ['-s', url, '--no-context', 'bench', 'js', 'pub', mode, 'perf', '--create', '--purge'];
      const stream = ['--maxbytes', '8GB', '--replicas', String(NODES), '--stream', 'perf'];
      const size = ['--size', String(bodyBytes), '--msgs', String(messages), '--clients', String(CLIENTS)];
      // They elect a leader of their own first, and refuse a stream till then.
      for (const end = performance.now() + PATIENCE_MS; ; ) {
        try {
          const tool = await runTool(pid, inCache('bin', 'nats'), [
            ...args,
            ...stream,
            ...size,
            ...batch,
            '--no-progress',
          ]);
          return lastNumber(tool.output, / stats: ([\d,]+) msgs\/sec/g);
        } catch (error) {
          if (performance.now() > end) throw error;
          await new Promise((resolve) => setTimeout(resolve, 500));
        }
      }
    },
    stop,
  };
}
