/** What tests of the producer's session are made of. */
import type { Refusal, SessionBatch } from '../../src/client/producer-session.ts';

/** Of one message, and never sent. */
export function unsentBatch(subject: string, bytes: number, madeAt: number): SessionBatch {
  return {
    subject,
    bytes,
    count: 1,
    madeAt,
    sequence: 0,
    refusals: 0,
    isInFlight: false,
    isUnknown: false,
    isResend: false,
    lastError: null,
  };
}

export function refusal(reason: string, retryAfterMs: number, isUnknown = false): Refusal {
  return { code: 8, reason, message: reason, isUnknown, retryAfterMs };
}

/** Retries are never short of it. */
export const PLENTY = { reserve: 1e9, ratio: 1, max: 1e9 };
