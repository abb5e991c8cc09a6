import type { Config } from '../config/schema.ts';
import { lacksAuthorities } from '../config/tls-rules.ts';
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

/** What the configuration alone could not know: the data directory is one of a node with peers. StartError if these could not call each other. */
export function needAuthorities(config: Config): void {
  if (!lacksAuthorities(config)) return;
  throw new StartError(
    'TLS_UNUSABLE',
    'this node is one of a cluster, and with tls.cert and no tls.ca its gRPC port takes TLS alone and no other node could call it: set tls.ca to the authority of the certificates of all nodes, or tls.peers to off where something in front of the nodes speaks TLS for them',
  );
}

function opened(files: TlsFiles, log: Log): TlsKeeper {
  try {
    return new TlsKeeper(files, log);
  } catch (cause) {
    if (!(cause instanceof TlsError)) throw cause;
    throw new StartError('TLS_UNUSABLE', cause.message, { cause });
  }
}
