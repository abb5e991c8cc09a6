import type { ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js';
import type { Caller, CallOrigin } from '../../access/caller.ts';
import type { CallTrace } from '../../base/trace-context.ts';
import { SubjectRange, scanSubject } from '../../grpc/codec.ts';
import type { Done, Engine } from '../../grpc/engine.ts';
import { QuotaStatuses } from '../../grpc/quota-status.ts';
import type { ErrorStatus } from '../../grpc/status.ts';
import { takeCall } from '../../quota/take-call.ts';
import type { CallMetrics } from './call-metrics.ts';
import { Method } from './call-table.ts';
import type { Quotas } from './quotas.ts';

/**
 * Stands in front of the engine and lets single calls that publish through, or refuses them before anything else is done for them, by the quotas of
 * their tenants. Publish streams are metered batch by batch where they are taken apart. Reading is not metered.
 */
export class MeteredEngine implements Engine {
  readonly #engine: Engine & { readonly metrics: Pick<CallMetrics, 'refused'> };
  readonly #quotas: Quotas;
  readonly #statuses = new QuotaStatuses();
  readonly #range = new SubjectRange();

  constructor(engine: Engine & { readonly metrics: Pick<CallMetrics, 'refused'> }, quotas: Quotas) {
    this.#engine = engine;
    this.#quotas = quotas;
  }

  publish(
    request: Buffer,
    deadlineMs: number,
    done: Done,
    caller: Caller,
    from: CallOrigin | null,
    trace: CallTrace | null = null,
  ): void {
    if (this.#quotas.isOn && !this.#lets(Method.PUBLISH, request, done, caller.tenant)) return;
    this.#engine.publish(request, deadlineMs, done, caller, from, trace);
  }

  /** Without a look at quotas: whose they are is known, but not yet what is published. */
  refusePublish(bytes: number): ErrorStatus | null {
    return this.#engine.refusePublish(bytes);
  }

  broadcast(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void {
    if (this.#quotas.isOn && !this.#lets(Method.BROADCAST, request, done, caller.tenant)) return;
    this.#engine.broadcast(request, deadlineMs, done, caller, from);
  }

  incIdx(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void {
    if (this.#quotas.isOn && !this.#lets(Method.INCREMENT, request, done, caller.tenant)) return;
    this.#engine.incIdx(request, deadlineMs, done, caller, from);
  }

  fetch(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void {
    this.#engine.fetch(request, deadlineMs, done, caller, from);
  }

  publishStream(stream: ServerDuplexStream<Buffer, Buffer>, caller: Caller): void {
    this.#engine.publishStream(stream, caller);
  }

  consume(stream: ServerDuplexStream<Buffer, Buffer>, caller: Caller): void {
    this.#engine.consume(stream, caller);
  }

  subscribe(request: Buffer, stream: ServerWritableStream<Buffer, Buffer>, caller: Caller): void {
    this.#engine.subscribe(request, stream, caller);
  }

  #lets(method: number, request: Buffer, done: Done, name: string): boolean {
    const now = performance.now();
    const tenant = this.#quotas.table.of(name, now);
    const range = this.#range;
    const hasSubject = tenant.prefixes.length > 0 && scanSubject(request, 0, request.length, range) === null;
    const prefix = hasSubject ? tenant.prefixOf(request, range.start, range.end) : null;
    const delayMs = takeCall(tenant, prefix, 1, request.length, now);
    if (delayMs === 0) return true;
    this.#engine.metrics.refused(method, 'QUOTA_EXCEEDED');
    done(this.#statuses.of(delayMs));
    return false;
  }
}
