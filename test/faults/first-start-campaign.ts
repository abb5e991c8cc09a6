/** [G3] First starts of three nodes that find each other by gossip: in any order, killed and cut off on the way, one cluster each time. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import type { ClusterNetwork, Cut } from '../support/network.ts';
import { isUsable } from '../support/tools.ts';
import { until } from '../support/until.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { openPlace } from './cluster-campaign.ts';

const NODES = 3;
/** Longest time between the first and the last start, and until a fault, in ms: a start without faults takes about as long. */
const SPREAD_MS = 3_000;
const CUT_MS = 4_000;
const PATIENCE_MS = 60_000;

export type Fault = 'none' | 'kill' | 'kill two' | 'kill all' | 'cut';
const FAULTS: readonly Fault[] = ['none', 'kill', 'kill two', 'kill all'];

export interface FirstStart {
  readonly fault: Fault;
  /** Cluster ids that the nodes have at the end: one, if all is well. */
  readonly clusterIds: readonly string[];
  readonly voters: number;
  /** From the last start or the end of the fault to the moment when all are voters. */
  readonly ms: number;
}

/** `serverFlags`: of an empty database. */
export async function firstStart(
  prng: Prng,
  {
    fault,
    storeFlags,
    network = null,
  }: { fault: Fault; storeFlags: readonly string[]; network?: ClusterNetwork | null },
): Promise<FirstStart> {
  await using cluster = await Cluster.create({ nodes: NODES, storeFlags, network, gossips: true });
  const order = shuffled(prng, cluster.nodes);
  if (fault === 'cut') network?.set({ cuts: cutsOf(prng) });
  const starts = order.map(async (node) => {
    await sleep(prng.nextBelow(SPREAD_MS));
    // A start that is killed on the way is started again below.
    await node.broker.restart().catch(() => undefined);
  });
  const victims = order.slice(0, fault === 'kill' ? 1 : fault === 'kill two' ? 2 : fault === 'kill all' ? NODES : 0);
  const kills = victims.map(async (node) => {
    await sleep(prng.nextBelow(2 * SPREAD_MS));
    if (node.broker.running) await node.broker.kill();
  });
  if (fault === 'cut') {
    await sleep(CUT_MS);
    network?.set();
  }
  await Promise.all(kills);
  const at = performance.now();
  await Promise.all(
    victims.map(async ({ broker }, index) => {
      // One whose kill came before its start still waits for the others, which are only started again here.
      if (broker.running) return;
      await starts[index];
      if (!broker.running) await broker.restart();
    }),
  );
  await Promise.all(starts);
  await until(
    async () => {
      await cluster.startAll().catch(() => undefined);
      return cluster.nodes.every(({ broker }) => broker.running);
    },
    () => `not all run; logs in ${cluster.keep()}`,
    PATIENCE_MS,
  );
  try {
    await cluster.untilVoters();
  } catch (error) {
    throw new Error(`logs in ${cluster.keep()}`, { cause: error });
  }
  const ms = performance.now() - at;
  const views = await Promise.all(cluster.nodes.map((node) => node.members(30_000)));
  const clusterIds = [...new Set(views.map(({ clusterId }) => clusterId))];
  const voters = Math.min(...views.map(({ members }) => members.filter(({ role }) => role === 'voter').length));
  return { fault, clusterIds, voters, ms };
}

/** One node apart from the others, in one or both directions. */
function cutsOf(prng: Prng): Cut[] {
  const lone = prng.nextBelow(NODES);
  const others = [0, 1, 2].filter((node) => node !== lone);
  const cuts = others.map((to) => ({ from: lone, to }));
  return prng.chance(1, 2) ? cuts : [...cuts, ...others.map((from) => ({ from, to: lone }))];
}

function shuffled(prng: Prng, nodes: readonly ClusterNode[]): ClusterNode[] {
  const left = [...nodes];
  return nodes.map(() => left.splice(prng.nextBelow(left.length), 1)[0] as ClusterNode);
}

async function run({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const prng = new Prng(seed);
  const hasNetwork = isUsable('namespaces');
  const found: FirstStart[] = [];
  await using place = await openPlace({ needsNetwork: hasNetwork, store: 'postgres', nodes: NODES });
  for (let round = 0; round < runs; round += 1) {
    const fault: Fault = hasNetwork && round % 5 === 4 ? 'cut' : (FAULTS[prng.nextBelow(FAULTS.length)] as Fault);
    onProgress(round, runs, `fault: ${fault}`);
    found.push(await firstStart(prng, { fault, storeFlags: place.storeFlags(), network: place.network }));
  }
  const violations = found.flatMap(({ fault, clusterIds, voters }, round) => [
    ...(clusterIds.length === 1 ? [] : [`round ${round} (${fault}): clusters ${clusterIds.join()}`]),
    ...(voters === NODES ? [] : [`round ${round} (${fault}): ${voters} voters`]),
  ]);
  const rows = [...FAULTS, 'cut' as const].map((fault) => {
    const times = found.filter((one) => one.fault === fault).map(({ ms }) => ms);
    times.sort((a, b) => a - b);
    const at = (share: number): number => Math.round(times[Math.floor((times.length - 1) * share)] ?? 0);
    return {
      fault,
      'first starts': times.length,
      'one cluster': found.filter((one) => one.fault === fault && one.clusterIds.length === 1).length,
      'ms to three voters, median': at(0.5),
      most: at(1),
    };
  });
  return { rows, violations, notes: hasNetwork ? [] : ['no network namespaces here: nothing was cut off'] };
}

export const firstStarts: Campaign = {
  name: 'first-starts',
  about: 'three nodes that find each other by gossip are started for the first time, killed and cut off on the way',
  defaultRuns: 200,
  run,
};
