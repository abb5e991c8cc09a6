/** Changing the keys of gossip on all nodes, against nodes that answer what the test wants. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BrokerError } from '../../src/base/errors.ts';
import type { KeyResponse } from '../../src/gossip/serf/messages.ts';
import type { GossipKeysRequest } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { changeKeys, fingerprintOf, type KeyQueries } from '../../src/workers/gossip/key-changes.ts';
import type { GossipMember } from '../../src/workers/gossip/types.ts';

const [OLD, NEW] = [Buffer.alloc(32, 1), Buffer.alloc(16, 2)];

function member(node: string): GossipMember {
  const address = { host: '127.0.0.1', port: 7946 };
  return { node, status: 'alive', address, tags: {}, protocol: [2, 5, 5], isSelf: false };
}

/** n1, n2 and n3; `answers`: of each query in turn, by node. */
function nodes(
  answers: readonly Record<string, Partial<KeyResponse> | 'nonsense'>[],
  isSilent = false,
  away: readonly GossipMember[] = [],
) {
  const asked: string[] = [];
  const left = [...answers];
  const gossip: KeyQueries = {
    keys: () => [OLD, NEW],
    view: () => [...['n1', 'n2', 'n3'].map(member), ...away],
    queryKeys: (operation, key, watcher) => {
      asked.push(key === null ? operation : `${operation} ${fingerprintOf(key)}`);
      for (const [node, answer] of Object.entries(left.shift() ?? {})) {
        watcher.onResponse?.(node, Buffer.from(JSON.stringify(answer)));
      }
      if (!isSilent) watcher.onDone?.();
      return { handle: 1 };
    },
    decode: (payload) => {
      const answer = JSON.parse(Buffer.from(payload).toString()) as Partial<KeyResponse> | 'nonsense';
      if (answer === 'nonsense') return null;
      return { kind: 'keyResponse', isDone: true, message: '', keys: [], primaryKey: '', ...answer };
    },
  };
  return { gossip, asked };
}

function request(rest: Partial<GossipKeysRequest>): GossipKeysRequest {
  return { action: 'list', key: Buffer.alloc(0), fingerprint: '', ...rest };
}

const HAS = (...keys: Buffer[]) => ({
  keys: keys.map((key) => key.toString('base64')),
  primaryKey: (keys[0] as Buffer).toString('base64'),
});

test('a list counts who has a key and who encrypts with it, without showing any', async () => {
  const { gossip } = nodes([{ n1: HAS(NEW, OLD), n2: HAS(OLD, NEW), n3: HAS(OLD) }]);
  const found = await changeKeys(gossip, request({}));
  assert.deepEqual(found, {
    nodes: 3,
    answered: 3,
    failures: [],
    keys: [
      { fingerprint: fingerprintOf(OLD), nodes: 3, primaryOn: 2 },
      { fingerprint: fingerprintOf(NEW), nodes: 2, primaryOn: 1 },
    ],
  });
  assert.equal(JSON.stringify(found).includes(OLD.toString('base64')), false);
});

test('a change says which nodes have refused it, and who is silent; nonsense is no answer', async () => {
  const { gossip, asked } = nodes([
    { n1: {}, n2: { isDone: false, message: 'no such key' }, n3: 'nonsense' },
    { n1: HAS(OLD), n2: HAS(OLD) },
  ]);
  const found = await changeKeys(gossip, request({ action: 'use', fingerprint: fingerprintOf(NEW).slice(0, 6) }));
  assert.deepEqual(asked, [`use-key ${fingerprintOf(NEW)}`, 'list-keys']);
  assert.deepEqual(found.failures, [{ nodeId: 'n2', message: 'no such key' }]);
  assert.deepEqual([found.nodes, found.answered], [3, 2]);
});

test('nothing is waited for when all have answered', async () => {
  const all = { n1: HAS(OLD), n2: HAS(OLD), n3: HAS(OLD) };
  const { gossip } = nodes([all, all], true);
  assert.equal((await changeKeys(gossip, request({ action: 'install', key: NEW }))).answered, 3);
});

for (const [name, rest, why] of [
  ['an unknown action', { action: 'rotate' }, /list, install, use or remove/],
  ['a key of another size', { action: 'install', key: Buffer.alloc(31) }, /16, 24 or 32 bytes, this one 31/],
  ['no key', { action: 'install', fingerprint: '3f9a' }, /key is missing/],
  ['neither key nor fingerprint', { action: 'use' }, /fingerprint, is missing/],
  ['a fingerprint that nobody has', { action: 'use', fingerprint: 'ffffffff' }, /no node has a key whose fingerprint/],
] as const) {
  test(`${name} is refused, and nothing is changed`, async () => {
    const { gossip, asked } = nodes([]);
    await assert.rejects(changeKeys(gossip, request(rest)), (error) => {
      assert.ok(error instanceof BrokerError && error.reason === 'GOSSIP_KEY_INVALID');
      assert.match(error.message, why);
      return true;
    });
    assert.deepEqual(
      asked.filter((query) => query !== 'list-keys'),
      [],
    );
  });
}

test('a broker that is away is waited for, an agent that is not', async () => {
  const all = { n1: HAS(OLD), n2: HAS(OLD), n3: HAS(OLD) };
  const broker: GossipMember = { ...member('n4'), status: 'failed', tags: { role: 'broker' } };
  const agent: GossipMember = { ...member('laptop'), status: 'failed' };
  const { gossip } = nodes([all], false, [broker, agent]);
  const { nodes: wanted, answered } = await changeKeys(gossip, request({}));
  assert.deepEqual([wanted, answered], [4, 3]);
});

test('a key that this node has no more can still be named by its fingerprint, while another node has it', async () => {
  const left = Buffer.alloc(32, 9);
  const { gossip, asked } = nodes([{ n3: HAS(OLD, left) }, { n1: {}, n2: {}, n3: {} }, { n1: HAS(OLD) }]);
  await changeKeys(gossip, request({ action: 'remove', fingerprint: fingerprintOf(left).slice(0, 8) }));
  assert.deepEqual(asked, ['list-keys', `remove-key ${fingerprintOf(left)}`, 'list-keys']);
});

test('without encryption there is nothing to change', async () => {
  const { gossip } = nodes([]);
  await assert.rejects(changeKeys({ ...gossip, keys: () => [] }, request({})), { reason: 'GOSSIP_OFF' });
  await assert.rejects(changeKeys({ ...gossip, queryKeys: () => ({ refusal: 'KEYRING_ABSENT' }) }, request({})), {
    reason: 'GOSSIP_OFF',
  });
});
