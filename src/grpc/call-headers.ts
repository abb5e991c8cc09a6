/** The headers of a unary call that the broker reads itself (gRPC over HTTP/2, "Requests"). */
import type { IncomingHttpHeaders } from 'node:http2';
import { TIMER_MS_MAX } from '../base/timer.ts';

const TIMEOUT = /^(\d{1,8})([HMSmun])$/;
const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** A call that grpc-js would do nothing special for. */
export function isPlain(headers: IncomingHttpHeaders): boolean {
  const type = headers['content-type'];
  const encoding = headers['grpc-encoding'];
  const timeout = headers['grpc-timeout'];
  return (
    (type === 'application/grpc' || type === 'application/grpc+proto') &&
    headers[':method'] === 'POST' &&
    (encoding === undefined || encoding === 'identity') &&
    (timeout === undefined || TIMEOUT.test(timeout as string))
  );
}

/** grpc-js has a timer for a deadline, and a timer holds 24 days: what is longer would be over at once. Its client ends it by itself. */
export function boundTimeout(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const timeout = headers['grpc-timeout'] as string | undefined;
  if (timeout !== undefined && TIMEOUT.test(timeout) && timeoutMsOf(timeout) > TIMER_MS_MAX)
    delete headers['grpc-timeout'];
  return headers;
}

/** Whole ms, or Infinity, of a call that is plain. Nothing is armed for it: the client ends its call by itself, and work that comes too late is not begun. */
export function timeoutMsOf(timeout: string | undefined): number {
  if (timeout === undefined) return Number.POSITIVE_INFINITY;
  const [, value, unit] = TIMEOUT.exec(timeout) as unknown as [string, string, string];
  return Math.trunc(Number(value) * (UNIT_MS[unit] as number));
}
