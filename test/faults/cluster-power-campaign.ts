/** The power of one node, of a minority and of all at once is cut under load: each node has an ext4 of its own, the database stays. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../src/base/prng.ts';
import { isUsable } from '../support/tools.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { type ClusterCampaign, renewed, runClusterCampaign, type Step, type StepOutcome } from './cluster-campaign.ts';
import { LIGHT_LOAD } from './cluster-load.ts';
import { type ClusterRig, ELECTION_TIMEOUT_MS } from './cluster-rig.ts';
import { CutDisks, startAgain } from './cut-disks.ts';
import { nats7567 } from './nats-7567-campaign.ts';

export type CutTarget = 'leader' | 'follower' | 'all';

/** In turn: in a cluster of three one node is the largest minority. */
const TARGETS: readonly CutTarget[] = ['leader', 'all', 'follower', 'leader', 'all'];
const STEPS_PER_PART = 25;
const ACKED_PER_STEP = 1_000;
/** A node goes on for up to that long on a disk that is gone. */
const DYING_MS = 600;

interface CutDetails {
  readonly which: number;
  readonly delayMs: number;
  readonly dyingMs: number;
}

export function cutStep(disks: () => CutDisks, target: CutTarget, details: CutDetails): Step {
  return {
    kind: target === 'all' ? 'all nodes' : target,
    about: `power cut of ${target === 'all' ? 'all nodes' : `a ${target}`}`,
    run: async (rig) => {
      await disks().settleUnsynced(rig);
      await sleep(details.delayMs);
      const leader = await rig.cluster.untilLeader();
      const followers = rig.cluster.nodes.filter((node) => node !== leader);
      if (target === 'all') return cutNodes(rig, disks(), rig.cluster.nodes, details);
      return cutNodes(rig, disks(), [target === 'leader' ? leader : (followers[details.which % 2] ?? leader)], details);
    },
  };
}

async function cutNodes(
  rig: ClusterRig,
  disks: CutDisks,
  targets: ClusterRig['cluster']['nodes'],
  { dyingMs }: CutDetails,
): Promise<StepOutcome> {
  const { nodes } = rig.cluster;
  const others = nodes.filter((node) => !targets.includes(node));
  const at = performance.now();
  await disks.cut(rig, targets, dyingMs);
  await rig.answering(others, at);
  const gapsMs = rig.gapsMs(others, at);
  const restoredAt = performance.now();
  const broken = await startAgain(targets);
  if (broken !== null) return { gapsMs, broken };
  await rig.answering(nodes, restoredAt);
  const healMs = performance.now() - restoredAt;
  return { gapsMs: others.length === 0 ? rig.gapsMs(nodes, at) : gapsMs, healMs };
}

/** `unsynced`: nodes whose syncs only say that they were done; then it must lose messages. */
export function clusterPowerCuts({ unsynced = [] }: { readonly unsynced?: readonly number[] } = {}): ClusterCampaign & {
  readonly disks: () => CutDisks;
} {
  const { equip, present: disks } = renewed(() => new CutDisks({ nodes: 3, unsynced }));
  return {
    name: 'cluster-power',
    nodes: 3,
    needsNetwork: false,
    stepsPerPart: STEPS_PER_PART,
    ackedPerStep: ACKED_PER_STEP,
    size: LIGHT_LOAD,
    disks,
    equip,
    plan: (seed, runs) => {
      const prng = new Prng(seed);
      return Array.from({ length: runs }, (_, run) =>
        cutStep(disks, TARGETS[run % TARGETS.length] as CutTarget, {
          which: prng.nextBelow(2),
          delayMs: prng.nextBelow(ELECTION_TIMEOUT_MS / 2),
          dyingMs: prng.chance(1, 2) ? 0 : prng.nextBelow(DYING_MS),
        }),
      );
    },
  };
}

function run(options: CampaignOptions): Promise<CampaignResult> {
  if (!isUsable('loop-devices')) {
    const how = 'needs root on Linux with losetup, mkfs.ext4 and python3';
    return Promise.resolve({ rows: [], violations: [`it did not run: it ${how}`], notes: [] });
  }
  const unsynced = options.isUnsynced === true ? [0, 1, 2, 3, 4] : [];
  const campaign = options.schedule === 'nats-7567' ? nats7567({ unsynced }) : clusterPowerCuts({ unsynced });
  return runClusterCampaign(campaign, options);
}

export const clusterPower: Campaign = {
  name: 'cluster-power',
  about: 'three nodes on disks of their own: power cuts of leaders, followers and all at once, under load (root)',
  defaultRuns: 200,
  schedules: ['nats-7567'],
  canBeUnsynced: true,
  run,
};
