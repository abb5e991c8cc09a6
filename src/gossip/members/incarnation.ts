/**
 * Incarnations: 32 bits, raised only by the node they are about, compared as numbers as in memberlist, with one difference. There, a message about
 * a node with 2^32 - 1 cannot be refuted: the next is 0, which everybody takes for older. Here the lowest quarter is newer than the highest,
 * so that a count may go around, and one that jumps from the lowest quarter to the highest is taken for an old one.
 * Real counts are small: a node would have to be accused 2^30 times to notice. Forged ones can put some members ahead of others so that they do not
 * take the same refutation; then the next suspicion of those who lag is newer for the accused, and its answer is newer for all.
 */
export const INCARNATION_MAX = 0xffff_ffff;

const QUARTER = 0x4000_0000;

/** Below 0: `a` is older than `b`; 0: the same; above 0: newer. */
export function compareIncarnations(a: number, b: number): number {
  const isAround = (a < QUARTER && b >= 3 * QUARTER) || (b < QUARTER && a >= 3 * QUARTER);
  return isAround ? b - a : a - b;
}

/** The next: 0 is left out, because memberlist ignores the first message about a node if that is its incarnation. */
export function nextIncarnation(incarnation: number): number {
  return incarnation === INCARNATION_MAX ? 1 : incarnation + 1;
}

export function isIncarnation(value: number): boolean {
  return value >>> 0 === value;
}
