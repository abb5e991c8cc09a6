/** Links between the nodes are cut, in one direction or both, or lose a part of what they carry; clients and the database are reached by all. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import type { ClusterNode } from '../support/cluster.ts';
import type { ClusterNetwork, Cut } from '../support/network.ts';
import { isUsable } from '../support/tools.ts';
import type { Campaign } from './campaign.ts';
import { type ClusterCampaign, runClusterCampaign, type Step } from './cluster-campaign.ts';
import { type ClusterRig, ELECTION_TIMEOUT_MS } from './cluster-rig.ts';
import { shuffled } from './shuffled.ts';

const STEPS_PER_PART = 24;
const ACKED_PER_STEP = 500;

type Fault = Parameters<ClusterNetwork['set']>[0] & {
  /** Nodes that keep a majority that hears each other both ways: they must go on. */
  readonly majority: readonly ClusterNode[];
};

/** The leader and the two others. */
type Shape = (leader: ClusterNode, one: ClusterNode, other: ClusterNode) => Fault;

const both = (a: ClusterNode, b: ClusterNode): Cut[] => [...oneWay(a, b), ...oneWay(b, a)];
const oneWay = (from: ClusterNode, to: ClusterNode): Cut[] => [{ from: from.index, to: to.index }];

export const SHAPES = {
  'leader alone': (leader, one, other) => ({
    cuts: [...both(leader, one), ...both(leader, other)],
    majority: [one, other],
  }),
  'follower alone': (leader, one, other) => ({
    cuts: [...both(one, leader), ...both(one, other)],
    majority: [leader, other],
  }),
  'all alone': (leader, one, other) => ({
    cuts: [...both(leader, one), ...both(leader, other), ...both(one, other)],
    majority: [],
  }),
  'leader unheard': (leader, one, other) => ({
    cuts: [...oneWay(leader, one), ...oneWay(leader, other)],
    majority: [one, other],
  }),
  'leader deaf': (leader, one, other) => ({
    cuts: [...oneWay(one, leader), ...oneWay(other, leader)],
    majority: [one, other],
  }),
  bridge: (leader, one, other) => ({ cuts: both(leader, one), majority: [leader, other] }),
  'loss 1 %': () => ({ lossPercent: 1, majority: [] }),
  'loss 5 %': () => ({ lossPercent: 5, majority: [] }),
  'loss 20 %': () => ({ lossPercent: 20, majority: [] }),
} satisfies Readonly<Record<string, Shape>>;

export type ShapeName = keyof typeof SHAPES;

export function partitionStep(name: ShapeName, { which, lastsMs }: { which: number; lastsMs: number }): Step {
  return {
    kind: name,
    about: `${name} for ${(lastsMs / ELECTION_TIMEOUT_MS).toFixed(1)} ET`,
    run: async (rig) => {
      const leader = await rig.cluster.untilLeader();
      const followers = rig.cluster.nodes.filter((node) => node !== leader);
      const one = followers[which % 2] as ClusterNode;
      const other = followers[(which + 1) % 2] as ClusterNode;
      const fault = (SHAPES[name] as Shape)(leader, one, other);
      const network = rig.network as ClusterNetwork;
      const termBefore = await termOf(rig);
      const at = performance.now();
      network.set(fault);
      try {
        await sleep(lastsMs);
      } finally {
        network.set();
      }
      const healedAt = performance.now();
      await rig.answering(rig.cluster.nodes, healedAt);
      const gapsMs = rig.gapsMs(fault.lossPercent === undefined ? fault.majority : rig.cluster.nodes, at, healedAt);
      const elections = (await termOf(rig)) - termBefore;
      return { gapsMs, healMs: performance.now() - healedAt, elections };
    },
  };
}

/** Of a swizzle: between one node and the next, at most. */
const SWIZZLE_MS = ELECTION_TIMEOUT_MS;

/**
 * Swizzle-clog: node after node is cut off from the others, in one order, and let in again in another. For a while some are cut off from each
 * other that each hear a third.
 */
export function swizzleStep(seed: number): Step {
  return {
    kind: 'swizzle-clog',
    about: `swizzle-clog ${seed}`,
    run: async (rig) => {
      const prng = new Prng(seed);
      const { nodes } = rig.cluster;
      const network = rig.network as ClusterNetwork;
      const termBefore = await termOf(rig);
      const chosen = shuffled(nodes, prng).slice(0, 1 + prng.nextBelow(nodes.length));
      const clogged = new Set<ClusterNode>();
      const show = async (): Promise<void> => {
        network.set({ cuts: cutsOf(clogged, nodes) });
        await sleep(prng.nextBelow(SWIZZLE_MS));
      };
      const at = performance.now();
      try {
        for (const node of chosen) {
          clogged.add(node);
          await show();
        }
        for (const node of shuffled(chosen, prng)) {
          clogged.delete(node);
          await show();
        }
      } finally {
        network.set();
      }
      const healedAt = performance.now();
      await rig.answering(nodes, healedAt);
      // Of nodes that were a majority all the time there may be none.
      const gapsMs = chosen.length * 2 < nodes.length ? rig.gapsMs(others(nodes, chosen), at, healedAt) : [];
      return { gapsMs, healMs: performance.now() - healedAt, elections: (await termOf(rig)) - termBefore };
    },
  };
}

/** Every link of these nodes, both ways. */
function cutsOf(clogged: ReadonlySet<ClusterNode>, nodes: readonly ClusterNode[]): Cut[] {
  return [...clogged].flatMap((node) => nodes.flatMap((other) => (other === node ? [] : both(node, other))));
}

function others(nodes: readonly ClusterNode[], without: readonly ClusterNode[]): ClusterNode[] {
  return nodes.filter((node) => !without.includes(node));
}

/** The newest term that a node knows. */
export async function termOf(rig: ClusterRig): Promise<number> {
  const answers = await Promise.all(rig.cluster.nodes.map((node) => node.members(10_000)));
  return Math.max(...answers.map(({ term }) => term));
}

function plan(seed: number, runs: number): Step[] {
  const prng = new Prng(seed);
  const names = Object.keys(SHAPES) as ShapeName[];
  return Array.from({ length: runs }, (_, run) => {
    const lastsMs = ELECTION_TIMEOUT_MS + prng.nextBelow(5 * ELECTION_TIMEOUT_MS);
    const which = prng.nextBelow(2);
    const turn = run % (names.length + 1);
    return turn === names.length
      ? swizzleStep(prng.nextUint32())
      : partitionStep(names[turn] as ShapeName, { which, lastsMs });
  });
}

export const CLUSTER_PARTITIONS: ClusterCampaign = {
  name: 'cluster-partition',
  nodes: 3,
  needsNetwork: true,
  stepsPerPart: STEPS_PER_PART,
  ackedPerStep: ACKED_PER_STEP,
  plan,
};

export const clusterPartition: Campaign = {
  name: 'cluster-partition',
  about:
    'three nodes in network namespaces: cuts in one direction and both, bridges, swizzle-clog, and loss of 1, 5 and 20 %, under load',
  defaultRuns: 100,
  run: async (options) => {
    if (!isUsable('namespaces')) {
      const how = 'needs root on Linux with ip, nft and nsenter (in Debian: iproute2, nftables, util-linux)';
      return { rows: [], violations: [`it did not run: it ${how}`], notes: [] };
    }
    return runClusterCampaign(CLUSTER_PARTITIONS, options);
  },
};
