/**
 * One key, three spellings: `a.b_c` in the file (as `a: {b_c: …}`), `--a-b-c` as a flag, `BROKER_A_B_C` as a variable. A key with a short
 * name (`shards.count` is `shards`) has that in all three places.
 */

export function flagOf(name: string): string {
  return `--${name.replace(/[._]/g, '-')}`;
}

export function variableOf(name: string): string {
  return `BROKER_${name.replace(/\./g, '_').toUpperCase()}`;
}

/**
 * The candidate that is the fewest edits away, if that is near enough to be what was meant; else the shortest that begins with it, as
 * `limits.body` begins `limits.body_bytes`.
 */
export function nearest(name: string, given: Iterable<string>): string | null {
  const candidates = [...given];
  const limit = Math.max(2, Math.floor(name.length / 3));
  let best: string | null = null;
  let bestDistance = limit + 1;
  for (const candidate of candidates) {
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best ?? beginningWith(name, candidates);
}

function beginningWith(name: string, candidates: readonly string[]): string | null {
  const longer = candidates.filter((one) => one.startsWith(name) && /^[._-]/.test(one.slice(name.length)));
  return longer.sort((left, right) => left.length - right.length)[0] ?? null;
}

/** Insertions, deletions, replacements and swaps of neighbours (optimal string alignment) that make `left` into `right`. */
export function editDistance(left: string, right: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: right.length + 1 }, (_, column) => column);
  for (let row = 1; row <= left.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= right.length; column += 1) {
      const isSame = left[row - 1] === right[column - 1];
      let cost = Math.min(
        (last[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (last[column - 1] as number) + (isSame ? 0 : 1),
      );
      const isSwap =
        row > 1 && column > 1 && left[row - 1] === right[column - 2] && left[row - 2] === right[column - 1];
      if (isSwap) cost = Math.min(cost, (beforeLast[column - 2] as number) + 1);
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return last[right.length] as number;
}
