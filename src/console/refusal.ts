/** Refusals as answers of the console's API: the words of the broker, and a status of HTTP for them. */
import { BrokerError, REASONS, type Reason, type ReasonRow, type StatusName } from '../base/errors.ts';
import { readDetails } from '../grpc/error-details.ts';
import { type AdminPage, json, withRetryAfter } from '../telemetry/admin-http.ts';
import type { ConsoleDenial } from './ports.ts';

const HTTP_STATUS: Readonly<Record<StatusName, number>> = {
  CANCELLED: 503,
  UNKNOWN: 500,
  INVALID_ARGUMENT: 400,
  DEADLINE_EXCEEDED: 504,
  RESOURCE_EXHAUSTED: 429,
  FAILED_PRECONDITION: 409,
  PERMISSION_DENIED: 403,
  UNAUTHENTICATED: 401,
  ABORTED: 409,
  UNIMPLEMENTED: 501,
  INTERNAL: 500,
  UNAVAILABLE: 503,
  DATA_LOSS: 500,
};

/** A request to the API that is not one: the fault is the caller's. */
export class RequestError extends Error {
  override name = 'RequestError';
  readonly status: number;
  readonly next: string;

  constructor(status: number, message: string, next: string) {
    super(message);
    this.status = status;
    this.next = next;
  }
}

export function refusalPage({ reason, retryAfterMs }: ConsoleDenial): AdminPage {
  const { status, when, next }: ReasonRow = REASONS[reason];
  return withRetryAfter(json(HTTP_STATUS[status], { error: when, next, reason }), retryAfterMs);
}

/** Null: it is none of the broker's words, which is a defect. */
export function reasonOf(error: unknown): Reason | null {
  if (error instanceof BrokerError) return error.reason;
  if (typeof error !== 'object' || error === null || !('metadata' in error)) return null;
  const { reason } = readDetails(error.metadata as Parameters<typeof readDetails>[0]);
  return reason !== null && Object.hasOwn(REASONS, reason) ? (reason as Reason) : null;
}

/** The answer to a request that failed. */
export function failurePage(error: unknown, onDefect: (error: unknown) => void): AdminPage {
  if (error instanceof RequestError) return json(error.status, { error: error.message, next: error.next });
  const reason = reasonOf(error);
  if (reason !== null) return refusalPage({ reason, retryAfterMs: 0 });
  onDefect(error);
  return refusalPage({ reason: 'INTERNAL_ERROR', retryAfterMs: 0 });
}
