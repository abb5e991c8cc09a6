import type { Http2Session, IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { Anonymous, type Caller, type CallOrigin, type Verb } from '../access/caller.ts';
import { defined } from '../base/assert.ts';
import type { Reason } from '../base/errors.ts';
import { TENANT_DEFAULT } from '../base/subject-space.ts';
import { certificateLabel, certificateOf } from '../tls/client-certificates.ts';
import { noteOf } from './connection-note.ts';
import { TENANT_KEY, tenantOfHeader } from './tenant.ts';

/** Says who begins a call, before anything of it is read. */
export interface CallerSource {
  /** The caller, or why the call is refused. A promise, which never rejects, where that takes time: the call waits unread meanwhile. */
  of(stream: ServerHttp2Stream, headers: IncomingHttpHeaders): Caller | Reason | Promise<Caller | Reason>;
  /**
   * Asked again when the request of a unary call has come to its end, for which its client may take minutes: why its caller may not make the call any
   * more, or null. Absent: nobody is asked who they are.
   */
  lapsed?(stream: ServerHttp2Stream, caller: Caller, path: string): Reason | null;
  /** Is told of a call that was let in and refused behind the door, for its caller names what is of others. */
  refused?(stream: ServerHttp2Stream, caller: Caller, path: string, reason: Reason): void;
}

/** What a stream does when its caller is not what it was. */
export interface CallerWatch {
  /** Its caller may call no more: it ends with the reason. */
  ended(reason: Reason): void;
  /** Its caller may do other things than before; `narrowed`: with these, perhaps, something less. True if that has ended the stream. */
  changed(narrowed: readonly (keyof typeof Verb)[]): boolean;
}

/** Names that are remembered: whoever invents more gets an object for each call. */
const KNOWN_MAX = 1_024;

/** Nobody has to say who they are. Who shows a certificate is called by it where something is written down, and may no more and no less than others. */
export class OpenCallers implements CallerSource {
  readonly #known = new Map<string, Caller>();
  readonly #default = new Anonymous(TENANT_DEFAULT);
  /** '' for a connection without a certificate. */
  readonly #labels = new WeakMap<Http2Session, string>();

  of({ session }: ServerHttp2Stream, headers: IncomingHttpHeaders): Caller | Reason {
    const tenant = tenantOfHeader(headers[TENANT_KEY]);
    if (tenant === null) return 'TENANT_INVALID';
    const label = session?.encrypted === true ? this.#labelOf(session) : '';
    if (label !== '') return this.#known.get(`${tenant} ${label}`) ?? this.#meet(tenant, label);
    return tenant === TENANT_DEFAULT ? this.#default : (this.#known.get(tenant) ?? this.#meet(tenant, ''));
  }

  #labelOf(session: Http2Session): string {
    let label = this.#labels.get(session);
    if (label === undefined) {
      const certificate = certificateOf(session.socket as TLSSocket);
      label = certificate === null ? '' : certificateLabel(certificate);
      this.#labels.set(session, label);
    }
    return label;
  }

  #meet(tenant: string, label: string): Caller {
    const caller = label === '' ? new Anonymous(tenant) : new Anonymous(tenant, `certificate ${label}`);
    // No tenant has a space in its name.
    if (this.#known.size < KNOWN_MAX) this.#known.set(label === '' ? tenant : `${tenant} ${label}`, caller);
    return caller;
  }
}

const CALLER = Symbol('caller');
const WATCH = Symbol('watch');
const DOOR = Symbol('door');
type NotedStream = ServerHttp2Stream & {
  [CALLER]?: Caller;
  [WATCH]?: CallerWatch;
  [DOOR]?: { readonly source: CallerSource; readonly path: string };
};

/** For `callerOf` and the like, of a call that grpc-js takes. `source` has let it in. */
export function noteCaller(stream: ServerHttp2Stream, caller: Caller, source: CallerSource, path: string): void {
  const noted = stream as NotedStream;
  noted[CALLER] = caller;
  noted[DOOR] = { source, path };
}

/** `CallerSource.lapsed` of a unary call of grpc-js whose request is there. */
export function lapseOf(call: object): Reason | null {
  const { stream } = (call as { readonly call?: { readonly stream?: NotedStream } }).call ?? {};
  const { [CALLER]: caller, [DOOR]: door } = stream ?? {};
  if (stream === undefined || caller === undefined || door === undefined) return null;
  return door.source.lapsed?.(stream, caller, door.path) ?? null;
}

/** Tells who has let it in that a call of grpc-js is refused for who makes it. */
export function tellRefusal(call: object, reason: Reason): void {
  const { stream } = (call as { readonly call?: { readonly stream?: NotedStream } }).call ?? {};
  const { [CALLER]: caller, [DOOR]: door } = stream ?? {};
  if (stream !== undefined && caller !== undefined) door?.source.refused?.(stream, caller, door.path, reason);
}

/** The caller of a call of grpc-js, which the door has noted before. */
export function callerOf(call: object): Caller {
  const { stream } = (call as { readonly call?: { readonly stream?: NotedStream } }).call ?? {};
  return defined(stream?.[CALLER], 'a call has no caller: it has not come through the door');
}

/** Where a call of grpc-js comes from; null for one whose connection is over. */
export function originOf(call: object): CallOrigin | null {
  const { stream } = (call as { readonly call?: { readonly stream?: NotedStream } }).call ?? {};
  return noteOf(stream?.session);
}

/** From now on `watch` is told, as long as the call is open. In tests without a door nobody tells it. */
export function watchCaller(call: object, watch: CallerWatch): void {
  const { stream } = (call as { readonly call?: { readonly stream?: NotedStream } }).call ?? {};
  if (stream !== undefined) stream[WATCH] = watch;
}

/** What was given to `watchCaller` for this stream; null: its call is not open yet, or is one of those that do not ask. */
export function watchOf(stream: ServerHttp2Stream): CallerWatch | null {
  return (stream as NotedStream)[WATCH] ?? null;
}
