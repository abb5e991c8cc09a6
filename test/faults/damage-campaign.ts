/** `npm run faults -- damage-…`: damaged files, each judged by itself, until something is wrong or all were judged. */
import { Prng } from '../../src/base/prng.ts';
import type { Campaign, CampaignOptions, CampaignResult } from './campaign.ts';
import { DamagedCluster } from './damage-cluster.ts';
import { PreparedDirectory } from './damage-directory.ts';
import { placesOf } from './damage-files.ts';
import { damageLone } from './damage-lone.ts';
import { damageInProcess, prngOf, resultOf, Tally } from './damage-runs.ts';

const MESSAGES = 3_000;
const CLUSTER_MESSAGES = 400;
/** Everything is read from every node after so many damages, and at the end. */
const JUDGE_EVERY = 50;
const ENDINGS = ['DATA_LOSS', 'refused', 'noticed', 'harmless'];

async function inProcess({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  await using prepared = await PreparedDirectory.make(new Prng(seed), MESSAGES);
  const onRun = (number: number, text: string): void => onProgress(number - first, runs, text);
  const tally = await damageInProcess({ prepared, seed, first, runs, onRun });
  return resultOf(tally, ENDINGS, [`${prepared.messages} acknowledged messages in every copy`]);
}

async function lone({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  await using prepared = await PreparedDirectory.make(new Prng(seed), MESSAGES);
  const places = placesOf(prepared.base);
  const tally = new Tally();
  for (let number = first; number < first + runs; number++) {
    onProgress(number - first, runs, `${tally.violations.length} violations`);
    const outcome = await damageLone(prepared, places, { seed, number });
    if (outcome === null) continue;
    tally.add(outcome.what, outcome.ending);
    tally.violations.push(...outcome.violations);
  }
  return resultOf(tally, ENDINGS, [`${prepared.messages} acknowledged messages in every copy`]);
}

async function minority({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  await using made = await DamagedCluster.start(seed + first, CLUSTER_MESSAGES);
  const tally = new Tally();
  const backMs: number[] = [];
  for (let number = first; number < first + runs; number++) {
    onProgress(number - first, runs, `${tally.violations.length} violations`);
    const outcome = await made.minority(prngOf(seed, number));
    if (outcome === null) continue;
    tally.add(outcome.what, outcome.ending);
    tally.violations.push(...outcome.violations);
    if (outcome.ending === 'repaired') backMs.push(outcome.ms);
    // What comes next needs three nodes that are whole.
    if (outcome.violations.length > 0) break;
    if ((number + 1) % JUDGE_EVERY === 0) tally.violations.push(...(await made.judge()));
  }
  if (tally.violations.length === 0) tally.violations.push(...(await made.judge()));
  backMs.sort((a, b) => a - b);
  const at = (share: number): string => ((backMs[Math.floor((backMs.length - 1) * share)] ?? 0) / 1_000).toFixed(1);
  const note = `voter again after a start on a damaged log: p50 ${at(0.5)} s, p99 ${at(0.99)} s, at most ${at(1)} s`;
  return resultOf(tally, ['repaired', 'noticed', 'harmless'], [note]);
}

async function majority({ runs, seed, first = 0, onProgress }: CampaignOptions): Promise<CampaignResult> {
  await using made = await DamagedCluster.start(seed + first, CLUSTER_MESSAGES);
  const tally = new Tally();
  let slowestMs = 0;
  for (let number = first; number < first + runs; number++) {
    onProgress(number - first, runs, `${tally.violations.length} violations`);
    const { violations, ms } = await made.majority(prngOf(seed, number));
    tally.add('log and snapshots of two of three', 'halted');
    tally.violations.push(...violations);
    slowestMs = Math.max(slowestMs, ms);
    if (violations.length > 0) break;
  }
  tally.violations.push(...(await made.judge()));
  return resultOf(tally, ['halted'], [`both had halted after ${(slowestMs / 1_000).toFixed(1)} s at most`]);
}

export const DAMAGES: readonly Campaign[] = [
  {
    name: 'damage-files',
    about: 'damaged segments, indexes, logs and snapshots of a broker, opened in this process',
    defaultRuns: 4_000,
    goesOn: true,
    run: inProcess,
  },
  {
    name: 'damage-lone',
    about: 'a broker with the embedded store started on a damaged data directory',
    defaultRuns: 500,
    goesOn: true,
    run: lone,
  },
  {
    name: 'damage-minority',
    about: 'three nodes, the log or a snapshot of one damaged: it is repaired from the others',
    defaultRuns: 500,
    goesOn: true,
    run: minority,
  },
  {
    name: 'damage-majority',
    about: 'three nodes, the logs or snapshots of two damaged: they halt and say so',
    defaultRuns: 500,
    goesOn: true,
    run: majority,
  },
];
