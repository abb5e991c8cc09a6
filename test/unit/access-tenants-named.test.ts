/** Callers who may make a call and name in it what is of others: each is refused, and told of. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { Policy } from '../../src/access/policy.ts';
import { spaceOf } from '../../src/base/subject-space.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import { AdminService } from '../../src/grpc/gen/broker/v1/admin.ts';
import { NodeCallers } from '../../src/grpc/node-callers.ts';
import { scopeOf, subjectMeant } from '../../src/workers/admin/viewed-subjects.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';
import { REFUSING_ADMIN, startServer } from './grpc-rig.ts';

const FILE = `tokens:
  - {name: ops, hash: "${hashOf('ops')}", tenant: acme, admin: true}
  - {name: ci, hash: "${hashOf('ci')}", tenant: acme, allow: {fetch: [orders]}}
`;

test('a call that names the tenant of others, or one that cannot be, is in the audit as well as one that may not be made', async (t) => {
  const parsed = parseAccessFile(FILE, 'a.yaml', () => assert.fail('no keys'));
  assert.ok('document' in parsed);
  const told: string[] = [];
  const notes = {
    refused: ({ reason, name, path }: { reason: string; name: string | null; path: string }): void =>
      void told.push(`${reason} ${name} ${path.slice(path.lastIndexOf('/') + 1)}`),
    denied: ({ name }: { readonly name: string }): void => void told.push(`denied ${name}`),
  };
  const policy = new Policy(parsed.document);
  const others = new AccessCallers({ policy, cluster: 'broker', notes, spaceOf, now: Date.now });
  const news = { warn: () => undefined };
  const server = await startServer(t, {
    callers: new NodeCallers({ others, isOpen: false, cluster: 'broker', isRequired: true, news }),
    admin: {
      ...REFUSING_ADMIN,
      listSubjects: async ({ tenant, prefix }, space) => {
        scopeOf(space, tenant, prefix);
        return { subjects: [], nextPageToken: '' };
      },
      trimSubject: async ({ tenant, subject, first }, space) => {
        subjectMeant(space, tenant, subject);
        return { first };
      },
    },
  });
  const client = new Client(server.address, credentials.createInsecure());
  t.after(() => client.close());
  type Method<Request, Response> = {
    readonly path: string;
    requestSerialize(request: Request): Buffer;
    responseDeserialize(bytes: Buffer): Response;
  };
  const call = <Request, Response>(
    who: string,
    { path, requestSerialize, responseDeserialize }: Method<Request, Response>,
    request: Request,
  ): Promise<number> => {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${tokenOf(who)}`);
    return new Promise((resolve) => {
      client.makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        (error: ServiceError | null) => resolve(error?.code ?? 0),
      );
    });
  };
  const { listSubjects, subjectInfo, trimSubject } = AdminService;
  const list = (tenant: string) => call('ops', listSubjects, { prefix: '', pageToken: '', pageSize: 0, tenant });
  assert.deepEqual([await list(''), await list('acme')], [0, 0]);
  assert.deepEqual(told, []);
  assert.equal(await list('rival'), 7);
  assert.equal(await call('ops', trimSubject, { subject: 'orders', first: 2, tenant: 'rival' }), 7);
  assert.equal(await call('ci', subjectInfo, { subject: 'orders', tenant: 'rival' }), 7);
  // Once, by whoever asks for the permission.
  assert.equal(await call('ci', subjectInfo, { subject: 'hr', tenant: '' }), 7);
  assert.equal(await call('ci', listSubjects, { prefix: '', pageToken: '', pageSize: 0, tenant: '' }), 7);
  assert.deepEqual(told, [
    'PERMISSION_DENIED token ops ListSubjects',
    'PERMISSION_DENIED token ops TrimSubject',
    'PERMISSION_DENIED token ci SubjectInfo',
    'denied token ci',
    'PERMISSION_DENIED token ci ListSubjects',
  ]);
});
