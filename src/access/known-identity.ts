import type { Reason } from '../base/errors.ts';
import type { Caller, CallOrigin, Verb } from './caller.ts';
import type { Identity, Policy } from './policy.ts';

/** Is told of what somebody was refused. */
export interface RefusalNotes {
  /** Of a subject, bytes[start, end). Called for every batch that is refused: it has to cost little. */
  denied(caller: Caller, verb: Verb, bytes: Uint8Array, start: number, end: number, from: CallOrigin | null): void;
}

/** Finds somebody again when the access file has changed. */
export type Credential = (policy: Policy) => Identity | null;

/** Tenants of one identity that may name any: further ones get an object for each call. */
const TENANTS_MAX = 1_024;

/**
 * An identity that has called, from its first call until the access file knows it no more, or its time is over. The file may change what it may do
 * meanwhile: its callers, which streams hold, follow.
 */
export class KnownIdentity {
  /** As the file has it now. */
  identity: Identity;
  /** Why nothing of it is taken any more. */
  ended: Reason | null = null;
  /** The file that has judged it last. */
  #policy: Policy;
  readonly #credential: Credential;
  readonly #notes: RefusalNotes;
  readonly #spaceOf: (tenant: string) => Uint8Array;
  readonly #callers = new Map<string, AccessCaller>();

  constructor(
    identity: Identity,
    policy: Policy,
    credential: Credential,
    notes: RefusalNotes,
    spaceOf: (tenant: string) => Uint8Array,
  ) {
    this.identity = identity;
    this.#policy = policy;
    this.#credential = credential;
    this.#notes = notes;
    this.#spaceOf = spaceOf;
  }

  /** Takes what another file says of it. False: it is not what it was, and ended. */
  follow(policy: Policy): boolean {
    this.#policy = policy;
    const next = this.#credential(policy);
    // Another name or tenant would be another one, under whose eyes streams of the first one are open.
    if (next === null || next.name !== this.identity.name || next.tenant !== this.identity.tenant) {
      this.ended = 'CREDENTIALS_INVALID';
      return false;
    }
    this.identity = next;
    return true;
  }

  /** `follow`, unless it has followed this file already. */
  keepUp(policy: Policy): void {
    if (policy !== this.#policy) this.follow(policy);
  }

  /** Why it may not call at this time (epoch ms), or null. */
  refusalAt(now: number): Reason | null {
    return this.ended ?? (this.identity.expiresAt <= now ? 'CREDENTIALS_EXPIRED' : null);
  }

  /** `tenant`: as the call names it; null: it names none. Null: it may not call in that name. */
  callerOf(tenant: string | null, fallback: string): AccessCaller | null {
    const own = this.identity.tenant;
    if (own !== '*') return tenant === null || tenant === own ? this.#callerOf(own) : null;
    return this.#callerOf(tenant ?? fallback);
  }

  #callerOf(tenant: string): AccessCaller {
    let caller = this.#callers.get(tenant);
    if (caller === undefined) {
      caller = new AccessCaller(this, tenant, this.#spaceOf(tenant), this.#notes);
      if (this.#callers.size < TENANTS_MAX) this.#callers.set(tenant, caller);
    }
    return caller;
  }
}

/** A known identity in the name of one tenant. */
export class AccessCaller implements Caller {
  readonly known: KnownIdentity;
  readonly tenant: string;
  readonly space: Uint8Array;
  readonly #notes: RefusalNotes;

  constructor(known: KnownIdentity, tenant: string, space: Uint8Array, notes: RefusalNotes) {
    this.known = known;
    this.tenant = tenant;
    this.space = space;
    this.#notes = notes;
  }

  get name(): string {
    return this.known.identity.name;
  }

  get observes(): boolean {
    return this.known.identity.permissions.observes;
  }

  get administers(): boolean {
    return this.known.identity.permissions.administers;
  }

  may(verb: Verb, bytes: Uint8Array, start: number, end: number): boolean {
    return this.known.identity.permissions.may(verb, bytes, start, end);
  }

  mayFind(verb: Verb, pattern: Uint8Array): boolean {
    return this.known.identity.permissions.mayFind(verb, new TextDecoder().decode(pattern));
  }

  demand(verb: Verb, bytes: Uint8Array, start: number, end: number, from: CallOrigin | null): Reason | null {
    if (this.may(verb, bytes, start, end)) return null;
    this.#notes.denied(this, verb, bytes, start, end, from);
    return 'PERMISSION_DENIED';
  }
}
