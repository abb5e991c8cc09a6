/** User events and coalescing, after the cases of hashicorp/serf serf/serf_internals_test.go, serf_test.go, coalesce_*_test.go (v0.11.0). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BroadcastQueue, transmitLimit } from '../../src/gossip/serf/broadcasts.ts';
import {
  COALESCED_NAMES_MAX,
  EVENT_BUFFER_BYTES_MAX,
  EVENT_BYTES_MAX,
  EVENTS_PER_SLOT_MAX,
  LAMPORT_MAX,
  MESSAGE_BYTES_MAX,
  QUEUE_DEPTH_MAX,
} from '../../src/gossip/serf/limits.ts';
import type { UserEventMessage } from '../../src/gossip/serf/messages.ts';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';
import { memberOf, NO_BYTES, Rig, text } from './gossip-serf-rig.ts';

function eventOf(time: number, name = 'deploy', payload: Uint8Array = NO_BYTES, coalesce = false): UserEventMessage {
  return { kind: 'userEvent', time, name, payload, coalesce };
}

test('lamport.go: a clock is at least one ahead of what it has witnessed, and never goes back', () => {
  const rig = new Rig();
  assert.equal(rig.serf.statistics.eventTime, 1);
  rig.hear(eventOf(41));
  assert.equal(rig.serf.statistics.eventTime, 42);
  rig.hear(eventOf(7));
  assert.equal(rig.serf.statistics.eventTime, 42);
  rig.serf.event('deploy', NO_BYTES, { coalesce: false }, rig.now);
  assert.equal(rig.serf.statistics.eventTime, 43);
});

test('[G7] a clock stops where numbers are still exact, and goes on working', () => {
  const rig = new Rig();
  rig.hear(eventOf(LAMPORT_MAX));
  for (let i = 0; i < 3; i++) assert.equal(rig.serf.event(`n${i}`, NO_BYTES, { coalesce: false }, rig.now), null);
  assert.equal(rig.serf.statistics.eventTime, LAMPORT_MAX);
  assert.deepEqual(rig.takeEvents(), ['user deploy', 'user n0', 'user n1', 'user n2']);
});

test('serf.go handleUserEvent: an event is told once and gossiped on once; the same name with another payload is another', () => {
  const rig = new Rig({ others: ['b2'] });
  rig.hear(eventOf(5, 'deploy', text('1')));
  assert.equal(rig.gossipAll().length, 4, 'four transmissions in a cluster of two');
  rig.hear(eventOf(5, 'deploy', text('1')));
  assert.equal(rig.gossipAll().length, 0);
  rig.hear(eventOf(5, 'deploy', text('2')));
  rig.hear(eventOf(6, 'deploy', text('1')));
  assert.equal(rig.events.length, 3);
});

test('serf.go handleUserEvent: more than 512 Lamport times old is too old, and after a join what came before it', () => {
  const rig = new Rig();
  rig.hear(eventOf(1_000));
  rig.hear(eventOf(489, 'in time'));
  rig.hear(eventOf(488, 'too old'));
  assert.deepEqual(rig.takeEvents(), ['user deploy', 'user in time']);
});

test('serf.go UserEvent: the event is told here, gossiped, and refused if it is too large before or after it is encoded', () => {
  const rig = new Rig({ others: ['b2'] });
  assert.equal(rig.serf.event('deploy', text('1.2.3'), { coalesce: true }, rig.now), null);
  assert.deepEqual(rig.events, [{ kind: 'user', time: 1, name: 'deploy', payload: text('1.2.3'), coalesce: true }]);
  assert.deepEqual(rig.gossip(), [eventOf(1, 'deploy', text('1.2.3'), true)]);
  const longest = 512 - serfCodec.encode(eventOf(2, 'n', new Uint8Array(400))).length + 400;
  const tell = (length: number) => rig.serf.event('n', new Uint8Array(length), { coalesce: false }, rig.now);
  assert.equal(tell(longest + 1), 'EVENT_TOO_LARGE');
  assert.equal(tell(512), 'EVENT_TOO_LARGE');
  assert.equal(tell(longest), null);
  assert.throws(() => new Rig({ eventBytesMax: EVENT_BYTES_MAX + 1 }), /9 KiB/);
});

test('an event that no packet holds is told and kept for push/pulls, and does not wait in the queue', () => {
  const rig = new Rig({ others: ['b2'], eventBytesMax: EVENT_BYTES_MAX });
  assert.equal(rig.serf.event('large', new Uint8Array(8_000), { coalesce: false }, rig.now), null);
  assert.equal(rig.serf.statistics.eventQueue, 0);
  const state = serfCodec.decode(rig.serf.localState(false, rig.now));
  assert.ok(state?.kind === 'pushPull');
  assert.equal(state.events[0]?.events[0]?.payload.length, 8_000);
});

test('[G7] a message beyond the bound is not read; what cannot be read is counted', () => {
  const rig = new Rig();
  // What is behind a message is passed over, as upstream does, so that this one could be read.
  rig.serf.onUser(Buffer.concat([serfCodec.encode(eventOf(5)), Buffer.alloc(MESSAGE_BYTES_MAX)]), rig.now);
  rig.serf.onUser(NO_BYTES, rig.now);
  rig.serf.onUser(text('\u{1}x'), rig.now);
  // Nobody sends these on their own.
  rig.hear({ kind: 'conflictResponse', member: null });
  rig.hear({ kind: 'keyRequest', key: NO_BYTES });
  assert.equal(rig.serf.statistics.refused, 5);
  assert.deepEqual(rig.events, []);
});

test('[G7] of one Lamport time only so many events are taken', () => {
  const rig = new Rig();
  for (let i = 0; i < EVENTS_PER_SLOT_MAX + 50; i++) rig.hear(eventOf(5, `n${i}`));
  assert.equal(rig.events.length, EVENTS_PER_SLOT_MAX);
});

test('[G7] the buffer of events is bounded in bytes: the oldest go, and are not told a second time', () => {
  const rig = new Rig();
  const large = new Uint8Array(9_000);
  for (let time = 1; time <= 400; time++) rig.hear(eventOf(time, 'n', large));
  assert.equal(rig.events.length, 400);
  const state = serfCodec.decode(rig.serf.localState(false, rig.now));
  assert.ok(state?.kind === 'pushPull');
  const held = state.events.reduce((sum, { events }) => sum + events.length * (9_000 + 1), 0);
  assert.ok(held <= EVENT_BUFFER_BYTES_MAX && held > EVENT_BUFFER_BYTES_MAX / 2, `${held} bytes`);
  for (let time = 1; time <= 400; time++) rig.hear(eventOf(time, 'n', large));
  assert.equal(rig.events.length, 400);
});

test('whatever comes, doubled and in any order: no event is told twice', () => {
  const arrival = fc.record({ time: fc.nat(1_400), name: fc.constantFrom('a', 'b') });
  fc.assert(
    fc.property(fc.array(arrival, { maxLength: 300 }), (arrivals) => {
      const rig = new Rig();
      for (const { time, name } of [...arrivals, ...arrivals.toReversed()]) rig.hear(eventOf(time, name));
      const told = rig.events.map((event) => (event.kind === 'user' ? `${event.time} ${event.name}` : ''));
      assert.equal(new Set(told).size, told.length);
    }),
    { numRuns: 100 },
  );
});

test('delegate.go MergeRemoteState: events of a push/pull are told; with a join that ignores old ones they are not', () => {
  const source = new Rig({ node: 'b2', others: ['a1'] });
  source.serf.event('old', NO_BYTES, { coalesce: false }, source.now);
  const state = source.serf.localState(true, source.now);

  const listening = new Rig({ others: ['b2'] });
  listening.serf.join([memberOf('b2').address], { ignoresOldEvents: false }, listening.now);
  listening.serf.mergeState(state, true, listening.now);
  assert.deepEqual(listening.takeEvents(), ['user old']);

  const ignoring = new Rig({ others: ['b2'] });
  ignoring.serf.join([memberOf('b2').address], { ignoresOldEvents: true }, ignoring.now);
  ignoring.serf.mergeState(state, true, ignoring.now);
  ignoring.hear(eventOf(1, 'old'));
  ignoring.hear(eventOf(2, 'new'));
  assert.deepEqual(ignoring.takeEvents(), ['user new']);
});

test('who is joined by another does not ignore events, nor who joined before', () => {
  const source = new Rig({ node: 'b2' });
  source.serf.event('old', NO_BYTES, { coalesce: false }, source.now);
  const rig = new Rig({ others: ['b2'] });
  rig.serf.join([memberOf('c3').address], { ignoresOldEvents: true }, rig.now);
  rig.list.joinsPending = 0;
  rig.pass(0);
  rig.serf.mergeState(source.serf.localState(true, 0), true, rig.now);
  assert.deepEqual(rig.takeEvents(), ['user old']);
});

test('coalesce_user.go: of one name the newest time is told when it is quiet, or after the longest wait', () => {
  const rig = new Rig({ userCoalescePeriodMs: 3_000, userQuiescentPeriodMs: 1_000 });
  rig.hear(eventOf(5, 'deploy', text('a'), true));
  rig.hear(eventOf(4, 'deploy', text('b'), true));
  rig.hear(eventOf(6, 'deploy', text('c'), true));
  rig.hear(eventOf(6, 'deploy', text('d'), true));
  rig.hear(eventOf(6, 'other', text('e'), true));
  rig.hear(eventOf(6, 'at once', text('f'), false));
  assert.deepEqual(rig.takeEvents(), ['user at once']);
  rig.pass(999);
  assert.deepEqual(rig.takeEvents(), []);
  rig.pass(1);
  const payloads = rig.events.map((event) => (event.kind === 'user' ? Buffer.from(event.payload).toString() : ''));
  assert.deepEqual(payloads, ['c', 'd', 'e']);
  rig.takeEvents();
  for (let time = 10; time < 20; time++) {
    rig.hear(eventOf(time, 'deploy', NO_BYTES, true));
    rig.pass(500);
  }
  assert.equal(rig.events.length, 1, 'never quiet: told after three seconds');
});

test('[G7] coalesced events do not pile up: a full buffer is told at once', () => {
  const rig = new Rig({ userCoalescePeriodMs: 3_000, userQuiescentPeriodMs: 1_000 });
  for (let i = 0; i < COALESCED_NAMES_MAX; i++) rig.hear(eventOf(1 + (i % 500), `n${i}`, NO_BYTES, true));
  assert.equal(rig.events.length, COALESCED_NAMES_MAX);
  rig.takeEvents();
  for (let i = 0; i < EVENTS_PER_SLOT_MAX; i++) rig.hear(eventOf(600, 'n', text(`${i}`), true));
  assert.ok(rig.events.length > 0);
});

test('coalesce_member.go: the last of a member is told with others of its kind; what was told last is not told again, but for updates', () => {
  const rig = new Rig({ coalescePeriodMs: 3_000, quiescentPeriodMs: 1_000 });
  rig.pass(1_000);
  rig.takeEvents();
  for (const node of ['b2', 'c3']) rig.serf.onJoin(memberOf(node), rig.now);
  rig.pass(1_000);
  assert.deepEqual(rig.takeEvents(), ['memberJoin b2 c3']);
  rig.serf.onLeave(memberOf('b2', { state: 'dead' }), rig.now);
  rig.serf.onJoin(memberOf('b2'), rig.now);
  rig.serf.onUpdate(memberOf('c3'), rig.now);
  rig.pass(1_000);
  assert.deepEqual(rig.takeEvents(), ['memberUpdate c3']);
  rig.serf.onUpdate(memberOf('c3'), rig.now);
  rig.pass(1_000);
  assert.deepEqual(rig.takeEvents(), ['memberUpdate c3']);
  rig.serf.onLeave(memberOf('b2', { state: 'dead' }), rig.now);
  rig.pass(1_000);
  assert.deepEqual(rig.takeEvents(), ['memberFailed b2']);
});

test('delegate.go GetBroadcasts: intents go before queries, and queries before events; what does not fit waits', () => {
  const rig = new Rig({ others: ['b2'] });
  rig.hear(eventOf(5));
  rig.serf.query({ name: 'uptime', payload: NO_BYTES }, {}, rig.now);
  rig.hear({ kind: 'join', time: 5, node: 'b2' });
  assert.deepEqual(
    rig.gossip().map(({ kind }) => kind),
    ['join', 'query', 'userEvent'],
  );
  const [intent] = rig.serf.broadcasts(3, 40);
  assert.equal(serfCodec.decode(intent as Uint8Array)?.kind, 'join');
  assert.equal(rig.serf.broadcasts(3, 10).length, 0);
});

test('queue.go: sent least goes first, and of those the largest that fits; util.go retransmitLimit says how often', () => {
  assert.deepEqual(
    [0, 1, 9, 10, 99, 100].map((nodes) => transmitLimit(4, nodes)),
    [0, 4, 4, 8, 8, 12],
  );
  const queue = new BroadcastQueue(4);
  for (const length of [10, 30, 20]) queue.push(new Uint8Array(length));
  const take = (limit: number): number[] => {
    const into: Uint8Array[] = [];
    queue.take(into, 2, limit, 5);
    return into.map(({ length }) => length);
  };
  assert.deepEqual(take(44), [30, 10]);
  assert.deepEqual(take(22), [20]);
  assert.deepEqual(take(100), [30, 20, 10]);
  assert.deepEqual(take(1), []);
});

test('[G7] a queue drops what was sent most often when it is full', () => {
  const queue = new BroadcastQueue(4);
  const sent: string[] = [];
  queue.push(new Uint8Array(7), { onSent: () => sent.push('first') });
  queue.take([], 2, 100, 5);
  for (let i = 0; i < QUEUE_DEPTH_MAX; i++) queue.push(new Uint8Array(5));
  assert.equal(queue.length, QUEUE_DEPTH_MAX);
  assert.equal(queue.dropped, 1);
  assert.deepEqual(sent, ['first'], 'who waits for it is told');
});
