import type { Address, PacketMessage } from '../types.ts';
import type { MemberCounters } from './counters.ts';
import type { Outbox } from './outbox.ts';

/** Pings on behalf of others under way at once; more are not made. */
export const RELAYS_MAX = 256;

type IndirectPing = Extract<PacketMessage, { readonly kind: 'indirectPing' }>;

interface Relay {
  readonly seq: number;
  readonly to: Address;
  readonly node: string;
  readonly nack: boolean;
  until: number;
}

/** Pings on behalf of others (net.go handleIndirectPing), by the number of our own ping. */
export class Relays {
  readonly #outbox: Outbox;
  readonly #counters: MemberCounters;
  readonly #relays = new Map<number, Relay>();

  constructor(outbox: Outbox, counters: MemberCounters) {
    this.#outbox = outbox;
    this.#counters = counters;
  }

  get size(): number {
    return this.#relays.size;
  }

  get dueAt(): number {
    let due = Number.POSITIVE_INFINITY;
    for (const relay of this.#relays.values()) due = Math.min(due, relay.until);
    return due;
  }

  /** False if too many are under way. */
  start(seq: number, message: IndirectPing, from: Address, until: number): boolean {
    if (this.#relays.size >= RELAYS_MAX) {
      this.#counters.relaysRefused += 1;
      return false;
    }
    const { source, nack } = message;
    const to = source?.address ?? from;
    this.#relays.set(seq, { seq: message.seq, to, node: source?.node ?? '', nack, until });
    return true;
  }

  onAck(seq: number): void {
    const relay = this.#relays.get(seq);
    if (relay === undefined) return;
    this.#relays.delete(seq);
    this.#outbox.send(relay.to, relay.node, { kind: 'ack', seq: relay.seq, payload: new Uint8Array(0) });
  }

  /** Says so where the other end was not heard of in time. */
  tick(now: number): void {
    for (const [seq, relay] of this.#relays) {
      if (relay.until > now) continue;
      this.#relays.delete(seq);
      if (relay.nack) this.#outbox.send(relay.to, relay.node, { kind: 'nack', seq: relay.seq });
    }
  }

  pardon(pausedMs: number): void {
    for (const relay of this.#relays.values()) relay.until += pausedMs;
  }
}
