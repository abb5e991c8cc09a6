/** Tokens that others have issued: which are taken, and what is asked of their keys. */
import assert from 'node:assert/strict';
import { createHmac, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { exportJWK, SignJWT } from 'jose';
import { Policy } from '../../src/access/policy.ts';
import { spaceOf, TENANT_DEFAULT } from '../../src/base/subject-space.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { decodeJwtHead, type JwtRefusal, JwtVerifier } from '../../src/grpc/access/jwt-verifier.ts';

const NOW = Date.parse('2026-11-26T12:00:00Z');
const SECONDS = NOW / 1_000;
const ISSUER = 'https://login.example';

const rsa = generateKeyPairSync('rsa', { modulusLength: 2_048 });
const curve = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' });
const edwards = generateKeyPairSync('ed25519');

const jwks = async (keys: Readonly<Record<string, KeyObject>>): Promise<string> =>
  JSON.stringify({
    keys: await Promise.all(Object.entries(keys).map(async ([kid, key]) => ({ ...(await exportJWK(key)), kid }))),
  });

function fileOf(more = ''): string {
  return `
roles:
  orders: {allow: {publish: ["orders.>"]}}
jwt:
  - name: login
    issuer: ${ISSUER}
    audience: broker
    keys: keys.json
    claims: {roles: realm.roles, tenant: org}
${more}`;
}

function policyOf(keys: string, more = ''): Policy {
  const parsed = parseAccessFile(fileOf(more), 'access.yaml', () => keys);
  assert.ok('document' in parsed, 'problems' in parsed ? parsed.problems.join('\n') : '');
  return new Policy(parsed.document);
}

function problemsOf(keys: string, more = ''): readonly string[] {
  const parsed = parseAccessFile(fileOf(more), 'access.yaml', () => keys);
  return 'problems' in parsed ? parsed.problems : [];
}

interface Made {
  readonly key?: KeyObject;
  readonly alg?: string;
  readonly kid?: string | undefined;
  readonly claims?: Readonly<Record<string, unknown>>;
}

function makeToken({ key = curve.privateKey, alg = 'ES256', kid = 'one', claims = {} }: Made = {}): Promise<string> {
  const payload = {
    iss: ISSUER,
    aud: 'broker',
    sub: 'alice',
    org: 'acme',
    exp: SECONDS + 60,
    realm: { roles: ['orders'] },
    ...claims,
  };
  return new SignJWT(payload).setProtectedHeader({ alg, ...(kid === '' ? {} : { kid }) }).sign(key);
}

const encoded = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

async function refusalOf(policy: Policy, token: string): Promise<JwtRefusal> {
  const proof = await new JwtVerifier(policy.issuers).verify(token, NOW);
  assert.ok('reason' in proof, 'it was taken');
  return proof;
}

describe('tokens of others (JWT)', () => {
  it('are taken for who they say, with the roles and the tenant of their claims', async () => {
    const policy = policyOf(await jwks({ one: curve.publicKey, two: rsa.publicKey, three: edwards.publicKey }));
    const tokens = [
      await makeToken(),
      await makeToken({ key: rsa.privateKey, alg: 'PS256', kid: 'two' }),
      await makeToken({ key: rsa.privateKey, alg: 'RS512', kid: 'two' }),
      await makeToken({ key: edwards.privateKey, alg: 'EdDSA', kid: 'three' }),
      // Without a kid the one key that could have signed it.
      await makeToken({ kid: '' }),
    ];
    for (const token of tokens) {
      const proof = await new JwtVerifier(policy.issuers).verify(token, NOW);
      assert.ok(!('reason' in proof), JSON.stringify(proof));
      const identity = policy.byJwt(proof);
      assert.equal(identity?.name, 'jwt login/alice');
      assert.equal(identity.tenant, 'acme');
      assert.equal(identity.expiresAt, NOW + 60_000);
      assert.equal(identity.permissions.explain('publish', 'orders.eu').isAllowed, true);
      assert.equal(identity.permissions.explain('publish', 'hr.eu').isAllowed, false);
    }
  });

  it('are refused for what is wrong with them, and the log is told what', async () => {
    const policy = policyOf(await jwks({ one: curve.publicKey, two: rsa.publicKey }));
    const [head, body, signature] = (await makeToken()).split('.') as [string, string, string];
    const pem = rsa.publicKey.export({ format: 'pem', type: 'spki' }) as string;
    const hmac = `${encoded({ alg: 'HS256', kid: 'two' })}.${body}`;
    const refused: [string, string, RegExp][] = [
      ['alg none', `${encoded({ alg: 'none', kid: 'one' })}.${body}.`, /algorithm/],
      ['alg none with a signature', `${encoded({ alg: 'none', kid: 'one' })}.${body}.${signature}`, /algorithm/],
      ['alg nOnE', `${encoded({ alg: 'nOnE', kid: 'one' })}.${body}.`, /algorithm/],
      [
        'the public key as a secret',
        `${hmac}.${createHmac('sha256', pem).update(hmac).digest('base64url')}`,
        /algorithm/,
      ],
      ['another key', await makeToken({ key: other.privateKey }), /signature/],
      ['the kid of another key', await makeToken({ kid: 'two' }), /kid/],
      ['an unknown kid', await makeToken({ kid: 'nine' }), /kid/],
      ['a kid that is no text', `${encoded({ alg: 'ES256', kid: { a: 1 } })}.${body}.${signature}`, /kid|no JWT/],
      [
        'a changed claim',
        `${head}.${encoded({ ...JSON.parse(Buffer.from(body, 'base64url').toString()), sub: 'bob' })}.${signature}`,
        /signature/,
      ],
      ['another audience', await makeToken({ claims: { aud: 'others' } }), /issuer and audience/],
      ['no audience', await makeToken({ claims: { aud: undefined } }), /issuer and audience/],
      ['another issuer', await makeToken({ claims: { iss: 'https://evil.example' } }), /issuer and audience/],
      ['no end', await makeToken({ claims: { exp: undefined } }), /exp/],
      ['an end that is a text', await makeToken({ claims: { exp: '9999999999' } }), /exp/],
      ['a time to come', await makeToken({ claims: { nbf: SECONDS + 30 } }), /time has not come/],
      ['a time that is a text', await makeToken({ claims: { nbf: 'soon' } }), /claim/],
      [
        'a critical header that nobody knows',
        `${encoded({ alg: 'ES256', kid: 'one', crit: ['x'], x: 1 })}.${body}.${signature}`,
        /taken/,
      ],
      ['a cut signature', `${head}.${body}.${signature.slice(0, -4)}`, /signature|taken/],
      ['no signature', `${head}.${body}.`, /signature|taken/],
      ['no JWT', 'a.b.c', /no JWT/],
      ['a list as its claims', `${head}.${encoded([])}.${signature}`, /no JWT|issuer/],
    ];
    for (const [what, token, detail] of refused) {
      const refusal = await refusalOf(policy, token);
      assert.equal(refusal.reason, 'CREDENTIALS_INVALID', what);
      assert.match(refusal.detail, detail, what);
    }
    const expired = await refusalOf(policy, await makeToken({ claims: { exp: SECONDS } }));
    assert.equal(expired.reason, 'CREDENTIALS_EXPIRED');
    // Clocks differ: 5 s before its time it is taken, and its end is kept.
    assert.ok(
      !(
        'reason' in
        (await new JwtVerifier(policy.issuers).verify(await makeToken({ claims: { nbf: SECONDS + 4 } }), NOW))
      ),
    );
  });

  it('need claims that name somebody', async () => {
    const policy = policyOf(await jwks({ one: curve.publicKey }));
    const verifier = new JwtVerifier(policy.issuers);
    const nobody: readonly Readonly<Record<string, unknown>>[] = [
      { sub: undefined },
      { sub: 7 },
      { sub: '' },
      { sub: 'a\nb' },
      { sub: 'a\u202eb' },
      { org: undefined },
      { org: '*' },
      { org: 'a/b' },
      { org: 'default' },
      { realm: { roles: [1] } },
      { realm: { roles: { orders: true } } },
    ];
    for (const claims of nobody) {
      const proof = await verifier.verify(await makeToken({ claims }), NOW);
      assert.ok(!('reason' in proof), JSON.stringify(claims));
      assert.equal(policy.byJwt(proof), null, JSON.stringify(claims));
    }
  });

  it('never have the view of all tenants by a claim, whatever it is, with all that a role can give', async () => {
    const more = '    admin: true\n    tenant: default\n';
    const policy = policyOf(await jwks({ one: curve.publicKey }), more);
    const good = await new JwtVerifier(policy.issuers).verify(await makeToken(), NOW);
    assert.ok(!('reason' in good));
    const text = fc.oneof(
      fc.string({ unit: fc.constantFrom(...'default.*-_ aZ0\0') }),
      fc.string(),
      fc.mixedCase(fc.constant('default')),
      fc
        .tuple(fc.constantFrom('', ' ', '.', '\0', '\n', '\ufeff'), fc.constantFrom('', ' ', '\0', '\n'))
        .map(([before, behind]) => `${before}default${behind}`),
      fc.constantFrom('default', '', '*', TENANT_DEFAULT.normalize('NFKD'), 'x'.repeat(65)),
    );
    const claimed = fc.oneof(text, fc.array(text), fc.anything());
    let taken = 0;
    fc.assert(
      fc.property(claimed, (org) => {
        const identity = policy.byJwt({ ...good, payload: { ...good.payload, org } });
        if (identity === null) return;
        taken += 1;
        assert.equal(identity.tenant, org);
        assert.notEqual(spaceOf(identity.tenant).length, 0);
      }),
      { numRuns: 2_000 },
    );
    assert.ok(taken > 100, `${taken}`);
  });

  it('go with their keys: one that was taken out of the file takes its tokens along, one that was added brings them', async () => {
    const proof = await new JwtVerifier(policyOf(await jwks({ one: curve.publicKey })).issuers).verify(
      await makeToken(),
      NOW,
    );
    assert.ok(!('reason' in proof));
    // Rotation: both keys for a while, then the new one alone, even under the old name.
    assert.notEqual(policyOf(await jwks({ one: curve.publicKey, two: other.publicKey })).byJwt(proof), null);
    assert.equal(policyOf(await jwks({ two: other.publicKey })).byJwt(proof), null);
    assert.equal(policyOf(await jwks({ one: other.publicKey })).byJwt(proof), null);
    assert.equal(
      policyOf(await jwks({ one: curve.publicKey }), '    algorithms: [ES256]\n').byJwt(proof)?.tenant,
      'acme',
    );
  });

  it('are signed with keys that are judged when the file is read', async () => {
    const small = generateKeyPairSync('rsa', { modulusLength: 1_024 });
    const secret = (bytes: number): string =>
      JSON.stringify({ keys: [{ kty: 'oct', k: Buffer.alloc(bytes, 7).toString('base64url') }] });
    const good = await jwks({ one: curve.publicKey });
    const cases: [string, string, string, RegExp][] = [
      ['a private key', JSON.stringify({ keys: [await exportJWK(curve.privateKey)] }), '', /private part/],
      ['a private key in PEM', curve.privateKey.export({ format: 'pem', type: 'pkcs8' }) as string, '', /private key/],
      ['a small RSA key', await jwks({ one: small.publicKey }), '', /2048 bits/],
      ['no key', '{"keys":[]}', '', /no key/],
      ['no JSON', '{"keys":', '', /not valid JSON/],
      ['nothing', '', '', /neither a JWKS nor PEM/],
      ['a short secret', secret(16), '    algorithms: [HS256]\n', /fewer than 32 bytes/],
      ['a secret that is not meant', secret(32), '', /add algorithms/],
      ['a secret beside a public key', good, '    algorithms: [ES256, HS256]\n', /no key.*HS256/],
      ['an algorithm that is none', good, '    algorithms: [none]\n', /must be of RS256/],
      ['an algorithm without a key', good, '    algorithms: [RS256]\n', /no key.*RS256/],
    ];
    for (const [what, keys, more, problem] of cases) {
      const [first, ...rest] = problemsOf(keys, more);
      assert.match(first ?? '', problem, what);
      assert.deepEqual(rest, [], what);
      assert.doesNotMatch(first ?? '', /"d":|BwcHBw|BEGIN/, what);
    }
    assert.deepEqual(problemsOf(curve.publicKey.export({ format: 'pem', type: 'spki' }) as string), []);
    assert.deepEqual(problemsOf(secret(32), '    algorithms: [HS256]\n'), []);
  });

  it('are looked into without a throw, whatever they are', () => {
    for (const token of [
      '',
      '.',
      '..',
      'a.b',
      '{}.{}.{}',
      `${encoded(null)}.${encoded(null)}.`,
      '\0'.repeat(9),
      'é.é.é',
    ])
      assert.equal(decodeJwtHead(token), null, token);
  });
});
