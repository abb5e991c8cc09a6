/** A database stands still under everything that clients offer: what the broker's memory does meanwhile, and what it does when the server goes on. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rssOf } from '../e2e/flow-rig.ts';
import { CassandraServer, ownCassandraMissing } from '../servers/cassandra.ts';
import { ServerMissing } from '../servers/chosen-server.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { PublishStream } from '../support/publish-stream.ts';
import type { Campaign, CampaignOptions, CampaignResult, CampaignStore } from './campaign.ts';
import { pause } from './rig.ts';

const CALLS = 256;
/** All calls together offer twice what may be in flight. */
const CALL_BYTES = 64 * 1024;
const LIMITS = ['--limits-in-flight-bytes', '8MiB'];
const STREAMS = 2;
const BATCHES = 16;
const BATCH_BODIES = Array.from({ length: 64 }, () => Buffer.alloc(1024, 'x'));
/** Callers give up and come again: what they left behind must not pile up. */
const CALL_TIMEOUT_MS = 1_000;
/** The heap is as large as it gets under this load after so much of it. */
const WARM_MS = 2_500;
/** Between two looks at the memory. */
const LOOK_MS = 50;
const RECOVER_MS_MAX = 120_000;
/** How much more than in the first third of the time the process may have in the last one: garbage that was not collected yet. */
export const GROWTH_BYTES_MAX = 48 << 20;
/** What the image asks for (docs/kubernetes.md): a broker stays under it, however flat it is. */
export const RSS_BYTES_MAX = 1 << 30;

/** Clients that send again whatever is refused as soon as they may. */
class FullLoad {
  readonly #client: BrokerClient;
  readonly #address: string;
  readonly #streams = new Set<PublishStream>();
  #isOver = false;
  #loops: Promise<void>[] = [];
  acked = 0;
  refused = 0;

  constructor(address: string) {
    this.#address = address;
    this.#client = new BrokerClient(address, { timeoutMs: CALL_TIMEOUT_MS });
  }

  start(): void {
    const calls = Array.from({ length: CALLS }, (_, i) => this.#publish(`still.${i % 16}`));
    const streams = Array.from({ length: STREAMS }, (_, i) => this.#stream(`still.stream.${i}`));
    this.#loops = [...calls, ...streams];
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    for (const stream of this.#streams) stream.cancel();
    this.#client.close();
    await Promise.all(this.#loops);
  }

  async #publish(subject: string): Promise<void> {
    const body = Buffer.alloc(CALL_BYTES, 'x');
    while (!this.#isOver) {
      try {
        await this.#client.publish({ subject, body });
        this.acked += 1;
      } catch (error) {
        assert.ok(error instanceof CallError, String(error));
        if (error.reason !== null && error.outcome === 'none') this.refused += 1;
        await pause(error.retryAfterMs ?? 1);
      }
    }
  }

  async #stream(subject: string): Promise<void> {
    while (!this.#isOver) {
      const stream = await PublishStream.open(this.#address, '');
      this.#streams.add(stream);
      for (let sequence = 1; stream.status === undefined && !this.#isOver; ) {
        const sent = Array.from({ length: BATCHES }, () => sequence++);
        for (const one of sent) stream.send({ subject, sequence: one, bodies: BATCH_BODIES });
        for (const { error } of await stream.settled(...sent)) {
          if (error === undefined) this.acked += BATCH_BODIES.length;
          else if (error.outcome === 1) this.refused += BATCH_BODIES.length;
        }
        for (const one of sent) stream.results.delete(one);
        await pause(1);
      }
      this.#streams.delete(stream);
      stream.cancel();
    }
  }
}

/** A server whose processes can be stopped and go on. */
export interface StillServer {
  /** Of a broker with a schema or keyspace of its own. */
  brokerFlags(): string[];
  /** Pids. */
  processes(): readonly number[];
}

export function stillPostgres(server: PostgresServer): StillServer {
  return { brokerFlags: () => server.brokerFlags(), processes: () => server.backends() };
}

function stillCassandra(server: CassandraServer): StillServer {
  const own = ['--store', 'cassandra', '--cassandra-contact-points', server.contactPoint];
  const place = (): string => `t_${randomBytes(6).toString('hex')}`;
  return {
    brokerFlags: () => [...own, '--cassandra-datacenter', 'datacenter1', '--cassandra-keyspace', place()],
    processes: () => [server.pid],
  };
}

export interface Standstill {
  readonly flags: readonly string[];
  readonly name: string;
}

/** A server that is waited for, and one that is given up again and again. */
export const STANDSTILLS: readonly Standstill[] = [
  { name: '1 shard, waits', flags: ['--shards', '1', '--store-timeout', '5m'] },
  { name: '2 shards, wait', flags: ['--shards', '2', '--store-timeout', '5m'] },
  { name: '2 shards, give up', flags: ['--shards', '2', '--store-timeout', '1s'] },
];

export interface StandstillResult {
  readonly name: string;
  readonly refused: number;
  /** The most resident memory in each third of the time, in bytes. */
  readonly thirds: readonly number[];
}

/** All of `kinds` at once, on one server that stands still for `ms` after they are warm. */
export async function standStill(
  server: StillServer,
  kinds: readonly Standstill[],
  ms: number,
  onProgress: (doneMs: number) => void = () => undefined,
): Promise<StandstillResult[]> {
  await using stack = new AsyncDisposableStack();
  const brokers: BrokerProcess[] = [];
  for (const { flags } of kinds) {
    const broker = stack.use(await BrokerProcess.create({ flags: [...server.brokerFlags(), ...LIMITS, ...flags] }));
    await broker.restart();
    brokers.push(broker);
  }
  const loads = brokers.map(({ address }) => new FullLoad(address));
  stack.defer(async () => void (await Promise.all(loads.map((load) => load.stop()))));
  for (const load of loads) load.start();
  while (!loads.every(({ acked }) => acked > 1_000)) await pause(LOOK_MS);
  const processes = server.processes();
  const signal = (name: NodeJS.Signals): void => {
    for (const pid of processes) process.kill(pid, name);
  };
  signal('SIGSTOP');
  const thirds = brokers.map(() => [0, 0, 0]);
  try {
    await pause(WARM_MS);
    const begun = performance.now();
    for (let gone = 0; gone < ms; gone = performance.now() - begun) {
      const third = Math.floor((gone / ms) * 3);
      brokers.forEach((broker, i) => {
        const peaks = thirds[i] as number[];
        peaks[third] = Math.max(peaks[third] as number, rssOf(broker));
      });
      onProgress(gone);
      await pause(LOOK_MS);
    }
  } finally {
    signal('SIGCONT');
  }
  const refused = loads.map((load) => load.refused);
  const acked = loads.map((load) => load.acked);
  const until = performance.now() + RECOVER_MS_MAX;
  while (!loads.every((load, i) => load.acked > (acked[i] as number) + 1_000)) {
    assert.ok(performance.now() < until, 'nothing is taken although the server goes on');
    await pause(LOOK_MS);
  }
  return kinds.map(({ name }, i) => ({ name, refused: refused[i] as number, thirds: thirds[i] as number[] }));
}

/** What the memory of a broker did that it must not, in words; empty if nothing. */
export function complaintsOf({ name, thirds }: StandstillResult): string[] {
  const [first = 0, , last = 0] = thirds;
  const peak = Math.max(...thirds);
  const complaints: string[] = [];
  if (last - first > GROWTH_BYTES_MAX) {
    complaints.push(`${name}: ${mib(last - first)} MiB more in the last third than in the first`);
  }
  if (!(peak < RSS_BYTES_MAX)) complaints.push(`${name}: ${mib(peak)} MiB, which is not under ${mib(RSS_BYTES_MAX)}`);
  return complaints;
}

function mib(bytes: number): number {
  return Math.round(bytes / (1 << 20));
}

async function startServer(store: CampaignStore): Promise<StillServer & { remove(): Promise<void> }> {
  if (store === 'postgres') {
    const server = await PostgresServer.start();
    return { ...stillPostgres(server), remove: () => server.remove() };
  }
  const missing = ownCassandraMissing();
  if (missing !== null) throw new ServerMissing(missing);
  const server = await CassandraServer.start();
  return { ...stillCassandra(server), remove: () => server.remove() };
}

async function runStandstillCampaign(options: CampaignOptions): Promise<CampaignResult> {
  const { runs, store = 'postgres', onProgress } = options;
  const server = await startServer(store);
  try {
    const results = await standStill(server, STANDSTILLS, runs * 1_000, (gone) =>
      onProgress(Math.floor(gone / 1_000), runs, 'seconds'),
    );
    return {
      rows: results.map(({ name, refused, thirds }) => ({
        broker: name,
        seconds: runs,
        'messages refused': refused,
        'MiB, first third': mib(thirds[0] as number),
        'second third': mib(thirds[1] as number),
        'last third': mib(thirds[2] as number),
      })),
      violations: results.flatMap(complaintsOf),
      notes: [],
    };
  } finally {
    await server.remove();
  }
}

export const standstill: Campaign = {
  name: 'standstill',
  about: 'the database stands still for so many seconds under full load: memory stays flat, and under 1 GiB',
  hasStores: true,
  defaultRuns: 600,
  run: runStandstillCampaign,
};
