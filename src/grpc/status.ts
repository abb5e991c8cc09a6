import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { BrokerError, REASONS, type Reason, type ReasonRow } from '../base/errors.ts';
import { ErrorInfo, RetryInfo } from './gen/google/rpc/error_details.ts';
import { Status } from './gen/google/rpc/status.ts';

/** `ErrorInfo.domain` of every error of the broker. */
export const ERROR_DOMAIN = 'broker';

export const DETAILS_TRAILER = 'grpc-status-details-bin';
const TYPE_PREFIX = 'type.googleapis.com/google.rpc.';
/**
 * Details come twice in the trailers, percent-encoded (up to 9 characters for one of these) and in base64 (up to 4): with this many they
 * and the texts of the catalogue stay under the 8 KiB that peers accept for a header list.
 */
const DETAILS_LENGTH_MAX = 384;

/** What grpc-js sends: a status with the standard details in its trailers. */
export type ErrorStatus = Pick<ServiceError, 'code' | 'details' | 'metadata' | 'name' | 'message'>;

/** Why a request of so many bytes comes no further now, or null. */
export type Refusal = (bytes: number) => ErrorStatus | null;

export function statusCodeOf(reason: Reason): number {
  return status[REASONS[reason].status];
}

/** Statuses by reason. Without details they are made once and shared: a refusal under overload costs a look-up. */
export class StatusBook {
  readonly #shared = new Map<Reason, ErrorStatus>();

  of(reason: Reason, details = ''): ErrorStatus {
    if (details !== '') return makeStatus(reason, details);
    let found = this.#shared.get(reason);
    if (found === undefined) {
      found = makeStatus(reason, '');
      this.#shared.set(reason, found);
    }
    return found;
  }
}

/** `details` may be any text; too long a one is cut. `retryAfterMs`: in the place of what the catalogue says. */
export function makeStatus(reason: Reason, details: string, retryAfterMs?: number): ErrorStatus {
  // A lone surrogate, which the cut can make too, would throw in the percent-encoding of grpc-js.
  const { message } = new BrokerError(reason, details.slice(0, DETAILS_LENGTH_MAX).toWellFormed());
  return withMessage(reason, message, retryAfterMs);
}

/** The status of an error that was thrown, with its own words. */
export function statusOf(error: BrokerError): ErrorStatus {
  const { when, next } = error.row;
  return withMessage(
    error.reason,
    error.message.slice(0, DETAILS_LENGTH_MAX + when.length + next.length).toWellFormed(),
  );
}

function withMessage(reason: Reason, message: string, retryAfterMs?: number): ErrorStatus {
  const row: ReasonRow = REASONS[reason];
  const delayMs = retryAfterMs ?? row.retryAfterMs;
  const code = statusCodeOf(reason);
  const info = ErrorInfo.encode({ reason, domain: ERROR_DOMAIN, metadata: { outcome: row.outcome } }).finish();
  const any = [{ typeUrl: `${TYPE_PREFIX}ErrorInfo`, value: Buffer.from(info) }];
  if (delayMs !== undefined) {
    const retryDelay = { seconds: Math.floor(delayMs / 1000), nanos: (delayMs % 1000) * 1_000_000 };
    any.push({ typeUrl: `${TYPE_PREFIX}RetryInfo`, value: Buffer.from(RetryInfo.encode({ retryDelay }).finish()) });
  }
  const metadata = new Metadata();
  metadata.set(DETAILS_TRAILER, Buffer.from(Status.encode({ code, message, details: any }).finish()));
  return { name: 'BrokerStatus', code, details: message, message, metadata };
}

/** What another node answered, handed on to the caller of this one: its words and details, nothing of the connection. */
export function passedOn(error: ServiceError): ErrorStatus {
  const metadata = new Metadata();
  for (const bytes of error.metadata.get(DETAILS_TRAILER)) metadata.add(DETAILS_TRAILER, bytes);
  return { name: 'BrokerStatus', code: error.code, details: error.details, message: error.details, metadata };
}
