import { killMemberlist, type MemberlistRun, memberlistVersion } from '../support/memberlist-sim.ts';
import { isUsable } from '../support/tools.ts';
import { type KillTimes, simulateKill } from './gossip-kill.ts';

const ROWS: readonly [key: 'firstMs' | 'medianMs' | 'lastMs', name: string][] = [
  ['firstMs', 'first member to see it'],
  ['medianMs', 'half of them'],
  ['lastMs', 'all of them'],
];

/** A table of when a killed member is called failed: by our rules, and by HashiCorp's memberlist in the same scenario. */
export async function compareKills(run: MemberlistRun): Promise<string> {
  const ours = Array.from({ length: run.kills }, (_, i) => simulateKill(i + 1, run.nodes, run.lossPercent));
  const theirs = isUsable('go') ? (await killMemberlist(run)).kills : null;
  const lines = [
    `${run.nodes} members, ${run.lossPercent} % of the packets lost, ${run.kills} kills; seconds from the kill: median (lowest to highest)`,
    `| seen by | ours | memberlist ${memberlistVersion()} | ratio of the medians |`,
    '|---|---|---|---|',
    ...ROWS.map(([key, name]) => {
      const own = ours.map((kill) => kill[key]);
      const other = theirs?.map((kill) => kill[key]);
      const ratio = other === undefined ? 'needs Go 1.25' : (medianOf(own) / medianOf(other)).toFixed(2);
      return `| ${name} | ${spread(own)} | ${other === undefined ? 'not run' : spread(other)} | ${ratio} |`;
    }),
    `| called failed and well | ${falseOf(ours)} | ${theirs === null ? 'not run' : falseOf(theirs)} | |`,
  ];
  return `${lines.join('\n')}\n`;
}

function medianOf(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : (upper + (sorted[middle - 1] as number)) / 2;
}

function spread(values: readonly number[]): string {
  const seconds = (ms: number): string => (ms / 1_000).toFixed(2);
  return `${seconds(medianOf(values))} (${seconds(Math.min(...values))} to ${seconds(Math.max(...values))})`;
}

function falseOf(kills: readonly KillTimes[]): number {
  return kills.reduce((sum, kill) => sum + kill.false, 0);
}
