import { defined } from '../../../base/assert.ts';
import type { Address, MemberState, NodeState, Sender, Versions } from '../../../gossip/types.ts';
import { bytesOfHost, hostOfBytes } from './address.ts';
import { FIELD_CAPS } from './limits.ts';
import type { MsgpackReader, MsgpackWriter } from './msgpack.ts';
import type { WireRefusal } from './refusal.ts';

/**
 * Fields of memberlist's structs by their Go names (net.go, lower down in state.go). A name means the same in every struct that has it, so that all are read by
 * one function, which each tells the names that it has. Missing ones are zero, unknown ones passed over. Go writes the names of a struct in alphabetical order.
 */
export interface Fields {
  Addr: Uint8Array;
  Algo: number;
  Buf: Uint8Array;
  Error: string;
  From: string;
  Incarnation: number;
  Join: boolean;
  Meta: Uint8Array;
  Nack: boolean;
  Name: string;
  Node: string;
  Nodes: number;
  Payload: Uint8Array;
  Port: number;
  SeqNo: number;
  SourceAddr: Uint8Array;
  SourceNode: string;
  SourcePort: number;
  State: number;
  Target: Uint8Array;
  UserMsgLen: number;
  UserStateLen: number;
  Vsn: Uint8Array;
}

export type FieldNames = ReadonlySet<keyof Fields>;

const UINT8_MAX = 0xff;
const UINT16_MAX = 0xffff;
export const UINT32_MAX = 0xffff_ffff;
const ADDRESS_BYTES_MAX = 16;
const NO_BYTES = new Uint8Array(0);
const STATES: readonly MemberState[] = ['alive', 'suspect', 'dead', 'left'];
const VERSIONS_COUNT = 6;

/** Reads one struct. Byte slices are views. Check `reader.failure` afterwards. */
export function readFields(reader: MsgpackReader, names: FieldNames): Fields {
  const fields = noFields();
  const count = reader.mapStart(FIELD_CAPS.fieldsMax);
  for (let i = 0; i < count; i++) {
    const name = reader.key();
    if (isOneOf(name, names)) readField(reader, fields, name);
    else reader.skip();
  }
  return fields;
}

function isOneOf(name: string, names: ReadonlySet<string>): name is keyof Fields {
  return names.has(name);
}

function readField(reader: MsgpackReader, fields: Fields, name: keyof Fields): void {
  switch (name) {
    case 'Addr':
    case 'SourceAddr':
    case 'Target':
      fields[name] = reader.bytes(ADDRESS_BYTES_MAX);
      return;
    case 'From':
    case 'Name':
    case 'Node':
    case 'SourceNode':
      fields[name] = reader.string(FIELD_CAPS.nameBytesMax);
      return;
    case 'Incarnation':
    case 'SeqNo':
      fields[name] = reader.uint(UINT32_MAX);
      return;
    case 'Port':
    case 'SourcePort':
      fields[name] = reader.uint(UINT16_MAX);
      return;
    case 'Algo':
    case 'State':
      fields[name] = reader.uint(UINT8_MAX);
      return;
    case 'Nodes':
    case 'UserMsgLen':
    case 'UserStateLen':
      fields[name] = reader.uint(UINT32_MAX);
      return;
    case 'Join':
    case 'Nack':
      fields[name] = reader.bool();
      return;
    case 'Buf':
    case 'Payload':
      // No more than what came; that has its own caps.
      fields[name] = reader.bytes(UINT32_MAX);
      return;
    case 'Meta':
      fields.Meta = reader.bytes(FIELD_CAPS.metaBytesMax);
      return;
    case 'Vsn':
      fields.Vsn = reader.bytes(FIELD_CAPS.versionsBytesMax);
      return;
    case 'Error':
      fields.Error = reader.string(FIELD_CAPS.errorBytesMax);
      return;
  }
}

function noFields(): Fields {
  return {
    Addr: NO_BYTES,
    Algo: 0,
    Buf: NO_BYTES,
    Error: '',
    From: '',
    Incarnation: 0,
    Join: false,
    Meta: NO_BYTES,
    Nack: false,
    Name: '',
    Node: '',
    Nodes: 0,
    Payload: NO_BYTES,
    Port: 0,
    SeqNo: 0,
    SourceAddr: NO_BYTES,
    SourceNode: '',
    SourcePort: 0,
    State: 0,
    Target: NO_BYTES,
    UserMsgLen: 0,
    UserStateLen: 0,
    Vsn: NO_BYTES,
  };
}

/** What a failure of the reader means for what it read. */
export function refusalOf(reader: MsgpackReader): WireRefusal | null {
  switch (reader.failure) {
    case null:
      return null;
    case 'cut':
      return 'truncated';
    case 'long':
      return 'tooLarge';
    default:
      return 'malformed';
  }
}

/** For what outlives the packet, which may be a large buffer. (`slice` of a Buffer would be a view.) */
export function copyOf(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes);
}

/** Null without a port, as protocol 1 had it, or with no address of 4 or 16 bytes. */
export function addressOf(bytes: Uint8Array, port: number): Address | null {
  const host = hostOfBytes(bytes);
  return host === null || port === 0 ? null : { host, port };
}

/** Null for none, as upstream takes it, which then answers where the packet came from. */
export function senderOf(fields: Fields): Sender | null {
  const address = addressOf(fields.SourceAddr, fields.SourcePort);
  return address === null ? null : { address, node: fields.SourceNode };
}

/** Short ones, of nodes that tell none, are zeros. */
export function versionsOf(bytes: Uint8Array): Versions {
  if (bytes.length < VERSIONS_COUNT) return [0, 0, 0, 0, 0, 0];
  const [a, b, c, d, e, f] = bytes as unknown as Versions;
  return [a, b, c, d, e, f];
}

const NODE_STATE: FieldNames = new Set(['Addr', 'Incarnation', 'Meta', 'Name', 'Port', 'State', 'Vsn']);

/** A node's state in a push/pull; null if it is one that no rule could use. */
export function readNodeState(reader: MsgpackReader): NodeState | null {
  const fields = readFields(reader, NODE_STATE);
  const address = addressOf(fields.Addr, fields.Port);
  const state = STATES[fields.State];
  if (reader.failure !== null || fields.Name === '' || address === null || state === undefined) return null;
  return {
    node: fields.Name,
    address,
    meta: copyOf(fields.Meta),
    incarnation: fields.Incarnation,
    state,
    versions: versionsOf(fields.Vsn),
  };
}

export function writeNodeState(writer: MsgpackWriter, state: NodeState): void {
  writer.map(7).string('Addr').bytes(addressBytes(state.address)).string('Incarnation').uint(state.incarnation);
  writer.string('Meta').bytes(state.meta).string('Name').string(state.node).string('Port').uint(state.address.port);
  writer.string('State').int(STATES.indexOf(state.state)).string('Vsn').bytes(Uint8Array.from(state.versions));
}

/** Addresses of ours come from a socket or from another's message: always words of an address. */
export function addressBytes(address: Address): Uint8Array {
  return defined(bytesOfHost(address.host), `${address.host} is not an IP address`);
}
