/** What comes over gossip's port from anybody, and Serf's snapshot file. */
import { isDeepStrictEqual } from 'node:util';
import { crc32 } from 'node:zlib';
import { SerfSnapshot } from '../../../src/gossip/serf/snapshot.ts';
import { TagPattern } from '../../../src/gossip/serf/tag-pattern.ts';
import type { PacketMessage, StreamMessage } from '../../../src/gossip/types.ts';
import { serfCodec } from '../../../src/net/gossip/serf-codec.ts';
import { PACKET_CAPS } from '../../../src/net/gossip/wire/limits.ts';
import { MESSAGE_TYPE } from '../../../src/net/gossip/wire/message-type.ts';
import { encodeMessage } from '../../../src/net/gossip/wire/messages.ts';
import { packPacket, readPacket } from '../../../src/net/gossip/wire/packet.ts';
import { NONCE_BYTES, seal } from '../../../src/net/gossip/wire/seal.ts';
import { StreamReader } from '../../../src/net/gossip/wire/stream.ts';
import { packStream } from '../../../src/net/gossip/wire/stream-writer.ts';
import { readRecordings, ringOf } from '../../wire/gossip-recordings.ts';
import { choiceOf, expect, type FuzzTarget, piecesOf } from '../target.ts';

const MIB = 1 << 20;
const KEY = Buffer.alloc(32, 7);
const NONCE = Buffer.alloc(NONCE_BYTES, 9);
const LABEL = 'cluster-a';
const PLAIN = ringOf();
const KEYED = ringOf(Buffer.alloc(16, 1), KEY);
const SEAL = { key: KEY, version: 1, nonce: NONCE } as const;
const NODE = {
  node: 'node-b',
  address: { host: '10.0.0.2', port: 7_946 },
  meta: serfCodec.encodeTags(new Map([['role', 'broker']])),
  incarnation: 3,
};

/** Messages and packets that Serf and memberlist have written. */
function recorded(kind: 'packet' | 'stream'): Buffer[] {
  const all = readRecordings().flatMap(({ recorded: list }) => list);
  const isPacket = ({ kind: name }: (typeof all)[number]): boolean => name.startsWith('packet');
  const found = all.filter((one) => isPacket(one) === (kind === 'packet')).map(({ hex }) => Buffer.from(hex, 'hex'));
  return found.filter((_, i) => i % Math.ceil(found.length / 40) === 0);
}

function messages(): PacketMessage[] {
  const source = { address: NODE.address, node: 'node-a' };
  return [
    { kind: 'ping', seq: 7, node: 'node-b', source },
    { kind: 'indirectPing', seq: 8, target: { host: 'fd00::1', port: 7_946 }, node: 'c', nack: true, source: null },
    {
      kind: 'ack',
      seq: 9,
      payload: serfCodec.encodeCoordinate({ vector: [0, 1, 2, 3, 4, 5, 6, 7], error: 1, adjustment: 0, height: 0.1 }),
    },
    { kind: 'nack', seq: 10 },
    { kind: 'suspect', incarnation: 1, node: 'a', from: 'b' },
    { kind: 'dead', incarnation: 2, node: 'a', from: 'a' },
    { kind: 'user', payload: serfCodec.encode({ kind: 'join', time: 5, node: 'x' }) },
  ];
}

const WRAPPINGS = [
  { label: '', seal: null, crc: false, compress: false },
  { label: '', seal: null, crc: true, compress: true },
  { label: LABEL, seal: SEAL, crc: true, compress: false },
  { label: LABEL, seal: { ...SEAL, version: 0 }, crc: false, compress: true },
] as const;

const packet: FuzzTarget = {
  name: 'gossip-packet',
  about: 'a gossip packet as it comes, or as what is sealed with the right key and label',
  memoryBytes: 2 * MIB,
  lengthMax: 2_048,
  seeds: () => {
    const encoded = messages().map(encodeMessage);
    return [
      ...encoded,
      ...WRAPPINGS.map((wrapping) => Buffer.from(packPacket(encoded, wrapping))),
      packPacket([encoded[0] as Uint8Array], { label: '', seal: null, crc: true, compress: false }),
      ...recorded('packet'),
    ];
  },
  run: (bytes) => {
    let isTaken = false;
    const read = (input: Uint8Array, label: string, keyring: typeof PLAIN): void => {
      const found = readPacket(input, { label, keyring });
      if (found.kind === 'refused') return;
      isTaken = true;
      expect(found.messages.length <= PACKET_CAPS.messagesMax, 'more messages than a packet has');
      for (const message of found.messages) checkMessage(message);
    };
    read(bytes, '', PLAIN);
    switch (choiceOf(bytes, 6)) {
      case 0:
        read(bytes, LABEL, KEYED);
        break;
      case 1:
        if (bytes.length > 0) read(packPacket([bytes], WRAPPINGS[2]), LABEL, KEYED);
        break;
      case 2:
        read(checksummed(bytes), '', PLAIN);
        break;
      case 3:
        if (bytes.length > 0) read(packPacket([bytes, bytes], { ...WRAPPINGS[1], compress: true }), '', PLAIN);
        break;
      case 4:
        // Padding of version 0 that anybody with a key may write.
        read(
          Buffer.concat([labelled(), seal(bytes, Buffer.from(LABEL), { ...SEAL, version: 1 }).fill(0, 0, 1)]),
          LABEL,
          KEYED,
        );
        break;
      default:
    }
    return isTaken;
  },
};

function labelled(): Buffer {
  return Buffer.concat([Buffer.from([MESSAGE_TYPE.hasLabel, LABEL.length]), Buffer.from(LABEL)]);
}

function checksummed(bytes: Uint8Array): Buffer {
  const found = Buffer.concat([Buffer.alloc(5), bytes]);
  found[0] = MESSAGE_TYPE.hasCrc;
  found.writeUInt32BE(crc32(bytes), 1);
  return found;
}

/** What was read is written and read the same, and what the delegate has of it is read too. */
function checkMessage(message: PacketMessage): void {
  const again = readPacket(encodeMessage(message), { label: '', keyring: PLAIN });
  const isSame = again.kind === 'messages' && isDeepStrictEqual(plain(again.messages[0]), plain(message));
  expect(isSame, 'read otherwise the second time', () => [message, again]);
  if (message.kind === 'user') serfCodec.decode(message.payload);
  if (message.kind === 'ack') serfCodec.decodeCoordinate(message.payload);
  if (message.kind === 'alive') serfCodec.decodeTags(message.meta);
}

/** Whether bytes are a Buffer is no difference. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (value instanceof Map) return [...value].map(plain);
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, plain(part)]));
}

const STREAM_CAPS = {
  nodesMax: 200,
  nodeBytesMax: 4_096,
  stateBytesMax: 64 << 10,
  userStateBytesMax: 64 << 10,
  userMessageBytesMax: 64 << 10,
  decompressedBytesMax: 128 << 10,
};

function streamMessages(): Uint8Array[] {
  const state = serfCodec.encode({
    kind: 'pushPull',
    time: 9,
    statusTimes: new Map([['a', 3]]),
    leftMembers: ['z'],
    eventTime: 2,
    events: [{ time: 1, events: [{ name: 'deploy', payload: Buffer.from('x') }] }],
    queryTime: 4,
  });
  const all: StreamMessage[] = [
    { kind: 'ping', seq: 1, node: 'b', source: null },
    { kind: 'ack', seq: 1, payload: Buffer.from('p') },
    { kind: 'error', message: 'no' },
    { kind: 'user', payload: state },
  ];
  return all.flatMap((message) => [
    packStream(message, { label: '', isAnswer: false, seal: null, compress: false }),
    packStream(message, { label: LABEL, isAnswer: false, seal: SEAL, compress: true }),
    packStream(message, { label: '', isAnswer: true, seal: null, compress: true }),
  ]);
}

const stream: FuzzTarget = {
  name: 'gossip-stream',
  shortRuns: 1_000,
  about: 'a gossip stream in any pieces, in plain words or sealed with the right key; the same in one piece',
  // A chunk of 64 KiB, what is held, and what was decompressed.
  memoryBytes: 4 * MIB,
  seeds: () => [...streamMessages(), ...recorded('stream')],
  run: (bytes) => {
    const kind = choiceOf(bytes, 4);
    const options =
      kind === 0
        ? { label: LABEL, keyring: KEYED, isAnswer: false, caps: STREAM_CAPS }
        : { label: '', keyring: kind === 1 ? KEYED : PLAIN, isAnswer: kind === 3, caps: STREAM_CAPS };
    let input = bytes;
    if (kind === 1) {
      const length = Buffer.alloc(5);
      length[0] = MESSAGE_TYPE.encrypt;
      length.writeUInt32BE(1 + NONCE_BYTES + bytes.length + 16, 1);
      input = Buffer.concat([length, seal(bytes, length, SEAL)]);
    }
    const whole = new StreamReader(options);
    whole.push(input);
    const found = whole.end();
    const cut = new StreamReader(options);
    for (const piece of piecesOf(input)) {
      cut.push(piece);
      expect(cut.heldBytes <= 8 * STREAM_CAPS.decompressedBytesMax, 'more is held than the cap');
    }
    const again = cut.end();
    expect(isDeepStrictEqual(plain(again), plain(found)), 'read otherwise in pieces', () => [found, again]);
    if (found.kind !== 'message') return false;
    if (found.message.kind === 'pushPull') {
      const { nodes, userState } = found.message.state;
      expect(nodes.length <= STREAM_CAPS.nodesMax, 'more nodes than the cap');
      serfCodec.decode(userState);
    }
    const written = packStream(found.message, { label: '', isAnswer: false, seal: null, compress: false });
    const reader = new StreamReader({ label: '', keyring: PLAIN, isAnswer: false, caps: STREAM_CAPS });
    reader.push(written);
    const third = reader.end();
    const isSame = third.kind === 'message' && isDeepStrictEqual(plain(third.message), plain(found.message));
    expect(isSame, 'read otherwise the second time', () => [found, third]);
    return true;
  },
};

const serf: FuzzTarget = {
  name: 'serf-message',
  about: "Serf's messages, tags and coordinates; what was read is written and read the same",
  memoryBytes: MIB,
  seeds: () => [
    serfCodec.encode({ kind: 'leave', time: 4, node: 'a', prune: true }),
    serfCodec.encode({ kind: 'userEvent', time: 6, name: 'deploy', payload: Buffer.from('v2'), coalesce: true }),
    serfCodec.encode({
      kind: 'query',
      time: 8,
      id: 77,
      source: NODE.address,
      sourceNode: 'a',
      filters: [
        { kind: 'nodes', nodes: ['a', 'b'] },
        { kind: 'tag', tag: 'role', expression: '^broker-[0-9]+$' },
      ],
      wantsAck: true,
      noBroadcast: false,
      relayFactor: 2,
      timeoutMs: 15_000,
      name: '_serf_list-keys',
      payload: Buffer.from('p'),
    }),
    serfCodec.encode({ kind: 'queryResponse', time: 8, id: 77, from: 'b', isAck: false, payload: Buffer.from('r') }),
    serfCodec.encode({ kind: 'keyRequest', key: KEY }),
    serfCodec.encode({
      kind: 'keyResponse',
      isDone: true,
      message: 'm',
      keys: [KEY.toString('base64')],
      primaryKey: '',
    }),
    serfCodec.encode({ kind: 'relay', target: NODE.address, targetNode: 'b', payload: Buffer.from('in') }),
    serfCodec.encode({ kind: 'conflictResponse', member: null }),
    serfCodec.encodeTags(
      new Map([
        ['role', 'broker'],
        ['dc', 'eu'],
      ]),
    ),
    serfCodec.encodeCoordinate({ vector: [0, 0, 0, 0, 0, 0, 0, 0], error: 1.5, adjustment: 0, height: 1e-5 }),
    ...streamMessages().slice(9),
  ],
  run: (bytes) => {
    const tags = serfCodec.decodeTags(bytes);
    if (bytes[0] === 255 && tags.size > 0) {
      const again = serfCodec.decodeTags(serfCodec.encodeTags(tags));
      expect(isDeepStrictEqual(plain(again), plain(tags)), 'other tags the second time', () => [...tags]);
    }
    const coordinate = serfCodec.decodeCoordinate(bytes);
    if (coordinate !== null) {
      const again = serfCodec.decodeCoordinate(serfCodec.encodeCoordinate(coordinate));
      expect(isDeepStrictEqual(again, coordinate), 'another coordinate the second time', () => coordinate);
    }
    const message = serfCodec.decode(bytes);
    if (message === null) return (bytes[0] === 255 && tags.size > 0) || coordinate !== null;
    // A filter of a later version has nothing to be written by.
    if (message.kind === 'query' && message.filters.some(({ kind }) => kind === 'unknown')) return true;
    const again = serfCodec.decode(serfCodec.encode(message));
    expect(isDeepStrictEqual(plain(again), plain(message)), 'read otherwise the second time', () => [message, again]);
    return true;
  },
};

const restart: FuzzTarget = {
  name: 'serf-snapshot',
  about: "Serf's snapshot file; what was restored is restored from its short form too",
  memoryBytes: MIB,
  dictionary: [
    'alive: ',
    'not-alive: ',
    'clock: ',
    'event-clock: ',
    'query-clock: ',
    'leave\n',
    '\n',
    ' [::1]:7946\n',
    ' 10.0.0.1:7946\n',
  ],
  seeds: () => [
    Buffer.from(
      'alive: b2 10.0.0.2:7946\nalive: c3 [::1]:7000\nclock: 100\nevent-clock: 42\nquery-clock: 50\nnot-alive: b2\n',
    ),
    Buffer.from('alive: b2 10.0.0.2:7946\nleave\nalive: d 10.0.0.4:1\n# comment\ncoordinate: {}\n'),
  ],
  run: (bytes) => {
    const text = bytes.toString('utf8');
    for (const rejoins of [false, true]) {
      const snapshot = new SerfSnapshot(text, rejoins);
      const { restored } = snapshot;
      const again = new SerfSnapshot(snapshot.compact(), rejoins).restored;
      expect(isDeepStrictEqual(again, restored), 'restored otherwise from the short form', () => [restored, again]);
    }
    return text.endsWith('\n');
  },
};

/** Where RE2 and JavaScript say the same: no classes by name, no flags, nothing that only one of them has. */
const COMMON = /^(?:[a-z0-9 _]|\^|\$|\.(?![*+?])|\|)*$/;

const tagPattern: FuzzTarget = {
  name: 'tag-pattern',
  about: 'expressions of tag filters (RE2), against JavaScript where both say the same',
  memoryBytes: 2 * MIB,
  lengthMax: 1_200,
  dictionary: [
    '(?:',
    '[a-z]',
    '{2,5}',
    '\\d',
    '\\p{L}',
    '(?i)',
    '[^',
    '.*',
    '|',
    '^',
    '$',
    '*?',
    '\\Q',
    '\\x{41}',
    '[[:alpha:]]',
  ],
  seeds: () =>
    ['^broker-[0-9]+$', '(a|b)*c{2,3}', '[^a-z]\\d+\\b', '(?i:eu)|us', 'a.c|b', 'x{0,100}'].map((text) =>
      Buffer.from(text),
    ),
  run: (bytes) => {
    const expression = bytes.toString('utf8');
    const pattern = TagPattern.parse(expression);
    if (pattern === null) return false;
    for (const subject of ['', 'broker-1', 'abc', expression.slice(0, 200), 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa']) {
      const budget = { steps: 100_000 };
      const isFound = pattern.isFoundIn(subject, budget);
      if (budget.steps < 0 || !COMMON.test(expression) || /\n/.test(subject)) continue;
      expect(isFound === new RegExp(expression, 'su').test(subject), 'JavaScript says otherwise', () => [
        expression,
        subject,
      ]);
    }
    return true;
  },
};

export const GOSSIP_TARGETS: readonly FuzzTarget[] = [packet, stream, serf, restart, tagPattern];
