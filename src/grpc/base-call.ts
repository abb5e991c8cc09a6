import type { ServerHttp2Stream } from 'node:http2';
import type { ServerDuplexStream, ServerWritableStream } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';

export type StreamingCall = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

/** What grpc-js puts together messages with (its StreamDecoder): takes what came, returns the frames that are complete, throws if one is too large. */
export interface Decoder {
  write(data: Buffer): Buffer[];
  /** 0: no message has begun. */
  readonly readState: number;
  /** -1: any length. */
  readonly maxReadMessageLength: number;
}

/** The call under a call (its BaseServerInterceptingCall). */
export interface BaseCall {
  readonly stream: ServerHttp2Stream;
  decoder: Decoder;
}

/** The one way to grpc-js's private fields of a call: its version is pinned exactly, and a change of them fails the first stream, and its test. */
export function baseCallOf(call: StreamingCall): BaseCall {
  const base = (call as unknown as { readonly call?: Partial<BaseCall> }).call;
  assert(typeof base?.stream?.close === 'function', 'grpc-js has changed: the HTTP/2 stream of a call is not there');
  return base as BaseCall;
}
