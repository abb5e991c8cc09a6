import type { ServerHttp2Stream } from 'node:http2';
import { type Caller, Verb } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';
import type { DoorNotes } from '../../grpc/access/access-callers.ts';
import { type AdminAction, peerOf } from '../../grpc/access/admin-actions.ts';
import type { Log } from '../../telemetry/log.ts';
import type { AuditFile } from './audit-file.ts';

/** A caller's refusals of one reason are told of at once, and then so often, in ms, with the number of those between. */
const EVERY_MS = 10_000;
/** Callers that are remembered for that. Those beyond share one place. */
const CALLERS_MAX = 1_024;
const STRANGER = 'unknown';
/** Of a caller that has not said who it is, where it need not. */
const ANYBODY = 'anonymous';

/** Every reason for which somebody is refused for who they are. Shown from the start, so that an alert sees the first. */
export const ACCESS_REASONS = [
  'CREDENTIALS_MISSING',
  'CREDENTIALS_INVALID',
  'CREDENTIALS_EXPIRED',
  'CREDENTIALS_THROTTLED',
  'PERMISSION_DENIED',
  'TENANT_BOUND',
  'TENANT_INVALID',
  'NODE_UNPROVEN',
  'JOIN_UNPROVEN',
] as const satisfies readonly Reason[];

interface Told {
  nextAt: number;
  leftOut: number;
}

/** What is written down of who was refused what, and of what operators have changed. */
export class AccessAudit implements DoorNotes {
  readonly refusals = new Map<Reason, number>(ACCESS_REASONS.map((reason) => [reason, 0]));
  readonly #log: Log;
  /** Null: the log alone. */
  readonly #file: AuditFile | null;
  readonly #now: () => number;
  /** By caller, or by the host of one that is not known, and reason. */
  readonly #told = new Map<string, Map<string, Told>>();

  /** `now`: ms that never fall. */
  constructor(log: Log, file: AuditFile | null, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#file = file;
    this.#now = now;
  }

  /** At the door. */
  refused(refusal: {
    readonly reason: Reason;
    readonly name: string | null;
    readonly detail: string;
    readonly stream: ServerHttp2Stream;
    readonly path: string;
  }): void {
    const { reason, name, detail, stream, path } = refusal;
    this.note(reason, name, peerOf(stream), () => ({ method: path, ...(detail === '' ? {} : { detail }) }));
  }

  denied(caller: Caller, verb: Verb, bytes: Uint8Array, start: number, end: number): void {
    this.note('PERMISSION_DENIED', caller.name, '', () => {
      const name = Object.entries(Verb).find(([, one]) => one === verb)?.[0] ?? '';
      const subject = Buffer.from(bytes.subarray(start, end)).toString();
      return { verb: name.toLowerCase(), subject, tenant: caller.tenant };
    });
  }

  /** `peer`: HOST:PORT, '' for one that is not at hand. `fields` is asked for what is written alone. */
  note(reason: Reason, name: string | null, peer: string, fields: () => Readonly<Record<string, unknown>>): void {
    this.refusals.set(reason, (this.refusals.get(reason) ?? 0) + 1);
    this.#maybeTell(reason, name, peer, fields);
  }

  #maybeTell(reason: string, name: string | null, peer: string, fields: () => Readonly<Record<string, unknown>>): void {
    const told = this.#toldOf(name ?? peer.replace(/:\d+$/, ''), reason);
    const now = this.#now();
    if (now < told.nextAt) {
      told.leftOut += 1;
      return;
    }
    const between = told.leftOut === 0 ? {} : { left_out: told.leftOut };
    told.nextAt = now + EVERY_MS;
    told.leftOut = 0;
    const from = peer === '' ? {} : { peer };
    this.#write('warn', 'somebody was refused', { caller: name ?? STRANGER, reason, ...from, ...fields(), ...between });
  }

  acted(action: AdminAction): void {
    if (action.method === 'Join') this.#joined(action);
    else this.#write('info', 'an operator has acted', fieldsOf(action));
  }

  /** Each node that was taken in; of those that were not, who may be strangers and come again and again, not each time. */
  #joined(action: AdminAction): void {
    const { caller, peer, outcome } = action;
    if (outcome === 'ok') {
      this.#write('info', 'a node was taken in', fieldsOf(action));
      return;
    }
    const name = caller === ANYBODY ? null : caller;
    const { method, arguments: given } = fieldsOf(action);
    const fields = () => ({ method, arguments: given });
    const isRefusal = (ACCESS_REASONS as readonly string[]).includes(outcome);
    if (isRefusal) this.note(outcome as Reason, name, peer, fields);
    else this.#maybeTell(outcome, name, peer, fields);
  }

  #write(level: 'info' | 'warn', message: string, fields: Readonly<Record<string, unknown>>): void {
    this.#log[level](message, { audit: true, ...fields });
    this.#file?.write({ msg: message, ...fields });
  }

  #toldOf(caller: string, reason: string): Told {
    const key = this.#told.has(caller) || this.#told.size < CALLERS_MAX ? caller : '';
    const byReason = this.#told.get(key) ?? new Map<string, Told>();
    this.#told.set(key, byReason);
    const told = byReason.get(reason) ?? { nextAt: 0, leftOut: 0 };
    byReason.set(reason, told);
    return told;
  }
}

function fieldsOf({ caller, peer, method, arguments: given, outcome }: AdminAction) {
  return { caller, peer, method, arguments: JSON.stringify(given), outcome };
}
