import { TIMER_MS_MAX } from '../../base/timer.ts';
import type { Limiter } from '../../quota/limiter.ts';
import type { QuotaRule } from '../../quota/quota-rules.ts';
import { StreamMeter } from '../../quota/stream-meter.ts';
import { TenantTable, type TenantTableOptions } from '../../quota/tenant-table.ts';

export interface QuotaOptions extends TenantTableOptions {
  readonly rules: readonly QuotaRule[];
}

export const NO_QUOTAS: QuotaOptions = { rules: [], tenantsMax: 1, burstMs: 1_000 };

/** Batches whose turn has come go together at most so often, in ms: what is saved up meanwhile is not lost. */
const WAKE_MS = 2;
/** Turns of one quota that are given without a look at other work. */
const TURNS_MAX = 1_024;
const SAMPLE_MS = 1_000;

/** The quotas of this node on the main thread: the table of tenants, a clock for those that wait, and changes while the broker runs. */
export class Quotas {
  readonly table: TenantTable;
  /** Something is metered; without a rule nothing is. */
  isOn: boolean;
  /** Told of every change of a quota, so that windows follow it. */
  onChanged: () => void = () => undefined;
  readonly #waiting = new Set<Limiter>();
  #timer: NodeJS.Timeout | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #sampler: NodeJS.Timeout | null = null;

  constructor(options: QuotaOptions = NO_QUOTAS) {
    this.table = new TenantTable(options);
    this.isOn = false;
    this.apply(options.rules);
  }

  /** The quotas from now on, at once also for streams that are open and batches that wait. */
  apply(rules: readonly QuotaRule[]): void {
    this.table.apply(rules, performance.now());
    this.isOn = this.table.isOn;
    if (this.isOn) this.#sampler ??= setInterval(() => this.table.sample(performance.now()), SAMPLE_MS).unref();
    else this.#stopSampling();
    this.#changed();
  }

  setLimits(options: TenantTableOptions): void {
    this.table.setLimits(options, performance.now());
    this.#changed();
  }

  /** How many nodes there are, between which each quota is divided. */
  setNodes(nodes: number): void {
    if (this.table.setNodes(nodes, performance.now())) this.#changed();
  }

  /** For a publish stream of this tenant; to be closed. `onTurn`: the batch that waits may be judged again. */
  openStream(tenant: string, onTurn: () => void): StreamMeter {
    return new StreamMeter(this.table.of(tenant, performance.now()), {
      onTurn,
      waits: (limiter) => {
        this.#waiting.add(limiter);
        const now = performance.now();
        this.#arm(now + limiter.dueIn(now), now);
      },
    });
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#stopSampling();
  }

  #stopSampling(): void {
    if (this.#sampler !== null) clearInterval(this.#sampler);
    this.#sampler = null;
  }

  #changed(): void {
    this.#wake();
    this.onChanged();
  }

  readonly #wake = (): void => {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#timerAt = Number.POSITIVE_INFINITY;
    let nextAt = Number.POSITIVE_INFINITY;
    for (const limiter of this.#waiting) {
      const now = performance.now();
      // What is let through waits again, with its next batch, behind the others.
      for (let turns = 0; turns < TURNS_MAX; turns++) {
        const flow = limiter.takeDue(now);
        if (flow === null) break;
        flow.onTurn();
      }
      if (limiter.waiting === 0) this.#waiting.delete(limiter);
      else nextAt = Math.min(nextAt, now + limiter.dueIn(now));
    }
    const now = performance.now();
    if (nextAt !== Number.POSITIVE_INFINITY) this.#arm(nextAt, now);
  };

  #arm(at: number, now: number): void {
    if (at >= this.#timerAt) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(this.#wake, Math.min(TIMER_MS_MAX, Math.max(WAKE_MS, Math.ceil(at - now))));
  }
}
