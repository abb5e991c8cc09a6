/** Keys that sign tokens (JWT), from a file: a JWKS, or public keys and certificates in PEM. */
import { createHash, createPublicKey, type JsonWebKey, type KeyObject } from 'node:crypto';
import type { JwtKey } from '../access/document.ts';

const KEYS_MAX = 64;
const RSA_BITS_MIN = 2_048;
const SECRET_BYTES_MIN = 32;
const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[^-]+-----END \1-----/g;

const OF_RSA = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'];
const OF_SECRETS = ['HS256', 'HS384', 'HS512'];
const OF_CURVES: Readonly<Record<string, readonly string[]>> = {
  'P-256': ['ES256'],
  'P-384': ['ES384'],
  'P-521': ['ES512'],
  Ed25519: ['EdDSA', 'Ed25519'],
};

/** Every algorithm that can be named: `none` is not among them. */
export const JWT_ALGORITHMS = [...OF_RSA, ...Object.values(OF_CURVES).flat(), ...OF_SECRETS] as const;

export function isSymmetric(algorithm: string): boolean {
  return OF_SECRETS.includes(algorithm);
}

/** The keys, or what is wrong with them; never what they are. */
export function parseJwtKeys(text: string): readonly JwtKey[] | string {
  const keys = text.trimStart().startsWith('{') ? fromJson(text) : fromPem(text);
  if (typeof keys === 'string') return keys;
  if (keys.length === 0) return 'there is no key in it';
  if (keys.length > KEYS_MAX) return `there are more than ${KEYS_MAX} keys in it`;
  const named = keys.flatMap(({ kid }) => (kid === '' ? [] : [kid]));
  return new Set(named).size < named.length ? 'two keys have the same kid' : keys;
}

function fromJson(text: string): readonly JwtKey[] | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    // Its message may quote the file.
    return 'it is not valid JSON';
  }
  const list: unknown = typeof value === 'object' && value !== null && 'keys' in value ? value.keys : [value];
  if (!Array.isArray(list)) return 'its "keys" are no list';
  const keys: JwtKey[] = [];
  for (const [i, one] of (list as unknown[]).entries()) {
    if (typeof one !== 'object' || one === null) return `key ${i + 1} is no object`;
    const jwk = one as Readonly<Record<string, unknown>>;
    // Keys for encryption are often published beside those that sign.
    if (jwk.use === 'enc') continue;
    const key = toKey(jwk);
    if (typeof key === 'string') return `key ${i + 1} ${key}`;
    keys.push(key);
  }
  return keys;
}

function fromPem(text: string): readonly JwtKey[] | string {
  const keys: JwtKey[] = [];
  for (const [block, label = ''] of text.matchAll(BLOCK)) {
    if (label.includes('PRIVATE')) return 'it has a private key: give the public one';
    const key = publicKeyOf(() => createPublicKey(block));
    const made = key === null ? 'cannot be read' : toKey(key.export({ format: 'jwk' }) as Record<string, unknown>);
    if (typeof made === 'string') return `block ${keys.length + 1} (${label}) ${made}`;
    keys.push(made);
  }
  return keys.length === 0 ? 'it is neither a JWKS nor PEM' : keys;
}

function toKey(jwk: Readonly<Record<string, unknown>>): JwtKey | string {
  const { kid = '', kty, crv, alg, k } = jwk;
  if (typeof kid !== 'string' || kid.length > 256) return 'has a kid that is no text of 256 characters at the most';
  if (kty === 'oct') {
    if (typeof k !== 'string' || Buffer.from(k, 'base64url').length < SECRET_BYTES_MIN)
      return `is a secret of fewer than ${SECRET_BYTES_MIN} bytes`;
    return made(jwk, kid, OF_SECRETS, alg, k);
  }
  if ('d' in jwk) return 'has its private part: give the public one';
  const object = publicKeyOf(() => createPublicKey({ key: jwk as JsonWebKey, format: 'jwk' }));
  if (object === null) return 'is no public key that can be read';
  if (kty === 'RSA' && (object.asymmetricKeyDetails?.modulusLength ?? 0) < RSA_BITS_MIN)
    return `is an RSA key of fewer than ${RSA_BITS_MIN} bits`;
  const algorithms = kty === 'RSA' ? OF_RSA : OF_CURVES[String(crv)];
  if (algorithms === undefined) return 'is of a kind that signs nothing here: RSA, P-256, P-384, P-521, Ed25519 or oct';
  return made(jwk, kid, algorithms, alg, object.export({ format: 'der', type: 'spki' }));
}

function made(
  jwk: Readonly<Record<string, unknown>>,
  kid: string,
  algorithms: readonly string[],
  alg: unknown,
  material: string | Buffer,
): JwtKey | string {
  if (alg !== undefined && !algorithms.includes(String(alg))) return 'has an "alg" that is not one of its kind';
  const print = createHash('sha256').update(material).digest('base64url');
  // What a key says of itself beside (key_ops, x5c) is not looked at again.
  const { use: _use, key_ops: _operations, x5c: _chain, ...plain } = jwk;
  return { jwk: plain, kid, algorithms: alg === undefined ? algorithms : [String(alg)], print };
}

/** Null for what cannot be read; the errors of OpenSSL say nothing that helps. */
function publicKeyOf(make: () => KeyObject): KeyObject | null {
  try {
    return make();
  } catch (error) {
    if (error instanceof Error) return null;
    throw error;
  }
}
