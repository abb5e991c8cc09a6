/** Flags, variables, file and defaults (in this order of strength) to one checked, frozen `Config`. Opens and writes nothing but the named file. */
import { readFileSync } from 'node:fs';
import { type Environment, processEnvironment, thisMachine } from './environment.ts';
import type { Machine } from './field.ts';
import { RULES } from './rules.ts';
import { allKeys, type Config, type Key } from './schema.ts';
import {
  FILE_BYTES_MAX,
  type Found,
  readFlags,
  readVariables,
  readYaml,
  type Setting,
  type Source,
  show,
} from './sources.ts';

/** One line per problem; each names key, value and rule, and the nearest valid key where one is near. The process exits with code 2. */
export class ConfigError extends Error {
  override name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join('\n'));
    this.problems = problems;
  }
}

export interface Origin {
  readonly source: Source;
  /** `--shards`, `BROKER_SHARDS`, `broker.yaml:3`, or '' for a default. */
  readonly place: string;
}

export interface LoadedConfig {
  readonly config: Config;
  /** One row per key, in the order of the schema. */
  readonly rows: readonly ConfigRow[];
  /** The file that was read, or null. */
  readonly file: string | null;
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
}

/** Throws ConfigError. */
export function loadConfig(input: ConfigInput): LoadedConfig {
  const keys = allKeys();
  const environment = input.environment ?? processEnvironment();
  const flags = readFlags(input.argv, keys);
  const variables = readVariables(environment, keys);
  const file = flags.config ?? (environment.BROKER_CONFIG || null);
  const yaml = file === null ? { settings: [], problems: [] } : openYaml(file, keys, input.readFile ?? readCapped);
  const problems = [...flags.problems, ...variables.problems, ...yaml.problems];
  // Weakest first, so that stronger ones replace them. A weaker setting is checked too: a wrong line in a file is wrong all the time.
  const chosen = new Map<Key, { readonly value: unknown; readonly origin: Origin }>();
  for (const setting of [...yaml.settings, ...variables.settings, ...flags.settings]) {
    const parsed = setting.key.field.schema.safeParse(setting.value);
    const origin = { source: setting.source, place: setting.place };
    if (parsed.success) chosen.set(setting.key, { value: parsed.data, origin });
    else problems.push(refusal(setting));
  }
  if (problems.length > 0) throw new ConfigError(problems);

  const machine = input.machine ?? thisMachine();
  const rows: ConfigRow[] = [];
  const tree: Tree = {};
  for (const key of keys) {
    const { value, origin } = chosen.get(key) ?? { value: defaultOf(key, machine), origin: DEFAULT };
    put(tree, key.path, value);
    rows.push({ key: key.key, value: key.field.format(value), origin });
  }
  const config = deepFreeze(tree) as unknown as Config;
  checkRules(config, rows);
  return { config, rows, file };
}

/** More would be a list to read, not a hint. */
const GUESSES_MAX = 2;

const DEFAULT: Origin = { source: 'default', place: '' };

function refusal(setting: Setting): string {
  const { field, key } = setting.key;
  const guesses = field.guess(String(setting.value)).filter((guess) => field.schema.safeParse(guess).success);
  const hint = guesses.length === 0 ? '' : `; did you mean ${guesses.slice(0, GUESSES_MAX).join(' or ')}?`;
  return `${key} ${show(setting.value)} (${setting.place}): ${field.rule}${hint}`;
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

function readCapped(path: string): string {
  const text = readFileSync(path, 'utf8');
  if (text.length > FILE_BYTES_MAX) throw new Error(`larger than ${FILE_BYTES_MAX} bytes`);
  return text;
}

/** Defaults alone, for tests and tools; `overrides` are flags. */
export function defaultConfig(overrides: readonly string[] = []): Config {
  return loadConfig({ argv: overrides, environment: {} }).config;
}

export function defaultOf(key: Key, machine: Machine): unknown {
  const { default: given } = key.field;
  return typeof given === 'function' ? given(machine) : given;
}

function checkRules(config: Config, rows: readonly ConfigRow[]): void {
  const broken = RULES.filter((rule) => !rule.holds(config));
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
