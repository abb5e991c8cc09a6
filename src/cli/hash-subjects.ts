/** Names of subjects in a bundle, made unreadable: the same name is the same everywhere in it, and in no other bundle. */
import { createHmac, randomBytes } from 'node:crypto';

/** Keys of JSON under which names of subjects, patterns and prefixes of them are. */
const NAMED_BY = /^(subject|subjects|pattern|prefix|subjectPrefix|subject_prefix)$/;
/** In lines of the audit: what an operator's action was given. */
const ARGUMENTS = 'arguments';
/** Lists whose entries have subjects as their names. */
const LISTS = /^(subjects|hotSubjects)$/;
const LABEL = /\b(subject|pattern|subject_prefix|prefix)="((?:[^"\\]|\\.)*)"/g;
/** Shorter names would be found inside of other words. */
const FOUND_CHARACTERS_MIN = 3;
const DIGITS = 10;

export class SubjectHasher {
  readonly #key: Buffer;
  readonly #hashed = new Map<string, string>();

  constructor(key: Buffer = randomBytes(32)) {
    this.#key = key;
  }

  /** Token by token, so that what belongs together still does; wildcards stay. */
  hash(name: string): string {
    if (name === '') return name;
    let made = this.#hashed.get(name);
    made ??= name
      .split('.')
      .map((token) => this.#token(token))
      .join('.');
    this.#hashed.set(name, made);
    return made;
  }

  #token(token: string): string {
    if (token === '' || token === '*' || token === '>') return token;
    return `h${createHmac('sha256', this.#key).update(token).digest('hex').slice(0, DIGITS)}`;
  }

  /** A value of JSON with the names in it hashed. */
  value(value: unknown, key = ''): unknown {
    if (typeof value === 'string') {
      if (key === ARGUMENTS) return this.#arguments(value);
      return NAMED_BY.test(key) ? this.hash(value) : value;
    }
    if (Array.isArray(value)) return value.map((one) => this.value(one, key));
    if (typeof value !== 'object' || value === null) return value;
    const entries = Object.entries(value).map(([name, inner]) => [
      name,
      this.value(inner, name === 'name' && LISTS.test(key) ? 'subject' : name),
    ]);
    return Object.fromEntries(entries);
  }

  /** They are JSON in a text. */
  #arguments(text: string): string {
    try {
      return JSON.stringify(this.value(withoutQuotas(JSON.parse(text))));
    } catch {
      // Something else is called so.
      return text;
    }
  }

  /** Lines of JSON, of the log. Names that are known by then are replaced in what is written around them too, so do it last. */
  lines(text: string): string {
    const lines = text.split('\n').map((line) => {
      try {
        return line === '' ? '' : JSON.stringify(this.value(withoutQuotas(JSON.parse(line))));
      } catch {
        // Cut off: what is known of it is replaced below.
        return line;
      }
    });
    return this.#known(lines.join('\n'));
  }

  /** Metrics in the text format of Prometheus. */
  metrics(text: string): string {
    return text.replace(LABEL, (_, label: string, name: string) => `${label}="${this.hash(name)}"`);
  }

  #known(text: string): string {
    const names = [...this.#hashed.keys()].filter(({ length }) => length >= FOUND_CHARACTERS_MIN);
    // The longest first: a name may begin another one.
    names.sort((left, right) => right.length - left.length);
    return names.reduce((rest, name) => rest.replaceAll(name, this.#hashed.get(name) as string), text);
  }
}

/** A setting, or a line of the log on one: rules of quotas name subjects inside of a text. */
export function withoutQuotas(row: unknown): unknown {
  const isQuota = typeof row === 'object' && row !== null && 'key' in row && String(row.key).startsWith('quotas.');
  return isQuota ? { ...row, value: '(hidden)' } : row;
}
