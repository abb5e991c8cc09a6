import { type CryptoKey, decodeJwt, decodeProtectedHeader, errors, importJWK, jwtVerify } from 'jose';
import type { JwtKey, JwtRow } from '../../access/document.ts';
import { isMeantFor, type JwtProof } from '../../access/jwt-claims.ts';
import type { Reason } from '../../base/errors.ts';

/** Why a token is not taken, with what the log says of it: the caller is told the reason alone. */
export interface JwtRefusal {
  readonly reason: Reason;
  readonly detail: string;
  /** It would be taken at a later time: nobody may remember that it was not. */
  readonly isEarly?: true;
}

/** What a token says of itself, before anything of it is believed. */
interface JwtHead {
  readonly algorithm: string;
  readonly kid: string | undefined;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** Whether a bearer token looks like a JWT: others are never taken for one. */
export function looksLikeJwt(token: string): boolean {
  return /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token);
}

/** Null for what is none. Nothing of it is proven. */
export function decodeJwtHead(token: string): JwtHead | null {
  try {
    const { alg, kid } = decodeProtectedHeader(token);
    return typeof alg === 'string' ? { algorithm: alg, kid, payload: decodeJwt(token) } : null;
  } catch (error) {
    // What jose throws for bytes that are no JWT; a kid that is no text comes as it is.
    if (error instanceof errors.JOSEError || error instanceof TypeError || error instanceof SyntaxError) return null;
    throw error;
  }
}

/** Verifies tokens with the keys that the access file names. What can be refused without a signature is. */
export class JwtVerifier {
  readonly #rows: readonly JwtRow[];
  /** Imported when they are first used. */
  readonly #imported = new Map<JwtKey, Promise<CryptoKey | Uint8Array>>();

  constructor(rows: readonly JwtRow[]) {
    this.#rows = rows;
  }

  /** The row and the key that a token has to be verified with, or why it is not worth it. `now`: epoch ms. */
  preview(
    token: string,
    now: number,
  ): { readonly row: JwtRow; readonly key: JwtKey; readonly head: JwtHead } | JwtRefusal {
    const head = decodeJwtHead(token);
    if (head === null) return invalid('it is no JWT');
    const { algorithm, kid, payload } = head;
    const row = this.#rows.find((one) => isMeantFor(one, payload));
    if (row === undefined) return invalid('no entry of the access file has its issuer and audience');
    if (!row.algorithms.includes(algorithm)) return invalid('its algorithm is not one that is taken');
    const { exp, nbf } = payload;
    if (typeof exp !== 'number') return invalid('it has no end (exp)');
    if (exp * 1_000 <= now) return { reason: 'CREDENTIALS_EXPIRED', detail: 'it has expired' };
    // As jose has it, which counts whole seconds. One that is no number is refused there, for ever.
    if (typeof nbf === 'number' && nbf > Math.floor(now / 1_000) + row.clockToleranceMs / 1_000) return EARLY;
    const able = row.keys.filter((key) => key.algorithms.includes(algorithm));
    const named =
      kid === undefined ? able : able.filter((key) => key.kid === kid || (key.kid === '' && able.length === 1));
    const [key] = named;
    if (key === undefined) return invalid('no key has its kid');
    if (named.length > 1) return invalid('it has no kid, and several keys could have signed it');
    return { row, key, head };
  }

  /** Never rejects for what is wrong with the token. */
  async verify(token: string, now: number): Promise<JwtProof | JwtRefusal> {
    const found = this.preview(token, now);
    if ('reason' in found) return found;
    const { row, key, head } = found;
    const options = {
      algorithms: [head.algorithm],
      issuer: row.issuer,
      audience: [...row.audience],
      clockTolerance: row.clockToleranceMs / 1_000,
      requiredClaims: ['exp', 'iss', 'aud'],
      currentDate: new Date(now),
    };
    try {
      const { payload } = await jwtVerify(token, await this.#import(key, head.algorithm), options);
      const expiresAt = (payload.exp as number) * 1_000;
      return { algorithm: head.algorithm, print: key.print, payload, expiresAt };
    } catch (error) {
      if (error instanceof errors.JOSEError) return invalid(detailOf(error));
      // What a stranger sends must not end the process, whatever jose makes of it.
      if (error instanceof Error) return invalid('it cannot be verified');
      throw error;
    }
  }

  #import(key: JwtKey, algorithm: string): Promise<CryptoKey | Uint8Array> {
    const { jwk } = key;
    // Of RSA the same key serves several algorithms, each imported for itself.
    if (key.algorithms.length > 1 && jwk.kty !== 'oct') return importJWK(jwk, algorithm);
    const found = this.#imported.get(key) ?? importJWK(jwk, algorithm);
    this.#imported.set(key, found);
    return found;
  }
}

const EARLY: JwtRefusal = { reason: 'CREDENTIALS_INVALID', detail: 'its time has not come yet (nbf)', isEarly: true };

function invalid(detail: string): JwtRefusal {
  return { reason: 'CREDENTIALS_INVALID', detail };
}

/** In our words: messages of a library may quote what they were given. */
function detailOf(error: errors.JOSEError): string {
  switch (error.code) {
    case 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED':
      return 'its signature is not of the key that it names';
    case 'ERR_JWT_EXPIRED':
      return 'it has expired';
    case 'ERR_JWT_CLAIM_VALIDATION_FAILED':
      return 'a claim (nbf, iss, aud, iat) is missing or not valid';
    default:
      return `it is not a token that can be taken (${error.code})`;
  }
}
