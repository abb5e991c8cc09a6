/** Middle and spread of a few repeated measurements. */
export interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function spread(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  const lower = sorted.length % 2 === 1 ? upper : (sorted[middle - 1] ?? upper);
  return { median: (upper + lower) / 2, min: sorted[0] ?? Number.NaN, max: sorted.at(-1) ?? Number.NaN };
}

/** Of each pair of neighbouring rounds, so that what the machine does meanwhile hits both. */
export function ratios(subject: readonly number[], baseline: readonly number[]): number[] {
  return subject.map((value, index) => value / (baseline[index] ?? Number.NaN));
}
