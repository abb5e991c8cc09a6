/** Who calls, at the door: what is looked up, verified, remembered, and refused. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { describe, it } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { exportJWK, SignJWT } from 'jose';
import type { Caller } from '../../src/access/caller.ts';
import { Policy } from '../../src/access/policy.ts';
import type { Reason } from '../../src/base/errors.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { AccessCallers } from '../../src/grpc/access/access-callers.ts';
import { parseBearer } from '../../src/grpc/access/bearer.ts';
import type { AuditLog } from '../../src/telemetry/log.ts';
import { AccessAudit } from '../../src/workers/access/access-audit.ts';
import { type AdminCaller, AdminCallers } from '../../src/workers/access/admin-callers.ts';
import { FailureLimit } from '../../src/workers/access/failure-limit.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';

const NOW = Date.parse('2026-11-26T12:00:00Z');
const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const forger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: 'one' }] });
const FILE = `
tokens:
  - {name: ci, hash: "${hashOf('ci')}", tenant: acme, allow: {publish: [">"]}}
  - {name: proxy, hash: "${hashOf('proxy')}", tenant: "*", observe: true}
jwt:
  - {name: login, issuer: "https://login.example", audience: broker, keys: keys.json, allow: {publish: [">"]}}
`;

const otherJwks = JSON.stringify({ keys: [{ ...(await exportJWK(forger.publicKey)), kid: 'one' }] });

function policyOf(text = FILE, keyFile = jwks): Policy {
  const parsed = parseAccessFile(text, 'a.yaml', () => keyFile);
  assert.ok('document' in parsed, 'problems' in parsed ? parsed.problems.join() : '');
  return new Policy(parsed.document);
}

interface Refused {
  readonly reason: Reason;
  readonly name: string | null;
  readonly detail: string;
}

function make(text = FILE, { knownMax = 4_096, now = () => NOW } = {}) {
  const refused: Refused[] = [];
  const notes = { refused: (refusal: Refused): void => void refused.push(refusal), denied: (): void => undefined };
  const spaceOf = (): Uint8Array => new Uint8Array(0);
  const callers = new AccessCallers({ policy: policyOf(text), cluster: 'broker', notes, spaceOf, now, knownMax });
  const session = { encrypted: false };
  const of = (token: string | null, headers: IncomingHttpHeaders = {}, on: object = session) => {
    const authorization = token === null ? {} : { authorization: `Bearer ${token}` };
    const stream = { session: on, once: () => undefined } as unknown as ServerHttp2Stream;
    return callers.of(stream, { ':path': '/broker.Broker/Publish', ...authorization, ...headers });
  };
  return { callers, of, refused };
}

/** The admin port of the same. */
function adminOf(callers: AccessCallers) {
  const log = { audit: () => undefined } as unknown as AuditLog;
  const disguises = { setting: assert.fail, text: assert.fail };
  const admin = new AdminCallers(callers, new AccessAudit({ log, file: null, disguises }));
  return (token: string, peer = '10.0.0.1:1000') => admin.observer(`Bearer ${token}`, peer, 'console');
}

const observedOf = (found: AdminCaller | { readonly reason: Reason }): string =>
  'reason' in found ? found.reason : found.name;

const sign = (i = 0, key = keys.privateKey, claims: Readonly<Record<string, unknown>> = {}): Promise<string> =>
  new SignJWT({ iss: 'https://login.example', aud: 'broker', sub: `user-${i}`, exp: NOW / 1_000 + 60, ...claims })
    .setProtectedHeader({ alg: 'ES256', kid: 'one' })
    .sign(key);

const nameOf = (caller: Caller | Reason): string => (typeof caller === 'string' ? caller : caller.name);

describe('callers', () => {
  it('are one object for all calls of a token, and its tenant alone', () => {
    const { of } = make();
    const first = of(tokenOf('ci')) as Caller;
    assert.equal(first.name, 'token ci');
    assert.equal(first.tenant, 'acme');
    assert.equal(of(tokenOf('ci'), { 'x-tenant': 'acme' }), first);
    assert.equal(of(tokenOf('ci'), { 'x-tenant': 'other' }), 'PERMISSION_DENIED');
    assert.equal(of(tokenOf('ci'), { 'x-tenant': 'a, b' }), 'TENANT_INVALID');
    const proxy = (tenant: string): Caller => of(tokenOf('proxy'), { 'x-tenant': tenant }) as Caller;
    assert.deepEqual(
      [proxy('a').tenant, proxy('b').tenant, (of(tokenOf('proxy')) as Caller).tenant],
      ['a', 'b', 'default'],
    );
    assert.equal(proxy('a'), proxy('a'));
  });

  it('are refused for what they show and for what the method needs, and who is not known is not told which methods there are', () => {
    const { of, refused } = make();
    assert.equal(of(null), 'CREDENTIALS_MISSING');
    assert.equal(of('nonsense'), 'CREDENTIALS_INVALID');
    assert.equal(of(null, { ':path': '/no.such/Method' }), 'CREDENTIALS_MISSING');
    assert.equal(of(tokenOf('ci'), { ':path': '/no.such/Method' }), 'METHOD_UNKNOWN');
    assert.equal(of(tokenOf('ci'), { ':path': '/broker.v1.Admin/Status' }), 'PERMISSION_DENIED');
    assert.equal(of(tokenOf('proxy'), { ':path': '/broker.v1.Admin/ResizeShards' }), 'PERMISSION_DENIED');
    assert.equal(of(tokenOf('proxy'), { ':path': '/broker.v1.Peer/Exchange' }), 'PERMISSION_DENIED');
    assert.equal(nameOf(of(tokenOf('proxy'), { ':path': '/broker.v1.Admin/Status' }) as Caller), 'token proxy');
    assert.equal(nameOf(of(null, { ':path': '/grpc.health.v1.Health/Check' }) as Caller), 'nobody');
    assert.deepEqual(
      refused.map(({ reason, name }) => `${reason} ${name}`),
      [
        'CREDENTIALS_MISSING null',
        'CREDENTIALS_INVALID null',
        'CREDENTIALS_MISSING null',
        ...['PERMISSION_DENIED token ci', 'PERMISSION_DENIED token proxy', 'PERMISSION_DENIED token proxy'],
      ],
    );
  });

  it('of a JWT wait for one verification together, in order, and later ones for none', async () => {
    const { of } = make();
    const token = await sign();
    const order: number[] = [];
    const waiting = [0, 1, 2].map(async (i) => {
      const caller = await of(token);
      order.push(i);
      return caller;
    });
    const [first, second, third] = await Promise.all(waiting);
    assert.deepEqual(order, [0, 1, 2]);
    assert.equal(nameOf(first as Caller), 'jwt login/user-0');
    assert.equal(first, second);
    assert.equal(second, third);
    assert.equal(of(token), first, 'it is looked up, not waited for');
  });

  it('that forge tokens have so many verified, each once, and nobody else waits for them', async () => {
    const { of } = make();
    const forged = await Promise.all(Array.from({ length: 300 }, (_, i) => sign(i, forger.privateKey)));
    const began = performance.now();
    const answers = forged.map((token) => of(token));
    // 50 a second come back while it takes.
    const more = Math.ceil((performance.now() - began) / 20);
    const verified = answers.filter((answer) => answer instanceof Promise).length;
    assert.ok(verified >= 100 && verified <= 100 + more, `${verified}, ${more}`);
    assert.equal(answers.filter((answer) => answer === 'CREDENTIALS_THROTTLED').length, 300 - verified);
    // On the same connection what is known goes on at once, on another one also what is new.
    assert.equal(nameOf(of(tokenOf('ci')) as Caller), 'token ci');
    const other = of(await sign(1), {}, { encrypted: false });
    assert.ok(other instanceof Promise);
    for (const answer of answers) if (answer instanceof Promise) assert.equal(await answer, 'CREDENTIALS_INVALID');
    assert.equal(nameOf(await other), 'jwt login/user-1');
    assert.equal(of(forged[0] as string), 'CREDENTIALS_INVALID', 'it is remembered');
  });

  it('of a JWT whose time has not come are refused until it has, without a signature, and not by what is remembered', async () => {
    let now = NOW;
    const { of, refused } = make(FILE, { now: () => now });
    const token = await sign(0, keys.privateKey, { nbf: NOW / 1_000 + 20 });
    for (let i = 0; i < 200; i++) assert.equal(of(token), 'CREDENTIALS_INVALID');
    assert.match(refused[0]?.detail ?? '', /time has not come/);
    // Clocks differ: the tolerance is 5 s.
    now += 14_000;
    assert.equal(of(token), 'CREDENTIALS_INVALID');
    now += 1_000;
    assert.equal(nameOf((await of(token)) as Caller), 'jwt login/user-0');
    const odd = await sign(1, keys.privateKey, { nbf: 'soon' });
    assert.equal(await of(odd), 'CREDENTIALS_INVALID');
    assert.equal(of(odd), 'CREDENTIALS_INVALID', 'what no time changes is remembered');
  });

  it('of a JWT are judged by the file that is there when the verification ends', async () => {
    const token = await sign();
    const { of, callers } = make();
    callers.apply(policyOf(FILE, otherJwks));
    const brought = of(token);
    callers.apply(policyOf());
    assert.equal(nameOf((await brought) as Caller), 'jwt login/user-0');
    assert.equal(nameOf(of(token) as Caller), 'jwt login/user-0');
    callers.apply(policyOf(FILE, otherJwks));
    callers.apply(policyOf());
    const taken = of(token);
    assert.ok(taken instanceof Promise, 'it was ended with its key');
    callers.apply(policyOf(FILE, otherJwks));
    assert.equal(await taken, 'CREDENTIALS_INVALID');
  });

  it('keep what a flood of names may fill within bounds', async () => {
    const { of, callers } = make();
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const held = (): number => {
      collect();
      return process.memoryUsage().heapUsed;
    };
    const before = held();
    // Each of these would keep 3 KB.
    for (let i = 0; i < 20_000; i++) of(`wrong-${i}-${'x'.repeat(3_000)}${i}`);
    for (let i = 0; i < 20_000; i++) of(tokenOf('proxy'), { 'x-tenant': `t${i}` });
    const kept = held() - before;
    assert.ok(kept < 16 << 20, `${kept}`);
    assert.equal(nameOf(of(tokenOf('ci')) as Caller), 'token ci');
    callers.apply(policyOf('roles: {}'));
    assert.equal(of(tokenOf('ci')), 'CREDENTIALS_INVALID');
  });

  it('follow the file: the same object may do other things, and is ended when it is gone', () => {
    const { of, callers } = make();
    const caller = of(tokenOf('proxy')) as Caller;
    assert.equal(caller.observes, true);
    callers.apply(policyOf(FILE.replace('observe: true', 'observe: false')));
    assert.equal(caller.observes, false);
    assert.equal(of(tokenOf('proxy')), caller);
    callers.apply(policyOf(FILE.replace('tenant: "*"', 'tenant: one')));
    assert.notEqual(of(tokenOf('proxy')), caller, 'of another tenant it is another one');
  });
});

describe('sessions of the console by a JWT', () => {
  const OBSERVED = FILE.replace('keys: keys.json,', 'keys: keys.json, observe: true,');

  it('follow the file, also if the token was forgotten among those of others meanwhile', async () => {
    const { callers, of } = make(OBSERVED, { knownMax: 2 });
    const observe = adminOf(callers);
    const ends = (await observe(await sign(0))) as AdminCaller;
    const stays = (await observe(await sign(1))) as AdminCaller;
    for (let i = 2; i < 6; i++) assert.equal(nameOf(await of(await sign(i))), `jwt login/user-${i}`);
    assert.deepEqual([ends.refusal, stays.refusal, ends.administers], [null, null, false]);
    callers.apply(policyOf(OBSERVED.replace('observe: true, allow', 'admin: true, allow')));
    assert.deepEqual([ends.refusal, stays.administers], [null, true]);
    callers.apply(policyOf(FILE));
    assert.equal(stays.refusal, 'PERMISSION_DENIED', 'it may not observe any more');
    callers.apply(policyOf(OBSERVED.replace('https://login.example', 'https://other.example')));
    assert.equal(ends.refusal, 'CREDENTIALS_INVALID', 'its issuer is gone');
    assert.equal(ends.administers, false);
  });

  it('are no reason to keep what has expired: sweeps drop it, and those that are good stay', async () => {
    let now = NOW;
    const { callers, of } = make(OBSERVED, { now: () => now });
    for (let i = 0; i < 5; i++) await of(await sign(i));
    await of(await sign(5, keys.privateKey, { exp: NOW / 1_000 + 600 }));
    of(tokenOf('ci'));
    assert.equal(callers.remembered, 7);
    now += 60_000;
    callers.sweep();
    assert.equal(callers.remembered, 2);
  });
});

describe('bearer tokens', () => {
  it('are read from headers of one spelling, and no longer than they may be', () => {
    assert.equal(parseBearer('Bearer abc.def-_~+/=='), 'abc.def-_~+/==');
    assert.equal(parseBearer('bearer  abc'), 'abc');
    for (const header of [
      '',
      'abc',
      'Basic abc',
      'Bearer',
      'Bearer ',
      'Bearer a b',
      'Bearer a, Bearer b',
      'Bearer é',
      `Bearer ${'a'.repeat(4_097)}`,
    ])
      assert.equal(parseBearer(header), null, header.slice(0, 20));
  });
});

describe('failures at the admin port', () => {
  const OBSERVED = FILE.replace('keys: keys.json,', 'keys: keys.json, observe: true,');

  it('bar one address for a while, say for how long, and keep as much for many as for one', () => {
    const limit = new FailureLimit();
    for (let i = 0; i < 20; i++) assert.equal(limit.begin('10.0.0.1', 0), 0);
    const wait = limit.begin('10.0.0.1', 0);
    assert.equal(wait, 3_000);
    assert.equal(limit.begin('10.0.0.2', 0), 0);
    assert.ok(limit.begin('10.0.0.1', wait - 1) > 0);
    assert.equal(limit.begin('10.0.0.1', wait), 0);
  });

  it('do not keep out from the same address whom the broker knows: by a token of the file, or by a JWT that it has seen', async () => {
    const { callers, of } = make(OBSERVED);
    const observe = adminOf(callers);
    const [seen, unseen] = [await sign(0), await sign(1)];
    await of(seen);
    const tries = await Promise.all(Array.from({ length: 60 }, (_, i) => observe(`wrong-${i}`)));
    assert.equal(tries.filter((found) => observedOf(found) === 'CREDENTIALS_INVALID').length, 20);
    assert.equal(tries.filter((found) => observedOf(found) === 'CREDENTIALS_THROTTLED').length, 40);
    assert.equal(observedOf(await observe(tokenOf('proxy'))), 'token proxy');
    assert.equal(observedOf(await observe(seen)), 'jwt login/user-0');
    assert.equal(observedOf(await observe(tokenOf('ci'))), 'PERMISSION_DENIED', 'it is known, and may not observe');
    const refused = await observe(unseen);
    assert.ok('reason' in refused);
    assert.equal(refused.reason, 'CREDENTIALS_THROTTLED');
    assert.ok(refused.retryAfterMs > 0 && refused.retryAfterMs <= 3_000, `${refused.retryAfterMs}`);
    assert.equal(observedOf(await observe(unseen, '10.0.0.2:1000')), 'jwt login/user-1');
    assert.equal(observedOf(await observe(unseen)), 'jwt login/user-1', 'by now it is seen');
  });

  it('are those of tokens alone that are wrong, and signatures of many at once count before they are verified', async () => {
    const { callers } = make(OBSERVED);
    const observe = adminOf(callers);
    for (let i = 0; i < 40; i++) assert.equal(observedOf(await observe(await sign(i))), `jwt login/user-${i}`);
    const forged = await Promise.all(Array.from({ length: 60 }, (_, i) => sign(i, forger.privateKey)));
    const found = await Promise.all(forged.map((token) => observe(token)));
    assert.equal(found.filter((one) => observedOf(one) === 'CREDENTIALS_INVALID').length, 20);
  });
});
