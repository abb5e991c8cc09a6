/** The access file: what is wrong with one, and where. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { parse } from 'yaml';
import { Policy } from '../../src/access/policy.ts';
import { accessJsonSchema, parseAccessFile } from '../../src/config/access-file.ts';
import { hashOf, pairsFile, tokenOf } from '../support/access-pairs.ts';
import { ROOT } from '../support/source-tree.ts';

const problems = (text: string): readonly string[] => {
  const parsed = parseAccessFile(text, 'a.yaml', () => {
    throw new Error('there is no such file');
  });
  return 'problems' in parsed ? parsed.problems : [];
};

describe('the access file', () => {
  it('tells of each mistake with its line and key, and what may have been meant', () => {
    const cases: [string, string][] = [
      ['', 'a.yaml: must be a mapping with roles, tokens, jwt, certificates or anonymous'],
      ['- a', 'a.yaml: must be a mapping with roles, tokens, jwt, certificates or anonymous'],
      [
        'roles: {\n',
        'a.yaml:2: not valid YAML: Flow map in block collection must be sufficiently indented and end with a }',
      ],
      ['roles: *x', 'a.yaml: not valid YAML: Unresolved alias (the anchor must be set before the alias)'],
      ['rols: {}', 'a.yaml:1: unknown key "rols": did you mean roles?'],
      ['roles:\n  a:\n    alow: {}', 'a.yaml:3: unknown key "roles.a.alow": did you mean allow?'],
      [
        'roles:\n  a:\n    allow:\n      publsh: []',
        'a.yaml:4: unknown key "roles.a.allow.publsh": did you mean publish?',
      ],
      ['roles:\n  a:\n    admin: maybe', 'a.yaml:3: roles.a.admin: expected boolean, received string'],
      [
        'roles:\n  a:\n    allow:\n      publish:\n        - "ok.>"\n        - "a.>.b"',
        'a.yaml:6: roles.a.allow.publish.1: must be a subject, or a pattern with "*" for one token and ">" as the last one for the rest; quote it, since YAML has a meaning for both',
      ],
      [
        'tokens:\n  - {name: a, hash: "x"}',
        'a.yaml:2: tokens.0.hash: must be sha256: and 64 hex digits, as `broker access token` prints it; never the token itself',
      ],
      [
        `tokens:\n  - {name: a, hash: "${hashOf('a')}", expires: tomorrow}`,
        'a.yaml:2: tokens.0.expires: must be a time such as 2027-01-31T00:00:00Z',
      ],
      [`tokens:\n  - {name: a, hash: "${hashOf('a')}", roles: [b]}`, 'a.yaml:2: tokens.0.roles: there is no role "b"'],
      [
        `tokens:\n  - {name: a, hash: "${hashOf('a')}"}\n  - {name: a, hash: "${hashOf('b')}"}`,
        'a.yaml:3: tokens.1.name: another one has the same',
      ],
      [
        `tokens:\n  - {name: a, hash: "${hashOf('a')}"}\n  - {name: b, hash: "${hashOf('a')}"}`,
        'a.yaml:3: tokens.1.hash: another one has the same',
      ],
      [
        `tokens:\n  - {name: a, hash: "${hashOf('a')}", tenant: "a b"}`,
        'a.yaml:2: tokens.0.tenant: must be 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", or "*" for whichever a call names',
      ],
      ['jwt:\n  - {name: a, issuer: b, audience: c, keys: none.json}', 'a.yaml:2: jwt.0.keys: there is no such file'],
      ['a: 1\na: 2', 'a.yaml:2: not valid YAML: Map keys must be unique'],
    ];
    for (const [text, problem] of cases) assert.deepEqual(problems(text), [problem]);
  });

  it('tells who sees all tenants: whoever observes and is in the space of none, by itself, by a role, or by one that a claim may give', () => {
    const key = generateKeyPairSync('ed25519').publicKey.export({ format: 'pem', type: 'spki' }) as string;
    const issuer = 'issuer: i, audience: a, keys: k';
    const text = `
roles: {look: {observe: true}}
tokens:
  - {name: ops, hash: "${hashOf('ops')}", admin: true}
  - {name: named, hash: "${hashOf('named')}", roles: [look], tenant: default}
  - {name: acme, hash: "${hashOf('acme')}", admin: true, tenant: acme}
  - {name: writer, hash: "${hashOf('writer')}"}
certificates:
  - {name: proxy, roles: [look], tenant: "*"}
  - {name: other, roles: [look], tenant: other}
jwt:
  - {name: given, ${issuer}, claims: {roles: groups}}
  - {name: tied, ${issuer}, claims: {tenant: org, roles: groups}, admin: true}
  - {name: plain, ${issuer}}
anonymous: {observe: true, tenant: acme}
`;
    const parsed = parseAccessFile(text, 'a.yaml', () => key);
    assert.ok('document' in parsed, 'problems' in parsed ? parsed.problems.join() : '');
    assert.deepEqual(new Policy(parsed.document).overseers, [
      ...['token ops', 'token named', 'certificate proxy', 'jwt given', 'anonymous'],
    ]);
  });

  it('never tells what a token is that somebody has put in the place of its hash', () => {
    for (const text of [
      `tokens:\n  - {name: a, hash: ${tokenOf('a')}}`,
      `tokens:\n  - {name: ${tokenOf('a')}!, hash: 1}`,
      `${tokenOf('a')}: [`,
    ])
      assert.doesNotMatch(problems(text).join(), /token-of-/, text);
  });

  it('is refused, and not unfolded, when it is a trap', () => {
    const bomb = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let i = 1; i < 12; i++)
      bomb.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(', ')}]`);
    const began = performance.now();
    assert.equal(problems(bomb.join('\n')).length, 1);
    assert.ok(performance.now() - began < 5_000);
    assert.deepEqual(problems('x'.repeat(5 << 20)), ['a.yaml: larger than 4194304 bytes']);
    assert.deepEqual(problems('roles: {__proto__: {admin: true}, constructor: {observe: true}}').length, 0);
  });

  it('has a schema for editors that is of now, and takes what the broker takes', () => {
    const text = readFileSync(join(ROOT, 'docs/access.schema.json'), 'utf8');
    assert.equal(text, accessJsonSchema(), 'run npm run generate');
    const validate = new Ajv2020({ strict: false, validateFormats: false }).compile(JSON.parse(text) as object);
    assert.ok(validate(parse(pairsFile())), JSON.stringify(validate.errors));
    assert.equal(validate({ tokens: [{ name: 'a', hash: 'x' }] }), false);
    assert.equal(validate({ rols: {} }), false);
  });
});
