/** Kafka: one KRaft node, one partition, acks=all; with each append flushed, and with its default (no flush of its own). */
import { spawn } from 'node:child_process';
import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeDataDirectory } from '../../test/support/broker.ts';
import { freePorts } from '../../test/support/ports.ts';
import { classPath, fetchJars, hasJar } from './maven.ts';
import {
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

const VERSION = '4.4.0';
/** There are no tools of the server's version, and the two do not run with each other's jars. */
const TOOLS_VERSION = '4.3.1';
const LOG4J = { group: 'org.apache.logging.log4j', name: 'log4j-slf4j-impl', version: '2.25.5' };
const TOOLS = 'org.apache.kafka.tools';
const LOGGING =
  '<Configuration><Appenders><Console name="out"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders><Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers></Configuration>';

function properties(folder: string, port: number, controller: number): string {
  return [
    'process.roles=broker,controller',
    'node.id=1',
    `listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller}`,
    `advertised.listeners=PLAINTEXT://127.0.0.1:${port}`,
    'listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT',
    'controller.listener.names=CONTROLLER',
    `controller.quorum.bootstrap.servers=127.0.0.1:${controller}`,
    `log.dirs=${join(folder, 'data')}`,
    'num.network.threads=2',
    'num.io.threads=4',
    'auto.create.topics.enable=false',
    'offsets.topic.num.partitions=1',
    'offsets.topic.replication.factor=1',
    'transaction.state.log.num.partitions=1',
    'transaction.state.log.replication.factor=1',
    'transaction.state.log.min.isr=1',
    'share.coordinator.state.topic.num.partitions=1',
    'share.coordinator.state.topic.replication.factor=1',
    'share.coordinator.state.topic.min.isr=1',
    'group.initial.rebalance.delay.ms=0',
    '',
  ].join('\n');
}

async function start(isFlushed: boolean): Promise<RunningPeer> {
  const folder = makeDataDirectory('kafka-perf-');
  const [port, controller] = (await freePorts(2)) as [number, number];
  const config = join(folder, 'server.properties');
  const logging = join(folder, 'log4j2.xml');
  writeFileSync(config, properties(folder, port, controller));
  writeFileSync(logging, LOGGING);
  const log4j = `-Dlog4j2.configurationFile=${logging}`;
  const server = [log4j, '-Djava.net.preferIPv4Stack=true', '-cp', classPath('kafka')];
  const id = outputOf('java', [log4j, '-cp', classPath('kafka'), 'kafka.tools.StorageTool', 'random-uuid']);
  if (id === null) throw new Error('kafka.tools.StorageTool does not run');
  must('java', [
    ...server,
    'kafka.tools.StorageTool',
    'format',
    '--standalone',
    '-t',
    id.split('\n').at(-1) ?? '',
    '-c',
    config,
  ]);
  const log = openSync(join(folder, 'log'), 'w');
  const heap = [
    '-Xms1g',
    '-Xmx1g',
    '-server',
    '-XX:+UseG1GC',
    '-XX:MaxGCPauseMillis=20',
    '-XX:InitiatingHeapOccupancyPercent=35',
  ];
  const child = spawn('java', [...heap, ...server, 'kafka.Kafka', config], { stdio: ['ignore', log, log] });
  closeSync(log);
  const pid = child.pid as number;
  const tool = (name: string, args: readonly string[]) =>
    runTool(pid, 'java', [
      '-Xmx512m',
      log4j,
      '-cp',
      classPath('kafka-tools'),
      `${TOOLS}.${name}`,
      '--bootstrap-server',
      `127.0.0.1:${port}`,
      ...args,
    ]);
  let topics = 0;
  const topic = (): string => `perf${topics}`;
  const produce = async ({ bodyBytes, messages }: PeerLoad, throughput: number): Promise<PeerResult> => {
    topics += 1;
    const flush = isFlushed ? ['--config', 'flush.messages=1'] : [];
    await tool('TopicCommand', [
      '--create',
      '--topic',
      topic(),
      '--partitions',
      '1',
      '--replication-factor',
      '1',
      ...flush,
    ]);
    const { output, costOf } = await tool('ProducerPerformance', [
      ...['--topic', topic(), '--num-records', String(messages), '--record-size', String(bodyBytes)],
      // The client is a JVM too.
      ...['--warmup-records', String(Math.floor(messages / 4))],
      ...['--throughput', String(throughput), '--command-property', 'acks=all', 'batch.size=65536', 'linger.ms=5'],
    ]);
    return {
      messagesPerSecond: lastNumber(output, /sent, ([\d.]+) records\/sec/g),
      p99Ms: lastNumber(output, /(\d+) ms 99th/g),
      cost: costOf(messages),
    };
  };
  await untilListening(child, port, 60_000);
  return {
    pid,
    publish: (load) => produce(load, -1),
    publishAt: (load, messagesPerSecond) => produce(load, Math.round(messagesPerSecond)),
    async read({ messages }) {
      const { output, costOf } = await tool('ConsumerPerformance', [
        '--topic',
        topic(),
        '--num-records',
        String(messages),
      ]);
      // start, end, MB, MB/s, records, records/s, ms to join the group, ms of fetching, and both rates of the fetching alone
      const fields = output.trim().split('\n').at(-1)?.split(',') ?? [];
      return { messagesPerSecond: Number(fields[9]), p99Ms: null, cost: costOf(messages) };
    },
    async stop() {
      await stopProcess(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function peer(name: string, isFlushed: boolean, setting: string, goal: PeerGoal): Peer {
  return {
    name,
    setting,
    goal,
    // As an aim of `replay`, and for the peer that is as durable, a tenth of its p99.
    readGoal: { must: 0, aim: 1 },
    ...(isFlushed ? { p99Goal: { must: 0.1, aim: 0.1 } } : {}),
    version: () =>
      outputOf('java', ['-version']) !== null && hasJar('kafka', 'kafka_2.13-') && hasJar('kafka-tools', 'kafka-tools-')
        ? `kafka ${VERSION}`
        : null,
    install() {
      fetchJars('kafka', [{ group: 'org.apache.kafka', name: 'kafka_2.13', version: VERSION }, LOG4J]);
      const without = ['org.apache.kafka:connect-runtime'];
      fetchJars('kafka-tools', [
        { group: 'org.apache.kafka', name: 'kafka-tools', version: TOOLS_VERSION, without },
        LOG4J,
      ]);
    },
    start: () => start(isFlushed),
  };
}

const LOAD = 'one partition, acks=all, batches of 64 KiB, linger 5 ms';

export const kafkaFlush = peer(
  'kafka-flush',
  true,
  `flush.messages=1 (each append is synced before the ack), ${LOAD}`,
  {
    must: 2,
    aim: 4,
  },
);

export const kafkaDefault = peer('kafka-default', false, `its default: acked from the page cache, ${LOAD}`, {
  must: 0.5,
  aim: 1,
});
