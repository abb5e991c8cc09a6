/** What stands in the trailers of a refused call: the reading side of status.ts. */
import { Metadata } from '@grpc/grpc-js';
import type { Outcome } from '../base/errors.ts';
import { ErrorInfo, RetryInfo } from './gen/google/rpc/error_details.ts';
import { Status } from './gen/google/rpc/status.ts';
import { DETAILS_TRAILER } from './status.ts';

export interface ErrorDetails {
  /** Null: whatever answered is no broker, or it was not the broker's word. */
  reason: string | null;
  outcome: Outcome | null;
  retryAfterMs: number | null;
}

export function readDetails(metadata: Metadata | undefined): ErrorDetails {
  const found: ErrorDetails = { reason: null, outcome: null, retryAfterMs: null };
  const [bytes] = metadata instanceof Metadata ? metadata.get(DETAILS_TRAILER) : [];
  if (!(bytes instanceof Uint8Array)) return found;
  try {
    for (const { typeUrl, value } of Status.decode(bytes).details) {
      if (typeUrl.endsWith('/google.rpc.ErrorInfo')) {
        const { reason, metadata: said } = ErrorInfo.decode(value);
        if (reason !== '') found.reason = reason;
        if (said.outcome === 'none' || said.outcome === 'unknown') found.outcome = said.outcome;
      } else if (typeUrl.endsWith('/google.rpc.RetryInfo')) {
        const delay = RetryInfo.decode(value).retryDelay;
        found.retryAfterMs = delay === undefined ? 0 : delay.seconds * 1_000 + Math.ceil(delay.nanos / 1_000_000);
      }
    }
  } catch (error) {
    // Whatever answers at the address may not be a broker: details that cannot be read are details that are not there.
    if (!(error instanceof Error)) throw error;
    return { reason: null, outcome: null, retryAfterMs: null };
  }
  return found;
}
