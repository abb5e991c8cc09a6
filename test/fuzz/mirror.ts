import type { Watch } from './engine.ts';

/** Shared memory in which the fuzzing thread keeps what it is doing, for the one that watches it: if it never ends, this is all that is known of it. */
export class Mirror implements Watch {
  static readonly BYTES = (1 << 20) + 16;
  /** begun: counts inputs, runs: those of the target under way, length: of the input, target: its place in the list. */
  readonly #words: Int32Array;
  readonly #bytes: Buffer;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, 4);
    this.#bytes = Buffer.from(memory, 16);
  }

  begins(input: Uint8Array, run: number): void {
    const words = this.#words;
    words[0] = (words[0] as number) + 1;
    words[1] = run;
    words[2] = Math.min(input.length, this.#bytes.length);
    this.#bytes.set(input.length > this.#bytes.length ? input.subarray(0, this.#bytes.length) : input);
  }

  set target(place: number) {
    this.#words[3] = place;
  }

  get target(): number {
    return Atomics.load(this.#words, 3);
  }

  get begun(): number {
    return Atomics.load(this.#words, 0);
  }

  get run(): number {
    return Atomics.load(this.#words, 1);
  }

  get input(): Uint8Array {
    return Uint8Array.from(this.#bytes.subarray(0, Atomics.load(this.#words, 2)));
  }
}
