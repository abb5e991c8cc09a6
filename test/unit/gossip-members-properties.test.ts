import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { compareIncarnations, INCARNATION_MAX } from '../../src/gossip/members/incarnation.ts';
import { PACKET_BYTES, type PacketMessage } from '../../src/gossip/types.ts';
import { MemberNet } from './gossip-members-net.ts';
import { addressOf, alive, dead, NO_BYTES, Rig, stateOf, suspect } from './gossip-members-rig.ts';

const NAMES = ['a', 'b', 'c', 'd', 'e', 'f', 'self', 'x', ''];
const name = fc.constantFrom(...NAMES);
const incarnation = fc.oneof(
  fc.nat(6),
  fc.constantFrom(INCARNATION_MAX, INCARNATION_MAX - 1, 0x3fff_ffff, 0xc000_0000),
);
const bytes = fc.uint8Array({ maxLength: 30 });
const kind = fc.constantFrom('alive', 'suspect', 'dead', 'left');

/** About `a`, at one address. */
const verdict = fc.record({ kind, incarnation: fc.integer({ min: 1, max: 6 }), from: fc.constantFrom('x', 'y', 'z') });

type Verdict = typeof verdict extends fc.Arbitrary<infer V> ? V : never;

function messageOf({ kind: state, incarnation: number, from }: Verdict): PacketMessage {
  if (state === 'alive') return alive('a', number);
  if (state === 'suspect') return suspect('a', number, from);
  return dead('a', number, state === 'left' ? 'a' : from);
}

const shuffled = fc
  .array(verdict, { minLength: 1, maxLength: 12 })
  .chain((list) =>
    fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length, maxLength: list.length })),
  );

test('state.go: in whatever order alive, suspect and dead come, the newest incarnation decides, and of one incarnation the worst', () => {
  fc.assert(
    fc.property(shuffled, ([list, other]) => {
      const newest = Math.max(1, ...list.map((each) => each.incarnation));
      const kinds = new Set(list.filter((each) => each.incarnation === newest).map((each) => each.kind));
      for (const order of [list, other]) {
        const rig = new Rig({ others: ['a', 'b'] });
        let last = 1;
        for (const each of order) {
          rig.take(messageOf(each));
          const known = rig.list.get('a')?.incarnation ?? 0;
          assert.ok(known >= last, 'an incarnation never goes back');
          last = known;
        }
        const state = rig.state('a');
        if (kinds.has('dead') || kinds.has('left')) {
          assert.ok((state === 'dead' || state === 'left') && last === newest);
        } else if (!kinds.has('suspect') && kinds.has('alive')) {
          assert.deepEqual([state, last], ['alive', newest]);
        } else if (!list.some((each) => each.kind === 'dead' || each.kind === 'left') && kinds.has('suspect')) {
          assert.deepEqual([state, last], ['suspect', newest]);
        }
        rig.take(alive('a', newest + 1));
        assert.equal(rig.view('a'), `alive@${newest + 1}`, 'a refutation ends it');
      }
    }),
  );
});

test('state.go: two that heard the same in another order agree after a refutation and an exchange, and the same again changes nothing', () => {
  fc.assert(
    fc.property(shuffled, ([list, other]) => {
      const rigs = [list, other].map((order) => {
        const rig = new Rig({ others: ['a', 'b'] });
        for (const each of [...order, ...order]) rig.take(messageOf(each));
        return rig;
      });
      const [one, two] = rigs as [Rig, Rig];
      one.take(alive('a', 7));
      const state = { join: false, nodes: one.list.members.filter(({ node }) => node !== 'self'), userState: NO_BYTES };
      assert.ok(typeof two.list.onPushPull(state, 0) !== 'string');
      assert.deepEqual([one.view('a'), two.view('a')], ['alive@7', 'alive@7']);
    }),
  );
});

const message: fc.Arbitrary<PacketMessage> = fc.oneof(
  fc.record({ node: name, incarnation, meta: bytes, port: fc.nat(3) }).map(({ node, port, ...rest }): PacketMessage => {
    return { ...alive(node, rest.incarnation, { meta: rest.meta }), address: { host: '10.0.0.9', port } };
  }),
  fc.tuple(name, incarnation).map(([node, number]) => alive(node === '' ? 'g' : node, number)),
  fc.tuple(name, incarnation, name).map(([node, number, from]) => suspect(node, number, from)),
  fc.tuple(name, incarnation, name).map(([node, number, from]) => dead(node, number, from)),
  fc.record({ kind: fc.constant('ping' as const), seq: fc.nat(9), node: name, source: fc.constant(null) }),
  fc.record({ kind: fc.constant('ack' as const), seq: fc.nat(9), payload: bytes }),
  fc.record({ kind: fc.constant('nack' as const), seq: fc.nat(9) }),
  fc.record({ kind: fc.constant('user' as const), payload: bytes }),
  fc.record({
    kind: fc.constant('indirectPing' as const),
    seq: fc.nat(9),
    target: fc.constant(addressOf('b')),
    node: name,
    nack: fc.boolean(),
    source: fc.constant(null),
  }),
);

const step = fc.oneof(
  { arbitrary: message, weight: 8 },
  {
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.oneof(fc.nat(700), fc.nat(20_000)) }),
    weight: 3,
  },
  {
    arbitrary: fc.record({
      kind: fc.constant('pushPull' as const),
      join: fc.boolean(),
      nodes: fc.array(
        fc
          .tuple(name, incarnation, fc.constantFrom('alive', 'suspect', 'dead', 'left'))
          .map(([node, number, state]) => stateOf(node, state, number)),
        { maxLength: 6 },
      ),
    }),
    weight: 1,
  },
  {
    arbitrary: fc.record({ kind: fc.constant('streamPingDone' as const), token: fc.nat(50), isAcked: fc.boolean() }),
    weight: 1,
  },
  {
    arbitrary: fc.constantFrom({ kind: 'leave' as const }, { kind: 'updateMeta' as const }, { kind: 'join' as const }),
    weight: 1,
  },
);

test('[G6][G7] whatever comes, in whatever order: we are alive until we leave, nothing grows beyond its limit, no call does unbounded work', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.nat(), (steps, seed) => {
      const membersMax = 5;
      const rig = new Rig({ seed, options: { membersMax }, profile: { pushPullIntervalMs: 3_000 } });
      let own = rig.list.self.incarnation;
      for (const each of steps) {
        const before = rig.port.packets.length;
        let packetsMax = 1;
        switch (each.kind) {
          case 'wait':
            rig.now += each.ms;
            rig.list.tick(rig.now);
            assert.ok(rig.list.nextAt > rig.now && rig.list.nextAt <= rig.now + 200, 'it is not called again at once');
            // A probe of 1 and 3, a round of gossip, and nacks that were asked for before.
            packetsMax = 4 + 3 + steps.length;
            break;
          case 'pushPull':
            rig.list.onPushPull({ join: each.join, nodes: each.nodes, userState: NO_BYTES }, rig.now);
            packetsMax = 0;
            break;
          case 'streamPingDone':
            rig.list.streamPingDone(each.token, each.isAcked, rig.now);
            break;
          case 'leave':
            rig.list.leave(rig.now);
            break;
          case 'updateMeta':
            rig.list.updateMeta(rig.now);
            break;
          case 'join':
            rig.list.join([addressOf('a')], rig.now);
            break;
          default:
            rig.take(each);
        }
        assert.ok(rig.port.packets.length - before <= packetsMax);
        assert.ok(rig.list.members.length <= membersMax && rig.list.joinsPending <= 64);
        const { state, incarnation: now } = rig.list.self;
        assert.equal(state, rig.list.hasLeft ? 'left' : 'alive');
        // Of two jumps at once the second may go around.
        if (each.kind !== 'pushPull') assert.ok(compareIncarnations(now, own) >= 0, 'our incarnation never goes back');
        own = now;
        const present = rig.list.members.filter((member) => member.state === 'alive' || member.state === 'suspect');
        assert.equal(rig.list.aliveCount, present.length);
      }
      assert.ok(rig.port.packets.every(({ bytes: size }) => size <= PACKET_BYTES));
    }),
  );
});

test('joining, leaving and failing are told in turn: nobody joins twice or leaves without having joined', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), fc.nat(), (steps, seed) => {
      const rig = new Rig({ seed });
      const present = new Set<string>(['self']);
      let told = 0;
      for (const each of steps) {
        if (each.kind === 'wait') rig.run(rig.now + each.ms);
        else if (each.kind === 'pushPull') rig.list.onPushPull({ ...each, userState: NO_BYTES }, rig.now);
        else if ('seq' in each || 'node' in each) rig.take(each);
        for (; told < rig.delegate.events.length; told++) {
          const [event, node] = (rig.delegate.events[told] as string).split(' ') as [string, string];
          if (event === 'join') assert.ok(!present.has(node) && present.add(node));
          if (event === 'dead' || event === 'left') assert.ok(present.delete(node));
          if (event === 'update') assert.ok(present.has(node));
        }
      }
      assert.equal(rig.list.aliveCount, present.size);
    }),
  );
});

test('a cluster with lost packets, a death and a leave agrees on everybody', () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 0, max: 200 }), (seed, lossPerMille) => {
      const net = new MemberNet(['a', 'b', 'c', 'd', 'e', 'f'], { seed, lossPerMille });
      net.run(20_000);
      net.node('b').isDown = true;
      net.node('c').list.leave(net.now);
      net.run(60_000);
      net.node('c').isDown = true;
      net.run(240_000);
      for (const node of ['a', 'd', 'e', 'f']) {
        const { list } = net.node(node);
        const known = list.members
          .filter(({ state }) => state === 'alive' || state === 'suspect')
          .map((member) => member.node);
        assert.deepEqual(known.toSorted(), ['a', 'd', 'e', 'f'], `seen by ${node}`);
        const { events } = net.node(node).delegate;
        // With many packets lost it may not have heard of `c` before that left.
        assert.ok(!events.includes('join c') || events.includes('left c') || events.includes('dead c'));
      }
    }),
    { numRuns: 15 },
  );
});
