/** One damage after the other to copies of prepared directories, each judged by itself: any of them can be repeated by its number alone. */
import { rmSync } from 'node:fs';
import { Prng } from '../../src/base/prng.ts';
import type { CampaignResult, CampaignRow } from './campaign.ts';
import { type DamageChoice, damageOne, deleted, type FileKind, inWords, listing } from './damage.ts';
import type { PreparedDirectory } from './damage-directory.ts';
import { type Ending, hitIds, judgeLog, judgeStore, logState, placesOf, type Verdict } from './damage-files.ts';

/** Damages of one kind to one kind of file, and how they ended. */
export class Tally {
  readonly #counts = new Map<string, Map<string, number>>();
  readonly violations: string[] = [];
  #runs = 0;

  get runs(): number {
    return this.#runs;
  }

  add(what: string, ending: string): void {
    const endings = this.#counts.get(what) ?? new Map<string, number>();
    endings.set(ending, (endings.get(ending) ?? 0) + 1);
    this.#counts.set(what, endings);
    this.#runs += 1;
  }

  /** A row for each kind of what was damaged; `endings` are its columns. */
  rows(endings: readonly string[]): Record<string, string | number>[] {
    return [...this.#counts].sort().map(([what, counts]) => {
      const times = [...counts.values()].reduce((sum, count) => sum + count, 0);
      return { what, times, ...Object.fromEntries(endings.map((ending) => [ending, counts.get(ending) ?? 0])) };
    });
  }
}

/** The rows of the table, the sum first. */
export function resultOf(tally: Tally, endings: readonly string[], notes: readonly string[] = []): CampaignResult {
  const rows = tally.rows(endings);
  const sum: CampaignRow = {
    what: 'all',
    times: tally.runs,
    ...Object.fromEntries(endings.map((one) => [one, count(rows, one)])),
  };
  return { rows: [sum, ...rows], violations: tally.violations, notes };
}

function count(rows: readonly CampaignRow[], column: string): number {
  return rows.reduce((sum, row) => sum + Number(row[column]), 0);
}

/** Of equal seeds the n-th damage is the same, whichever others are made. */
export function prngOf(seed: number, number: number): Prng {
  return new Prng((Math.imul(seed, 0x9e3779b1) + Math.imul(number + 1, 0x85ebca6b)) >>> 0);
}

const STORE_FILES: readonly FileKind[] = ['segment', 'sidecar'];
const LOG_FILES: readonly FileKind[] = ['log', 'log end', 'snapshot'];

/** What is written anew by every start: the sidecar of a segment is made from it. */
const isDerived = (path: string): boolean => path.endsWith('.tmp') || path.includes('LOCK');

interface InProcessOptions {
  readonly prepared: PreparedDirectory;
  readonly seed: number;
  readonly first: number;
  readonly runs: number;
  readonly onRun?: (number: number, text: string) => void;
  readonly kind?: DamageChoice['kind'];
}

/** Production code opened on damaged copies, in this process: half of the runs in the segments, half in the Raft log. */
export async function damageInProcess(options: InProcessOptions): Promise<Tally> {
  const { prepared, seed, first, runs } = options;
  const tally = new Tally();
  const places = placesOf(prepared.base);
  const log = logState(prepared.base);
  for (let number = first; number < first + runs; number++) {
    const prng = prngOf(seed, number);
    const root = prepared.copy();
    const files = number % 2 === 0 ? STORE_FILES : LOG_FILES;
    const damage = damageOne(prng, { root, older: prepared.older, files, ...(options.kind && { kind: options.kind }) });
    if (damage !== null) {
      options.onRun?.(number, inWords(damage));
      const before = listing(root);
      const { ending, violations } = await judged(() =>
        number % 2 === 0
          ? judgeStore(root, prepared.acked, hitIds(places, damage))
          : Promise.resolve(judgeLog(root, log)),
      );
      tally.add(`${damage.file}, ${damage.kind}`, ending);
      const gone = deleted(before, listing(root), isDerived);
      for (const violation of [...violations, ...gone])
        tally.violations.push(`damage ${number} (${inWords(damage)}): ${violation}`);
    }
    rmSync(root, { recursive: true });
  }
  return tally;
}

/** A checker that throws has found something too. */
async function judged(judge: () => Promise<Verdict>): Promise<Verdict> {
  try {
    return await judge();
  } catch (error) {
    const ending: Ending = 'noticed';
    return { ending, violations: [`it threw ${error instanceof Error ? error.stack : String(error)}`] };
  }
}
