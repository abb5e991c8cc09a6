import { assert } from '../../base/assert.ts';
import { type Address, type MemberDelegate, type MemberPort, PACKET_BYTES, type PacketMessage } from '../types.ts';
import type { BroadcastQueue } from './broadcast-queue.ts';
import { isSameAddress } from './limits.ts';
import type { Roster } from './roster.ts';

/** net.go compoundHeaderOverhead, compoundOverhead, userMsgOverhead; util.go makeCompoundMessages */
const COMPOUND_BYTES = 2;
const PART_BYTES = 2;
const USER_BYTES = 1;
const PARTS_MAX = 255;

/** Packs messages into packets; what is to be gossiped fills the room that is left. */
export class Outbox {
  readonly #port: MemberPort;
  readonly #delegate: MemberDelegate;
  readonly #queue: BroadcastQueue;
  readonly #roster: Roster;
  /** Bytes of a packet for messages, without what encryption adds. */
  readonly #limit: number;

  constructor(
    port: MemberPort,
    delegate: MemberDelegate,
    queue: BroadcastQueue,
    roster: Roster,
    overheadBytes: number,
  ) {
    this.#port = port;
    this.#delegate = delegate;
    this.#queue = queue;
    this.#roster = roster;
    this.#limit = PACKET_BYTES - overheadBytes;
  }

  /**
   * net.go sendMsg: the message, and what else fits. Not upstream's: to one who is no member, at that address, nothing else. Pings of strangers would use up
   * what is told so and so often, and one packet of 30 bytes with a forged source be answered there with 1,400.
   */
  send(to: Address, node: string, message: PacketMessage): void {
    const member = this.#roster.get(node)?.member;
    if (member === undefined || !isSameAddress(member.address, to)) {
      this.sendOnly(to, node, [message]);
      return;
    }
    const bytes = this.#port.encode(message);
    this.#sendParts(to, node, [bytes, ...this.#broadcasts(this.#limit - COMPOUND_BYTES - PART_BYTES - bytes.length)]);
  }

  /** net.go rawSendMsgPacket: these messages only. */
  sendOnly(to: Address, node: string, messages: readonly PacketMessage[]): void {
    this.#port.send(
      to,
      node,
      messages.map((message) => this.#port.encode(message)),
    );
  }

  /** One message of the delegate; false if it does not fit a packet. */
  sendUser(to: Address, node: string, payload: Uint8Array): boolean {
    if (payload.length + USER_BYTES > this.#limit) return false;
    this.sendOnly(to, node, [{ kind: 'user', payload }]);
    return true;
  }

  /** state.go gossip, for one member; false if there is nothing to tell. */
  gossip(to: Address, node: string): boolean {
    const parts = this.#broadcasts(this.#limit - COMPOUND_BYTES);
    if (parts.length === 0) return false;
    this.#sendParts(to, node, parts);
    return true;
  }

  /** broadcast.go getBroadcasts: ours first, then the delegate's. */
  #broadcasts(limit: number): Uint8Array[] {
    const parts = this.#queue.take(PART_BYTES, limit, this.#roster.size);
    let room = limit;
    for (const part of parts) room -= part.length + PART_BYTES;
    const overhead = PART_BYTES + USER_BYTES;
    if (room <= overhead) return parts;
    for (const payload of this.#delegate.broadcasts(overhead, room)) {
      room -= payload.length + overhead;
      parts.push(this.#port.encode({ kind: 'user', payload }));
    }
    assert(room >= 0, 'the delegate keeps to the limit');
    return parts;
  }

  #sendParts(to: Address, node: string, parts: readonly Uint8Array[]): void {
    for (let at = 0; at < parts.length; at += PARTS_MAX) this.#port.send(to, node, parts.slice(at, at + PARTS_MAX));
  }
}
