import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RELAYS_MAX } from '../../src/gossip/members/relays.ts';
import { PACKET_BYTES, type PacketMessage, type Versions } from '../../src/gossip/types.ts';
import { addressOf, alive, dead, NO_BYTES, type Packet, Rig, suspect, VERSIONS } from './gossip-members-rig.ts';

function packetsWith(rig: Rig, kind: PacketMessage['kind']): Packet[] {
  return rig.port.packets.filter(({ messages }) => messages.some((message) => message.kind === kind));
}

function seqOf(packet: Packet): number {
  const ping = packet.messages.find(({ kind }) => kind === 'ping' || kind === 'indirectPing');
  assert.ok(ping !== undefined && 'seq' in ping);
  return ping.seq;
}

const versionsUpTo = (most: number): Versions => [1, most, 2, 2, 5, 4];

/** Runs until `a` is pinged, and 500 ms further, when others are asked. */
function untilIndirect(rig: Rig): Packet {
  rig.run(20_000, () => packetsWith(rig, 'ping').some(({ node }) => node === 'a'));
  const ping = packetsWith(rig, 'ping').find(({ node }) => node === 'a');
  assert.ok(ping !== undefined);
  rig.run(rig.now + 500);
  return ping;
}

test('state_test.go Probe: each member is pinged once a round, at the interval, and neither we nor who is gone', () => {
  const rig = new Rig({ others: ['a', 'b', 'c', 'd', 'e'] });
  for (const node of ['a', 'b', 'c']) rig.answering.add(node);
  rig.take(dead('d'));
  rig.take(dead('e', 1, 'e'));
  rig.run(9_999);
  const pinged = packetsWith(rig, 'ping').map(({ node }) => node);
  assert.ok(pinged.length === 9 || pinged.length === 10);
  for (let round = 0; round < 3; round++)
    assert.deepEqual(pinged.slice(round * 3, round * 3 + 3).toSorted(), ['a', 'b', 'c']);
  assert.ok(rig.delegate.events.includes('ping a 0'));
  assert.equal(rig.list.counters.probesFailed, 0);
});

test('state_test.go ProbeNode_Suspect: no ack: 3 others are asked and a connection is tried, then it is suspected', () => {
  const rig = new Rig({ others: ['a', 'b', 'c', 'd', 'e'] });
  for (const node of ['b', 'c', 'd', 'e']) rig.answering.add(node);
  const ping = untilIndirect(rig);
  const asked = packetsWith(rig, 'indirectPing');
  assert.equal(new Set(asked.map(({ node }) => node)).size, 3);
  assert.ok(asked.every((packet) => packet.node !== 'a' && seqOf(packet) === seqOf(ping)));
  assert.deepEqual(
    rig.port.streamPings.map(({ node }) => node),
    ['a'],
  );
  assert.equal(rig.state('a'), 'alive');
  rig.run(rig.now + 500);
  assert.equal(rig.state('a'), 'suspect');
  rig.run(rig.now + 200);
  assert.ok(rig.said('a').some((said) => said.kind === 'suspect' && said.from === 'self'));
});

test('state.go probeNode: only others that are alive are asked to ping, never ourselves', () => {
  for (let seed = 1; seed <= 10; seed++) {
    const rig = new Rig({ seed, others: ['a', 'b', 'c', 'd'] });
    for (const node of ['b', 'c', 'd']) rig.answering.add(node);
    rig.take(suspect('b'));
    rig.take(dead('c'));
    untilIndirect(rig);
    assert.deepEqual(
      packetsWith(rig, 'indirectPing').map(({ node }) => node),
      ['d'],
    );
  }
});

test('util.go makeCompoundMessages: a packet has at most 255 messages', () => {
  const rig = new Rig({ others: ['a'] });
  rig.run(2_000);
  for (let i = 0; i < 300; i++) rig.delegate.waiting.push(Uint8Array.of(1));
  rig.run(3_000);
  assert.equal(Math.max(...rig.port.packets.map(({ messages }) => messages.length)), 255);
  assert.equal(
    packetsWith(rig, 'user').flatMap(({ messages }) => messages.filter(({ kind }) => kind === 'user')).length,
    300,
  );
});

test('state_test.go ProbeNode: an ack in time by way of another is as good, but no measure of the way', () => {
  const rig = new Rig({ others: ['a', 'b'] });
  rig.answering.add('b');
  const ping = untilIndirect(rig);
  rig.take({ kind: 'ack', seq: seqOf(ping), payload: NO_BYTES }, addressOf('b'));
  rig.run(rig.now + 600);
  assert.deepEqual([rig.state('a'), rig.delegate.events.some((event) => event.startsWith('ping a'))], ['alive', false]);
});

test('state_test.go ProbeNode: an ack of another number is none', () => {
  const rig = new Rig({ others: ['a'] });
  const ping = untilIndirect(rig);
  rig.take({ kind: 'ack', seq: seqOf(ping) + 1, payload: NO_BYTES });
  rig.run(rig.now + 500);
  assert.equal(rig.state('a'), 'suspect');
});

for (const [answer, most, streamPings, state] of [
  ['an ack', 5, true, 'alive'],
  ['no ack', 5, true, 'suspect'],
  ['an ack, connections off', 5, false, 'suspect'],
  ['an ack, but the member is of an old protocol', 2, true, 'suspect'],
] as const) {
  test(`state_test.go ProbeNode_FallbackTCP: ${answer} over a connection: ${state}`, () => {
    const rig = new Rig({ profile: { streamPings } });
    rig.take(alive('a', 1, { versions: versionsUpTo(most) }));
    untilIndirect(rig);
    const token = rig.port.streamPings[0]?.token;
    assert.equal(token === undefined, !streamPings || most < 3);
    rig.list.streamPingDone(token ?? 1, answer.startsWith('an'), rig.now);
    rig.run(rig.now + 500);
    assert.deepEqual([rig.state('a'), rig.list.counters.probesStreamOnly], [state, state === 'alive' ? 1 : 0]);
  });
}

for (const [rule, most, nacks, before, after] of [
  ['Awareness_Degraded: all nacks came, so it is not us', 5, 3, 1, 1],
  ['Awareness_MissedNack: one is missing', 5, 2, 0, 1],
  ['Awareness_MissedNack: all are missing', 5, 0, 0, 3],
  ['Awareness_OldProtocol: nobody sends nacks, so a failed probe counts a little', 3, 0, 0, 1],
  ['Awareness: more nacks than were asked for are not counted', 5, 9, 1, 1],
] as const) {
  test(`state_test.go ProbeNode_${rule}: ${before} becomes ${after}`, () => {
    const rig = new Rig();
    for (const node of ['a', 'b', 'c', 'd']) rig.take(alive(node, 1, { versions: versionsUpTo(most) }));
    if (before > 0) rig.take(suspect('self', 1));
    assert.equal(rig.list.health, before);
    // Only `a` is probed: the others' pings would count too.
    rig.run(20_000, () => packetsWith(rig, 'ping').length > 0);
    const [ping] = packetsWith(rig, 'ping');
    assert.ok(ping !== undefined);
    rig.run(rig.now + 500);
    for (let i = 0; i < nacks; i++) rig.take({ kind: 'nack', seq: seqOf(ping) });
    // Degraded: it has twice the interval.
    rig.run(rig.now + 499);
    assert.equal(rig.state(ping.node), 'alive');
    rig.run(rig.now + (before === 0 ? 1 : 500));
    assert.equal(rig.state(ping.node), before === 0 ? 'suspect' : 'alive');
    rig.run(rig.now + 501);
    assert.deepEqual([rig.state(ping.node), rig.list.health], ['suspect', after]);
  });
}

test('state_test.go ProbeNode_Awareness_Improved: an ack makes us better', () => {
  const rig = new Rig({ others: ['a'] });
  rig.take(suspect('self', 1));
  rig.answering.add('a');
  assert.equal(rig.list.health, 1);
  rig.run(2_100);
  assert.equal(rig.list.health, 0);
});

test('state_test.go ProbeNode_Buddy: who is suspected is told so with the ping', () => {
  const rig = new Rig({ others: ['a', 'b'] });
  rig.take(suspect('a'));
  rig.run(3_000, () => packetsWith(rig, 'ping').some(({ node }) => node === 'a'));
  const ping = packetsWith(rig, 'ping').find(({ node }) => node === 'a');
  assert.deepEqual(
    ping?.messages.map(({ kind }) => kind),
    ['ping', 'suspect'],
  );
});

test('state_test.go ResetNodes: who is dead or left is forgotten when a round begins after the time', () => {
  const rig = new Rig({ others: ['a', 'b', 'c'] });
  rig.answering.add('c');
  rig.take(dead('a'));
  rig.take(dead('b', 1, 'b'));
  rig.run(29_000);
  assert.deepEqual([rig.state('a'), rig.state('b')], ['dead', 'left']);
  rig.run(33_000);
  assert.deepEqual([rig.state('a'), rig.state('b'), rig.list.counters.forgotten], [undefined, undefined, 2]);
});

test('net.go handlePing: a ping to us is acked to where it says it comes from; one for another is not', () => {
  const rig = new Rig();
  rig.take({ kind: 'ping', seq: 7, node: 'self', source: { address: addressOf('a'), node: 'a' } }, addressOf('b'));
  rig.take({ kind: 'ping', seq: 8, node: '', source: null }, addressOf('b'));
  rig.take({ kind: 'ping', seq: 9, node: 'other', source: null }, addressOf('b'));
  const acks = packetsWith(rig, 'ack').map(({ to, node, messages }) => [to, node, messages[0]]);
  assert.deepEqual(acks, [
    [addressOf('a'), 'a', { kind: 'ack', seq: 7, payload: NO_BYTES }],
    [addressOf('b'), '', { kind: 'ack', seq: 8, payload: NO_BYTES }],
  ]);
  assert.deepEqual(
    ['self', '', 'other'].map((node) => rig.list.onStreamPing(node)),
    [true, true, false],
  );
});

for (const isAcked of [true, false]) {
  test(`net.go handleIndirectPing: we ping for another and send ${isAcked ? 'the ack' : 'a nack in time'}`, () => {
    const rig = new Rig();
    const source = { address: addressOf('a'), node: 'a' };
    rig.take({ kind: 'indirectPing', seq: 70, target: addressOf('b'), node: 'b', nack: true, source }, addressOf('c'));
    const [ping] = packetsWith(rig, 'ping');
    assert.ok(ping !== undefined && ping.node === 'b');
    if (isAcked) rig.take({ kind: 'ack', seq: seqOf(ping), payload: Uint8Array.of(1) }, addressOf('b'));
    rig.run(499);
    assert.equal(packetsWith(rig, 'nack').length, 0);
    rig.run(1_000);
    const answers = [...packetsWith(rig, 'ack'), ...packetsWith(rig, 'nack')];
    const expected = isAcked ? { kind: 'ack', seq: 70, payload: NO_BYTES } : { kind: 'nack', seq: 70 };
    assert.deepEqual(
      answers.map(({ to, node, messages }) => [to, node, messages[0]]),
      [[addressOf('a'), 'a', expected]],
    );
  });
}

test('net.go handleIndirectPing: who does not know nacks gets none', () => {
  const rig = new Rig();
  rig.take(
    { kind: 'indirectPing', seq: 70, target: addressOf('b'), node: 'b', nack: false, source: null },
    addressOf('c'),
  );
  rig.run(1_000);
  assert.equal(packetsWith(rig, 'nack').length, 0);
});

test('[G7] pings on behalf of others are bounded, and their room is free again', () => {
  const rig = new Rig();
  const ask = (seq: number): void =>
    rig.take(
      { kind: 'indirectPing', seq, target: addressOf('b'), node: 'b', nack: true, source: null },
      addressOf('c'),
    );
  for (let seq = 0; seq < 10 * RELAYS_MAX; seq++) ask(seq);
  assert.deepEqual([packetsWith(rig, 'ping').length, rig.list.counters.relaysRefused], [RELAYS_MAX, 9 * RELAYS_MAX]);
  rig.run(600);
  assert.equal(packetsWith(rig, 'nack').length, RELAYS_MAX);
  ask(1);
  assert.equal(packetsWith(rig, 'ping').length, RELAYS_MAX + 1);
});

test('state_test.go Gossip, GossipToDead: news goes to 3 others at a time, the newly dead among them, never to who left', () => {
  const rig = new Rig({
    others: ['a', 'b', 'c'],
    profile: { probeIntervalMs: 60_000, probeTimeoutMs: 500, gossipToTheDeadMs: 1_000 },
  });
  rig.take(dead('a'));
  rig.take(dead('b', 1, 'b'));
  rig.run(200);
  assert.deepEqual(new Set(rig.port.packets.map(({ node }) => node)), new Set(['a', 'c']));
  rig.run(2_000);
  const before = rig.port.packets.length;
  for (let i = 0; i < 20; i++) rig.take(alive('c', 2 + i, { meta: Uint8Array.of(i) }));
  rig.run(4_000);
  assert.deepEqual(new Set(rig.port.packets.slice(before).map(({ node }) => node)), new Set(['c']));
});

test('state.go gossip: news is sent 4 times for each power of ten of members, then no more', () => {
  const rig = new Rig({ others: ['a', 'b'] });
  for (const node of ['a', 'b']) rig.answering.add(node);
  rig.run(5_000);
  assert.equal(rig.said('a').length, 4);
  const before = rig.port.packets.length;
  rig.run(8_000);
  assert.ok(
    rig.port.packets.slice(before).every(({ messages }) => messages.length === 1 && messages[0]?.kind === 'ping'),
  );
});

test('net.go sendMsg: news rides on pings and acks, and packets keep to their size with what encryption adds', () => {
  const overheadBytes = 100;
  const rig = new Rig({ options: { overheadBytes } });
  for (let i = 0; i < 300; i++) {
    rig.take(alive(`n${i}`, 1, { meta: new Uint8Array(i % 200) }));
    rig.delegate.waiting.push(new Uint8Array((i * 7) % 300));
    rig.take({ kind: 'ping', seq: i, node: '', source: { node: 'n0', address: addressOf('n0') } }, addressOf('n0'));
  }
  rig.run(3_000);
  assert.ok(rig.port.packets.every(({ bytes }) => bytes <= PACKET_BYTES - overheadBytes));
  assert.ok(packetsWith(rig, 'ack').some(({ messages }) => messages.length > 1));
  assert.ok(packetsWith(rig, 'user').length > 0);
  const fullest = Math.max(...rig.port.packets.map(({ bytes }) => bytes));
  assert.ok(fullest > PACKET_BYTES - overheadBytes - 200, `the fullest has ${fullest} bytes`);
});

test('[G6] strangers are answered and told nothing else: their pings use no news up, and what they forge comes back no larger', () => {
  const rig = new Rig({ others: ['a'] });
  rig.take(alive('b'));
  const sources = [null, { node: 'z', address: addressOf('z') }, { node: 'a', address: addressOf('z') }];
  for (let seq = 0; seq < 300; seq++) {
    for (const source of sources) rig.take({ kind: 'ping', seq, node: '', source }, addressOf('z'));
  }
  const acks = packetsWith(rig, 'ack');
  assert.equal(acks.length, 900);
  assert.ok(acks.every(({ messages }) => messages.length === 1));
  rig.run(1_000);
  assert.ok(packetsWith(rig, 'alive').some(({ node }) => node === 'a'));
});

test('memberlist.go SendBestEffort: a message of the delegate to one member, if it fits', () => {
  const rig = new Rig({ others: ['a'] });
  assert.deepEqual(
    [
      rig.list.sendUser('a', Uint8Array.of(1)),
      rig.list.sendUser('b', NO_BYTES),
      rig.list.sendUser('a', new Uint8Array(1_400)),
    ],
    [true, false, false],
  );
  assert.equal(rig.list.sendUserTo(addressOf('z'), '', Uint8Array.of(2)), true);
  assert.deepEqual(
    rig.port.packets.map(({ node, to }) => [node, to]),
    [
      ['a', addressOf('a')],
      ['', addressOf('z')],
    ],
  );
  rig.take({ kind: 'user', payload: Buffer.from('hello') });
  assert.deepEqual(rig.delegate.events, ['user hello']);
});

test('the delegate keeps to the room it is given, or that is a defect', () => {
  const rig = new Rig({ others: ['a'] });
  rig.delegate.broadcasts = () => [new Uint8Array(1_400)];
  assert.throws(() => rig.run(1_000), /keeps to the limit/);
});

test('state_test.go PushPull: everything is exchanged with a live member at the interval', () => {
  const rig = new Rig({ others: ['a', 'b', 'c'], profile: { pushPullIntervalMs: 30_000, gossipToTheDeadMs: 600_000 } });
  rig.answering.add('a');
  rig.take(dead('b'));
  rig.take(dead('c', 1, 'c'));
  rig.run(120_000);
  assert.ok(rig.port.pushPulls.length >= 3 && rig.port.pushPulls.length <= 4, String(rig.port.pushPulls.length));
  assert.ok(rig.port.pushPulls.every(({ node, state }) => node === 'a' && state?.join === false));
});

test('util.go pushPullScale: of 40 members an exchange comes half as often', () => {
  const others = Array.from({ length: 39 }, (_, i) => `a${i}`);
  const rig = new Rig({ others, profile: { pushPullIntervalMs: 10_000 } });
  for (const node of others) rig.answering.add(node);
  rig.run(200_000);
  assert.ok(rig.port.pushPulls.length >= 8 && rig.port.pushPulls.length <= 11, String(rig.port.pushPulls.length));
});

test('state.go nextSeqNo: pings are numbered from anywhere, up to 2^32 - 1 and on from 1', () => {
  const firsts = [1, 2, 3].map((seed) => {
    const rig = new Rig({ seed, others: ['a'] });
    rig.run(2_000);
    return seqOf(packetsWith(rig, 'ping')[0] as Packet);
  });
  assert.equal(new Set(firsts).size, 3);
  const rig = new Rig({ others: ['a'], lastOf: true });
  rig.answering.add('a');
  rig.run(4_000);
  assert.deepEqual(packetsWith(rig, 'ping').map(seqOf).slice(0, 3), [0xffff_ffff, 1, 2]);
});

test('memberlist.go Join: asks each, merges what they know, counts who failed or was refused', () => {
  const rig = new Rig();
  const seeds = ['a', 'b', 'c'].map(addressOf);
  rig.list.join(seeds, 0);
  assert.deepEqual([rig.list.joinsPending, rig.port.pushPulls.map(({ to }) => to)], [3, seeds]);
  assert.ok(rig.port.pushPulls.every(({ state }) => state?.join === true && state.nodes[0]?.node === 'self'));
  const [first, second, third] = rig.port.pushPulls.map(({ token }) => token) as [number, number, number];
  const state = {
    node: 'a',
    address: addressOf('a'),
    meta: NO_BYTES,
    incarnation: 4,
    state: 'alive',
    versions: VERSIONS,
  } as const;
  rig.list.pushPullDone(first, { join: false, nodes: [state], userState: Uint8Array.of(1) }, 10);
  rig.list.pushPullDone(second, null, 10);
  rig.delegate.mergeFault = 'another cluster';
  rig.list.pushPullDone(third, { join: false, nodes: [{ ...state, node: 'b' }], userState: Uint8Array.of(2) }, 10);
  rig.list.pushPullDone(third, null, 10);
  const { joinsDone, joinsFailed, pushPullsFailed } = rig.list.counters;
  assert.deepEqual([rig.list.joinsPending, joinsDone, joinsFailed, pushPullsFailed], [0, 1, 2, 2]);
  assert.deepEqual(
    [rig.view('a'), rig.view('b'), rig.delegate.merged],
    ['alive@4', 'unknown', [[Uint8Array.of(1), true]]],
  );
});

test('net.go mergeRemoteState: who joins from another cluster is refused with the reason, and nothing is merged', () => {
  const rig = new Rig();
  rig.delegate.mergeFault = 'another cluster';
  const nodes = [
    { node: 'a', address: addressOf('a'), meta: NO_BYTES, incarnation: 4, state: 'alive', versions: VERSIONS } as const,
  ];
  assert.equal(rig.list.onPushPull({ join: true, nodes, userState: Uint8Array.of(1) }, 0), 'another cluster');
  assert.deepEqual([rig.view('a'), rig.delegate.merged], ['unknown', []]);
});

test('[G7] a join that never ends, or too many at once, fail; so does a state of too many nodes', () => {
  const rig = new Rig({ options: { membersMax: 8 } });
  rig.list.join(
    Array.from({ length: 100 }, () => addressOf('a')),
    0,
  );
  assert.deepEqual([rig.port.pushPulls.length, rig.list.counters.joinsFailed], [64, 36]);
  rig.run(30_000);
  assert.deepEqual([rig.list.joinsPending, rig.list.counters.joinsFailed], [0, 100]);
  const state = {
    node: 'a',
    address: addressOf('a'),
    meta: NO_BYTES,
    incarnation: 4,
    state: 'alive',
    versions: VERSIONS,
  } as const;
  const answer = rig.list.onPushPull(
    { join: true, nodes: Array.from({ length: 17 }, () => state), userState: NO_BYTES },
    rig.now,
  );
  assert.equal(answer, 'more than 16 nodes');
});
