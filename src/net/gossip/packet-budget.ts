/** Packets a second, and how many may come at once. Filled again while a thread stands still, so that what waited for it is not taken for a flood. */
interface Rate {
  readonly perSecond: number;
  readonly burst: number;
}

/**
 * A node of a cluster of 100 hears about 30 packets a second (memberlist's LAN timing). Members get room for two hundred times that and for a pause of the
 * thread; strangers for what joins a cluster, and for those whose packets come from another address than the one that they say (address translation).
 */
const MEMBERS: Rate = { perSecond: 6_000, burst: 3_000 };
const STRANGERS: Rate = { perSecond: 1_000, burst: 500 };

/** Of whom a packet is, by the address that it came from. Anybody can write any address: it decides what is read first, not what is believed. */
export type PacketClass = 'member' | 'stranger';

/**
 * Decides before a packet is looked into whether it is: what opens, checks and decodes packets is the main thread, which serves clients too. Members have a
 * rate of their own, so that a flood of strangers makes nobody's acks late.
 */
export class PacketBudget {
  readonly #buckets: Readonly<Record<PacketClass, Bucket>>;

  /** `now`: ms on any clock that does not go back. */
  constructor(now: number) {
    this.#buckets = { member: new Bucket(MEMBERS, now), stranger: new Bucket(STRANGERS, now) };
  }

  /** False: drop it. */
  take(from: PacketClass, now: number): boolean {
    return this.#buckets[from].take(now);
  }
}

class Bucket {
  readonly #rate: Rate;
  #tokens: number;
  #at: number;

  constructor(rate: Rate, now: number) {
    this.#rate = rate;
    this.#tokens = rate.burst;
    this.#at = now;
  }

  take(now: number): boolean {
    const { perSecond, burst } = this.#rate;
    this.#tokens = Math.min(burst, this.#tokens + ((now - this.#at) * perSecond) / 1_000);
    this.#at = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
