import type { ServerDuplexStream } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { Reason } from '../base/errors.ts';
import { type BaseCall, baseCallOf, type Decoder } from './base-call.ts';
import { type ConnectionNote, noteOf } from './connection-note.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import { type FrameMemory, PIECE_BYTES_MIN } from './frame-memory.ts';
import type { ReceiveBudget, Receiving } from './receive-budget.ts';
import type { ReceivedGarbage } from './received-garbage.ts';

/**
 * The receiving side of a client stream or duplex call, for frames that are used up as they come. grpc-js copies each message into a buffer of its own,
 * takes it through a promise and two queues, and stops the HTTP/2 stream after each; here a message is handed on where it lies, or from memory
 * that is used again if it came in pieces. The first compressed or too large message, and all behind it, go the way of grpc-js, which has the
 * decompression and the refusals. Headers, half-close, deadlines and cancellation stay with it always.
 */
export class FrameIntake implements Receiving {
  heldBytes = 0;
  seenBytes = -1;
  movedAt = 0;
  beganAt = 0;
  /** grpc-js has a timer for it. */
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  readonly #call: ServerDuplexStream<Buffer, Buffer>;
  readonly #base: BaseCall;
  readonly #theirs: Decoder;
  readonly #lengthMax: number;
  readonly #memory: FrameMemory;
  readonly #garbage: ReceivedGarbage;
  readonly #budget: ReceiveBudget;
  readonly connection: ConnectionNote | null;
  readonly #onFrame: (frame: Buffer) => void;
  readonly #onRefused: (reason: Reason) => void;
  /** The stream is to end: nothing more of it is kept. */
  #isRefused = false;
  #isDirect = true;
  #isPaused = false;
  /** The head of a frame that came in part. */
  readonly #head = Buffer.alloc(FRAME_HEADER_BYTES);
  #headBytes = 0;
  /** Length of the message that comes in pieces; -1: none does. */
  #length = -1;
  #piece: Buffer | null = null;
  #pieceBytes = 0;

  /**
   * `onFrame` gets each message, valid until it returns; `onRefused` has to end the stream: what has come of a message may not be kept, or
   * nothing more came of it. Before anything of the call was read.
   */
  constructor(
    call: ServerDuplexStream<Buffer, Buffer>,
    shared: { readonly memory: FrameMemory; readonly garbage: ReceivedGarbage; readonly budget: ReceiveBudget },
    onFrame: (frame: Buffer) => void,
    onRefused: (reason: Reason) => void,
  ) {
    const base = baseCallOf(call);
    assert(base.decoder?.readState === 0, 'grpc-js has changed: the decoder of a call is not there');
    this.#call = call;
    this.#base = base;
    this.#theirs = this.#base.decoder;
    this.#lengthMax = this.#theirs.maxReadMessageLength;
    this.#memory = shared.memory;
    this.#garbage = shared.garbage;
    this.#budget = shared.budget;
    this.connection = noteOf(base.stream.session);
    this.#onFrame = onFrame;
    this.#onRefused = onRefused;
    const { readState, maxReadMessageLength } = this.#theirs;
    this.#base.decoder = { write: (data) => this.#take(data), readState, maxReadMessageLength };
    call.on('data', onFrame);
  }

  get receivedBytes(): number {
    return this.#pieceBytes;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get isGone(): boolean {
    const { aborted, destroyed, closed } = this.#base.stream;
    return aborted || destroyed || closed;
  }

  stalled(): void {
    this.#refuse('REQUEST_STALLED');
  }

  /** What has come is still handed on, but nothing more is read. */
  pause(): void {
    this.#isPaused = true;
    if (this.#isDirect) this.#base.stream.pause();
    else this.#call.pause();
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#isDirect) this.#base.stream.resume();
    else this.#call.resume();
  }

  /** In place of the decoder's `write`: what it returns is all that grpc-js is to hand on. */
  #take(data: Buffer): Buffer[] {
    let at = this.#isRefused ? data.length : 0;
    while (at < data.length || this.#length === 0) {
      if (this.#length < 0) {
        at = this.#takeHead(data, at);
        if (this.#headBytes < FRAME_HEADER_BYTES) return [];
        const length = this.#head.readUInt32BE(1);
        const isTooLarge = this.#lengthMax >= 0 && length > this.#lengthMax;
        if (this.#head[0] !== 0 || isTooLarge) return this.#leave(data.subarray(at));
        this.#headBytes = 0;
        this.#length = length;
      }
      at = this.#takeBody(data, at, this.#length);
    }
    this.#garbage.note(data.length);
    return [];
  }

  #takeHead(data: Buffer, start: number): number {
    let at = start;
    while (this.#headBytes < FRAME_HEADER_BYTES && at < data.length) {
      this.#head[this.#headBytes] = data[at] as number;
      this.#headBytes += 1;
      at += 1;
    }
    return at;
  }

  #takeBody(data: Buffer, start: number, length: number): number {
    const end = Math.min(data.length, start + length - this.#pieceBytes);
    const isWhole = this.#pieceBytes + (end - start) === length;
    if (this.#pieceBytes === 0 && isWhole) {
      this.#length = -1;
      this.#handOn(data.subarray(start, end));
      return end;
    }
    const piece = this.#pieceFor(this.#pieceBytes + (end - start));
    if (piece === null) {
      this.#refuse('IN_FLIGHT_FULL');
      return data.length;
    }
    data.copy(piece, this.#pieceBytes, start, end);
    this.#pieceBytes += end - start;
    if (isWhole) {
      this.#length = -1;
      this.#piece = null;
      this.#pieceBytes = 0;
      this.#budget.release(this);
      this.#handOn(piece.subarray(0, length));
      this.#memory.give(piece);
    }
    return end;
  }

  /**
   * Grows with what has come, not with what was announced: a client may announce much and send nothing. Null when the budget has no room for
   * it; the least piece is what every stream may have.
   */
  #pieceFor(bytes: number): Buffer | null {
    const old = this.#piece;
    if (old !== null && old.length >= bytes) return old;
    const piece = this.#memory.take(Math.max(bytes, Math.min(this.#pieceBytes * 2, this.#length)));
    if (piece.length > PIECE_BYTES_MIN && !this.#budget.tryHold(this, piece.length - this.heldBytes)) {
      this.#memory.give(piece);
      return null;
    }
    if (old !== null) {
      old.copy(piece, 0, 0, this.#pieceBytes);
      this.#memory.give(old);
    }
    this.#piece = piece;
    return piece;
  }

  #refuse(reason: Reason): void {
    this.#isRefused = true;
    this.#length = -1;
    this.#piece = null;
    this.#pieceBytes = 0;
    this.#budget.release(this);
    this.#onRefused(reason);
  }

  #handOn(frame: Buffer): void {
    try {
      this.#onFrame(frame);
    } catch (defect) {
      // grpc-js takes whatever a decoder throws for a message that is too large.
      setImmediate(() => {
        throw defect;
      });
    }
  }

  /** From the frame whose head was just taken. */
  #leave(rest: Buffer): Buffer[] {
    this.#isDirect = false;
    this.#base.decoder = this.#theirs;
    if (this.#isPaused) this.#call.pause();
    return this.#theirs.write(Buffer.concat([this.#head, rest]));
  }
}
