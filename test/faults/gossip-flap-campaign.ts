/** [P9, G1] Nodes of a cluster come and go for gossip, again and again; who votes never changes. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { Cluster, type ClusterNode } from '../support/cluster.ts';
import { isUsable } from '../support/tools.ts';
import { until } from '../support/until.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { openPlace } from './cluster-campaign.ts';

const NODES = 3;
/** Longer than the suspicion of three nodes. */
const FLAP_MS = 6_000;
const LOOK_MS = 250;
const PATIENCE_MS = 60_000;

type Flap = 'SIGSTOP' | 'alone' | 'half the packets lost';

interface Flapped {
  readonly flap: Flap;
  /** Views of others in which it was called suspect or failed meanwhile. */
  readonly called: number;
  readonly backMs: number;
}

interface View {
  /** Every voter with its instance, as text: what must not change. */
  readonly voters: string;
  /** How gossip calls each node. */
  readonly seen: ReadonlyMap<string, string>;
}

/** Null: the node does not answer now. */
async function viewOf(node: ClusterNode): Promise<View | null> {
  const view = await node.members().catch(() => null);
  if (view === null) return null;
  const voters = view.members.filter(({ role }) => role === 'voter');
  return {
    voters: voters
      .map(({ nodeId, instanceId }) => `${nodeId}/${instanceId}`)
      .sort()
      .join(),
    seen: new Map(view.seen.map(({ nodeId, status }) => [nodeId, status])),
  };
}

function isAllAlive({ seen }: View): boolean {
  return [...seen.values()].filter((status) => status === 'alive').length === NODES;
}

async function run({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const prng = new Prng(seed);
  const hasNetwork = isUsable('namespaces');
  const flaps: readonly Flap[] = hasNetwork ? ['SIGSTOP', 'SIGSTOP', 'alone', 'half the packets lost'] : ['SIGSTOP'];
  await using place = await openPlace({ needsNetwork: hasNetwork, store: 'postgres', nodes: NODES });
  const { network } = place;
  await using cluster = await Cluster.create({
    nodes: NODES,
    storeFlags: place.storeFlags(),
    network,
    gossips: true,
  });
  await cluster.startAll();
  await cluster.untilVoters();
  const expected = (await viewOf(cluster.nodes[0] as ClusterNode))?.voters;
  const violations = new Set<string>();
  const found: Flapped[] = [];
  let looks = 0;
  for (let round = 0; round < runs; round += 1) {
    const flap = flaps[round % flaps.length] as Flap;
    const victim = cluster.nodes[prng.nextBelow(NODES)] as ClusterNode;
    const others = cluster.nodes.filter((node) => node !== victim);
    onProgress(round, runs, `${victim.id}: ${flap}`);
    let called = 0;
    const look = async (): Promise<void> => {
      for (const node of others) {
        const view = await viewOf(node);
        if (view === null) continue;
        looks += 1;
        if (view.voters !== expected)
          violations.add(`round ${round} (${flap}): ${node.id} says ${view.voters}, not ${expected}`);
        const status = view.seen.get(victim.id);
        if (status === 'suspect' || status === 'failed') called += 1;
      }
    };
    const indexes = others.map(({ index }) => index);
    if (flap === 'SIGSTOP') victim.pause();
    else if (flap === 'alone')
      network?.set({
        cuts: indexes.flatMap((to) => [
          { from: victim.index, to },
          { from: to, to: victim.index },
        ]),
      });
    else network?.set({ lossPercent: 50 });
    const end = performance.now() + FLAP_MS;
    while (performance.now() < end) {
      await look();
      await sleep(LOOK_MS);
    }
    if (flap === 'SIGSTOP') victim.resume();
    else network?.set();
    const at = performance.now();
    await until(
      async () => {
        await look();
        const views = await Promise.all(cluster.nodes.map(viewOf));
        return views.every((view) => view !== null && view.voters === expected && isAllAlive(view));
      },
      () => `round ${round} (${flap}): not all are back; logs in ${cluster.keep()}`,
      PATIENCE_MS,
    );
    found.push({ flap, called, backMs: performance.now() - at });
  }
  const rows = [...new Set(flaps)].map((flap) => {
    const rounds = found.filter((one) => one.flap === flap);
    return {
      flap,
      flaps: rounds.length,
      'called suspect or failed': rounds.filter(({ called }) => called > 0).length,
      'back within s': (Math.max(0, ...rounds.map(({ backMs }) => backMs)) / 1_000).toFixed(1),
    };
  });
  return { rows, violations: [...violations], notes: [`${looks} looks at who votes`] };
}

export const gossipFlaps: Campaign = {
  name: 'gossip-flaps',
  about:
    'nodes of a cluster come and go for gossip: stopped for 6 s, cut off, half of all packets lost; who votes never changes',
  defaultRuns: 20,
  run,
};
