/** Our nodes and real Serf agents in one encrypted cluster, where packets are lost if that can be had: one fault after another, and all see all again after each. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isUsable } from '../support/tools.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { GossipRig } from './gossip-rig.ts';
import { Dice, ROUNDS, runRound } from './gossip-rounds.ts';

interface Tally {
  rounds: number;
  longestMs: number;
  sumMs: number;
}

async function runCampaign({ runs, seed, onProgress }: CampaignOptions): Promise<CampaignResult> {
  const dice = new Dice(seed);
  const isolated = isUsable('namespaces');
  const rounds = ROUNDS.filter(({ needsNetwork }) => isolated || needsNetwork !== true);
  const tallies = new Map(rounds.map(({ kind }) => [kind, { rounds: 0, longestMs: 0, sumMs: 0 } as Tally]));
  const violations: string[] = [];
  const folder = mkdtempSync(join(tmpdir(), 'gossip-campaign-'));
  let rig = await GossipRig.start({ folder, isolated });
  const versions = rig.programs.map(({ version }) => version).join(' and ');
  try {
    for (let run = 0; run < runs; run += 1) {
      const round = rounds[run % rounds.length] as (typeof rounds)[0];
      onProgress(run, runs, round.kind);
      const began = performance.now();
      try {
        await runRound(rig, round, dice);
      } catch (error) {
        violations.push(`round ${run + 1}, ${round.kind}: ${error instanceof Error ? error.message : String(error)}`);
        onProgress(run, runs, violations.at(-1)?.split('\n')[0] ?? '');
        // What went wrong once would be found again in each round after it.
        await rig[Symbol.asyncDispose]();
        rig = await GossipRig.start({ folder, isolated });
        continue;
      }
      const tookMs = performance.now() - began;
      const tally = tallies.get(round.kind) as Tally;
      tally.rounds += 1;
      tally.sumMs += tookMs;
      tally.longestMs = Math.max(tally.longestMs, tookMs);
    }
  } finally {
    await rig[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }
  return {
    rows: [...tallies].map(([round, { rounds: count, sumMs, longestMs }]) => ({
      round,
      kept: count,
      'mean s': count === 0 ? '' : (sumMs / count / 1_000).toFixed(1),
      'longest s': (longestMs / 1_000).toFixed(1),
    })),
    violations,
    notes: [
      `two nodes of ours with serf ${versions}`,
      isolated ? 'in a network of their own' : 'on loopback, without lost packets: that needs network namespaces',
    ],
  };
}

export const gossip: Campaign = {
  name: 'gossip',
  about: 'two nodes of ours and real Serf agents: joins, keys, events, kills, pauses, lost packets, moved addresses',
  defaultRuns: 100,
  run: runCampaign,
};
