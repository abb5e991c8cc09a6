/** `npm run cluster`: three nodes on a real PostgreSQL under load, a rolling restart, kill -9 of the leader, and the checker's verdict. */
import { randomBytes, randomInt } from 'node:crypto';
import { terminalProgress } from '../perf/lib/progress.ts';
import { table } from '../perf/lib/report.ts';
import type { MembersResponse } from '../src/grpc/gen/broker/v1/cluster.ts';
import { LIGHT_LOAD, LOAD_SIZE, type LoadSize } from '../test/faults/cluster-load.ts';
import { rollingRestart } from '../test/faults/cluster-restart-campaign.ts';
import { ClusterRig, type RigVerdict } from '../test/faults/cluster-rig.ts';
import { choosePostgres, ServerMissing } from '../test/servers/chosen-server.ts';
import { readOptions } from '../test/support/read-options.ts';
import { endWithReader } from '../test/support/reader-gone.ts';
import { pause } from '../test/support/until.ts';

const HELP = `usage: npm run cluster -- [options]

Starts three nodes that are one broker, on this machine (free ports, a temporary folder) and on a real PostgreSQL: one that is started for it,
or the one that POSTGRES_URL names (there it makes a schema cluster_..., and leaves it). Publishes through all of them, on streams and by single
calls, with readers and subscribers on every node; restarts the nodes one after the other, then kills the leader with SIGKILL, all under the load.
At the end everything is read back from every node, and a checker says whether an acknowledged message was lost, doubled, changed, or out of order.

  --seconds N     of load before, between and after these (8)
  --gossip        the nodes find each other by gossip, and agree who begins: none is told
  --light         a tenth of the load, and soon over
  --seed N        the messages and choices of another run with this seed
  -o json         the result as JSON
  -h, --help      this text

Exit code: 0 everything is there, 1 something is not, or PostgreSQL cannot be had, 2 wrong usage.
By hand, step by step: docs/cluster.md
`;

const NODES = 3;
const PROGRESS_MS = 200;

interface Outcome {
  readonly seed: number;
  readonly store: string;
  readonly members: readonly { readonly node: string; readonly address: string; readonly role: string }[];
  readonly leaderAtFirst: string;
  readonly seconds: number;
  readonly acked: number;
  /** While the nodes were restarted: the longest time without an acknowledgement that a client of another node saw. */
  readonly restartGapMsMax: number;
  readonly killed: string;
  readonly leaderThen: string;
  /** The same for the kill, of each of the two other nodes. */
  readonly killGapsMs: readonly number[];
  readonly refusedForEver: readonly string[];
  readonly verdict: RigVerdict;
}

interface Settings {
  readonly seconds: number;
  readonly seed: number;
  readonly size: LoadSize;
  readonly gossips: boolean;
  /** The line that changes. */
  readonly say: (text: string) => void;
  /** A line that stays. */
  readonly tell: (text: string) => void;
}

async function demo(settings: Settings): Promise<Outcome> {
  const { seed, size, gossips, say, tell } = settings;
  say('starting PostgreSQL and three nodes');
  const server = await choosePostgres();
  const schema = `cluster_${randomBytes(6).toString('hex')}`;
  const store = server.isGiven ? `PostgreSQL of POSTGRES_URL, schema ${schema}` : 'a PostgreSQL of its own';
  try {
    const began = performance.now();
    await using rig = await ClusterRig.start({ nodes: NODES, storeFlags: server.flags(schema), gossips, seed, size });
    const members = await (await rig.cluster.untilLeader()).members();
    const how = gossips ? ', which found each other by gossip,' : '';
    tell(`three nodes${how} are one broker after ${((performance.now() - began) / 1_000).toFixed(1)} s, on ${store}:`);
    tell(membersTable(members));
    return { seed, store, ...(await underLoad(rig, members, settings)) };
  } finally {
    await server.remove();
  }
}

async function underLoad(
  rig: ClusterRig,
  { members, leader: leaderAtFirst }: MembersResponse,
  { seconds, say, tell }: Settings,
): Promise<Omit<Outcome, 'seed' | 'store'>> {
  let now = '';
  const began = performance.now();
  const timer = setInterval(
    () => say(`${rig.load.acked} acknowledged, ${perSecond(rig, began)}/s; ${now}`),
    PROGRESS_MS,
  );
  const load = async (): Promise<void> => {
    now = 'load through all nodes';
    await rig.loaded(1);
    await pause(seconds * 1_000);
  };
  try {
    rig.load.start();
    await load();
    const restarted = await rollingRestart(rig, ({ id }) => {
      now = `restarting ${id}`;
    });
    const restartGapMsMax = Math.max(...restarted.gapsMs);
    tell(
      `rolling restart of n1, n2 and n3: the longest pause that a client of another node saw was ${ms(restartGapMsMax)}`,
    );
    await load();
    const leader = await rig.cluster.untilLeader();
    const others = rig.cluster.nodes.filter((node) => node !== leader);
    now = `kill -9 of the leader, ${leader.id}`;
    const at = performance.now();
    await leader.kill();
    await rig.answering(others, at);
    const killGapsMs = rig.gapsMs(others, at);
    const { id: leaderThen } = await rig.cluster.untilLeader();
    tell(
      `kill -9 of the leader, ${leader.id}: ${leaderThen} leads; clients of the others waited ${killGapsMs.map(ms).join(' and ')}`,
    );
    await load();
    now = `starting ${leader.id} again`;
    await rig.cluster.startAll();
    await rig.answering(rig.cluster.nodes, performance.now());
    await load();
    now = 'reading everything back from every node';
    const loadSeconds = (performance.now() - began) / 1_000;
    const acked = rig.load.acked;
    const verdict = await rig.judge();
    if (violationsOf(verdict).length > 0) tell(`data, logs and operations are kept in ${rig.cluster.keep()}`);
    return {
      members: members.map(({ nodeId, grpcAddress, role }) => ({ node: nodeId, address: grpcAddress, role })),
      leaderAtFirst,
      seconds: loadSeconds,
      acked,
      restartGapMsMax,
      killed: leader.id,
      leaderThen,
      killGapsMs,
      refusedForEver: [...rig.load.context.finalRefusals],
      verdict,
    };
  } finally {
    clearInterval(timer);
  }
}

function membersTable({ members, leader }: MembersResponse): string {
  const rows = members.map(({ nodeId, role, grpcAddress, raftAddress }) => [
    nodeId,
    nodeId === leader ? `${role}, leads` : role,
    grpcAddress,
    raftAddress,
  ]);
  return table([['node', 'role', 'gRPC', 'Raft'], ...rows]);
}

function perSecond(rig: ClusterRig, began: number): number {
  return Math.round((rig.load.acked * 1_000) / (performance.now() - began));
}

function ms(value: number): string {
  return `${Math.round(value)} ms`;
}

function violationsOf({ violations, linearizability }: RigVerdict) {
  return [...violations, ...(linearizability?.violations ?? [])];
}

function print({ verdict, seconds, acked, refusedForEver }: Outcome): void {
  const { counts, linearizability } = verdict;
  const violations = violationsOf(verdict);
  const rows: [string, string][] = [
    [
      'acknowledged',
      `${counts.acked} messages, ${Math.round(acked / seconds)} a second; each was read back from each node`,
    ],
    ['without an answer', `${counts.unknown} messages, of which ${counts.unknownStored} are stored: either is allowed`],
    ['void ids', String(counts.voids)],
    ['delivered', `${counts.deliveries}, on ${counts.streams} streams`],
    ['read under the load', `${counts.fetches} times, each acknowledged message at once on every node`],
    ['refused for good', refusedForEver.length === 0 ? 'none' : refusedForEver.join(', ')],
    [
      'linearizable (Porcupine)',
      linearizability === null
        ? 'not checked: there is no Go here'
        : `${linearizability.operations} operations were looked at`,
    ],
    ['lost, doubled, changed, out of order', String(violations.length)],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) process.stdout.write(`${name.padEnd(width)}  ${value}\n`);
  for (const { rule, subject, id, detail } of violations)
    process.stdout.write(`VIOLATION ${rule}: ${subject} id ${id}: ${detail}\n`);
  const good = 'OK: every acknowledged message is there once, in order, byte for byte, on every node';
  process.stdout.write(`${violations.length === 0 ? good : 'FAILED'}\n`);
}

async function main(): Promise<number> {
  const { values } = readOptions('cluster', {
    options: {
      seconds: { type: 'string', default: '8' },
      gossip: { type: 'boolean', default: false },
      light: { type: 'boolean', default: false },
      seed: { type: 'string', default: String(randomInt(1, 2 ** 31)) },
      output: { type: 'string', short: 'o', default: 'table' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  if (![values.seconds, values.seed].every((text) => /^[1-9]\d*$/.test(text))) {
    process.stderr.write('cluster: --seconds and --seed take whole numbers from 1\n');
    return 2;
  }
  const isJson = values.output === 'json';
  const progress = terminalProgress();
  const tell = (text: string): void => {
    progress.clear();
    (isJson ? process.stderr : process.stdout).write(`${text}\n`);
  };
  const say = (text: string): void => progress.say(text);
  const size = values.light ? LIGHT_LOAD : LOAD_SIZE;
  const numbers = { seconds: Number(values.seconds), seed: Number(values.seed) };
  const outcome = await demo({ ...numbers, size, gossips: values.gossip, say, tell });
  progress.clear();
  if (isJson) process.stdout.write(`${JSON.stringify(outcome, null, 2)}\n`);
  else print(outcome);
  return violationsOf(outcome.verdict).length === 0 ? 0 : 1;
}

endWithReader();
process.exitCode = await main().catch((error: unknown) => {
  const isExplained = error instanceof ServerMissing;
  process.stderr.write(`cluster: ${isExplained ? error.message : ((error as Error).stack ?? String(error))}\n`);
  if ((error as Error).cause instanceof Error) process.stderr.write(`${((error as Error).cause as Error).message}\n`);
  return 1;
});
