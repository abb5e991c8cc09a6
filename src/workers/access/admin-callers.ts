import { type Caller, Verb } from '../../access/caller.ts';
import { KnownIdentity } from '../../access/known-identity.ts';
import type { Reason } from '../../base/errors.ts';
import { subjectFault } from '../../base/subject.ts';
import { TENANT_DEFAULT } from '../../base/subject-space.ts';
import type { AccessCallers } from '../../grpc/access/access-callers.ts';
import type { AccessAudit } from './access-audit.ts';
import { FailureLimit } from './failure-limit.ts';

const METRICS = '/metrics';

/** Somebody at the admin port. */
export interface AdminCaller {
  readonly name: string;
  readonly tenant: string;
  /** Of their tenant; empty: they see the subjects of all. */
  readonly space: Uint8Array;
  readonly observes: boolean;
  readonly administers: boolean;
  /** Why they may call no more, or null. Changes with time and with the access file. */
  readonly refusal: Reason | null;
  /** Why a message of this subject of a tenant ('' for none) is not shown to them, or null. `peer`: HOST:PORT of who asks. */
  fetchRefusal(subject: string, tenant: string, peer: string): Reason | null;
}

/** Why somebody is not listened to at the admin port. */
export interface AdminDenial {
  readonly reason: Reason;
  /** When to try again, in ms; 0: time alone changes nothing. */
  readonly retryAfterMs: number;
}

/**
 * Who shows which token at the admin port. From an address that fails again and again nothing new is looked at for a while. Whom the broker knows goes
 * through: else whoever shares the address of a proxy with operators could lock them out.
 */
export class AdminCallers {
  readonly #callers: AccessCallers;
  readonly #audit: AccessAudit;
  readonly #limit = new FailureLimit();

  constructor(callers: AccessCallers, audit: AccessAudit) {
    this.#callers = callers;
    this.#audit = audit;
  }

  /** `authorization`: the header of HTTP; `peer`: HOST:PORT; `what` is asked for, for the audit. Only who observes. */
  async observer(authorization: string | undefined, peer: string, what: string): Promise<AdminCaller | AdminDenial> {
    const host = peer.replace(/:\d+$/, '');
    const isNew = authorization !== undefined && this.#callers.knownBy(authorization) === null;
    const waitMs = isNew ? this.#limit.begin(host, performance.now()) : 0;
    if (waitMs > 0) return this.#deny('CREDENTIALS_THROTTLED', null, peer, what, '', waitMs);
    const known = await this.#callers.holderOf(authorization);
    if (!(known instanceof KnownIdentity)) return this.#deny(known.reason, null, peer, what, known.detail);
    if (isNew) this.#limit.succeeded(host, performance.now());
    const caller = known.callerOf(null, TENANT_DEFAULT);
    if (caller === null || !caller.observes)
      return this.#deny('PERMISSION_DENIED', known.identity.name, peer, what, 'it needs observe');
    // Metrics name the subjects of everybody.
    if (caller.space.length > 0 && what === METRICS)
      return this.#deny('PERMISSION_DENIED', known.identity.name, peer, what, 'it is of one tenant');
    const refuse = (reason: Reason, peer: string, what: string): void => this.refused(reason, caller.name, peer, what);
    return new Viewer(this.#callers, known, caller, refuse);
  }

  /** Somebody who is known, or not (null), may not have what they ask for. */
  refused(reason: Reason, name: string | null, peer: string, what: string): void {
    this.#audit.note(reason, name, peer, () => ({ page: what }));
  }

  #deny(
    reason: Reason,
    name: string | null,
    peer: string,
    what: string,
    detail: string,
    retryAfterMs = 0,
  ): AdminDenial {
    this.#audit.note(reason, name, peer, () => ({ page: what, ...(detail === '' ? {} : { detail }) }));
    return { reason, retryAfterMs };
  }
}

/** Asks for each use what the access file says by now: a session outlives what the callers remember of its token. */
class Viewer implements AdminCaller {
  readonly #callers: AccessCallers;
  readonly #known: KnownIdentity;
  readonly #caller: Caller;

  readonly #refuse: (reason: Reason, peer: string, what: string) => void;

  constructor(
    callers: AccessCallers,
    known: KnownIdentity,
    caller: Caller,
    refuse: (reason: Reason, peer: string, what: string) => void,
  ) {
    this.#callers = callers;
    this.#known = known;
    this.#caller = caller;
    this.#refuse = refuse;
  }

  get name(): string {
    return this.#caller.name;
  }

  get tenant(): string {
    return this.#caller.tenant;
  }

  get space(): Uint8Array {
    return this.#caller.space;
  }

  get observes(): boolean {
    return this.#callers.refusalOf(this.#known) === null && this.#caller.observes;
  }

  get administers(): boolean {
    return this.#callers.refusalOf(this.#known) === null && this.#caller.administers;
  }

  get refusal(): Reason | null {
    return this.#callers.refusalOf(this.#known) ?? (this.#caller.observes ? null : 'PERMISSION_DENIED');
  }

  fetchRefusal(subject: string, tenant: string, peer: string): Reason | null {
    const isForeign = tenant !== '' && tenant !== this.tenant && this.#known.identity.tenant !== '*';
    const refusal = this.refusal ?? (isForeign ? 'PERMISSION_DENIED' : null);
    if (refusal !== null) {
      this.#refuse(refusal, peer, 'messages');
      return refusal;
    }
    const bytes = Buffer.from(subject);
    return subjectFault(bytes, 0, bytes.length) ?? this.#caller.demand(Verb.FETCH, bytes, 0, bytes.length, { peer });
  }
}
