/** What the store on Cassandra decides without a server: consistencies, what errors mean, groups, times. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { test } from 'node:test';
import { errors, types } from 'cassandra-driver';
import { BrokerError } from '../../src/base/errors.ts';
import { createClient, requestTimeoutMs, WriteRetryPolicy, whyUnusable } from '../../src/storage/cassandra/connect.ts';
import { type Consistency, levelOf } from '../../src/storage/cassandra/consistency.ts';
import { GroupTries } from '../../src/storage/cassandra/in-flight.ts';
import { isWithoutEffect } from '../../src/storage/cassandra/outcome.ts';
import { trimTimestamp, writeTimestamp } from '../../src/storage/cassandra/write-rules.ts';
import { InFlight } from '../../src/storage/in-flight.ts';
import { StoreUncertain } from '../../src/storage/store.ts';

const LOCAL = 0b000111;
const REMOTE = 0b111000;

/** Is a set of replicas, three in the local data centre and three in another, enough for the level? */
const ENOUGH: Readonly<Record<number, (replicas: number) => boolean>> = {
  [types.consistencies.localQuorum]: (set) => ones(set & LOCAL) >= 2,
  [types.consistencies.quorum]: (set) => ones(set) >= 4,
  [types.consistencies.eachQuorum]: (set) => ones(set & LOCAL) >= 2 && ones(set & REMOTE) >= 2,
  [types.consistencies.all]: (set) => ones(set) === 6,
  [types.consistencies.three]: (set) => ones(set) >= 3,
  [types.consistencies.two]: (set) => ones(set) >= 2,
  [types.consistencies.one]: (set) => ones(set) >= 1,
  [types.consistencies.localOne]: (set) => ones(set & LOCAL) >= 1,
};

function ones(bits: number): number {
  return bits === 0 ? 0 : (bits & 1) + ones(bits >> 1);
}

function setsFor(level: types.consistencies): number[] {
  return Array.from({ length: 64 }, (_, set) => set).filter((set) => ENOUGH[level]?.(set));
}

for (const consistency of [
  'LOCAL_QUORUM',
  'QUORUM',
  'EACH_QUORUM',
  'ALL',
  'THREE',
  'TWO',
  'ONE',
  'LOCAL_ONE',
] satisfies Consistency[]) {
  test(`whatever replicas have a write at ${consistency}, a read asks one of them`, () => {
    const { write, read, isWeak } = levelOf(consistency);
    const missed = setsFor(write).filter((written) => setsFor(read).some((asked) => (asked & written) === 0));
    assert.deepEqual(missed, []);
    // Weak: with the loss of any one replica in either data centre it could be gone.
    assert.equal(
      isWeak,
      setsFor(write).some((set) => ones(set & LOCAL) < 2 && ones(set) < 4),
    );
  });
}

function refusal(code: number): Error {
  return new errors.ResponseError(code, 'refused');
}

/** As the driver marks what went out on a connection. */
function sent<T extends Error>(error: T, more: object = {}): T {
  return Object.assign(error, { coordinator: '10.0.0.1:9042' }, more);
}

function noHost(inner: Record<string, unknown>): Error {
  return new errors.NoHostAvailableError(inner as Record<string, Error>);
}

const MEANINGS: readonly (readonly [string, Error, boolean])[] = [
  ['not enough replicas alive', refusal(types.responseErrorCodes.unavailableException), true],
  ['bad statement', refusal(types.responseErrorCodes.invalid), true],
  ['a write that timed out on the server', refusal(types.responseErrorCodes.writeTimeout), false],
  ['overloaded', refusal(types.responseErrorCodes.overloaded), false],
  ['no answer', new errors.OperationTimedOutError('no answer'), false],
  ['every host known to be down', noHost({ a: 'Host considered as DOWN' }), true],
  ['no connection to any host', noHost({ a: new Error('No connection available') }), true],
  ['not written to its socket', noHost({ a: sent(new Error('reset'), { requestNotWritten: true }) }), true],
  ['one host was asked and fell silent', noHost({ a: 'Host considered as DOWN', b: sent(new Error('reset')) }), false],
];

for (const [name, error, isNothing] of MEANINGS) {
  test(`${name}: ${isNothing ? 'nothing was written' : 'not known'}`, () => {
    assert.equal(isWithoutEffect(error), isNothing);
  });
}

test('another node is asked to write only after a refusal: then the last answer is that of the whole', () => {
  const policy = new WriteRetryPolicy();
  const { retry, rethrow } = { retry: 1, rethrow: 0 };
  const info = { nbRetry: 0 } as never;
  const decide = (error: Error): number => policy.onRequestError(info, types.consistencies.localQuorum, error).decision;
  assert.equal(decide(refusal(types.responseErrorCodes.isBootstrapping)), retry);
  assert.equal(decide(new errors.OperationTimedOutError('no answer')), rethrow);
  assert.equal(decide(sent(new Error('reset'))), rethrow);
  assert.equal(policy.onWriteTimeout().decision, rethrow);
});

const REFUSED = new BrokerError('STORE_UNAVAILABLE', 'refused');
const UNCERTAIN = new StoreUncertain('no answer');

async function outcomeOf(limit: number, ends: readonly (Error | null)[]): Promise<{ begun: number; error: unknown }> {
  const tries = new GroupTries(new InFlight(limit));
  let begun = 0;
  for (const end of ends) {
    tries.add(async () => {
      begun += 1;
      await new Promise((resolve) => setImmediate(resolve));
      if (end !== null) throw end;
    });
  }
  const error = await tries.outcome().then(
    () => null,
    (reason: unknown) => reason,
  );
  return { begun, error };
}

test('a group is stored when all its writes are', async () => {
  assert.deepEqual(await outcomeOf(2, [null, null, null]), { begun: 3, error: null });
});

test('after a write without an answer those that have not begun are left out, and the group is uncertain', async () => {
  const ends = [UNCERTAIN, null, ...Array.from({ length: 50 }, () => null)];
  assert.deepEqual(await outcomeOf(2, ends), { begun: 2, error: UNCERTAIN });
});

test('a group of which every write that began was refused is not stored', async () => {
  assert.deepEqual(await outcomeOf(2, [REFUSED, REFUSED, null]), { begun: 2, error: REFUSED });
});

test('a group of which one write was refused and another done is uncertain', async () => {
  const { error } = await outcomeOf(8, [REFUSED, null]);
  assert.ok(error instanceof StoreUncertain);
});

test('one request has a quarter of store.timeout, but not less than a server takes, and never more than all of it', () => {
  assert.deepEqual([60_000, 10_000, 3_000, 500].map(requestTimeoutMs), [15_000, 2_500, 2_500, 500]);
});

test('what a trim deletes is gone, batch or mark', () => {
  const publishedAt = 1_795_664_014_295;
  assert.ok(trimTimestamp(publishedAt) > writeTimestamp({ publishedAt, kind: 'void' }));
  assert.ok(writeTimestamp({ publishedAt, kind: 'void' }) > writeTimestamp({ publishedAt, kind: 'data' }));
  assert.ok(Number.isSafeInteger(trimTimestamp(publishedAt * 4)), 'exact for more than a century');
});

test('why Cassandra cannot be used is one line that begins with the key to look at', () => {
  const login = new errors.AuthenticationError('wrong\nand more');
  assert.equal(whyUnusable(noHost({ 'a:1': login })), 'cassandra.username and cassandra.password: a:1: wrong');
  assert.equal(whyUnusable(noHost({ 'a:1': new Error('x'), 'b:1': 'down' })), 'a:1: x; b:1: down');
  assert.match(whyUnusable(noHost({})), /^cassandra\.contact_points: /);
});

test('a connection that breaks in its handshake is given up after the time for connecting, not after that of slow statements', {
  // Only ends a wait that would never end: with that of slow statements it would be 30 s.
  timeout: 25_000,
}, async (t) => {
  // Takes the first request, and closes without an answer: the driver does not notice.
  const server = createServer((socket) => socket.once('data', () => socket.destroy()).on('error', () => undefined));
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const client = createClient({
    contactPoints: [`127.0.0.1:${port}`],
    datacenter: 'dc1',
    credentials: null,
    tls: null,
    inFlight: 1,
    timeoutMs: 200,
  });
  t.after(() => client.shutdown());
  // Nor does it end the heartbeat of such a connection, which would keep this process alive.
  const { options } = client as unknown as { readonly options: { readonly pooling: { heartBeatInterval: number } } };
  options.pooling.heartBeatInterval = 0;
  await assert.rejects(client.connect(), errors.NoHostAvailableError);
});
