/** The short form of `npm run faults -- cluster-kill`, and that its judges see what is wrong. */
import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import { requireTool } from '../support/tools.ts';
import type { ClusterCampaign, Step } from './cluster-campaign.ts';
import { clusterKills, killStep } from './cluster-kill-campaign.ts';
import { CLUSTER_PARTITIONS, partitionStep, swizzleStep } from './cluster-partition-campaign.ts';
import { pauseStep } from './cluster-pause-campaign.ts';
import { RESTART_STEP, TRANSFER_STEP } from './cluster-restart-campaign.ts';
import { ClusterRig, ELECTION_TIMEOUT_MS } from './cluster-rig.ts';
import { runShort } from './cluster-short.ts';

/** These steps on one cluster, judged. */
async function short(t: TestContext, campaign: ClusterCampaign, steps: readonly Step[]): Promise<void> {
  const { violations } = await runShort(t, campaign, steps);
  assert.deepEqual(violations, []);
}

const details = { which: 0, isBackAtOnce: false, delayMs: 10 };

test('[P1, P2, R11, R18, R25, R27, R30, S12] the lead is handed over, all nodes are restarted in turn, leaders, a follower and all are killed with -9 and stopped, under load: nothing acknowledged is lost or there twice', async (t) => {
  const refused = new Set<string>();
  /** What is done on purpose refuses no call without a delay. */
  const look: Step = {
    kind: 'look',
    about: 'refusals of what was done on purpose',
    run: (rig) => {
      for (const reason of rig.load.context.finalRefusals) refused.add(reason);
      return Promise.resolve({ gapsMs: [] });
    },
  };
  await short(t, clusterKills(3), [
    TRANSFER_STEP,
    RESTART_STEP,
    look,
    killStep('leader', details),
    killStep('leader', { ...details, isBackAtOnce: true }),
    killStep('follower', details),
    killStep('all', details),
    // What the stopped one acknowledges late must not have been voided meanwhile.
    pauseStep('leader', { which: 0, pauseMs: 3 * ELECTION_TIMEOUT_MS }),
    pauseStep('all', { which: 0, pauseMs: 1.5 * ELECTION_TIMEOUT_MS }),
    killStep('leader', details),
  ]);
  assert.deepEqual([...refused], []);
});

test('a leader that is cut off, one that is not heard, swizzle-clog and loss: who has a majority goes on, and all do when it is over', async (t) => {
  if (!requireTool(t, 'namespaces')) return;
  const how = { which: 0, lastsMs: 2.5 * ELECTION_TIMEOUT_MS };
  await short(t, CLUSTER_PARTITIONS, [
    partitionStep('leader alone', how),
    partitionStep('leader unheard', how),
    swizzleStep(3),
    partitionStep('loss 5 %', { ...how, lastsMs: ELECTION_TIMEOUT_MS }),
  ]);
});

test('300 kills are 200 of leaders, 60 of followers and 40 of all nodes, in an order from the seed', () => {
  const kindsOf = (seed: number): string[] =>
    clusterKills(3)
      .plan(seed, 300)
      .map(({ kind }) => kind);
  const kinds = kindsOf(7);
  const count = (wanted: string): number => kinds.filter((kind) => kind === wanted).length;
  assert.deepEqual([count('leader'), count('follower'), count('all nodes')], [200, 60, 40]);
  assert.deepEqual(kindsOf(7), kinds);
  assert.notDeepEqual(kindsOf(8), kinds);
});

/** Of the clusters of one node: started once. */
let shared: Promise<PostgresServer> | null = null;
const oneServer = (): Promise<PostgresServer> => {
  shared ??= PostgresServer.start();
  return shared;
};
after(async () => await (await shared)?.remove());

test('a load that ends by itself ends the campaign, and the logs are kept', async (t) => {
  const server = await oneServer();
  await using rig = await ClusterRig.start({ nodes: 1, storeFlags: server.brokerFlags(), seed: 1 });
  t.after(() => rmSync(rig.cluster.folder, { recursive: true, force: true }));
  rig.load.start();
  rig.load.failure = new Error('SEQUENCE_UNKNOWN');
  await assert.rejects(rig.loaded(1_000_000), /the load ended: Error: SEQUENCE_UNKNOWN; logs in/);
  assert.ok(existsSync(join(rig.cluster.folder, 'n1.log')));
});

test('a message that the database loses is found by the checker and by Porcupine', async (t) => {
  const server = await oneServer();
  const storeFlags = server.brokerFlags();
  await using rig = await ClusterRig.start({ nodes: 1, storeFlags, seed: 1 });
  rig.load.start();
  await rig.loaded(300);
  await rig.load.stop();
  // What is new is in the memory of the node.
  await rig.cluster.killAll();
  const schema = storeFlags.at(-1);
  const lost = await server.sql(
    `DELETE FROM ${schema}.batch WHERE (subject, base) IN (SELECT subject, base FROM ${schema}.batch WHERE kind = 1 LIMIT 3) RETURNING base`,
  );
  assert.equal(lost.length, 3);
  await rig.cluster.startAll();
  const { violations, linearizability } = await rig.judge();
  assert.ok(violations.some(({ rule }) => rule === 'unreadable'));
  if (requireTool(t, 'go')) assert.ok((linearizability?.violations.length ?? 0) >= 3);
});
