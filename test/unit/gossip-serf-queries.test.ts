/** Queries, after the cases of hashicorp/serf serf/serf_test.go, query_test.go, internal_query_test.go, keymanager_test.go (v0.11.0). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  OPEN_QUERIES_MAX,
  QUERIES_PER_SLOT_MAX,
  QUERY_RESPONSE_BYTES_MAX,
  QUERY_TIMEOUT_MS_MAX,
  RUNNING_QUERIES_MAX,
  STRANGER_SENDS_PER_SECOND,
} from '../../src/gossip/serf/limits.ts';
import type { QueryFilter, QueryMessage, SerfMessage } from '../../src/gossip/serf/messages.ts';
import type { QueryEvent, QueryRequest, QueryWatcher, SerfKeyring } from '../../src/gossip/serf/types.ts';
import { serfCodec } from '../../src/net/gossip/serf-codec.ts';
import { addressOf, memberOf, NO_BYTES, queryOf, Rig, text } from './gossip-serf-rig.ts';

const UPTIME: QueryRequest = { name: 'uptime', payload: NO_BYTES };

/** Asks, and keeps what comes back; the query as it was gossiped. */
function ask(rig: Rig, request: QueryRequest = UPTIME): { readonly heard: string[]; readonly query: QueryMessage } {
  const heard: string[] = [];
  const watcher: QueryWatcher = {
    onAck: (node) => heard.push(`ack ${node}`),
    onResponse: (node, payload) => heard.push(`${node}: ${Buffer.from(payload).toString()}`),
    onDone: () => heard.push('done'),
  };
  const start = rig.serf.query(request, watcher, rig.now);
  assert.ok('handle' in start);
  const query = rig.gossip().find((message) => message.kind === 'query');
  assert.ok(query?.kind === 'query');
  return { heard, query };
}

function answer(
  rig: Rig,
  query: QueryMessage,
  from: string,
  change: { isAck?: boolean; id?: number; time?: number } = {},
): void {
  const { time, id } = query;
  rig.hear({ kind: 'queryResponse', time, id, from, isAck: false, payload: text('up'), ...change });
}

function lastQuery(rig: Rig): QueryEvent {
  const event = rig.events.findLast(({ kind }) => kind === 'query');
  assert.ok(event?.kind === 'query');
  return event;
}

test('serf.go Query: the question is gossiped, acks and answers of each node count once, and then it is done', () => {
  const rig = new Rig({ others: ['b2', 'c3'] });
  const { heard, query } = ask(rig, { ...UPTIME, wantsAck: true });
  assert.deepEqual(query.source, rig.list.self.address);
  for (let i = 0; i < 2; i++) {
    answer(rig, query, 'b2', { isAck: true });
    answer(rig, query, 'b2');
    answer(rig, query, 'c3');
  }
  rig.pass(query.timeoutMs);
  answer(rig, query, 'c3');
  assert.deepEqual(heard, ['ack a1', 'ack b2', 'b2: up', 'c3: up', 'done']);
});

test('serf.go handleQueryResponse: answers to another query, of another time or after the end do not count', () => {
  const rig = new Rig({ others: ['b2'] });
  const { heard, query } = ask(rig);
  answer(rig, query, 'b2', { id: query.id + 1 });
  answer(rig, query, 'b2', { time: query.time + 1 });
  assert.deepEqual(heard, []);
});

test('[G6] an answer of who is no member does not count', () => {
  const rig = new Rig({ others: ['b2'] });
  const { heard, query } = ask(rig);
  answer(rig, query, 'stranger');
  assert.deepEqual(heard, []);
  assert.equal(rig.serf.statistics.refused, 1);
});

test('a node answers its own query without a packet', () => {
  const rig = new Rig();
  const { heard } = ask(rig, { ...UPTIME, wantsAck: true });
  assert.equal(rig.serf.respond(lastQuery(rig).handle, text('me'), rig.now), null);
  assert.deepEqual(heard, ['ack a1', 'a1: me']);
  assert.deepEqual(rig.list.sent, []);
});

test('query.go DefaultQueryTimeout: 16 gossip intervals for each decimal place of the number of nodes', () => {
  const of = (count: number): number => {
    const rig = new Rig({ others: Array.from({ length: count - 1 }, (_, i) => `n${i}`) });
    return rig.serf.queryTimeoutMs;
  };
  assert.deepEqual([1, 9, 10, 99, 100].map(of), [3_200, 3_200, 6_400, 6_400, 9_600]);
});

test('serf.go handleQuery: a query is told once, acknowledged if that is wanted, answered to where it came from, and gossiped on', () => {
  const rig = new Rig({ others: ['a2'] });
  rig.hear(queryOf({ wantsAck: true, payload: text('x') }));
  rig.hear(queryOf({ wantsAck: true, payload: text('x') }));
  const event = lastQuery(rig);
  assert.deepEqual(rig.takeEvents(), ['query uptime']);
  assert.deepEqual(event.payload, text('x'));
  assert.equal(event.deadline, rig.now + 3_000);
  const ack: SerfMessage = { kind: 'queryResponse', time: 1, id: 77, from: 'a1', isAck: true, payload: NO_BYTES };
  assert.deepEqual(rig.list.takeSent(), [{ to: '10.0.0.2', node: 'a2', message: ack }]);
  assert.equal(rig.serf.respond(event.handle, text('42'), rig.now), null);
  assert.deepEqual(rig.list.takeSent()[0]?.message, { ...ack, isAck: false, payload: text('42') });
  assert.equal(rig.serf.respond(event.handle, text('43'), rig.now), 'QUERY_CLOSED', 'once');
  assert.deepEqual(rig.gossip(), [queryOf({ wantsAck: true, payload: text('x') })]);
});

test('event.go Respond: not after the deadline, and not more than 1,024 bytes', () => {
  const rig = new Rig({ others: ['a2'] });
  rig.hear(queryOf());
  const { handle } = lastQuery(rig);
  assert.equal(rig.serf.respond(handle, new Uint8Array(QUERY_RESPONSE_BYTES_MAX), rig.now), 'RESPONSE_TOO_LARGE');
  assert.equal(rig.serf.respond(handle, new Uint8Array(900), rig.now), null);
  rig.hear(queryOf({ id: 78 }));
  rig.now += 3_001;
  assert.equal(rig.serf.respond(lastQuery(rig).handle, NO_BYTES, rig.now), 'QUERY_CLOSED');
});

const FILTERS: readonly (readonly [name: string, filters: readonly QueryFilter[], isMeant: boolean])[] = [
  ['no filter', [], true],
  ['its name', [{ kind: 'nodes', nodes: ['b2', 'a1'] }], true],
  ['other names', [{ kind: 'nodes', nodes: ['b2'] }], false],
  ['no names', [{ kind: 'nodes', nodes: [] }], false],
  ['a tag', [{ kind: 'tag', tag: 'role', expression: '^bro' }], true],
  ['a tag that does not match', [{ kind: 'tag', tag: 'role', expression: '^web' }], false],
  ['a tag that it does not have', [{ kind: 'tag', tag: 'zone', expression: '.' }], false],
  ['a tag that may be missing', [{ kind: 'tag', tag: 'zone', expression: '^$' }], true],
  ['an expression that is none', [{ kind: 'tag', tag: 'role', expression: '(' }], false],
  [
    'one of two',
    [
      { kind: 'nodes', nodes: ['a1'] },
      { kind: 'tag', tag: 'role', expression: '^web' },
    ],
    false,
  ],
  ['a filter of another version', [{ kind: 'unknown' }], false],
];
for (const [name, filters, isMeant] of FILTERS) {
  test(`query.go shouldProcessQuery: ${name}: ${isMeant ? 'meant' : 'not meant'}, and gossiped on`, () => {
    const rig = new Rig({ others: ['a2'], tags: new Map([['role', 'broker']]) });
    rig.hear(queryOf({ filters, wantsAck: true }));
    assert.equal(rig.list.takeSent().length, isMeant ? 1 : 0);
    assert.equal(rig.takeEvents().length, isMeant ? 1 : 0);
    assert.equal(rig.gossip().length, 1);
  });
}

test('messages.go queryFlagNoBroadcast: it is not gossiped on', () => {
  const rig = new Rig({ others: ['a2'] });
  rig.hear(queryOf({ noBroadcast: true }));
  assert.deepEqual(rig.takeEvents(), ['query uptime']);
  assert.deepEqual(rig.gossip(), []);
});

test('serf.go handleQuery: more than 512 Lamport times old is too old', () => {
  const rig = new Rig({ others: ['a2'] });
  rig.hear(queryOf({ time: 1_000 }));
  rig.hear(queryOf({ time: 489, name: 'in time' }));
  rig.hear(queryOf({ time: 488, name: 'too old' }));
  assert.deepEqual(rig.takeEvents(), ['query uptime', 'query in time']);
});

test('queries from before the snapshot are not heard again', () => {
  const rig = new Rig({ others: ['a2'], restored: { time: 3, eventTime: 9, queryTime: 9, nodes: [] } });
  rig.hear(queryOf({ time: 9 }));
  rig.hear(queryOf({ time: 10, name: 'new' }));
  rig.hear({ kind: 'userEvent', time: 9, name: 'old', payload: NO_BYTES, coalesce: false });
  assert.deepEqual(rig.takeEvents(), ['query new']);
});

test('query.go relayResponse: answers also go by way of so many others, if there are enough that know how', () => {
  const rig = new Rig({ others: ['a2', 'b3', 'c4', 'd5'] });
  rig.serf.onLeave(memberOf('d5', { state: 'dead' }), rig.now);
  rig.serf.onJoin(memberOf('e6', { versions: [1, 4, 2, 2, 4, 4] }), rig.now);
  rig.hear(queryOf({ wantsAck: true, relayFactor: 3 }));
  const [direct, ...relayed] = rig.list.takeSent();
  assert.equal(direct?.node, 'a2');
  assert.deepEqual(relayed.map(({ node }) => node).toSorted(), ['a2', 'b3', 'c4']);
  for (const { message } of relayed) {
    assert.ok(message?.kind === 'relay');
    assert.deepEqual([message.target, message.targetNode], [addressOf('a2'), 'a2']);
    assert.equal(serfCodec.decode(message.payload)?.kind, 'queryResponse');
  }
  const small = new Rig({ others: ['a2'] });
  small.hear(queryOf({ wantsAck: true, relayFactor: 2 }));
  assert.equal(small.list.takeSent().length, 1, 'not worth it');
});

test('delegate.go messageRelayType: an answer is carried to where it belongs; nothing else is', () => {
  const rig = new Rig({ others: ['a2'] });
  const response = serfCodec.encode({
    kind: 'queryResponse',
    time: 1,
    id: 7,
    from: 'b3',
    isAck: true,
    payload: NO_BYTES,
  });
  const relay = (payload: Uint8Array): void =>
    rig.hear({ kind: 'relay', target: addressOf('a2'), targetNode: 'a2', payload });
  relay(response);
  assert.deepEqual(rig.list.sent.splice(0), [{ to: addressOf('a2'), node: 'a2', payload: response }]);
  relay(serfCodec.encode({ kind: 'leave', time: 9, node: 'a2', prune: true }));
  relay(text('anything'));
  relay(
    serfCodec.encode({
      kind: 'queryResponse',
      time: 1,
      id: 7,
      from: 'b3',
      isAck: false,
      payload: new Uint8Array(2_000),
    }),
  );
  assert.deepEqual(rig.list.sent, []);
  assert.equal(rig.serf.statistics.refused, 3);
});

test('[G6] a forged query does not aim the cluster at a bystander: what goes to no member is rationed', () => {
  const rig = new Rig({ others: ['a2'] });
  const source = { host: '203.0.113.9', port: 53 };
  for (let id = 0; id < 200; id++) rig.hear(queryOf({ id, wantsAck: true, source }));
  assert.equal(rig.list.takeSent().length, STRANGER_SENDS_PER_SECOND);
  rig.hear(queryOf({ id: 201, wantsAck: true }));
  assert.equal(rig.list.takeSent().length, 1, 'members are answered all the same');
  rig.now += 1_000;
  rig.hear(queryOf({ id: 202, wantsAck: true, source }));
  assert.equal(rig.list.takeSent().length, 1);
});

test('an address in the 16 bytes of IPv6 is the same address', () => {
  const rig = new Rig({ others: ['a2'] });
  const source = { host: '::ffff:10.0.0.2', port: 7_946 };
  for (let id = 0; id < 50; id++) rig.hear(queryOf({ id, wantsAck: true, source }));
  assert.equal(rig.list.takeSent().length, 50);
});

test('[G7] of one Lamport time only so many queries are taken, and of those that are open the oldest give way', () => {
  const rig = new Rig({ others: ['a2'] });
  for (let id = 0; id < QUERIES_PER_SLOT_MAX + 50; id++) rig.hear(queryOf({ id }));
  assert.equal(rig.events.length, QUERIES_PER_SLOT_MAX);
  const first = rig.events[0];
  for (let i = 0; i < OPEN_QUERIES_MAX; i++) rig.hear(queryOf({ time: 2 + i }));
  assert.ok(first?.kind === 'query');
  assert.equal(rig.serf.respond(first.handle, NO_BYTES, rig.now), 'QUERY_CLOSED');
  assert.equal(rig.serf.respond(lastQuery(rig).handle, NO_BYTES, rig.now), null);
});

test('[G7] no query of another waits longer than the bound', () => {
  const rig = new Rig({ others: ['a2'] });
  const bytes = serfCodec.encode(queryOf({ timeoutMs: 86_400_000 }));
  rig.serf.onUser(bytes, rig.now);
  assert.equal(lastQuery(rig).deadline, rig.now + QUERY_TIMEOUT_MS_MAX);
});

test('queries of this node are bounded in number and size, and in what they ask of tags', () => {
  const rig = new Rig();
  const start = (change: Partial<QueryRequest>) => rig.serf.query({ ...UPTIME, ...change }, {}, rig.now);
  assert.deepEqual(start({ payload: new Uint8Array(1_000) }), { refusal: 'QUERY_TOO_LARGE' });
  assert.deepEqual(start({ tags: new Map([['role', '(']]) }), { refusal: 'EXPRESSION_NOT_SUPPORTED' });
  for (let i = 0; i < RUNNING_QUERIES_MAX; i++) assert.ok('handle' in start({}));
  assert.deepEqual(start({}), { refusal: 'QUERIES_TOO_MANY' });
  rig.pass(3_200);
  const last = start({});
  assert.ok('handle' in last);
  rig.serf.endQuery(last.handle);
});

test('a query with filters names nodes and tags', () => {
  const rig = new Rig({ others: ['b2'] });
  const { query } = ask(rig, {
    ...UPTIME,
    nodes: ['b2'],
    tags: new Map([['role', 'x']]),
    relayFactor: 2,
    timeoutMs: 900,
  });
  assert.deepEqual(query.filters, [
    { kind: 'nodes', nodes: ['b2'] },
    { kind: 'tag', tag: 'role', expression: 'x' },
  ]);
  assert.deepEqual([query.relayFactor, query.timeoutMs], [2, 900]);
  assert.deepEqual(rig.takeEvents(), [], 'this node is not meant');
});

test('internal_query.go: a ping is acknowledged and not told; what is unknown is not told either', () => {
  const rig = new Rig({ others: ['a2'] });
  rig.hear(queryOf({ name: '_serf_ping', wantsAck: true }));
  rig.hear(queryOf({ name: '_serf_other', id: 78 }));
  assert.deepEqual(
    rig.list.takeSent().map(({ message }) => message?.kind === 'queryResponse' && message.isAck),
    [true],
  );
  assert.deepEqual(rig.takeEvents(), []);
  assert.equal(rig.serf.times.queryTime, 1, 'but the snapshot knows of it');
});

class FakeKeyring implements SerfKeyring {
  readonly calls: string[] = [];
  keys: readonly string[] = ['QUFB', 'QkJC'];
  failure: string | null = null;
  done: (() => void) | null = null;

  change(operation: string, key: Uint8Array, done: (failure: string | null, now: number) => void): void {
    this.calls.push(`${operation} ${Buffer.from(key).toString()}`);
    this.done = () => done(this.failure, 1_500);
  }

  list(): { keys: readonly string[]; primaryKey: string } {
    return { keys: this.keys, primaryKey: 'QUFB' };
  }
}

function keyAnswer(rig: Rig): SerfMessage | null {
  const [sent] = rig.list.takeSent();
  return sent?.message?.kind === 'queryResponse' ? serfCodec.decode(sent.message.payload) : null;
}

test('internal_query.go: keys are installed, used and removed; the answer waits for the keyring', () => {
  const keyring = new FakeKeyring();
  const rig = new Rig({ others: ['a2'], keyring });
  const payload = serfCodec.encode({ kind: 'keyRequest', key: text('secret') });
  for (const [id, operation] of ['install-key', 'use-key', 'remove-key'].entries()) {
    rig.hear(queryOf({ id, name: `_serf_${operation}`, payload }));
    assert.deepEqual(rig.list.sent, []);
    keyring.failure = operation === 'remove-key' ? 'the primary key stays' : null;
    keyring.done?.();
    const isDone = operation !== 'remove-key';
    const message = isDone ? '' : 'the primary key stays';
    assert.deepEqual(keyAnswer(rig), { kind: 'keyResponse', isDone, message, keys: [], primaryKey: '' });
  }
  assert.deepEqual(keyring.calls, ['install-key secret', 'use-key secret', 'remove-key secret']);
  assert.deepEqual(rig.takeEvents(), []);
});

test('internal_query.go: a key request that cannot be read, or that is about no keyring, is answered with why', () => {
  const rig = new Rig({ others: ['a2'], keyring: new FakeKeyring() });
  rig.hear(queryOf({ name: '_serf_install-key', payload: NO_BYTES }));
  const unread = keyAnswer(rig);
  assert.ok(unread?.kind === 'keyResponse' && !unread.isDone && unread.message !== '');
  const plain = new Rig({ others: ['a2'] });
  plain.hear(queryOf({ name: '_serf_list-keys' }));
  const absent = keyAnswer(plain);
  assert.ok(absent?.kind === 'keyResponse' && !absent.isDone && /not encrypted/.test(absent.message));
});

test('internal_query.go keyListResponseWithCorrectSize: of many keys so many are told as fit', () => {
  const keyring = new FakeKeyring();
  const rig = new Rig({ others: ['a2'], keyring });
  rig.hear(queryOf({ name: '_serf_list-keys' }));
  assert.deepEqual(keyAnswer(rig), {
    kind: 'keyResponse',
    isDone: true,
    message: '',
    keys: keyring.keys,
    primaryKey: 'QUFB',
  });
  keyring.keys = Array.from({ length: 50 }, (_, i) => String(i).padStart(44, 'A'));
  rig.hear(queryOf({ id: 78, name: '_serf_list-keys' }));
  const bytes = rig.list.sent[0]?.payload.length ?? 0;
  assert.ok(bytes <= QUERY_RESPONSE_BYTES_MAX && bytes > QUERY_RESPONSE_BYTES_MAX - 50, `${bytes} bytes`);
  const fitting = keyAnswer(rig);
  assert.ok(fitting?.kind === 'keyResponse');
  assert.match(fitting.message, /the first 1\d of 50 keys/);
});

test('keymanager.go: this node asks about keys only if it has a keyring, and answers itself', () => {
  assert.deepEqual(new Rig().serf.queryKeys('list-keys', null, {}, 0), { refusal: 'KEYRING_ABSENT' });
  const keyring = new FakeKeyring();
  const rig = new Rig({ keyring });
  const answers: (SerfMessage | null)[] = [];
  rig.serf.queryKeys(
    'use-key',
    text('k'),
    { onResponse: (_, payload) => answers.push(serfCodec.decode(payload)) },
    rig.now,
  );
  keyring.done?.();
  assert.deepEqual(keyring.calls, ['use-key k']);
  assert.deepEqual(answers, [{ kind: 'keyResponse', isDone: true, message: '', keys: [], primaryKey: '' }]);
});
