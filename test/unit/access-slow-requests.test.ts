/** Requests that are on their way when the access file changes: who begins many, and ends them later, must not be who they were. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { type TestContext, test } from 'node:test';
import { Policy } from '../../src/access/policy.ts';
import { BrokerError } from '../../src/base/errors.ts';
import { spaceOf } from '../../src/base/subject-space.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import type { AdminAction } from '../../src/grpc/access/admin-actions.ts';
import { TrimSubjectRequest } from '../../src/grpc/gen/broker/v1/admin.ts';
import { NodeCallers } from '../../src/grpc/node-callers.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';
import { eventually, REFUSING_ADMIN, startServer, TestEngine } from './grpc-rig.ts';

const OPS = `  - {name: ops, hash: "${hashOf('ops')}", admin: true}`;
const CI = `  - {name: ci, hash: "${hashOf('ci')}", expires: 2026-11-26T12:00:00Z, allow: {publish: [">"], fetch: [">"]}}`;
const FILE = `tokens:\n${OPS}\n${CI}\n`;
const NOW = Date.parse('2026-11-26T11:59:59Z');

function policyOf(text: string): Policy {
  const parsed = parseAccessFile(text, 'a.yaml', () => assert.fail('no keys'));
  assert.ok('document' in parsed);
  return new Policy(parsed.document);
}

function message(bytes: Uint8Array): Buffer {
  const framed = Buffer.alloc(5 + bytes.length);
  framed.writeUInt32BE(bytes.length, 1);
  framed.set(bytes, 5);
  return framed;
}

/** A call whose last byte has not been sent. */
async function begin(session: ClientHttp2Session, path: string, name: string, request: Buffer) {
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    te: 'trailers',
    authorization: `Bearer ${tokenOf(name)}`,
  });
  let fields: IncomingHttpHeaders = {};
  const read = (more: IncomingHttpHeaders): void => {
    fields = { ...fields, ...more };
  };
  stream.on('response', read).on('trailers', read).resume();
  await new Promise((resolve) => stream.write(request.subarray(0, -1), resolve));
  return async (): Promise<string> => {
    stream.end(request.subarray(-1));
    await once(stream, 'close');
    return String(fields['grpc-status']);
  };
}

async function rig(t: TestContext) {
  const state = { now: NOW };
  const refused: string[] = [];
  const notes = {
    refused: ({ reason, name, path }: { reason: string; name: string | null; path: string }): void =>
      void refused.push(`${reason} ${name} ${path}`),
    denied: (): void => undefined,
  };
  const access = new AccessCallers({
    policy: policyOf(FILE),
    cluster: 'broker',
    notes,
    spaceOf,
    now: () => state.now,
  });
  const callers = new NodeCallers({
    others: access,
    isOpen: false,
    cluster: 'broker',
    isRequired: true,
    news: { warn: () => undefined },
  });
  const engine = new TestEngine();
  const trims: string[] = [];
  const trimSubject = ({ subject }: { readonly subject: string }) => {
    trims.push(subject);
    return Promise.reject(new BrokerError('NOT_READY'));
  };
  const actions: AdminAction[] = [];
  const server = await startServer(t, {
    engine,
    callers,
    admin: { ...REFUSING_ADMIN, trimSubject },
    onAction: (action) => actions.push(action),
  });
  const session = connect(`http://${server.address}`);
  t.after(() => session.destroy());
  const calls = [
    await begin(session, '/broker.Broker/Publish', 'ci', message(Buffer.alloc(100))),
    await begin(session, '/broker.Broker/Fetch', 'ci', message(Buffer.alloc(100))),
    await begin(
      session,
      '/broker.v1.Admin/TrimSubject',
      'ops',
      message(TrimSubjectRequest.encode({ subject: 'orders', first: 2, tenant: '' }).finish()),
    ),
  ];
  // All three have come to the server.
  await eventually(t, () => [...server.connectionNotes()].some(({ callsBegun }) => callsBegun === 3));
  const end = (): Promise<string[]> => Promise.all(calls.map((call) => call()));
  const done = () => ({ calls: engine.calls, trims: trims.length });
  return { access, state, end, done, refused, actions };
}

test('a request that comes to its end when its caller is not in the access file any more is refused, and told of', async (t) => {
  const { access, end, done, refused, actions } = await rig(t);
  access.apply(policyOf('tokens: []\n'));
  assert.deepEqual(await end(), ['16', '16', '16']);
  assert.deepEqual(done(), { calls: 0, trims: 0 });
  assert.deepEqual(refused.sort(), [
    'CREDENTIALS_INVALID token ci /broker.Broker/Fetch',
    'CREDENTIALS_INVALID token ci /broker.Broker/Publish',
    'CREDENTIALS_INVALID token ops /broker.v1.Admin/TrimSubject',
  ]);
  assert.deepEqual(
    actions.map(({ method, outcome }) => `${method} ${outcome}`),
    ['TrimSubject CREDENTIALS_INVALID'],
  );
});

test('one whose caller may not administer any more, or whose token has expired meanwhile, is refused', async (t) => {
  const { access, state, end, done } = await rig(t);
  access.apply(policyOf(FILE.replace('admin: true', 'observe: true')));
  state.now += 1_000;
  assert.deepEqual(await end(), ['16', '16', '7']);
  assert.deepEqual(done(), { calls: 0, trims: 0 });
});

test('one whose caller may still do it goes on, whatever else has changed', async (t) => {
  const { access, end, done, refused } = await rig(t);
  access.apply(policyOf(`${FILE}  - {name: other, hash: "${hashOf('other')}"}\n`));
  assert.deepEqual(await end(), ['0', '0', '14']);
  assert.deepEqual(done(), { calls: 2, trims: 1 });
  assert.deepEqual(refused, []);
});
