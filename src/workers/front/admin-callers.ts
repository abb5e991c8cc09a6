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
  /** Why a message of this subject of a tenant ('' for none) is not shown to them, or null. */
  fetchRefusal(subject: string, tenant: string): Reason | null;
}

/** Who shows which token at the admin port. Whoever fails there again and again is not listened to for a while. */
export class AdminCallers {
  readonly #callers: AccessCallers;
  readonly #audit: AccessAudit;
  readonly #limit = new FailureLimit();

  constructor(callers: AccessCallers, audit: AccessAudit) {
    this.#callers = callers;
    this.#audit = audit;
  }

  /** `authorization`: the header of HTTP; `peer`: HOST:PORT; `what` is asked for, for the audit. Only who observes. */
  async observer(authorization: string | undefined, peer: string, what: string): Promise<AdminCaller | Reason> {
    const host = peer.replace(/:\d+$/, '');
    const now = performance.now();
    if (this.#limit.isBarred(host, now)) return this.#refuse('CREDENTIALS_THROTTLED', null, peer, what, '');
    const known = await this.#callers.holderOf(authorization);
    if (!(known instanceof KnownIdentity)) {
      if (known.reason !== 'CREDENTIALS_MISSING') this.#limit.failed(host, now);
      return this.#refuse(known.reason, null, peer, what, known.detail);
    }
    const caller = known.callerOf(null, TENANT_DEFAULT);
    if (caller === null || !caller.observes)
      return this.#refuse('PERMISSION_DENIED', known.identity.name, peer, what, 'it needs observe');
    // Metrics name the subjects of everybody.
    if (caller.space.length > 0 && what === METRICS)
      return this.#refuse('PERMISSION_DENIED', known.identity.name, peer, what, 'it is of one tenant');
    return new Viewer(known, caller);
  }

  #refuse(reason: Reason, name: string | null, peer: string, what: string, detail: string): Reason {
    this.#audit.note(reason, name, peer, () => ({ page: what, ...(detail === '' ? {} : { detail }) }));
    return reason;
  }
}

class Viewer implements AdminCaller {
  readonly #known: KnownIdentity;
  readonly #caller: Caller;

  constructor(known: KnownIdentity, caller: Caller) {
    this.#known = known;
    this.#caller = caller;
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
    return this.#caller.observes;
  }

  get administers(): boolean {
    return this.#caller.administers;
  }

  get refusal(): Reason | null {
    return this.#known.refusalAt(Date.now()) ?? (this.observes ? null : 'PERMISSION_DENIED');
  }

  fetchRefusal(subject: string, tenant: string): Reason | null {
    const isForeign = tenant !== '' && tenant !== this.tenant && this.#known.identity.tenant !== '*';
    if (isForeign) return 'PERMISSION_DENIED';
    const bytes = Buffer.from(subject);
    return subjectFault(bytes, 0, bytes.length) ?? this.#caller.demand(Verb.FETCH, bytes, 0, bytes.length);
  }
}
