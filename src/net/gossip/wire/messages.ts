import { unreachable } from '../../../base/assert.ts';
import { ByteWriter } from '../../../base/bytes.ts';
import type { PacketMessage, Sender } from '../../../gossip/types.ts';
import {
  addressBytes,
  addressOf,
  copyOf,
  type FieldNames,
  type Fields,
  readFields,
  refusalOf,
  senderOf,
  versionsOf,
} from './fields.ts';
import { MESSAGE_TYPE } from './message-type.ts';
import { MsgpackReader, MsgpackWriter } from './msgpack.ts';
import type { WireRefusal } from './refusal.ts';

const PING: FieldNames = new Set(['Node', 'SeqNo', 'SourceAddr', 'SourceNode', 'SourcePort']);
const INDIRECT_PING: FieldNames = new Set([
  'Nack',
  'Node',
  'Port',
  'SeqNo',
  'SourceAddr',
  'SourceNode',
  'SourcePort',
  'Target',
]);
const ACK: FieldNames = new Set(['Payload', 'SeqNo']);
const NACK: FieldNames = new Set(['SeqNo']);
/** And of dead. */
const SUSPECT: FieldNames = new Set(['From', 'Incarnation', 'Node']);
const ALIVE: FieldNames = new Set(['Addr', 'Incarnation', 'Meta', 'Node', 'Port', 'Vsn']);

/** A message as a packet carries it, its type byte first, in Go's bytes. Its fields are in their ranges (asserted). */
export function encodeMessage(message: PacketMessage): Uint8Array {
  const out = new ByteWriter(128);
  const writer = new MsgpackWriter(out);
  out.uint8(MESSAGE_TYPE[message.kind]);
  switch (message.kind) {
    case 'ping':
      writer
        .map(2 + senderFields(message.source))
        .string('Node')
        .string(message.node)
        .string('SeqNo')
        .uint(message.seq);
      writeSender(writer, message.source);
      break;
    case 'indirectPing':
      writer
        .map(5 + senderFields(message.source))
        .string('Nack')
        .bool(message.nack)
        .string('Node')
        .string(message.node);
      writer.string('Port').uint(message.target.port).string('SeqNo').uint(message.seq);
      writeSender(writer, message.source);
      writer.string('Target').bytes(addressBytes(message.target));
      break;
    case 'ack':
      writer
        .map(2)
        .string('Payload')
        .bytes(message.payload.length === 0 ? null : message.payload);
      writer.string('SeqNo').uint(message.seq);
      break;
    case 'nack':
      writer.map(1).string('SeqNo').uint(message.seq);
      break;
    case 'suspect':
    case 'dead':
      writer.map(3).string('From').string(message.from).string('Incarnation').uint(message.incarnation);
      writer.string('Node').string(message.node);
      break;
    case 'alive':
      writer.map(6).string('Addr').bytes(addressBytes(message.address));
      writer.string('Incarnation').uint(message.incarnation).string('Meta').bytes(message.meta);
      writer.string('Node').string(message.node).string('Port').uint(message.address.port);
      writer.string('Vsn').bytes(Uint8Array.from(message.versions));
      break;
    case 'user':
      out.bytes(message.payload);
      break;
    default:
      unreachable(message);
  }
  return writer.toBytes();
}

/** Go leaves each of them out that is zero. */
function senderFields(source: Sender | null): number {
  if (source === null) return 0;
  return source.node === '' ? 2 : 3;
}

function writeSender(writer: MsgpackWriter, source: Sender | null): void {
  if (source === null) return;
  writer.string('SourceAddr').bytes(addressBytes(source.address));
  if (source.node !== '') writer.string('SourceNode').string(source.node);
  writer.string('SourcePort').uint(source.address.port);
}

/**
 * The opposite; wrappers (compound, compressed, ...) and messages of streams are of unknown type here. What a message keeps is copied. Bytes behind the
 * message are passed over, as upstream does.
 */
export function decodeMessage(bytes: Uint8Array): PacketMessage | WireRefusal {
  const body = (names: FieldNames, make: (fields: Fields) => PacketMessage | WireRefusal) => {
    const reader = new MsgpackReader(bytes, 1);
    const fields = readFields(reader, names);
    return refusalOf(reader) ?? make(fields);
  };
  switch (bytes[0]) {
    case undefined:
      return 'empty';
    case MESSAGE_TYPE.ping:
      return body(PING, (fields) => ({
        kind: 'ping',
        seq: fields.SeqNo,
        node: fields.Node,
        source: senderOf(fields),
      }));
    case MESSAGE_TYPE.indirectPing:
      return body(INDIRECT_PING, indirectPing);
    case MESSAGE_TYPE.ack:
      return body(ACK, (fields) => ({ kind: 'ack', seq: fields.SeqNo, payload: copyOf(fields.Payload) }));
    case MESSAGE_TYPE.nack:
      return body(NACK, (fields) => ({ kind: 'nack', seq: fields.SeqNo }));
    case MESSAGE_TYPE.suspect:
      return body(SUSPECT, (fields) => suspicion('suspect', fields));
    case MESSAGE_TYPE.dead:
      return body(SUSPECT, (fields) => suspicion('dead', fields));
    case MESSAGE_TYPE.alive:
      return body(ALIVE, alive);
    case MESSAGE_TYPE.user:
      return { kind: 'user', payload: copyOf(bytes.subarray(1)) };
    default:
      return 'unknownType';
  }
}

function indirectPing(fields: Fields): PacketMessage | WireRefusal {
  const target = addressOf(fields.Target, fields.Port);
  if (target === null) return 'malformed';
  return {
    kind: 'indirectPing',
    seq: fields.SeqNo,
    target,
    node: fields.Node,
    nack: fields.Nack,
    source: senderOf(fields),
  };
}

function suspicion(kind: 'suspect' | 'dead', fields: Fields): PacketMessage | WireRefusal {
  if (fields.Node === '') return 'malformed';
  return { kind, incarnation: fields.Incarnation, node: fields.Node, from: fields.From };
}

function alive(fields: Fields): PacketMessage | WireRefusal {
  const address = addressOf(fields.Addr, fields.Port);
  if (address === null || fields.Node === '') return 'malformed';
  return {
    kind: 'alive',
    incarnation: fields.Incarnation,
    node: fields.Node,
    address,
    meta: copyOf(fields.Meta),
    versions: versionsOf(fields.Vsn),
  };
}
