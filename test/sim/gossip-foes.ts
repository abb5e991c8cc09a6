import type { Address, PacketMessage, Versions } from '../../src/gossip/types.ts';
import { encode } from './gossip-codec.ts';
import type { GossipNode } from './gossip-node.ts';
import type { GossipWorld } from './gossip-world.ts';

/** `replay`: what was really said, again. `forge`: anything, in the name of anybody. */
export type Foe = 'replay' | 'forge';

const REMEMBERED_MAX = 400;
/** Names that nobody has. */
export const GHOSTS_MAX = 40;
const FOE: Address = { host: '203.0.113.9', port: 40_000 };
const VERSIONS: Versions = [1, 5, 2, 2, 5, 4];
const UINT32_MAX = 0xffff_ffff;

/** Somebody who can send to every node, and hears what they say. */
export class GossipFoes {
  readonly #world: GossipWorld;
  readonly #nodes: readonly GossipNode[];
  readonly #kind: Foe;
  readonly #heard: PacketMessage[] = [];
  #ghosts = 0;
  sent = 0;

  constructor(world: GossipWorld, nodes: readonly GossipNode[], kind: Foe) {
    this.#world = world;
    this.#nodes = nodes;
    this.#kind = kind;
  }

  /** Keeps some of it, old as well as new. */
  hear(message: PacketMessage): void {
    if (this.#heard.length < REMEMBERED_MAX) {
      this.#heard.push(message);
    } else {
      this.#heard[this.#world.prng.nextBelow(REMEMBERED_MAX)] = message;
    }
  }

  act(packets: number): void {
    for (let i = 0; i < packets; i += 1) {
      const message = this.#kind === 'replay' ? this.#replayed() : this.#forged();
      const target = this.#any();
      if (message !== null) {
        this.sent += 1;
        this.#world.packet('foe', this.#world.prng.chance(1, 2) ? FOE : this.#any().address, target.address, [
          encode(message),
        ]);
      }
    }
  }

  #replayed(): PacketMessage | null {
    return this.#heard[this.#world.prng.nextBelow(Math.max(1, this.#heard.length))] ?? null;
  }

  #forged(): PacketMessage {
    const { prng } = this.#world;
    const node = this.#name();
    const source = prng.chance(1, 2) ? null : { address: this.#address(), node: this.#name() };
    switch (prng.nextBelow(8)) {
      case 0:
        return { kind: 'ping', seq: prng.nextUint32(), node, source };
      case 1:
        return {
          kind: 'indirectPing',
          seq: prng.nextUint32(),
          target: this.#address(),
          node,
          nack: prng.chance(1, 2),
          source,
        };
      case 2:
        return { kind: 'ack', seq: this.#seq(), payload: new Uint8Array(prng.nextBelow(4)) };
      case 3:
        return { kind: 'nack', seq: this.#seq() };
      case 4:
        return { kind: 'suspect', incarnation: this.#incarnation(), node, from: this.#name() };
      case 5:
        return {
          kind: 'alive',
          incarnation: this.#incarnation(),
          node,
          address: this.#address(),
          meta: new Uint8Array([prng.nextBelow(256)]),
          versions: prng.chance(1, 4) ? [0, 0, 9, 255, 1, 7] : VERSIONS,
        };
      case 6:
        return { kind: 'dead', incarnation: this.#incarnation(), node, from: prng.chance(1, 3) ? node : this.#name() };
      default:
        return { kind: 'user', payload: new Uint8Array(prng.nextBelow(300)) };
    }
  }

  #name(): string {
    const { prng } = this.#world;
    if (prng.chance(1, 12)) {
      this.#ghosts += 1;
      return prng.chance(1, 8) ? '' : `ghost${this.#ghosts % GHOSTS_MAX}`;
    }
    return this.#any().name;
  }

  #address(): Address {
    return this.#world.prng.chance(1, 3)
      ? { host: '203.0.113.77', port: 1 + this.#world.prng.nextBelow(65_535) }
      : this.#any().address;
  }

  #seq(): number {
    return this.#world.prng.chance(1, 2) ? this.#world.prng.nextBelow(300) : this.#world.prng.nextUint32();
  }

  /** Near what is true, and now and then as high as it goes. */
  #incarnation(): number {
    const { prng } = this.#world;
    const own = this.#any().members()[0]?.incarnation ?? 1;
    return [own, own + 1, own + 2, prng.nextBelow(own + 1), prng.nextUint32(), UINT32_MAX][prng.nextBelow(6)] as number;
  }

  #any(): GossipNode {
    return this.#nodes[this.#world.prng.nextBelow(this.#nodes.length)] as GossipNode;
  }
}
