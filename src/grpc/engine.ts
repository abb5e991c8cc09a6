import type { ServerDuplexStream, ServerWritableStream, ServiceError } from '@grpc/grpc-js';
import type { Caller, CallOrigin } from '../access/caller.ts';
import type { CallTrace } from '../base/trace-context.ts';
import type { ErrorStatus } from './status.ts';

/** Answers a call once. */
export type Done = (error: Partial<ServiceError> | null, response?: Buffer) => void;

/**
 * What the handlers of the public service call: the broker behind it. Requests are the raw bytes of the message; `deadlineMs` is the
 * call's deadline in epoch ms, or Infinity; `caller` is whose call it is, `from` where it comes from. Refusals come through `done` (or as the stream's error), never as exceptions.
 */
export interface Engine {
  /** `trace`: null or absent for what is not traced. */
  publish(
    request: Buffer,
    deadlineMs: number,
    done: Done,
    caller: Caller,
    from: CallOrigin | null,
    trace?: CallTrace | null,
  ): void;
  /**
   * Why a publish of so many bytes comes no further now, whatever it says; it counts as refused then. Asked before more room is made for one
   * that comes in pieces. Null: the rest of it may come.
   */
  refusePublish(bytes: number): ErrorStatus | null;
  incIdx(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void;
  fetch(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void;
  broadcast(request: Buffer, deadlineMs: number, done: Done, caller: Caller, from: CallOrigin | null): void;
  /** broker.v1.Producer: frames are raw bytes in both directions. */
  publishStream(stream: ServerDuplexStream<Buffer, Buffer>, caller: Caller): void;
  /** broker.v1.Consumer: the same. */
  consume(stream: ServerDuplexStream<Buffer, Buffer>, caller: Caller): void;
  subscribe(request: Buffer, stream: ServerWritableStream<Buffer, Buffer>, caller: Caller): void;
}

/** Chooses the calls that are traced, and is told of those that do not reach a shard. */
export interface CallTracing {
  /** `traceparent`: of the call's metadata. Null: the call is not traced. */
  begin(traceparent: string | undefined): CallTrace | null;
  /** Begun after the fact: the call `method`, which began at `trace.receivedAt`, has its answer; `error`: what was answered if it failed. */
  ended(method: string, subject: Uint8Array | null, trace: CallTrace, error: Partial<ServiceError> | null): void;
}
