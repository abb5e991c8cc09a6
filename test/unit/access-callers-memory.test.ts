/** What is remembered of callers, and of streams that are theirs. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { EventEmitter } from 'node:events';
import type { ServerHttp2Stream } from 'node:http2';
import { test } from 'node:test';
import { exportJWK, SignJWT } from 'jose';
import { Policy } from '../../src/access/policy.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';

const NOW = Date.parse('2026-11-26T12:00:00Z');
const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: 'one' }] });
const FILE = `
tokens:
  - {name: ci, hash: "${hashOf('ci')}", tenant: acme, allow: {publish: [">"]}}
jwt:
  - {name: login, issuer: "https://login.example", audience: broker, keys: keys.json, allow: {publish: [">"]}}
`;
const sign = (i = 0): Promise<string> =>
  new SignJWT({ iss: 'https://login.example', aud: 'broker', sub: `user-${i}`, exp: NOW / 1_000 + 60 })
    .setProtectedHeader({ alg: 'ES256', kid: 'one' })
    .sign(keys.privateKey);

function make() {
  const clock = { now: NOW };
  const parsed = parseAccessFile(FILE, 'a.yaml', () => jwks);
  assert.ok('document' in parsed);
  const notes = { refused: () => undefined, denied: () => undefined };
  const callers = new AccessCallers({
    policy: new Policy(parsed.document),
    cluster: 'broker',
    notes,
    spaceOf: () => new Uint8Array(0),
    now: () => clock.now,
  });
  return { callers, clock };
}
class Stream extends EventEmitter {
  readonly session = { encrypted: false };
  destroyed = false;
  closed = false;
  closes = 0;
  close(): void {
    this.closes += 1;
  }
}

test('a stream that is gone before its token was verified is not kept', async () => {
  const { callers, clock } = make();
  const stream = new Stream();
  const found = callers.of(stream as unknown as ServerHttp2Stream, {
    ':path': '/broker.v1.Producer/PublishStream',
    authorization: `Bearer ${await sign()}`,
  });
  assert.ok(found instanceof Promise);
  // Its client has reset it, as Node tells it.
  stream.closed = stream.destroyed = true;
  stream.emit('close');
  await found;
  clock.now += 120_000;
  callers.sweep();
  callers.sweep();
  assert.equal(stream.closes, 0);
});

test('one token, written in many ways, does not drive out the others', async () => {
  const { callers } = make();
  const of = (authorization: string) =>
    callers.of(new Stream() as unknown as ServerHttp2Stream, { ':path': '/broker.Broker/Publish', authorization });
  const jwt = `Bearer ${await sign()}`;
  await of(jwt);
  assert.ok(!(of(jwt) instanceof Promise));
  for (let i = 1; i <= 3_000; i++)
    for (const scheme of ['Bearer', 'bearer'])
      assert.ok(!(of(`${scheme}${' '.repeat(i)}${tokenOf('ci')}`) instanceof Promise));
  assert.equal(callers.remembered, 3);
  assert.ok(!(of(jwt) instanceof Promise));
});
