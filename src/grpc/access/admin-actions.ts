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
  /** As they came. What is secret or long in them is still there: they are not for the eyes of anybody. */
  readonly arguments: Readonly<Record<string, unknown>>;
  /** `ok`, or the reason of the refusal; `CANCELLED`: its caller did not wait for the answer, and it may have been done. */
  readonly outcome: string;
}

interface Listener {
  onReceiveMessage(message: unknown): void;
  /** Its stream is closed, before the answer or behind it. */
  onCancel(): void;
}

/** A call of grpc-js as far as it is covered. */
interface Call {
  readonly stream: ServerHttp2Stream;
  start(listener: Listener): void;
  sendStatus(status: ErrorStatus): void;
}

const JOIN = '/broker.v1.Cluster/Join';

/**
 * Tells once of each call of a method that needs `admin`, and of each node that wants to be taken in: when it has its status, or when its client has gone
 * before. What was asked for is done then all the same, so whoever does not wait for the answer must not stay unnamed.
 */
export function noteAdminActions(note: (action: AdminAction) => void): ServerInterceptor {
  return ((method: { readonly path: string }, call: Call): Call => {
    if (!isAdministration(method.path) && method.path !== JOIN) return call;
    // The stream forgets its connection when it closes.
    const peer = peerOf(call.stream);
    let request: unknown = null;
    let isTold = false;
    const tell = (outcome: string): void => {
      if (isTold) return;
      isTold = true;
      note({
        caller: callerOf({ call }).name,
        peer,
        method: method.path.slice(method.path.lastIndexOf('/') + 1),
        // One that cannot be decoded is no object.
        arguments: typeof request === 'object' && request !== null ? { ...request } : {},
        outcome,
      });
    };
    const { start, sendStatus } = call;
    call.start = (listener) => {
      const receive = listener.onReceiveMessage.bind(listener);
      const cancel = listener.onCancel.bind(listener);
      listener.onReceiveMessage = (message) => {
        request = message;
        receive(message);
      };
      listener.onCancel = () => {
        // Without a request nothing was asked for.
        if (request !== null) tell('CANCELLED');
        cancel();
      };
      start.call(call, listener);
    };
    call.sendStatus = (answered) => {
      const reason = answered.code === status.OK ? 'ok' : readDetails(answered.metadata).reason;
      tell(reason ?? String(status[answered.code]));
      sendStatus.call(call, answered);
    };
    return call;
  }) as unknown as ServerInterceptor;
}

/** HOST:PORT of who calls. */
export function peerOf(stream: ServerHttp2Stream): string {
  return noteOf(stream.session as ServerHttp2Session | undefined)?.peer ?? '';
}
