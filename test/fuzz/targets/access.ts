/** What says who somebody is, and the file that says what they may do. */
import { createHash } from 'node:crypto';
import {
  certificateNameOf,
  formatCertificateName,
  parseCertificateName,
} from '../../../src/access/certificate-name.ts';
import { Policy } from '../../../src/access/policy.ts';
import { parseAccessFile } from '../../../src/config/access-file.ts';
import { hashOfToken, parseBearer, TOKEN_CHARACTERS_MAX } from '../../../src/grpc/access/bearer.ts';
import { decodeJwtHead, looksLikeJwt } from '../../../src/grpc/access/jwt-verifier.ts';
import { expect, type FuzzTarget } from '../target.ts';

const MIB = 1 << 20;
const base64url = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
const JWT = `${base64url({ alg: 'ES256', kid: 'k1' })}.${base64url({ iss: 'me', aud: 'broker', sub: 'ci', exp: 2e9 })}.c2ln`;

const bearer: FuzzTarget = {
  name: 'bearer-token',
  about: 'an authorization header, against the grammar of RFC 6750',
  memoryBytes: MIB,
  lengthMax: 5_000,
  dictionary: ['Bearer ', 'bearer  ', 'Basic ', '=', '==', ', ', '\t'],
  seeds: () =>
    [`Bearer ${'Ab0-._~+/'.repeat(5)}==`, `bearer ${JWT}`, 'Basic dXNlcjpwYXNz'].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const header = bytes.toString('latin1');
    const token = parseBearer(header);
    if (token === null) return false;
    expect(header.endsWith(token) && /^bearer +$/i.test(header.slice(0, -token.length)), 'another token', () => header);
    expect(token.length <= TOKEN_CHARACTERS_MAX && /^[\w.~+/-]+=*$/.test(token), 'not of the grammar:', () => token);
    expect(
      hashOfToken(token) === createHash('sha256').update(token, 'latin1').digest('hex'),
      'another hash',
      () => token,
    );
    return true;
  },
};

const jwtHead: FuzzTarget = {
  name: 'jwt-head',
  about: 'what a JWT says before anything of it is believed, against a plain reading of its parts',
  memoryBytes: MIB,
  lengthMax: TOKEN_CHARACTERS_MAX,
  dictionary: ['.', 'eyJ', base64url({ alg: 'none' }), base64url({}), base64url([]), 'bnVsbA'],
  seeds: () =>
    [JWT, `${base64url({ alg: 'none' })}.${base64url({ exp: 1 })}.`, `${base64url({ alg: 7 })}.e30.e30`].map((text) =>
      Buffer.from(text),
    ),
  run: (bytes) => {
    const token = bytes.toString('latin1');
    const head = decodeJwtHead(token);
    if (head === null) return false;
    const [first = '', second = ''] = token.split('.');
    const read = (part: string): unknown => JSON.parse(Buffer.from(part, 'base64').toString());
    const { alg } = read(first) as { readonly alg?: unknown };
    expect(head.algorithm === alg, 'another algorithm', () => token);
    expect(JSON.stringify(head.payload) === JSON.stringify(read(second)), 'another payload', () => token);
    return looksLikeJwt(token);
  },
};

const certificateName: FuzzTarget = {
  name: 'certificate-name',
  about:
    'the names of a certificate as Node writes them; whoever it is, is written and read the same, and is the only one',
  memoryBytes: MIB,
  lengthMax: 600,
  dictionary: ['URI:', 'DNS:', ', ', 'broker://', '/node/', '/client/', '"', '\\"', 'BROKER://', '\\u002f'],
  seeds: () =>
    [
      'DNS:localhost, URI:broker://prod/node/n1, IP Address:10.0.0.1',
      'URI:broker://a/client/b',
      'URI:"broker://a/node/b, URI:broker://a/node/c"',
    ].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const text = bytes.toString('latin1');
    const name = certificateNameOf(text);
    if (name === null) return false;
    const uri = formatCertificateName(name);
    expect(JSON.stringify(parseCertificateName(uri)) === JSON.stringify(name), 'read otherwise:', () => uri);
    // What stands in quotes may have escapes; the rest has the URI as it is, and no second one.
    if (!text.includes('"'))
      expect(text.toLowerCase().match(/(?:^|, )uri:broker:/g)?.length === 1, 'one of several in', () => text);
    return true;
  },
};

const ACCESS = `roles:
  shop:
    allow: {publish: ["orders.>"], subscribe: ["stock.*"]}
    deny: {publish: ["orders.internal.>"]}
tokens:
  - {name: ci, hash: "sha256:${'ab'.repeat(32)}", roles: [shop], tenant: acme, expires: 2030-01-31T00:00:00Z}
jwt:
  - {name: idp, issuer: "https://idp", audience: [broker], keys: keys.json, claims: {name: sub, tenant: org, roles: groups}}
certificates:
  - {name: billing, allow: {fetch: ["orders.>"]}, observe: true}
anonymous: {allow: {subscribe: ["public.>"]}}
`;
const KEYS = JSON.stringify({
  keys: [{ kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo', kid: 'k1' }],
});
/** Of subjects that nobody may be given by accident. */
const ASKED = ['orders.eu', 'orders.internal.x', 'stock.eu', 'public.a', 'hr.salaries'].map((text) =>
  Buffer.from(text),
);

const accessFile: FuzzTarget = {
  name: 'access-file',
  shortRuns: 150,
  about:
    'a whole access file to its verdict; what is accepted becomes a policy that answers, and denies what it denies',
  memoryBytes: 8 * MIB,
  lengthMax: 2_048,
  wordsOf: ['src/config/access-file', 'src/config/access-file-schema'],
  dictionary: [
    ': ',
    '\n  ',
    '&a ',
    '*a',
    '<<: ',
    '[',
    ']',
    '{',
    '}',
    '!!',
    '---\n',
    '? ',
    '"',
    '#',
    '__proto__',
    'constructor',
    '"*"',
    '">"',
    '1e999',
    '~',
    'null',
  ],
  seeds: () => [ACCESS, 'anonymous: {allow: {publish: [">"]}}\n', '{"tokens": []}'].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const parsed = parseAccessFile(bytes.toString(), 'access.yaml', () => KEYS);
    if ('problems' in parsed) {
      expect(
        parsed.problems.length > 0 && parsed.problems.every((line) => !line.includes('\n')),
        'no problem, or one of two lines',
      );
      return false;
    }
    const { document } = parsed;
    const policy = new Policy(document);
    for (const { hash } of document.tokens)
      expect(policy.byToken(hash) !== null, 'a token that nobody has', () => hash);
    const { anonymous } = policy;
    expect((anonymous === null) === (document.anonymous === null), 'anonymous from nowhere');
    for (const subject of ASKED) {
      for (const verb of [1, 2, 4] as const) anonymous?.permissions.may(verb, subject, 0, subject.length);
    }
    return true;
  },
};

export const ACCESS_TARGETS: readonly FuzzTarget[] = [bearer, jwtHead, certificateName, accessFile];
