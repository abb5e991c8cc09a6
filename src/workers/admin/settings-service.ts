import type { Redactor } from '../../base/redactor.ts';
import type { Apply, LiveSettings, SettingRow } from '../../config/live-settings.ts';
import type { Setting } from '../../grpc/gen/broker/v1/inspect.ts';
import type { SettingsPort } from '../../grpc/settings.ts';
import type { Log } from '../../telemetry/log.ts';

/** Words of the wire for where a value comes from. */
const ORIGINS = { default: 'default', file: 'file', env: 'environment', flag: 'flag', changed: 'changed' } as const;

/** The settings of this node, shown and changed by operators. Every change is in the log. */
export class SettingsService implements SettingsPort {
  readonly #settings: LiveSettings;
  readonly #log: Log;
  readonly #reloads: (() => void)[] = [];
  /** Knows the secrets among them. */
  readonly redactor: Redactor;

  constructor(settings: LiveSettings, log: Log, redactor: Redactor) {
    this.#settings = settings;
    this.#log = log;
    this.redactor = redactor;
  }

  /** The part that a live key is for (`LiveSettings.register`). */
  register(key: string, apply: Apply): void {
    this.#settings.register(key, apply);
  }

  /** Also reads files again at SIGHUP, beside those of the configuration. */
  onReload(read: () => void): void {
    this.#reloads.push(read);
  }

  listSettings(): Setting[] {
    return this.#settings.list().map(toSetting);
  }

  changeSetting(key: string, value: string): Setting {
    const row = this.#settings.change(key, value);
    this.#log.info('a setting was changed', { key: row.key, value: row.value });
    return toSetting(row);
  }

  /** Of SIGHUP: the files are read again. */
  reload(): void {
    try {
      const { changed, needRestart, warnings } = this.#settings.reload();
      for (const warning of warnings) this.#log.warn('a setting needs attention', { warning });
      for (const { key, value } of changed) this.#log.info('a setting was changed', { key, value });
      if (needRestart.length > 0) {
        this.#log.warn('some settings have changed and need a restart', { keys: needRestart.join(', ') });
      }
      this.#log.info('the configuration is read again', { changed: changed.length, need_restart: needRestart.length });
    } catch (error) {
      const problems = error instanceof Error ? error.message : String(error);
      this.#log.error('the configuration has problems, and nothing of it was taken', { problems });
    }
    for (const read of this.#reloads) read();
  }
}

function toSetting({ key, value, origin, live }: SettingRow): Setting {
  return { key, value, origin: ORIGINS[origin.source], place: origin.place, live };
}
