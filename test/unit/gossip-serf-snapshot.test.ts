/** The snapshot file, after the cases of hashicorp/serf serf/snapshot_test.go (v0.11.0). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LAMPORT_MAX, SNAPSHOT_NODES_MAX } from '../../src/gossip/serf/limits.ts';
import { SerfSnapshot, SNAPSHOT_COMPACT_BYTES_MIN } from '../../src/gossip/serf/snapshot.ts';
import type { MemberEventKind, RestoredSerf, SerfEvent } from '../../src/gossip/serf/types.ts';
import type { Address } from '../../src/gossip/types.ts';
import { addressOf, Rig, VERSIONS } from './gossip-serf-rig.ts';

function eventOf(kind: MemberEventKind, node: string, address: Address = addressOf(node)): SerfEvent {
  return {
    kind,
    members: [{ node, address, tags: new Map(), status: 'alive', statusTime: 1, versions: VERSIONS, leaveTime: 0 }],
  };
}

function restoredFrom(text: string, rejoinsAfterLeave = false): RestoredSerf {
  return new SerfSnapshot(text, rejoinsAfterLeave).restored;
}

const NOTHING: RestoredSerf = { time: 0, eventTime: 0, queryTime: 0, nodes: [] };

test('snapshot.go: lines as upstream writes them, and what a restart reads from them', () => {
  const snapshot = new SerfSnapshot('', false);
  const text = [
    snapshot.onEvent(eventOf('memberJoin', 'b2')),
    snapshot.onEvent(eventOf('memberJoin', 'c3', { host: '::1', port: 7_000 })),
    snapshot.onEvent(eventOf('memberJoin', 'd4', { host: '::ffff:10.0.0.4', port: 7_000 })),
    snapshot.onTimes({ time: 100, eventTime: 42, queryTime: 50 }),
    snapshot.onEvent(eventOf('memberFailed', 'd4')),
    snapshot.onEvent(eventOf('memberUpdate', 'b2')),
    snapshot.onTimes({ time: 100, eventTime: 43, queryTime: 50 }),
  ].join('');
  assert.equal(
    text,
    'alive: b2 10.0.0.2:7946\nalive: c3 [::1]:7000\nalive: d4 10.0.0.4:7000\nclock: 100\nevent-clock: 42\nquery-clock: 50\nnot-alive: d4\nevent-clock: 43\n',
  );
  const nodes = [
    { node: 'b2', address: addressOf('b2') },
    { node: 'c3', address: { host: '::1', port: 7_000 } },
  ];
  assert.deepEqual(restoredFrom(text), { time: 100, eventTime: 43, queryTime: 50, nodes });
  assert.deepEqual(snapshot.restored, restoredFrom(text));
});

test('snapshot.go replay: comments, coordinates of old files, unknown and torn lines are passed over', () => {
  const text =
    '# a comment\ncoordinate: {"Vec":[1]}\nother: x\n\nalive: nowhere\nalive: a b 10.0.0.7:1\nalive: x 10.0.0.8\nclock: 1x\nclock: 7\nclock: 99999999999999999999\nalive: torn 10.0.0.9:79';
  const nodes = [{ node: 'a b', address: { host: '10.0.0.7', port: 1 } }];
  assert.deepEqual(restoredFrom(text), { ...NOTHING, time: 7, nodes });
  assert.ok(restoredFrom(`clock: ${LAMPORT_MAX}\n`).time === LAMPORT_MAX);
});

test('snapshot.go: who left finds nobody after a restart, unless it rejoins after a leave', () => {
  const before = 'alive: b2 10.0.0.2:7946\nclock: 5\n';
  for (const rejoins of [false, true]) {
    const snapshot = new SerfSnapshot(before, rejoins);
    const text = before + snapshot.leave();
    assert.equal(text, `${before}leave\n`);
    assert.deepEqual(restoredFrom(text), NOTHING);
    assert.equal(restoredFrom(text, true).nodes.length, 1);
    assert.equal(snapshot.onEvent(eventOf('memberJoin', 'c3')), '', 'nothing is written behind it');
    assert.equal(snapshot.onTimes({ time: 9, eventTime: 9, queryTime: 9 }), '');
    assert.deepEqual(restoredFrom(snapshot.compact(), rejoins), rejoins ? snapshot.restored : NOTHING);
  }
});

test('snapshot.go compact: a file that has grown is written anew, as short as it can be', () => {
  let snapshot = new SerfSnapshot('', false);
  let text = '';
  let rounds = 0;
  while (!snapshot.isCompactionDue) {
    text += snapshot.onEvent(eventOf('memberJoin', 'b2')) + snapshot.onEvent(eventOf('memberFailed', 'b2'));
    rounds++;
    text += snapshot.onTimes({ time: rounds, eventTime: 0, queryTime: 0 });
  }
  assert.ok(text.length > SNAPSHOT_COMPACT_BYTES_MIN);
  text += snapshot.onEvent(eventOf('memberJoin', 'c3'));
  const compact = snapshot.compact();
  assert.equal(compact, `alive: c3 10.0.0.3:7946\nclock: ${rounds}\nevent-clock: 0\nquery-clock: 0\n`);
  assert.equal(snapshot.isCompactionDue, false);
  assert.deepEqual(restoredFrom(compact), restoredFrom(text));
  snapshot = new SerfSnapshot(text, false);
  assert.equal(snapshot.isCompactionDue, true, 'also right after a restart');
});

test('[G7] a name with line breaks in it writes no lines of its own', () => {
  const snapshot = new SerfSnapshot('', false);
  assert.equal(snapshot.onEvent(eventOf('memberJoin', 'x\nleave\nalive: y')), '');
  assert.equal(snapshot.onEvent(eventOf('memberFailed', 'x\nleave\nalive: y')), '');
});

test('[G7] nodes beyond the bound are not kept', () => {
  const lines = Array.from({ length: SNAPSHOT_NODES_MAX + 9 }, (_, i) => `alive: n${i} 10.0.0.2:7946\n`);
  assert.equal(restoredFrom(lines.join('')).nodes.length, SNAPSHOT_NODES_MAX);
});

test('whatever is in the file: it is read, and what is written anew says the same', () => {
  const line = fc.oneof(
    fc.constantFrom(
      'leave',
      '# x',
      'alive: b2 10.0.0.2:7946',
      'alive: c3 [::1]:1',
      'not-alive: b2',
      'clock: 9',
      'query-clock: 3',
    ),
    fc.string({ unit: 'binary', maxLength: 40 }),
  );
  fc.assert(
    fc.property(fc.array(line), fc.boolean(), (lines, rejoins) => {
      const snapshot = new SerfSnapshot(`${lines.join('\n')}\n`, rejoins);
      const { restored } = snapshot;
      assert.deepEqual(restoredFrom(snapshot.compact(), rejoins), restored);
    }),
    { numRuns: 500 },
  );
});

test('serf.go handleRejoin: after a restart the nodes of the snapshot are met one after another, until anybody is alive', () => {
  const restored = restoredFrom(
    'alive: a1 10.0.0.1:7946\nalive: b2 10.0.0.2:7946\nalive: c3 10.0.0.3:7946\nalive: d4 10.0.0.4:7946\nclock: 40\n',
  );
  const rig = new Rig({ restored });
  assert.equal(rig.serf.statistics.memberTime, 41);
  rig.pass(0);
  rig.pass(1_000);
  const met = rig.list.calls.splice(0);
  assert.equal(met.length, 2);
  assert.ok(
    met.every((call) => /^join 10\.0\.0\.[234]$/.test(call)),
    'never itself',
  );
  rig.serf.onJoin({ ...rig.list.self, node: 'b2' }, rig.now);
  rig.pass(20_000);
  assert.deepEqual(rig.list.calls, []);
});

test('nodes of a snapshot that nobody answers for are tried once each', () => {
  const rig = new Rig({ restored: restoredFrom('alive: b2 10.0.0.2:7946\nalive: c3 10.0.0.3:7946\n') });
  rig.pass(60_000);
  assert.deepEqual(rig.list.calls.toSorted(), ['join 10.0.0.2', 'join 10.0.0.3']);
});

test('what a node says for its snapshot: the newest times that it has seen of each kind', () => {
  const rig = new Rig({ others: ['b2'] });
  assert.deepEqual(rig.serf.times, { time: 0, eventTime: 0, queryTime: 0 });
  rig.hear({ kind: 'join', time: 6, node: 'b2' });
  rig.hear({ kind: 'userEvent', time: 4, name: 'x', payload: new Uint8Array(0), coalesce: false });
  assert.deepEqual(rig.serf.times, { time: 6, eventTime: 4, queryTime: 0 });
});
