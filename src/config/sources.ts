/** Reads the three places that settings come from into one form, without judging their values. */
import type { LineCounter, YAMLMap } from 'yaml';
import { isFailpointSpec } from '../base/failpoint.ts';
import { type Environment, isForeignVariable } from './environment.ts';
import { MASK, type Scalar } from './field.ts';
import { flagOf, nearest, variableOf } from './names.ts';
import type { Key } from './schema.ts';
import { yaml } from './yaml.ts';

/** `changed`: while the broker runs. */
export type Source = 'flag' | 'env' | 'file' | 'default' | 'changed';

export interface Setting {
  readonly key: Key;
  readonly value: Scalar;
  /** The value is the path of a file that has the secret. */
  readonly isFile?: true;
  readonly source: Source;
  /** Where exactly: `--shards`, `BROKER_SHARDS`, `broker.yaml:3`. */
  readonly place: string;
}

/** Settings found, and what is wrong with the rest: one line each. */
export interface Found {
  readonly settings: readonly Setting[];
  readonly problems: readonly string[];
}

/** What a name in a source stands for: a key, or with `isFile` the file of a secret. */
interface Named {
  readonly key: Key;
  readonly isFile?: true;
}

/** By all names that `spell` makes: of a secret there are two, `gossip.key` and `gossip.key_file`. */
function byName(keys: readonly Key[], spell: (name: string) => string): Map<string, Named> {
  return new Map(keys.flatMap((key) => namesOf(key, key.name).map(([name, named]) => [spell(name), named] as const)));
}

function namesOf(key: Key, name: string): readonly (readonly [string, Named])[] {
  const itself = [name, { key }] as const;
  return key.field.isSecret === true ? [itself, [fileNameOf(name), { key, isFile: true }]] : [itself];
}

/** Under this name a secret key takes the path of a file instead. */
export function fileNameOf(name: string): string {
  return `${name}_file`;
}

/** A secret and its file, both given in one place: nobody knows which of them is meant. */
function twins(settings: readonly Setting[]): string[] {
  return settings.flatMap((setting, index) => {
    const twin = settings.slice(0, index).find(({ key }) => key === setting.key);
    return twin === undefined ? [] : [`${twin.place} and ${setting.place}: only one of them may be given`];
  });
}

/** Largest configuration file that is read. */
export const FILE_BYTES_MAX = 1024 * 1024;

const SHOWN_MAX = 80;

/** A stray argument that may be shown: a word. Anything else may be the secret of a flag that was misspelt. */
const WORD = /^[a-z][a-z-]{0,19}$/;

/** A value in an error message: quoted, on one line, not too long. */
export function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
}

/** Of a URL, user and password, and what follows "?", which may hold a key. */
const URL_SECRETS = /(?<=:\/\/).*@|(?<=:\/\/[^?]*\?).*/gs;

/** The value of a key in an error message, as `show`, with what nobody should read left out. */
export function showValue(key: Key, value: unknown): string {
  return show(key.field.isSecret === true || typeof value === 'string' ? disguised(key, String(value)) : value);
}

/** What somebody gave for a key, with what nobody should read left out: also a password where none may be. */
export function disguised({ field }: Key, text: string): string {
  if (field.isSecret === true) return field.format(text);
  return text.replace(URL_SECRETS, (found) => (found.endsWith('@') ? `${MASK}@` : MASK));
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
  for (const key of keys) {
    for (const [name] of namesOf(key, key.key)) spellings.set(spell(name), spell(name.replace(key.key, key.name)));
    for (const [name] of namesOf(key, key.name)) spellings.set(spell(name), spell(name));
  }
  const near = nearest(name, spellings.keys());
  return near === null ? null : (spellings.get(near) ?? null);
}

function didYouMean(guess: string | null): string {
  return guess === null ? '`broker config print` lists all keys' : `did you mean ${guess}?`;
}

/** `--a-b VALUE`, `--a-b=VALUE`, and `--a-b` alone for true or false. `config` is the value of `--config`. */
export function readFlags(argv: readonly string[], keys: readonly Key[]): Found & { readonly config: string | null } {
  const byFlag = byName(keys, flagOf);
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
      problems.push(
        `unexpected argument${WORD.test(argument) ? ` ${show(argument)}` : ''}: settings are given as --key VALUE`,
      );
      continue;
    }
    const named = byFlag.get(flag);
    if (named === undefined && flag !== '--config') {
      const following = argv[position];
      if (given === undefined && following !== undefined && !following.startsWith('--')) position += 1;
      // What its value is, nobody knows: it may be a secret whose name was misspelt.
      const name = /^--[\w.-]*/.exec(flag)?.[0] ?? '--';
      problems.push(`unknown flag ${name}: ${didYouMean(nearestOf(name, keys, flagOf, ['--config']))}`);
      continue;
    }
    let value = given;
    if (value === undefined) {
      const following = argv[position];
      const isTruth = following === 'true' || following === 'false';
      if (named?.key.field.type === 'boolean' && !isTruth) {
        value = 'true';
      } else if (following !== undefined && !following.startsWith('--')) {
        value = following;
        position += 1;
      }
    }
    if (value === undefined) {
      problems.push(`${flag} needs a value`);
    } else if (seen.has(flag)) {
      problems.push(`${flag} ${named === undefined ? show(value) : showValue(named.key, value)}: given twice`);
    } else if (named === undefined) {
      config = value;
    } else {
      settings.push({ ...named, value, source: 'flag', place: flag });
    }
    seen.add(flag);
  }
  return { settings, problems: [...problems, ...twins(settings)], config };
}

/**
 * Variables that are empty count as not set, as a shell or a compose file leaves them. Not so those of secrets: what was to be protected would
 * be open, and nobody told.
 */
export function readVariables(environment: Environment, keys: readonly Key[]): Found {
  const byVariable = byName(keys, variableOf);
  const settings: Setting[] = [];
  const problems: string[] = [];
  for (const [variable, value] of Object.entries(environment).sort()) {
    if (!variable.startsWith('BROKER_') || value === undefined) continue;
    const named = byVariable.get(variable);
    if (value === '' && named?.key.field.isSecret === true) {
      problems.push(`${variable} "": a secret must not be empty; leave the variable out where there is none`);
    }
    if (value === '') continue;
    if (variable === 'BROKER_FAILPOINTS' && !isFailpointSpec(value)) {
      problems.push(`${variable} ${show(value)}: must be site=action[@N], and more such behind commas`);
    }
    if (isForeignVariable(variable)) continue;
    if (named === undefined) {
      problems.push(`unknown variable ${variable}: ${didYouMean(nearestOf(variable, keys, variableOf, []))}`);
    } else {
      settings.push({ ...named, value, source: 'env', place: variable });
    }
  }
  return { settings, problems: [...problems, ...twins(settings)] };
}

/** `text` is YAML; `path` is for messages. */
export function readYaml(text: string, path: string, keys: readonly Key[]): Found {
  const { isMap, LineCounter, parseDocument } = yaml();
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  const syntax = document.errors[0];
  if (syntax !== undefined) {
    const line = lines.linePos(syntax.pos[0]).line;
    // Behind a colon some messages quote the file, which may have secrets.
    return { settings: [], problems: [`${path}:${line}: not valid YAML: ${syntax.message.split(/:|\n/)[0]}`] };
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
  readonly #byName: Map<string, Named>;
  readonly #sections: Set<string>;

  constructor(path: string, lines: LineCounter, keys: readonly Key[]) {
    this.#path = path;
    this.#lines = lines;
    this.#byName = new Map(keys.flatMap((key) => [...namesOf(key, key.key), ...namesOf(key, key.name)]));
    this.#sections = new Set(keys.flatMap(({ key }) => (key.includes('.') ? [key.slice(0, key.indexOf('.'))] : [])));
  }

  read(map: YAMLMap, above: readonly string[]): void {
    const { isMap, isScalar } = yaml();
    for (const pair of map.items) {
      const name = [...above, isScalar(pair.key) ? String(pair.key.value) : '?'].join('.');
      const offset = (isScalar(pair.key) ? pair.key.range?.[0] : undefined) ?? 0;
      const place = `${this.#path}:${this.#lines.linePos(offset).line}`;
      const value: unknown = pair.value;
      if (isMap(value) && this.#sections.has(name)) {
        this.read(value, [...above, name]);
      } else if (this.#byName.has(name)) {
        this.#add(this.#byName.get(name) as Named, value, place);
      } else if (this.#sections.has(name)) {
        const isEmpty = value === null || (isScalar(value) && value.value === null);
        if (!isEmpty) this.problems.push(`${place}: ${name} is a group of keys, not a key`);
      } else {
        const guess = nearest(name, [...this.#byName.keys(), ...this.#sections]);
        this.problems.push(`${place}: unknown key ${name}: ${didYouMean(guess)}`);
      }
    }
  }

  #add(named: Named, node: unknown, place: string): void {
    const { key, isFile } = named;
    const value = yaml().isSeq(node) && key.field.isList === true ? joined(node.items) : scalarOf(node);
    if (value === null) {
      this.problems.push(`${place}: ${key.key}: ${isFile === true ? 'must be the path of a file' : key.field.rule}`);
      return;
    }
    const twin = this.settings.find((setting) => setting.key === key);
    if (twin === undefined) this.settings.push({ ...named, value, source: 'file', place });
    else this.problems.push(`${place}: ${key.key} ${showValue(key, value)}: already set at ${twin.place}`);
  }
}

function scalarOf(node: unknown): Scalar | null {
  const value: unknown = yaml().isScalar(node) ? node.value : null;
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
}

/** A list as it is written with commas; null if one of its parts has one itself, or is no text. */
function joined(items: readonly unknown[]): string | null {
  const parts = items.map(scalarOf);
  return parts.every((part) => part !== null && !String(part).includes(',')) ? parts.join(',') : null;
}
