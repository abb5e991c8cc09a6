import type { Prng } from '../../src/base/prng.ts';

/** A copy in another order, from the seed. */
export function shuffled<T>(list: readonly T[], prng: Prng): T[] {
  const copy = [...list];
  for (let at = copy.length - 1; at > 0; at--) {
    const other = prng.nextBelow(at + 1);
    [copy[at], copy[other]] = [copy[other] as T, copy[at] as T];
  }
  return copy;
}
