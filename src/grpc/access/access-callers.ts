import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import type { Caller } from '../../access/caller.ts';
import { type AccessCaller, type Credential, KnownIdentity, type RefusalNotes } from '../../access/known-identity.ts';
import type { Identity, Policy } from '../../access/policy.ts';
import type { Reason } from '../../base/errors.ts';
import { TENANT_DEFAULT } from '../../base/subject-space.ts';
import type { CallerSource } from '../callers.ts';
import { TENANT_KEY, tenantOfHeader } from '../tenant.ts';
import { hashOfToken, parseBearer } from './bearer.ts';
import { CallerStreams } from './caller-streams.ts';
import { clientNamesOf } from './client-names.ts';
import { type JwtRefusal, JwtVerifier, looksLikeJwt } from './jwt-verifier.ts';
import { isMet, NEEDS, STREAMS } from './methods.ts';
import { Verifications } from './verifications.ts';

/** Headers of which it is remembered who sends them. The oldest goes when there are more. */
const KNOWN_MAX = 4_096;
/** Headers of which it is remembered that nobody has them. */
const UNKNOWN_MAX = 1_024;

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

  /** Who shows this at another port, where it is bounded how often somebody may. */
  async holderOf(authorization: string | undefined): Promise<KnownIdentity | JwtRefusal> {
    const known = await (authorization === undefined ? this.#nobody() : this.#holderOf(authorization, null));
    const refusal = known instanceof KnownIdentity ? known.refusalAt(this.#options.now()) : null;
    return refusal === null ? known : { reason: refusal, detail: '' };
  }

  /** Ends the streams of those whose time is over; called several times a second. */
  sweep(): void {
    this.#streams.sweep(this.#options.now());
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
    for (const table of [this.#ofFile, this.#byHeader])
      for (const [key, known] of table) if (known.ended !== null) table.delete(key);
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
    if (!isMet(need, caller)) return this.#refuse(stream, path, 'PERMISSION_DENIED', name, `it needs ${need}`);
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
    const names = clientNamesOf(session.socket as TLSSocket, this.#options.cluster);
    const name = names.find((one) => this.#policy.byCertificate(one) !== null);
    const isStranger = names.length > 0 && this.#policy.anonymous === null;
    const holder = name === undefined ? (isStranger ? STRANGER : null) : this.#holderOfName(name);
    this.#bySession.set(session, { policy: this.#policy, holder });
    return holder;
  }

  #holderOfName(name: string): KnownIdentity | null {
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
    const hash = hashOfToken(token);
    const known = this.#ofFile.get(hash) ?? this.#meet(hash, (policy) => policy.byToken(hash));
    if (known !== null) return this.#remember(header, known);
    if (this.#policy.issuers.length === 0 || !looksLikeJwt(token))
      return this.#remember(header, invalid('no token of the access file has its hash'));
    const preview = this.#verifier.preview(token, this.#options.now());
    if ('reason' in preview) return this.#remember(header, preview);
    if (stream !== null && !this.#verifications.tryBegin(stream.session, performance.now())) return THROTTLED;
    return this.#verify(header, token);
  }

  #verify(header: string, token: string): Promise<KnownIdentity | JwtRefusal> {
    const verifier = this.#verifier;
    const verified = this.#verifications.run(async () => {
      const proof = await verifier.verify(token, this.#options.now());
      this.#pending.delete(header);
      if ('reason' in proof) return this.#remember(header, proof);
      // By the file as it is now: it may have changed meanwhile.
      const credential: Credential = (policy) => policy.byJwt(proof);
      const identity = credential(this.#policy);
      if (identity === null) return this.#remember(header, invalid('its claims do not name a caller and a tenant'));
      return this.#remember(header, this.#make(identity, credential));
    });
    this.#pending.set(header, verified);
    return verified;
  }

  #remember<Found extends KnownIdentity | JwtRefusal>(header: string, found: Found): Found {
    const isKnown = found instanceof KnownIdentity;
    const table: Map<string, KnownIdentity | JwtRefusal> = isKnown
      ? (this.#byHeader as Map<string, KnownIdentity | JwtRefusal>)
      : this.#unknown;
    if (table.size >= (isKnown ? KNOWN_MAX : UNKNOWN_MAX)) {
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
    const known = this.#make(identity, credential, key === '' ? noSpace : this.#options.spaceOf);
    this.#ofFile.set(key, known);
    return known;
  }

  #make(identity: Identity, credential: Credential, spaceOf = this.#options.spaceOf): KnownIdentity {
    return new KnownIdentity(identity, credential, this.#options.notes, spaceOf);
  }
}

const MISSING: JwtRefusal = { reason: 'CREDENTIALS_MISSING', detail: '' };
const STRANGER = invalid('no entry of the access file has a name of its certificate');
const THROTTLED: JwtRefusal = { reason: 'CREDENTIALS_THROTTLED', detail: '' };

function invalid(detail: string): JwtRefusal {
  return { reason: 'CREDENTIALS_INVALID', detail };
}

/** Probes: they ask for nothing that anybody owns. */
const NOBODY: Caller = {
  name: 'nobody',
  tenant: TENANT_DEFAULT,
  space: new Uint8Array(0),
  observes: false,
  administers: false,
  may: () => false,
  mayFind: () => false,
  demand: () => 'PERMISSION_DENIED',
};

function noSpace(): Uint8Array {
  return new Uint8Array(0);
}

function callerOf(known: KnownIdentity, named: unknown): AccessCaller | Reason {
  const tenant = named === undefined ? null : tenantOfHeader(named);
  if (named !== undefined && tenant === null) return 'TENANT_INVALID';
  return known.callerOf(tenant, TENANT_DEFAULT) ?? 'PERMISSION_DENIED';
}
