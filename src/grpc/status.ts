import { Metadata, type ServiceError, status } from '@grpc/grpc-js';
import { BrokerError, REASONS, type Reason, type ReasonRow } from '../base/errors.ts';
import { ErrorInfo, RetryInfo } from './gen/google/rpc/error_details.ts';
import { Status } from './gen/google/rpc/status.ts';

/** `ErrorInfo.domain` of every error of the broker. */
export const ERROR_DOMAIN = 'broker';

const DETAILS_TRAILER = 'grpc-status-details-bin';
const TYPE_PREFIX = 'type.googleapis.com/google.rpc.';

/** What grpc-js sends: a status with the standard details in its trailers. */
export type ErrorStatus = Pick<ServiceError, 'code' | 'details' | 'metadata' | 'name' | 'message'>;

export function statusCodeOf(reason: Reason): number {
  return status[REASONS[reason].status];
}

/**
 * Statuses by reason. Without details they are made once and shared: a refusal under overload costs a look-up. Trailers stay well under
 * the 8 KiB that peers accept for a header list.
 */
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

export function makeStatus(reason: Reason, details: string): ErrorStatus {
  const row: ReasonRow = REASONS[reason];
  const { message } = new BrokerError(reason, details.slice(0, 512));
  const code = statusCodeOf(reason);
  const info = ErrorInfo.encode({ reason, domain: ERROR_DOMAIN, metadata: { outcome: row.outcome } }).finish();
  const any = [{ typeUrl: `${TYPE_PREFIX}ErrorInfo`, value: Buffer.from(info) }];
  if (row.retryAfterMs !== undefined) {
    const retryDelay = { seconds: Math.floor(row.retryAfterMs / 1000), nanos: (row.retryAfterMs % 1000) * 1_000_000 };
    any.push({ typeUrl: `${TYPE_PREFIX}RetryInfo`, value: Buffer.from(RetryInfo.encode({ retryDelay }).finish()) });
  }
  const metadata = new Metadata();
  metadata.set(DETAILS_TRAILER, Buffer.from(Status.encode({ code, message, details: any }).finish()));
  return { name: 'BrokerStatus', code, details: message, message, metadata };
}
