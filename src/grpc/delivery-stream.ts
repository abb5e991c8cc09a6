import { constants, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { Metadata } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import { baseCallOf, type StreamingCall } from './base-call.ts';
import { breakOff, type ConnectionNote, noteOf } from './connection-note.ts';
import type { ErrorStatus } from './status.ts';

/** `error`: what was written will never be passed on. */
export type OnSent = (error?: Error | null) => void;

/**
 * The sending side of a server stream, for many messages at a time. grpc-js copies, queues and writes each message on its own, and counts
 * what waits in messages; here whole runs of framed messages are written to the HTTP/2 stream under the call, shared by all streams
 * that get them, and what waits is counted in bytes. Headers, statuses and cancellation stay with grpc-js.
 *
 * When memory of frames is free again. Node 24 hands pointers to it down to the socket: a write is cut into DATA frames, and its callback travels with
 * the last of them (Http2Session::OnSendData), which is called back when the socket has taken all (ClearOutgoing). A write that has
 * succeeded is therefore read no more. A failed one may be: when a session is destroyed, its streams fail what they have left at once (Http2Stream::Destroy,
 * with UV_ECANCELED), while DATA frames cut from the same writes are still on their way to a socket that is full, and the session waits for that one
 * write before it closes. Nothing but the request, which has failed, kept their memory: collected and used again, it would reach the client
 * as part of deliveries that are whole. So failed frames are kept until the session has closed. A stream that ends on a living
 * session has none on their way: a session reads nothing, resets included, while it writes (MaybeStopReading), and sends its own behind the write.
 */
export class DeliveryStream {
  readonly #call: StreamingCall;
  readonly #stream: ServerHttp2Stream;
  readonly #session: ServerHttp2Session | undefined;
  #written = 0;
  /** What HTTP/2 has not called back for, oldest first: it does so in the order of the writes. */
  readonly #frames: Buffer[] = [];
  readonly #callbacks: (OnSent | undefined)[] = [];
  #kept: Buffer[] = [];
  #timer: NodeJS.Timeout | null = null;

  constructor(call: StreamingCall) {
    this.#call = call;
    const { stream } = baseCallOf(call);
    this.#stream = stream;
    this.#session = stream.session as ServerHttp2Session | undefined;
  }

  /** Whose stream it is; null in tests whose connections are not noted. */
  get connection(): ConnectionNote | null {
    return noteOf(this.#session);
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

  /** Frames, one behind the other; must not change afterwards. `onSent`: they have been passed on to the socket, or, with an error, never will be. False: the stream is over, and it will not be called. */
  write(frames: Buffer, onSent?: OnSent): boolean {
    if (this.#stream.destroyed || this.#stream.writableEnded) return false;
    this.#written += frames.length;
    this.#frames.push(frames);
    this.#callbacks.push(onSent);
    this.#stream.write(frames, this.#onWritten);
    return true;
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

  /** Ends with a status, behind what was written, and without it if the client has not taken that after `patienceMs`: it must not be kept for ever. */
  end(status: ErrorStatus, patienceMs: number): void {
    this.#call.emit('error', status);
    this.resetAfter(patienceMs);
  }

  /** If it is still there then. */
  resetAfter(ms: number): void {
    this.#resetIn(ms, null);
  }

  /** If it is still there, and the client has taken nothing for so long. */
  resetWhenStill(ms: number): void {
    this.#resetIn(ms, this.sentBytes);
  }

  /** `seen`: bytes that had been passed on; null: however many are. The timer would keep all that is behind a stream that has ended. */
  #resetIn(ms: number, seen: number | null): void {
    if (this.#stream.destroyed) return;
    if (this.#timer === null) this.#stream.once('close', () => clearTimeout(this.#timer ?? undefined));
    else clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (seen === null || this.sentBytes === seen) this.reset();
      else this.#resetIn(ms, this.sentBytes);
    }, ms).unref();
  }

  /** Ends the stream at once: a status sent in the ordinary way would wait behind the data that the client does not read. */
  reset(): void {
    breakOff(this.#stream, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  readonly #onWritten = (error?: Error | null): void => {
    const frames = this.#frames.shift();
    assert(frames !== undefined, 'HTTP/2 has called back for nothing');
    if (error !== undefined && error !== null) this.#keep(frames);
    this.#callbacks.shift()?.(error);
  };

  #keep(frames: Buffer): void {
    const session = this.#session;
    if (session === undefined || !session.destroyed) return;
    if (this.#kept.length === 0) {
      // One for each stream of the session, which has as many as it may have streams.
      session.setMaxListeners(0).once('close', () => {
        this.#kept = [];
      });
    }
    this.#kept.push(frames);
  }
}
