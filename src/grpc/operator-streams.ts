/** How the services for operators answer with a stream: what was decoded, answers that are written as the client takes them, and one end. */
import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Caller } from '../access/caller.ts';
import { callerOf, watchCaller } from './callers.ts';
import { asStatus, MALFORMED, tellIfOfOthers } from './operator-calls.ts';
import { makeStatus } from './status.ts';

/** One stream of answers, as whoever answers sees it. */
export interface Answers<Response> {
  /** False: the client has not taken what was written. More is kept in memory. */
  readonly isReady: boolean;
  /** To a client that has gone, nothing. */
  write(response: Response): void;
  /** Aborted when the client has cancelled, or its connection is gone. Nothing more is worth writing. */
  readonly gone: AbortSignal;
}

/** Answers with what `answer` writes until it resolves; its rejection is the status of the call. */
export function streamed<Request, Response>(
  answer: (request: Request, answers: Answers<Response>, caller: Caller) => Promise<void>,
  onDefect: (error: unknown) => void,
) {
  return (call: ServerWritableStream<Request | typeof MALFORMED, Response>): void => {
    if (call.request === MALFORMED) {
      call.emit('error', makeStatus('MALFORMED_MESSAGE', ''));
      return;
    }
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    // A write to a client that has gone.
    call.on('error', () => gone.abort());
    watchCaller(call, {
      ended: (reason) => call.emit('error', makeStatus(reason, '')),
      changed: () => false,
    });
    let isReady = true;
    call.on('drain', () => {
      isReady = true;
    });
    const answers: Answers<Response> = {
      get isReady() {
        return isReady;
      },
      write(response) {
        if (!gone.signal.aborted) isReady = call.write(response);
      },
      gone: gone.signal,
    };
    answer(call.request, answers, callerOf(call)).then(
      () => {
        if (!gone.signal.aborted) call.end();
      },
      (error: unknown) => {
        tellIfOfOthers(call, error);
        if (!gone.signal.aborted) call.emit('error', asStatus(error, onDefect));
      },
    );
  };
}
