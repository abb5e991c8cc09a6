/** The only place that reads environment variables (bin/ aside, which sets some before any of this runs). */
import { availableParallelism } from 'node:os';
import type { Machine } from './field.ts';

export type Environment = Readonly<Record<string, string | undefined>>;

/** Variables that begin with BROKER_ and are not keys of the configuration. */
export const OTHER_VARIABLES = {
  BROKER_CONFIG: 'Path of the configuration file, as `--config`.',
  BROKER_ADDRESS: 'HOST:PORT that the client commands connect to, as `--address`.',
  BROKER_TLS:
    'true lets the client commands encrypt, as `--tls`. BROKER_TLS_CA, BROKER_TLS_CERT and BROKER_TLS_KEY, the variables of the settings, are theirs too.',
  BROKER_TLS_NAME: 'Name that the certificate of the broker must carry for the client commands, as `--tls-name`.',
  BROKER_TOKEN: 'Bearer token that the client commands show. `serve` has no use for it.',
  BROKER_TOKEN_FILE: 'File with that token, as `--token-file`.',
  BROKER_FAILPOINTS: 'Faults to inject, for tests only: `site=action[@N],…`.',
} as const;

/** Variables of our own test and benchmark scripts, which a broker started by them may inherit. */
const SCRIPT_VARIABLE = /^BROKER_(TEST|SIM|PERF|DEMO)_/;

/** True for what begins with BROKER_ and yet is neither a key nor a mistake. */
export function isForeignVariable(variable: string): boolean {
  return Object.hasOwn(OTHER_VARIABLES, variable) || SCRIPT_VARIABLE.test(variable) || isServiceLink(variable);
}

/** A copy that later changes of the process environment do not reach. */
export function processEnvironment(): Environment {
  return Object.freeze({ ...process.env });
}

export function thisMachine(): Machine {
  return { cores: availableParallelism() };
}

/** What `armFailpoints` takes; '' if none. */
export function failpointSpec(environment: Environment = process.env): string {
  return environment.BROKER_FAILPOINTS ?? '';
}

/**
 * Kubernetes gives every container variables for each service of its namespace: a service named `broker` or `broker-x` makes
 * BROKER_PORT, BROKER_SERVICE_HOST, BROKER_X_PORT_8081_TCP_ADDR and more. They are not meant for us and no mistake of anyone.
 */
function isServiceLink(variable: string): boolean {
  return /^BROKER_(?:.+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)$/.test(
    variable,
  );
}
