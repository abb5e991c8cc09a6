import type { ServerDuplexStream, ServerWritableStream, ServiceError } from '@grpc/grpc-js';

/** Answers a call once. */
export type Done = (error: Partial<ServiceError> | null, response?: Buffer) => void;

/**
 * What the handlers of the public service call: the broker behind it. Requests are the raw bytes of the message; `deadlineMs` is the
 * call's deadline in epoch ms, or Infinity. Refusals come through `done` (or as the stream's error), never as exceptions.
 */
export interface Engine {
  publish(request: Buffer, deadlineMs: number, done: Done): void;
  incIdx(request: Buffer, deadlineMs: number, done: Done): void;
  fetch(request: Buffer, deadlineMs: number, done: Done): void;
  broadcast(request: Buffer, deadlineMs: number, done: Done): void;
  /** broker.v1.Producer: frames are raw bytes in both directions. */
  publishStream(stream: ServerDuplexStream<Buffer, Buffer>): void;
  /** broker.v1.Consumer: the same. */
  consume(stream: ServerDuplexStream<Buffer, Buffer>): void;
  subscribe(request: Buffer, stream: ServerWritableStream<Buffer, Buffer>): void;
}
