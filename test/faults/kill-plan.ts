/** When and how each run of a kill campaign ends its broker: all from the seed. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Prng } from '../../src/base/prng.ts';

export interface KillPlan {
  readonly run: number;
  /** How long the load runs before kill -9, in ms; with a failpoint, the longest wait for it. */
  readonly delayMs: number;
  /** The broker kills itself there, at the `hit`-th pass. */
  readonly failpoint: { readonly site: string; readonly hit: number } | null;
  /** Also kill -9 during the start that follows, so many ms after it began. */
  readonly recoveryKillMs: number | null;
}

/** What src/storage/disk.ts does with a file that is written, each with a site before and most with one behind it. */
const FILE_STEPS = ['write', 'written', 'sync', 'synced'];
/** The name of a site, then the kind of file that a path is opened as for writing. */
const NAMED_SITE = /\bfailpoint\(\s*['"`]([\w.-]+)['"`]\s*\)/g;
const WRITTEN_FILE = /\.(?:createExclusive|createOrEmpty|open)\((?!.*'read').*,\s*'([\w-]+)'\)/g;

/** Every failpoint of the sources, in alphabetical order: `failpoint('site')`, and the steps of each kind of file that is written. */
export function failpointSites(): string[] {
  const folder = fileURLToPath(new URL('../../src', import.meta.url));
  const sites = new Set<string>();
  for (const file of globSync('**/*.ts', { cwd: folder })) {
    const text = readFileSync(join(folder, file), 'utf8');
    for (const match of text.matchAll(NAMED_SITE)) sites.add(match[1] as string);
    for (const match of text.matchAll(WRITTEN_FILE)) {
      for (const step of FILE_STEPS) sites.add(`${match[1]}.${step}`);
    }
  }
  return [...sites].sort();
}

/** Runs on one data folder before a new one is begun: reading back costs what was written, and the first start has sites of its own. */
export const RUNS_PER_FOLDER = 10;
/** Hits from the first (start-up, rare sites) to deep in the load (sites of the write path). */
const HITS = [1, 1, 1, 2, 3, 7, 20, 60];
/** Longest wait for a failpoint; then the broker is killed like any other. */
const FAILPOINT_WAIT_MS = 1_500;

export function planKills(seed: number, runs: number, sites: readonly string[]): KillPlan[] {
  const prng = new Prng(seed);
  let nextSite = sites.length === 0 ? 0 : prng.nextBelow(sites.length);
  return Array.from({ length: runs }, (_, run) => {
    const delayMs = 120 + prng.nextBelow(500);
    const hit = HITS[prng.nextBelow(HITS.length)] as number;
    const inRecovery = prng.chance(1, 4);
    const recoveryKillMs = inRecovery ? 30 + prng.nextBelow(500) : null;
    // Half of the runs go by the clock, the others through the sites in turn; so does every first start on an empty folder.
    const byFailpoint = run % RUNS_PER_FOLDER === 0 || prng.chance(1, 2);
    if (!byFailpoint || sites.length === 0) return { run, delayMs, failpoint: null, recoveryKillMs };
    const site = sites[nextSite++ % sites.length] as string;
    return { run, delayMs: FAILPOINT_WAIT_MS, failpoint: { site, hit }, recoveryKillMs };
  });
}
