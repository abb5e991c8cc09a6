import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { type ServerInterceptor, status } from '@grpc/grpc-js';
import { callerOf } from '../callers.ts';
import { noteOf } from '../connection-note.ts';
import { readDetails } from '../error-details.ts';
import type { ErrorStatus } from '../status.ts';
import { isAdministration } from './methods.ts';

/** Something that an operator has done, or tried; or a node that joins. */
export interface AdminAction {
  readonly caller: string;
  /** HOST:PORT */
  readonly peer: string;
  /** Of the method, such as `TrimSubject`. */
  readonly method: string;
  /** Without what is secret or long. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** `ok`, or the reason of the refusal. */
  readonly outcome: string;
}

const TEXT_MAX = 256;

interface Listener {
  onReceiveMessage(message: unknown): void;
}

/** A call of grpc-js as far as it is covered. */
interface Call {
  readonly stream: ServerHttp2Stream;
  start(listener: Listener): void;
  sendStatus(status: ErrorStatus): void;
}

const JOIN = '/broker.v1.Cluster/Join';

/** Tells of each call of a method that needs `admin`, and of each node that wants to be taken in, when it has its status. */
export function noteAdminActions(note: (action: AdminAction) => void): ServerInterceptor {
  return ((method: { readonly path: string }, call: Call): Call => {
    if (!isAdministration(method.path) && method.path !== JOIN) return call;
    let request: unknown = null;
    const { start, sendStatus } = call;
    call.start = (listener) => {
      const receive = listener.onReceiveMessage.bind(listener);
      listener.onReceiveMessage = (message) => {
        request = message;
        receive(message);
      };
      start.call(call, listener);
    };
    call.sendStatus = (answered) => {
      note({
        caller: callerOf({ call }).name,
        peer: peerOf(call.stream),
        method: method.path.slice(method.path.lastIndexOf('/') + 1),
        arguments: argumentsOf(request),
        outcome:
          answered.code === status.OK ? 'ok' : (readDetails(answered.metadata).reason ?? String(status[answered.code])),
      });
      sendStatus.call(call, answered);
    };
    return call;
  }) as unknown as ServerInterceptor;
}

/** HOST:PORT of who calls. */
export function peerOf(stream: ServerHttp2Stream): string {
  return noteOf(stream.session as ServerHttp2Session | undefined)?.peer ?? '';
}

/** Keys and bodies come as bytes, of which the number is told. */
function argumentsOf(request: unknown): Record<string, unknown> {
  if (typeof request !== 'object' || request === null) return {};
  return Object.fromEntries(
    Object.entries(request).flatMap(([name, value]) => (value === '' ? [] : [[name, shown(value)]])),
  );
}

function shown(value: unknown): unknown {
  if (value instanceof Uint8Array) return `${value.length} bytes`;
  if (typeof value === 'string') return value.length > TEXT_MAX ? `${value.slice(0, TEXT_MAX)}…` : value;
  return typeof value === 'object' && value !== null ? argumentsOf(value) : value;
}
