import { createHash } from 'node:crypto';

/** Longest token that is looked at, in characters: a JWT with many claims has 2,000. */
export const TOKEN_CHARACTERS_MAX = 4_096;

const SCHEME = /^bearer +/i;
/** RFC 6750, section 2.1. */
const TOKEN = /^[A-Za-z0-9._~+/-]+=*$/;

/** The token of an `authorization` header; null if it is none of this scheme, has no valid token or one that is too long. */
export function parseBearer(header: string): string | null {
  if (header.length > TOKEN_CHARACTERS_MAX + 16) return null;
  const scheme = SCHEME.exec(header);
  if (scheme === null) return null;
  const token = header.slice(scheme[0].length);
  return token.length <= TOKEN_CHARACTERS_MAX && TOKEN.test(token) ? token : null;
}

/** As the access file has it. Tokens are looked up by this: how long that takes tells nothing of one that is nearly right. */
export function hashOfToken(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}
