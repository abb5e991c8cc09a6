/** How a command ends: exit codes, and errors as one line that says what happened and one that says what to do. */
import { REASONS, type ReasonRow } from '../base/errors.ts';
import { type ClientError, ConnectionError, TimeoutError } from '../client/index.ts';

export const EXIT = {
  ok: 0,
  /** The broker answered with an error, or input or output failed. */
  failed: 1,
  /** The command line or the configuration is wrong; nothing was done. */
  usage: 2,
  /** No broker answers at the address. */
  unreachable: 3,
  /** `verify`: the store was not read to its end, so nothing is known. */
  notVerified: 4,
  /** Ctrl-C, as shells count it. */
  interrupted: 130,
} as const;

/** Of `broker check`, whose codes are those of Nagios plugins: it could not be found out. */
export const CHECK_UNKNOWN = 3;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export class CliError extends Error {
  override name = 'CliError';
  readonly exitCode: ExitCode;
  /** What to do next; '' if there is nothing to add. */
  readonly next: string;

  constructor(exitCode: ExitCode, message: string, next = '', options?: ErrorOptions) {
    super(message, options);
    this.exitCode = exitCode;
    this.next = next;
  }
}

export function usageError(message: string, next = ''): CliError {
  return new CliError(EXIT.usage, message, next);
}

/** What a failed call means to the person who typed the command. */
export function explain(error: ClientError, address: string): CliError {
  if (error instanceof ConnectionError && error.outcome === 'none') {
    const { why } = error;
    return new CliError(
      EXIT.unreachable,
      `cannot connect to ${address}${why === null ? '' : `: ${why}`}`,
      why === null
        ? 'start a broker with `broker serve`, or name another with --address HOST:PORT'
        : 'compare --tls-ca, --tls-cert and --tls-name with the tls.* settings of the broker',
      { cause: error },
    );
  }
  if (error instanceof ConnectionError) {
    return new CliError(
      EXIT.unreachable,
      `the connection to ${address} was lost: ${error.message}`,
      'the call may or may not have taken effect; repeat it once the broker answers again',
      { cause: error },
    );
  }
  if (error instanceof TimeoutError && error.reason === null) {
    return new CliError(
      EXIT.failed,
      `${address} did not answer in time (DEADLINE_EXCEEDED)`,
      'the call may or may not have taken effect; allow more time with --timeout',
      { cause: error },
    );
  }
  // A broker of this version has all that the commands ask: this is a proxy, or another version.
  if (error.status === 'UNIMPLEMENTED' && error.reason === null) {
    return new CliError(
      EXIT.failed,
      `${address} does not offer this call (UNIMPLEMENTED)`,
      "name a node's own address with --address: Envoy passes on only what clients need, and an older broker lacks newer commands",
      { cause: error },
    );
  }
  const { reason } = error;
  const row =
    reason !== null && Object.hasOwn(REASONS, reason) ? (REASONS as Record<string, ReasonRow>)[reason] : undefined;
  return new CliError(EXIT.failed, error.message, nextStep(error, row), { cause: error });
}

/** The server's text ends with the same advice where it has room for it; said once is enough. */
function nextStep(error: ClientError, row: ReasonRow | undefined): string {
  if (row === undefined || error.message.includes(row.next)) return '';
  return row.next;
}
