/** When the calls of an open loop are due: a constant rate, steps, or a ramp. Pure; times in ms from the start of the load. */

/** From `fromMs` to `toMs` the rate goes in a straight line from one value to the other, in calls a second. */
interface Segment {
  readonly fromMs: number;
  readonly toMs: number;
  readonly startRate: number;
  readonly endRate: number;
  /** Calls due before this segment. */
  readonly before: number;
}

export interface Schedule {
  readonly segments: readonly Segment[];
}

export class RateError extends Error {
  override name = 'RateError';
}

/**
 * `1000`: constant. `1000,2000,5000`: steps of equal length. `1000..5000`: a ramp. The warm-up runs at the first rate; what comes after the
 * measured window stays at the last.
 */
export function parseRates(text: string, times: { readonly warmupMs: number; readonly durationMs: number }): Schedule {
  const { warmupMs, durationMs } = times;
  const ramp = text.split('..');
  const isRamp = ramp.length === 2;
  const rates = (isRamp ? ramp : text.split(',')).map(parseRate);
  const first = rates[0] as number;
  const last = rates.at(-1) as number;
  const pieces = [{ ms: warmupMs, startRate: first, endRate: first }];
  if (isRamp) pieces.push({ ms: durationMs, startRate: first, endRate: last });
  else for (const rate of rates) pieces.push({ ms: durationMs / rates.length, startRate: rate, endRate: rate });
  pieces.push({ ms: Number.POSITIVE_INFINITY, startRate: last, endRate: last });
  const segments: Segment[] = [];
  let fromMs = 0;
  let before = 0;
  for (const { ms, startRate, endRate } of pieces) {
    segments.push({ fromMs, toMs: fromMs + ms, startRate, endRate, before });
    before += ((startRate + endRate) / 2) * (ms / 1_000);
    fromMs += ms;
  }
  return { segments };
}

function parseRate(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([km]?)$/i.exec(text.trim());
  const scale = { '': 1, k: 1e3, m: 1e6 }[match?.[2]?.toLowerCase() ?? ''] ?? 1;
  const rate = match === null ? Number.NaN : Number(match[1]) * scale;
  if (!(rate > 0)) throw new RateError(`"${text}" is no rate: 1000, 1k,2k,5k (steps) or 1k..5k (a ramp)`);
  return rate;
}

/** The same in shares of `1 / parts`, for one of several generator threads. */
export function divide(schedule: Schedule, parts: number): Schedule {
  return {
    segments: schedule.segments.map(({ startRate, endRate, before, ...rest }) => ({
      ...rest,
      startRate: startRate / parts,
      endRate: endRate / parts,
      before: before / parts,
    })),
  };
}

/** Calls that are due `ms` after the start. */
export function dueBy(schedule: Schedule, ms: number): number {
  const segment = schedule.segments.findLast((one) => ms >= one.fromMs) ?? (schedule.segments[0] as Segment);
  const t = Math.max(0, ms - segment.fromMs) / 1_000;
  return Math.floor(segment.before + segment.startRate * t + (slopeOf(segment) * t * t) / 2 + 1e-9);
}

/** When call `number` (from 1) is due: the inverse of `dueBy`. */
export function dueAt(schedule: Schedule, number: number): number {
  const segment = schedule.segments.findLast((one) => number > one.before) ?? (schedule.segments[0] as Segment);
  const rest = number - segment.before;
  const slope = slopeOf(segment);
  const rate = segment.startRate;
  const t = slope === 0 ? rest / rate : (Math.sqrt(rate * rate + 2 * slope * rest) - rate) / slope;
  return segment.fromMs + t * 1_000;
}

/** Calls a second per second. */
function slopeOf({ fromMs, toMs, startRate, endRate }: Segment): number {
  return startRate === endRate ? 0 : (endRate - startRate) / ((toMs - fromMs) / 1_000);
}
