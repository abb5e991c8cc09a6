/** Flags, variables, file and defaults (in this order of strength) to one checked, frozen `Config`. Opens and writes nothing but the named file. */
import { readFileSync, statSync } from 'node:fs';
import { ConfigError } from './config-error.ts';
import { type Environment, processEnvironment, thisMachine } from './environment.ts';
import type { Machine } from './field.ts';
import { RULES } from './rules.ts';
import { allKeys, type Config, type Key } from './schema.ts';
import { isReadableByAll, readSecretFile } from './secret-file.ts';
import {
  FILE_BYTES_MAX,
  type Found,
  readFlags,
  readVariables,
  readYaml,
  type Setting,
  type Source,
  show,
  showValue,
} from './sources.ts';
import { unusedSettings } from './unused.ts';

export { ConfigError };

export interface Origin {
  readonly source: Source;
  /** `--shards`, `BROKER_SHARDS`, `broker.yaml:3`, or '' for a default. */
  readonly place: string;
}

/** What is in force for a key, and who said so. */
interface Chosen {
  readonly value: unknown;
  readonly origin: Origin;
}

export interface LoadedConfig {
  readonly config: Config;
  /** One row per key, in the order of the schema. */
  readonly rows: readonly ConfigRow[];
  /** The file that was read, or null. */
  readonly file: string | null;
  /** What is allowed and yet hardly meant, one line each. */
  readonly warnings: readonly string[];
  /** What may be shown nowhere, wherever it comes from: secrets, and the passwords inside of them. */
  readonly secrets: readonly string[];
  /** Of the keys that are not left at their defaults. */
  readonly chosen: ReadonlyMap<string, Chosen>;
  /** From the same flags and variables, and from the files as they are now. Throws ConfigError. */
  reload(): LoadedConfig;
  /** With one key changed at run time, its value written as in a flag. Throws ConfigError. */
  changed(key: Key, value: string): LoadedConfig;
  /** With these keys as they are in another, which came from the same places. Throws ConfigError. */
  taken(keys: readonly Key[], other: LoadedConfig): LoadedConfig;
}

export interface ConfigRow {
  readonly key: string;
  /** As one would write it: `64KiB`, `250ms`. */
  readonly value: string;
  readonly origin: Origin;
}

export interface ConfigInput {
  /** Flags only: what follows `broker serve`. */
  readonly argv: readonly string[];
  readonly environment?: Environment;
  readonly machine?: Machine;
  readonly readFile?: (path: string) => string;
  /** The secret in a file; throws what is wrong with the file. */
  readonly readSecret?: (path: string) => string;
  /** Whether every user of the machine can read a file. */
  readonly isReadableByAll?: (path: string) => boolean;
}

/** Throws ConfigError. */
export function loadConfig(input: ConfigInput): LoadedConfig {
  return loadFrom({
    argv: input.argv,
    environment: input.environment ?? processEnvironment(),
    machine: input.machine ?? thisMachine(),
    readFile: input.readFile ?? readCapped,
    readSecret: input.readSecret ?? readSecretFile,
    isReadableByAll: input.isReadableByAll ?? isReadableByAll,
  });
}

/** `isAgain`: at the start it was read from the same files. */
function loadFrom(input: Required<ConfigInput>, isAgain = false): LoadedConfig {
  const keys = allKeys();
  const { environment } = input;
  const [readFile, readSecret] = isAgain
    ? [unlessPipe(input.readFile), unlessPipe(input.readSecret)]
    : [input.readFile, input.readSecret];
  const flags = readFlags(input.argv, keys);
  const variables = readVariables(environment, keys);
  const file = flags.config ?? (environment.BROKER_CONFIG || null);
  const yaml = file === null ? { settings: [], problems: [] } : openYaml(file, keys, readFile);
  const problems = [...flags.problems, ...variables.problems, ...yaml.problems];
  // Weakest first, so that stronger ones replace them. A weaker setting is checked too: a wrong line in a file is wrong all the time.
  const chosen = new Map<string, Chosen>();
  const settings = [...yaml.settings, ...variables.settings, ...flags.settings];
  for (const setting of settings) {
    const read = readSetting(setting, readSecret);
    if (typeof read === 'string') problems.push(read);
    else chosen.set(setting.key.key, read);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return assemble({ input, file, exposed: exposedSecrets(settings, file, input.isReadableByAll) }, chosen);
}

/** Secrets that others may see, one line each. */
function exposedSecrets(
  settings: readonly Setting[],
  file: string | null,
  isReadable: (path: string) => boolean,
): string[] {
  const secrets = settings.filter(({ key }) => key.field.isSecret === true);
  const inFile = secrets.find(({ source, isFile }) => source === 'file' && isFile !== true);
  return [
    ...secrets
      .filter(
        ({ source, isFile, key, value }) =>
          source === 'flag' && isFile !== true && key.field.secretsIn(value).length > 0,
      )
      .map(
        ({ place }) =>
          `${place}: every user of the machine sees it in \`ps\`; give it as ${place}-file PATH, or as a variable`,
      ),
    ...secrets
      .filter(({ isFile, value }) => isFile === true && isReadable(String(value)))
      .map(({ place, value }) => `${place} ${show(value)}: every user of the machine can read the file; chmod 600 it`),
    ...(file !== null && inFile !== undefined && isReadable(file)
      ? [
          `config file ${show(file)}: every user of the machine can read it, and ${inFile.key.key} is in it; chmod 600 it`,
        ]
      : []),
  ];
}

/** One line that says what is wrong, or the value. */
function readSetting(setting: Setting, readSecret: (path: string) => string): Chosen | string {
  const { key, isFile, source, place } = setting;
  let value = setting.value;
  if (isFile === true) {
    try {
      value = readSecret(String(value));
    } catch (error) {
      return `${key.key} (${place} ${show(value)}): cannot be read: ${(error as Error).message}`;
    }
  }
  const parsed = key.field.schema.safeParse(value);
  if (!parsed.success) return refusal({ ...setting, value });
  return { value: parsed.data, origin: { source, place } };
}

/** Where a configuration comes from, beside its values. */
interface Provenance {
  readonly input: Required<ConfigInput>;
  readonly file: string | null;
  readonly exposed: readonly string[];
}

function assemble(from: Provenance, chosen: ReadonlyMap<string, Chosen>): LoadedConfig {
  const { input, file } = from;
  const rows: ConfigRow[] = [];
  const secrets: string[] = [];
  const tree: Tree = {};
  for (const key of allKeys()) {
    const { value, origin } = chosen.get(key.key) ?? { value: defaultOf(key, input.machine), origin: DEFAULT };
    put(tree, key.path, value);
    rows.push({ key: key.key, value: key.field.format(value), origin });
    if (key.field.isSecret === true && value !== null) secrets.push(...key.field.secretsIn(value));
  }
  const config = deepFreeze(tree) as unknown as Config;
  checkRules(config, rows);
  return {
    config,
    rows,
    file,
    warnings: [...from.exposed, ...unusedSettings(config, rows)],
    secrets,
    chosen,
    reload: () => loadFrom(input, true),
    changed: (key, value) => {
      const read = readSetting({ key, value, source: 'changed', place: CHANGED_PLACE }, input.readSecret);
      if (typeof read === 'string') throw new ConfigError([read]);
      return assemble(from, new Map(chosen).set(key.key, read));
    },
    taken: (keys, other) => {
      const next = new Map(chosen);
      for (const { key } of keys) {
        const found = other.chosen.get(key);
        if (found === undefined) next.delete(key);
        else next.set(key, found);
      }
      return assemble(from, next);
    },
  };
}

/** Where a value comes from that was changed at run time. */
const CHANGED_PLACE = 'config set';

/** More would be a list to read, not a hint. */
const GUESSES_MAX = 2;

const DEFAULT: Origin = { source: 'default', place: '' };

function refusal(setting: Setting): string {
  const { field, key } = setting.key;
  const guesses = field.guess(String(setting.value)).filter((guess) => field.schema.safeParse(guess).success);
  const hint = guesses.length === 0 ? '' : `; did you mean ${guesses.slice(0, GUESSES_MAX).join(' or ')}?`;
  const rule = field.explain?.(String(setting.value)) ?? field.rule;
  return `${key} ${showValue(setting.key, setting.value)} (${setting.place}): ${rule}${hint}`;
}

function openYaml(path: string, keys: readonly Key[], readFile: (path: string) => string): Found {
  let text: string;
  try {
    text = readFile(path);
  } catch (error) {
    return { settings: [], problems: [`config file ${show(path)}: cannot be read: ${(error as Error).message}`] };
  }
  return readYaml(text, path, keys);
}

/** A pipe that has been read is empty, as if nothing had been set; or it holds the whole process until somebody writes. */
function unlessPipe(read: (path: string) => string): (path: string) => string {
  return (path) => {
    if (statSync(path, { throwIfNoEntry: false })?.isFIFO() !== true) return read(path);
    throw new Error('it is a pipe, which has been read: put an ordinary file in its place');
  };
}

function readCapped(path: string): string {
  const text = readFileSync(path, 'utf8');
  if (text.length > FILE_BYTES_MAX) throw new Error(`larger than ${FILE_BYTES_MAX} bytes`);
  return text;
}

/** Defaults alone, for tests and tools; `overrides` are flags. */
export function defaultConfig(overrides: readonly string[] = []): Config {
  return loadConfig({ argv: overrides, environment: {} }).config;
}

function defaultOf(key: Key, machine: Machine): unknown {
  const { default: given } = key.field;
  return typeof given === 'function' ? given(machine) : given;
}

function checkRules(config: Config, rows: readonly ConfigRow[]): void {
  const isGiven = (key: string): boolean => rows.some((row) => row.key === key && row.origin.source !== 'default');
  const broken = RULES.filter((rule) => !rule.holds(config, isGiven));
  if (broken.length === 0) return;
  throw new ConfigError(
    broken.map((rule) => {
      const row = rows.find(({ key }) => key === rule.key);
      const place = row === undefined || row.origin.source === 'default' ? 'default' : row.origin.place;
      return `${rule.key} ${show(row?.value)} (${place}): ${rule.text}, and ${rule.against(config)}`;
    }),
  );
}

interface Tree {
  [name: string]: unknown;
}

function put(tree: Tree, path: readonly string[], value: unknown): void {
  const [name, ...rest] = path as [string, ...string[]];
  if (rest.length === 0) {
    tree[name] = value;
    return;
  }
  tree[name] ??= {};
  put(tree[name] as Tree, rest, value);
}

function deepFreeze<T extends object>(value: T): T {
  for (const inner of Object.values(value)) {
    if (typeof inner === 'object' && inner !== null) deepFreeze(inner);
  }
  return Object.freeze(value);
}
