/** [F13] What an operator who is bound to a tenant is shown, and may change, by each method of the services for operators, and by the console. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import type { Client } from '../../src/client/index.ts';
import { NEEDS } from '../../src/grpc/access/methods.ts';
import { AdminService, SubjectInfoRequest, TrimSubjectRequest } from '../../src/grpc/gen/broker/v1/admin.ts';
import { ClusterService } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';
import { CallError } from '../support/client.ts';
import { AccessRig } from './access-rig.ts';

const EVERYTHING = 'allow: {publish: [">"], subscribe: [">"], fetch: [">"]}';
const row = (name: string, more: string): string => `  - {name: ${name}, hash: "${hashOf(name)}", ${more}}\n`;
const FILE = `tokens:
${row('acme-admin', `tenant: acme, admin: true, ${EVERYTHING}`)}
${row('acme-observer', `tenant: acme, observe: true, ${EVERYTHING}`)}
${row('proxy', `tenant: "*", admin: true, ${EVERYTHING}`)}
${row('globex', `tenant: globex, ${EVERYTHING}`)}
${row('nobody', EVERYTHING)}
${row('operator', 'admin: true')}
`;
/** Are in every name that is not acme's. */
const FOREIGN = /globex|secret/;

/** What each of the two bound ones gets: what is their own, or a refusal for being bound, or for not being an admin. */
type Outcome = 'own' | 'TENANT_BOUND' | 'PERMISSION_DENIED' | 'NOT_CLUSTERED';
const TABLE: Readonly<Record<string, readonly [admin: Outcome, observer: Outcome]>> = {
  '/broker.v1.Admin/Status': ['TENANT_BOUND', 'TENANT_BOUND'],
  '/broker.v1.Admin/ListSubjects': ['own', 'own'],
  '/broker.v1.Admin/SubjectInfo': ['own', 'own'],
  '/broker.v1.Admin/TrimSubject': ['own', 'PERMISSION_DENIED'],
  '/broker.v1.Admin/ListShards': ['TENANT_BOUND', 'TENANT_BOUND'],
  '/broker.v1.Admin/ResizeShards': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Admin/MoveSlot': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Admin/AdviseShards': ['TENANT_BOUND', 'TENANT_BOUND'],
  '/broker.v1.Admin/ListSubscriptions': ['own', 'own'],
  '/broker.v1.Admin/ListConnections': ['own', 'own'],
  '/broker.v1.Admin/TopSubjects': ['own', 'own'],
  '/broker.v1.Admin/ListTenants': ['own', 'own'],
  '/broker.v1.Admin/ListSettings': ['TENANT_BOUND', 'TENANT_BOUND'],
  '/broker.v1.Admin/ChangeSetting': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Admin/Verify': ['own', 'PERMISSION_DENIED'],
  '/broker.v1.Admin/DebugInfo': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Cluster/Members': ['TENANT_BOUND', 'TENANT_BOUND'],
  // Of nodes, whom their certificates show; one that is alone takes none.
  '/broker.v1.Cluster/Join': ['NOT_CLUSTERED', 'NOT_CLUSTERED'],
  '/broker.v1.Cluster/Add': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Cluster/Remove': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Cluster/Promote': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Cluster/TransferLeader': ['TENANT_BOUND', 'PERMISSION_DENIED'],
  '/broker.v1.Cluster/GossipKeys': ['TENANT_BOUND', 'PERMISSION_DENIED'],
};
const SUBJECT = 'own.orders';
/** Methods that name what is the caller's own. */
const OWN = new Set(['ListSubjects', 'SubjectInfo', 'ListSubscriptions', 'ListConnections', 'ListTenants']);
const REQUESTS: Readonly<Record<string, Uint8Array>> = {
  '/broker.v1.Admin/SubjectInfo': SubjectInfoRequest.encode({ subject: SUBJECT, tenant: '' }).finish(),
  '/broker.v1.Admin/TrimSubject': TrimSubjectRequest.encode({ subject: SUBJECT, first: 1, tenant: '' }).finish(),
};

describe('an operator who is bound to a tenant', () => {
  let rig: AccessRig;
  let raw: grpc.Client;
  const held: Pick<Client, 'close'>[] = [];

  before(async () => {
    rig = await AccessRig.start(FILE, ['--quotas-rules', '*=1000000msg/s', '--console-write']);
    raw = new grpc.Client(rig.broker.address, grpc.credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
    const subjects = { 'acme-admin': SUBJECT, globex: 'secret.globex', nobody: 'secret.nobody' };
    for (const [who, subject] of Object.entries(subjects)) {
      const client = rig.as(who);
      for (let i = 0; i < 3; i++) await client.publish(subject, 'x');
      const subscription = client.subscribe(subject, { start: 'earliest' });
      held.push(subscription);
      await subscription.started;
    }
  });
  after(async () => {
    raw.close();
    await Promise.all(held.map((subscription) => subscription.close()));
    await rig.dispose();
  });

  /** The answers as JSON, or the reason of the refusal. */
  async function call(path: string, who: string, tenant?: string): Promise<{ outcome: string; answers: unknown[] }> {
    const method = Object.values({ ...AdminService, ...ClusterService }).find((one) => one.path === path);
    assert.ok(method !== undefined, path);
    const metadata = new grpc.Metadata();
    metadata.set('authorization', `Bearer ${tokenOf(who)}`);
    if (tenant !== undefined) metadata.set('x-tenant', tenant);
    const stream = raw.makeServerStreamRequest(
      path,
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes: Buffer): unknown => method.responseDeserialize(bytes),
      REQUESTS[path] ?? new Uint8Array(0),
      metadata,
      { deadline: Date.now() + 30_000 },
    );
    const answers: unknown[] = [];
    try {
      for await (const answer of stream) answers.push(answer);
    } catch (error) {
      const refusal = new CallError(error as grpc.ServiceError);
      if (refusal.reason === 'TENANT_BOUND') assert.equal(refusal.statusName, 'PERMISSION_DENIED');
      return { outcome: refusal.reason ?? refusal.message, answers };
    }
    return { outcome: 'own', answers };
  }

  it('has every method of these services in the table, and of each what it says', async () => {
    const ofOperators = [...NEEDS.keys()].filter((path) => /^\/broker\.v1\.(Admin|Cluster)\//.test(path));
    assert.deepEqual(Object.keys(TABLE).sort(), ofOperators.sort());
    for (const [path, expected] of Object.entries(TABLE)) {
      for (const [i, who] of ['acme-admin', 'acme-observer'].entries()) {
        const { outcome, answers } = await call(path, who);
        assert.equal(outcome, expected[i], `${path} of ${who}`);
        const told = JSON.stringify(answers);
        assert.doesNotMatch(told, FOREIGN, `${path} of ${who}`);
        if (OWN.has(path.slice(path.lastIndexOf('/') + 1))) assert.match(told, /own\.orders|acme/, path);
      }
    }
  });

  it('is told no number of others: of subscriptions, connections, tenants and shares of what is published', async () => {
    const client = rig.as('acme-observer');
    const subscriptions = await client.subscriptions();
    assert.deepEqual([subscriptions.total, subscriptions.subscriptions.length], [1, 1]);
    const { total, connections } = await client.connections();
    assert.equal(total, connections.length);
    assert.deepEqual([...new Set(connections.map(({ tenant }) => tenant))], ['acme']);
    const { tenants, quotas } = await client.tenants();
    assert.deepEqual([[...new Set(tenants.map(({ tenant }) => tenant))], quotas], [['acme'], []]);
    const { subjects } = await client.topSubjects();
    for (const { share } of subjects) assert.equal(share, 1, 'of what it may see');
  });

  it('is whoever names a tenant: a token for any is an operator of all only as long as it names none', async () => {
    assert.equal((await call('/broker.v1.Admin/Status', 'proxy')).outcome, 'own');
    assert.equal((await call('/broker.v1.Admin/Status', 'proxy', 'acme')).outcome, 'TENANT_BOUND');
    assert.doesNotMatch(JSON.stringify(await call('/broker.v1.Admin/ListSubjects', 'proxy', 'acme')), FOREIGN);
    for (const path of ['/broker.v1.Admin/Status', '/broker.v1.Admin/ListSettings', '/broker.v1.Cluster/Members'])
      assert.equal((await call(path, 'operator')).outcome, 'own', path);
    assert.match(JSON.stringify(await call('/broker.v1.Admin/ListSubjects', 'operator')), FOREIGN);
  });

  it('sees in the console what is its own, and changes nothing of the node there', async () => {
    const origin = `http://${rig.broker.adminAddress}`;
    const ask = async (path: string, headers: Record<string, string>, body?: object) => {
      const sent = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) };
      const response = await fetch(`${origin}/api/v1/${path}`, { headers, ...sent });
      const cookie = response.headers.get('set-cookie')?.split(';', 1)[0] ?? '';
      return { status: response.status, cookie, text: await response.text() };
    };
    const json = { origin, 'content-type': 'application/json' };
    const { cookie } = await ask('login', json, { token: tokenOf('acme-admin') });
    const session = JSON.parse((await ask('session', { cookie })).text) as Record<string, unknown>;
    const ofNode = ['overview', 'nodes', 'shards', 'settings'];
    assert.deepEqual([session.without, session.mayWrite, session.token], [ofNode, false, '']);
    for (const page of ofNode) {
      const { status, text } = await ask(page, { cookie });
      assert.equal(status, 403, page);
      assert.match(text, /TENANT_BOUND/, page);
    }
    for (const page of ['subjects', `subject?name=${SUBJECT}`, 'subscriptions', 'connections', 'tenants']) {
      const { status, text } = await ask(page, { cookie });
      assert.equal(status, 200, page);
      assert.doesNotMatch(text, FOREIGN, page);
    }
    for (const [path, body] of [
      ['shards/resize', { shards: 2 }],
      ['advice/apply', { recommended: 1 }],
    ] as const)
      assert.equal((await ask(path, { ...json, cookie, 'x-broker-console': 'x' }, body)).status, 403, path);
  });
});
