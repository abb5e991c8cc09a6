/** The thread that fuzzes: loads the modules of src/ with marks, and runs one target after another. */
import { parentPort, workerData } from 'node:worker_threads';
import { Coverage } from './coverage.ts';
import { Engine, type Failure, type FuzzOptions, type FuzzResult } from './engine.ts';
import { Mirror } from './mirror.ts';
import { regressionsIn } from './regressions.ts';
import { type FuzzTarget, SHORT_RUNS } from './target.ts';

export interface FuzzJob {
  /** A module with `TARGETS`. */
  readonly registry: string;
  readonly targets: readonly string[];
  readonly memory: SharedArrayBuffer;
  /** Only these, one after another, and no mutants. */
  readonly inputs?: readonly Uint8Array[];
  readonly options: Omit<FuzzOptions, 'runs'> & { readonly runs: number | 'short' };
}

/** What it says after each target. */
export interface FuzzNews {
  readonly target: string;
  readonly result: FuzzResult;
}

const { registry, targets, memory, inputs, options } = workerData as FuzzJob;
// That Node's stripping of types is experimental is no news.
process.removeAllListeners('warning');
const coverage = Coverage.begin();
const regressions = regressionsIn();
const mirror = new Mirror(memory);
const { TARGETS } = (await import(registry)) as { readonly TARGETS: readonly FuzzTarget[] };
for (const [place, name] of targets.entries()) {
  const target = TARGETS.find((one) => one.name === name);
  if (target === undefined) throw new Error(`no target is named ${name}`);
  mirror.target = place;
  const reached = coverage.reached;
  const engine = new Engine(target, coverage, mirror);
  const runs = options.runs === 'short' ? (target.shortRuns ?? SHORT_RUNS) : options.runs;
  const corpus = [...(regressions.get(name) ?? []), ...(options.corpus ?? [])];
  const result =
    inputs === undefined ? await engine.fuzz({ ...options, runs, corpus }) : await repeated(target, inputs);
  const failures: Failure[] = [];
  for (const failure of result.failures) {
    failures.push({ ...failure, input: Uint8Array.from(await engine.minimised(failure)) });
  }
  const kept = result.corpus.map((input) => Uint8Array.from(input));
  const news: FuzzNews = {
    target: name,
    result: { ...result, reached: coverage.reached - reached, corpus: kept, failures },
  };
  parentPort?.postMessage(news);
}

async function repeated(target: FuzzTarget, list: readonly Uint8Array[]): Promise<FuzzResult> {
  const failures: Failure[] = [];
  for (const input of list) {
    const failure = await new Engine(target, coverage, mirror).repeat(input);
    if (failure !== null) failures.push(failure);
  }
  const none = { accepted: 0, seconds: 0, slowestMs: 0, dearestBytes: 0, reached: 0, corpus: [] };
  return { ...none, runs: list.length, failures };
}
