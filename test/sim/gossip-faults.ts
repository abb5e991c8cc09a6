import type { Prng } from '../../src/base/prng.ts';
import type { Address } from '../../src/gossip/types.ts';
import type { GossipNode } from './gossip-node.ts';
import type { CutKind, GossipWorld } from './gossip-world.ts';

export type Fault =
  | 'crash'
  | 'move'
  | 'stop'
  | 'block'
  | 'partition'
  | 'oneWay'
  | 'udp'
  | 'leave'
  | 'meta'
  | 'storm'
  /** Not drawn: for a plan that asks for it. One node stands still for 6 s. */
  | 'flap';
export const FAULTS: readonly Fault[] = [
  'crash',
  'move',
  'stop',
  'block',
  'partition',
  'oneWay',
  'udp',
  'leave',
  'meta',
  'storm',
];

const FAULT_MS_MAX = 40_000;
const FLAP_MS = 6_000;
const BLOCK_MS = 5_000;
const BLOCK_EVERY_MS = 60_000;
/** How long it goes on after it said that it leaves. */
const LEAVE_MS = 5_000;

/** Does to nodes and network what a seed has drawn; every seed has its own mix, as with all of them at once no promise is ever due. */
export class GossipFaults {
  readonly #world: GossipWorld;
  readonly #prng: Prng;
  readonly #nodes: readonly GossipNode[];
  readonly #kinds: readonly Fault[];
  #addresses = 0;
  #cuts: { readonly from: string; readonly to: string; readonly kind: CutKind; readonly until: number }[] = [];
  #blockedAt = new Map<GossipNode, number>();
  crashes = 0;
  flaps = 0;
  stops = 0;

  constructor(world: GossipWorld, nodes: readonly GossipNode[], kinds: readonly Fault[]) {
    this.#world = world;
    this.#prng = world.prng;
    this.#nodes = nodes;
    this.#kinds = kinds;
    if (kinds.includes('block')) {
      for (const node of nodes.slice(0, 1 + this.#prng.nextBelow(2))) {
        this.#blockedAt.set(node, this.#prng.nextBelow(BLOCK_EVERY_MS));
      }
    }
  }

  /** Once a second. */
  act(): void {
    const { now } = this.#world;
    this.#endCuts(now);
    for (const [node, at] of this.#blockedAt) {
      if (at <= now) {
        this.#blockedAt.set(node, at + BLOCK_EVERY_MS);
        this.stops += 1;
        node.stop(BLOCK_MS);
      }
    }
    if (this.#kinds.includes('flap') && this.#prng.chance(1, 8)) {
      this.#inject('flap');
    }
    const kind = this.#kinds[this.#prng.nextBelow(Math.max(1, this.#kinds.length))];
    if (kind !== undefined && this.#prng.chance(1, 8)) {
      this.#inject(kind);
    }
    if (this.#prng.chance(1, 15)) {
      this.#pick((node) => !node.isUp)?.start();
    }
  }

  /** All are up and nothing is cut. */
  end(): void {
    this.#endCuts(Number.POSITIVE_INFINITY);
    this.#blockedAt.clear();
    for (const node of this.#nodes) {
      if (node.hasLeft && node.isUp) {
        node.crash();
      }
      if (!node.isUp) {
        node.start();
        // Where all seeds have left and come back at one time they find each other only, and the rest has forgotten them.
        for (const other of this.#nodes) {
          if (other !== node) {
            node.join(other.address);
          }
        }
      }
    }
  }

  #inject(kind: Fault): void {
    const node = this.#pick((candidate) => candidate.isUp && !candidate.isStopped && !candidate.hasLeft);
    if (node === undefined) {
      return;
    }
    switch (kind) {
      case 'crash':
        this.#crash(node);
        // As a supervisor does: at once, before anybody has seen it.
        if (this.#prng.chance(1, 3)) {
          node.start();
        }
        return;
      case 'move':
        this.#crash(node);
        this.#after(node, this.#prng.nextBelow(20_000), () => node.start(this.#newAddress()));
        return;
      case 'stop':
        this.stops += 1;
        node.stop(500 + this.#prng.nextBelow(12_000));
        return;
      case 'storm':
        for (const other of this.#nodes) {
          if (this.#prng.chance(1, 2)) {
            this.stops += 1;
            other.stop(500 + this.#prng.nextBelow(8_000));
          }
        }
        return;
      case 'flap':
        this.flaps += 1;
        node.stop(FLAP_MS);
        return;
      case 'block':
        return;
      case 'partition':
        this.#partition();
        return;
      case 'oneWay':
        this.#cut(
          this.#others(node, 1 + this.#prng.nextBelow(this.#nodes.length)),
          (other) => [node.name, other.name],
          'all',
        );
        return;
      case 'udp':
        this.#cut(this.#others(node, this.#nodes.length), (other) => [node.name, other.name], 'udp');
        this.#cut(this.#others(node, this.#nodes.length), (other) => [other.name, node.name], 'udp');
        return;
      case 'leave':
        node.leave();
        this.#after(node, LEAVE_MS, () => this.#crash(node));
        return;
      case 'meta':
        node.updateMeta(new Uint8Array([this.#prng.nextBelow(256), this.#prng.nextBelow(256)]));
        return;
    }
  }

  #crash(node: GossipNode): void {
    this.crashes += 1;
    node.crash();
  }

  /** If it is still the same life. */
  #after(node: GossipNode, ms: number, run: () => void): void {
    const { life } = node;
    this.#world.at(this.#world.now + ms, () => {
      if (node.life === life) {
        run();
      }
    });
  }

  #newAddress(): Address {
    this.#addresses += 1;
    return { host: `10.1.${this.#addresses >> 8}.${this.#addresses & 255}`, port: 7946 };
  }

  #partition(): void {
    const isLeft = this.#nodes.map(() => this.#prng.chance(1, 2));
    const until = this.#until();
    this.#nodes.forEach((from, i) => {
      this.#nodes.forEach((to, j) => {
        if (isLeft[i] !== isLeft[j]) {
          this.#cutOne(from.name, to.name, 'all', until);
        }
      });
    });
  }

  #cut(others: readonly GossipNode[], wayOf: (other: GossipNode) => [string, string], kind: CutKind): void {
    const until = this.#until();
    for (const other of others) {
      this.#cutOne(...wayOf(other), kind, until);
    }
  }

  #cutOne(from: string, to: string, kind: CutKind, until: number): void {
    this.#cuts.push({ from, to, kind, until });
    this.#world.cut(from, to, kind);
  }

  #endCuts(now: number): void {
    const ended = this.#cuts.filter((cut) => cut.until <= now);
    this.#cuts = this.#cuts.filter((cut) => cut.until > now);
    for (const { from, to, kind } of ended) {
      this.#world.mend(from, to, kind);
    }
  }

  #until(): number {
    return this.#world.now + 1_000 + this.#prng.nextBelow(FAULT_MS_MAX);
  }

  #others(node: GossipNode, max: number): readonly GossipNode[] {
    return this.#nodes.filter((other) => other !== node).slice(0, max);
  }

  #pick(isFit: (node: GossipNode) => boolean): GossipNode | undefined {
    const fit = this.#nodes.filter(isFit);
    return fit[this.#prng.nextBelow(Math.max(1, fit.length))];
  }
}
