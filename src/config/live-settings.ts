/** The configuration of a running broker: what is in force, and changing what needs no restart. */
import { BrokerError } from '../base/errors.ts';
import { ConfigError } from './config-error.ts';
import type { ConfigRow, LoadedConfig } from './load.ts';
import { nearest } from './names.ts';
import { allKeys, type Config, type Key } from './schema.ts';

/** Makes a part of the broker run with a configuration. One that it cannot run with is refused by an error, and nothing has changed then. */
export type Apply = (config: Config) => void;

export interface SettingRow extends ConfigRow {
  /** It can be changed without a restart. */
  readonly live: boolean;
}

export interface Reloaded {
  /** In force now. */
  readonly changed: readonly SettingRow[];
  /** Keys that have another value than the broker was started with. */
  readonly needRestart: readonly string[];
  /** That there were none of before. */
  readonly warnings: readonly string[];
}

/** What else changes it while the broker runs. */
const INSTEAD: Readonly<Record<string, string>> = { 'shards.count': '; `broker shards resize N` does' };

/** Keys by both of their names. */
const KEYS: ReadonlyMap<string, Key> = new Map(
  allKeys().flatMap((key) => [[key.name, key] as const, [key.key, key] as const]),
);

export class LiveSettings {
  #loaded: LoadedConfig;
  readonly #parts = new Map<string, Apply>();

  constructor(loaded: LoadedConfig) {
    this.#loaded = loaded;
  }

  /** As it is now. */
  get config(): Config {
    return this.#loaded.config;
  }

  /** The one part that a key marked `live` in the schema is for. It runs with the value of the start already. */
  register(key: string, apply: Apply): void {
    const { field } = KEYS.get(key) ?? {};
    if (field?.live !== true) throw new Error(`${key} is not marked as live in the schema`);
    if (this.#parts.has(key)) throw new Error(`${key} has a part already`);
    this.#parts.set(key, apply);
  }

  /** One row a key, in the order of the schema. */
  list(): readonly SettingRow[] {
    return this.#loaded.rows.map((row) => ({ ...row, live: this.#parts.has(row.key) }));
  }

  /**
   * `text` is the value as in a flag. It is in force when this returns, until the next start or `reload`. BrokerError SETTING_UNKNOWN,
   * SETTING_NOT_LIVE or SETTING_INVALID if it is not.
   */
  change(name: string, text: string): SettingRow {
    const key = KEYS.get(name);
    if (key === undefined) throw unknownSetting(name);
    const apply = this.#parts.get(key.key);
    if (apply === undefined) throw new BrokerError('SETTING_NOT_LIVE', `${key.key}${INSTEAD[key.key] ?? ''}`);
    const next = valid(() => this.#loaded.changed(key, text));
    valid(() => apply(next.config));
    this.#loaded = next;
    return this.#row(key.key);
  }

  /**
   * Reads the files again, with the flags and variables of the start, and applies what is live: from then on it runs as after a restart, as
   * far as it can without one. Throws ConfigError, and nothing has changed then.
   */
  reload(): Reloaded {
    const before = this.#loaded;
    const next = before.reload();
    const differing = allKeys().filter((key) => !isSame(valueAt(before.config, key), valueAt(next.config, key)));
    const live = differing.filter(({ key }) => this.#parts.has(key));
    // Together with what stays as it was, which is what the parts will run with.
    const mixed = before.taken(live, next);
    this.#applyAll(live, before.config, mixed.config);
    this.#loaded = mixed;
    return {
      changed: live.map(({ key }) => this.#row(key)),
      needRestart: differing.filter((key) => !live.includes(key)).map(({ key }) => key),
      warnings: next.warnings.filter((warning) => !before.warnings.includes(warning)),
    };
  }

  /** All or none: what a part refuses takes the others back. */
  #applyAll(keys: readonly Key[], before: Config, after: Config): void {
    const applied: Apply[] = [];
    try {
      for (const { key } of keys) {
        const apply = this.#parts.get(key) as Apply;
        apply(after);
        applied.push(apply);
      }
    } catch (error) {
      for (const apply of applied) apply(before);
      throw new ConfigError([error instanceof Error ? error.message : String(error)]);
    }
  }

  #row(key: string): SettingRow {
    const row = this.list().find((one) => one.key === key);
    if (row === undefined) throw new Error(`no row for ${key}`);
    return row;
  }
}

function unknownSetting(name: string): BrokerError {
  const guess = nearest(name, KEYS.keys());
  return new BrokerError('SETTING_UNKNOWN', guess === null ? '' : `did you mean ${guess}?`);
}

/** What is wrong with a value is told with the words of a start. */
function valid<T>(make: () => T): T {
  try {
    return make();
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new BrokerError('SETTING_INVALID', message, { cause });
  }
}

function valueAt(config: Config, key: Key): unknown {
  let value: unknown = config;
  for (const name of key.path) value = (value as Readonly<Record<string, unknown>>)[name];
  return value;
}

function isSame(left: unknown, right: unknown): boolean {
  return JSON.stringify(left) === JSON.stringify(right);
}
