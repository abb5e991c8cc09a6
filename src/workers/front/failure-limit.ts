/** Failures at once from one place, and how long one is held against it, in ms. */
const BURST = 20;
const FORGET_MS = 3_000;
/** Places share a slot by the hash of their address: what is kept does not grow with those who try. */
const SLOTS = 256;

/** Holds back whoever shows one wrong token after the other. */
export class FailureLimit {
  readonly #failures = new Float64Array(SLOTS);
  readonly #at = new Float64Array(SLOTS);

  /** Whether somebody at this address has failed too often to be listened to now. `now`: ms that never fall. */
  isBarred(host: string, now: number): boolean {
    return this.#levelOf(slotOf(host), now) >= BURST;
  }

  failed(host: string, now: number): void {
    const slot = slotOf(host);
    this.#failures[slot] = this.#levelOf(slot, now) + 1;
    this.#at[slot] = now;
  }

  #levelOf(slot: number, now: number): number {
    return Math.max(0, (this.#failures[slot] as number) - (now - (this.#at[slot] as number)) / FORGET_MS);
  }
}

function slotOf(host: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < host.length; i++) hash = Math.imul(hash ^ host.charCodeAt(i), 0x01000193);
  return (hash ^ (hash >>> 16)) & (SLOTS - 1);
}
