import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemberNet } from './gossip-members-net.ts';
import { addressOf, alive, NO_BYTES, Rig, suspect } from './gossip-members-rig.ts';

/** No gossip target answers, nothing is probed on its own but `a`. */
function suspecting(isOwn: boolean): Rig {
  const rig = new Rig({ others: ['a', 'b'] });
  rig.answering.add('b');
  if (!isOwn) {
    rig.answering.add('a');
    rig.run(1_000);
    rig.take(suspect('a', 1, 'b'));
  } else {
    rig.run(20_000, () => rig.state('a') === 'suspect');
  }
  assert.equal(rig.state('a'), 'suspect');
  return rig;
}

for (const isOwn of [true, false]) {
  const whose = isOwn ? 'our own' : 'heard';
  for (const first of ['timers', 'packets']) {
    test(`[G5] 5 s blocked, ${first} first: a suspicion (${whose}) that ran out meanwhile is refuted by the packet that waits`, () => {
      const rig = suspecting(isOwn);
      rig.now += 5_000;
      if (first === 'timers') rig.list.tick(rig.now);
      else rig.take({ kind: 'user', payload: NO_BYTES });
      rig.list.tick(rig.now);
      rig.list.tick(rig.now + 5);
      assert.equal(rig.state('a'), 'suspect');
      rig.take(alive('a', 2));
      assert.equal(rig.view('a'), 'alive@2');
      rig.run(rig.now + 60_000, () => rig.state('a') !== 'alive');
      assert.deepEqual([rig.list.counters.failures, rig.list.counters.pauses], [0, 1]);
    });
  }

  test(`[G5] a suspicion (${whose}) that nobody refutes after a pause ends all the same`, () => {
    const rig = suspecting(isOwn);
    const began = rig.now;
    rig.now += 5_000;
    rig.list.tick(rig.now);
    rig.run(60_000, () => rig.state('a') === 'dead');
    assert.equal(rig.state('a'), 'dead');
    assert.ok(rig.now - began >= 8_000 && rig.now - began <= 9_500, `after ${rig.now - began} ms`);
  });
}

test('[G5] after a pause a suspicion has at least a probe interval, even if it had less left before', () => {
  const rig = suspecting(false);
  rig.run(rig.now + 3_990);
  assert.equal(rig.state('a'), 'suspect');
  rig.now += 1_500;
  const resumed = rig.now;
  rig.list.tick(rig.now);
  rig.run(60_000, () => rig.state('a') === 'dead');
  assert.equal(rig.now - resumed, 1_000);
});

test('[G5] however often we pause, a heard suspicion ends: it is put off by its longest time and no more', () => {
  const rig = suspecting(false);
  const began = rig.now;
  while (rig.state('a') === 'suspect' && rig.now - began < 600_000) {
    rig.now += 2_000;
    rig.list.tick(rig.now);
    rig.run(rig.now + 10);
  }
  assert.equal(rig.state('a'), 'dead');
  // 4 s and 24 s: the least and the longest of three members, to the next call.
  assert.ok(rig.now - began <= 28_000 + 2_010, `after ${rig.now - began} ms`);
});

test('[G5] our own suspicion ends after its time of our running only', () => {
  const rig = suspecting(true);
  let running = 0;
  while (rig.state('a') === 'suspect' && running < 60_000) {
    rig.now += 2_000;
    rig.list.tick(rig.now);
    rig.run(rig.now + 400);
    running += 400;
  }
  assert.equal(rig.state('a'), 'dead');
  assert.ok(running >= 4_000 && running <= 24_000, `after ${running} ms`);
});

test('[G5] a probe whose time ran out in a pause is answered by the ack that waits, which measures nothing', () => {
  const rig = new Rig({ others: ['a'] });
  const pings = (): number[] =>
    rig.port.packets.flatMap(({ messages }) => messages.flatMap((each) => (each.kind === 'ping' ? [each.seq] : [])));
  rig.run(5_000, () => pings().length > 0);
  rig.now += 5_000;
  rig.list.tick(rig.now);
  const [seq] = pings();
  rig.take({ kind: 'ack', seq: seq as number, payload: NO_BYTES }, addressOf('a'));
  assert.deepEqual([rig.state('a'), rig.list.counters.probesFailed, rig.delegate.events], ['alive', 0, []]);
});

test('[G5] a member that does not answer after a pause either is suspected, so pauses do not blind us', () => {
  const rig = new Rig({ others: ['a'] });
  rig.run(5_000, () => rig.list.counters.probes > 0);
  rig.now += 5_000;
  rig.list.tick(rig.now);
  rig.run(rig.now + 1_100);
  assert.equal(rig.state('a'), 'suspect');
});

for (const [lateMs, health] of [
  [900, 0],
  [1_500, 2],
  [5_000, 5],
  [3_600_000, 7],
] as const) {
  test(`[G5] late by ${lateMs} ms we are less well by ${health}, and recover with every ack`, () => {
    const rig = new Rig({ others: ['a', 'b'] });
    rig.answering.add('a').add('b');
    rig.run(2_000);
    rig.now = rig.list.nextAt + lateMs;
    // Gossip is the next that is due, or the pause is a little longer.
    rig.list.tick(rig.now);
    assert.ok(
      Math.abs(rig.list.health - health) <= (health === 0 || health === 7 ? 0 : 1),
      `health ${rig.list.health}`,
    );
    rig.run(rig.now + 20_000);
    assert.equal(rig.list.health, 0);
  });
}

test('[G5] late by less than a probe interval: nobody fails in that call, and only once', () => {
  const rig = suspecting(false);
  rig.run(rig.now + 3_700);
  // The suspicion is over at 4,000 ms, we run again at 4,300.
  rig.now += 600;
  rig.list.tick(rig.now);
  assert.equal(rig.state('a'), 'suspect');
  rig.now += 700;
  rig.list.tick(rig.now);
  assert.deepEqual([rig.state('a'), rig.list.counters.pauses], ['dead', 0]);
});

test('[G5] after a pause there is one probe and one round of gossip, not one for each that was missed', () => {
  const rig = new Rig({ others: ['a', 'b', 'c'] });
  for (const node of ['a', 'b', 'c']) rig.answering.add(node);
  rig.run(5_000);
  rig.take(alive('a', 2, { meta: Uint8Array.of(1) }));
  const [packets, probes] = [rig.port.packets.length, rig.list.counters.probes];
  rig.now += 3_600_000;
  rig.list.tick(rig.now);
  assert.equal(rig.list.counters.probes - probes, 1);
  assert.ok(rig.port.packets.length - packets <= 4);
  assert.ok(rig.list.nextAt > rig.now);
});

test('[G5] late by less than a probe interval: a probe is not over in that call, and the ack that waits counts', () => {
  const rig = new Rig({ others: ['a'] });
  rig.run(5_000, () => rig.list.counters.probes > 0);
  const [ping] = rig.port.packets.flatMap(({ messages }) => messages.filter(({ kind }) => kind === 'ping'));
  assert.ok(ping?.kind === 'ping');
  rig.run(rig.now + 490);
  rig.now += 900;
  rig.list.tick(rig.now);
  assert.deepEqual([rig.state('a'), rig.list.counters.pauses], ['alive', 0]);
  rig.take({ kind: 'ack', seq: ping.seq, payload: NO_BYTES }, addressOf('a'));
  rig.run(rig.now + 300);
  assert.deepEqual([rig.state('a'), rig.list.counters.probesFailed], ['alive', 0]);
});

test('[G5] after a pause we do not say of another that it did not answer us before its ack is read', () => {
  const rig = new Rig();
  rig.run(1_000);
  const source = { address: addressOf('a'), node: 'a' };
  rig.take({ kind: 'indirectPing', seq: 70, target: addressOf('b'), node: 'b', nack: true, source });
  const [ping] = rig.port.packets.flatMap(({ messages }) => messages);
  assert.ok(ping?.kind === 'ping');
  rig.now += 5_000;
  rig.list.tick(rig.now);
  rig.take({ kind: 'ack', seq: ping.seq, payload: NO_BYTES }, addressOf('b'));
  rig.run(rig.now + 1_000);
  const answers = rig.port.packets.flatMap(({ messages }) =>
    messages.filter((each) => each.kind === 'ack' || each.kind === 'nack'),
  );
  assert.deepEqual(answers, [{ kind: 'ack', seq: 70, payload: NO_BYTES }]);
});

test('[G5] after a pause a join is not over before its answer is read', () => {
  const rig = new Rig();
  rig.list.join([addressOf('a')], 0);
  rig.now = 60_000;
  rig.list.tick(rig.now);
  assert.deepEqual([rig.list.joinsPending, rig.list.counters.joinsFailed], [1, 0]);
  rig.list.pushPullDone(rig.port.pushPulls[0]?.token ?? 0, { join: false, nodes: [], userState: NO_BYTES }, rig.now);
  assert.equal(rig.list.counters.joinsDone, 1);
});

test('[G5] a clock that goes back is taken for one that stands: a suspicion has its whole time', () => {
  const rig = new Rig({ others: ['a'] });
  rig.answering.add('a');
  rig.run(10_000);
  rig.list.tick(1_000);
  rig.list.onMessage(addressOf('b'), suspect('a'), -5_000);
  // From the last call on.
  rig.run(13_799);
  assert.deepEqual([rig.state('a'), rig.list.health], ['suspect', 0]);
  rig.run(14_000);
  assert.equal(rig.state('a'), 'dead');
});

const NAMES = ['a', 'b', 'c', 'd', 'e'];

/** All others tell `a` and the accused itself that they suspect it, as after a burst of lost packets. */
function accuse(net: MemberNet, accused: string): void {
  if (accused === 'a') return;
  const incarnation = net.node('a').list.get(accused)?.incarnation ?? 0;
  for (const from of net.nodes.keys()) {
    if (from === 'a' || from === accused) continue;
    for (const to of ['a', accused])
      net.node(to).list.onMessage(addressOf(from), suspect(accused, incarnation, from), net.now);
  }
}

for (const size of [3, 5]) {
  for (const packetsFirst of [false, true]) {
    test(`[G5] one of ${size} is blocked 5 s each minute with suspicions under way, ${packetsFirst ? 'packets' : 'timers'} first: no healthy member fails`, () => {
      for (let seed = 1; seed <= 6; seed++) {
        const net = new MemberNet(NAMES.slice(0, size), { seed, packetsFirst, lossPerMille: 100 });
        for (let minute = 1; minute <= 10; minute++) {
          net.run(minute * 60_000);
          accuse(net, NAMES[minute % size] ?? '');
          net.block('a', minute * 60_000 + 5_000);
        }
        net.run(11 * 60_000);
        for (const { name, delegate } of net.nodes.values()) {
          const dead = delegate.events.filter((event) => event.startsWith('dead') && event !== 'dead a');
          assert.deepEqual(dead, [], `seed ${seed}, seen by ${name}`);
        }
        assert.equal(net.node('a').list.counters.failures, 0);
        assert.equal(net.node('a').list.aliveCount, size);
      }
    });
  }
}

test('[G5] all are blocked in turn, everybody 5 s each half minute: nobody is called failed by who was blocked', () => {
  const net = new MemberNet(NAMES, { seed: 3 });
  for (let turn = 0; turn < 60; turn++) {
    net.run((turn + 1) * 6_000);
    net.block(NAMES[turn % 5] as string, net.now + 5_000);
  }
  net.run(400_000);
  for (const { list } of net.nodes.values()) assert.equal(list.aliveCount, 5);
});

test('[G5] who is really gone is found by one that pauses as well', () => {
  const net = new MemberNet(NAMES.slice(0, 3), { seed: 5 });
  net.run(10_000);
  net.node('c').isDown = true;
  for (let turn = 0; turn < 20; turn++) {
    net.block('a', net.now + 2_000);
    net.run(net.now + 3_000);
  }
  assert.deepEqual(
    ['a', 'b']
      .map((name) => net.node(name).list.get('c')?.state ?? 'forgotten')
      .filter((state) => state !== 'forgotten' && state !== 'dead'),
    [],
  );
  assert.ok(net.node('b').delegate.events.includes('dead c') && net.node('a').delegate.events.includes('dead c'));
});
