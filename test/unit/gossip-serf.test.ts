/** Serf as a whole: push/pull, leaving, names, clusters, coordinates; after hashicorp/serf serf/delegate_test.go, serf_test.go (v0.11.0). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Prng } from '../../src/base/prng.ts';
import { OWN_COORDINATE } from '../../src/gossip/serf/coordinates.ts';
import { STATE_BYTES_MAX } from '../../src/gossip/serf/limits.ts';
import type { Coordinate, SerfMessage, SerfState } from '../../src/gossip/serf/messages.ts';
import { Serf, whyNotTags } from '../../src/gossip/serf/serf.ts';
import type { AliveMessage, NodeState } from '../../src/gossip/types.ts';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';
import { addressOf, memberOf, NO_BYTES, queryOf, Rig, text } from './gossip-serf-rig.ts';

function stateOf(rig: Rig): SerfState {
  const state = serfCodec.decode(rig.serf.localState(false, rig.now));
  assert.ok(state?.kind === 'pushPull');
  return state;
}

function merge(rig: Rig, change: Partial<SerfState>): void {
  const empty: SerfState = {
    kind: 'pushPull',
    time: 0,
    statusTimes: new Map(),
    leftMembers: [],
    eventTime: 0,
    events: [],
    queryTime: 0,
  };
  rig.serf.mergeState(serfCodec.encode({ ...empty, ...change }), false, rig.now);
}

test('delegate.go LocalState: clocks, status times, who left, recent events', () => {
  const rig = new Rig({ others: ['b2', 'c3'] });
  rig.hear({ kind: 'leave', time: 7, node: 'c3', prune: false });
  rig.serf.onLeave(memberOf('c3', { state: 'left' }), rig.now);
  rig.serf.event('deploy', text('1'), { coalesce: false }, rig.now);
  rig.hear(queryOf({ time: 9 }));
  assert.deepEqual(stateOf(rig), {
    kind: 'pushPull',
    time: 8,
    statusTimes: new Map([
      ['a1', 0],
      ['b2', 0],
      ['c3', 7],
    ]),
    leftMembers: ['c3'],
    eventTime: 2,
    events: [{ time: 1, events: [{ name: 'deploy', payload: text('1') }] }],
    queryTime: 10,
  });
});

test('delegate.go MergeRemoteState: clocks are witnessed, less 1, since nothing of that time has been said', () => {
  const rig = new Rig();
  merge(rig, { time: 42, eventTime: 50, queryTime: 100 });
  const { memberTime, eventTime, queryTime } = rig.serf.statistics;
  assert.deepEqual([memberTime, eventTime, queryTime], [42, 50, 100]);
});

test('delegate.go MergeRemoteState: who left is left before the times of others rise', () => {
  const rig = new Rig({ others: ['b2', 'c3'] });
  rig.serf.onLeave(memberOf('b2', { state: 'dead' }), rig.now);
  rig.takeEvents();
  merge(rig, {
    time: 42,
    statusTimes: new Map([
      ['b2', 20],
      ['c3', 15],
    ]),
    leftMembers: ['b2', 'unknown'],
  });
  assert.equal(rig.status('b2'), 'left');
  assert.equal(rig.serf.member('b2')?.statusTime, 21, 'one after its join: when it left is not told');
  assert.equal(rig.serf.member('c3')?.statusTime, 15);
  assert.deepEqual(rig.takeEvents(), ['memberLeave b2']);
  assert.deepEqual(rig.gossipAll(), [], 'a push/pull is not gossiped on');
});

test('delegate.go MergeRemoteState: a state of the past that has this node left is refuted', () => {
  const rig = new Rig({ others: ['b2'] });
  merge(rig, { time: 30, statusTimes: new Map([['a1', 25]]), leftMembers: ['a1'] });
  assert.equal(rig.status('a1'), 'alive');
  assert.deepEqual(rig.gossip(), [{ kind: 'join', time: 30, node: 'a1' }]);
});

test('serf.go Join: who has joined says so, with the time that it learned', () => {
  const rig = new Rig();
  assert.equal(rig.serf.join([addressOf('b2')], { ignoresOldEvents: false }, rig.now), null);
  assert.deepEqual(rig.list.calls, ['join 10.0.0.2']);
  const state = serfCodec.encode({ ...stateOf(rig), time: 40 });
  rig.serf.mergeState(state, true, rig.now);
  assert.deepEqual(rig.gossip(), [{ kind: 'join', time: 40, node: 'a1' }]);
  rig.list.joinsPending = 0;
  assert.ok(rig.serf.nextAt <= rig.now);
  rig.serf.tick(rig.now);
  assert.ok(rig.serf.nextAt > rig.now, 'the join is over, and nothing is due');
});

test('[G7] a state that cannot be read, is too large or is no state changes nothing', () => {
  const rig = new Rig();
  rig.serf.mergeState(NO_BYTES, false, rig.now);
  rig.serf.mergeState(serfCodec.encode({ kind: 'join', time: 99, node: 'a1' }), false, rig.now);
  rig.serf.mergeState(
    Buffer.concat([serfCodec.encode({ ...stateOf(rig), time: 99 }), Buffer.alloc(STATE_BYTES_MAX)]),
    false,
    rig.now,
  );
  assert.equal(rig.serf.statistics.refused, 3);
  assert.equal(rig.serf.statistics.memberTime, 1);
});

test('serf.go Leave: the intent goes round, then memberlist leaves, then others have a second to hear of it', () => {
  const rig = new Rig({ others: ['b2'] });
  rig.serf.leave(rig.now);
  assert.equal(rig.status('a1'), 'leaving');
  assert.deepEqual(rig.list.calls, []);
  assert.deepEqual(rig.gossipAll().at(0), { kind: 'leave', time: 1, node: 'a1', prune: false });
  assert.deepEqual(rig.list.calls, [], 'not inside a call of memberlist');
  rig.pass(0);
  assert.deepEqual(rig.list.calls, ['leave']);
  rig.serf.onLeave(memberOf('a1', { state: 'left' }), rig.now);
  assert.equal(rig.status('a1'), 'left');
  rig.list.isLeaveSpread = true;
  rig.pass(999);
  assert.equal(rig.serf.state, 'leaving');
  rig.pass(1);
  assert.equal(rig.serf.state, 'left');
  assert.deepEqual(rig.takeEvents(), ['memberLeave a1', 'left']);
  rig.serf.leave(rig.now);
  rig.pass(60_000);
  assert.deepEqual(rig.list.calls, ['leave'], 'once');
});

test('serf.go Leave: with nobody to hear the intent, or nobody who gossips it, it goes on all the same', () => {
  const alone = new Rig();
  alone.serf.leave(alone.now);
  assert.deepEqual(alone.list.calls, ['leave']);
  const unheard = new Rig({ others: ['b2'] });
  unheard.serf.leave(unheard.now);
  unheard.pass(4_999);
  assert.deepEqual(unheard.list.calls, []);
  unheard.pass(1);
  assert.deepEqual(unheard.list.calls, ['leave']);
  unheard.pass(6_000);
  assert.equal(unheard.serf.state, 'left');
});

test('a node that leaves does not refute it, joins nobody and does not reconnect', () => {
  const rig = new Rig({ others: ['b2', 'c3'] });
  rig.serf.onLeave(memberOf('c3', { state: 'dead' }), rig.now);
  rig.serf.leave(rig.now);
  rig.gossipAll();
  rig.hear({ kind: 'leave', time: 50, node: 'a1', prune: true });
  assert.equal(rig.gossip().at(0)?.kind, 'leave');
  assert.equal(rig.serf.join([], { ignoresOldEvents: false }, rig.now), 'NOT_ALIVE');
  assert.equal(rig.serf.forceLeave('c3', { prune: false }, rig.now), 'NOT_ALIVE');
  rig.pass(120_000);
  assert.deepEqual(rig.list.calls, ['leave']);
  assert.equal(rig.status('a1'), 'leaving', 'never pruned');
});

test('serf.go forceLeave: a failed member is called left, for everybody; of this node it is refuted', () => {
  const rig = new Rig({ others: ['b2', 'c3'] });
  rig.serf.onLeave(memberOf('c3', { state: 'dead' }), rig.now);
  assert.equal(rig.serf.forceLeave('c3', { prune: false }, rig.now), null);
  assert.equal(rig.status('c3'), 'left');
  assert.deepEqual(rig.gossipAll().at(0), { kind: 'leave', time: 1, node: 'c3', prune: false });
  rig.serf.forceLeave('a1', { prune: true }, rig.now);
  assert.equal(rig.status('a1'), 'alive');
});

test('serf.go reconnect: failed members are tried, each about once in thirty seconds by the whole cluster', () => {
  const rig = new Rig({ others: ['b2', 'c3', 'd4'] });
  for (const node of ['c3', 'd4']) rig.serf.onLeave(memberOf(node, { state: 'dead' }), rig.now);
  rig.pass(30_000 * 1_000);
  const tries = rig.list.calls.length;
  // Two failed, two alive: this node alone would try one at each interval.
  assert.equal(tries, 1_000);
  const large = new Rig({ others: ['b2', ...Array.from({ length: 18 }, (_, i) => `n${i}`)] });
  large.serf.onLeave(memberOf('b2', { state: 'dead' }), large.now);
  large.pass(30_000 * 1_000);
  // One failed, nineteen alive: one in nineteen.
  assert.ok(large.list.calls.length > 25 && large.list.calls.length < 90, `${large.list.calls.length} tries`);
  assert.ok(large.list.calls.every((call) => call === 'join 10.0.0.2'));
});

test('serf.go SetTags: new tags are memberlist’s meta; more than 512 bytes of them are refused', () => {
  const rig = new Rig({ tags: new Map([['role', 'broker']]) });
  assert.deepEqual(serfCodec.decodeTags(rig.serf.meta()), new Map([['role', 'broker']]));
  assert.equal(rig.serf.setTags(new Map([['role', 'x'.repeat(600)]]), rig.now), 'TAGS_TOO_LARGE');
  assert.deepEqual(rig.list.calls, []);
  // ff 81 a4 "role" da 2 bytes of length: 10 bytes.
  assert.equal(whyNotTags(serfCodec, new Map([['role', 'x'.repeat(502)]])), null);
  assert.equal(whyNotTags(serfCodec, new Map([['role', 'x'.repeat(503)]])), 'TAGS_TOO_LARGE');
  assert.equal(rig.serf.setTags(new Map([['role', 'web']]), rig.now), null);
  assert.deepEqual(rig.list.calls, ['updateMeta']);
  assert.deepEqual(serfCodec.decodeTags(rig.serf.meta()), new Map([['role', 'web']]));
  assert.deepEqual(rig.serf.tags, new Map([['role', 'web']]));
});

/** Answers to the vote: which address each member knows for a1, null for none. */
const VOTES: readonly (readonly [name: string, answers: readonly (string | null)[], isLost: boolean])[] = [
  ['all know this address', ['10.0.0.1', '10.0.0.1'], false],
  ['one of two', ['10.0.0.1', '10.0.0.99'], true],
  ['two of three', ['10.0.0.1', '10.0.0.99', '10.0.0.1'], false],
  ['in the bytes of IPv6', ['::ffff:10.0.0.1'], false],
  ['nobody knows the name', [null, null], true],
  ['half know nobody', ['10.0.0.1', null], true],
  ['nobody answers', [], true],
];
for (const [name, answers, isLost] of VOTES) {
  test(`[G2] serf.go resolveNodeConflict: ${name}: ${isLost ? 'the name is lost' : 'the name is kept'}`, () => {
    const rig = new Rig({ others: ['b2', 'c3', 'd4'] });
    rig.serf.onConflict(memberOf('a1'), memberOf('a1', { address: addressOf('x99') }), rig.now);
    // A second one meanwhile starts nothing.
    rig.serf.onConflict(memberOf('a1'), memberOf('a1', { address: addressOf('x98') }), rig.now);
    const [query, ...others] = rig.gossip();
    assert.ok(query?.kind === 'query' && others.length === 0);
    assert.deepEqual([query.name, Buffer.from(query.payload).toString()], ['_serf_conflict', 'a1']);
    for (const [i, host] of answers.entries()) {
      const member =
        host === null
          ? null
          : { ...memberOf('a1'), address: { host, port: 7_946 }, tags: new Map(), status: 'alive' as const };
      const payload = serfCodec.encode({ kind: 'conflictResponse', member });
      const { time, id } = query;
      rig.hear({ kind: 'queryResponse', time, id, from: ['b2', 'c3', 'd4'][i] as string, isAck: false, payload });
    }
    rig.pass(query.timeoutMs);
    assert.deepEqual(rig.takeEvents(), isLost ? ['nameConflict', 'nameLost'] : ['nameConflict']);
  });
}

test('[G2] an answer to the vote that is none does not count, nor one of an invented member', () => {
  const rig = new Rig({ others: ['b2'] });
  rig.serf.onConflict(memberOf('a1'), memberOf('a1', { address: addressOf('x99') }), rig.now);
  const [query] = rig.gossip();
  assert.ok(query?.kind === 'query');
  const { time, id } = query;
  const vote = (from: string, payload: Uint8Array): void =>
    rig.hear({ kind: 'queryResponse', time, id, from, isAck: false, payload });
  const against = serfCodec.encode({ kind: 'conflictResponse', member: null });
  for (let i = 0; i < 50; i++) vote(`invented${i}`, against);
  vote(
    'b2',
    serfCodec.encode({ kind: 'conflictResponse', member: { ...memberOf('a1'), tags: new Map(), status: 'alive' } }),
  );
  rig.pass(query.timeoutMs);
  assert.deepEqual(rig.takeEvents(), ['nameConflict']);
});

test('[G2] internal_query.go handleConflict: others are told which address is known for a name; nobody is asked about itself', () => {
  const rig = new Rig({ others: ['a2', 'b3'] });
  const asked = (id: number, name: string): SerfMessage | null | undefined => {
    rig.hear(queryOf({ id, name: '_serf_conflict', payload: text(name) }));
    const [sent] = rig.list.takeSent();
    return sent?.message?.kind === 'queryResponse' ? serfCodec.decode(sent.message.payload) : undefined;
  };
  const known = asked(1, 'b3');
  assert.ok(known?.kind === 'conflictResponse');
  assert.deepEqual([known.member?.node, known.member?.address, known.member?.status], ['b3', addressOf('b3'), 'alive']);
  assert.deepEqual(asked(2, 'nobody'), { kind: 'conflictResponse', member: null });
  assert.equal(asked(3, 'a1'), undefined);
});

test('[G2] a conflict of others is told, at most once a second, and starts no vote; voting can be switched off', () => {
  const rig = new Rig({ others: ['b2'] });
  for (let i = 0; i < 5; i++)
    rig.serf.onConflict(memberOf('b2'), memberOf('b2', { address: addressOf('x9') }), rig.now);
  assert.deepEqual(rig.takeEvents(), ['nameConflict']);
  assert.deepEqual(rig.gossip(), []);
  const off = new Rig({ others: ['b2'], resolvesNameConflicts: false });
  off.serf.onConflict(memberOf('a1'), memberOf('a1', { address: addressOf('x9') }), off.now);
  assert.deepEqual(off.gossip(), []);
});

/** Tags of this node and of another, and whether it is refused. */
const CLUSTERS: readonly (readonly [own: Record<string, string>, other: Record<string, string>, isRefused: boolean])[] =
  [
    [{ cluster: 'one' }, { cluster: 'one' }, false],
    [{ cluster: 'one' }, { cluster: 'two' }, true],
    [{ cluster: 'one' }, { cluster: '' }, true],
    [{ cluster: 'one' }, { role: 'serf' }, false],
    [{}, { cluster: 'two' }, false],
  ];
for (const [own, other, isRefused] of CLUSTERS) {
  test(`[G2] a node with ${JSON.stringify(own)} ${isRefused ? 'refuses' : 'lets in'} one with ${JSON.stringify(other)}`, () => {
    const rig = new Rig({ tags: new Map(Object.entries(own)) });
    const member = memberOf('b2', {}, other);
    const state: NodeState = member;
    const alive: AliveMessage = { ...member, kind: 'alive' };
    assert.equal(rig.serf.refuseMerge([memberOf('c3'), state]) !== null, isRefused);
    assert.equal(rig.serf.refuseAlive(alive) !== null, isRefused);
    if (isRefused) assert.match(rig.serf.refuseAlive(alive) ?? '', /"b2" is of cluster .*, this one of "one"/);
  });
}

test('an agent of Serf of the oldest kind, whose meta is a role, is let in', () => {
  const rig = new Rig({ tags: new Map([['cluster', 'one']]) });
  assert.equal(rig.serf.refuseAlive({ ...memberOf('b2', { meta: text('web') }), kind: 'alive' }), null);
});

test('ping_delegate.go: acks carry a coordinate at rest; another’s is kept if it is one, until its node is forgotten', () => {
  const rig = new Rig({ others: ['b2'] });
  assert.deepEqual(serfCodec.decodeCoordinate(rig.serf.ackPayload()), OWN_COORDINATE);
  const hear = (coordinate: Coordinate, node = 'b2'): void =>
    rig.serf.onPingDone(memberOf(node), 3, serfCodec.encodeCoordinate(coordinate), rig.now);
  const theirs: Coordinate = { ...OWN_COORDINATE, vector: [1, 2, 3, 4, 5, 6, 7, 8], error: 0.5 };
  hear(theirs);
  assert.deepEqual(rig.serf.coordinate('b2'), theirs);
  for (const one of [Number.NaN, Number.POSITIVE_INFINITY]) {
    hear({ ...OWN_COORDINATE, error: one });
    hear({ ...OWN_COORDINATE, height: one });
    hear({ ...OWN_COORDINATE, adjustment: one });
    hear({ ...OWN_COORDINATE, vector: [0, 0, 0, 0, 0, 0, 0, one] });
  }
  hear({ ...OWN_COORDINATE, vector: [1] });
  rig.serf.onPingDone(memberOf('b2'), 3, NO_BYTES, rig.now);
  assert.equal(rig.serf.statistics.refused, 9);
  hear(theirs, 'stranger');
  assert.equal(rig.serf.coordinate('stranger'), null);
  assert.deepEqual(rig.serf.coordinate('b2'), theirs);
  rig.serf.onLeave(memberOf('b2', { state: 'dead' }), rig.now);
  rig.serf.forceLeave('b2', { prune: true }, rig.now);
  assert.equal(rig.serf.coordinate('b2'), null);
});

test('statistics count members by status, and say what waits', () => {
  const rig = new Rig({ others: ['b2', 'c3', 'd4'] });
  rig.serf.onLeave(memberOf('c3', { state: 'dead' }), rig.now);
  rig.hear({ kind: 'leave', time: 3, node: 'd4', prune: false });
  rig.serf.onLeave(memberOf('d4', { state: 'left' }), rig.now);
  const { members, failed, left, intentQueue, isEncrypted } = rig.serf.statistics;
  assert.deepEqual([members, failed, left, intentQueue, isEncrypted], [4, 1, 1, 1, false]);
});

test('names and tags that cannot be are a defect of who asks for them', () => {
  assert.throws(() => new Rig({ node: '' }), /128 bytes/);
  assert.throws(() => new Rig({ tags: new Map([['a', 'x'.repeat(600)]]) }), /512 bytes/);
});

test('[G7] 20,000 mutated messages, states and coordinates: nothing throws, this node stays alive, ticks do not pile up', () => {
  const number = numbersFrom(42);
  const messages: readonly SerfMessage[] = [
    { kind: 'join', time: 5, node: 'b2' },
    { kind: 'leave', time: 6, node: 'c3', prune: true },
    { kind: 'leave', time: 7, node: 'a1', prune: true },
    { kind: 'userEvent', time: 5, name: 'deploy', payload: text('1'), coalesce: true },
    queryOf({ wantsAck: true, relayFactor: 2, filters: [{ kind: 'tag', tag: 'role', expression: '^(a|b)*$' }] }),
    queryOf({ name: '_serf_conflict', payload: text('b2') }),
    queryOf({ name: '_serf_list-keys' }),
    { kind: 'queryResponse', time: 1, id: 1, from: 'b2', isAck: false, payload: text('x') },
    { kind: 'relay', target: addressOf('a2'), targetNode: 'a2', payload: text('x') },
  ];
  const seeds = messages.map((message) => Buffer.from(serfCodec.encode(message)));
  const rig = new Rig({ others: ['a2', 'b2', 'c3'], userCoalescePeriodMs: 3_000, userQuiescentPeriodMs: 1_000 });
  const state = Buffer.from(rig.serf.localState(false, rig.now));
  for (let i = 0; i < 20_000; i++) {
    const bytes = i % 8 === 0 ? noiseOf(number(80), number) : mutate(seeds[number(seeds.length)] as Buffer, number);
    rig.serf.onUser(bytes, rig.now);
    if (i % 4 === 0) rig.serf.mergeState(mutate(state, number), i % 8 === 0, rig.now);
    if (i % 5 === 0)
      rig.serf.onPingDone(memberOf('b2'), 1, mutate(Buffer.from(rig.serf.ackPayload()), number), rig.now);
    if (i % 50 === 0) rig.pass(200);
    rig.events.length = 0;
    rig.list.sent.length = 0;
  }
  assert.equal(rig.status('a1'), 'alive');
  const { members, intentQueue, eventQueue, queryQueue } = rig.serf.statistics;
  assert.equal(members <= 4, true);
  assert.ok([intentQueue, eventQueue, queryQueue].every((length) => length <= 4_096));
});

test('gossip that is lost and doubled: events, intents and queries reach every node once, and all agree at the end', () => {
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const prng = new Prng(seed);
      const names = ['a1', 'b2', 'c3', 'd4', 'e5'];
      const rigs = names.map(
        (node) => new Rig({ node, seed: seed + node.length, others: names.filter((one) => one !== node) }),
      );
      const nodes = new Map(rigs.map((rig, i) => [names[i] as string, rig]));
      const deliver = (round: number): void => {
        for (const rig of rigs) {
          rig.pass(200);
          const packet = rig.serf.broadcasts(3, 1_400);
          for (let copies = 3; copies > 0; copies--) {
            const to = rigs[prng.nextBelow(rigs.length)] as Rig;
            if (to !== rig && !prng.chance(1, 4)) for (const bytes of packet) to.serf.onUser(bytes, to.now);
          }
          // Push/pull, of which nothing is lost, makes up for what was.
          if (round % 5 === 4) {
            const to = rigs[prng.nextBelow(rigs.length)] as Rig;
            to.serf.mergeState(rig.serf.localState(false, rig.now), false, to.now);
            rig.serf.mergeState(to.serf.localState(false, to.now), false, rig.now);
          }
          for (const { node, payload } of rig.list.sent.splice(0)) nodes.get(node)?.serf.onUser(payload, rig.now);
        }
      };
      const acks = new Set<string>();
      for (let round = 0; round < 60; round++) {
        const rig = rigs[round % rigs.length] as Rig;
        if (round < 20) rig.serf.event(`e${round}`, NO_BYTES, { coalesce: false }, rig.now);
        if (round === 10)
          rig.serf.query(
            { name: 'q', payload: NO_BYTES, wantsAck: true, relayFactor: 2 },
            { onAck: (node) => acks.add(node) },
            rig.now,
          );
        if (round === 15) rig.hear({ kind: 'leave', time: 30, node: 'c3', prune: false });
        deliver(round);
      }
      for (const rig of rigs) {
        const told = rig.events
          .filter(({ kind }) => kind === 'user')
          .map((event) => (event.kind === 'user' ? event.name : ''));
        assert.deepEqual(told.toSorted(), Array.from({ length: 20 }, (_, i) => `e${i}`).toSorted());
        assert.ok(rig.events.filter(({ kind }) => kind === 'query').length <= 1);
        assert.equal(rig.status('c3'), 'alive', 'it has refuted that it leaves');
        assert.equal(rig.serf.statistics.eventTime, rigs[0]?.serf.statistics.eventTime);
      }
      assert.ok(acks.size >= 3, `${acks.size} acks`);
    }),
    { numRuns: 20 },
  );
});

test('a Serf is of use before memberlist is there, but for what needs it', () => {
  const port = { ...serfCodec, keyring: null, random: () => 0, onEvent: () => undefined };
  const serf = new Serf({ node: 'a1', tags: new Map() }, port, 0);
  serf.onJoin(memberOf('a1'), 0);
  serf.onUser(serfCodec.encode(queryOf({ wantsAck: true })), 0);
  assert.deepEqual(serf.query({ name: 'q', payload: NO_BYTES }, {}, 0), { refusal: 'NOT_ALIVE' });
});
