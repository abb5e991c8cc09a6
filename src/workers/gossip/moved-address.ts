import type { Address, PacketMessage, Versions } from '../../gossip/types.ts';
import { addressKey } from '../../net/gossip/hosts.ts';
import type { OwnPast } from './rejoin-file.ts';

/** Incarnations left between the last one that was written down and the one under which the old address says good-bye: the last ones may not have been. */
const FAREWELL_STEP = 8;
/** And from there to the first one at the new address. */
const NEW_STEP = 8;
const INCARNATION_MAX = 0xffff_ffff;
/** Between the two packets of a farewell, and from the last of them until it may be taken for done; in ms. They must not overtake one another. */
const APART_MS = 100;
/** Who is told once is not told again for so long. */
const AGAIN_MS = 3_000;

export interface MovedSelf {
  readonly node: string;
  readonly past: OwnPast;
  readonly versions: Versions;
  /** The tags, encoded. */
  readonly meta: Uint8Array;
}

export interface MovedAddressPort {
  send(to: Address, message: PacketMessage): void;
  now(): number;
}

/** The incarnation of a node that starts again: above all that others may know of it, so that what it is now holds at once. */
export function nextLife(past: OwnPast | null): number {
  const next = (past?.incarnation ?? 0) + (past === null ? 1 : FAREWELL_STEP + NEW_STEP);
  return next > INCARNATION_MAX ? 1 : next;
}

/**
 * A node that starts again at another address. Members keep to the address that they know of a name, or anybody could take it over (memberlist state.go
 * aliveNode): they would refuse this node until its old self is forgotten, a day with Serf. So its old self takes leave of each of them: a name that was left
 * may move. Those who take it for failed already would not hear of a leave, so it is alive for a moment first, at the old address.
 */
export class MovedAddress {
  readonly #port: MovedAddressPort;
  readonly #self: MovedSelf;
  readonly #told = new Map<string, number>();
  readonly #timers = new Set<NodeJS.Timeout>();

  constructor(self: MovedSelf, port: MovedAddressPort) {
    this.#self = self;
    this.#port = port;
  }

  /** Whether an address is the one that this node had before. */
  isOld(address: Address): boolean {
    return addressKey(address) === addressKey(this.#self.past.address);
  }

  /** Takes leave of these at the old address; `done`: they have heard it, or the packets are lost. Not called if all were told lately. */
  farewell(targets: readonly Address[], done: () => void): void {
    const now = this.#port.now();
    const due = targets.filter((to) => now - (this.#told.get(addressKey(to)) ?? Number.NEGATIVE_INFINITY) > AGAIN_MS);
    if (due.length === 0) return;
    const { node, past, versions, meta } = this.#self;
    const { address } = past;
    const incarnation = past.incarnation + FAREWELL_STEP;
    for (const to of due) {
      this.#told.set(addressKey(to), now);
      this.#port.send(to, { kind: 'alive', incarnation, node, address, meta, versions });
    }
    this.#later(() => {
      for (const to of due) this.#port.send(to, { kind: 'dead', incarnation, node, from: node });
      this.#later(done);
    });
  }

  stop(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #later(act: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, APART_MS);
    this.#timers.add(timer);
  }
}
