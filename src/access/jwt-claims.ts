import { isTenant, TENANT_DEFAULT } from '../base/subject-space.ts';
import type { JwtRow } from './document.ts';

/** A token whose signature was found to be good, and by what. */
export interface JwtProof {
  readonly algorithm: string;
  /** Of the key. */
  readonly print: string;
  /** Its claims. `iss`, `aud` and `nbf` were found to be good at the time. */
  readonly payload: Readonly<Record<string, unknown>>;
  /** Epoch ms. */
  readonly expiresAt: number;
}

/** What a token says of who has it. */
export interface JwtClaims {
  readonly name: string;
  readonly tenant: string;
  readonly roles: readonly string[];
}

const NAME_MAX = 128;
const ROLES_MAX = 64;
/** Would break lines of logs, or hide in them. */
const UNSHOWN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** The row that such a token is for: by issuer, audience, algorithm and key. */
export function rowOf(rows: readonly JwtRow[], { algorithm, print, payload }: JwtProof): JwtRow | null {
  const isFor = (row: JwtRow): boolean =>
    isMeantFor(row, payload) &&
    row.algorithms.includes(algorithm) &&
    row.keys.some((key) => key.print === print && key.algorithms.includes(algorithm));
  return rows.find(isFor) ?? null;
}

/** By issuer and audience, whatever else it is. */
export function isMeantFor(row: JwtRow, payload: Readonly<Record<string, unknown>>): boolean {
  const { iss, aud } = payload;
  const audience = Array.isArray(aud) ? (aud as unknown[]) : [aud];
  return iss === row.issuer && audience.some((one) => typeof one === 'string' && row.audience.includes(one));
}

/** Null if a claim that the row names is missing, or is nothing that can be used. */
export function claimsOf(row: JwtRow, payload: Readonly<Record<string, unknown>>): JwtClaims | null {
  const { claims } = row;
  const name = claim(payload, claims.name);
  if (typeof name !== 'string' || name === '' || name.length > NAME_MAX || UNSHOWN.test(name)) return null;
  const tenant = claims.tenant === null ? row.tenant : claimedTenant(claim(payload, claims.tenant));
  if (tenant === null) return null;
  const roles = claims.roles === null ? [] : rolesIn(claim(payload, claims.roles));
  return roles === null ? null : { name: name.toWellFormed(), tenant, roles };
}

/** Null for what names none. "*" and `default` are given by the file alone: who has them is in no space, and who looks from there sees those of all. */
function claimedTenant(value: unknown): string | null {
  return typeof value === 'string' && isTenant(value) && value !== TENANT_DEFAULT ? value : null;
}

/** A claim by its name, or by the way to it (`realm_access.roles`). */
function claim(payload: Readonly<Record<string, unknown>>, name: string): unknown {
  if (Object.hasOwn(payload, name)) return payload[name];
  let value: unknown = payload;
  for (const part of name.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Readonly<Record<string, unknown>>)[part];
  }
  return value;
}

/** A list, or names with spaces between, as `scope` has them. Without the claim: none. */
function rolesIn(value: unknown): readonly string[] | null {
  if (value === undefined) return [];
  const roles: unknown[] =
    typeof value === 'string' ? value.split(' ').filter((role) => role !== '') : Array.isArray(value) ? value : [null];
  return roles.length <= ROLES_MAX && roles.every((role) => typeof role === 'string') ? (roles as string[]) : null;
}
