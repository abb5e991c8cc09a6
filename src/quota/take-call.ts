import type { PrefixQuota, Tenant } from './tenant.ts';

/** Takes a single call of a tenant, or says when it may come again: 0 = taken, else ms. `prefix`: the quota of its subject, if it has one. */
export function takeCall(
  tenant: Tenant,
  prefix: PrefixQuota | null,
  messages: number,
  bytes: number,
  now: number,
): number {
  const { limiter, usage } = tenant;
  const isFree = limiter.isFree(limiter.calls, messages, bytes, now);
  if (prefix === null) {
    if (isFree) {
      limiter.take(limiter.calls, messages, bytes);
      usage.count(messages, bytes);
      return 0;
    }
    usage.refused += 1;
    return limiter.delayMs(messages, bytes, now);
  }
  const part = prefix.limiter;
  if (isFree && part.isFree(part.calls, messages, bytes, now)) {
    limiter.take(limiter.calls, messages, bytes);
    part.take(part.calls, messages, bytes);
    usage.count(messages, bytes);
    prefix.usage.count(messages, bytes);
    return 0;
  }
  usage.refused += 1;
  prefix.usage.refused += 1;
  return Math.max(limiter.delayMs(messages, bytes, now), part.delayMs(messages, bytes, now));
}
