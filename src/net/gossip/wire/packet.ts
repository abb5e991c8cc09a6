import { assert } from '../../../base/assert.ts';
import { ByteWriter } from '../../../base/bytes.ts';
import { crc32 } from '../../../base/checksum.ts';
import type { PacketMessage } from '../../../gossip/types.ts';
import { compressed, decompressed } from './compression.ts';
import type { Keyring } from './keyring.ts';
import { hasLabel, labelHeader, labelOf } from './label.ts';
import { PACKET_CAPS } from './limits.ts';
import { MESSAGE_TYPE } from './message-type.ts';
import { decodeMessage } from './messages.ts';
import type { WireRefusal } from './refusal.ts';
import { type Seal, seal, sealedBytes, unseal } from './seal.ts';

/**
 * memberlist's wire format (versions 2 to 5 of its protocol; 1 as far as it has ports). A packet, from the outside:
 *
 *   [label] [encryption] [hasCrc: checksum] [compress] [compound: lengths] messages
 *
 * - `packet.ts` wraps messages in a packet and takes them out; `stream.ts` reads and `stream-writer.ts` writes what goes over TCP;
 * - `messages.ts` encodes one message, with its fields in `fields.ts`, `address.ts` and `msgpack.ts` (also for Serf's messages);
 * - `label.ts`, `seal.ts` (encryption; no protection against replays), `keyring.ts`, `compression.ts` and `lzw.ts` are the wrappers;
 * - `limits.ts` has every bound, `refusal.ts` every reason not to read something: nothing throws on foreign bytes;
 * - no clock, randomness or socket is in here: nonces are the caller's.
 */
export interface PacketReader {
  /** This cluster's; '' for none. Packets of others are refused. */
  readonly label: string;
  /** With keys, packets that none of them opens are refused. */
  readonly keyring: Keyring;
}

export type PacketRead =
  | {
      readonly kind: 'messages';
      readonly messages: readonly PacketMessage[];
      /** Parts of a compound message that were refused; the others are good, as upstream has it. */
      readonly refusedCount: number;
      /** Why the first of these was. */
      readonly refusal: WireRefusal | null;
    }
  | { readonly kind: 'refused'; readonly refusal: WireRefusal };

/** Reads a packet (net.go ingestPacket, handleCommand). The cheap tests come first: size, label, key. Nothing in the result is a view of `bytes`. */
export function readPacket(bytes: Uint8Array, { label, keyring }: PacketReader): PacketRead {
  if (bytes.length === 0) return refused('empty');
  if (bytes.length > PACKET_CAPS.packetBytesMax) return refused('tooLarge');
  const header = labelHeader(label);
  if (!hasLabel(bytes, header)) return refused('otherLabel');
  const inner = bytes.subarray(header.length);
  if (keyring.primary === null) return readChecked(inner);
  const plain = unseal(inner, labelOf(header), keyring);
  return typeof plain === 'string' ? refused(plain) : readChecked(plain);
}

function readChecked(bytes: Uint8Array): PacketRead {
  // Upstream takes a shorter one for a message of unknown type.
  if (bytes[0] !== MESSAGE_TYPE.hasCrc || bytes.length < CRC_HEADER_BYTES) return new Unwrapping().read(bytes);
  const body = bytes.subarray(CRC_HEADER_BYTES);
  return crc32(body) === uint32At(bytes, 1) ? new Unwrapping().read(body) : refused('checksum');
}

/** One packet's: what it may still become. */
class Unwrapping {
  readonly #messages: PacketMessage[] = [];
  #decompressedBytes = 0;
  #partsCount = 0;
  #refusedCount = 0;
  #refusal: WireRefusal | null = null;

  read(bytes: Uint8Array): PacketRead {
    this.#note(this.#unwrap(bytes, 0), 1);
    if (this.#messages.length === 0) return refused(this.#refusal ?? 'empty');
    return {
      kind: 'messages',
      messages: this.#messages,
      refusedCount: this.#refusedCount,
      refusal: this.#refusal,
    };
  }

  #unwrap(bytes: Uint8Array, depth: number): WireRefusal | null {
    const isWrapper = bytes[0] === MESSAGE_TYPE.compound || bytes[0] === MESSAGE_TYPE.compress;
    if (isWrapper && depth === PACKET_CAPS.nestingMax) return 'nesting';
    if (bytes[0] === MESSAGE_TYPE.compound) return this.#unwrapCompound(bytes, depth);
    if (bytes[0] === MESSAGE_TYPE.compress) return this.#unwrapCompressed(bytes, depth);
    const message = decodeMessage(bytes);
    if (typeof message === 'string') return message;
    this.#messages.push(message);
    return null;
  }

  /** [count: 1] [length: 2, big-endian] for each, then the parts. Those before a cut are good (util.go decodeCompoundMessage). */
  #unwrapCompound(bytes: Uint8Array, depth: number): WireRefusal | null {
    const count = bytes[1] ?? 0;
    let start = COMPOUND_HEADER_BYTES + count * COMPOUND_PART_BYTES;
    if (bytes.length < start) return 'truncated';
    this.#partsCount += count;
    if (this.#partsCount > PACKET_CAPS.messagesMax) return 'tooLarge';
    for (let i = 0; i < count; i++) {
      const end = start + uint16At(bytes, COMPOUND_HEADER_BYTES + i * COMPOUND_PART_BYTES);
      if (end > bytes.length) {
        this.#note('truncated', count - i);
        break;
      }
      this.#note(this.#unwrap(bytes.subarray(start, end), depth + 1), 1);
      start = end;
    }
    return null;
  }

  #unwrapCompressed(bytes: Uint8Array, depth: number): WireRefusal | null {
    const plain = decompressed(bytes.subarray(1), PACKET_CAPS.decompressedBytesMax - this.#decompressedBytes);
    if (typeof plain === 'string') {
      // It may have cost all that was left; a packet of 255 such parts is not to cost that 255 times.
      this.#decompressedBytes = PACKET_CAPS.decompressedBytesMax;
      return plain;
    }
    this.#decompressedBytes += plain.length;
    return this.#unwrap(plain, depth + 1);
  }

  #note(refusal: WireRefusal | null, count: number): void {
    if (refusal === null) return;
    this.#refusal ??= refusal;
    this.#refusedCount += count;
  }
}

function refused(refusal: WireRefusal): PacketRead {
  return { kind: 'refused', refusal };
}

export interface PacketWrapping {
  readonly label: string;
  /** The primary key and how; null for a packet in plain words. Version 1, and 0 only if this node speaks protocol 1. */
  readonly seal: Seal | null;
  /** Only to nodes that understand protocol 5 (net.go rawSendMsgPacket). */
  readonly crc: boolean;
  /** Compress if that makes it smaller. Every node understands it. */
  readonly compress: boolean;
}

/** Bytes that go round the messages of a packet, at most; and each costs COMPOUND_PART_BYTES more. */
export function packetOverhead({ label, seal: sealing, crc }: Omit<PacketWrapping, 'compress'>): number {
  const encryption = sealing === null ? 0 : sealedBytes(sealing.version, 0);
  return labelHeader(label).length + encryption + (crc ? CRC_HEADER_BYTES : 0) + COMPOUND_HEADER_BYTES;
}

/** Type and count. */
const COMPOUND_HEADER_BYTES = 2;
export const COMPOUND_PART_BYTES = 2;
/** Type and checksum. */
const CRC_HEADER_BYTES = 5;

/** A packet of encoded messages (1 to 255, each at most 65,535 bytes). */
export function packPacket(messages: readonly Uint8Array[], wrapping: PacketWrapping): Uint8Array {
  const header = labelHeader(wrapping.label);
  let bytes = messages.length === 1 ? (messages[0] as Uint8Array) : compound(messages);
  if (wrapping.compress) bytes = compressed(bytes);
  if (wrapping.crc) bytes = withChecksum(bytes);
  if (wrapping.seal !== null) bytes = seal(bytes, labelOf(header), wrapping.seal);
  return header.length === 0 ? bytes : Buffer.concat([header, bytes]);
}

function compound(messages: readonly Uint8Array[]): Uint8Array {
  const count = messages.length;
  assert(count >= 1 && count <= PACKET_CAPS.messagesMax, () => `${count} messages in a packet`);
  const out = new ByteWriter(1_500);
  out.uint8(MESSAGE_TYPE.compound);
  out.uint8(count);
  for (const { length } of messages) {
    assert(length <= 0xffff, () => `a message of ${length} bytes`);
    out.uint8(length >>> 8);
    out.uint8(length & 0xff);
  }
  for (const message of messages) out.bytes(message);
  return out.toBytes();
}

function withChecksum(bytes: Uint8Array): Uint8Array {
  const packet = Buffer.alloc(CRC_HEADER_BYTES + bytes.length);
  packet[0] = MESSAGE_TYPE.hasCrc;
  packet.writeUInt32BE(crc32(bytes), 1);
  packet.set(bytes, CRC_HEADER_BYTES);
  return packet;
}

function uint16At(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

function uint32At(bytes: Uint8Array, at: number): number {
  return ((uint16At(bytes, at) << 16) | uint16At(bytes, at + 2)) >>> 0;
}
