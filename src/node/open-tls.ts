import type { Config } from '../config/schema.ts';
import { StartError } from '../storage/start-error.ts';
import type { Log } from '../telemetry/log.ts';
import type { TlsFiles } from '../tls/material.ts';
import { TlsError } from '../tls/tls-error.ts';
import { TlsKeeper } from '../tls/tls-keeper.ts';
import type { SettingsService } from '../workers/admin/settings-service.ts';

/** The keys that name the files; where they lie may change while the broker runs. */
const KEYS = ['tls.cert', 'tls.key', 'tls.ca'];

/** Certificates of this node, kept up to date; null if no port speaks TLS. StartError if they cannot be used. */
export function openTls(
  filesOf: (config: Config) => TlsFiles | null,
  config: Config,
  log: Log,
  settings: SettingsService,
): TlsKeeper | null {
  const files = filesOf(config);
  if (files === null) return null;
  const keeper = opened(files, log);
  const apply = (changed: Config): void => {
    const next = filesOf(changed);
    if (next === null) throw new TlsError('tls.cert: TLS cannot be turned off without a restart');
    keeper.use(next);
  };
  for (const key of KEYS) settings.register(key, apply);
  settings.onReload(() => keeper.reload());
  keeper.start();
  return keeper;
}

function opened(files: TlsFiles, log: Log): TlsKeeper {
  try {
    return new TlsKeeper(files, log);
  } catch (cause) {
    if (!(cause instanceof TlsError)) throw cause;
    throw new StartError('TLS_UNUSABLE', cause.message, { cause });
  }
}
