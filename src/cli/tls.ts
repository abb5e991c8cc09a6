/** The options of TLS, for every command that connects to a broker. */
import { readFileSync } from 'node:fs';
import { connect } from 'node:tls';
import type { Command } from 'commander';
import { readAddress, type TlsOptions, tlsWanted } from '../client/index.ts';
import { type Endpoint, parseEndpoint } from '../config/endpoint.ts';
import type { Environment } from '../config/environment.ts';
import { usageError } from './failure.ts';

export interface TlsFlags {
  /** `--no-tls` sets it to false. */
  readonly tls?: boolean;
  readonly tlsCa?: string;
  readonly tlsCert?: string;
  readonly tlsKey?: string;
  readonly tlsName?: string;
}

export function withTls(command: Command): Command {
  return command
    .option(
      '--tls',
      'encrypt, as with --address https://HOST:PORT (default: BROKER_TLS, or that one of the others is given)',
    )
    .option('--no-tls', 'clear text, whatever variables say')
    .option(
      '--tls-ca <file>',
      'authorities (PEM) that vouch for the broker (default: BROKER_TLS_CA, else those that Node knows)',
    )
    .option('--tls-cert <file>', 'certificate (PEM) that says who you are (default: BROKER_TLS_CERT)')
    .option('--tls-key <file>', 'private key (PEM) of --tls-cert (default: BROKER_TLS_KEY)')
    .option(
      '--tls-name <host>',
      'name that the certificate of the broker must carry (default: BROKER_TLS_NAME, else the host of the address)',
    );
}

/**
 * Undefined: clear text. The variables are those of `serve`: where a broker has its certificates, commands beside it use the same. Throws a usage
 * error.
 */
export function tlsOf(environment: Environment, flags: TlsFlags, addresses: readonly string[]): TlsOptions | undefined {
  const isWanted = wantedBy(addresses);
  const hasFlags = [flags.tlsCa, flags.tlsCert, flags.tlsKey, flags.tlsName].some((value) => value !== undefined);
  if (hasFlags && flags.tls === false) throw usageError('--no-tls does not go together with --tls-ca and the like');
  if (isWanted === false && (hasFlags || flags.tls === true)) {
    throw usageError('--tls: the address says http://, which is clear text', 'write https:// or HOST:PORT alone');
  }
  if (isWanted === true && flags.tls === false) throw usageError('--no-tls: the address says https://');
  const text = (flag: string | undefined, variable: string): string | undefined =>
    flag ?? (environment[variable] || undefined);
  const ca = text(flags.tlsCa, 'BROKER_TLS_CA');
  const [cert, key] = pairOf(flags, environment);
  const isOn =
    isWanted ?? flags.tls ?? (hasFlags || isTrue(environment.BROKER_TLS) || ca !== undefined || cert !== undefined);
  if (!isOn) return undefined;
  return {
    ca: ca === undefined ? undefined : read('--tls-ca', ca),
    cert: cert === undefined ? undefined : read('--tls-cert', cert),
    key: key === undefined ? undefined : read('--tls-key', key),
    serverName: text(flags.tlsName, 'BROKER_TLS_NAME'),
  };
}

/** Certificate and key come from one place: one of a flag and one of a variable would hardly fit. */
function pairOf({ tlsCert, tlsKey }: TlsFlags, environment: Environment): [string | undefined, string | undefined] {
  const isByFlag = tlsCert !== undefined || tlsKey !== undefined;
  const cert = isByFlag ? tlsCert : environment.BROKER_TLS_CERT || undefined;
  const key = isByFlag ? tlsKey : environment.BROKER_TLS_KEY || undefined;
  if ((cert === undefined) !== (key === undefined)) {
    const names = isByFlag ? '--tls-cert and --tls-key' : 'BROKER_TLS_CERT and BROKER_TLS_KEY';
    throw usageError(`${names} must be given both or neither`);
  }
  return [cert, key];
}

function isTrue(text: string | undefined): boolean {
  return text !== undefined && /^(1|true|yes|on)$/i.test(text);
}

function wantedBy(addresses: readonly string[]): boolean | null {
  try {
    return tlsWanted(addresses.map(readAddress));
  } catch (error) {
    if (error instanceof RangeError) throw usageError(`--address: ${error.message}`);
    throw error;
  }
}

function read(option: string, path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw usageError(`${option} ${path}: cannot be read (${(error as NodeJS.ErrnoException).code ?? String(error)})`);
  }
}

/** How long somebody may take to show that they speak TLS, in ms. */
const PROBE_MS = 1_000;

/** Whether what listens there speaks TLS: why a command in clear text has failed. Nothing is sent but the beginning of a handshake. */
export function speaksTls(address: string): Promise<boolean> {
  const endpoint: Endpoint | null = parseEndpoint(address);
  if (endpoint === null) return Promise.resolve(false);
  return new Promise((resolve) => {
    // Only the kind of answer counts: nothing is believed and nothing is sent.
    const socket = connect({ ...endpoint, rejectUnauthorized: false, timeout: PROBE_MS, ALPNProtocols: ['h2'] });
    const end = (isTls: boolean): void => {
      socket.destroy();
      resolve(isTls);
    };
    socket.once('secureConnect', () => end(true));
    socket.once('timeout', () => end(false));
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code?.includes('_ALERT_') === true));
    socket.once('close', () => resolve(false));
  });
}
