/** Runs one target on mutants of its corpus, in this thread. Who watches it for endless loops is watch.ts. */
import { createHash } from 'node:crypto';
import { getHeapStatistics, setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { Coverage } from './coverage.ts';
import { Mutator } from './mutator.ts';
import type { FuzzTarget } from './target.ts';

export const SLOW_MS = 100;
/** Faster runs are not looked at. */
export const TIMED_FROM_MS = 0.5;
export const LENGTH_MAX_DEFAULT = 4_096;
/** Of one target: a defect has many faces, and nobody reads more. */
const FAILURES_MAX = 5;
const CORPUS_MAX = 4_096;
/** Runs between two looks at the memory, at most and at least; their inputs are kept until then. */
const WINDOW_RUNS_MAX = 64;
const WINDOW_RUNS_MIN = 4;
/** What a window's runs may cost together if each costs what its target declares, in bytes. */
const WINDOW_BYTES = 32 << 20;
/** Garbage of V8's own that says nothing of a target, in bytes. */
const NOISE_BYTES = 8 << 20;
/** How often what is kept is measured, after a full collection. */
const RETAINED_EVERY_MS = 1_000;
/** Compiled code and inline caches grow for a while; so much is no leak, in bytes. */
const RETAINED_SLACK_BYTES = 24 << 20;
/** For memory outside of the heap to be given back. */
const SETTLE_MS = 20;
const STACK_LINES = 10;
const MINIMISE_RUNS = 2_000;
const MINIMISE_MS = 3_000;

export type FailureKind = 'threw' | 'slow' | 'memory' | 'retained' | 'endless';

export interface Failure {
  readonly kind: FailureKind;
  readonly detail: string;
  readonly input: Uint8Array;
  /** How many runs it took. */
  readonly run: number;
}

export interface FuzzOptions {
  readonly runs: number;
  readonly seed: number;
  /** No new run is begun after so long. */
  readonly secondsMax?: number;
  /** What an earlier run found, besides the seeds of the target. */
  readonly corpus?: readonly Uint8Array[];
  readonly failuresMax?: number;
}

export interface FuzzResult {
  readonly runs: number;
  /** Inputs that the parser took. */
  readonly accepted: number;
  readonly seconds: number;
  /** CPU time of the slowest input, the least of three repetitions, in ms; 0: none took TIMED_FROM_MS. */
  readonly slowestMs: number;
  /** Growth of heap and memory outside by the dearest input, where it was measured, in bytes. */
  readonly dearestBytes: number;
  readonly reached: number;
  readonly corpus: readonly Uint8Array[];
  readonly failures: readonly Failure[];
}

/** Told of each input before it runs, so that somebody else can say what it was. */
export interface Watch {
  begins(input: Uint8Array, run: number): void;
}

export class Engine {
  readonly #target: FuzzTarget;
  readonly #coverage: Coverage;
  readonly #watch: Watch;
  readonly #collect: () => void;
  readonly #failures: Failure[] = [];
  readonly #known = new Set<string>();
  #run = 0;
  #accepted = 0;
  #slowestMs = 0;
  /** Wall time from which on a run is repeated. */
  #timedFromMs = TIMED_FROM_MS;
  #dearestBytes = 0;

  constructor(target: FuzzTarget, coverage: Coverage, watch: Watch) {
    this.#target = target;
    this.#coverage = coverage;
    this.#watch = watch;
    setFlagsFromString('--expose-gc');
    this.#collect = runInNewContext('gc') as () => void;
    setFlagsFromString('--no-expose-gc');
  }

  async fuzz({ runs, seed, secondsMax = Infinity, corpus: found = [], failuresMax = FAILURES_MAX }: FuzzOptions) {
    const began = performance.now();
    Error.stackTraceLimit = 0;
    const corpus: Uint8Array[] = [];
    const first = new Map(
      [...this.#target.seeds(), ...found].map((input) => [Buffer.from(input).toString('latin1'), input]),
    );
    for (const input of first.values()) {
      await this.#once(Buffer.from(input));
      corpus.push(input);
    }
    this.#coverage.fresh = 0;
    const mutator = this.#mutator(seed);
    const { memoryBytes } = this.#target;
    const windowRuns = Math.max(WINDOW_RUNS_MIN, Math.min(WINDOW_RUNS_MAX, Math.floor(WINDOW_BYTES / memoryBytes)));
    const window: Buffer[] = [];
    let suspicious = 2 * memoryBytes + NOISE_BYTES;
    let before = usedBytes();
    let retained = -1;
    let measuredAt = performance.now();
    const until = began + secondsMax * 1_000;
    while (this.#run < runs && this.#failures.length < failuresMax) {
      const input = this.#next(mutator, corpus);
      this.#run += 1;
      const outcome = this.#once(input);
      if (outcome instanceof Promise) await outcome;
      if (this.#coverage.fresh > 0) {
        this.#coverage.fresh = 0;
        if (corpus.length < CORPUS_MAX) corpus.push(input);
      }
      if (window.push(input) < windowRuns) continue;
      const grown = usedBytes() - before;
      if (grown > suspicious) {
        await this.#weigh(window);
        // Each is within its bounds: from now on it takes more to look so closely.
        suspicious = 1.5 * grown;
      }
      before = usedBytes();
      window.length = 0;
      const now = performance.now();
      if (now >= until) break;
      if (now - measuredAt < RETAINED_EVERY_MS) continue;
      this.#collect();
      // What the process was told meanwhile has its turn.
      await new Promise((resolve) => setImmediate(resolve));
      measuredAt = performance.now();
      before = usedBytes();
      const ofCorpus = corpus.reduce((sum, { length }) => sum + length, 0);
      if (retained < 0) retained = before - ofCorpus;
      const isMuch = before - ofCorpus - retained > 2 * memoryBytes + RETAINED_SLACK_BYTES;
      if (isMuch) before = await this.#settledBytes();
      const kept = before - ofCorpus;
      if (isMuch && kept - retained > 2 * memoryBytes + RETAINED_SLACK_BYTES) {
        this.#fail('retained', `${kept - retained} bytes are kept`, input);
        retained = kept;
      }
    }
    return {
      runs: this.#run,
      accepted: this.#accepted,
      seconds: (performance.now() - began) / 1_000,
      slowestMs: this.#slowestMs,
      dearestBytes: this.#dearestBytes,
      reached: this.#coverage.reached,
      corpus,
      failures: this.#failures,
    } satisfies FuzzResult;
  }

  /** One input and nothing else: what it does wrong, or null. */
  async repeat(input: Uint8Array): Promise<Failure | null> {
    await this.#once(Buffer.from(input));
    await this.#weigh([Buffer.from(input)]);
    return this.#failures[0] ?? null;
  }

  /** As much of the input as still fails in the same way. For failures that end. */
  async minimised({ kind, detail, input }: Failure): Promise<Uint8Array> {
    const isSame = async (candidate: Buffer): Promise<boolean> =>
      kind === 'threw' && (await this.#error(candidate))?.key === keyOf(kind, detail);
    if (!(await isSame(Buffer.from(input)))) return input;
    const until = performance.now() + MINIMISE_MS;
    let runs = 0;
    let best: Buffer = Buffer.from(input);
    for (let size = best.length >>> 1; size >= 1; size >>>= 1) {
      for (let at = 0; at + size <= best.length; ) {
        if (++runs > MINIMISE_RUNS || performance.now() > until) return best;
        const cut = Buffer.concat([best.subarray(0, at), best.subarray(at + size)]);
        const repaired = this.#target.repair?.(Buffer.from(cut)) ?? cut;
        if (await isSame(cut)) best = cut;
        else if (repaired.length < best.length && (await isSame(repaired))) best = repaired;
        else at += size;
      }
    }
    return best;
  }

  #mutator(seed: number): Mutator {
    const { dictionary = [], wordsOf = [], lengthMax = LENGTH_MAX_DEFAULT } = this.#target;
    const words = new Set(dictionary.map((word) => Buffer.from(word).toString('latin1')));
    const numbers = new Set<number>();
    for (const [path, found] of this.#coverage.words) {
      if (!wordsOf.some((start) => path.startsWith(start))) continue;
      for (const word of found) words.add(Buffer.from(word).toString('latin1'));
    }
    for (const [path, found] of this.#coverage.numbers) {
      if (path.startsWith('src/base/')) continue;
      for (const value of found) if (Number.isSafeInteger(value) && value > 2) numbers.add(value);
    }
    return new Mutator({
      seed: seed ^ createHash('sha256').update(this.#target.name).digest().readInt32LE(),
      words: [...words].filter((word) => word !== '').map((word) => Buffer.from(word, 'latin1')),
      numbers: [...numbers],
      lengthMax,
    });
  }

  #next(mutator: Mutator, corpus: readonly Uint8Array[]): Buffer {
    const input = mutator.next(corpus);
    if (this.#target.repair === undefined || mutator.number(8) === 0) return input;
    return this.#target.repair(input);
  }

  #once(input: Buffer): void | Promise<void> {
    this.#watch.begins(input, this.#run);
    const began = performance.now();
    try {
      const accepted = this.#target.run(input);
      if (typeof accepted !== 'boolean') return this.#settled(input, accepted, began);
      if (accepted) this.#accepted += 1;
    } catch (error) {
      this.#fail('threw', this.#detail(error, input), input);
    }
    const tookMs = performance.now() - began;
    if (tookMs > this.#timedFromMs) return this.#time(input, tookMs);
  }

  /** Stacks cost more than most parsers, so a run makes none: the failing one is made again for it. */
  #detail(error: unknown, input: Buffer): string {
    Error.stackTraceLimit = STACK_LINES;
    try {
      void this.#target.run(Buffer.from(input));
    } catch (again) {
      return detailOf(again);
    } finally {
      Error.stackTraceLimit = 0;
    }
    return detailOf(error);
  }

  async #settled(input: Buffer, promise: Promise<boolean>, began: number): Promise<void> {
    try {
      if (await promise) this.#accepted += 1;
    } catch (error) {
      this.#fail('threw', detailOf(error), input);
    }
    const tookMs = performance.now() - began;
    if (tookMs > this.#timedFromMs) await this.#time(input, tookMs);
  }

  /** Wall time has the others of the machine in it, and the first run of a path its compilation: what three repetitions cost at least counts. */
  async #time(input: Buffer, tookMs: number): Promise<void> {
    let leastMs = tookMs;
    for (let i = 0; i < 3; i++) {
      this.#watch.begins(input, this.#run);
      const began = process.threadCpuUsage();
      await this.#error(input);
      const { user, system } = process.threadCpuUsage(began);
      leastMs = Math.min(leastMs, (user + system) / 1_000);
    }
    this.#slowestMs = Math.max(this.#slowestMs, leastMs);
    this.#timedFromMs = Math.max(TIMED_FROM_MS, this.#slowestMs);
    if (leastMs > SLOW_MS) this.#fail('slow', `${leastMs.toFixed(0)} ms`, input);
  }

  async #error(input: Buffer): Promise<{ readonly key: string } | null> {
    try {
      const accepted = this.#target.run(input);
      if (typeof accepted !== 'boolean') await accepted;
    } catch (error) {
      return { key: keyOf('threw', this.#detail(error, input)) };
    }
    return null;
  }

  /** Memory outside of the heap is freed by other threads, and told of in later turns. */
  async #settledBytes(): Promise<number> {
    for (let i = 0; i < 3; i++) {
      this.#collect();
      await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    }
    return usedBytes();
  }

  /**
   * Each by itself: what its run leaves behind, garbage included. What those before it have left may not be freed yet and then counts too, so one that
   * costs too much runs again when all is: a look before that would take what is being freed meanwhile for less memory than there is.
   */
  async #weigh(inputs: readonly Buffer[]): Promise<void> {
    let before = await this.#settledBytes();
    for (const input of inputs) {
      this.#collect();
      let grown = await this.#grownBy(input, before);
      if (grown > 2 * this.#target.memoryBytes) {
        // The first time it may also have been compiled, or something else that V8 does once.
        before = await this.#settledBytes();
        grown = await this.#grownBy(input, before);
      }
      this.#dearestBytes = Math.max(this.#dearestBytes, grown);
      if (grown <= 2 * this.#target.memoryBytes) continue;
      this.#fail('memory', `${grown} bytes, declared are ${this.#target.memoryBytes}`, input);
    }
  }

  async #grownBy(input: Buffer, before: number): Promise<number> {
    this.#watch.begins(input, this.#run);
    await this.#error(input);
    return usedBytes() - before;
  }

  #fail(kind: FailureKind, detail: string, input: Uint8Array): void {
    const key = keyOf(kind, detail);
    if (this.#known.has(key)) return;
    this.#known.add(key);
    this.#failures.push({ kind, detail, input: Uint8Array.from(input), run: this.#run });
  }
}

function usedBytes(): number {
  const { used_heap_size, external_memory } = getHeapStatistics();
  return used_heap_size + external_memory;
}

function detailOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? String(error)) : String(error);
}

/** Without its numbers and the values of an assertion, the first line tells one defect from another. */
function keyOf(kind: FailureKind, detail: string): string {
  const lines = detail.split('\n');
  const place = lines.find((line) => line.trim().startsWith('at '))?.trim() ?? '';
  const first = (lines[0] ?? '').replaceAll(/\d+|'[^']*'|"[^"]*"/g, '#').slice(0, 80);
  return kind === 'threw' ? `${first} ${place}` : kind;
}
