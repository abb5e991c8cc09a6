/** Reading the query of a request: every parameter once, within its range, and none that is not known. */
import { RequestError } from './refusal.ts';

const TEXT_BYTES_MAX = 255;

export class Query {
  readonly #parameters: URLSearchParams;

  /** RequestError for a name that is not among `names`, or that comes twice. */
  constructor(parameters: URLSearchParams, names: readonly string[]) {
    for (const name of new Set(parameters.keys())) {
      if (!names.includes(name))
        throw new RequestError(400, 'a parameter of the query is not known', `use ${list(names)}`);
      if (parameters.getAll(name).length > 1) throw new RequestError(400, `${name} comes twice`, 'give it once');
    }
    this.#parameters = parameters;
  }

  has(name: string): boolean {
    return this.#parameters.has(name);
  }

  /** Empty if it is absent; at most 255 bytes, as a subject. */
  text(name: string): string {
    const value = this.#parameters.get(name) ?? '';
    if (Buffer.byteLength(value) > TEXT_BYTES_MAX) {
      throw new RequestError(400, `${name} is longer than ${TEXT_BYTES_MAX} bytes of UTF-8`, 'shorten it');
    }
    return value;
  }

  /** A whole number. */
  number(name: string, range: { readonly min: number; readonly max: number; readonly absent: number }): number {
    const value = this.#parameters.get(name);
    if (value === null) return range.absent;
    const number = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN;
    if (!(number >= range.min && number <= range.max)) {
      throw new RequestError(400, `${name} is not a whole number from ${range.min} to ${range.max}`, 'correct it');
    }
    return number;
  }

  /** One of `choices`, the first one if it is absent. */
  choice<const T extends string>(name: string, choices: readonly T[]): T {
    const value = this.#parameters.get(name) ?? choices[0];
    const found = choices.find((choice) => choice === value);
    if (found === undefined) throw new RequestError(400, `${name} is none of ${list(choices)}`, 'choose one of them');
    return found;
  }
}

function list(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.join(', ');
}
