/** Bytes that nobody should send, made from those that somebody may. */

/** A generator of numbers in [0, below) that a failure can be repeated with (xorshift32). */
export function numbersFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** Valid bytes with some changed, cut out, doubled, or noise in their place. */
export function mutate(bytes: Buffer, number: (below: number) => number): Buffer {
  let result: Buffer = Buffer.from(bytes);
  for (let edits = 1 + number(4); edits > 0; edits--) {
    const at = number(result.length + 1);
    const to = Math.min(result.length, at + number(12));
    const noise = noiseOf(number(12), number);
    const choice = number(4);
    if (choice === 0) result = Buffer.concat([result.subarray(0, at), result.subarray(to)]);
    else if (choice === 1) result = Buffer.concat([result.subarray(0, to), result.subarray(at)]);
    else if (choice === 2) result = Buffer.concat([result.subarray(0, at), noise, result.subarray(to)]);
    else if (at < result.length) result[at] = number(256);
  }
  return result;
}

export function noiseOf(length: number, number: (below: number) => number): Buffer {
  return Buffer.from(Array.from({ length }, () => number(256)));
}
