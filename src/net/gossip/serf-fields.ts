import { defined } from '../../base/assert.ts';
import {
  EVENT_BYTES_MAX,
  FILTERS_MAX,
  KEYS_MAX,
  LAMPORT_MAX,
  MEMBERS_MAX,
  MESSAGE_BYTES_MAX,
  NODE_NAME_BYTES_MAX,
} from '../../gossip/serf/limits.ts';
import type { EventsOfTime, SeenEvent } from '../../gossip/serf/messages.ts';
import type { Address } from '../../gossip/types.ts';
import { bytesOfHost, hostOfBytes } from './wire/address.ts';
import type { MsgpackReader } from './wire/msgpack.ts';

/**
 * Fields of Serf's structs by their Go names (hashicorp/serf serf/messages.go, serf/internal_query.go). A name means the same in each struct that has it, so
 * that all are read by one function. Missing ones are zero, unknown ones passed over; a struct that has others' fields too is none the worse for it.
 */
export interface SerfFields {
  Addr: Uint8Array;
  CC: boolean;
  EventLTime: number;
  Events: EventsOfTime[];
  Expr: string;
  Filters: Uint8Array[];
  Flags: number;
  From: string;
  ID: number;
  Key: Uint8Array;
  Keys: string[];
  LTime: number;
  LeftMembers: string[];
  Message: string;
  Name: string;
  Node: string;
  Payload: Uint8Array;
  Port: number;
  PrimaryKey: string;
  Prune: boolean;
  QueryLTime: number;
  RelayFactor: number;
  Result: boolean;
  SourceNode: string;
  Status: number;
  StatusLTimes: Map<string, number>;
  Tag: string;
  Tags: Map<string, string>;
  Timeout: number;
  DelegateCur: number;
  DelegateMax: number;
  DelegateMin: number;
  ProtocolCur: number;
  ProtocolMax: number;
  ProtocolMin: number;
}

const FIELDS_MAX = 64;
const UINT8_MAX = 0xff;
const UINT16_MAX = 0xffff;
const UINT32_MAX = 0xffff_ffff;
const ADDRESS_BYTES_MAX = 16;
const KEY_BYTES_MAX = 64;
/** Go's agents send every slot, most of them nil; how many there are is a setting. */
const EVENT_SLOTS_MAX = 4_096;
const EVENTS_MAX = 65_536;
const TAGS_MAX = 512;
const NO_BYTES = new Uint8Array(0);

/** Reads one struct; nil is one without fields. Check `reader.failure` afterwards. */
export function readSerfFields(reader: MsgpackReader): SerfFields {
  const fields = noFields();
  const count = reader.mapStart(FIELDS_MAX);
  for (let i = 0; i < count; i++) readField(reader, fields, reader.key());
  return fields;
}

function readField(reader: MsgpackReader, fields: SerfFields, name: string): void {
  switch (name) {
    case 'Addr':
      fields.Addr = reader.bytes(ADDRESS_BYTES_MAX);
      return;
    case 'CC':
    case 'Prune':
    case 'Result':
      fields[name] = reader.bool();
      return;
    case 'EventLTime':
    case 'LTime':
    case 'QueryLTime':
      fields[name] = reader.uint(LAMPORT_MAX);
      return;
    case 'Flags':
    case 'ID':
      fields[name] = reader.uint(UINT32_MAX);
      return;
    case 'Port':
      fields.Port = reader.uint(UINT16_MAX);
      return;
    case 'DelegateCur':
    case 'DelegateMax':
    case 'DelegateMin':
    case 'ProtocolCur':
    case 'ProtocolMax':
    case 'ProtocolMin':
    case 'RelayFactor':
    case 'Status':
      fields[name] = reader.uint(UINT8_MAX);
      return;
    case 'From':
    case 'Node':
    case 'SourceNode':
      fields[name] = reader.string(NODE_NAME_BYTES_MAX);
      return;
    case 'Expr':
    case 'Message':
    case 'PrimaryKey':
    case 'Tag':
      fields[name] = reader.string(MESSAGE_BYTES_MAX);
      return;
    case 'Name':
      fields.Name = reader.string(EVENT_BYTES_MAX);
      return;
    case 'Payload':
      fields.Payload = copied(reader.bytes(MESSAGE_BYTES_MAX));
      return;
    case 'Key':
      fields.Key = copied(reader.bytes(KEY_BYTES_MAX));
      return;
    case 'Timeout':
      fields.Timeout = reader.int();
      return;
    default:
      readContainer(reader, fields, name);
  }
}

function readContainer(reader: MsgpackReader, fields: SerfFields, name: string): void {
  switch (name) {
    case 'Events':
      fields.Events = readEvents(reader);
      return;
    case 'Filters':
      fields.Filters = list(reader, FILTERS_MAX, (one) => one.bytes(MESSAGE_BYTES_MAX));
      return;
    case 'Keys':
      fields.Keys = list(reader, KEYS_MAX, (one) => one.string(MESSAGE_BYTES_MAX));
      return;
    case 'LeftMembers':
      fields.LeftMembers = list(reader, MEMBERS_MAX, (one) => one.string(NODE_NAME_BYTES_MAX));
      return;
    case 'StatusLTimes': {
      const count = reader.mapStart(MEMBERS_MAX);
      for (let i = 0; i < count; i++) {
        fields.StatusLTimes.set(reader.string(NODE_NAME_BYTES_MAX), reader.uint(LAMPORT_MAX));
      }
      return;
    }
    case 'Tags':
      fields.Tags = readTags(reader);
      return;
    default:
      reader.skip();
  }
}

/** Bounded in all: an event that is nil has one byte, and is an object here. */
function readEvents(reader: MsgpackReader): EventsOfTime[] {
  let left = EVENTS_MAX;
  const slots = list(reader, EVENT_SLOTS_MAX, (one) => {
    const slot = readEventsOfTime(one, left);
    left -= slot.events.length;
    return slot;
  });
  return slots.filter(({ events }) => events.length > 0);
}

/** In one slot: `Events` is there another thing than in the struct around. */
function readEventsOfTime(reader: MsgpackReader, countMax: number): EventsOfTime {
  let [time, events]: [number, SeenEvent[]] = [0, []];
  const count = reader.mapStart(FIELDS_MAX);
  for (let i = 0; i < count; i++) {
    const name = reader.key();
    if (name === 'LTime') time = reader.uint(LAMPORT_MAX);
    else if (name === 'Events') events = list(reader, countMax, readSeenEvent);
    else reader.skip();
  }
  return { time, events };
}

function readSeenEvent(reader: MsgpackReader): SeenEvent {
  let [name, payload] = ['', NO_BYTES];
  const count = reader.mapStart(FIELDS_MAX);
  for (let i = 0; i < count; i++) {
    const key = reader.key();
    if (key === 'Name') name = reader.string(EVENT_BYTES_MAX);
    else if (key === 'Payload') payload = copied(reader.bytes(EVENT_BYTES_MAX));
    else reader.skip();
  }
  return { name, payload };
}

export function readTags(reader: MsgpackReader): Map<string, string> {
  const tags = new Map<string, string>();
  const count = reader.mapStart(TAGS_MAX);
  for (let i = 0; i < count; i++) tags.set(reader.string(MESSAGE_BYTES_MAX), reader.string(MESSAGE_BYTES_MAX));
  return tags;
}

/** Read whole or not at all: it stops at the first failure. */
export function list<Item>(reader: MsgpackReader, countMax: number, read: (reader: MsgpackReader) => Item): Item[] {
  const items: Item[] = [];
  const count = reader.arrayStart(countMax);
  for (let i = 0; i < count && reader.failure === null; i++) items.push(read(reader));
  return items;
}

/** Null without a port or with no address of 4 or 16 bytes. */
export function addressOf(bytes: Uint8Array, port: number): Address | null {
  const host = hostOfBytes(bytes);
  return host === null || port === 0 ? null : { host, port };
}

/** Addresses of ours come from a socket or from another's message: always words of an address. */
export function addressBytes(address: Address): Uint8Array {
  return defined(bytesOfHost(address.host), `${address.host} is not an IP address`);
}

/** What outlives the packet, which may be a large buffer. (`slice` of a Buffer would be a view.) */
function copied(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  return new Uint8Array(bytes);
}

function noFields(): SerfFields {
  return {
    Addr: NO_BYTES,
    CC: false,
    EventLTime: 0,
    Events: [],
    Expr: '',
    Filters: [],
    Flags: 0,
    From: '',
    ID: 0,
    Key: NO_BYTES,
    Keys: [],
    LTime: 0,
    LeftMembers: [],
    Message: '',
    Name: '',
    Node: '',
    Payload: NO_BYTES,
    Port: 0,
    PrimaryKey: '',
    Prune: false,
    QueryLTime: 0,
    RelayFactor: 0,
    Result: false,
    SourceNode: '',
    Status: 0,
    StatusLTimes: new Map(),
    Tag: '',
    Tags: new Map(),
    Timeout: 0,
    DelegateCur: 0,
    DelegateMax: 0,
    DelegateMin: 0,
    ProtocolCur: 0,
    ProtocolMax: 0,
    ProtocolMin: 0,
  };
}
