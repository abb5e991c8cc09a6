import { formatEndpoint, parseEndpoint } from '../../base/endpoint.ts';
import type { Address } from '../../gossip/types.ts';
import { addressKey, resolveHost } from '../../net/gossip/hosts.ts';
import type { Log } from '../../telemetry/log.ts';

/** First wait before seeds are asked again; it doubles each time, is drawn from [half, whole], and ends at the longest. In ms. */
const WAIT_MS_MIN = 500;
const WAIT_MS_MAX = 15_000;
/** How often a node that sees nobody alive asks its seeds again, and one that does a seed that it has not met. */
const ALONE_MS = 10_000;
/** Addresses that are asked at once: a headless service may have hundreds. */
const ASKED_AT_ONCE_MAX = 8;

/** What asking needs of the rules and of the world. */
export interface SeedPort {
  /** Asks each of these for all that it knows; tells `Seeds.settle` whenever one of them has ended. */
  join(addresses: readonly Address[]): void;
  /** Joins that have succeeded since the beginning, and those that have not ended. */
  joinsDone(): number;
  joinsPending(): number;
  /** Nobody else is known to be alive. */
  isAlone(): boolean;
  /** Somebody is alive there, as far as is known. */
  isMet(address: Address): boolean;
  /** An integer of 0 to below - 1. */
  random(below: number): number;
  /** This node itself is no seed. */
  readonly own: Address;
  readonly log: Log;
}

/**
 * Asks seeds until one answers, and again whenever this node is left alone: after a failure of the network everybody may have forgotten it. Later, one now
 * and then that is not met. Names are looked up anew each time, they are what moves.
 */
export class Seeds {
  readonly #port: SeedPort;
  /** Told by the configuration, for ever. */
  #told: readonly string[] = [];
  /** Found by discovery, as of now. */
  #found: readonly string[] = [];
  #waitMs = WAIT_MS_MIN;
  #timer: NodeJS.Timeout | null = null;
  /** Joins done when the present asking began; -1: none is under way. */
  #doneBefore = -1;
  #isStopped = false;
  #isJoined = false;
  /** Said once, not with each attempt. */
  #lastWords = '';
  readonly #waiters = new Set<() => void>();

  constructor(port: SeedPort) {
    this.#port = port;
  }

  /** Adds HOST:PORT, in any number. Resolves when some seed has answered, or after `stop`. */
  add(seeds: readonly string[]): Promise<void> {
    this.#told = [...new Set([...this.#told, ...seeds])];
    return this.#askSoon();
  }

  /** The same for what discovery has found: these take the place of those that it had found before, whose machines may be gone. */
  found(seeds: readonly string[]): Promise<void> {
    this.#found = seeds;
    return this.#askSoon();
  }

  get #seeds(): readonly string[] {
    return [...new Set([...this.#told, ...this.#found])];
  }

  #askSoon(): Promise<void> {
    this.#waitMs = WAIT_MS_MIN;
    if (this.#doneBefore < 0 && !this.#isStopped) this.#wakeIn(0);
    return this.#isJoined || this.#isStopped ? Promise.resolve() : new Promise((resolve) => this.#waiters.add(resolve));
  }

  /** A join has ended, one way or the other. */
  settle(): void {
    if (this.#doneBefore < 0 || this.#isStopped) return;
    if (this.#port.joinsDone() > this.#doneBefore) this.#succeed();
    else if (this.#port.joinsPending() === 0)
      this.#fail(
        'none of them answered: nobody is there yet, UDP or TCP does not get through, or gossip.key, gossip.label or cluster differs',
      );
  }

  stop(): void {
    this.#isStopped = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#release();
  }

  #wakeIn(ms: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      void this.#ask();
    }, ms);
  }

  async #ask(): Promise<void> {
    if (this.#isStopped || this.#doneBefore >= 0 || this.#seeds.length === 0) return;
    if (this.#isJoined && !this.#port.isAlone()) {
      this.#wakeIn(ALONE_MS);
      await this.#askStranger();
      return;
    }
    this.#doneBefore = this.#port.joinsDone();
    const { addresses, failures } = await this.#resolve();
    if (this.#isStopped) return;
    if (addresses.length === 0) {
      this.#fail(failures.length === 0 ? 'they are all this node itself' : failures.join('; '));
      return;
    }
    this.#port.join(this.#some(addresses));
    this.settle();
  }

  /** One of those that are not met, now and then: those that left and came back together know each other, and the rest has forgotten them. */
  async #askStranger(): Promise<void> {
    const { addresses } = await this.#resolve();
    if (this.#isStopped) return;
    const strangers = addresses.filter((address) => !this.#port.isMet(address));
    const stranger = strangers[strangers.length === 0 ? 0 : this.#port.random(strangers.length)];
    if (stranger !== undefined) this.#port.join([stranger]);
  }

  async #resolve(): Promise<{ addresses: Address[]; failures: string[] }> {
    const { own } = this.#port;
    const addresses = new Map<string, Address>();
    const failures: string[] = [];
    const looked = this.#seeds.map(async (seed) => {
      const endpoint = parseEndpoint(seed);
      if (endpoint === null) {
        failures.push(`${seed} is not HOST:PORT`);
        return;
      }
      try {
        for (const host of await resolveHost(endpoint.host)) {
          const address = { host, port: endpoint.port };
          if (addressKey(address) !== addressKey(own)) addresses.set(addressKey(address), address);
        }
      } catch (error) {
        failures.push(error instanceof Error ? error.message : String(error));
      }
    });
    await Promise.all(looked);
    return { addresses: [...addresses.values()], failures };
  }

  /** Any of them: the first ones of a list that everybody has would be asked by all. */
  #some(addresses: Address[]): Address[] {
    const left = [...addresses];
    const chosen: Address[] = [];
    while (left.length > 0 && chosen.length < ASKED_AT_ONCE_MAX) {
      chosen.push(...left.splice(this.#port.random(left.length), 1));
    }
    return chosen;
  }

  #succeed(): void {
    this.#doneBefore = -1;
    this.#waitMs = WAIT_MS_MIN;
    this.#lastWords = '';
    if (!this.#isJoined) this.#port.log.info('found others by gossip', { seeds: this.#seeds.join(',') });
    this.#isJoined = true;
    this.#release();
    this.#wakeIn(ALONE_MS);
  }

  #fail(words: string): void {
    this.#doneBefore = -1;
    if (words !== this.#lastWords) {
      const own = formatEndpoint(this.#port.own);
      this.#port.log.warn('no gossip seed has answered yet', { seeds: this.#seeds.join(','), own, reason: words });
    }
    this.#lastWords = words;
    const half = Math.floor(this.#waitMs / 2);
    this.#wakeIn(half + this.#port.random(half + 1));
    this.#waitMs = Math.min(WAIT_MS_MAX, this.#waitMs * 2);
  }

  #release(): void {
    for (const resolve of this.#waiters) resolve();
    this.#waiters.clear();
  }
}
