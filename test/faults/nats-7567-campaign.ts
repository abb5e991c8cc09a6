/**
 * The schedule of NATS issue 7567 (https://github.com/nats-io/nats-server/issues/7567; Jepsen on NATS 2.12.1), against us: can nodes that
 * know less than what was acknowledged be the first that form a majority, and go on without it? There it took one power cut, because what
 * was acknowledged was not on that node's disk yet; the streams of two groups of nodes were different ever after.
 *
 * In our words, with five voters under load, of which `a` and `b` are the slow ones, `c` the one that loses power, `d` and `e` those that know:
 *   1. All five are well, and what is acknowledged is on a majority.
 *   2. `a` and `b` are stopped (SIGSTOP): what follows they miss.
 *   3. `c`, `d` and `e`, just a majority, elect a leader if they need one, and acknowledge new messages.
 *   4. The power of `c` is cut: with it goes what it had not synced. `d` and `e` alone are no majority; nothing is acknowledged.
 *   5. `d` and `e`, the only others with all messages, are stopped, and `a` and `b` go on (SIGCONT).
 *   6. Power is back: `c` starts on what its disk kept, elects a leader with `a` and `b`, and the three acknowledge new messages. If its
 *      syncs were lies, here ids are given a second time.
 *   7. `d` and `e` go on, with a leader of an earlier term among them and their own idea of the log. All must come to one history, with every
 *      message that was acknowledged in 1, 3 and 6 in it, the same on each.
 */
import { Prng } from '../../src/base/prng.ts';
import type { ClusterNode } from '../support/cluster.ts';
import { type ClusterCampaign, renewed, type Step, type StepOutcome } from './cluster-campaign.ts';
import { LIGHT_LOAD } from './cluster-load.ts';
import type { ClusterRig } from './cluster-rig.ts';
import { CutDisks, startAgain } from './cut-disks.ts';

const NODES = 5;
const STEPS_PER_PART = 10;
const ACKED_PER_STEP = 200;
/** In steps 3 and 6. */
const ACKED_IN_A_STEP = 100;

/** `first`: whose turn it is to be `a`; who leads at the beginning has each of the parts now and then. */
export function nats7567Step(disks: () => CutDisks, first: number): Step {
  return {
    kind: 'NATS 7567',
    about: `the schedule of NATS 7567, n${(first % NODES) + 1} and the next stopped first`,
    run: (rig) => runSchedule(rig, disks(), first),
  };
}

async function runSchedule(rig: ClusterRig, disks: CutDisks, first: number): Promise<StepOutcome> {
  const { nodes } = rig.cluster;
  const [a, b, c, d, e] = nodes.map((_, index) => nodes[(first + index) % NODES] as ClusterNode) as [
    ClusterNode,
    ClusterNode,
    ClusterNode,
    ClusterNode,
    ClusterNode,
  ];
  await disks.settleUnsynced(rig);
  const at = performance.now();
  for (const node of [a, b]) node.pause();
  await rig.answering([c, d, e], at);
  await rig.loaded(ACKED_IN_A_STEP);
  await disks.cut(rig, [c]);
  for (const node of [d, e]) node.pause();
  for (const node of [a, b]) node.resume();
  const restoredAt = performance.now();
  const broken = await startAgain([c]);
  if (broken !== null) return { gapsMs: [], broken };
  await rig.answering([a, b, c], restoredAt);
  const gapsMs = rig.gapsMs([a, b, c], restoredAt);
  await rig.loaded(ACKED_IN_A_STEP);
  const resumedAt = performance.now();
  for (const node of [d, e]) node.resume();
  await rig.answering(nodes, resumedAt);
  const healMs = performance.now() - resumedAt;
  await rig.cluster.untilLeader();
  return { gapsMs, healMs };
}

/** `unsynced`: nodes whose syncs only say that they were done. */
export function nats7567({ unsynced = [] }: { readonly unsynced?: readonly number[] } = {}): ClusterCampaign & {
  readonly disks: () => CutDisks;
} {
  const { equip, present: disks } = renewed(() => new CutDisks({ nodes: NODES, unsynced }));
  return {
    name: 'cluster-power --schedule nats-7567',
    nodes: NODES,
    needsNetwork: false,
    stepsPerPart: STEPS_PER_PART,
    ackedPerStep: ACKED_PER_STEP,
    size: LIGHT_LOAD,
    flags: ['--raft-voters', String(NODES)],
    disks,
    equip,
    plan: (seed, runs) => {
      const prng = new Prng(seed);
      return Array.from({ length: runs }, () => nats7567Step(disks, prng.nextBelow(NODES)));
    },
  };
}
