import { WireError } from './wire-error.ts';

/** Takes the fields of a decoded array one after another. Each method throws WireError if the next field is not what it says. Fields behind the last one that is asked for are a later version's. */
export class Fields {
  readonly #values: readonly unknown[];
  readonly #what: string;
  #at = 0;

  /** `what` is named in errors. */
  constructor(value: unknown, what: string) {
    if (!Array.isArray(value)) throw new WireError('MALFORMED', `${what}: not an array`);
    this.#values = value;
    this.#what = what;
  }

  get left(): number {
    return this.#values.length - this.#at;
  }

  /** An integer from 0 to `max`. */
  uint(max: number): number {
    const value = this.#next();
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 && value <= max) return value;
    throw this.wrong('number');
  }

  boolean(): boolean {
    const value = this.#next();
    if (typeof value === 'boolean') return value;
    throw this.wrong('boolean');
  }

  /** At most `lengthMax` UTF-16 units. */
  text(lengthMax: number): string {
    const value = this.#next();
    if (typeof value === 'string' && value.length <= lengthMax) return value;
    throw this.wrong('string');
  }

  bytes(): Uint8Array {
    const value = this.#next();
    if (value instanceof Uint8Array) return value;
    throw this.wrong('byte string');
  }

  /** One of `names`, which is sent as its place in them. */
  oneOf<T>(names: readonly T[]): T {
    return names[this.uint(names.length - 1)] as T;
  }

  nested(what: string): Fields {
    return new Fields(this.#next(), what);
  }

  /** As `nested`, or null for nil. */
  maybeNested(what: string): Fields | null {
    const value = this.#next();
    return value === null ? null : new Fields(value, what);
  }

  wrong(kind: string): WireError {
    return new WireError('MALFORMED', `${this.#what}: field ${this.#at} is not a ${kind} that may stand there`);
  }

  #next(): unknown {
    const value = this.#values[this.#at];
    this.#at += 1;
    return value;
  }
}
