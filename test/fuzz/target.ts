export const SHORT_RUNS = 2_000;

/** What is fuzzed: one parser as the broker calls it. */
import { crc32 } from 'node:zlib';
import { numbersFrom } from '../support/fuzz.ts';

export interface FuzzTarget {
  readonly name: string;
  readonly about: string;
  /** The most memory that one input may cost, in bytes, garbage included; twice of it is a failure. */
  readonly memoryBytes: number;
  /** Mutants are not longer, in bytes. Default 4,096. */
  readonly lengthMax?: number;
  /** Mutants of the short form in `npm test`. Default SHORT_RUNS; fewer where one takes long. */
  readonly shortRuns?: number;
  /** What a mutant is made of, besides parts of the seeds. */
  readonly dictionary?: readonly (string | Uint8Array)[];
  /** Files of src/, by the start of their path, whose short strings go into the dictionary too. */
  readonly wordsOf?: readonly string[];
  /** Bytes that are accepted, made by the production encoder, and interesting ones. */
  seeds(): readonly Uint8Array[];
  /** Makes checksums and lengths right again, so that a mutant comes past the door. Applied to most of them. */
  repair?(bytes: Buffer): Buffer;
  /**
   * Parses; true if the bytes were accepted. Throws what must not happen: an error that the parser does not declare, or one of an oracle. Keeps nothing
   * of `bytes`, and does the same for the same bytes.
   */
  run(bytes: Buffer): boolean | Promise<boolean>;
}

export class Disagreement extends Error {
  override name = 'Disagreement';
}

/** The oracle's word. `detail` is made only when it is needed. */
export function expect(condition: boolean, what: string, detail: () => unknown = () => ''): asserts condition {
  if (!condition) throw new Disagreement(`${what} ${show(detail())}`.trim());
}

function show(value: unknown): string {
  const text = (_key: string, part: unknown): unknown => (typeof part === 'bigint' ? `${part}n` : part);
  return typeof value === 'string' ? value : JSON.stringify(value, text).slice(0, 1_000);
}

/** True if `body` returns; false if it throws what `isDeclared` knows. Everything else goes on. */
export function accepts(isDeclared: (error: unknown) => boolean, body: () => void): boolean {
  try {
    body();
  } catch (error) {
    if (isDeclared(error)) return false;
    throw error;
  }
  return true;
}

/** Cuts the bytes in places that follow from them, so that the same input is always cut in the same way. */
export function piecesOf(bytes: Buffer): Buffer[] {
  const number = numbersFrom((crc32(bytes) | 1) >>> 0);
  const kind = number(4);
  if (kind === 0) return [bytes];
  const pieces: Buffer[] = [];
  const most = kind === 1 ? 1 : kind === 2 ? 7 : 1 + (bytes.length >>> 1);
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + 1 + number(most));
    pieces.push(bytes.subarray(at, end));
    at = end;
  }
  return pieces;
}

/** 0 to `below` - 1, from the bytes. */
export function choiceOf(bytes: Uint8Array, below: number): number {
  return crc32(bytes) % below;
}
