import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type MessageType, makeMessage, NOBODY } from '../../src/raft/messages.ts';
import { type Hearing, hearingOf, isHeard, SpokenTo } from '../../src/replica/admission.ts';
import type { PeerFrame } from '../../src/replica/types.ts';

const row = (node: string, instance: string) => ({ node, instance, raft: 'a:1', grpc: 'a:2', protocol: 1 });
const MEMBERS = [row('a', '01'), row('b', '02'), row('c', '03')];

test('[R23] a name that the table has with another instance promises nothing; one that it does not have is heard', () => {
  const cases: readonly (readonly [string, string, string, Hearing])[] = [
    // leader, node, instance
    ['b', 'a', '01', 'everything'],
    ['b', 'a', '09', 'nothing'],
    ['a', 'a', '09', 'requests'],
    [NOBODY, 'a', '09', 'requests'],
    ['b', 'd', '04', 'everything'],
    [NOBODY, 'd', '04', 'everything'],
  ];
  for (const [leader, node, instance, expected] of cases)
    assert.equal(hearingOf(MEMBERS, leader, node, instance), expected, `${leader} ${node} ${instance}`);
  assert.equal(hearingOf([], 'b', 'a', '09'), 'everything');
});

test('[R23] requests are what a leader or a candidate asks: answers to it, runs and rows are none', () => {
  const types: readonly (readonly [MessageType, boolean])[] = [
    ['append', true],
    ['heartbeat', true],
    ['snapshot', true],
    ['vote', true],
    ['pre-vote', true],
    ['append-response', false],
    ['heartbeat-response', false],
    ['vote-response', false],
    ['pre-vote-response', false],
    ['timeout-now', false],
    ['read-index', false],
    ['read-index-response', false],
  ];
  for (const [type, isRequest] of types) {
    const frame: PeerFrame = { kind: 'raft', message: makeMessage({ type, from: 'a', to: 'b', term: 1 }) };
    assert.deepEqual(
      [isHeard('everything', frame), isHeard('requests', frame), isHeard('nothing', frame)],
      [true, isRequest, false],
      type,
    );
  }
  const others: readonly PeerFrame[] = [
    { kind: 'runs', runs: [] },
    { kind: 'member', member: row('a', '09') },
    { kind: 'clock', wallMs: 1 },
  ];
  for (const frame of others)
    assert.deepEqual([isHeard('everything', frame), isHeard('requests', frame)], [true, false]);
});

test('who asks as another instance is answered until its table has a row for it, or the instance of the table speaks', () => {
  const spokenTo = new SpokenTo();
  const [a, b] = [row('a', '01'), row('b', '02')];
  assert.equal(spokenTo.heard(MEMBERS, 'a', '09', 'nothing'), false);
  assert.equal(spokenTo.instanceOf(a), '01');
  assert.equal(spokenTo.heard(MEMBERS, 'a', '09', 'requests'), true);
  assert.equal(spokenTo.heard(MEMBERS, 'a', '09', 'requests'), false);
  assert.deepEqual([spokenTo.instanceOf(a), spokenTo.instanceOf(b)], ['09', '02']);
  assert.equal(spokenTo.instanceOf(row('a', '10')), '10');
  assert.equal(spokenTo.heard(MEMBERS, 'a', '01', 'everything'), true);
  assert.equal(spokenTo.instanceOf(a), '01');
  assert.equal(spokenTo.heard(MEMBERS, 'd', '04', 'everything'), false);
});
