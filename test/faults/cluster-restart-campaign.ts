/** What operators do on purpose, under load: the lead is handed over, and one node after the other is stopped and started. */
import { setTimeout as sleep } from 'node:timers/promises';
import { CallError } from '../support/client.ts';
import type { ClusterNode } from '../support/cluster.ts';
import type { Campaign } from './campaign.ts';
import { type ClusterCampaign, runClusterCampaign, type Step, type StepOutcome } from './cluster-campaign.ts';
import type { ClusterRig } from './cluster-rig.ts';

const STEPS_PER_PART = 20;
const ACKED_PER_STEP = 500;
/** Of 10 steps one is a rolling restart. */
const RESTART_EVERY = 10;
/** Longest that clients need to notice a handover. */
const AFTER_TRANSFER_MS = 500;
const TRANSFER_MS_MAX = 60_000;
/** What a leader says that keeps the lead, or has lost it before it was asked. */
const TRY_AGAIN: ReadonlySet<string | null> = new Set(['MEMBER_LAGGING', 'NOT_LEADER', 'CHANGE_PENDING']);

/** Each node in turn: SIGTERM, start, and on to the next when all answer again. `onNode`: before each. */
export async function rollingRestart(
  rig: ClusterRig,
  onNode: (node: ClusterNode) => void = () => undefined,
): Promise<StepOutcome> {
  const gapsMs: number[] = [];
  for (const node of rig.cluster.nodes) {
    onNode(node);
    const others = rig.cluster.nodes.filter((other) => other !== node);
    const at = performance.now();
    await node.restart();
    await rig.answering(rig.cluster.nodes, performance.now());
    gapsMs.push(...rig.gapsMs(others, at));
  }
  return { gapsMs };
}

async function transfer(rig: ClusterRig): Promise<StepOutcome> {
  const at = performance.now();
  for (;;) {
    const leader = await rig.cluster.untilLeader();
    try {
      await leader.transferLeader();
      break;
    } catch (error) {
      // Whoever does not take over within an election timeout leaves the lead where it was: it is asked again.
      const isLate = error instanceof CallError && TRY_AGAIN.has(error.reason);
      if (!isLate || performance.now() - at > TRANSFER_MS_MAX) throw error;
      await sleep(100);
    }
  }
  await sleep(AFTER_TRANSFER_MS);
  await rig.answering(rig.cluster.nodes, performance.now());
  return { gapsMs: rig.gapsMs(rig.cluster.nodes, at) };
}

export const RESTART_STEP: Step = {
  kind: 'rolling restart',
  about: 'rolling restart',
  run: (rig) => rollingRestart(rig),
};
export const TRANSFER_STEP: Step = { kind: 'handover', about: 'the lead is handed over', run: transfer };

export const CLUSTER_RESTARTS: ClusterCampaign = {
  name: 'cluster-restart',
  nodes: 3,
  needsNetwork: false,
  stepsPerPart: STEPS_PER_PART,
  ackedPerStep: ACKED_PER_STEP,
  plan: (_seed, runs) =>
    Array.from({ length: runs }, (_, run) => (run % RESTART_EVERY === 0 ? RESTART_STEP : TRANSFER_STEP)),
};

export const clusterRestart: Campaign = {
  name: 'cluster-restart',
  about: 'three nodes on a database: the lead is handed over and all nodes are restarted in turn, under load',
  defaultRuns: 110,
  hasStores: true,
  run: (options) => runClusterCampaign(CLUSTER_RESTARTS, options),
};
