/** `npm run faults -- fuzz`: every parser of foreign bytes on millions of mutants, watched for errors, hangs and memory. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Failure, FuzzResult } from '../fuzz/engine.ts';
import { SLOW_MS, TIMED_FROM_MS } from '../fuzz/engine.ts';
import { fuzzInThread, targetsOf } from '../fuzz/watch.ts';
import type { Campaign, CampaignOptions, CampaignResult, CampaignRow } from './campaign.ts';

/** What only this campaign takes. */
export interface FuzzSettings {
  /** Names; empty: all. */
  readonly targets: readonly string[];
  /** Targets at one time. */
  readonly workers: number;
  /** Of each target at most. */
  readonly secondsMax: number;
  /** Folder for inputs that fail; null: a new temporary one. */
  readonly failures: string | null;
  /** Folder in which what was found is kept from one run to the next; null: nowhere. */
  readonly corpus: string | null;
  /** A file with one input: it is run on the only target, and nothing else is done. */
  readonly input: string | null;
}

export const FUZZ_DEFAULTS: FuzzSettings = {
  targets: [],
  workers: 1,
  secondsMax: Number.POSITIVE_INFINITY,
  failures: null,
  corpus: null,
  input: null,
};

/** What is wrong with the choice of targets, or null. */
export async function unknownTarget({ targets, input }: FuzzSettings): Promise<string | null> {
  const known = (await targetsOf()).map(({ name }) => name);
  const unknown = targets.find((name) => !known.includes(name));
  if (unknown !== undefined) return `no target is named ${unknown}: there are ${known.join(', ')}`;
  return input !== null && targets.length !== 1 ? '--input is for one --target' : null;
}

async function runFuzzCampaign({
  runs,
  seed,
  onProgress,
  fuzz = FUZZ_DEFAULTS,
}: CampaignOptions): Promise<CampaignResult> {
  const targets = fuzz.targets.length > 0 ? fuzz.targets : (await targetsOf()).map(({ name }) => name);
  const inputs = fuzz.input === null ? undefined : [readFileSync(fuzz.input)];
  const doneBy = new Map<string, number>();
  const results = new Map<string, FuzzResult>();
  const waiting = [...targets];
  const work = async (): Promise<void> => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
      const target = name;
      const found = await fuzzInThread({
        targets: [target],
        options: { runs, seed, secondsMax: fuzz.secondsMax, corpus: readCorpus(fuzz.corpus, target) },
        ...(inputs === undefined ? {} : { inputs }),
        onProgress: (_name, run) => {
          doneBy.set(target, run);
          const done = [...doneBy.values()].reduce((sum, each) => sum + each, 0);
          onProgress(done, runs * targets.length, `${target} ${run}`);
        },
      });
      const result = found.get(target);
      if (result === undefined) throw new Error(`the thread of ${target} ended without a word`);
      doneBy.set(target, runs);
      results.set(target, result);
      if (result.corpus.length > 0) writeCorpus(fuzz.corpus, target, result.corpus);
    }
  };
  await Promise.all(Array.from({ length: Math.min(fuzz.workers, targets.length) }, work));
  const rows = targets.map((name) => rowOf(name, results.get(name) as FuzzResult));
  const violations = targets.flatMap((name) =>
    (results.get(name) as FuzzResult).failures.map((failure) => told(name, failure, fuzz)),
  );
  return { rows, violations, notes: notesOf(seed, fuzz) };
}

function rowOf(target: string, result: FuzzResult): CampaignRow {
  const { runs, accepted, seconds, slowestMs, dearestBytes, reached, corpus, failures } = result;
  return {
    target,
    runs,
    'accepted %': runs === 0 ? 0 : Number(((100 * accepted) / runs).toFixed(1)),
    'runs a second': Math.round(runs / Math.max(seconds, 0.001)),
    'slowest ms': slowestMs === 0 ? `< ${TIMED_FROM_MS}` : slowestMs.toFixed(1),
    'dearest KiB': dearestBytes === 0 ? '-' : Math.round(dearestBytes / 1_024),
    branches: reached,
    corpus: corpus.length,
    failures: failures.length,
  };
}

function notesOf(seed: number, { corpus }: FuzzSettings): string[] {
  return [
    `seed ${seed}${corpus === null ? '' : ' and what earlier runs had found'}; a run fails that throws what its target does not declare, breaks its oracle, takes ${SLOW_MS} ms of CPU three times, never ends, or costs twice the memory that its target declares`,
  ];
}

/** Writes the input down, and says how to run it again. */
function told(target: string, { kind, detail, input, run }: Failure, { failures }: FuzzSettings): string {
  const folder = failures ?? mkdtempSync(join(tmpdir(), 'broker-fuzz-'));
  mkdirSync(folder, { recursive: true });
  const hash = createHash('sha256').update(input).digest('hex').slice(0, 12);
  const path = join(folder, `${target}-${hash}.bin`);
  writeFileSync(path, input);
  const lines = [
    `${target} ${kind} at run ${run}, ${input.length} bytes: ${detail.split('\n').slice(0, 6).join('\n    ')}`,
    `  again:      npm run faults -- fuzz --target ${target} --input ${path}`,
    `  regression: ${target} ${Buffer.from(input).toString('base64')}`,
  ];
  return lines.join('\n');
}

function readCorpus(folder: string | null, target: string): Uint8Array[] {
  const path = folder === null ? null : join(folder, target);
  if (path === null || !existsSync(path)) return [];
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => Buffer.from(line.slice(1), 'base64'));
}

/** One input a line, behind a dash, so that an empty one is a line too. */
function writeCorpus(folder: string | null, target: string, corpus: readonly Uint8Array[]): void {
  if (folder === null) return;
  mkdirSync(folder, { recursive: true });
  const lines = new Set(corpus.map((input) => `-${Buffer.from(input).toString('base64')}\n`));
  writeFileSync(join(folder, target), [...lines].join(''));
}

export const fuzz: Campaign = {
  name: 'fuzz',
  about: 'every parser of foreign bytes on mutants: no error, no hang, no memory that it does not declare',
  defaultRuns: 10_000_000,
  run: runFuzzCampaign,
};
