import { createGunzip, createInflate } from 'node:zlib';
import { status as code } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { BaseCall } from './base-call.ts';
import { type ConnectionNote, noteOf } from './connection-note.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import type { ReceiveBudget, Receiving } from './receive-budget.ts';
import { type ErrorStatus, makeStatus, type Refusal } from './status.ts';

/** What is used of a call of grpc-js; `decompressMessage` gets a message with the head of its frame, `readQueue` has what was not handed on yet. */
export type InflatingCall = BaseCall & {
  readonly readQueue: readonly unknown[];
  sendStatus(status: ErrorStatus): void;
  decompressMessage(message: Buffer, encoding: string): Buffer | Promise<Buffer>;
  maybePushNextMessage(): void;
};

const INFLATERS: Readonly<Record<string, typeof createGunzip | typeof createInflate>> = {
  gzip: createGunzip,
  deflate: createInflate,
};

/**
 * Counts what compressed messages of a call become, which may be a thousand times what has come for them, piece by piece and before it is kept, until they
 * are handed on. grpc-js inflates up to the longest message by itself, and all at one time that came together.
 */
export function inflateWithin(call: InflatingCall, isStream: boolean, budget: ReceiveBudget, refusal: Refusal): void {
  const { decompressMessage, maybePushNextMessage, readQueue } = call;
  const isKnown = typeof decompressMessage === 'function' && typeof maybePushNextMessage === 'function';
  assert(isKnown && Array.isArray(readQueue), 'grpc-js has changed: it inflates or keeps messages elsewhere');
  let inflated: Inflated | null = null;
  call.decompressMessage = (message, encoding) => {
    const inflater = INFLATERS[encoding];
    if (inflater === undefined) return decompressMessage.call(call, message, encoding);
    if (inflated === null) {
      const first = new Inflated(call, isStream, budget, refusal);
      call.maybePushNextMessage = () => {
        maybePushNextMessage.call(call);
        first.settle();
      };
      inflated = first;
    }
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
  readonly #isStream: boolean;
  readonly #budget: ReceiveBudget;
  readonly #refusal: Refusal;
  #isRefused = false;

  constructor(call: InflatingCall, isStream: boolean, budget: ReceiveBudget, refusal: Refusal) {
    this.#call = call;
    this.#isStream = isStream;
    this.#budget = budget;
    this.#refusal = refusal;
    this.connection = noteOf(call.stream.session);
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
    inflater.end(body);
    try {
      for await (const piece of inflater as AsyncIterable<Buffer>) {
        length += piece.length;
        if (max >= 0 && length > max) throw makeStatus('MESSAGE_TOO_LARGE', `it inflates to more than ${max} bytes`);
        const refusal = this.#refusal(length);
        if (refusal !== null) throw refusal;
        if (this.isGone || this.#isRefused || !this.#budget.tryHold(this, piece.length))
          throw makeStatus('IN_FLIGHT_FULL', 'requests that are being received');
        this.receivedBytes += piece.length;
        pieces.push(piece);
      }
      return Buffer.concat(pieces);
    } catch (error) {
      // The call is refused, and nothing of it is handed on any more.
      this.#isRefused = true;
      throw error instanceof Error ? { code: code.INTERNAL, details: 'Failed to decompress message' } : error;
    } finally {
      inflater.destroy();
      if (this.#isRefused || this.isGone) this.#budget.release(this);
    }
  }

  /** Something was handed on, or could have been: what is inflated, or being inflated, stands in the queue until then. */
  settle(): void {
    const { readQueue, stream } = this.#call;
    // The message of a method with one request leaves the queue at once, and waits behind it for the client to end the call.
    if (readQueue.length === 0 && (this.#isStream || stream.readableEnded)) this.#budget.release(this);
  }
}
