import type { ServerHttp2Stream } from 'node:http2';
import { type Caller, type CallOrigin, Verb } from '../../access/caller.ts';
import type { Reason } from '../../base/errors.ts';
import type { DoorNotes } from '../../grpc/access/access-callers.ts';
import { type AdminAction, peerOf } from '../../grpc/access/admin-actions.ts';
import type { AuditLog } from '../../telemetry/log.ts';
import { type Disguises, short, shownArguments } from './action-arguments.ts';
import type { AuditFile } from './audit-file.ts';
import { networkOf, RefusalLines, type Sums } from './refusal-lines.ts';

/**
 * Of those whom the access file knows, and of strangers, told of one by one in a window. They are counted apart: strangers can have as many addresses as
 * they like, and must not hide that somebody does what his token does not allow.
 */
const KNOWN_MAX = 256;
const STRANGERS_MAX = 64;
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

export interface AccessAuditOptions {
  readonly log: AuditLog;
  /** Null: the log alone. */
  readonly file: AuditFile | null;
  readonly disguises: Disguises;
  /** ms that never fall. */
  readonly now?: () => number;
}

interface Entry {
  readonly caller: string;
  readonly reason: string;
  readonly peer?: string;
}

/** What is written down of who was refused what, and of what operators have changed. */
export class AccessAudit implements DoorNotes {
  readonly refusals = new Map<Reason, number>(ACCESS_REASONS.map((reason) => [reason, 0]));
  readonly #log: AuditLog;
  readonly #file: AuditFile | null;
  readonly #disguises: Disguises;
  readonly #now: () => number;
  readonly #known = new RefusalLines<Entry>(KNOWN_MAX);
  readonly #strangers = new RefusalLines<Entry>(STRANGERS_MAX);

  constructor({ log, file, disguises, now = () => performance.now() }: AccessAuditOptions) {
    this.#log = log;
    this.#file = file;
    this.#disguises = disguises;
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

  denied(caller: Caller, verb: Verb, bytes: Uint8Array, start: number, end: number, from: CallOrigin | null): void {
    this.note('PERMISSION_DENIED', caller.name, from?.peer ?? '', () => {
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
    const now = this.#now();
    this.sweep(now);
    const host = peer.replace(/:\d+$/, '');
    // A token of others says who its caller is, in as many words as it likes.
    const known = name === null ? null : short(name);
    const entry = (): Entry => ({ caller: known ?? STRANGER, reason, ...(peer === '' ? {} : { peer }) });
    const isTold =
      known === null
        ? this.#strangers.isTold({ reason, who: host, group: networkOf(host) }, now, entry)
        : this.#known.isTold({ reason, who: `${known} ${host}`, group: known }, now, entry);
    if (isTold) this.#write('warn', 'somebody was refused', { ...entry(), ...shortened(fields()) });
  }

  /** Writes the sums of what was not told of at once, when it is time; called several times a second. */
  sweep(now = this.#now()): void {
    this.#tell(this.#known.close(now), 'known');
    this.#tell(this.#strangers.close(now), STRANGER);
  }

  /** The same, at the end of the broker. */
  close(): void {
    const now = this.#now();
    this.#tell(this.#known.close(now, true), 'known');
    this.#tell(this.#strangers.close(now, true), STRANGER);
  }

  acted(action: AdminAction): void {
    if (action.method === 'Join') this.#joined(action);
    else this.#write('info', 'an operator has acted', this.#fieldsOf(action));
  }

  /** Each node that was taken in; of those that were not, who may be strangers and come again and again, not each time. */
  #joined(action: AdminAction): void {
    const { caller, peer, outcome } = action;
    if (outcome === 'ok') {
      this.#write('info', 'a node was taken in', this.#fieldsOf(action));
      return;
    }
    const name = caller === ANYBODY ? null : caller;
    const fields = () => {
      const { method, arguments: given } = this.#fieldsOf(action);
      return { method, arguments: given };
    };
    const isRefusal = (ACCESS_REASONS as readonly string[]).includes(outcome);
    if (isRefusal) this.note(outcome as Reason, name, peer, fields);
    else this.#maybeTell(outcome, name, peer, fields);
  }

  #fieldsOf({ caller, peer, method, arguments: given, outcome }: AdminAction) {
    const shown = JSON.stringify(shownArguments(method, given, this.#disguises));
    return { caller: short(caller), peer, method, arguments: shown, outcome };
  }

  #write(level: 'info' | 'warn', message: string, fields: Readonly<Record<string, unknown>>): void {
    this.#log.audit(level, message, fields);
    this.#file?.write({ msg: message, ...fields });
  }

  #tell(sums: Sums<Entry> | null, callers: string): void {
    for (const { entry, times } of sums?.again ?? [])
      this.#write('warn', 'somebody was refused again', { ...entry, left_out: times });
    if (sums?.others) this.#write('warn', 'more were refused than are told of one by one', { callers, ...sums.others });
  }
}

/** A path or a subject is as long as its sender likes. */
function shortened(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const entries = Object.entries(fields).map(([name, value]) => [
    name,
    typeof value === 'string' ? short(value) : value,
  ]);
  return Object.fromEntries(entries);
}
