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
  /** First of a folder only: sites that end a start on an empty folder, one after the other, each followed by a start that must succeed. */
  readonly firstStarts: readonly string[];
  /** Also kill -9 during the start that follows, so many ms after it began. */
  readonly recoveryKillMs: number | null;
}

/** What src/storage/disk.ts does with a file that is written, each with a site before and most with one behind it. */
const FILE_STEPS = ['write', 'written', 'sync', 'synced'];
/** The name of a site, then the kind of file that a path is opened as for writing. */
const NAMED_SITE = /\bfailpoint\(\s*['"`]([\w.-]+)['"`]\s*\)/g;
const WRITTEN_FILE = /\bdisk\.(?:createExclusive|createOrEmpty|open)\((?!.*'read').*,\s*'([\w-]+)'\)/g;

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
const FIRST_STARTS = 3;
/** Sites that every publish passes are also hit deep in the load, the others happen once or twice in a run. */
const BUSY_SITE = /^(?:segment|wal|raft|shard)\./;
const BUSY_HITS = [1, 2, 3, 7, 20, 60];
const RARE_HITS = [1, 1, 1, 2];
/** Longest wait for a failpoint; then the broker is killed like any other. */
const FAILPOINT_WAIT_MS = 1_500;

export function planKills(seed: number, runs: number, sites: readonly string[]): KillPlan[] {
  const prng = new Prng(seed);
  const inTurn = (): (() => string) => {
    let next = sites.length === 0 ? 0 : prng.nextBelow(sites.length);
    return () => sites[next++ % sites.length] as string;
  };
  const [nextSite, nextFirstStart] = [inTurn(), inTurn()];
  return Array.from({ length: runs }, (_, run) => {
    const isFirst = run % RUNS_PER_FOLDER === 0;
    const firstStarts = isFirst && sites.length > 0 ? Array.from({ length: FIRST_STARTS }, nextFirstStart) : [];
    const delayMs = 120 + prng.nextBelow(500);
    const recoveryKillMs = prng.chance(1, 4) ? 30 + prng.nextBelow(500) : null;
    // A third of the runs go by the clock, the others through the sites in turn.
    if (prng.chance(1, 3) || sites.length === 0) return { run, delayMs, failpoint: null, firstStarts, recoveryKillMs };
    const site = nextSite();
    const hits = BUSY_SITE.test(site) ? BUSY_HITS : RARE_HITS;
    const failpoint = { site, hit: hits[prng.nextBelow(hits.length)] as number };
    return { run, delayMs: FAILPOINT_WAIT_MS, failpoint, firstStarts, recoveryKillMs };
  });
}
