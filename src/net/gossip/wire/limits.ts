import { META_BYTES_MAX } from '../../../gossip/types.ts';

const MIB = 1024 * 1024;

/**
 * All that bounds what is read from others, in one place. Packets: none can be larger than UDP carries, and none of memberlist's decompresses to more than
 * another packet would carry plain; twice that is the bound. Messages and decompressed bytes are counted over a whole packet, however it is nested.
 */
export const PACKET_CAPS = Object.freeze({
  /** Bytes of a packet as it came: what IPv4 leaves of 65,535. */
  packetBytesMax: 65_507,
  /** Bytes that all compressed parts of a packet become (upstream allows 40 MiB for each). */
  decompressedBytesMax: 128 * 1024,
  /** Messages of a packet (a compound message has one byte for their number). */
  messagesMax: 255,
  /** Compound and compressed messages in one another. Upstream sends two, a compressed compound message, and reads any number. */
  nestingMax: 4,
});

/** Fields of messages, in bytes. */
export const FIELD_CAPS = Object.freeze({
  /** Serf's limit (serf.go MaxNodeNameLength). memberlist has none. */
  nameBytesMax: 128,
  metaBytesMax: META_BYTES_MAX,
  /** A version has 6; memberlist ignores what is behind. */
  versionsBytesMax: 32,
  /** Longer texts of an error are refused with their stream. */
  errorBytesMax: 4_096,
  /** Fields of a struct, unknown ones included. */
  fieldsMax: 64,
  /** label.go LabelMaxSize */
  labelBytesMax: 255,
});

/** Streams. Upstream: 2^20 nodes, 20 MiB of states, 20 MiB of a user message, 40 MiB decompressed (net.go). */
export interface StreamCaps {
  /** Nodes in a push/pull. */
  readonly nodesMax: number;
  /** Bytes of one node's state. */
  readonly nodeBytesMax: number;
  /** Bytes of all nodes' states together; of a message that is encrypted or compressed, as it came. */
  readonly stateBytesMax: number;
  /** Bytes of the delegate's state in a push/pull. */
  readonly userStateBytesMax: number;
  readonly userMessageBytesMax: number;
  readonly decompressedBytesMax: number;
}

export const STREAM_CAPS: StreamCaps = Object.freeze({
  nodesMax: 65_536,
  nodeBytesMax: 4_096,
  stateBytesMax: 4 * MIB,
  userStateBytesMax: 4 * MIB,
  userMessageBytesMax: 4 * MIB,
  decompressedBytesMax: 8 * MIB,
});

/** Keys of a ring: each costs one trial for each packet that none of them opens. */
export const KEYS_MAX = 16;
