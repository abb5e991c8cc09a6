/** What may stand in an access file, key by key. */
import { z } from 'zod';
import { subjectFault } from '../base/subject.ts';
import { JWT_ALGORITHMS } from './jwt-keys.ts';
import { parseDuration } from './units.ts';

const HOLDERS_MAX = 10_000;
const ISSUERS_MAX = 32;
/** Of one list: each decision may walk all of them. */
const PATTERNS_MAX = 100;
const ROLES_OF_ONE_MAX = 16;
const TOLERANCE_MAX_MS = 300_000;

const NAME = /^[A-Za-z0-9_]([A-Za-z0-9._@/-]{0,62}[A-Za-z0-9_])?$/;
export const NAME_RULE =
  'must be 1 to 64 of A-Z, a-z, 0-9, ".", "_", "@", "/" and "-", with a letter, digit or "_" at both ends';
const TENANT = /^([A-Za-z0-9._-]{1,64}|\*)$/;
const TENANT_RULE = 'must be 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-", or "*" for whichever a call names';
const HASH = /^sha256:[0-9a-f]{64}$/;
const HASH_RULE = 'must be sha256: and 64 hex digits, as `broker access token` prints it; never the token itself';
const PATTERN_RULE =
  'must be a subject, or a pattern with "*" for one token and ">" as the last one for the rest; quote it, since YAML has a meaning for both';

const name = z.string().regex(NAME, NAME_RULE);
const tenant = z
  .string()
  .regex(TENANT, TENANT_RULE)
  .default('default')
  .describe(
    'Tenant of the calls; "*": the one that each call names in x-tenant, for proxies and operators. With `observe` or `admin`, `default` and "*" see all tenants.',
  );
const pattern = z.string().refine(isSubjectOrPattern, PATTERN_RULE);
const patterns = z.array(pattern).max(PATTERNS_MAX).default([]);
export const LISTS = z
  .strictObject({
    publish: patterns.describe('Publish, PublishStream, Broadcast and IncIdx.'),
    subscribe: patterns.describe('Subscribe and Consume.'),
    fetch: patterns.describe('Fetch.'),
  })
  .prefault({});
const grants = {
  allow: LISTS.describe('Subjects and patterns, by verb. What no rule allows is denied.'),
  deny: LISTS.describe('Goes before every allow, also of other roles.'),
  observe: z.boolean().default(false).describe('May look at the node and the cluster, metrics and console included.'),
  admin: z.boolean().default(false).describe('May change the node and the cluster, and look at them.'),
};
export const HOLDER = {
  tenant,
  roles: z.array(name).max(ROLES_OF_ONE_MAX).default([]).describe('Roles of this file.'),
  ...grants,
};
const expires = z.iso
  .datetime({ offset: true, error: 'must be a time such as 2027-01-31T00:00:00Z' })
  .optional()
  .describe('When it ends. Without it, never.');

const claim = z.string().min(1).max(256);
export const ISSUER = {
  name: name.describe('What this issuer is called in logs.'),
  issuer: z.string().min(1).max(1_024).describe('Claim `iss` of its tokens, exactly.'),
  audience: z
    .union([z.string().min(1).max(1_024), z.array(z.string().min(1).max(1_024)).min(1).max(16)])
    .describe('One of these has to be in the claim `aud`.'),
  keys: z
    .string()
    .min(1)
    .max(4_096)
    .describe('File with the keys that sign: a JWKS, or public keys or certificates in PEM. Relative to this file.'),
  algorithms: z
    .array(z.enum(JWT_ALGORITHMS, { error: `must be of ${JWT_ALGORITHMS.join(', ')}` }))
    .min(1)
    .optional()
    .describe(
      'Algorithms that are taken; without it those of the keys. HS256 and the like are taken only if named here.',
    ),
  clock_tolerance: z
    .string()
    .refine(
      (text) => (parseDuration(text) ?? Number.POSITIVE_INFINITY) <= TOLERANCE_MAX_MS,
      'must be a duration from 0s to 5m',
    )
    .default('5s')
    .describe('How long before its `nbf` a token is taken: clocks differ. Its end is kept as it is.'),
  claims: z
    .strictObject({
      name: claim.default('sub').describe('Claim that names the caller.'),
      tenant: claim
        .optional()
        .describe(
          'Claim that names the tenant. Without it: `tenant` of this entry, which alone can give `default` and "*".',
        ),
      roles: claim
        .optional()
        .describe(
          'Claim with names of roles, as a list or with spaces between, beside `roles` of this entry. A way leads into objects: realm_access.roles.',
        ),
    })
    .prefault({}),
  ...HOLDER,
};

export const FILE = z.strictObject({
  roles: z.record(name, z.strictObject(grants)).default({}).describe('What several may do, under a name.'),
  tokens: z
    .array(z.strictObject({ name, hash: z.string().regex(HASH, HASH_RULE), expires, ...HOLDER }))
    .max(HOLDERS_MAX)
    .default([])
    .describe('Bearer tokens, by their hash: `broker access token` makes one.'),
  certificates: z
    .array(z.strictObject({ name: z.string().min(1).max(255), ...HOLDER }))
    .max(HOLDERS_MAX)
    .default([])
    .describe('Client certificates, by the name that they carry.'),
  jwt: z
    .array(z.strictObject(ISSUER))
    .max(ISSUERS_MAX)
    .default([])
    .describe('Who issues tokens (JWT) that are taken, and what for.'),
  anonymous: z
    .strictObject(HOLDER)
    .optional()
    .describe(
      'What who shows nothing may do. Without it, nothing. Anything here opens ports beyond loopback to strangers, which needs insecure.',
    ),
});

export type AccessFile = z.infer<typeof FILE>;

/** With a letter for each wildcard it has to be a subject; `>` only at the end. */
function isSubjectOrPattern(text: string): boolean {
  const tokens = text.split('.');
  if (tokens.slice(0, -1).includes('>')) return false;
  const plain = Buffer.from(tokens.map((token) => (token === '*' || token === '>' ? 'x' : token)).join('.'));
  return text.isWellFormed() && subjectFault(plain, 0, plain.length) === null;
}
