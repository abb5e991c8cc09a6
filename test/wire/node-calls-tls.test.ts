import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Client, type ServiceError, status } from '@grpc/grpc-js';
import type { AdminAction } from '../../src/grpc/access/admin-actions.ts';
import { OpenCallers } from '../../src/grpc/callers.ts';
import { callPeer } from '../../src/grpc/cluster-client.ts';
import { readDetails } from '../../src/grpc/error-details.ts';
import { ClusterService } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { NodeCallers } from '../../src/grpc/node-callers.ts';
import { PeerCredentials } from '../../src/grpc/peer-credentials.ts';
import { pem } from '../support/certificates.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { REFUSING_CLUSTER, startServer } from '../unit/grpc-rig.ts';
import { Authority, keeperOf, type Material, peer } from './node-rig.ts';

const EXPIRED = [new Date('2020-01-01'), new Date('2020-01-02')] as const;

/** A node's gRPC port: whose join calls it took, and what it said. */
async function nodePort(t: TestContext, material: Material, { isRequired = true, takesClearText = false } = {}) {
  const took: (string | null | undefined)[] = [];
  const said: Record<string, unknown>[] = [];
  const noted: string[] = [];
  const notes = {
    refused: ({ reason, path }: { reason: string; path: string }) => void noted.push(`${reason} ${path}`),
  };
  const actions: AdminAction[] = [];
  const news = { warn: (_: string, message: string, fields: object) => void said.push({ message, ...fields }) };
  const server = await startServer(t, {
    callers: new NodeCallers({ others: new OpenCallers(), isOpen: true, cluster: 'c', isRequired, news, notes }),
    onAction: (action) => void actions.push(action),
    cluster: {
      ...REFUSING_CLUSTER,
      join: async (_, { certified }) => {
        took.push(certified);
        return { members: [], leader: '' };
      },
    },
    tls: { keeper: keeperOf(material), minVersion: 'TLSv1.2', clientCertificates: 'optional', takesClearText },
    news,
  });
  return { address: server.address, server, took, said, noted, actions };
}

/** Null, or the reason of the refusal; '' if the call did not get so far. */
async function join(address: string, security: PeerCredentials, node: string | null = null): Promise<string | null> {
  const options = { deadlineMs: Date.now() + 20_000, isForwarded: false, node, security };
  try {
    await callPeer(address, ClusterService.join, { clusterId: 'c', member: undefined, proof: Buffer.of() }, options);
    return null;
  } catch (error) {
    const { code, metadata } = error as ServiceError;
    assert.ok(code === status.UNAVAILABLE || code === status.PERMISSION_DENIED, String(error));
    return readDetails(metadata).reason ?? '';
  }
}

test('[F12] calls of nodes are taken from a node of this cluster alone: each other one is refused, and logged with its address', async (t) => {
  const folder = temporaryFolder(t);
  const [ca, other] = [new Authority(folder, 'ca'), new Authority(folder, 'other')];
  const port = await nodePort(t, ca.node('b'));
  const expired = ca.material(ca.issueFor('old', 'URI:broker://c/node/a', EXPIRED));
  // Trusts whom it calls, whatever its own authority is.
  const trusting = (material: Material): PeerCredentials => peer({ ...material, ca: pem(ca.cert) });
  const matrix: [string, PeerCredentials, string, RegExp][] = [
    ['expired', trusting(expired), '', /has expired/],
    ['wrong authority', trusting(other.node('a')), '', /authority .* is not in tls\.ca/],
    ['a client', trusting(ca.named('x', 'broker://c/client/x')), 'NODE_UNPROVEN', /not for a node/],
    ['another cluster', trusting(ca.node('a', 'd')), 'NODE_UNPROVEN', /is for cluster d, this is c/],
    ['clear text', new PeerCredentials(null), '', /clear text/],
  ];
  for (const [what, security, reason, words] of matrix) {
    assert.equal(await join(port.address, security), reason, what);
    const last = port.said.at(-1);
    assert.match(String(last?.reason), words, what);
    assert.match(String(last?.peer), /^127\.0\.0\.1:\d+$/, what);
  }
  assert.deepEqual(port.took, []);
  assert.deepEqual(port.noted, Array(2).fill('NODE_UNPROVEN /broker.v1.Cluster/Join'));
  assert.equal(await join(port.address, peer(ca.node('a')), 'b'), null);
  assert.deepEqual(port.took, ['a']);
  assert.deepEqual(
    port.actions.map(({ caller, method, outcome }) => [caller, method, outcome]),
    [['node a', 'Join', 'ok']],
  );
});

test('[F12] without a certificate nobody is a node', async (t) => {
  const folder = temporaryFolder(t);
  const ca = new Authority(folder, 'ca');
  const port = await nodePort(t, ca.node('b'));
  // As a client that knows the authority and shows nothing.
  const { credentials } = await import('@grpc/grpc-js');
  const security = {
    to: async () => credentials.createSsl(Buffer.from(pem(ca.cert))),
    channelOptions: {},
  } as unknown as PeerCredentials;
  assert.equal(await join(port.address.replace('127.0.0.1', 'localhost'), security), 'NODE_UNPROVEN');
  assert.match(String(port.said.at(-1)?.reason), /shows no certificate/);
});

test('where nobody has to say who they are, the audit and the metrics name the certificate that somebody shows', async (t) => {
  const ca = new Authority(temporaryFolder(t), 'ca');
  const port = await nodePort(t, ca.node('b'));
  const { cert, key } = ca.issue('plain', 'DNS:x');
  for (const material of [ca.named('x', 'broker://c/client/x'), ca.material({ cert, key })]) {
    const security = peer(material);
    const options = { deadlineMs: Date.now() + 20_000, isForwarded: false, security };
    await assert.rejects(callPeer(port.address, ClusterService.promote, { nodeId: 'n' }, options));
  }
  assert.deepEqual(
    port.actions.map(({ caller }) => caller),
    ['certificate broker://c/client/x', 'certificate CN=plain'],
  );
  // A connection that stays.
  const client = new Client(port.address, await peer(ca.named('y', 'broker://c/client/y')).to(port.address, null), {
    ...peer(ca.node('a')).channelOptions,
  });
  t.after(() => client.close());
  await new Promise<void>((resolve, reject) =>
    client.waitForReady(Date.now() + 20_000, (error) => (error ? reject(error) : resolve())),
  );
  await until(
    () => port.server.certificates?.get('broker://c/client/y') === 1,
    () => JSON.stringify([...(port.server.certificates ?? [])]),
  );
});

test('[F12] a node calls nobody but the node that it wants', async (t) => {
  const folder = temporaryFolder(t);
  const [ca, other] = [new Authority(folder, 'ca'), new Authority(folder, 'other')];
  const own = peer(ca.node('a'));
  const matrix: [string, Material, string | null][] = [
    ['wrong authority', other.node('b'), 'b'],
    ['expired', ca.material(ca.issueFor('old', 'URI:broker://c/node/b', EXPIRED)), 'b'],
    ['a client', ca.named('x', 'broker://c/client/b'), 'b'],
    ['another cluster', ca.node('b', 'd'), 'b'],
    ['another node', ca.node('z'), 'b'],
    ['no node, where any would do', ca.named('y', 'broker://c/client/y'), null],
  ];
  for (const [what, material, wanted] of matrix) {
    const port = await nodePort(t, material);
    assert.equal(await join(port.address, own, wanted), '', what);
    assert.deepEqual(port.took, [], what);
  }
  const seed = await nodePort(t, ca.node('z'));
  assert.equal(await join(seed.address, own), null);
});

test('on the way to TLS a node calls by TLS whom it can, and others in clear text; its port takes both', async (t) => {
  const ca = new Authority(temporaryFolder(t), 'ca');
  const own = peer(ca.node('a'), true);
  const both = await nodePort(t, ca.node('b'), { isRequired: false, takesClearText: true });
  assert.equal(await join(both.address, new PeerCredentials(null)), null);
  assert.equal(await join(both.address, own, 'b'), null);
  assert.deepEqual(both.took, [null, 'a']);
  const before = await startServer(t, {
    cluster: { ...REFUSING_CLUSTER, join: async () => ({ members: [], leader: '' }) },
  });
  assert.equal(await join(before.address, own, 'b'), null);
});
