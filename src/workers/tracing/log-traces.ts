import type { AllotMachine } from '../../allot/allot-machine.ts';
import { soundRun } from '../../allot/sound-run.ts';
import { TRACE_CONTEXT_BYTES } from '../../base/trace-context.ts';
import type { PeerFrame } from '../../replica/types.ts';
import type { ForeignIds } from './trace-record.ts';

type Runs = Extract<PeerFrame, { kind: 'runs' }>;

interface Asked {
  readonly shard: number;
  readonly counter: number;
  readonly context: Uint8Array;
  readonly receivedAt: number;
  submittedAt: number;
}

/** A run of this node that the leader has not been sent. */
interface Unsent {
  readonly run: number;
  readonly context: Uint8Array;
}

/** A run of another node that this one, which leads, has not applied. */
interface Foreign {
  readonly from: string;
  readonly name: Uint8Array;
  readonly low: number;
  readonly high: number;
  readonly run: number;
  readonly context: Uint8Array;
  readonly receivedAt: number;
}

/** Of each kind; the oldest go first. What was lost with a leader, or a shard, would stay for ever. */
const KEPT_MAX = 512;

/** What the Raft thread knows of traced opens: of its own shards, and of other nodes that it leads. Nothing is looked at while there are none. */
export class LogTraces {
  readonly #asked = new Map<number, Asked>();
  /** Not given to the log yet. */
  #unsubmitted: Asked[] = [];
  #unsent: Unsent[] = [];
  #foreign: Foreign[] = [];
  readonly #tell: (ids: ForeignIds) => void;

  constructor(tell: (ids: ForeignIds) => void) {
    this.#tell = tell;
  }

  /** A shard asks for ids with this counter. */
  asked(shard: number, counter: number, context: Uint8Array): void {
    const asked = { shard, counter, context, receivedAt: performance.now(), submittedAt: 0 };
    this.#asked.set(keyOf(shard, counter), asked);
    this.#unsubmitted.push(asked);
    if (this.#asked.size <= KEPT_MAX) return;
    const [oldest] = this.#asked.keys();
    this.#asked.delete(oldest as number);
  }

  /** What was asked for is in run `run` of this node, at the latest. */
  submitted(run: number, hasPeers: boolean): void {
    if (this.#unsubmitted.length === 0) return;
    const now = performance.now();
    for (const asked of this.#unsubmitted) {
      asked.submittedAt = now;
      if (hasPeers) this.#unsent.push({ run, context: asked.context });
    }
    this.#unsubmitted = [];
    if (this.#unsent.length > KEPT_MAX) this.#unsent = this.#unsent.slice(-KEPT_MAX);
  }

  get isEmpty(): boolean {
    return this.#asked.size === 0;
  }

  /** The answer of this counter comes next. Null: it is not traced. */
  take(shard: number, counter: number): { readonly receivedAt: number; readonly submittedAt: number } | null {
    const key = keyOf(shard, counter);
    const asked = this.#asked.get(key) ?? null;
    if (asked !== null) this.#asked.delete(key);
    return asked;
  }

  // --- between nodes ---

  /** The frame, on its way to the leader, with the contexts of the runs in it. */
  attach(frame: Runs): Runs {
    if (this.#unsent.length === 0) return frame;
    const traces: { index: number; context: Uint8Array }[] = [];
    frame.runs.forEach((run, index) => {
      const number = soundRun(run)?.run ?? -1;
      for (const unsent of this.#unsent) if (unsent.run === number) traces.push({ index, context: unsent.context });
    });
    if (traces.length === 0) return frame;
    const sent = new Set(traces.map(({ context }) => context));
    this.#unsent = this.#unsent.filter(({ context }) => !sent.has(context));
    return { ...frame, traces };
  }

  came(from: string, { runs, traces = [] }: Runs): void {
    const receivedAt = performance.now();
    for (const { index, context } of traces) {
      const bytes = runs[index];
      const header = bytes === undefined ? null : soundRun(bytes);
      if (bytes === undefined || header === null || context.length !== TRACE_CONTEXT_BYTES) continue;
      const { nodeStart, nodeEnd, incarnationLow: low, incarnationHigh: high, run } = header;
      this.#foreign.push({
        from,
        name: bytes.slice(nodeStart, nodeEnd),
        low,
        high,
        run,
        context: context.slice(),
        receivedAt,
      });
    }
    if (this.#foreign.length > KEPT_MAX) this.#foreign = this.#foreign.slice(-KEPT_MAX);
  }

  /** In every round of work. */
  look(machine: AllotMachine, isLeader: boolean): void {
    if (this.#foreign.length === 0) return;
    const appliedAt = performance.now();
    this.#foreign = this.#foreign.filter(({ from, name, low, high, run, context, receivedAt }) => {
      if (machine.lastRun(name, low, high) < run) return true;
      if (isLeader) this.#tell({ context, from, receivedAt, appliedAt });
      return false;
    });
  }
}

function keyOf(shard: number, counter: number): number {
  return shard * 2 ** 32 + counter;
}
