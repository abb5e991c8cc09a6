import { REASONS, type ReasonRow } from '../../base/errors.ts';
import type { Redactor } from '../../base/redactor.ts';
import { spaceOf } from '../../base/subject-space.ts';
import type { LoadedAccess } from '../../config/access-file.ts';
import type { Config } from '../../config/schema.ts';
import { AccessCallers } from '../../grpc/access/access-callers.ts';
import type { AdminAction } from '../../grpc/access/admin-actions.ts';
import type { CallerSource } from '../../grpc/callers.ts';
import { StartError } from '../../storage/start-error.ts';
import type { Refusal } from '../../telemetry/admin-guards.ts';
import type { AdminSources } from '../../telemetry/admin-http.ts';
import type { AuditLog } from '../../telemetry/log.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import { AccessAudit } from './access-audit.ts';
import { AccessFileWatch } from './access-file-watch.ts';
import type { Disguises } from './action-arguments.ts';
import { AdminCallers, type AdminDenial } from './admin-callers.ts';
import { AuditFile } from './audit-file.ts';

/** How often it is looked for tokens whose time is over, in ms: their streams have to end within a second. And for refusals that are to be told of. */
const SWEEP_MS = 250;

export interface AccessControlOptions {
  readonly config: Pick<Config, 'access' | 'cluster'>;
  /** Reads the access file; throws an Error. `onRead`: each file, before it is read. */
  readonly load: (path: string, onRead: (file: string) => void) => LoadedAccess;
  readonly log: AuditLog;
  readonly redactor: Redactor;
  /** What may be written down of a setting that is to be changed. */
  readonly shownSetting: Disguises['setting'];
}

/** Who may do what on this node, by the access file as it is now, and what is written down of it. */
export class AccessControl {
  readonly audit: AccessAudit;
  /** Null: nobody has to say who they are. */
  readonly callers: AccessCallers | null = null;
  /** At the admin port; null like `callers`. */
  readonly observers: AdminCallers | null = null;
  readonly #auditFile: AuditFile | null;
  readonly #watch: AccessFileWatch<LoadedAccess> | null = null;
  readonly #sweeper: NodeJS.Timeout | null = null;

  /** Throws what `load` throws. */
  constructor({ config, load, log, redactor, shownSetting }: AccessControlOptions) {
    const { file: path, auditFile, auditMaxBytes } = config.access;
    const apply = ({ policy }: LoadedAccess): void => this.callers?.apply(policy);
    const watch = path === null ? null : new AccessFileWatch({ path, load, apply, log });
    const loaded = watch?.open();
    this.#auditFile =
      auditFile === null ? null : new AuditFile({ path: auditFile, maxBytes: auditMaxBytes, redactor, log });
    const disguises: Disguises = { setting: shownSetting, text: (text) => redactor.redact(text) };
    this.audit = new AccessAudit({ log, file: this.#auditFile, disguises });
    if (watch === null || loaded === undefined) return;
    const { policy } = loaded;
    const callers = new AccessCallers({ policy, cluster: config.cluster, notes: this.audit, spaceOf, now: Date.now });
    this.callers = callers;
    this.observers = new AdminCallers(callers, this.audit);
    this.#watch = watch;
    watch.start();
    this.#sweeper = setInterval(() => {
      callers.sweep();
      this.audit.sweep();
    }, SWEEP_MS);
  }

  /** What the gRPC server needs of it. */
  get door(): { readonly callers?: CallerSource; readonly onAction: (action: AdminAction) => void } {
    const onAction = (action: AdminAction): void => this.audit.acted(action);
    return this.callers === null ? { onAction } : { callers: this.callers, onAction };
  }

  /** What the admin server needs of it; empty where everybody may have everything. */
  get metricsGuard(): Pick<AdminSources, 'refuseMetrics'> {
    const { observers } = this;
    if (observers === null) return {};
    return {
      refuseMetrics: async (authorization, peer) => {
        const found = await observers.observer(authorization, peer, '/metrics');
        return 'reason' in found ? toRefusal(found) : null;
      },
    };
  }

  /** Of the access file: how often another one was taken, and refused. */
  get reloads(): { readonly taken: number; readonly refused: number } {
    return { taken: this.#watch?.loads ?? 0, refused: this.#watch?.failures ?? 0 };
  }

  addMetrics(registry: MetricsRegistry): void {
    const refused = 'Calls, batches and requests of the admin port that were refused for who makes them, by reason.';
    registry.addSamples('counter', 'broker_access_refused_total', refused, () =>
      [...this.audit.refusals].map(([reason, value]) => ({ labels: { reason }, value })),
    );
    const missing = 'Lines that access.audit_file lacks because it could not be written; the log has them.';
    registry.addSamples('counter', 'broker_access_audit_lines_missing_total', missing, () => [
      { labels: {}, value: this.#auditFile?.missing ?? 0 },
    ]);
    const loads = 'Times that another access file was there, by whether it was taken or had problems.';
    registry.addSamples('counter', 'broker_access_file_loads_total', loads, () =>
      Object.entries(this.reloads).map(([outcome, value]) => ({ labels: { outcome }, value })),
    );
  }

  /** Reads the file again; what is in force stays if it has problems, which the log tells. Opens the audit file anew. */
  reload(): void {
    this.#watch?.reload();
    this.#auditFile?.reopen();
  }

  async stop(): Promise<void> {
    this.#watch?.stop();
    if (this.#sweeper !== null) clearInterval(this.#sweeper);
    this.audit.close();
    await this.#auditFile?.close();
  }
}

/** As HTTP says it. */
function toRefusal({ reason, retryAfterMs }: AdminDenial): Refusal {
  const { status, when, next }: ReasonRow = REASONS[reason];
  const http = { UNAUTHENTICATED: 401, PERMISSION_DENIED: 403 }[status as string] ?? 429;
  return { status: http, error: when, next, retryAfterMs };
}

/** StartError if the file cannot be used. */
export function openAccess(options: AccessControlOptions): AccessControl {
  try {
    return new AccessControl(options);
  } catch (cause) {
    const problems = cause instanceof Error ? cause.message : String(cause);
    const next = '`broker config check` shows all of it';
    throw new StartError('ACCESS_FILE_INVALID', `${problems}; ${next}`, { cause });
  }
}
