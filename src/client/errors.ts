/** How calls of the client fail. One base class with what a caller has to decide on; no text ever needs to be looked at. */
import { type ServiceError, type StatusObject, status } from '@grpc/grpc-js';
import { type Outcome, REASONS, type Reason, type ReasonRow } from '../base/errors.ts';
import { readDetails } from '../grpc/error-details.ts';
import { proxyDelayMs } from './proxy-refusal.ts';

export interface ClientErrorFields {
  /** Number of google.rpc.Code. */
  readonly code: number;
  /** One of docs/errors.md; null if the error does not come from a broker. */
  readonly reason: string | null;
  /** Of all tries together. `none`: it had no effect and never will. `unknown`: it may have had one, or may still have. */
  readonly outcome: Outcome;
  /** Earliest time for another try, in ms; null where waiting does not help, or nobody said. */
  readonly retryAfterMs: number | null;
}

/** Base of all errors of the client. An aborted signal is no ClientError: its own reason is thrown. */
export class ClientError extends Error implements ClientErrorFields {
  override name = 'ClientError';
  readonly code: number;
  readonly reason: string | null;
  readonly outcome: Outcome;
  readonly retryAfterMs: number | null;

  constructor(message: string, fields: ClientErrorFields, options?: ErrorOptions) {
    super(message, options);
    this.code = fields.code;
    this.reason = fields.reason;
    this.outcome = fields.outcome;
    this.retryAfterMs = fields.retryAfterMs;
  }

  /** Name of the code, such as RESOURCE_EXHAUSTED. */
  get status(): string {
    return status[this.code] ?? String(this.code);
  }

  /** The same request may succeed later, and repeating it cannot store anything twice. */
  get retryable(): boolean {
    return this.outcome === 'none' && this.retryAfterMs !== null;
  }
}

/** The broker answered, and said no; or would, as far as the client can tell without asking. */
export class RefusedError extends ClientError {
  override name = 'RefusedError';
}

/** No connection, or it was lost on the way. With the outcome `none` nothing was sent. */
export class ConnectionError extends ClientError {
  override name = 'ConnectionError';
  /** Why, as far as is known, such as a certificate that is not taken; null: nobody answers. */
  readonly why: string | null;

  constructor(message: string, fields: ClientErrorFields & { readonly why?: string | null }, options?: ErrorOptions) {
    super(message, fields, options);
    this.why = fields.why ?? null;
  }
}

/** No answer within `timeoutMs`, or no result within `deliveryTimeoutMs`. */
export class TimeoutError extends ClientError {
  override name = 'TimeoutError';
}

/** The client or the publisher is closed, or its buffer and its queue of waiting calls are full. Nothing was sent. */
export class UsageError extends ClientError {
  override name = 'UsageError';
}

/** The same error, said of a request whose outcome is another one than that of its last try. */
export function withOutcome(error: ClientError, outcome: Outcome): ClientError {
  if (error.outcome === outcome) return error;
  const { code, reason, retryAfterMs, message, cause } = error;
  const fields = { code, reason, outcome, retryAfterMs, why: error instanceof ConnectionError ? error.why : null };
  return new (error.constructor as typeof ClientError)(message, fields, { cause });
}

export function closedError(what: string): UsageError {
  return new UsageError(`the ${what} is closed`, {
    code: status.FAILED_PRECONDITION,
    reason: null,
    outcome: 'none',
    retryAfterMs: null,
  });
}

/** Waiting helps as soon as somebody answers again. */
export const CONNECT_RETRY_MS = 100;

/** `why`: as far as is known, such as a certificate that is not taken. */
export function connectionError(address: string, why: string | null = null, options?: ErrorOptions): ConnectionError {
  return new ConnectionError(
    `no connection to ${address}${why === null ? '' : `: ${why}`}`,
    { code: status.UNAVAILABLE, reason: null, outcome: 'none', retryAfterMs: CONNECT_RETRY_MS, why },
    options,
  );
}

/** What answers does not keep to the protocol. */
export function protocolError(message: string, options?: ErrorOptions): RefusedError {
  const fields: ClientErrorFields = { code: status.INTERNAL, reason: null, outcome: 'unknown', retryAfterMs: null };
  return new RefusedError(message, fields, options);
}

/** What the broker would answer, said without asking it. */
export function refusedError(reason: Reason): RefusedError {
  const row: ReasonRow = REASONS[reason];
  return new RefusedError(`${row.when}; ${row.next} (${reason})`, {
    code: status[row.status],
    reason,
    outcome: row.outcome,
    retryAfterMs: row.retryAfterMs ?? null,
  });
}

/**
 * What grpc-js says of a stream that was reset with ENHANCE_YOUR_CALM. So a broker ends one whose client takes nothing, since its status would wait behind
 * what is not read, and all of a connection that it cuts: both are as good as a connection that was lost.
 */
const RESET_AS_STALLED = 'Bandwidth exhausted or memory limit exceeded';

/** What a call, or a stream, ended with. */
export function errorOf(end: ServiceError | StatusObject): ClientError {
  const details = readDetails(end.metadata);
  const { reason } = details;
  const name = status[end.code] ?? String(end.code);
  // A proxy that limits calls has passed nothing on.
  const isProxy = reason === null && end.code === status.RESOURCE_EXHAUSTED;
  const proxyDelay = isProxy ? proxyDelayMs(end.metadata) : null;
  const fields: ClientErrorFields = {
    code: end.code,
    reason,
    outcome: details.outcome ?? (proxyDelay === null ? assumedOutcome(end.code, reason) : 'none'),
    retryAfterMs: proxyDelay ?? details.retryAfterMs,
  };
  const cause = end instanceof Error ? { cause: end } : undefined;
  const message = `${end.details} (${reason ?? name})`;
  if (reason !== null) return new RefusedError(message, fields, cause);
  if (end.code === status.DEADLINE_EXCEEDED) return new TimeoutError(message, fields, cause);
  const isReset = end.code === status.RESOURCE_EXHAUSTED && end.details === RESET_AS_STALLED;
  const isLost =
    isReset || end.code === status.UNAVAILABLE || end.code === status.CANCELLED || end.code === status.INTERNAL;
  return isLost ? new ConnectionError(message, fields, cause) : new RefusedError(message, fields, cause);
}

/** What may be assumed without the broker's word. */
function assumedOutcome(code: number, reason: string | null): Outcome {
  const row: ReasonRow | undefined =
    reason !== null && Object.hasOwn(REASONS, reason) ? REASONS[reason as keyof typeof REASONS] : undefined;
  if (row !== undefined) return row.outcome;
  return code === status.UNIMPLEMENTED ? 'none' : 'unknown';
}
