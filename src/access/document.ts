/** What an access file says, as plain data: checked by whoever has read it. Patterns are valid, names are known. */

/** For subjects, by verb. */
export interface SubjectLists {
  readonly publish: readonly string[];
  readonly subscribe: readonly string[];
  readonly fetch: readonly string[];
}

/** What is given, and what is taken from it whoever gives it. */
export interface Grants {
  readonly allow: SubjectLists;
  readonly deny: SubjectLists;
  /** May look at the node and the cluster. */
  readonly observe: boolean;
  /** May change them, and look at them. */
  readonly admin: boolean;
}

/** Somebody: in whose name, and with which roles beside what is given directly. */
export interface Holder extends Grants {
  /** A tenant by name; `*`: the one that each call names. */
  readonly tenant: string;
  readonly roles: readonly string[];
}

export interface TokenRow extends Holder {
  readonly name: string;
  /** SHA-256 of the token, in hex. */
  readonly hash: string;
  /** Epoch ms; Infinity: never. */
  readonly expiresAt: number;
}

export interface CertificateRow extends Holder {
  readonly name: string;
}

/** A key that signs, as a JSON Web Key. */
export interface JwtKey {
  readonly jwk: Readonly<Record<string, unknown>>;
  /** Empty: it has no name. */
  readonly kid: string;
  /** That it may sign with. */
  readonly algorithms: readonly string[];
  /** Equal for equal keys. */
  readonly print: string;
}

/** Somebody who issues tokens (JWT), and what their tokens are taken for. `tenant`: unless a claim says it. */
export interface JwtRow extends Holder {
  readonly name: string;
  readonly issuer: string;
  /** One of these has to be in the token. */
  readonly audience: readonly string[];
  readonly keys: readonly JwtKey[];
  readonly algorithms: readonly string[];
  /** How long before its `nbf` a token is taken, in ms: clocks differ. Its end is kept as it is. */
  readonly clockToleranceMs: number;
  /** Names of claims; null: none says it. */
  readonly claims: { readonly name: string; readonly tenant: string | null; readonly roles: string | null };
}

export interface AccessDocument {
  readonly roles: ReadonlyMap<string, Grants>;
  readonly tokens: readonly TokenRow[];
  readonly certificates: readonly CertificateRow[];
  readonly jwt: readonly JwtRow[];
  /** Who shows nothing; null: may do nothing. */
  readonly anonymous: Holder | null;
}
