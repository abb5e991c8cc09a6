import { constants, type ServerHttp2Stream } from 'node:http2';
import { Metadata, type ServerDuplexStream, type ServerWritableStream } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { ErrorStatus } from './status.ts';

type OutgoingCall = ServerWritableStream<Buffer, Buffer> | ServerDuplexStream<Buffer, Buffer>;

/**
 * The sending side of a server stream, for many messages at a time. grpc-js copies, queues and writes each message on its own, and counts
 * what waits in messages; here whole runs of framed messages are written to the HTTP/2 stream under the call, shared by all streams
 * that get them, and what waits is counted in bytes. Headers, statuses and cancellation stay with grpc-js, whose version is pinned
 * exactly; a change of the private fields that are used here fails the first subscription, and its test.
 */
export class DeliveryStream {
  readonly #call: OutgoingCall;
  readonly #stream: ServerHttp2Stream;
  #written = 0;

  constructor(call: OutgoingCall) {
    this.#call = call;
    const inner = (call as unknown as { call?: { stream?: ServerHttp2Stream } }).call?.stream;
    assert(typeof inner?.close === 'function', 'grpc-js has changed: the HTTP/2 stream of a call is not there');
    this.#stream = inner;
  }

  onCancelled(listener: () => void): void {
    this.#call.on('cancelled', listener);
  }

  /** Called when everything written has gone, if `write` had said that it was much. */
  onDrained(listener: () => void): void {
    this.#stream.on('drain', listener);
  }

  /** Sends the response headers; before the first `write`. */
  open(): void {
    this.#call.sendMetadata(new Metadata());
  }

  /** Frames, one behind the other; must not change afterwards. `onSent`: they have been passed on to the socket, or, with an error, never will be. */
  write(frames: Buffer, onSent?: (error?: Error | null) => void): void {
    if (this.#stream.destroyed || this.#stream.writableEnded) return;
    this.#written += frames.length;
    if (onSent === undefined) this.#stream.write(frames);
    else this.#stream.write(frames, onSent);
  }

  /** Bytes that HTTP/2 has not passed on to the client yet. */
  get unsentBytes(): number {
    return this.#stream.writableLength;
  }

  /** `onDrained` will be called. */
  get isFull(): boolean {
    return this.#stream.writableNeedDrain;
  }

  /** Bytes that have been passed on: if it does not grow while something waits, the client reads nothing. */
  get sentBytes(): number {
    return this.#written - this.#stream.writableLength;
  }

  end(status: ErrorStatus): void {
    this.#call.emit('error', status);
  }

  /** Ends the stream at once: a status sent in the ordinary way would wait behind the data that the client does not read. */
  reset(): void {
    this.#stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }
}
