/**
 * The part of RE2's syntax (github.com/google/re2/wiki/Syntax) that tag filters are written in: characters, `.`, classes, groups (also named ones and `(?:`),
 * `|`, `*`, `+`, `?`, `{n,m}` and their lazy forms (which find the same), `^`, `$`, `\A`, `\z`, `\b`, `\B`, `\d \D \s \S \w \W`, `[[:alpha:]]`, `\t` and
 * the like, `\x41`, and `(?i)`, `(?s)` for a group or what follows. Not understood, and so refused: `\p{...}`, `\Q...\E`, the flags m and U, octal
 * numbers. What is understood finds what Go finds.
 */
export type PatternNode =
  | { readonly kind: 'set'; readonly matches: (code: number) => boolean }
  /** `before` and `after`: the characters around, -1 at the ends. */
  | { readonly kind: 'assert'; readonly holds: (before: number, after: number) => boolean }
  | { readonly kind: 'sequence'; readonly parts: readonly PatternNode[] }
  | { readonly kind: 'choice'; readonly branches: readonly PatternNode[] }
  | { readonly kind: 'repeat'; readonly part: PatternNode; readonly min: number; readonly max: number };

/** RE2's own bound on `{n,m}`. */
const REPEAT_MAX = 1_000;
const DEPTH_MAX = 100;
const POSIX_CLASS = /^\[:(\^?)([a-z]+):\]/;
const COUNT = /^\{(\d{1,4})(,(\d{0,4}))?\}/;

type Matcher = (code: number) => boolean;

const isDigit: Matcher = (code) => code >= 0x30 && code <= 0x39;
const isLower: Matcher = (code) => code >= 0x61 && code <= 0x7a;
const isUpper: Matcher = (code) => code >= 0x41 && code <= 0x5a;
const isAlpha: Matcher = (code) => isLower(code) || isUpper(code);
const isWord: Matcher = (code) => isAlpha(code) || isDigit(code) || code === 0x5f;
const isPerlSpace: Matcher = (code) =>
  code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0c || code === 0x0d;
const isSpace: Matcher = (code) => isPerlSpace(code) || code === 0x0b;
const isGraph: Matcher = (code) => code >= 0x21 && code <= 0x7e;

const PERL: ReadonlyMap<string, Matcher> = new Map([
  ['d', isDigit],
  ['s', isPerlSpace],
  ['w', isWord],
]);

const POSIX: ReadonlyMap<string, Matcher> = new Map<string, Matcher>([
  ['alnum', (code) => isAlpha(code) || isDigit(code)],
  ['alpha', isAlpha],
  ['ascii', (code) => code <= 0x7f],
  ['blank', (code) => code === 0x20 || code === 0x09],
  ['cntrl', (code) => code < 0x20 || code === 0x7f],
  ['digit', isDigit],
  ['graph', isGraph],
  ['lower', isLower],
  ['print', (code) => isGraph(code) || code === 0x20],
  ['punct', (code) => isGraph(code) && !isAlpha(code) && !isDigit(code)],
  ['space', isSpace],
  ['upper', isUpper],
  ['word', isWord],
  ['xdigit', (code) => isDigit(code) || (code >= 0x61 && code <= 0x66) || (code >= 0x41 && code <= 0x46)],
]);

const CONTROL: ReadonlyMap<string, number> = new Map([
  ['a', 7],
  ['f', 12],
  ['n', 10],
  ['r', 13],
  ['t', 9],
  ['v', 11],
]);

/** Null: not of the syntax. */
export function parsePattern(expression: string): PatternNode | null {
  const parser = new Parser(expression);
  const node = parser.choice(0);
  return parser.isWhole ? node : null;
}

class Parser {
  readonly #characters: readonly string[];
  #at = 0;
  #hasFailed = false;
  #ignoresCase = false;
  #dotMatchesNewline = false;

  constructor(expression: string) {
    this.#characters = Array.from(expression);
  }

  get isWhole(): boolean {
    return !this.#hasFailed && this.#at === this.#characters.length;
  }

  choice(depth: number): PatternNode {
    const branches: PatternNode[] = [];
    if (depth > DEPTH_MAX) this.#fail();
    do {
      const parts: PatternNode[] = [];
      while (!this.#hasFailed && !this.#isAtEnd && !this.#sees('|') && !this.#sees(')'))
        parts.push(this.#repeated(depth));
      branches.push({ kind: 'sequence', parts });
    } while (!this.#hasFailed && this.#takes('|'));
    return branches.length === 1 ? (branches[0] as PatternNode) : { kind: 'choice', branches };
  }

  get #isAtEnd(): boolean {
    return this.#at >= this.#characters.length;
  }

  #fail(): void {
    this.#hasFailed = true;
  }

  #sees(text: string): boolean {
    return (text.length === 1 ? this.#characters[this.#at] : this.#ahead(text.length)) === text;
  }

  #ahead(length: number): string {
    return this.#characters.slice(this.#at, this.#at + length).join('');
  }

  #takes(text: string): boolean {
    const isThere = this.#sees(text);
    if (isThere) this.#at += text.length;
    return isThere;
  }

  #next(): string {
    const character = this.#characters[this.#at++];
    if (character === undefined) this.#fail();
    return character ?? '';
  }

  #repeated(depth: number): PatternNode {
    const part = this.#atom(depth);
    const bounds = this.#bounds();
    if (bounds === null) return part;
    this.#takes('?'); // lazy: the same is found
    // As in RE2: an operator does not stand behind another.
    const mark = this.#at;
    if (this.#bounds() !== null) this.#fail();
    this.#at = mark;
    return { kind: 'repeat', part, ...bounds };
  }

  #bounds(): { min: number; max: number } | null {
    if (this.#takes('*')) return { min: 0, max: Number.POSITIVE_INFINITY };
    if (this.#takes('+')) return { min: 1, max: Number.POSITIVE_INFINITY };
    if (this.#takes('?')) return { min: 0, max: 1 };
    const found = this.#sees('{') ? COUNT.exec(this.#ahead(12)) : null;
    // A brace that is no count is a character.
    if (found === null) return null;
    this.#at += found[0].length;
    const min = Number(found[1]);
    const max = found[2] === undefined ? min : found[3] === '' ? Number.POSITIVE_INFINITY : Number(found[3]);
    if (min > REPEAT_MAX || max < min || (max > REPEAT_MAX && max !== Number.POSITIVE_INFINITY)) this.#fail();
    return { min, max };
  }

  #atom(depth: number): PatternNode {
    // A count with nothing in front of it.
    if (this.#sees('{') && COUNT.test(this.#ahead(12))) this.#fail();
    const character = this.#next();
    switch (character) {
      case '(':
        return this.#group(depth);
      case '[':
        return this.#class();
      case '.': {
        const all = this.#dotMatchesNewline;
        return set((code) => all || code !== 0x0a);
      }
      case '^':
        return { kind: 'assert', holds: (before) => before < 0 };
      case '$':
        return { kind: 'assert', holds: (_, after) => after < 0 };
      case '\\':
        return this.#escape();
      case '*':
      case '+':
      case '?':
        this.#fail();
        return set(() => false);
      default:
        return this.#literal(character);
    }
  }

  #literal(character: string): PatternNode {
    return set(this.#folded(equals(character.codePointAt(0) ?? -1)));
  }

  #folded(matches: Matcher): Matcher {
    if (!this.#ignoresCase) return matches;
    return (code) => {
      if (matches(code)) return true;
      const character = String.fromCodePoint(code);
      return [character.toLowerCase(), character.toUpperCase()].some((one) => matches(one.codePointAt(0) ?? -1));
    };
  }

  #group(depth: number): PatternNode {
    const flags = [this.#ignoresCase, this.#dotMatchesNewline] as const;
    if (this.#takes('?')) {
      const rest = this.#ahead(64);
      const found = /^(?:P?<[A-Za-z_]\w*>|([is]*)(?:-([is]*))?([:)]))/.exec(rest);
      if (found === null) {
        this.#fail();
        return set(() => false);
      }
      this.#at += found[0].length;
      const [on, off] = [found[1] ?? '', found[2] ?? ''];
      this.#ignoresCase = (this.#ignoresCase || on.includes('i')) && !off.includes('i');
      this.#dotMatchesNewline = (this.#dotMatchesNewline || on.includes('s')) && !off.includes('s');
      // Flags alone hold to the end of the group that they are in. They cannot be repeated.
      if (found[3] === ')') {
        const mark = this.#at;
        if (this.#bounds() !== null) this.#fail();
        this.#at = mark;
        return { kind: 'sequence', parts: [] };
      }
    }
    const node = this.choice(depth + 1);
    [this.#ignoresCase, this.#dotMatchesNewline] = flags;
    if (!this.#takes(')')) this.#fail();
    return node;
  }

  #escape(): PatternNode {
    const character = this.#next();
    const perl = PERL.get(character.toLowerCase());
    if (perl !== undefined) return set(PERL.has(character) ? perl : (code) => !perl(code));
    switch (character) {
      case 'A':
        return { kind: 'assert', holds: (before) => before < 0 };
      case 'z':
        return { kind: 'assert', holds: (_, after) => after < 0 };
      case 'b':
        return { kind: 'assert', holds: (before, after) => isWord(before) !== isWord(after) };
      case 'B':
        return { kind: 'assert', holds: (before, after) => isWord(before) === isWord(after) };
      default:
        return set(this.#folded(equals(this.#escapedCode(character))));
    }
  }

  #escapedCode(character: string): number {
    const control = CONTROL.get(character);
    if (control !== undefined) return control;
    if (character === 'x') {
      const found = /^(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})/.exec(this.#ahead(9));
      this.#at += found?.[0].length ?? 0;
      const code = Number.parseInt(found?.[1] ?? found?.[2] ?? '', 16);
      if (code <= 0x10ffff) return code;
    } else if (character !== '' && !/[A-Za-z0-9]/.test(character) && character.length === 1 && character < '\x80') {
      return character.charCodeAt(0);
    }
    this.#fail();
    return -1;
  }

  #class(): PatternNode {
    const isNegated = this.#takes('^');
    const matchers: Matcher[] = [];
    for (let isFirst = true; !this.#hasFailed && (isFirst || !this.#sees(']')); isFirst = false) {
      matchers.push(this.#classPart());
    }
    if (!this.#takes(']')) this.#fail();
    const matches = this.#folded((code) => matchers.some((one) => one(code)));
    return set(isNegated ? (code) => !matches(code) : matches);
  }

  #classPart(): Matcher {
    const posix = this.#sees('[:') ? POSIX_CLASS.exec(this.#ahead(16)) : null;
    if (posix !== null) {
      this.#at += posix[0].length;
      return this.#maybeNot(POSIX.get(posix[2] as string), posix[1] === '^');
    }
    if (this.#sees('\\')) {
      const name = this.#characters[this.#at + 1] ?? '';
      const perl = PERL.get(name.toLowerCase());
      if (perl !== undefined) {
        this.#at += 2;
        return this.#maybeNot(perl, !PERL.has(name));
      }
    }
    const low = this.#classCode();
    // A minus before the end is a character.
    if (!this.#sees('-') || this.#characters[this.#at + 1] === ']') return equals(low);
    this.#at += 1;
    const high = this.#classCode();
    if (high < low) this.#fail();
    return (code) => code >= low && code <= high;
  }

  #classCode(): number {
    const character = this.#next();
    return character === '\\' ? this.#escapedCode(this.#next()) : (character.codePointAt(0) ?? -1);
  }

  #maybeNot(matches: Matcher | undefined, isNegated: boolean): Matcher {
    if (matches === undefined) this.#fail();
    const known = matches ?? (() => false);
    return isNegated ? (code) => !known(code) : known;
  }
}

function set(matches: Matcher): PatternNode {
  return { kind: 'set', matches };
}

function equals(wanted: number): Matcher {
  return (code) => code === wanted;
}
