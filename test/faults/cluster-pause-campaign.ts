/** SIGSTOP of leaders, followers and all nodes for 1 to 10 election timeouts, now and then for up to 60, then SIGCONT: who comes back late changes no verdict. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import type { ClusterNode } from '../support/cluster.ts';
import type { Campaign } from './campaign.ts';
import { type ClusterCampaign, runClusterCampaign, type Step, type StepOutcome } from './cluster-campaign.ts';
import { type ClusterRig, ELECTION_TIMEOUT_MS } from './cluster-rig.ts';

type Target = 'leader' | 'follower' | 'all';

/** In turn. */
const TARGETS: readonly Target[] = ['leader', 'leader', 'leader', 'leader', 'follower', 'all'];
const LONGEST_ET = 10;
/** Of so many steps one is of up to LONG_ET: more than a connection that nobody answers is kept. */
const LONG_EVERY = 7;
const LONG_ET = 60;
const STEPS_PER_PART = 20;
const ACKED_PER_STEP = 500;

interface PauseDetails {
  readonly which: number;
  readonly pauseMs: number;
}

export function pauseStep(target: Target, { which, pauseMs }: PauseDetails): Step {
  return {
    kind: target === 'all' ? 'all nodes' : target,
    about: `SIGSTOP of ${target === 'all' ? 'all nodes' : `a ${target}`} for ${(pauseMs / ELECTION_TIMEOUT_MS).toFixed(1)} ET`,
    run: async (rig) => {
      const { cluster } = rig;
      const leader = await cluster.untilLeader();
      const followers = cluster.nodes.filter((node) => node !== leader);
      if (target === 'all') return pauseNodes(rig, cluster.nodes, pauseMs);
      return pauseNodes(rig, [target === 'leader' ? leader : (followers[which % followers.length] ?? leader)], pauseMs);
    },
  };
}

async function pauseNodes(rig: ClusterRig, paused: readonly ClusterNode[], pauseMs: number): Promise<StepOutcome> {
  const { cluster } = rig;
  const others = cluster.nodes.filter((node) => !paused.includes(node));
  const at = performance.now();
  for (const node of paused) node.pause();
  try {
    await sleep(pauseMs);
  } finally {
    for (const node of paused) node.resume();
  }
  const resumedAt = performance.now();
  await rig.answering(cluster.nodes, resumedAt);
  return { gapsMs: rig.gapsMs(others, at), healMs: performance.now() - resumedAt };
}

function plan(seed: number, runs: number): Step[] {
  const prng = new Prng(seed);
  return Array.from({ length: runs }, (_, run) => {
    const longestEt = run % LONG_EVERY === LONG_EVERY - 1 ? LONG_ET : LONGEST_ET;
    const pauseMs = ELECTION_TIMEOUT_MS + prng.nextBelow((longestEt - 1) * ELECTION_TIMEOUT_MS);
    return pauseStep(TARGETS[run % TARGETS.length] as Target, { which: prng.nextUint32(), pauseMs });
  });
}

export const CLUSTER_PAUSES: ClusterCampaign = {
  name: 'cluster-pause',
  nodes: 3,
  needsNetwork: false,
  stepsPerPart: STEPS_PER_PART,
  ackedPerStep: ACKED_PER_STEP,
  plan,
};

export const clusterPause: Campaign = {
  name: 'cluster-pause',
  about:
    'three nodes on a database: leaders, followers and all are stopped for 1 to 10 election timeouts, one of 7 up to 60, under load',
  defaultRuns: 60,
  hasStores: true,
  run: (options) => runClusterCampaign(CLUSTER_PAUSES, options),
};
