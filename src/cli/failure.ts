/** How a command ends: exit codes, and errors as one line that says what happened and one that says what to do. */
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { type Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { REASONS, type ReasonRow } from '../base/errors.ts';

export const EXIT = {
  ok: 0,
  /** The broker answered with an error, or input or output failed. */
  failed: 1,
  /** The command line or the configuration is wrong; nothing was done. */
  usage: 2,
  /** No broker answers at the address. */
  unreachable: 3,
  /** Ctrl-C, as shells count it. */
  interrupted: 130,
} as const;

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
export function explain(error: ServiceError, address: string): CliError {
  const reason = reasonOf(error.metadata);
  const name = status[error.code] ?? String(error.code);
  if (reason === null && error.code === status.UNAVAILABLE) {
    return new CliError(
      EXIT.unreachable,
      `cannot connect to ${address}: ${error.details.replace(/\.? *Resolution note: *$/, '')}`,
      'start a broker with `broker serve`, or name another with --address HOST:PORT',
      { cause: error },
    );
  }
  if (reason === null && error.code === status.DEADLINE_EXCEEDED) {
    return new CliError(
      EXIT.failed,
      `${address} did not answer in time (DEADLINE_EXCEEDED)`,
      'the call may or may not have taken effect; allow more time with --timeout',
      { cause: error },
    );
  }
  const row =
    reason !== null && Object.hasOwn(REASONS, reason) ? (REASONS as Record<string, ReasonRow>)[reason] : undefined;
  return new CliError(EXIT.failed, `${error.details} (${reason ?? name})`, nextStep(error, row), { cause: error });
}

/** The server's text ends with the same advice where it has room for it; said once is enough. */
function nextStep(error: ServiceError, row: ReasonRow | undefined): string {
  if (row === undefined || error.details.includes(row.next)) return '';
  return row.next;
}

const STATUS_DETAILS_FIELD = 3;
const ANY_URL_FIELD = 1;
const ANY_VALUE_FIELD = 2;
const ERROR_INFO_REASON_FIELD = 1;

/** `ErrorInfo.reason` in the details of a status (google.rpc.Status in the trailer grpc-status-details-bin), or null. */
export function reasonOf(metadata: Metadata | undefined): string | null {
  const [details] = metadata?.get('grpc-status-details-bin') ?? [];
  if (!(details instanceof Uint8Array)) return null;
  try {
    for (const any of fieldsOf(details, STATUS_DETAILS_FIELD)) {
      const url = new TextDecoder().decode(fieldsOf(any, ANY_URL_FIELD)[0]);
      const value = fieldsOf(any, ANY_VALUE_FIELD)[0];
      const reason =
        url.endsWith('/google.rpc.ErrorInfo') && value !== undefined && fieldsOf(value, ERROR_INFO_REASON_FIELD)[0];
      if (reason) return new TextDecoder().decode(reason);
    }
  } catch (error) {
    // Whatever answers at the address may not be a broker: details that cannot be read are details that are not there.
    if (error instanceof RangeError || error instanceof Error) return null;
  }
  return null;
}

function fieldsOf(message: Uint8Array, field: number): Uint8Array[] {
  const reader = new BinaryReader(message);
  const found: Uint8Array[] = [];
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === field && wireType === 2) found.push(reader.bytes());
    else reader.skip(wireType);
  }
  return found;
}
