/** Reads the three places that settings come from into one form, without judging their values. */
import { isMap, isScalar, LineCounter, parseDocument, type YAMLMap } from 'yaml';
import { isFailpointSpec } from '../base/failpoint.ts';
import { type Environment, isForeignVariable } from './environment.ts';
import type { Scalar } from './field.ts';
import { flagOf, nearest, variableOf } from './names.ts';
import type { Key } from './schema.ts';

export type Source = 'flag' | 'env' | 'file' | 'default';

export interface Setting {
  readonly key: Key;
  readonly value: Scalar;
  readonly source: Source;
  /** Where exactly: `--shards`, `BROKER_SHARDS`, `broker.yaml:3`. */
  readonly place: string;
}

/** Settings found, and what is wrong with the rest: one line each. */
export interface Found {
  readonly settings: readonly Setting[];
  readonly problems: readonly string[];
}

/** Largest configuration file that is read. */
export const FILE_BYTES_MAX = 1024 * 1024;

const SHOWN_MAX = 80;

/** A value in an error message: quoted, on one line, not too long. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
}

/**
 * What the nearest spelling stands for. A key with a short name is looked for under its long one too, which is not valid here but is what
 * the documentation calls it.
 */
function nearestOf(
  name: string,
  keys: readonly Key[],
  spell: (name: string) => string,
  others: readonly string[],
): string | null {
  const spellings = new Map(others.map((other) => [other, other]));
  for (const key of keys) spellings.set(spell(key.key), spell(key.name)).set(spell(key.name), spell(key.name));
  const near = nearest(name, spellings.keys());
  return near === null ? null : (spellings.get(near) ?? null);
}

function didYouMean(guess: string | null): string {
  return guess === null ? '`broker config print` lists all keys' : `did you mean ${guess}?`;
}

/** `--a-b VALUE`, `--a-b=VALUE`, and `--a-b` alone for true or false. `config` is the value of `--config`. */
export function readFlags(argv: readonly string[], keys: readonly Key[]): Found & { readonly config: string | null } {
  const byFlag = new Map(keys.map((key) => [flagOf(key.name), key]));
  const settings: Setting[] = [];
  const problems: string[] = [];
  const seen = new Set<string>();
  let config: string | null = null;
  let position = 0;
  while (position < argv.length) {
    const argument = argv[position] as string;
    const [, flag, given] = /^(--[^=]+)(?:=([\s\S]*))?$/.exec(argument) ?? [];
    position += 1;
    if (flag === undefined) {
      problems.push(`unexpected argument ${show(argument)}: settings are given as --key VALUE`);
      continue;
    }
    const key = byFlag.get(flag);
    if (key === undefined && flag !== '--config') {
      const following = argv[position];
      const hasValue = given === undefined && following !== undefined && !following.startsWith('--');
      if (hasValue) position += 1;
      const value = given ?? (hasValue ? following : undefined);
      const guess = nearestOf(flag, keys, flagOf, ['--config']);
      problems.push(`unknown flag ${flag}${value === undefined ? '' : ` ${show(value)}`}: ${didYouMean(guess)}`);
      continue;
    }
    let value = given;
    if (value === undefined) {
      const following = argv[position];
      const isTruth = following === 'true' || following === 'false';
      if (key?.field.type === 'boolean' && !isTruth) {
        value = 'true';
      } else if (following !== undefined && !following.startsWith('--')) {
        value = following;
        position += 1;
      }
    }
    if (value === undefined) {
      problems.push(`${flag} needs a value`);
    } else if (seen.has(flag)) {
      problems.push(`${flag} ${show(value)}: given twice`);
    } else if (key === undefined) {
      config = value;
    } else {
      settings.push({ key, value, source: 'flag', place: flag });
    }
    seen.add(flag);
  }
  return { settings, problems, config };
}

/** Variables that are empty count as not set, as a shell or a compose file leaves them. */
export function readVariables(environment: Environment, keys: readonly Key[]): Found {
  const byVariable = new Map(keys.map((key) => [variableOf(key.name), key]));
  const settings: Setting[] = [];
  const problems: string[] = [];
  for (const [variable, value] of Object.entries(environment).sort()) {
    if (!variable.startsWith('BROKER_') || value === undefined || value === '') continue;
    if (variable === 'BROKER_FAILPOINTS' && !isFailpointSpec(value)) {
      problems.push(`${variable} ${show(value)}: must be site=action[@N], and more such behind commas`);
    }
    if (isForeignVariable(variable)) continue;
    const key = byVariable.get(variable);
    if (key === undefined) {
      const guess = nearestOf(variable, keys, variableOf, []);
      problems.push(`unknown variable ${variable} ${show(value)}: ${didYouMean(guess)}`);
    } else {
      settings.push({ key, value, source: 'env', place: variable });
    }
  }
  return { settings, problems };
}

/** `text` is YAML; `path` is for messages. */
export function readYaml(text: string, path: string, keys: readonly Key[]): Found {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  const syntax = document.errors[0];
  if (syntax !== undefined) {
    const line = lines.linePos(syntax.pos[0]).line;
    return { settings: [], problems: [`${path}:${line}: not valid YAML: ${syntax.message.split('\n')[0]}`] };
  }
  if (document.contents === null) return { settings: [], problems: [] };
  if (!isMap(document.contents)) return { settings: [], problems: [`${path}: must be a mapping of keys to values`] };
  const reader = new MapReader(path, lines, keys);
  reader.read(document.contents, []);
  return reader;
}

class MapReader implements Found {
  readonly settings: Setting[] = [];
  readonly problems: string[] = [];
  readonly #path: string;
  readonly #lines: LineCounter;
  /** By key and, where there is one, by short name. */
  readonly #byName: Map<string, Key>;
  readonly #sections: Set<string>;

  constructor(path: string, lines: LineCounter, keys: readonly Key[]) {
    this.#path = path;
    this.#lines = lines;
    this.#byName = new Map(keys.flatMap((key) => [[key.key, key] as const, [key.name, key] as const]));
    this.#sections = new Set(keys.flatMap(({ key }) => (key.includes('.') ? [key.slice(0, key.indexOf('.'))] : [])));
  }

  read(map: YAMLMap, above: readonly string[]): void {
    for (const pair of map.items) {
      const name = [...above, isScalar(pair.key) ? String(pair.key.value) : '?'].join('.');
      const offset = (isScalar(pair.key) ? pair.key.range?.[0] : undefined) ?? 0;
      const place = `${this.#path}:${this.#lines.linePos(offset).line}`;
      const value: unknown = pair.value;
      if (isMap(value) && this.#sections.has(name)) {
        this.read(value, [...above, name]);
      } else if (this.#byName.has(name)) {
        this.#add(this.#byName.get(name) as Key, isScalar(value) ? value.value : undefined, place);
      } else if (this.#sections.has(name)) {
        const isEmpty = value === null || (isScalar(value) && value.value === null);
        if (!isEmpty) this.problems.push(`${place}: ${name} is a group of keys, not a key`);
      } else {
        const shown = isScalar(value) ? ` ${show(value.value)}` : '';
        const guess = nearest(name, [...this.#byName.keys(), ...this.#sections]);
        this.problems.push(`${place}: unknown key ${name}${shown}: ${didYouMean(guess)}`);
      }
    }
  }

  #add(key: Key, value: unknown, place: string): void {
    if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
      const twin = this.settings.find((setting) => setting.key === key);
      if (twin === undefined) this.settings.push({ key, value, source: 'file', place });
      else this.problems.push(`${place}: ${key.key} ${show(value)}: already set at ${twin.place}`);
    } else {
      this.problems.push(`${place}: ${key.key}: ${key.field.rule}`);
    }
  }
}
