/** Failures at once from one place, and how long one is held against it, in ms. */
const BURST = 20;
const FORGET_MS = 3_000;
/** Places share a slot by the hash of their address: what is kept does not grow with those who try. */
const SLOTS = 256;

/** Holds back whoever shows one wrong token after the other. */
export class FailureLimit {
  readonly #failures = new Float64Array(SLOTS);
  readonly #at = new Float64Array(SLOTS);

  /**
   * Before somebody at this address is judged: it counts as a failure until `succeeded`, so that many at once are no more than many one after the other.
   * 0; or, for an address that has failed too often, in how many ms it may try again. `now`: ms that never fall.
   */
  begin(host: string, now: number): number {
    const slot = slotOf(host);
    const level = this.#levelOf(slot, now) + 1;
    if (level > BURST) return (level - BURST) * FORGET_MS;
    this.#set(slot, level, now);
    return 0;
  }

  /** It was none: takes back the last `begin`. */
  succeeded(host: string, now: number): void {
    const slot = slotOf(host);
    this.#set(slot, Math.max(0, this.#levelOf(slot, now) - 1), now);
  }

  #set(slot: number, level: number, now: number): void {
    this.#failures[slot] = level;
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
