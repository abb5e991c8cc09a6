import type { PacketMessage } from '../../src/gossip/types.ts';

/**
 * Bytes that stand for a message. They have about its length, and lead back to it by themselves: encoding and decoding is test/wire's to show,
 * and would take most of the time of a simulation.
 */
const messages = new WeakMap<Uint8Array, PacketMessage>();

/** Field names, types and small numbers, as msgpack of memberlist has them. */
const FIXED_BYTES: Readonly<Record<PacketMessage['kind'], number>> = {
  ping: 60,
  indirectPing: 80,
  ack: 17,
  nack: 8,
  suspect: 32,
  alive: 62,
  dead: 32,
  user: 1,
};

export function encode(message: PacketMessage): Uint8Array {
  const bytes = new Uint8Array(FIXED_BYTES[message.kind] + variableBytes(message));
  messages.set(bytes, message);
  return bytes;
}

/** Null for bytes that are no message. */
export function decode(bytes: Uint8Array): PacketMessage | null {
  return messages.get(bytes) ?? null;
}

function variableBytes(message: PacketMessage): number {
  const node = 'node' in message ? message.node.length : 0;
  const from = 'from' in message ? message.from.length : 0;
  const meta = 'meta' in message ? message.meta.length : 0;
  const payload = 'payload' in message ? message.payload.length : 0;
  return node + from + meta + payload;
}
