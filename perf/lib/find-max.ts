/** The highest rate at which a stated condition still holds, found by trying. Pure but for `probe`. */

export interface Probe<T> {
  readonly rate: number;
  readonly isGood: boolean;
  readonly result: T;
}

export interface FindMax<T> {
  /** The best good probe; null if not even the lowest rate was good. */
  readonly best: Probe<T> | null;
  readonly probes: readonly Probe<T>[];
}

/**
 * Doubles from `startRate` (or halves) until good and bad lie on both sides, then bisects (by the geometric middle) until they are closer than
 * `tolerance`, a share. A rate is bad only when it fails twice: one stall of the machine must not end the search far below the truth.
 */
export async function findMax<T>(options: {
  readonly startRate: number;
  readonly tolerance: number;
  readonly probesMax: number;
  readonly probe: (rate: number) => Promise<{ readonly isGood: boolean; readonly result: T }>;
}): Promise<FindMax<T>> {
  const { startRate, tolerance, probesMax, probe } = options;
  const probes: Probe<T>[] = [];
  let best: Probe<T> | null = null;
  let lowestBad = Number.POSITIVE_INFINITY;
  let rate = startRate;
  while (probes.length < probesMax && rate >= 1) {
    let tried = { rate, ...(await probe(rate)) };
    probes.push(tried);
    if (!tried.isGood && probes.length < probesMax) {
      tried = { rate, ...(await probe(rate)) };
      probes.push(tried);
    }
    if (tried.isGood) best = tried;
    else lowestBad = rate;
    if (best === null) rate = lowestBad / 2;
    else if (lowestBad === Number.POSITIVE_INFINITY) rate = best.rate * 2;
    else if (lowestBad / best.rate <= 1 + tolerance) break;
    else rate = Math.sqrt(best.rate * lowestBad);
  }
  return { best, probes };
}
