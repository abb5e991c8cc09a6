/** Who is refused something in the console is in the audit, once, like whoever is refused a call. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Policy } from '../../src/access/policy.ts';
import { spaceOf } from '../../src/base/subject-space.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { WebConsole } from '../../src/console/console.ts';
import type { ConsoleSources } from '../../src/console/ports.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import type { AuditLog } from '../../src/telemetry/log.ts';
import { AccessAudit } from '../../src/workers/access/access-audit.ts';
import { AdminCallers } from '../../src/workers/access/admin-callers.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';

const FILE = `tokens:
  - {name: viewer, hash: "${hashOf('viewer')}", observe: true, allow: {fetch: [orders]}}
  - {name: bound, hash: "${hashOf('bound')}", tenant: acme, admin: true, allow: {fetch: [">"]}}
`;

test('refusals of the console are in the audit', async () => {
  const parsed = parseAccessFile(FILE, 'a.yaml', () => assert.fail('no keys'));
  assert.ok('document' in parsed);
  const told: string[] = [];
  const log = {
    audit: (_level: string, message: string, { reason, caller }: Record<string, unknown>) =>
      told.push(`${message}: ${reason} ${caller}`),
  } as unknown as AuditLog;
  const disguises = { setting: assert.fail, text: (text: string) => text };
  const audit = new AccessAudit({ log, file: null, disguises });
  const policy = new Policy(parsed.document);
  const callers = new AccessCallers({ policy, cluster: 'broker', notes: audit, spaceOf, now: Date.now });
  const sources = { name: 'n1', inspect: null, tenants: null, settings: null } as unknown as ConsoleSources;
  const pages = new WebConsole({
    access: new AdminCallers(callers, audit),
    sources: () => sources,
    mayWrite: true,
    hosts: [],
    onChange: () => assert.fail('nothing was changed'),
    onDefect: (error) => assert.fail(String(error)),
    now: Date.now,
  });
  const ask = async (method: string, path: string, cookie: string, body: object = {}) => {
    const [name = '', query = ''] = path.split('?');
    const headers = { cookie, origin: 'http://localhost', 'content-type': 'application/json' };
    const request = { method, path: `/api/v1/${name}`, query: new URLSearchParams(query), headers };
    const page = await pages.answer({
      ...request,
      peer: '10.0.0.1:1',
      isSecure: false,
      body: Buffer.from(JSON.stringify(body)),
    });
    const set = String(page?.headers?.['Set-Cookie'] ?? '').split(';')[0] ?? '';
    return { status: page?.status, cookie: set };
  };
  const logIn = async (who: string) => (await ask('POST', 'login', '', { token: tokenOf(who) })).cookie;
  const [viewer, bound] = [await logIn('viewer'), await logIn('bound')];
  assert.deepEqual(told, []);

  assert.equal((await ask('GET', 'overview', '')).status, 401);
  assert.equal((await ask('GET', 'overview', bound)).status, 403);
  assert.equal((await ask('POST', 'shards/resize', viewer, { shards: 2 })).status, 403);
  assert.equal((await ask('POST', 'advice/apply', bound, { recommended: 2 })).status, 403);
  assert.equal((await ask('GET', 'messages?subject=hr', viewer)).status, 403);
  assert.equal((await ask('GET', 'messages?subject=orders&tenant=rival', bound)).status, 403);
  assert.deepEqual(Object.fromEntries([...audit.refusals].filter(([, count]) => count > 0)), {
    CREDENTIALS_MISSING: 1,
    PERMISSION_DENIED: 3,
    TENANT_BOUND: 2,
  });
  assert.deepEqual(told, [
    'somebody was refused: CREDENTIALS_MISSING unknown',
    'somebody was refused: TENANT_BOUND token bound',
    // What comes again within ten seconds is counted: the others of the same.
    'somebody was refused: PERMISSION_DENIED token viewer',
    'somebody was refused: PERMISSION_DENIED token bound',
  ]);
});
