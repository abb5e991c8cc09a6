import { constants } from 'node:http2';
import type { ServerInterceptor } from '@grpc/grpc-js';
import { assert } from '../base/assert.ts';
import type { BaseCall, Decoder } from './base-call.ts';
import { breakOff, type ConnectionNote, noteOf } from './connection-note.ts';
import { type InflatingCall, inflateWithin } from './inflation.ts';
import { CALL_BYTES, type ReceiveBudget, type Receiving } from './receive-budget.ts';
import { type ErrorStatus, makeStatus, type Refusal } from './status.ts';

/** A call whose request has stood still is answered, and cut off after this time, in ms: its client may wait for ever. */
export const LAST_WORDS_MS = 1_000;

type Call = BaseCall & InflatingCall;

const NEVER: Refusal = () => null;

/**
 * Counts what grpc-js keeps of requests that are on their way in. `call` is grpc-js's own: this is the innermost interceptor. `refusals`: by path, of
 * methods whose admission is asked while they come.
 */
export function meterRequests(budget: ReceiveBudget, refusals: ReadonlyMap<string, Refusal>): ServerInterceptor {
  return ((method: { readonly path: string; readonly requestStream: boolean }, call: Call): Call => {
    assert(call.decoder?.readState === 0, 'grpc-js has changed: the decoder of a call is not there');
    const refuse = refusals.get(method.path) ?? NEVER;
    call.decoder = new MeteredDecoder(call, method.requestStream, budget, refuse);
    inflateWithin(call, method.requestStream, budget, refuse);
    return call;
  }) as unknown as ServerInterceptor;
}

/**
 * In place of the decoder of one call. Of a method with one request everything counts until the client has ended it, for only then is it handed on; of
 * one with many, what has come of the message that is not complete.
 */
class MeteredDecoder implements Decoder, Receiving {
  heldBytes = 0;
  seenBytes = -1;
  movedAt = 0;
  beganAt = 0;
  receivedBytes = 0;
  /** grpc-js has a timer for it. */
  readonly deadlineMs = Number.POSITIVE_INFINITY;
  readonly isPaused = false;
  readonly maxReadMessageLength: number;
  readonly #call: Call;
  readonly #isStream: boolean;
  readonly #budget: ReceiveBudget;
  readonly #refusal: Refusal;
  readonly connection: ConnectionNote | null;
  /** Null when the call was refused: what came of it is not kept, and what still comes is for nobody. */
  #theirs: Decoder | null;

  constructor(call: Call, isStream: boolean, budget: ReceiveBudget, refusal: Refusal) {
    this.#call = call;
    this.#isStream = isStream;
    this.#budget = budget;
    this.#refusal = refusal;
    this.connection = noteOf(call.stream.session);
    this.#theirs = call.decoder;
    this.maxReadMessageLength = call.decoder.maxReadMessageLength;
    if (isStream) return;
    call.stream.on('end', () => budget.release(this));
    // Its head alone takes room. What is refused here is refused before anything listens: a turn later.
    if (!budget.tryHold(this, CALL_BYTES)) {
      queueMicrotask(() => this.#refuse(makeStatus('IN_FLIGHT_FULL', 'requests that are being received')));
    }
  }

  get readState(): number {
    return this.#theirs?.readState ?? 0;
  }

  get isGone(): boolean {
    const { aborted, destroyed, closed } = this.#call.stream;
    return aborted || destroyed || closed;
  }

  write(data: Buffer): Buffer[] {
    if (this.#theirs === null) return [];
    this.receivedBytes += data.length;
    const refusal = this.#refusal(this.receivedBytes);
    if (refusal !== null) {
      this.#refuse(refusal);
      return [];
    }
    const messages = this.#theirs.write(data);
    if (this.#isStream && (messages.length > 0 || this.readState === 0)) {
      this.#budget.release(this);
      if (this.readState === 0) return messages;
    }
    if (this.#budget.tryHold(this, data.length)) return messages;
    this.#refuse(makeStatus('IN_FLIGHT_FULL', 'requests that are being received'));
    return [];
  }

  stalled(): void {
    this.#refuse(makeStatus('REQUEST_STALLED', ''));
    setTimeout(() => breakOff(this.#call.stream, constants.NGHTTP2_NO_ERROR), LAST_WORDS_MS).unref();
  }

  #refuse(status: ErrorStatus): void {
    this.#theirs = null;
    this.#budget.release(this);
    this.#call.sendStatus(status);
  }
}
