/** A subject, or a pattern over subjects, that a permission is given or taken for: `*` stands for one token, `>` as the last one for one or more. */
const DOT = 0x2e;
/** Stands for `*` among the tokens. */
const ANY = null;

type Token = Uint8Array | typeof ANY;

export class SubjectRule {
  /** As it was written. */
  readonly text: string;
  readonly #tokens: readonly Token[];
  /** It ends with `>`, which is not among the tokens. */
  readonly #hasRest: boolean;

  private constructor(text: string, tokens: readonly Token[], hasRest: boolean) {
    this.text = text;
    this.#tokens = tokens;
    this.#hasRest = hasRest;
  }

  /** `text` is a valid subject or pattern: the rules for them are checked elsewhere. */
  static of(text: string): SubjectRule {
    const names = text.split('.');
    const hasRest = names.at(-1) === '>';
    const named = hasRest ? names.slice(0, -1) : names;
    return new SubjectRule(
      text,
      named.map((name) => (name === '*' ? ANY : new TextEncoder().encode(name))),
      hasRest,
    );
  }

  /** Whether it is for the subject bytes[start, end), which is valid. */
  matches(bytes: Uint8Array, start: number, end: number): boolean {
    let at = start;
    for (const token of this.#tokens) {
      // Behind the last token there is no dot.
      if (at > end) return false;
      if (token === ANY) {
        while (at < end && bytes[at] !== DOT) at += 1;
      } else {
        const tokenEnd = at + token.length;
        if (tokenEnd > end || (tokenEnd < end && bytes[tokenEnd] !== DOT)) return false;
        for (let i = 0; i < token.length; i++) if (bytes[at + i] !== token[i]) return false;
        at = tokenEnd;
      }
      at += 1;
    }
    return this.#hasRest ? at <= end : at > end;
  }

  /** Whether it is for every subject that `other` is for. */
  covers(other: SubjectRule): boolean {
    if (other.#tokens.length < this.#tokens.length) return false;
    const isLonger = other.#tokens.length > this.#tokens.length;
    if (!this.#hasRest && (isLonger || other.#hasRest)) return false;
    // `a.>` is not for `a` itself.
    if (this.#hasRest && !isLonger && !other.#hasRest) return false;
    return this.#tokens.every((token, i) => {
      const theirs = other.#tokens[i] as Token;
      return token === ANY || (theirs !== ANY && isSame(token, theirs));
    });
  }

  /** What both are for; null: there is no such subject. */
  meet(other: SubjectRule): SubjectRule | null {
    const [long, short] = this.#tokens.length >= other.#tokens.length ? [this, other] : [other, this];
    const isLonger = long.#tokens.length > short.#tokens.length;
    if (isLonger && !short.#hasRest) return null;
    // One ends where the other wants one token more at least.
    if (!isLonger && long.#hasRest !== short.#hasRest) return null;
    const tokens: Token[] = [];
    for (const [i, token] of long.#tokens.entries()) {
      const theirs = i < short.#tokens.length ? (short.#tokens[i] as Token) : ANY;
      if (token !== ANY && theirs !== ANY && !isSame(token, theirs)) return null;
      tokens.push(token ?? theirs);
    }
    return new SubjectRule(`${this.text} and ${other.text}`, tokens, long.#hasRest);
  }
}

function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, i) => byte === right[i]);
}
