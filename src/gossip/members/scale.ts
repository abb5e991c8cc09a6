/** util.go: how times and counts grow with the number of members. */

/** util.go suspicionTimeout: the least time of a suspicion, in ms. */
export function suspicionTimeout(multiplier: number, members: number, intervalMs: number): number {
  const scale = Math.max(1, Math.log10(Math.max(1, members)));
  return (multiplier * Math.floor(scale * 1_000) * intervalMs) / 1_000;
}

/** util.go retransmitLimit: how often a message is sent. */
export function retransmitLimit(multiplier: number, members: number): number {
  return multiplier * Math.ceil(Math.log10(members + 1));
}

const PUSH_PULL_MEMBERS = 32;

/** util.go pushPullScale: from the 33rd member on twice the interval, from the 65th on three times, and so on. */
export function pushPullScale(intervalMs: number, members: number): number {
  if (members <= PUSH_PULL_MEMBERS) return intervalMs;
  return (Math.ceil(Math.log2(members) - Math.log2(PUSH_PULL_MEMBERS)) + 1) * intervalMs;
}
