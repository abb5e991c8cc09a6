/**
 * Marks the branches of a module's text, so that the fuzzer sees after every single run whether it came somewhere new. Node's own precise coverage tells
 * the same, but is asked for all scripts at once, for milliseconds, so only for thousands of runs together.
 *
 * It works on tokens of plain JavaScript (types are gone), and puts into its lines, which stay where they are:
 *
 *   if (a && b)         ->  if (__y(1,(a &&__t(3)&& b)))          either outcome of a condition, and its second half
 *   a ? b : c           ->  a ?(__h(4), b) : c
 *   case 1:             ->  case 1:__h(5);
 *   (…) => {, f() {     ->  {__h(6);                              functions, loops and catch blocks
 */
export interface Instrumented {
  readonly text: string;
  /** Points 0 to `points` - 1 were added to `firstPoint`. */
  readonly points: number;
  /** Numbers and short strings that the module compares with, perhaps. */
  readonly numbers: ReadonlySet<number>;
  readonly words: ReadonlySet<string>;
}

interface Token {
  readonly text: string;
  readonly start: number;
  readonly end: number;
  readonly kind: 'word' | 'number' | 'string' | 'template' | 'regex' | 'sign';
}

const WORD = /[\p{ID_Start}$_#][\p{ID_Continue}$]*/uy;
const NUMBER = /0[xXbBoO][\da-fA-F_]+n?|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?n?/y;
const STRING = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/y;
const REGEX = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/[a-z]*/y;
const BLANK = /(?:\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/)+/y;
const SIGN =
  /=>|\?\?=|\?\?|\?\.(?!\d)|&&=|&&|\|\|=|\|\||\.\.\.|>>>=|>>>|<<=|>>=|<<|>>|\*\*=|\*\*|[=!]==|[=!<>+\-*/%&|^]=|\+\+|--|[\s\S]/y;
/** Behind these words a slash begins a regular expression. */
const BEFORE_REGEX = /^(?:return|typeof|case|in|of|delete|void|throw|new|else|do|yield|await|instanceof)$/;
const WORD_LENGTH_MAX = 24;

function at(pattern: RegExp, text: string, offset: number): string | null {
  pattern.lastIndex = offset;
  return pattern.exec(text)?.[0] ?? null;
}

/** Tokens without blanks and comments; a template is one token with all that is in it. */
export function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  for (let offset = 0; offset < text.length; ) {
    offset += at(BLANK, text, offset)?.length ?? 0;
    if (offset === text.length) break;
    const token = tokenAt(text, offset, tokens.at(-1));
    tokens.push(token);
    offset = token.end;
  }
  return tokens;
}

function tokenAt(text: string, start: number, previous: Token | undefined): Token {
  const first = text[start] as string;
  if (first === '`') return { text: '`', start, end: templateEnd(text, start), kind: 'template' };
  const isValueBefore =
    previous !== undefined &&
    (previous.kind === 'sign' ? /^[)\]}]$/.test(previous.text) : !BEFORE_REGEX.test(previous.text));
  const kinds = [
    ['word', WORD],
    ['number', NUMBER],
    ['string', STRING],
    ...(first === '/' && !isValueBefore ? ([['regex', REGEX]] as const) : []),
    ['sign', SIGN],
  ] as const;
  for (const [kind, pattern] of kinds) {
    const found = at(pattern, text, start);
    if (found !== null) return { text: found, start, end: start + found.length, kind };
  }
  throw new Error(`no token at ${start}`);
}

function templateEnd(text: string, start: number): number {
  for (let offset = start + 1; offset < text.length; offset++) {
    if (text[offset] === '\\') offset += 1;
    else if (text[offset] === '`') return offset + 1;
    else if (text[offset] === '$' && text[offset + 1] === '{') offset = holeEnd(text, offset + 2);
  }
  throw new Error(`a template without an end at ${start}`);
}

/** Offset of the brace that ends the hole of a template. */
function holeEnd(text: string, start: number): number {
  let depth = 0;
  let previous: Token | undefined;
  for (let offset = start; ; ) {
    offset += at(BLANK, text, offset)?.length ?? 0;
    const token = tokenAt(text, offset, previous);
    if (token.text === '{') depth += 1;
    if (token.text === '}') depth -= 1;
    if (depth < 0) return offset;
    previous = token;
    offset = token.end;
  }
}

/** What is open: a bracket with the word in front of it, a ternary or a case that waits for its colon. */
interface Open {
  readonly sign: string;
  /** Of `(`: the word before it. Of `{`: that of the parentheses before it. */
  readonly word: string;
}

export function instrument(text: string, firstPoint: number): Instrumented {
  const inserts: { readonly at: number; readonly text: string }[] = [];
  const open: Open[] = [];
  const numbers = new Set<number>();
  const words = new Set<string>();
  let points = 0;
  let closed: Open = { sign: '', word: '' };
  let previous: Token = { text: ';', start: 0, end: 0, kind: 'sign' };
  const point = (count = 1): number => {
    points += count;
    return firstPoint + points - count;
  };
  const put = (offset: number, code: string): void => {
    inserts.push({ at: offset, text: code });
  };
  for (const token of tokensOf(text)) {
    const isName = previous.text === '.' || previous.text === '?.';
    if (token.kind === 'number') numbers.add(Number(token.text.replaceAll(/[_n]/g, '')));
    if (token.kind === 'string' && token.text.length <= WORD_LENGTH_MAX) words.add(token.text.slice(1, -1));
    if (token.kind === 'word' && !isName && token.text === 'case' && open.at(-1)?.word === 'switch') {
      open.push({ sign: 'case', word: '' });
    } else if (token.kind === 'sign') {
      switch (token.text) {
        case '(': {
          const word = isName || previous.kind !== 'word' ? '' : previous.text;
          open.push({ sign: '(', word });
          if (word === 'if' || word === 'while') put(token.end, `__y(${point(2)},(`);
          break;
        }
        case '[':
          open.push({ sign: '[', word: '' });
          break;
        case '{': {
          const word = previous.text === ')' ? closed.word : '';
          open.push({ sign: '{', word });
          const isBody = previous.text === '=>' || (previous.text === ')' && !/^(?:switch|if|while)$/.test(word));
          if (isBody || previous.text === 'catch') put(token.end, `__h(${point()});`);
          break;
        }
        case ')':
        case ']':
        case '}':
          closed = open.pop() ?? closed;
          if (token.text === ')' && (closed.word === 'if' || closed.word === 'while')) put(token.start, '))');
          break;
        case '?':
          open.push({ sign: '?', word: '' });
          put(token.end, `(__h(${point()}),`);
          break;
        case ':': {
          const waiting = open.at(-1);
          if (waiting?.sign === '?') put(token.start, ')');
          if (waiting?.sign === '?' || waiting?.sign === 'case') open.pop();
          const isDefault = previous.text === 'default' && open.at(-1)?.word === 'switch';
          if (waiting?.sign === 'case' || isDefault) put(token.end, `__h(${point()});`);
          break;
        }
        case '&&':
          put(token.end, `__t(${point()})&&`);
          break;
        case '||':
          put(token.end, `__f(${point()})||`);
          break;
        default:
      }
    }
    previous = token;
  }
  let result = '';
  let from = 0;
  for (const insert of inserts) {
    result += text.slice(from, insert.at) + insert.text;
    from = insert.at;
  }
  const head = 'const{h:__h,y:__y,t:__t,f:__f}=globalThis.__fuzzPoints;';
  return { text: head + result + text.slice(from), points, numbers, words };
}
