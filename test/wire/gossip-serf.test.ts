/** Serf's messages in bytes. The golden bytes are what hashicorp/serf v0.11.0 writes (encodeMessage, encodeRelayMessage, encodeTags, AckPayload). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OWN_COORDINATE } from '../../src/gossip/serf/coordinates.ts';
import { EVENT_BYTES_MAX, MEMBERS_MAX, STATE_BYTES_MAX } from '../../src/gossip/serf/limits.ts';
import type { Coordinate, SerfMessage } from '../../src/gossip/serf/messages.ts';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';

const text = (words: string): Uint8Array => new TextEncoder().encode(words);
const hex = (digits: string): Uint8Array => Uint8Array.from(Buffer.from(digits, 'hex'));
const NO_BYTES = new Uint8Array(0);

const MESSAGES: readonly (readonly [name: string, message: SerfMessage, bytes: string])[] = [
  ['join', { kind: 'join', time: 300, node: 'node-b' }, '0182a54c54696d65cd012ca44e6f6465a66e6f64652d62'],
  [
    'leave, to be forgotten',
    { kind: 'leave', time: 7, node: 'node-b', prune: true },
    '0083a54c54696d6507a44e6f6465a66e6f64652d62a55072756e65c3',
  ],
  [
    'user event',
    { kind: 'userEvent', time: 70_000, name: 'deploy', payload: text('1.2.3'), coalesce: true },
    '0384a24343c3a54c54696d65ce00011170a44e616d65a66465706c6f79a75061796c6f6164a5312e322e33',
  ],
  [
    'user event without payload',
    { kind: 'userEvent', time: 1, name: 'deploy', payload: NO_BYTES, coalesce: false },
    '0384a24343c2a54c54696d6501a44e616d65a66465706c6f79a75061796c6f6164c0',
  ],
  [
    'query with both filters, a time of more than 2^32 nanoseconds',
    {
      kind: 'query',
      time: 5,
      id: 0x7fff_ffff,
      source: { host: '10.0.0.1', port: 7_946 },
      sourceNode: 'node-a',
      filters: [
        { kind: 'nodes', nodes: ['node-a', 'node-b'] },
        { kind: 'tag', tag: 'role', expression: '^bro.er$' },
      ],
      wantsAck: true,
      noBroadcast: true,
      relayFactor: 2,
      timeoutMs: 15_000,
      name: 'uptime',
      payload: text('x'),
    },
    '048ba441646472a40a000001a746696c7465727392b00092a66e6f64652d61a66e6f64652d62b90182a445787072a85e62726f2e657224a3546167a4726f6c65a5466c61677303a24944ce7fffffffa54c54696d6505a44e616d65a6757074696d65a75061796c6f6164a178a4506f7274cd1f0aab52656c6179466163746f7202aa536f757263654e6f6465a66e6f64652d61a754696d656f7574d3000000037e11d600',
  ],
  [
    'query, plain, of an IPv4 address in 16 bytes',
    {
      kind: 'query',
      time: 5,
      id: 1,
      source: { host: '::ffff:10.0.0.1', port: 7_946 },
      sourceNode: 'node-a',
      filters: [],
      wantsAck: false,
      noBroadcast: false,
      relayFactor: 0,
      timeoutMs: 1_500,
      name: '_serf_ping',
      payload: NO_BYTES,
    },
    '048ba441646472b000000000000000000000ffff0a000001a746696c74657273c0a5466c61677300a2494401a54c54696d6505a44e616d65aa5f736572665f70696e67a75061796c6f6164c0a4506f7274cd1f0aab52656c6179466163746f7200aa536f757263654e6f6465a66e6f64652d61a754696d656f7574d259682f00',
  ],
  [
    'query response',
    { kind: 'queryResponse', time: 5, id: 9, from: 'node-b', isAck: false, payload: text('up') },
    '0585a5466c61677300a446726f6da66e6f64652d62a2494409a54c54696d6505a75061796c6f6164a27570',
  ],
  [
    'query acknowledgement',
    { kind: 'queryResponse', time: 5, id: 9, from: 'node-b', isAck: true, payload: NO_BYTES },
    '0585a5466c61677301a446726f6da66e6f64652d62a2494409a54c54696d6505a75061796c6f6164c0',
  ],
  [
    'relay',
    {
      kind: 'relay',
      target: { host: '10.0.0.1', port: 7_946 },
      targetNode: 'node-a',
      payload: hex('0585a5466c61677300a446726f6da66e6f64652d62a2494409a54c54696d6505a75061796c6f6164a27570'),
    },
    '0982a8446573744164647283a24950a40a000001a4506f7274d11f0aa45a6f6e65a0a8446573744e616d65a66e6f64652d610585a5466c61677300a446726f6da66e6f64652d62a2494409a54c54696d6505a75061796c6f6164a27570',
  ],
  [
    'conflict response',
    {
      kind: 'conflictResponse',
      member: {
        node: 'node-b',
        address: { host: '10.0.0.2', port: 7_946 },
        tags: new Map([['role', 'broker']]),
        status: 'alive',
        versions: [1, 5, 2, 2, 5, 5],
      },
    },
    '068ba441646472a40a000002ab44656c656761746543757205ab44656c65676174654d617805ab44656c65676174654d696e02a44e616d65a66e6f64652d62a4506f7274cd1f0aab50726f746f636f6c43757202ab50726f746f636f6c4d617805ab50726f746f636f6c4d696e01a653746174757301a45461677381a4726f6c65a662726f6b6572',
  ],
  ['conflict response of one who knows nobody', { kind: 'conflictResponse', member: null }, '06c0'],
  [
    'key request',
    { kind: 'keyRequest', key: new Uint8Array(16).fill(7) },
    '0781a34b6579b007070707070707070707070707070707',
  ],
  [
    'key response',
    { kind: 'keyResponse', isDone: true, message: '', keys: ['AAAA', 'BBBB'], primaryKey: 'AAAA' },
    '0884a44b65797392a441414141a442424242a74d657373616765a0aa5072696d6172794b6579a441414141a6526573756c74c3',
  ],
  [
    'key response, failed',
    { kind: 'keyResponse', isDone: false, message: 'no', keys: [], primaryKey: '' },
    '0884a44b657973c0a74d657373616765a26e6faa5072696d6172794b6579a0a6526573756c74c2',
  ],
  [
    'push/pull',
    {
      kind: 'pushPull',
      time: 12,
      statusTimes: new Map([['node-a', 3]]),
      leftMembers: ['node-a'],
      eventTime: 4,
      events: [
        {
          time: 3,
          events: [
            { name: 'deploy', payload: text('1') },
            { name: 'restart', payload: NO_BYTES },
          ],
        },
      ],
      queryTime: 2,
    },
    '0286aa4576656e744c54696d6504a64576656e74739182a64576656e74739282a44e616d65a66465706c6f79a75061796c6f6164a13182a44e616d65a772657374617274a75061796c6f6164c0a54c54696d6503a54c54696d650cab4c6566744d656d6265727391a66e6f64652d61aa51756572794c54696d6502ac5374617475734c54696d657381a66e6f64652d6103',
  ],
];

const TAGS = 'ff81a4726f6c65a662726f6b6572';
const COORDINATE =
  '0184aa41646a7573746d656e74cb0000000000000000a54572726f72cb3ff8000000000000a6486569676874cb3ee4f8b588e368f1a356656398cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000cb0000000000000000';

for (const [name, message, bytes] of MESSAGES) {
  test(`${name}: written as Go writes it, and read again`, () => {
    assert.equal(Buffer.from(serfCodec.encode(message)).toString('hex'), bytes);
    assert.deepEqual(serfCodec.decode(hex(bytes)), message);
  });
}

test('a Go agent sends all slots of events in a push/pull, the empty ones as nil', () => {
  const bytes = hex(
    '0286aa4576656e744c54696d6501a64576656e7473dc0014c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0a54c54696d6501ab4c6566744d656d6265727390aa51756572794c54696d6501ac5374617475734c54696d657380',
  );
  const state = serfCodec.decode(bytes);
  assert.deepEqual(state, {
    kind: 'pushPull',
    time: 1,
    statusTimes: new Map(),
    leftMembers: [],
    eventTime: 1,
    events: [],
    queryTime: 1,
  });
});

test('tags and the coordinate at rest are written as Go writes them', () => {
  const tags = new Map([['role', 'broker']]);
  assert.equal(Buffer.from(serfCodec.encodeTags(tags)).toString('hex'), TAGS);
  assert.deepEqual(serfCodec.decodeTags(hex(TAGS)), tags);
  assert.equal(Buffer.from(serfCodec.encodeCoordinate(OWN_COORDINATE)).toString('hex'), COORDINATE);
  assert.deepEqual(serfCodec.decodeCoordinate(hex(COORDINATE)), OWN_COORDINATE);
});

test('tags of the old form are a role alone; tags that cannot be read are none', () => {
  assert.deepEqual(serfCodec.decodeTags(text('web')), new Map([['role', 'web']]));
  assert.deepEqual(serfCodec.decodeTags(NO_BYTES), new Map([['role', '']]));
  assert.deepEqual(serfCodec.decodeTags(hex('ff81a4726f6c65')), new Map());
  assert.deepEqual(serfCodec.decodeTags(hex('ffdfffffffff')), new Map());
});

test('[G7] a coordinate of other dimensions, of another version or cut short is none; NaN and infinities are read, for the rules to refuse', () => {
  const of = (change: Partial<Coordinate>): Uint8Array => serfCodec.encodeCoordinate({ ...OWN_COORDINATE, ...change });
  assert.equal(serfCodec.decodeCoordinate(of({ vector: [] })), null);
  assert.equal(serfCodec.decodeCoordinate(of({ vector: new Array(9).fill(0) })), null);
  assert.equal(serfCodec.decodeCoordinate(hex(COORDINATE).fill(2, 0, 1)), null);
  for (let end = 0; end < COORDINATE.length / 2; end++) {
    assert.equal(serfCodec.decodeCoordinate(hex(COORDINATE).subarray(0, end)), null);
  }
  assert.ok(Number.isNaN(serfCodec.decodeCoordinate(of({ error: Number.NaN }))?.error));
});

test('[G7] a message that is cut short anywhere is no message', () => {
  for (const [name, message, bytes] of MESSAGES) {
    // What a relay carries is not read with it.
    if (message.kind === 'relay') continue;
    for (let end = 0; end < bytes.length / 2; end++) {
      assert.equal(serfCodec.decode(hex(bytes).subarray(0, end)), null, `${name}, ${end} bytes`);
    }
  }
});

test('[G7] nothing that is read is a view of the bytes it came in', () => {
  for (const [name, message, bytes] of MESSAGES) {
    const buffer = Buffer.from(bytes, 'hex');
    const read = serfCodec.decode(buffer);
    buffer.fill(0xee);
    assert.deepEqual(read, message, name);
  }
});

test('[G7] counts and lengths that are claimed beyond the bounds are refused without memory for them', () => {
  const claims: readonly (readonly [name: string, bytes: string])[] = [
    ['2^31 fields', '01df80000000'],
    ['2^31 statuses', '0281ac5374617475734c54696d6573df80000000'],
    ['2^32 - 1 members that left', '0281ab4c6566744d656d62657273ddffffffff'],
    ['2^32 - 1 slots of events', '0281a64576656e7473ddffffffff'],
    ['a name of 2^31 bytes', '0181a44e6f6465db80000000'],
    ['a Lamport time of 2^64 - 1', '0182a54c54696d65cfffffffffffffffffa44e6f6465a161'],
    ['a Lamport time of 2^52 + 1', '0182a54c54696d65cf0010000000000001a44e6f6465a161'],
    ['a Lamport time below 0', '0182a54c54696d65d0ffa44e6f6465a161'],
    ['a Lamport time that is a float', '0182a54c54696d65cb4059000000000000a44e6f6465a161'],
    ['no name', '0181a54c54696d6501'],
    ['a name that is no UTF-8', '0182a54c54696d6501a44e6f6465a1ff'],
    ['a type that there is not', `0a${'80'}`],
    ['a query without an address', '0481a24944ce7fffffff'],
  ];
  for (const [name, bytes] of claims) assert.equal(serfCodec.decode(hex(bytes)), null, name);
});

test('[G7] a push/pull of as many events as bytes has no more objects than the bound', () => {
  const bytes = Buffer.concat([
    hex('0281a64576656e7473'),
    hex('9181a64576656e7473dd'),
    Buffer.from([0, 0x20, 0, 0]),
    Buffer.alloc(0x20_0000, 0xc0),
  ]);
  assert.equal(serfCodec.decode(bytes), null);
  // The same in slots that are each within it.
  const slot = Buffer.concat([hex('81a64576656e7473dd'), Buffer.from([0, 0, 0x80, 0]), Buffer.alloc(0x8000, 0xc0)]);
  const state = (count: number): Buffer =>
    Buffer.concat([hex('0281a64576656e7473'), Buffer.from([0x90 + count]), ...new Array<Buffer>(count).fill(slot)]);
  assert.notEqual(serfCodec.decode(state(2)), null);
  assert.equal(serfCodec.decode(state(3)), null);
});

test('[G7] a filter that cannot be read makes a query that nobody answers and all gossip on', () => {
  const bytes = hex(
    '0485a441646472a40a000001a746696c7465727393a0a10792ff01a24944 01a4506f7274cd1f0aa44e616d65a178'.replaceAll(' ', ''),
  );
  // Three filters: an empty one, one of an unknown type, and no byte string at all.
  assert.equal(serfCodec.decode(bytes), null);
  const readable = serfCodec.decode(
    hex('0485a441646472a40a000001a746696c7465727392a0a107a2494401a4506f7274cd1f0aa44e616d65a178'),
  );
  assert.ok(readable?.kind === 'query');
  assert.deepEqual(readable.filters, [{ kind: 'unknown' }, { kind: 'unknown' }]);
});

test('the largest state that this node itself can say is within the bound of what it takes', () => {
  const name = (i: number): string => String(i).padStart(128, 'n');
  const names = Array.from({ length: MEMBERS_MAX }, (_, i) => name(i));
  const state = serfCodec.encode({
    kind: 'pushPull',
    time: 2 ** 52,
    statusTimes: new Map(names.map((node) => [node, 2 ** 52])),
    leftMembers: names,
    eventTime: 2 ** 52,
    events: Array.from({ length: 160 }, (_, i) => ({
      time: 2 ** 52 - i,
      events: [{ name: 'n', payload: new Uint8Array(EVENT_BYTES_MAX - 1) }],
    })),
    queryTime: 2 ** 52,
  });
  assert.ok(state.length <= STATE_BYTES_MAX, `${state.length} bytes`);
  assert.ok(serfCodec.decode(state)?.kind === 'pushPull');
});

test('[G7] mutated messages, tags and coordinates: 30,000 of them, none throws', () => {
  const number = numbersFrom(7_946);
  const seeds = [...MESSAGES.map(([, , bytes]) => bytes), TAGS, COORDINATE].map((bytes) => Buffer.from(bytes, 'hex'));
  let read = 0;
  for (let i = 0; i < 30_000; i++) {
    const bytes = i % 10 === 0 ? noiseOf(number(64), number) : mutate(seeds[number(seeds.length)] as Buffer, number);
    const message = serfCodec.decode(bytes);
    if (message !== null) {
      read++;
      // What was read can be said again, and means the same.
      assert.deepEqual(serfCodec.decode(serfCodec.encode(message)), message);
    }
    serfCodec.decodeTags(bytes);
    serfCodec.decodeCoordinate(bytes);
  }
  assert.ok(read > 1_000, `${read} could be read`);
});
