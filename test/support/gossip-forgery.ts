/** Packets that a node must not believe: of strangers, of another cluster, damaged, or said long ago. */
import type { Prng } from '../../src/base/prng.ts';
import type { Address, PacketMessage, Versions } from '../../src/gossip/types.ts';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';
import { encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import { packPacket } from '../../src/net/gossip/wire/packet.ts';
import { NONCE_BYTES } from '../../src/net/gossip/wire/seal.ts';

const VERSIONS: Versions = [1, 5, 2, 2, 5, 5];
/** Of a member that has lived longer. */
const NEWER = 1_000_000;

export interface Target {
  readonly node: string;
  readonly address: Address;
}

export interface ForgeryOptions {
  /** The cluster's. */
  readonly key: Uint8Array;
  readonly targets: readonly Target[];
  readonly prng: Prng;
  /** An event that was told already: name, payload and Lamport time. */
  readonly oldEvent: { readonly time: number; readonly name: string; readonly payload: string };
}

export class Forgery {
  readonly #options: ForgeryOptions;
  readonly #otherKey: Uint8Array;

  constructor(options: ForgeryOptions) {
    this.#options = options;
    this.#otherKey = this.#bytes(32);
  }

  /** One of all kinds, in turn. */
  packet(number: number): Uint8Array {
    const { key, prng } = this.#options;
    switch (number % 9) {
      case 0:
        return this.seal([this.#lie()], this.#otherKey);
      case 1:
        return packPacket([encodeMessage(this.#lie())], { label: '', seal: null, crc: false, compress: false });
      case 2:
        return this.seal([this.#lie()], key, 'another cluster');
      case 3:
        return this.seal([this.#old()], key);
      case 4:
        return this.seal([this.#old(), this.#old(), this.#unasked()], key);
      case 5:
        return this.seal([this.#told()], key);
      case 6:
        return this.#bytes(prng.nextBelow(1_500));
      case 7: {
        // The right key around what makes no sense: whoever has it may still be mad.
        const nonce = this.#bytes(NONCE_BYTES);
        const seal = { key, version: 1 as const, nonce };
        return packPacket([this.#bytes(1 + prng.nextBelow(600))], { label: '', seal, crc: false, compress: false });
      }
      default: {
        const damaged = this.seal([this.#lie()], key).slice();
        const at = 1 + prng.nextBelow(damaged.length - 1);
        damaged[at] = (damaged[at] as number) ^ (1 << prng.nextBelow(8));
        return damaged.subarray(0, prng.chance(1, 2) ? damaged.length : prng.nextBelow(damaged.length));
      }
    }
  }

  /** What somebody who has the key may say. */
  seal(messages: readonly PacketMessage[], key: Uint8Array, label = ''): Uint8Array {
    const seal = { key, version: 1 as const, nonce: this.#bytes(NONCE_BYTES) };
    return packPacket(messages.map(encodeMessage), { label, seal, crc: false, compress: false });
  }

  /** It would change something if it were believed. */
  #lie(): PacketMessage {
    const { prng } = this.#options;
    const { node, address } = this.#target();
    const incarnation = NEWER + prng.nextBelow(1_000);
    const meta = new Uint8Array(0);
    switch (prng.nextBelow(5)) {
      case 0:
        return { kind: 'dead', incarnation, node, from: this.#target().node };
      case 1:
        return { kind: 'dead', incarnation, node, from: node };
      case 2:
        return { kind: 'suspect', incarnation, node, from: this.#target().node };
      case 3:
        return { kind: 'alive', incarnation, node: `invented-${prng.nextUint32()}`, address, meta, versions: VERSIONS };
      default:
        return { kind: 'alive', incarnation, node, address, meta, versions: VERSIONS };
    }
  }

  /** What the cluster itself said once, of an incarnation that is past. */
  #old(): PacketMessage {
    const { prng } = this.#options;
    const { node, address } = this.#target();
    const incarnation = 0;
    switch (prng.nextBelow(3)) {
      case 0:
        return { kind: 'dead', incarnation, node, from: prng.chance(1, 2) ? node : this.#target().node };
      case 1:
        return { kind: 'suspect', incarnation, node, from: this.#target().node };
      default:
        return { kind: 'alive', incarnation, node, address, meta: new Uint8Array(0), versions: VERSIONS };
    }
  }

  #unasked(): PacketMessage {
    const seq = this.#options.prng.nextUint32();
    return this.#options.prng.chance(1, 2) ? { kind: 'ack', seq, payload: new Uint8Array(0) } : { kind: 'nack', seq };
  }

  #told(): PacketMessage {
    const { time, name, payload } = this.#options.oldEvent;
    const event = { kind: 'userEvent', time, name, payload: Buffer.from(payload), coalesce: false } as const;
    return { kind: 'user', payload: serfCodec.encode(event) };
  }

  #target(): Target {
    const { targets, prng } = this.#options;
    return targets[prng.nextBelow(targets.length)] as Target;
  }

  #bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#options.prng.nextBelow(256));
  }
}
