/** What a node may do to the members of its cluster by its certificate, and what it may not: real connections, and an access file. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { ServiceError } from '@grpc/grpc-js';
import { Policy } from '../../src/access/policy.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import { callPeer } from '../../src/grpc/cluster-client.ts';
import { readDetails } from '../../src/grpc/error-details.ts';
import { ClusterService as Methods, type RemoveRequest } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { NodeCallers } from '../../src/grpc/node-callers.ts';
import type { PeerCredentials } from '../../src/grpc/peer-credentials.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { ClusterService } from '../../src/workers/membership/cluster-service.ts';
import { mendLog } from '../../src/workers/membership/mend-log.ts';
import type { ClusterView, MemberChange, MemberView } from '../../src/workers/messages.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { startServer } from '../unit/grpc-rig.ts';
import { Authority, keeperOf, peer } from './node-rig.ts';

const ACCESS = `
tokens:
  - {name: operator, hash: "${hashOf('operator')}", admin: true}
  - {name: watcher, hash: "${hashOf('watcher')}", observe: true}
certificates:
  - {name: ops, admin: true}
`;

function instanceOf(node: string): string {
  return Buffer.from(node.padEnd(16, '.')).toString('hex');
}

function memberOf(node: string, grpc: string): MemberView {
  const instance = instanceOf(node);
  const heard = { isVoter: true, isLeader: node === 'b', match: 1, isActive: true, openAllotments: 0 };
  return { node, instance, raft: `${node}:12000`, grpc, clockOffsetMs: null, protocol: 1, ...heard };
}

/** A node of a cluster that `b` leads, with a log that only notes what it is asked. */
async function nodeOf(t: TestContext, ca: Authority, node: string, leaderAddress: string | null = null) {
  const changes: MemberChange[] = [];
  const material = ca.node(node);
  let members: readonly MemberView[] = [];
  const raft = {
    cluster: async (): Promise<ClusterView> => ({
      node,
      leader: 'b',
      term: 1,
      lastIndex: 1,
      committed: 1,
      applied: 1,
      members,
    }),
    status: async () => null,
    change: async (change: MemberChange) => {
      changes.push(change);
      return { reason: null, message: '' };
    },
  };
  const security = peer(material);
  const service = new ClusterService({
    ...{ raft, isClustered: true, clusterId: 'id', clusterName: 'c', nodeId: node, instanceId: instanceOf(node) },
    ...{ votersWanted: 3, gossip: () => null, keys: () => [], joinsNeedProof: true, now: Date.now },
    grpcAddress: () => '',
    call: (address, method, request, options) => callPeer(address, method, request, { ...options, security }),
    changeKeys: () => Promise.reject(new Error('not here')),
  });
  const parsed = parseAccessFile(ACCESS, 'access.yaml', () => '');
  assert.ok('document' in parsed);
  const others = new AccessCallers({
    policy: new Policy(parsed.document),
    cluster: 'c',
    notes: { refused: () => undefined, denied: () => undefined },
    spaceOf: () => new Uint8Array(0),
    now: Date.now,
  });
  const news = { warn: () => undefined };
  const server = await startServer(t, {
    callers: new NodeCallers({ others, isOpen: false, cluster: 'c', isRequired: true, news }),
    cluster: service,
    tls: { keeper: keeperOf(material), minVersion: 'TLSv1.3', clientCertificates: 'optional' },
    news,
  });
  members = [memberOf('a', 'a:8081'), memberOf('b', leaderAddress ?? server.address), memberOf('d', 'd:8081')];
  return { address: server.address, changes };
}

interface Asking {
  readonly security: PeerCredentials;
  readonly isForwarded?: boolean;
  readonly who?: string;
}

/** `ok`, or the reason of the refusal. */
async function remove(
  address: string,
  request: Partial<RemoveRequest>,
  { security, isForwarded = false, who }: Asking,
) {
  const authorization = who === undefined ? null : `Bearer ${tokenOf(who)}`;
  const options = { deadlineMs: Date.now() + 20_000, isForwarded, authorization, security };
  return await outcomeOf(
    callPeer(address, Methods.remove, { nodeId: '', instanceId: '', force: false, ...request }, options),
  );
}

async function outcomeOf(call: Promise<unknown>): Promise<string> {
  return await call.then(
    () => 'ok',
    ({ metadata, message }: ServiceError) => readDetails(metadata).reason ?? message,
  );
}

test('[F12] a node has itself taken out, never another one, nor by force, also if it says that it passes that on', async (t) => {
  const ca = new Authority(temporaryFolder(t), 'ca');
  const leader = await nodeOf(t, ca, 'b');
  const security = peer(ca.node('a'));
  const ofWatcher = { security, isForwarded: true, who: 'watcher' };
  for (const [request, asking] of [
    [{ nodeId: 'd' }, { security }],
    [{ nodeId: 'a', force: true }, { security }],
    [{ nodeId: 'd' }, { security, isForwarded: true }],
    [
      { nodeId: 'd', force: true },
      { security, isForwarded: true },
    ],
    [{ nodeId: 'd' }, ofWatcher],
  ] as const) {
    assert.equal(await remove(leader.address, request, asking), 'PERMISSION_DENIED', JSON.stringify(request));
  }
  const options = { deadlineMs: Date.now() + 20_000, isForwarded: true, security };
  for (const call of [
    callPeer(leader.address, Methods.promote, { nodeId: 'd' }, options),
    callPeer(leader.address, Methods.transferLeader, { nodeId: 'd' }, options),
  ])
    assert.equal(await outcomeOf(call), 'CREDENTIALS_MISSING');
  assert.equal(leader.changes.length, 0);
  assert.equal(await remove(leader.address, { nodeId: 'a' }, { security }), 'ok');
  // An operator on the machine of a node, with its certificate.
  assert.equal(await remove(leader.address, { nodeId: 'd', force: true }, { security, who: 'operator' }), 'ok');
  assert.deepEqual(leader.changes, [
    { kind: 'remove', node: 'a', instance: '', force: false },
    { kind: 'remove', node: 'd', instance: '', force: true },
  ]);
});

test('[F12] what an operator asks of any node is judged by the leader too, by the token that is passed on', async (t) => {
  const ca = new Authority(temporaryFolder(t), 'ca');
  const leader = await nodeOf(t, ca, 'b');
  const follower = await nodeOf(t, ca, 'd', leader.address);
  const security = peer(ca.named('nobody', 'broker://c/client/nobody'));
  const change = { nodeId: 'a', force: true };
  assert.equal(await remove(follower.address, change, { security, who: 'watcher' }), 'PERMISSION_DENIED');
  assert.equal(await remove(follower.address, change, { security, who: 'operator' }), 'ok');
  assert.equal(leader.changes.length, 1);
  // A certificate cannot be passed on.
  const byCertificate = { security: peer(ca.named('ops', 'broker://c/client/ops')) };
  assert.equal(await remove(follower.address, change, byCertificate), 'NOT_LEADER');
  assert.equal(await remove(leader.address, change, byCertificate), 'ok');
});

test('[F12] a node whose log is damaged finds the leader by any other node, and has itself taken out there', async (t) => {
  const folder = temporaryFolder(t);
  const ca = new Authority(folder, 'ca');
  const leader = await nodeOf(t, ca, 'b');
  const follower = await nodeOf(t, ca, 'd', leader.address);
  const raftPath = join(folder, 'raft');
  mkdirSync(raftPath);
  const node = {
    version: 1,
    createdAt: '',
    clusterId: 'id',
    clusterName: 'c',
    nodeId: 'a',
    instanceId: instanceOf('a'),
  };
  const fresh = await mendLog({
    disk: new NodeDisk(),
    directory: { path: folder, raftPath },
    node,
    damage: 'a bit is wrong',
    seeds: () => [follower.address],
    known: [],
    electionMs: 1_000,
    security: peer(ca.node('a')),
    signal: new AbortController().signal,
    tell: () => undefined,
  });
  assert.notEqual(fresh.instanceId, node.instanceId);
  assert.deepEqual(leader.changes, [{ kind: 'remove', node: 'a', instance: node.instanceId, force: false }]);
  assert.deepEqual(follower.changes, []);
});
