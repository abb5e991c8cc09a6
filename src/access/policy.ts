import { TENANT_DEFAULT } from '../base/subject-space.ts';
import type { AccessDocument, CertificateRow, Holder, JwtRow, TokenRow } from './document.ts';
import { claimsOf, type JwtProof, rowOf } from './jwt-claims.ts';
import { Permissions } from './permissions.ts';

/** Somebody that the access file knows, and what they may do. */
export interface Identity {
  /** For logs and people: `token ci`. */
  readonly name: string;
  /** `*`: the tenant that each call names. */
  readonly tenant: string;
  /** Epoch ms; Infinity: never. */
  readonly expiresAt: number;
  readonly permissions: Permissions;
}

/** The access file, compiled: who is who, and what each may do. Changes with the file as a whole. */
export class Policy {
  readonly anonymous: Identity | null;
  readonly #document: AccessDocument;
  readonly #tokens: ReadonlyMap<string, TokenRow>;
  readonly #certificates: ReadonlyMap<string, CertificateRow>;
  /** Made when somebody comes: most tokens of a large file do not. */
  readonly #identities = new Map<string, Identity>();

  constructor(document: AccessDocument) {
    this.#document = document;
    this.#tokens = new Map(document.tokens.map((row) => [row.hash, row]));
    this.#certificates = new Map(document.certificates.map((row) => [row.name, row]));
    this.anonymous =
      document.anonymous === null ? null : this.#identity('anonymous', document.anonymous, Number.POSITIVE_INFINITY);
  }

  /** `hash`: SHA-256 of the token in hex. */
  byToken(hash: string): Identity | null {
    const row = this.#tokens.get(hash);
    return row === undefined ? null : this.#identity(`token ${row.name}`, row, row.expiresAt);
  }

  byTokenName(name: string): Identity | null {
    const row = this.#document.tokens.find((one) => one.name === name);
    return row === undefined ? null : this.byToken(row.hash);
  }

  /** How much the file has, for people. */
  get counts() {
    const { roles, tokens, jwt, certificates } = this.#document;
    return { roles: roles.size, tokens: tokens.length, jwt: jwt.length, certificates: certificates.length };
  }

  /** Names of whoever looks at all tenants, or may by what the claims of a token give: it observes, and is in the space of none. */
  get overseers(): readonly string[] {
    const { tokens, certificates, jwt, anonymous } = this.#document;
    const rolesOfAll = [...this.#document.roles.keys()];
    const holders = [
      ...tokens.map((row) => ({ name: `token ${row.name}`, row, roles: row.roles })),
      ...certificates.map((row) => ({ name: `certificate ${row.name}`, row, roles: row.roles })),
      ...jwt
        .filter(({ claims }) => claims.tenant === null)
        .map((row) => ({ name: `jwt ${row.name}`, row, roles: row.claims.roles === null ? row.roles : rolesOfAll })),
      ...(anonymous === null
        ? []
        : [{ name: 'anonymous', row: { ...anonymous, tenant: '*' }, roles: anonymous.roles }]),
    ];
    return holders
      .filter(({ row: { tenant } }) => tenant === '*' || tenant === TENANT_DEFAULT)
      .filter(({ name, row, roles }) => this.#permissionsOf(name, row, roles).observes)
      .map(({ name }) => name);
  }

  /** Who issues tokens that are taken. */
  get issuers(): readonly JwtRow[] {
    return this.#document.jwt;
  }

  /** Null: what the file takes by now is something else. */
  byJwt(proof: JwtProof): Identity | null {
    const row = rowOf(this.#document.jwt, proof);
    const claims = row === null ? null : claimsOf(row, proof.payload);
    if (row === null || claims === null) return null;
    const name = `jwt ${row.name}/${claims.name}`;
    const permissions = this.#permissionsOf(name, row, [...row.roles, ...claims.roles]);
    return { name, tenant: claims.tenant, expiresAt: proof.expiresAt, permissions };
  }

  /** `name`: of the certificate, as the file has it. */
  byCertificate(name: string): Identity | null {
    const row = this.#certificates.get(name);
    return row === undefined ? null : this.#identity(`certificate ${name}`, row, Number.POSITIVE_INFINITY);
  }

  #identity(name: string, holder: Holder, expiresAt: number): Identity {
    const known = this.#identities.get(name);
    if (known !== undefined) return known;
    const permissions = this.#permissionsOf(name, holder, holder.roles);
    const identity: Identity = { name, tenant: holder.tenant, expiresAt, permissions };
    this.#identities.set(name, identity);
    return identity;
  }

  /** Roles that the file does not know give nothing. */
  #permissionsOf(name: string, holder: Holder, roles: readonly string[]): Permissions {
    const own = [{ from: name, grants: holder }];
    const given = roles.flatMap((role) => {
      const grants = this.#document.roles.get(role);
      return grants === undefined ? [] : [{ from: `role ${role}`, grants }];
    });
    return new Permissions([...own, ...given]);
  }
}
