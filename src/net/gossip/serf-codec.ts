import { ByteWriter } from '../../base/bytes.ts';
import { COORDINATE_DIMENSIONS, NODE_NAME_BYTES_MAX, QUERY_TIMEOUT_MS_MAX } from '../../gossip/serf/limits.ts';
import type {
  ConflictMember,
  Coordinate,
  MemberStatus,
  QueryFilter,
  QueryMessage,
  RelayMessage,
  SerfCodec,
  SerfMessage,
  SerfState,
  Tags,
} from '../../gossip/serf/messages.ts';
import { addressBytes, addressOf, list, readSerfFields, readTags, type SerfFields } from './serf-fields.ts';
import { MsgpackReader, MsgpackWriter } from './wire/msgpack.ts';

/** serf/messages.go messageType. Append-only: the numbers are the protocol. */
const TYPE: Readonly<Record<SerfMessage['kind'], number>> = {
  leave: 0,
  join: 1,
  pushPull: 2,
  userEvent: 3,
  query: 4,
  queryResponse: 5,
  conflictResponse: 6,
  keyRequest: 7,
  keyResponse: 8,
  relay: 9,
};
const KINDS = new Map(Object.entries(TYPE).map(([kind, type]) => [type, kind as SerfMessage['kind']]));

/** serf/messages.go filterType and flags */
const FILTER_NODES = 0;
const FILTER_TAG = 1;
const FLAG_ACK = 1;
const FLAG_NO_BROADCAST = 2;

/** serf.go tagMagicByte and MemberStatus; ping_delegate.go PingVersion */
const TAGS_MARK = 255;
const STATUSES: readonly MemberStatus[] = ['none', 'alive', 'leaving', 'left', 'failed'];
const PING_VERSION = 1;

/** Of the small structs; unknown ones included. */
const FIELDS_MAX = 16;
const NANOSECONDS_PER_MS = 1_000_000n;

/**
 * Serf's messages in bytes, as Go's codec writes them (hashicorp/serf serf/messages.go over go-msgpack v2): a type byte and a struct. What the bytes may ask of
 * memory and time is bounded field by field (serf-fields.ts), and nothing throws.
 */
export const serfCodec: SerfCodec = {
  encode(message) {
    const out = new ByteWriter(128);
    out.uint8(TYPE[message.kind]);
    const writer = new MsgpackWriter(out);
    writeMessage(writer, message);
    if (message.kind === 'relay') out.bytes(message.payload);
    return writer.toBytes();
  },

  decode(bytes) {
    const kind = KINDS.get(bytes[0] ?? -1);
    if (kind === undefined) return null;
    const reader = new MsgpackReader(bytes, 1);
    if (kind === 'relay') return readRelay(reader, bytes);
    const isNil = bytes[1] === 0xc0;
    const message = messageOf(kind, readSerfFields(reader), isNil);
    return reader.failure === null ? message : null;
  },

  encodeTags(tags) {
    const out = new ByteWriter(128);
    out.uint8(TAGS_MARK);
    const writer = new MsgpackWriter(out);
    writeTags(writer, tags);
    return writer.toBytes();
  },

  decodeTags(meta) {
    if (meta[0] !== TAGS_MARK) return new Map([['role', new TextDecoder().decode(meta)]]);
    const reader = new MsgpackReader(meta, 1);
    const tags = readTags(reader);
    return reader.failure === null ? tags : new Map();
  },

  encodeCoordinate({ vector, error, adjustment, height }) {
    const out = new ByteWriter(128);
    out.uint8(PING_VERSION);
    const writer = new MsgpackWriter(out);
    writer.map(4).string('Adjustment').float64(adjustment).string('Error').float64(error);
    writer.string('Height').float64(height).string('Vec').array(vector.length);
    for (const one of vector) writer.float64(one);
    return writer.toBytes();
  },

  decodeCoordinate(payload) {
    return payload[0] === PING_VERSION ? readCoordinate(new MsgpackReader(payload, 1)) : null;
  },
};

function writeMessage(writer: MsgpackWriter, message: SerfMessage): void {
  switch (message.kind) {
    case 'join':
      writer.map(2).string('LTime').uint(message.time).string('Node').string(message.node);
      return;
    case 'leave':
      writer.map(3).string('LTime').uint(message.time).string('Node').string(message.node);
      writer.string('Prune').bool(message.prune);
      return;
    case 'pushPull':
      writeState(writer, message);
      return;
    case 'userEvent':
      writer.map(4).string('CC').bool(message.coalesce).string('LTime').uint(message.time);
      writer.string('Name').string(message.name).string('Payload').bytes(orNil(message.payload));
      return;
    case 'query':
      writeQuery(writer, message);
      return;
    case 'queryResponse':
      writer
        .map(5)
        .string('Flags')
        .uint(message.isAck ? FLAG_ACK : 0)
        .string('From')
        .string(message.from);
      writer.string('ID').uint(message.id).string('LTime').uint(message.time);
      writer.string('Payload').bytes(orNil(message.payload));
      return;
    case 'conflictResponse':
      writeConflictMember(writer, message.member);
      return;
    case 'keyRequest':
      writer.map(1).string('Key').bytes(message.key);
      return;
    case 'keyResponse':
      writer.map(4).string('Keys');
      writeStrings(writer, message.keys, true);
      writer.string('Message').string(message.message).string('PrimaryKey').string(message.primaryKey);
      writer.string('Result').bool(message.isDone);
      return;
    case 'relay':
      writer.map(2).string('DestAddr').map(3).string('IP').bytes(addressBytes(message.target));
      writer.string('Port').int(message.target.port).string('Zone').string('');
      writer.string('DestName').string(message.targetNode);
  }
}

/** Go's slices that were never made are nil; empty ones of ours are too. It reads both as empty. */
function orNil(bytes: Uint8Array): Uint8Array | null {
  return bytes.length === 0 ? null : bytes;
}

function writeStrings(writer: MsgpackWriter, strings: readonly string[], isNilIfEmpty: boolean): void {
  if (strings.length === 0 && isNilIfEmpty) writer.nil();
  else writer.array(strings.length);
  for (const one of strings) writer.string(one);
}

function writeTags(writer: MsgpackWriter, tags: Tags): void {
  writer.map(tags.size);
  for (const [tag, value] of tags) writer.string(tag).string(value);
}

function writeState(writer: MsgpackWriter, state: SerfState): void {
  writer.map(6).string('EventLTime').uint(state.eventTime).string('Events').array(state.events.length);
  for (const { time, events } of state.events) {
    writer.map(2).string('Events').array(events.length);
    for (const { name, payload } of events) {
      writer.map(2).string('Name').string(name).string('Payload').bytes(orNil(payload));
    }
    writer.string('LTime').uint(time);
  }
  writer.string('LTime').uint(state.time).string('LeftMembers');
  writeStrings(writer, state.leftMembers, false);
  writer.string('QueryLTime').uint(state.queryTime).string('StatusLTimes').map(state.statusTimes.size);
  for (const [node, time] of state.statusTimes) writer.string(node).uint(time);
}

function writeQuery(writer: MsgpackWriter, query: QueryMessage): void {
  const flags = (query.wantsAck ? FLAG_ACK : 0) | (query.noBroadcast ? FLAG_NO_BROADCAST : 0);
  writer.map(11).string('Addr').bytes(addressBytes(query.source)).string('Filters');
  if (query.filters.length === 0) writer.nil();
  else writer.array(query.filters.length);
  for (const filter of query.filters) writer.bytes(encodeFilter(filter));
  writer.string('Flags').uint(flags).string('ID').uint(query.id).string('LTime').uint(query.time);
  writer.string('Name').string(query.name).string('Payload').bytes(orNil(query.payload));
  writer.string('Port').uint(query.source.port).string('RelayFactor').uint(query.relayFactor);
  writer.string('SourceNode').string(query.sourceNode);
  // Go's int64 of nanoseconds: as a float, which large numbers become elsewhere, it would be refused.
  writer.string('Timeout').int(BigInt(Math.ceil(query.timeoutMs)) * NANOSECONDS_PER_MS);
}

function encodeFilter(filter: QueryFilter): Uint8Array {
  const out = new ByteWriter(64);
  const writer = new MsgpackWriter(out);
  switch (filter.kind) {
    case 'nodes':
      out.uint8(FILTER_NODES);
      writeStrings(writer, filter.nodes, false);
      break;
    case 'tag':
      out.uint8(FILTER_TAG);
      writer.map(2).string('Expr').string(filter.expression).string('Tag').string(filter.tag);
      break;
    case 'unknown':
      out.uint8(0xff);
  }
  return writer.toBytes();
}

function writeConflictMember(writer: MsgpackWriter, member: ConflictMember | null): void {
  if (member === null) {
    writer.nil();
    return;
  }
  const [protocolMin, protocolMax, protocol, delegateMin, delegateMax, delegate] = member.versions;
  writer.map(11).string('Addr').bytes(addressBytes(member.address)).string('DelegateCur').uint(delegate);
  writer.string('DelegateMax').uint(delegateMax).string('DelegateMin').uint(delegateMin);
  writer.string('Name').string(member.node).string('Port').uint(member.address.port);
  writer.string('ProtocolCur').uint(protocol).string('ProtocolMax').uint(protocolMax);
  writer.string('ProtocolMin').uint(protocolMin).string('Status').int(STATUSES.indexOf(member.status)).string('Tags');
  writeTags(writer, member.tags);
}

/** Null: a field says what cannot be. */
function messageOf(
  kind: Exclude<SerfMessage['kind'], 'relay'>,
  fields: SerfFields,
  isNil: boolean,
): SerfMessage | null {
  const time = fields.LTime;
  switch (kind) {
    case 'join':
      return fields.Node === '' ? null : { kind, time, node: fields.Node };
    case 'leave':
      return fields.Node === '' ? null : { kind, time, node: fields.Node, prune: fields.Prune };
    case 'pushPull':
      return {
        kind,
        time,
        statusTimes: fields.StatusLTimes,
        leftMembers: fields.LeftMembers,
        eventTime: fields.EventLTime,
        events: fields.Events,
        queryTime: fields.QueryLTime,
      };
    case 'userEvent':
      return { kind, time, name: fields.Name, payload: fields.Payload, coalesce: fields.CC };
    case 'query':
      return queryOf(fields);
    case 'queryResponse': {
      const isAck = (fields.Flags & FLAG_ACK) !== 0;
      return { kind, time, id: fields.ID, from: fields.From, isAck, payload: fields.Payload };
    }
    case 'conflictResponse':
      return { kind, member: isNil ? null : conflictMemberOf(fields) };
    case 'keyRequest':
      return { kind, key: fields.Key };
    case 'keyResponse':
      return {
        kind,
        isDone: fields.Result,
        message: fields.Message,
        keys: fields.Keys,
        primaryKey: fields.PrimaryKey,
      };
  }
}

function queryOf(fields: SerfFields): QueryMessage | null {
  const source = addressOf(fields.Addr, fields.Port);
  if (source === null) return null;
  return {
    kind: 'query',
    time: fields.LTime,
    id: fields.ID,
    source,
    sourceNode: fields.SourceNode,
    filters: fields.Filters.map(decodeFilter),
    wantsAck: (fields.Flags & FLAG_ACK) !== 0,
    noBroadcast: (fields.Flags & FLAG_NO_BROADCAST) !== 0,
    relayFactor: fields.RelayFactor,
    timeoutMs: Math.min(Math.max(Math.ceil(fields.Timeout / Number(NANOSECONDS_PER_MS)), 0), QUERY_TIMEOUT_MS_MAX),
    name: fields.Name,
    payload: fields.Payload,
  };
}

/** One that cannot be read is met by nobody; the query is still gossiped on. */
function decodeFilter(bytes: Uint8Array): QueryFilter {
  const type = bytes[0];
  if (type === FILTER_NODES) {
    const reader = new MsgpackReader(bytes, 1);
    const nodes = list(reader, bytes.length, (one) => one.string(bytes.length));
    if (reader.failure === null) return { kind: 'nodes', nodes };
  } else if (type === FILTER_TAG) {
    const reader = new MsgpackReader(bytes, 1);
    const { Tag: tag, Expr: expression } = readSerfFields(reader);
    if (reader.failure === null) return { kind: 'tag', tag, expression };
  }
  return { kind: 'unknown' };
}

/** Null: no node that this one could know. */
function conflictMemberOf(fields: SerfFields): ConflictMember | null {
  const address = addressOf(fields.Addr, fields.Port);
  if (address === null) return null;
  return {
    node: fields.Name,
    address,
    tags: fields.Tags,
    status: STATUSES[fields.Status] ?? 'none',
    versions: [
      fields.ProtocolMin,
      fields.ProtocolMax,
      fields.ProtocolCur,
      fields.DelegateMin,
      fields.DelegateMax,
      fields.DelegateCur,
    ],
  };
}

/** A header, and behind it the message that is to be carried. */
function readRelay(reader: MsgpackReader, bytes: Uint8Array): RelayMessage | null {
  let target: RelayMessage['target'] | null = null;
  let targetNode = '';
  const count = reader.mapStart(FIELDS_MAX);
  for (let i = 0; i < count; i++) {
    const name = reader.key();
    if (name === 'DestName') targetNode = reader.string(NODE_NAME_BYTES_MAX);
    else if (name === 'DestAddr') target = readUdpAddress(reader);
    else reader.skip();
  }
  if (reader.failure !== null || target === null) return null;
  return { kind: 'relay', target, targetNode, payload: new Uint8Array(bytes.subarray(reader.offset)) };
}

/** Go's net.UDPAddr */
function readUdpAddress(reader: MsgpackReader): RelayMessage['target'] | null {
  let [host, port]: [Uint8Array, number] = [new Uint8Array(0), 0];
  const count = reader.mapStart(FIELDS_MAX);
  for (let i = 0; i < count; i++) {
    const name = reader.key();
    if (name === 'IP') host = reader.bytes(16);
    else if (name === 'Port') port = reader.uint(0xffff);
    else reader.skip();
  }
  return addressOf(host, port);
}

/** Null: it is not one, or of other dimensions. */
function readCoordinate(reader: MsgpackReader): Coordinate | null {
  let vector: number[] = [];
  const others = { Error: 0, Adjustment: 0, Height: 0 };
  const count = reader.mapStart(FIELDS_MAX);
  for (let i = 0; i < count; i++) {
    const name = reader.key();
    if (name === 'Vec') vector = list(reader, COORDINATE_DIMENSIONS, (one) => one.float64());
    else if (name === 'Error' || name === 'Adjustment' || name === 'Height') others[name] = reader.float64();
    else reader.skip();
  }
  if (reader.failure !== null || vector.length !== COORDINATE_DIMENSIONS) return null;
  return { vector, error: others.Error, adjustment: others.Adjustment, height: others.Height };
}
