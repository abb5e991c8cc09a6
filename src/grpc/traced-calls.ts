/** Traces of calls that the main thread sees all of. What goes to the shards as batches is traced there (workers/tracing). */
import type {
  Metadata,
  ServerDuplexStream,
  ServerInterceptor,
  ServerWritableStream,
  ServiceError,
  StatusObject,
} from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { CallTrace } from '../base/trace-context.ts';
import { baseCallOf } from './base-call.ts';
import { SubjectRange, scanSubject } from './codec.ts';
import type { CallTracing, Done } from './engine.ts';
import { explained } from './too-large.ts';

/** Key of the metadata of a call, and of the headers of a message. */
export const TRACEPARENT = 'traceparent';

export function traceparentOf(metadata: Metadata): string | undefined {
  const [value] = metadata.get(TRACEPARENT);
  return typeof value === 'string' ? value : undefined;
}

/** `done` of a unary call, which also tells of its end if it is traced. */
export function traceUnary(
  tracing: CallTracing,
  method: string,
  call: { readonly metadata: Metadata; readonly request: Buffer },
  done: Done,
): Done {
  const trace = tracing.begin(traceparentOf(call.metadata));
  if (trace === null) return done;
  return (error, response) => {
    tracing.ended(method, subjectOf(call.request), trace, error);
    done(error, response);
  };
}

/** `done` of a publish, whose span is made when a shard has answered it: unless it is refused before it gets there, which happens at once. */
export function traceRefusals(
  tracing: CallTracing,
  request: Buffer,
  trace: CallTrace,
  done: Done,
): { readonly done: Done; returned(): void } {
  let isUnderWay = false;
  return {
    done: (error, response) => {
      if (!isUnderWay && error !== null) tracing.ended('Publish', subjectOf(request), trace, error);
      done(error, response);
    },
    returned: () => {
      isUnderWay = true;
    },
  };
}

/** What is used of a unary call of grpc-js. */
interface UnaryCall {
  readonly metadata: Metadata;
  start(listener: { onReceiveHalfClose(): void }): void;
  sendStatus(status: Partial<StatusObject>): void;
}

/**
 * Traces unary calls that have their answer before all of the request is there: no handler sees them, such as those that a full broker refuses while they
 * come, or are inflated. `methods`: names by path. Behind `explainTooLarge`, and before what keeps `sendStatus`.
 */
export function traceEarlyAnswers(tracing: CallTracing, methods: ReadonlyMap<string, string>): ServerInterceptor {
  return (({ path }: { readonly path: string }, call: UnaryCall): UnaryCall => {
    const method = methods.get(path);
    if (method === undefined) return call;
    const { metadata, start, sendStatus } = call;
    assert(
      typeof start === 'function' && typeof metadata?.get === 'function',
      'grpc-js has changed: a call is begun elsewhere',
    );
    const receivedAt = performance.now();
    let isOver = false;
    call.start = (listener) => {
      const { onReceiveHalfClose } = listener;
      listener.onReceiveHalfClose = () => {
        // The handler takes it from here.
        isOver = true;
        onReceiveHalfClose.call(listener);
      };
      start.call(call, listener);
    };
    call.sendStatus = (status) => {
      const trace = isOver ? null : tracing.begin(traceparentOf(metadata));
      isOver = true;
      if (trace !== null)
        tracing.ended(method, null, { ...trace, receivedAt }, explained(status) as Partial<ServiceError>);
      sendStatus.call(call, status);
    };
    return call;
  }) as unknown as ServerInterceptor;
}

type Stream = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

/**
 * The open of a stream, up to when it is live: its headers go out, or with `untilWritten` the first message. A stream may last for days, which no span
 * should.
 */
export function traceOpen(tracing: CallTracing, method: string, stream: Stream, untilWritten: boolean): void {
  const trace = tracing.begin(traceparentOf(stream.metadata));
  if (trace === null) return;
  const subject = 'request' in stream ? subjectOf(stream.request) : null;
  let hasEnded = false;
  const ended = (error: Partial<ServiceError> | null): void => {
    if (hasEnded) return;
    hasEnded = true;
    tracing.ended(method, subject, trace, error);
  };
  stream.once('error', ended);
  stream.once('cancelled', () => ended({ code: 1, details: 'cancelled by the client' }));
  const target = (untilWritten ? baseCallOf(stream).stream : stream) as unknown as Record<string, Method>;
  const name = untilWritten ? 'write' : 'sendMetadata';
  const original = target[name] as Method;
  // An own property in front of the method of its class, for one call.
  target[name] = (...args) => {
    delete target[name];
    ended(null);
    return original.apply(target, args);
  };
}

type Method = (...args: unknown[]) => unknown;

function subjectOf(request: Buffer): Uint8Array | null {
  const range = new SubjectRange();
  if (scanSubject(request, 0, request.length, range) !== null) return null;
  return request.subarray(range.start, range.end);
}
