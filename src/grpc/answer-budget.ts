import { constants, type ServerHttp2Stream } from 'node:http2';
import type { ServerUnaryCall } from '@grpc/grpc-js';

/** Smaller answers are not watched: limits.streams_per_connection bounds them. */
const WATCHED_BYTES = 16 * 1024;

interface Held {
  readonly bytes: number;
  readonly since: number;
}

/**
 * Answers that were given to grpc-js and have not left the process: a client that fetches and does not read would keep them in memory. Their
 * bytes count until the stream is closed; above the limit new fetches are refused, and a stream that takes nothing is reset after a while.
 */
export class AnswerBudget {
  readonly #bytesMax: number;
  readonly #stallMs: number;
  readonly #held = new Map<ServerHttp2Stream, Held>();
  #bytes = 0;

  constructor(bytesMax: number, stallMs: number) {
    this.#bytesMax = bytesMax;
    this.#stallMs = stallMs;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get isSpent(): boolean {
    return this.#bytes >= this.#bytesMax;
  }

  /** Before the answer is handed to grpc-js; false if it must not be. */
  tryHold(call: ServerUnaryCall<Buffer, Buffer>, bytes: number): boolean {
    if (bytes < WATCHED_BYTES) return true;
    if (this.isSpent) return false;
    // grpc-js 1.14 does not say when an answer has left; the HTTP/2 stream under the call closes then.
    const stream = (call as unknown as { call?: { stream?: ServerHttp2Stream } }).call?.stream;
    if (stream === undefined || stream.destroyed) return true;
    this.#held.set(stream, { bytes, since: performance.now() });
    this.#bytes += bytes;
    stream.once('close', () => {
      this.#held.delete(stream);
      this.#bytes -= bytes;
    });
    return true;
  }

  /** Resets streams that have been unread for too long; about once a second. `now`: ms of performance.now(). */
  sweep(now: number): void {
    for (const [stream, { since }] of this.#held) {
      if (now - since > this.#stallMs) stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
  }
}
