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

/** Every `failpoint('site')` of the sources, in alphabetical order. */
export function failpointSites(): string[] {
  const folder = fileURLToPath(new URL('../../src', import.meta.url));
  const sites = new Set<string>();
  for (const file of globSync('**/*.ts', { cwd: folder })) {
    const text = readFileSync(join(folder, file), 'utf8');
    for (const match of text.matchAll(/\bfailpoint\(\s*['"`]([\w.-]+)['"`]\s*\)/g)) sites.add(match[1] as string);
  }
  return [...sites].sort();
}

/** Hits from the first (start-up, rare sites) to deep in the load (sites of the write path). */
const HITS = [1, 2, 3, 7, 20, 60, 150];

export function planKills(seed: number, runs: number, sites: readonly string[]): KillPlan[] {
  const prng = new Prng(seed);
  return Array.from({ length: runs }, (_, run) => {
    const delayMs = 120 + prng.nextBelow(500);
    const hit = HITS[prng.nextBelow(HITS.length)] as number;
    const site = sites[(Math.floor(run / 2) + prng.nextBelow(2) * Math.floor(sites.length / 2)) % sites.length];
    const inRecovery = prng.chance(1, 4);
    const recoveryKillMs = inRecovery ? 30 + prng.nextBelow(500) : null;
    // Every second run goes by the clock, the others through the sites in turn.
    const failpoint = run % 2 === 1 && site !== undefined ? { site, hit } : null;
    return { run, delayMs: failpoint === null ? delayMs : 900, failpoint, recoveryKillMs };
  });
}
