import { createGunzip, createInflate } from 'node:zlib';
import { status as code } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { BaseCall } from './base-call.ts';
import { type ConnectionNote, noteOf } from './connection-note.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import type { ReceiveBudget, Receiving } from './receive-budget.ts';
import { type ErrorStatus, makeStatus } from './status.ts';

/** What is used of a call of grpc-js; `decompressMessage` gets a message with the head of its frame. */
export type InflatingCall = BaseCall & {
  sendStatus(status: ErrorStatus): void;
  decompressMessage(message: Buffer, encoding: string): Buffer | Promise<Buffer>;
};

const INFLATERS: Readonly<Record<string, typeof createGunzip | typeof createInflate>> = {
  gzip: createGunzip,
  deflate: createInflate,
};

/**
 * Counts what compressed messages of a call become, which may be a thousand times what has come for them, piece by piece and before it is kept. grpc-js
 * inflates up to the longest message by itself, and keeps that of a method with one request until the client has ended it.
 */
export function inflateWithin(call: InflatingCall, isStream: boolean, budget: ReceiveBudget): void {
  assert(typeof call.decompressMessage === 'function', 'grpc-js has changed: it inflates messages elsewhere');
  const theirs = call.decompressMessage;
  let inflated: Inflated | null = null;
  call.decompressMessage = (message, encoding) => {
    const inflater = INFLATERS[encoding];
    if (inflater === undefined) return theirs.call(call, message, encoding);
    inflated ??= new Inflated(call, isStream, budget);
    return inflated.inflate(message.subarray(FRAME_HEADER_BYTES), inflater());
  };
}

class Inflated implements Receiving {
  heldBytes = 0;
  seenBytes = -1;
  movedAt = 0;
  beganAt = 0;
  receivedBytes = 0;
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  /** Whether its stream stands still is seen by the decoder. */
  readonly isPaused = true;
  readonly connection: ConnectionNote | null;
  readonly #call: InflatingCall;
  readonly #budget: ReceiveBudget;
  #isRefused = false;
  #running = 0;
  /** What was inflated has been handed on: of a method with one request when the client has ended it. */
  #isHandedOn: boolean;

  constructor(call: InflatingCall, isStream: boolean, budget: ReceiveBudget) {
    const { stream } = call;
    this.#call = call;
    this.#budget = budget;
    this.connection = noteOf(stream.session);
    this.#isHandedOn = isStream || stream.readableEnded;
    const over = (): void => {
      this.#isHandedOn = true;
      this.#settle();
    };
    if (!this.#isHandedOn) stream.once('end', over).once('close', over);
  }

  get isGone(): boolean {
    const { aborted, destroyed, closed } = this.#call.stream;
    return aborted || destroyed || closed;
  }

  /** It gives way to others. */
  stalled(): void {
    this.#isRefused = true;
    this.#budget.release(this);
    this.#call.sendStatus(makeStatus('REQUEST_STALLED', ''));
  }

  /** Rejects with a status, as grpc-js expects it. */
  async inflate(body: Buffer, inflater: ReturnType<typeof createGunzip | typeof createInflate>): Promise<Buffer> {
    const max = this.#call.decoder.maxReadMessageLength;
    const pieces: Buffer[] = [];
    let length = 0;
    this.#running += 1;
    inflater.end(body);
    try {
      for await (const piece of inflater as AsyncIterable<Buffer>) {
        length += piece.length;
        if (max >= 0 && length > max) throw makeStatus('MESSAGE_TOO_LARGE', `it inflates to more than ${max} bytes`);
        if (this.isGone || this.#isRefused || !this.#budget.tryHold(this, piece.length))
          throw makeStatus('IN_FLIGHT_FULL', 'requests that are being received');
        this.receivedBytes += piece.length;
        pieces.push(piece);
      }
      return Buffer.concat(pieces);
    } catch (error) {
      throw error instanceof Error ? { code: code.INTERNAL, details: 'Failed to decompress message' } : error;
    } finally {
      inflater.destroy();
      this.#running -= 1;
      this.#settle();
    }
  }

  #settle(): void {
    if ((this.#isHandedOn && this.#running === 0) || this.#isRefused || this.isGone) this.#budget.release(this);
  }
}
