/** Traces of calls that the main thread sees all of. What goes to the shards as batches is traced there (workers/tracing). */
import type { Metadata, ServerDuplexStream, ServerWritableStream, ServiceError } from '@grpc/grpc-js';
import type { CallTrace } from '../base/trace-context.ts';
import { baseCallOf } from './base-call.ts';
import { SubjectRange, scanSubject } from './codec.ts';
import type { CallTracing, Done } from './engine.ts';

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
