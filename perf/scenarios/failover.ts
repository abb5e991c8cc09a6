/** How long clients wait when nodes are killed, hand over the lead, and are restarted one after another. */
import { WriteLoad } from '../cluster/write-load.ts';
import { Cluster, type Node } from '../lib/nodes.ts';
import type { Options } from '../lib/options.ts';
import type { Progress } from '../lib/progress.ts';
import type { Figure, Finding } from '../lib/report.ts';
import type { Scenario } from '../lib/scenario.ts';
import { startStoreServer } from '../stores/server.ts';

const PINNED = 2;
const ROAMING = 3;
const SUBJECTS = 4;
const TRANSFERS = 5;
/** How long a kill is looked at before the node is started again, in election timeouts. */
const LOOK_TIMEOUTS = 6;
const TRANSFER_LOOK_TIMEOUTS = 1;
const ELECTION_MS = 1_000;

/** `raft.election_timeout` of the flags behind `--`, or its default. */
function electionMs(flags: readonly string[]): number {
  const at = flags.indexOf('--raft-election-timeout');
  const match = /^(\d+)(ms|s)$/.exec(flags[at + 1] ?? '');
  if (at < 0 || match === null) return ELECTION_MS;
  return Number(match[1]) * (match[2] === 's' ? 1_000 : 1);
}

/** Of sorted or unsorted values; 0 of none. */
function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
}

interface Gaps {
  /** Of writers on the other nodes, and of those that take any node: a call of theirs may be in the hands of the dead one. */
  readonly write: number[];
  readonly roaming: number[];
  readonly delivery: number[];
}

class Trial {
  readonly leaders: Gaps = { write: [], roaming: [], delivery: [] };
  readonly followers: Gaps = { write: [], roaming: [], delivery: [] };
  readonly transfers: number[] = [];
  transferRepeats = 0;
  restartGap = 0;
  readonly #cluster: Cluster;
  readonly #load: WriteLoad;
  readonly #timeoutMs: number;

  constructor(cluster: Cluster, load: WriteLoad, timeoutMs: number) {
    this.#cluster = cluster;
    this.#load = load;
    this.#timeoutMs = timeoutMs;
  }

  async kill(target: Node, gaps: Gaps): Promise<void> {
    const others = this.#cluster.nodes.filter((node) => node !== target);
    const from = performance.now();
    await target.broker.kill();
    await sleep(LOOK_TIMEOUTS * this.#timeoutMs);
    const to = performance.now();
    gaps.write.push(this.#load.writeGap(others, from, to) / this.#timeoutMs);
    gaps.roaming.push(this.#load.writeGap(null, from, to) / this.#timeoutMs);
    gaps.delivery.push(this.#load.deliveryGap(others, from, to) / this.#timeoutMs);
    await this.#bring(target);
  }

  async #bring(target: Node): Promise<void> {
    await target.broker.restart();
    await this.#load.back(target);
    await this.#cluster.untilWhole();
    await sleep(this.#timeoutMs / 2);
  }

  #longest(from: number): number {
    const to = performance.now();
    return Math.max(this.#load.writeGap(this.#cluster.nodes, from, to), this.#load.writeGap(null, from, to));
  }

  async follower(turn: number): Promise<Node> {
    const leader = await this.#cluster.leader();
    return this.#cluster.nodes.filter((node) => node !== leader)[turn % 2] as Node;
  }

  async transfer(): Promise<void> {
    const leader = await this.#cluster.leader();
    const repeats = this.#load.repeats + this.#load.failures.surfaced;
    const from = performance.now();
    await this.#cluster.transfer(leader);
    await this.#cluster.membersUntil((found) => found.leader !== '' && found.leader !== leader.nodeId);
    await sleep(TRANSFER_LOOK_TIMEOUTS * this.#timeoutMs);
    this.transfers.push(this.#longest(from) / this.#timeoutMs);
    this.transferRepeats += this.#load.repeats + this.#load.failures.surfaced - repeats;
    await this.#cluster.untilWhole();
  }

  async rollingRestart(): Promise<void> {
    for (const node of this.#cluster.nodes) {
      const from = performance.now();
      await node.broker.stop();
      await this.#bring(node);
      const others = this.#cluster.nodes.filter((other) => other !== node);
      const gap = Math.max(
        this.#load.writeGap(others, from, performance.now()),
        this.#load.writeGap(null, from, performance.now()),
      );
      this.restartGap = Math.max(this.restartGap, gap / this.#timeoutMs);
    }
  }
}

function gapFigures(
  name: string,
  key: string,
  values: readonly number[],
  goals: Record<string, Figure['goal']>,
): Figure[] {
  if (values.length === 0) return [];
  return (['p50', 'p99', 'max'] as const).map((which) => {
    const share = which === 'p50' ? 0.5 : which === 'p99' ? 0.99 : 1;
    const goal = goals[which];
    return {
      name: `${name}: ${which}`,
      key: `${key}-${which}`,
      unit: 'ET',
      subject: [quantile(values, share)],
      ...(goal === undefined ? {} : { goal }),
    };
  });
}

const lower = (must: number, aim: number): Figure['goal'] => ({ better: 'lower', must, aim });

async function measure(options: Options, progress: Progress): Promise<Finding> {
  const { kills, shards, serveFlags, store } = options;
  const timeoutMs = electionMs(serveFlags);
  progress.say(`starting ${store} and three nodes`);
  const server = await startStoreServer(store);
  try {
    const flags = [...server.flags, ...serveFlags];
    const cluster = await Cluster.start({ shards, cpuProfileDir: null, flags });
    const load = new WriteLoad(cluster.nodes, { pinned: PINNED, roaming: ROAMING, subjects: SUBJECTS });
    try {
      await sleep(options.warmupMs);
      const trial = new Trial(cluster, load, timeoutMs);
      for (let i = 0; i < TRANSFERS; i++) {
        progress.say(`transfer ${i + 1}/${TRANSFERS}`);
        await trial.transfer();
      }
      for (let i = 0; i < kills; i++) {
        progress.say(`leader ${i + 1}/${kills}`);
        await trial.kill(await cluster.leader(), trial.leaders);
        if (i % 2 === 1) continue;
        progress.say(`follower ${i / 2 + 1}/${Math.ceil(kills / 2)}`);
        await trial.kill(await trial.follower(i / 2), trial.followers);
      }
      progress.say('rolling restart');
      const finalBefore = load.failures.final;
      await trial.rollingRestart();
      const rollingFinal = load.failures.final - finalBefore;
      progress.say('reading back');
      const found = await load.end();
      progress.clear();
      const one = (name: string, key: string, value: number, goal?: Figure['goal']): Figure => ({
        name,
        key,
        unit: '',
        subject: [value],
        ...(goal === undefined ? {} : { goal }),
      });
      return {
        scenario: 'failover',
        setting: `${store}, ${kills} leaders and ${trial.followers.write.length} followers killed with -9, ${TRANSFERS} transfers, a rolling restart; ${PINNED} writers that keep to a node for each and ${ROAMING} that take any, one call at a time each, on ${SUBJECTS} subjects; ET = ${timeoutMs} ms`,
        figures: [
          ...gapFigures('leader killed, longest wait of a writer on another node', 'write', trial.leaders.write, {
            p50: lower(1.6, 1.35),
            p99: lower(3, 2.2),
            max: lower(5, 3),
          }),
          ...gapFigures('follower killed, longest wait of a reader elsewhere', 'delivery', trial.followers.delivery, {
            p99: lower(3, 2.2),
          }),
          ...gapFigures(
            'leader killed, longest wait of a reader elsewhere',
            'delivery-leader',
            trial.leaders.delivery,
            {},
          ),
          ...gapFigures(
            'leader killed, longest wait of a writer that takes any node',
            'roaming',
            trial.leaders.roaming,
            {},
          ),
          ...gapFigures(
            'follower killed, longest wait of a writer on another node',
            'write-follower',
            trial.followers.write,
            {},
          ),
          ...gapFigures(
            'follower killed, longest wait of a writer that takes any node',
            'roaming-follower',
            trial.followers.roaming,
            {},
          ),
          ...gapFigures('transfer, longest wait of a writer', 'transfer', trial.transfers, { max: lower(0.5, 0.5) }),
          one('transfers: calls refused or sent again', 'transfer-repeats', trial.transferRepeats, lower(0, 0)),
          {
            name: 'rolling restart, longest wait of a writer',
            key: 'restart',
            unit: 'ET',
            subject: [trial.restartGap],
          },
          one('rolling restart: errors that are not retryable', 'restart-errors', rollingFinal, lower(0, 0)),
          one('errors behind the client’s retries, of all', 'errors', load.failures.surfaced),
          one('acknowledged', 'acknowledged', found.acknowledged),
          one('acknowledged and lost', 'lost', found.lost, lower(0, 0)),
          one('doubled', 'doubled', found.doubled, lower(0, 0)),
        ],
        notes: [
          'waits are of the one that waited longest, from its last answer or delivery before the event',
          ...[...load.failures.reasons].map(([reason, count]) => `${count} x ${reason}`),
        ],
      };
    } finally {
      await load.close();
      await cluster.stop();
    }
  } finally {
    await server.stop();
    progress.clear();
  }
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export const failover: Scenario = {
  name: 'failover',
  about: 'how long clients wait when nodes are killed, hand over the lead and are restarted; nothing lost or doubled',
  defaults: { warmupMs: 2_000 },
  examples: ['npm run perf -- failover --kills 6', 'npm run perf -- failover --kills 200'],
  run: measure,
};
