/** RabbitMQ: one node, a quorum queue (synced before the confirm), publisher confirms. */
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/broker.ts';
import { freePorts } from '../../test/support/ports.ts';
import { classPath, fetchJars, hasJar } from './maven.ts';
import {
  lastNumber,
  must,
  outputOf,
  type Peer,
  type RunningPeer,
  runTool,
  stopProcess,
  untilListening,
} from './peer.ts';

/** Debian's own, whose wrapper in the path insists on being root or rabbitmq. */
const SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';
const PRODUCERS = 4;
const CONFIRMS = 500;
const SECONDS = 8;

async function start(): Promise<RunningPeer> {
  const folder = makeDataDirectory('rabbitmq-perf-');
  const [port, epmdPort, distPort] = (await freePorts(3)) as [number, number, number];
  mkdirSync(join(folder, 'home'));
  writeFileSync(join(folder, 'rabbitmq.conf'), `listeners.tcp.1 = 127.0.0.1:${port}\n`);
  const log = openSync(join(folder, 'log'), 'w');
  // Its own name server, in the foreground: the one that Erlang starts by itself would outlive us.
  const epmd = spawn('epmd', ['-address', '127.0.0.1', '-port', String(epmdPort)], { stdio: 'ignore' });
  await untilListening(epmd, epmdPort, 10_000);
  const env = {
    PATH: process.env.PATH,
    HOME: join(folder, 'home'),
    RABBITMQ_NODENAME: 'perf@localhost',
    RABBITMQ_CONFIG_FILE: join(folder, 'rabbitmq.conf'),
    RABBITMQ_MNESIA_BASE: join(folder, 'data'),
    RABBITMQ_LOG_BASE: join(folder, 'logs'),
    RABBITMQ_PID_FILE: join(folder, 'pid'),
    RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, 'plugins'),
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    ERL_EPMD_ADDRESS: '127.0.0.1',
    ERL_EPMD_PORT: String(epmdPort),
  };
  const child = spawn(SERVER, [], { stdio: ['ignore', log, log], env });
  closeSync(log);
  await untilListening(child, port, 60_000);
  // The script stays in front of the Erlang machine, whose pid is in the file.
  const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
  const tool = ['-Xmx256m', '-cp', classPath('rabbitmq'), 'com.rabbitmq.perf.PerfTest'];
  let queues = 0;
  return {
    pid,
    async publish({ bodyBytes }) {
      queues += 1;
      const load = ['-qq', '-u', `perf${queues}`, '-x', String(PRODUCERS), '-y', '0', '-c', String(CONFIRMS)];
      const size = ['-s', String(bodyBytes), '-z', String(SECONDS)];
      const { output, costOf } = await runTool(pid, 'java', [
        ...tool,
        '-h',
        `amqp://127.0.0.1:${port}`,
        ...load,
        ...size,
      ]);
      const messagesPerSecond = lastNumber(output, /sending rate avg: (\d+) msg\/s/g);
      return {
        messagesPerSecond,
        p99Ms: lastNumber(output, /confirm latency [^\n]* \d+\/\d+\/\d+\/\d+\/(\d+)/g) / 1_000,
        cost: costOf(messagesPerSecond * SECONDS),
      };
    },
    publishAt: () => Promise.resolve(null),
    read: () => Promise.resolve(null),
    async stop() {
      try {
        process.kill(pid, 'SIGTERM');
        await stopProcess(child);
      } finally {
        await stopProcess(epmd);
        rmSync(folder, { recursive: true, force: true });
      }
    },
  };
}

export const rabbitmq: Peer = {
  name: 'rabbitmq',
  setting: `quorum queue (synced before the confirm), ${PRODUCERS} producers with ${CONFIRMS} unconfirmed each, ${SECONDS} s whatever --messages says`,
  goal: { must: 8, aim: 15 },
  version() {
    if (!existsSync(SERVER) || !hasJar('rabbitmq', 'perf-test-')) return null;
    const version = outputOf('dpkg-query', ['-W', 'rabbitmq-server']);
    return `rabbitmq ${version?.split('\t')[1] ?? 'of unknown version'}`;
  },
  install() {
    if (!existsSync(SERVER)) must('apt-get', ['install', '-y', '--no-install-recommends', 'rabbitmq-server']);
    fetchJars('rabbitmq', [{ group: 'com.rabbitmq', name: 'perf-test', version: '2.22.1' }]);
  },
  start,
};
