/**
 * Small seeded generator (splitmix32 over a 32-bit state) for cores, tests and the simulator. Not for secrets.
 * The same seed gives the same numbers on every machine and version.
 */
export class Prng {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 2^32). */
  nextUint32(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  }

  /** Uniform integer in [0, bound), bound in 1..2^32. */
  nextBelow(bound: number): number {
    return Math.floor((this.nextUint32() / 0x1_0000_0000) * bound);
  }

  /** True with probability `numerator` / `denominator`. */
  chance(numerator: number, denominator: number): boolean {
    return this.nextBelow(denominator) < numerator;
  }
}
