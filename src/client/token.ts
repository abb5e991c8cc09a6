/** The bearer token of a client: one that stays, or one that is asked for again. */

/** A function is asked for each connection that is made, and when the broker takes the token no more: so that tokens which expire are renewed. */
export type TokenSource = string | (() => string | Promise<string>);

/** RFC 6750, section 2.1. */
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/;
/** A token that was asked for so short a time ago is refused for good, in ms: asking again would bring the same. */
const RENEW_MS = 2_000;

export class Token {
  readonly #source: TokenSource;
  #value: string | null = null;
  #askedAt = Number.NEGATIVE_INFINITY;

  /** Throws a RangeError for a text that is no token. It is not told. */
  constructor(source: TokenSource) {
    this.#source = source;
    if (typeof source === 'string') this.#value = checked(source);
  }

  /** Null: it has to be asked for first. */
  get value(): string | null {
    return this.#value;
  }

  /** Asks anew where there is somebody to ask. Rejects with what the function throws, and with a RangeError for what is no token. */
  async ask(): Promise<void> {
    const source = this.#source;
    if (typeof source === 'string') return;
    this.#askedAt = performance.now();
    this.#value = checked(await source());
  }

  /** The broker has refused `used`: true if it is worth a try with another one. */
  refused(used: string | null): boolean {
    if (typeof this.#source === 'string') return false;
    // Another one was asked for since, by whoever was refused first.
    if (used !== null && used !== this.#value) return true;
    if (performance.now() - this.#askedAt < RENEW_MS) return false;
    this.#value = null;
    return true;
  }
}

function checked(token: unknown): string {
  if (typeof token === 'string' && TOKEN.test(token)) return token;
  throw new RangeError('token: letters, digits and "-._~+/" with "=" at the end, as it stands behind Bearer');
}
