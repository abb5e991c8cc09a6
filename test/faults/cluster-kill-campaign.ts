/** kill -9 of leaders, followers and of all nodes at once, under load through all of them. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import type { ClusterNode } from '../support/cluster.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { type ClusterCampaign, runClusterCampaign, type Step, type StepOutcome } from './cluster-campaign.ts';
import type { ClusterRig } from './cluster-rig.ts';
import { shuffled } from './shuffled.ts';

type Victim = 'leader' | 'follower' | 'all';

/** Of 30 steps 20 are on leaders, 6 on followers and 4 on all: 300 are 200, 60 and 40. */
const VICTIMS: readonly Victim[] = [
  ...Array<Victim>(20).fill('leader'),
  ...Array<Victim>(6).fill('follower'),
  ...Array<Victim>(4).fill('all'),
];
/** 300 steps and the ends of their parts make more than a million. */
const ACKED_PER_STEP = 3_400;

function planKills(seed: number, runs: number): Step[] {
  const prng = new Prng(seed);
  const deck: Victim[] = [];
  return Array.from({ length: runs }, () => {
    if (deck.length === 0) deck.push(...shuffled(VICTIMS, prng));
    // A short run has at least leaders.
    const victim = runs < VICTIMS.length ? (VICTIMS[prng.nextBelow(VICTIMS.length)] as Victim) : (deck.pop() as Victim);
    return killStep(victim, {
      which: prng.nextUint32(),
      isBackAtOnce: prng.chance(1, 3),
      delayMs: prng.nextBelow(300),
    });
  });
}

interface KillDetails {
  readonly which: number;
  /** It starts again while the others are without a leader still. */
  readonly isBackAtOnce: boolean;
  /** Puts the kill anywhere between two acknowledgements. */
  readonly delayMs: number;
}

export function killStep(victim: Victim, details: KillDetails): Step {
  const when = details.isBackAtOnce ? ', back at once' : '';
  return {
    kind: victim === 'all' ? 'all nodes' : victim,
    about: `kill -9 of ${victim === 'all' ? 'all nodes' : `a ${victim}`}${when}`,
    run: async (rig) => {
      await sleep(details.delayMs);
      return victim === 'all' ? killAll(rig) : killOne(rig, victim, details);
    },
  };
}

async function killAll(rig: ClusterRig): Promise<StepOutcome> {
  const { cluster } = rig;
  const at = performance.now();
  await cluster.killAll();
  await cluster.startAll();
  await rig.answering(cluster.nodes, at);
  return { gapsMs: rig.gapsMs(cluster.nodes, at) };
}

async function killOne(
  rig: ClusterRig,
  victim: 'leader' | 'follower',
  { which, isBackAtOnce }: KillDetails,
): Promise<StepOutcome> {
  const { cluster } = rig;
  const leader = await cluster.untilLeader();
  const followers = cluster.nodes.filter((node) => node !== leader);
  const target = victim === 'leader' ? leader : (followers[which % followers.length] as ClusterNode);
  const others = cluster.nodes.filter((node) => node !== target);
  const at = performance.now();
  await target.kill();
  const back = isBackAtOnce || others.length === 0 ? cluster.startAll() : null;
  await rig.answering(others, at);
  const gapsMs = rig.gapsMs(others, at);
  await (back ?? cluster.startAll());
  await rig.answering(cluster.nodes, at);
  return { gapsMs: others.length === 0 ? rig.gapsMs(cluster.nodes, at) : gapsMs };
}

/** `nodes`: 1 for a rehearsal, in which "leader" and "all" are the lone node. */
export function clusterKills(nodes: number): ClusterCampaign {
  const plan = (seed: number, runs: number): Step[] =>
    nodes > 1
      ? planKills(seed, runs)
      : Array.from({ length: runs }, () => killStep('all', { which: 0, isBackAtOnce: true, delayMs: 50 }));
  return {
    name: 'cluster-kill',
    nodes,
    needsNetwork: false,
    stepsPerPart: VICTIMS.length,
    ackedPerStep: ACKED_PER_STEP,
    plan,
  };
}

export const runClusterKills = (options: CampaignOptions): Promise<CampaignResult> =>
  runClusterCampaign(clusterKills(3), options);

export const clusterKill: Campaign = {
  name: 'cluster-kill',
  about: 'three nodes on a database: kill -9 of leaders (2 of 3), followers and all at once, under load',
  defaultRuns: 300,
  hasStores: true,
  run: runClusterKills,
};
