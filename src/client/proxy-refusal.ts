/** Refusals by what stands in front of the brokers: no details of a broker, but headers that say when to come again. */
import { Metadata } from '@grpc/grpc-js';

/** Nobody is told to wait longer; far below what a timer can take. */
const DELAY_MS_MAX = 24 * 60 * 60 * 1_000;

/**
 * How long a proxy that limits calls (Envoy) asks to wait, in ms: `retry-after`, else `x-ratelimit-reset`, both in whole seconds. Of several limits the
 * first is the one that refused. Null: it does not say, so this is no such refusal.
 */
export function proxyDelayMs(metadata: Metadata | undefined): number | null {
  if (!(metadata instanceof Metadata)) return null;
  for (const name of ['retry-after', 'x-ratelimit-reset']) {
    const [said] = metadata.get(name);
    const seconds = typeof said === 'string' ? /^\s*(\d{1,15})\s*(?:$|,)/.exec(said)?.[1] : undefined;
    if (seconds !== undefined) return Math.min(DELAY_MS_MAX, Number(seconds) * 1_000);
  }
  return null;
}
