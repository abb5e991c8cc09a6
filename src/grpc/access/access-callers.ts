import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Caller } from '../../access/caller.ts';
import { AccessCaller, type Credential, KnownIdentity, type RefusalNotes } from '../../access/known-identity.ts';
import type { Identity, Policy } from '../../access/policy.ts';
import type { Reason } from '../../base/errors.ts';
import { NO_SPACE, TENANT_DEFAULT } from '../../base/subject-space.ts';
import type { CallerSource } from '../callers.ts';
import { TENANT_KEY, tenantOfHeader } from '../tenant.ts';
import { hashOfToken, parseBearer } from './bearer.ts';
import { CallerStreams } from './caller-streams.ts';
import { type ClientNames, clientNamesOf } from './client-names.ts';
import { type JwtRefusal, JwtVerifier, looksLikeJwt } from './jwt-verifier.ts';
import { NEEDS, STREAMS, unmet } from './methods.ts';
import { Verifications } from './verifications.ts';

/** `knownMax`, unless it is given. */
const KNOWN_MAX = 4_096;
/** Headers of which it is remembered that nobody has them. */
const UNKNOWN_MAX = 1_024;

/** Times that a token is verified while one file comes after the other. */
const JUDGED_MAX = 3;

/** Is told of calls that are refused at the door. */
export interface DoorNotes extends RefusalNotes {
  /** `name`: of the caller if they are known; `detail`: for the log alone, '' for none. */
  refused(refusal: {
    readonly reason: Reason;
    readonly name: string | null;
    readonly detail: string;
    readonly stream: ServerHttp2Stream;
    readonly path: string;
  }): void;
}

export interface AccessCallersOptions {
  readonly policy: Policy;
  /** Name of the cluster, as certificates of its clients have it. */
  readonly cluster: string;
  readonly notes: DoorNotes;
  /** What stands in front of the subjects of a tenant. */
  readonly spaceOf: (tenant: string) => Uint8Array;
  /** Epoch ms. */
  readonly now: () => number;
  /** Headers of which it is remembered who sends them. The oldest goes when there are more. */
  readonly knownMax?: number;
}

/** Who calls, by the access file. */
export class AccessCallers implements CallerSource {
  readonly #options: AccessCallersOptions;
  #policy: Policy;
  #verifier: JwtVerifier;
  readonly #verifications = new Verifications();
  readonly #streams = new CallerStreams();
  /** By header. The way of nearly every call. */
  readonly #byHeader = new Map<string, KnownIdentity>();
  /** Headers that are refused, and why. */
  readonly #unknown = new Map<string, JwtRefusal>();
  /** Tokens whose signature is being verified: calls that come meanwhile wait for the same answer. */
  readonly #pending = new Map<string, Promise<KnownIdentity | JwtRefusal>>();
  /** By the certificates of connections, as the file was when they called last. */
  readonly #bySession = new WeakMap<
    Http2Session,
    { readonly policy: Policy; readonly holder: KnownIdentity | JwtRefusal | null }
  >();
  /** Everybody of the file who has called, by what they showed: the hash of a token, the name of a certificate, '' for nothing. */
  readonly #ofFile = new Map<string, KnownIdentity>();

  constructor(options: AccessCallersOptions) {
    this.#options = options;
    this.#policy = options.policy;
    this.#verifier = new JwtVerifier(options.policy.issuers);
  }

  of(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Caller | Reason | Promise<Caller | Reason> {
    const path = headers[':path'] as string;
    if (NEEDS.get(path) === 'open') return NOBODY;
    const known = this.#identify(stream, headers.authorization);
    return known instanceof Promise
      ? known.then((found) => this.#enter(stream, headers, path, found))
      : this.#enter(stream, headers, path, known);
  }

  lapsed(stream: ServerHttp2Stream, caller: Caller, path: string): Reason | null {
    // Nodes, and who asks for what is open to all.
    if (!(caller instanceof AccessCaller)) return null;
    const need = NEEDS.get(path);
    const reason = this.refusalOf(caller.known) ?? (need === undefined ? null : unmet(need, caller));
    return reason === null ? null : this.#refuse(stream, path, reason, caller.name, 'since its request has begun');
  }

  refused(stream: ServerHttp2Stream, caller: Caller, path: string, reason: Reason): void {
    if (caller instanceof AccessCaller) this.#refuse(stream, path, reason, caller.name, 'for what it names');
  }

  /**
   * Somebody who needs no signature verified to be known: by a token of the file, or one that was seen before. Null: whatever else shows this. Costs a
   * hash and a look into tables, whose order and time come from hashes: nothing that is nearly right is found sooner.
   */
  knownBy(authorization: string): KnownIdentity | null {
    const found = this.#byHeader.get(authorization);
    if (found !== undefined) return found;
    const token = parseBearer(authorization);
    return token === null ? null : this.#holderOfToken(authorization, hashOfToken(token));
  }

  /** Who shows this at another port, where it is bounded how often somebody may. */
  async holderOf(authorization: string | undefined): Promise<KnownIdentity | JwtRefusal> {
    const known = await (authorization === undefined ? this.#nobody() : this.#holderOf(authorization, null));
    const refusal = known instanceof KnownIdentity ? this.refusalOf(known) : null;
    return refusal === null ? known : { reason: refusal, detail: '' };
  }

  /**
   * Why somebody whom `holderOf` has found may call no more, or null. Whoever keeps them asks this before each use: a file that came after
   * their header was forgotten here has not told them.
   */
  refusalOf(known: KnownIdentity): Reason | null {
    known.keepUp(this.#policy);
    return known.refusalAt(this.#options.now());
  }

  /** Headers of which it is remembered now who sends them. */
  get remembered(): number {
    return this.#byHeader.size;
  }

  /** Ends the streams of those whose time is over, and forgets their headers; called several times a second. */
  sweep(): void {
    const now = this.#options.now();
    this.#streams.sweep(now);
    for (const [header, known] of this.#byHeader) if (known.refusalAt(now) !== null) this.#byHeader.delete(header);
  }

  /** From now on: who is not in it any more is ended, what others may do is what it says. */
  apply(policy: Policy): void {
    this.#policy = policy;
    this.#verifier = new JwtVerifier(policy.issuers);
    this.#unknown.clear();
    const all = new Set([...this.#ofFile.values(), ...this.#byHeader.values(), ...this.#streams.identities()]);
    for (const known of all) {
      const before = known.identity.permissions;
      if (known.follow(policy)) this.#streams.changed(known, before);
    }
    for (const [key, known] of this.#ofFile) if (known.ended !== null) this.#ofFile.delete(key);
    this.sweep();
  }

  #enter(
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    path: string,
    known: KnownIdentity | JwtRefusal,
  ): Caller | Reason {
    if (!(known instanceof KnownIdentity)) return this.#refuse(stream, path, known.reason, null, known.detail);
    const { name } = known.identity;
    const refusal = known.refusalAt(this.#options.now());
    if (refusal !== null) return this.#refuse(stream, path, refusal, name, '');
    const caller = callerOf(known, headers[TENANT_KEY]);
    if (typeof caller === 'string')
      return this.#refuse(stream, path, caller, name, 'the tenant is not that of the caller');
    const need = NEEDS.get(path);
    // Only who is known is told which methods there are.
    if (need === undefined) return 'METHOD_UNKNOWN';
    const lack = unmet(need, caller);
    if (lack !== null) return this.#refuse(stream, path, lack, name, `it needs ${need}`);
    if (STREAMS.has(path)) this.#streams.opened(stream, caller, need);
    return caller;
  }

  #refuse(stream: ServerHttp2Stream, path: string, reason: Reason, name: string | null, detail: string): Reason {
    this.#options.notes.refused({ reason, name, detail, stream, path });
    return reason;
  }

  #identify(
    stream: ServerHttp2Stream,
    header: string | undefined,
  ): KnownIdentity | JwtRefusal | Promise<KnownIdentity | JwtRefusal> {
    // Who shows a token is who it says, whatever certificate the way to here has: that may be a proxy's.
    if (header !== undefined) return this.#byHeader.get(header) ?? this.#holderOf(header, stream);
    return this.#ofCertificate(stream.session) ?? this.#nobody();
  }

  /** Null: it has shown no certificate, or one of somebody that the file does not know while others may call without. */
  #ofCertificate(session: Http2Session | undefined): KnownIdentity | JwtRefusal | null {
    if (session === undefined || session.encrypted !== true) return null;
    const found = this.#bySession.get(session);
    if (found !== undefined && found.policy === this.#policy) return found.holder;
    const holder = this.#holderOfNames(clientNamesOf(session.socket as TLSSocket, this.#options.cluster));
    this.#bySession.set(session, { policy: this.#policy, holder });
    return holder;
  }

  #holderOfNames(names: ClientNames): KnownIdentity | JwtRefusal | null {
    if ('distrust' in names) return invalid(names.distrust);
    const known = names.uris.flatMap((uri) => uri.find((one) => this.#policy.byCertificate(one) !== null) ?? []);
    const [name] = known;
    // Which of two it is would be up to the order of names in the certificate.
    if (known.length > 1) return invalid('two entries of the access file have names of its certificate');
    if (name === undefined) return names.uris.length > 0 && this.#policy.anonymous === null ? STRANGER : null;
    const key = `certificate ${name}`;
    return this.#ofFile.get(key) ?? this.#meet(key, (policy) => policy.byCertificate(name));
  }

  /** Who shows nothing. */
  #nobody(): KnownIdentity | JwtRefusal {
    return this.#ofFile.get('') ?? this.#meet('', (policy) => policy.anonymous) ?? MISSING;
  }

  /** `stream`: whose connection it is; null for one that is bounded elsewhere. */
  #holderOf(
    header: string,
    stream: ServerHttp2Stream | null,
  ): KnownIdentity | JwtRefusal | Promise<KnownIdentity | JwtRefusal> {
    const found = this.#byHeader.get(header) ?? this.#unknown.get(header) ?? this.#pending.get(header);
    if (found !== undefined) return found;
    const token = parseBearer(header);
    if (token === null) return invalid('the header is no bearer token, or one that is too long');
    const known = this.#holderOfToken(header, hashOfToken(token));
    if (known !== null) return known;
    if (this.#policy.issuers.length === 0 || !looksLikeJwt(token))
      return this.#remember(header, invalid('no token of the access file has its hash'));
    const preview = this.#verifier.preview(token, this.#options.now());
    if ('reason' in preview) return this.#remember(header, preview);
    if (stream !== null && !this.#verifications.tryBegin(stream.session, performance.now())) return THROTTLED;
    return this.#verify(header, token);
  }

  /** `hash`: of a token, which the access file may have. */
  #holderOfToken(header: string, hash: string): KnownIdentity | null {
    const known = this.#ofFile.get(hash) ?? this.#meet(hash, (policy) => policy.byToken(hash));
    return known === null ? null : this.#remember(header, known);
  }

  #verify(header: string, token: string): Promise<KnownIdentity | JwtRefusal> {
    const verified = this.#verifications.run(async () => {
      const found = await this.#judge(token);
      this.#pending.delete(header);
      return this.#remember(header, found);
    });
    this.#pending.set(header, verified);
    return verified;
  }

  /** By one file from begin to end: what is said of a token by the keys of an older one is nothing that may be remembered. */
  async #judge(token: string): Promise<KnownIdentity | JwtRefusal> {
    for (let i = 0; i < JUDGED_MAX; i++) {
      const verifier = this.#verifier;
      const proof = await verifier.verify(token, this.#options.now());
      if (verifier !== this.#verifier) continue;
      if ('reason' in proof) return proof;
      const credential: Credential = (policy) => policy.byJwt(proof);
      const identity = credential(this.#policy);
      return identity === null ? invalid(UNNAMED) : this.#make(identity, credential);
    }
    return THROTTLED;
  }

  /** What is so for as long as the file is. */
  #remember<Found extends KnownIdentity | JwtRefusal>(header: string, found: Found): Found {
    // There are as many ways to write the same as there may be spaces: whoever uses one is not remembered by it.
    if (!CANONICAL.test(header)) return found;
    const isKnown = found instanceof KnownIdentity;
    if (!isKnown && (found.isEarly === true || found === THROTTLED)) return found;
    const table: Map<string, KnownIdentity | JwtRefusal> = isKnown
      ? (this.#byHeader as Map<string, KnownIdentity | JwtRefusal>)
      : this.#unknown;
    if (table.size >= (isKnown ? (this.#options.knownMax ?? KNOWN_MAX) : UNKNOWN_MAX)) {
      const [oldest] = table.keys();
      table.delete(oldest as string);
    }
    table.set(header, found);
    return found;
  }

  #meet(key: string, credential: Credential): KnownIdentity | null {
    const identity = credential(this.#policy);
    if (identity === null) return null;
    // Whoever has shown nothing has proven no tenant.
    const known = this.#make(identity, credential, key === '' ? () => NO_SPACE : this.#options.spaceOf);
    this.#ofFile.set(key, known);
    return known;
  }

  #make(identity: Identity, credential: Credential, spaceOf = this.#options.spaceOf): KnownIdentity {
    return new KnownIdentity(identity, this.#policy, credential, this.#options.notes, spaceOf);
  }
}

/** As clients write it. */
const CANONICAL = /^[Bb]earer [^ ]/;

const MISSING: JwtRefusal = { reason: 'CREDENTIALS_MISSING', detail: '' };
const STRANGER = invalid('no entry of the access file has a name of its certificate');
const UNNAMED = 'its claims do not name a caller and a tenant other than `default`, which the file alone gives';
const THROTTLED: JwtRefusal = { reason: 'CREDENTIALS_THROTTLED', detail: '' };

function invalid(detail: string): JwtRefusal {
  return { reason: 'CREDENTIALS_INVALID', detail };
}

/** Probes: they ask for nothing that anybody owns. */
const NOBODY: Caller = {
  name: 'nobody',
  tenant: TENANT_DEFAULT,
  space: NO_SPACE,
  observes: false,
  administers: false,
  may: () => false,
  mayFind: () => false,
  demand: () => 'PERMISSION_DENIED',
};

function callerOf(known: KnownIdentity, named: unknown): AccessCaller | Reason {
  const tenant = named === undefined ? null : tenantOfHeader(named);
  if (named !== undefined && tenant === null) return 'TENANT_INVALID';
  return known.callerOf(tenant, TENANT_DEFAULT) ?? 'PERMISSION_DENIED';
}
