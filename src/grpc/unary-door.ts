import {
  constants,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { Anonymous, type Caller, type CallOrigin } from '../access/caller.ts';
import { assert } from '../base/assert.ts';
import type { Reason } from '../base/errors.ts';
import type { CallTrace } from '../base/trace-context.ts';
import type { AbuseWatch } from './abuse-watch.ts';
import { boundTimeout, isPlain, timeoutMsOf } from './call-headers.ts';
import { type CallerSource, noteCaller } from './callers.ts';
import { breakOff, type ConnectionNote, noteOf } from './connection-note.ts';
import type { CallTracing, Done } from './engine.ts';
import { FRAME_HEADER_BYTES } from './frame.ts';
import { LAST_WORDS_MS } from './metered-decoder.ts';
import { CALL_BYTES, type ReceiveBudget, type Receiving } from './receive-budget.ts';
import { type ErrorStatus, makeStatus, type Refusal } from './status.ts';
import { TRACEPARENT, traceRefusals } from './traced-calls.ts';

/**
 * Takes the calls of the hot unary methods straight from HTTP/2. grpc-js makes a dozen objects and closures, a promise and two more turns of
 * the event loop for a call, which together cost more than the broker's own work for a publish. Its port, sessions, keep-alive, drain and every other
 * method stay its own, and so does each call that asks for something out of the ordinary (compression, a content type or deadline that is
 * not plain): this door steps in only for what it answers the same way. The version of grpc-js is pinned exactly; that its one listener for
 * streams is where this expects it is asserted at start.
 *
 * gRPC over HTTP/2: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
 */
export type UnaryHandler = (
  request: Buffer,
  deadlineMs: number,
  done: Done,
  caller: Caller,
  from: CallOrigin | null,
  trace: CallTrace | null,
) => void;

/** A method that is answered here. */
export interface HotMethod {
  readonly handle: UnaryHandler;
  /** Asked each time before more room is made for a request that comes in pieces. */
  readonly refuse: Refusal;
}

export interface DoorOptions {
  /** limits.message_bytes */
  readonly messageBytes: number;
  /** Who calls. */
  readonly callers: CallerSource;
  /** Bounds what is kept of requests that have not come to their end. */
  readonly receiving: ReceiveBudget;
  /** Null: nothing is traced. */
  readonly tracing: CallTracing | null;
  /** Told of every call that its client breaks off as soon as it has begun. */
  readonly abuse: AbuseWatch;
  /** What a handler throws is a defect. */
  readonly escalate: (defect: unknown) => void;
}

/** Where a call is kept on its stream: the listeners are shared by all calls. */
const CALL = Symbol('call');
/** When it began, as AbuseWatch counts. */
const TURN = Symbol('turn');
/** Its connection, which a stream forgets when it closes. */
const FROM = Symbol('from');

type DoorStream = ServerHttp2Stream & { [CALL]?: DoorCall; [FROM]?: ConnectionNote | null; [TURN]?: number };

const RESPONSE_HEADERS = {
  [constants.HTTP2_HEADER_STATUS]: 200,
  [constants.HTTP2_HEADER_CONTENT_TYPE]: 'application/grpc+proto',
};
/** `sendDate` is an option that the types do not know. */
const RESPONSE_OPTIONS = { waitForTrailers: true, sendDate: false };
const REFUSAL_OPTIONS = { endStream: true, sendDate: false };
const OK_TRAILERS = { 'grpc-status': 0, 'grpc-message': 'OK' };

/** Steps in front of the server's own listener for these paths. After it is bound, for each of its HTTP/2 servers. */
export function openUnaryDoor(
  http2Server: Http2Server,
  methods: ReadonlyMap<string, HotMethod>,
  options: DoorOptions,
): void {
  const listeners = http2Server.listeners('stream');
  assert(listeners.length === 1, 'grpc-js has changed: it has another number of listeners for streams');
  const [original] = listeners as [(stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number) => void];
  http2Server.removeAllListeners('stream');
  // One for all: `this` is the stream.
  const onClose = function (this: DoorStream): void {
    const from = this[FROM] ?? null;
    // What has come and nobody has read: it was for something all the same.
    if (from !== null) from.messageBytes += this.readableLength;
    this[CALL]?.gone();
    // A client may reset with any code.
    if (this.rstCode === constants.NGHTTP2_NO_ERROR && !this.aborted) return;
    options.abuse.brokenOff(from, this[TURN] ?? -1);
  };
  const enter = (
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    flags: number,
    caller: Caller | Reason,
  ): void => {
    const path = headers[':path'] as string;
    const method = methods.get(path);
    if (typeof caller !== 'string' && caller.space.length > 0)
      noteOf(stream.session as ServerHttp2Session | undefined)?.prove(caller.tenant);
    if (typeof caller !== 'string' && (method === undefined || !isPlain(headers))) {
      noteCaller(stream, caller, options.callers, path);
      original.call(http2Server, stream, boundTimeout(headers), flags);
      // Node itself closes what is answered and has nobody who reads it, such as a call of a method that is not there.
      if (stream.writableEnded && stream.readableFlowing === null) (stream as DoorStream)[FROM]?.endedEarly();
      else stream.on('data', countData);
      return;
    }
    stream.on('error', onError);
    if (typeof caller === 'string') {
      stream.on('data', countData);
      new DoorCall(stream, NO_METHOD, 0, NOBODY, options).turnAway(makeStatus(caller, ''));
      return;
    }
    const deadlineMs = Date.now() + timeoutMsOf(headers['grpc-timeout'] as string | undefined);
    const call = new DoorCall(stream, method as HotMethod, deadlineMs, caller, options);
    call.path = path;
    call.trace = options.tracing?.begin(headers[TRACEPARENT] as string | undefined) ?? null;
    (stream as DoorStream)[CALL] = call;
    stream.on('data', onData);
    stream.on('end', onEnd);
    call.begin();
  };
  http2Server.on('stream', (stream: DoorStream, headers, flags) => {
    const from = noteOf(stream.session);
    stream[FROM] = from;
    stream[TURN] = options.abuse.begin(from);
    stream.on('close', onClose);
    // Also of methods that are not answered here: grpc-js drops metadata that is not ASCII, and the call would be that of another tenant.
    const caller = options.callers.of(stream, headers);
    if (!(caller instanceof Promise)) {
      enter(stream, headers, flags, caller);
      return;
    }
    // Nobody reads it meanwhile: HTTP/2 holds its sender back.
    stream.on('error', onError);
    void caller.then((found) => {
      if (!stream.destroyed && !stream.closed) enter(stream, headers, flags, found);
    });
  });
}

/** Every error is followed by the stream's close, and a call whose stream is closed is not answered. */
function onError(this: ServerHttp2Stream): void {
  // Without a listener it would be an uncaught exception.
}

/** Also of what grpc-js drops, such as the rest of a call that has its status already. */
function countData(this: DoorStream, chunk: Buffer): void {
  const from = this[FROM] ?? null;
  if (from !== null) from.messageBytes += chunk.length;
}

function onData(this: DoorStream, chunk: Buffer): void {
  this[CALL]?.take(chunk);
}

function onEnd(this: DoorStream): void {
  this[CALL]?.finish();
}

/** Of a call that goes no further. */
const NOBODY = new Anonymous('');

/** Of a call that is refused before it has a request. */
const NO_METHOD: HotMethod = { handle: () => undefined, refuse: () => null };

/** All of the answer has left. */
function onWantTrailers(this: DoorStream): void {
  this.sendTrailers(OK_TRAILERS);
  this[CALL]?.read();
}

function makeNoRoom(): ErrorStatus {
  return makeStatus('IN_FLIGHT_FULL', 'requests that are being received');
}

class DoorCall implements Receiving {
  heldBytes = 0;
  seenBytes = -1;
  movedAt = 0;
  beganAt = 0;
  readonly isPaused = false;
  trace: CallTrace | null = null;
  path = '';
  readonly deadlineMs: number;
  readonly #stream: ServerHttp2Stream;
  readonly #method: HotMethod;
  readonly #caller: Caller;
  readonly #options: DoorOptions;
  readonly connection: ConnectionNote | null;
  /** What has come of the request; most come in one piece. Of several, the first `#length` bytes of a buffer that has room for more. */
  #bytes: Buffer | null = null;
  #length = 0;
  #isAnswered = false;
  #isUnread = false;

  constructor(stream: ServerHttp2Stream, method: HotMethod, deadlineMs: number, caller: Caller, options: DoorOptions) {
    this.#stream = stream;
    this.#method = method;
    this.deadlineMs = deadlineMs;
    this.#caller = caller;
    this.#options = options;
    this.connection = (stream as DoorStream)[FROM] ?? null;
  }

  /** Its head alone takes room: a client may begin calls and send nothing more. */
  begin(): void {
    if (!this.#options.receiving.tryHold(this, CALL_BYTES)) {
      this.turnAway(makeNoRoom());
    }
  }

  take(chunk: Buffer): void {
    if (this.connection !== null) this.connection.messageBytes += chunk.length;
    if (this.#isAnswered) return;
    const fault = this.#bytes === null ? this.#begin(chunk) : this.#append(this.#bytes, chunk);
    if (fault !== null) {
      this.#giveUp(fault);
      return;
    }
    if (this.#length <= this.#options.messageBytes + FRAME_HEADER_BYTES && !this.#isAnnouncedTooLarge()) return;
    this.#giveUp(makeStatus('MESSAGE_TOO_LARGE', ''));
  }

  get receivedBytes(): number {
    return this.#length;
  }

  stalled(isLate: boolean): void {
    this.turnAway(makeStatus(isLate ? 'DEADLINE_PASSED' : 'REQUEST_STALLED', ''));
  }

  /** Refuses a call whose request may go on for ever: its end is not waited for. */
  turnAway(status: ErrorStatus): void {
    this.#giveUp(status);
    setTimeout(() => breakOff(this.#stream, constants.NGHTTP2_NO_ERROR), LAST_WORDS_MS).unref();
  }

  /** Refused before all of it came: nothing of it is kept. */
  #giveUp(status: ErrorStatus): void {
    this.#bytes = null;
    this.#options.receiving.release(this);
    this.#refuseUnread(status);
  }

  /** No handler has seen it, which would tell of its end. */
  #refuseUnread(status: ErrorStatus): void {
    if (this.trace !== null) this.#options.tracing?.ended('Publish', null, this.trace, status);
    this.#refuse(status);
  }

  #begin(chunk: Buffer): ErrorStatus | null {
    if (!this.#options.receiving.tryHold(this, chunk.length)) return makeNoRoom();
    this.#bytes = chunk;
    this.#length = chunk.length;
    return null;
  }

  /** Copied, not kept: DATA frames of a byte would cost a hundred times what they bring, and hold the socket's buffers. */
  #append(bytes: Buffer, chunk: Buffer): ErrorStatus | null {
    const length = this.#length + chunk.length;
    let room = bytes;
    // A first piece has exactly its length, and is not ours to write behind.
    if (length > bytes.length) {
      const announced = this.#announcedBytes;
      // A full broker refuses what it would refuse at the end before it is copied.
      const whole = Number.isFinite(announced) ? announced - FRAME_HEADER_BYTES : length;
      const refusal = this.#method.refuse(whole);
      if (refusal !== null) return refusal;
      const roomBytes = Math.max(length, Math.min(length * 2, announced));
      if (!this.#options.receiving.tryHold(this, roomBytes - bytes.length)) return makeNoRoom();
      room = Buffer.allocUnsafe(roomBytes);
      room.set(bytes.subarray(0, this.#length));
    }
    room.set(chunk, this.#length);
    this.#bytes = room;
    this.#length = length;
    return null;
  }

  /** What the frame's head says that comes in all, as soon as that is there. */
  get #announcedBytes(): number {
    if (this.#length < FRAME_HEADER_BYTES) return Number.POSITIVE_INFINITY;
    return FRAME_HEADER_BYTES + (this.#bytes as Buffer).readUInt32BE(1);
  }

  /** The client has sent all of it. */
  finish(): void {
    this.#options.receiving.release(this);
    // A stream that was reset ends as well.
    if (this.#isAnswered || this.isGone) return;
    const request = this.#request();
    this.#bytes = null;
    if (request === null) {
      this.#refuseUnread(makeStatus('REQUEST_UNSUPPORTED', ''));
      return;
    }
    const lapse = this.#options.callers.lapsed?.(this.#stream, this.#caller, this.path) ?? null;
    if (lapse !== null) {
      this.#refuseUnread(makeStatus(lapse, ''));
      return;
    }
    try {
      if (this.trace === null)
        this.#method.handle(request, this.deadlineMs, this.#answer, this.#caller, this.connection, null);
      else this.#handleTraced(request, this.trace);
    } catch (defect) {
      this.#refuse(makeStatus('INTERNAL_ERROR', ''));
      this.#options.escalate(defect);
    }
  }

  #handleTraced(request: Buffer, trace: CallTrace): void {
    const { tracing } = this.#options;
    if (tracing === null) return;
    const traced = traceRefusals(tracing, request, trace, this.#answer);
    this.#method.handle(request, this.deadlineMs, traced.done, this.#caller, this.connection, trace);
    traced.returned();
  }

  /** All of its answer has left. */
  read(): void {
    if (this.connection !== null) this.connection.read += 1;
    this.gone();
  }

  /** Its stream is closed, perhaps before its answer has left. */
  gone(): void {
    if (this.#isUnread && this.connection !== null) this.connection.unread -= 1;
    this.#isUnread = false;
  }

  get isGone(): boolean {
    const { aborted, destroyed, closed } = this.#stream;
    return aborted || destroyed || closed;
  }

  /** What is too large need not be received. */
  #isAnnouncedTooLarge(): boolean {
    return this.#length >= FRAME_HEADER_BYTES && this.#announcedBytes > this.#options.messageBytes + FRAME_HEADER_BYTES;
  }

  /** The one message without its frame; null if it is not exactly that. */
  #request(): Buffer | null {
    const bytes = this.#bytes;
    if (bytes === null || this.#length < FRAME_HEADER_BYTES || bytes[0] !== 0) return null;
    if (bytes.readUInt32BE(1) !== this.#length - FRAME_HEADER_BYTES) return null;
    return bytes.subarray(FRAME_HEADER_BYTES, this.#length);
  }

  readonly #answer: Done = (error, response) => {
    if (error !== null) {
      this.#refuse(error as ErrorStatus);
      return;
    }
    this.#isAnswered = true;
    if (this.isGone) return;
    const stream = this.#stream;
    const message = response as Buffer;
    const frame = Buffer.allocUnsafe(FRAME_HEADER_BYTES + message.length);
    frame[0] = 0;
    frame.writeUInt32BE(message.length, 1);
    frame.set(message, FRAME_HEADER_BYTES);
    if (this.connection !== null) this.connection.unread += 1;
    this.#isUnread = true;
    stream.respond(RESPONSE_HEADERS, RESPONSE_OPTIONS);
    stream.on('wantTrailers', onWantTrailers);
    stream.end(frame);
  };

  /** Headers and status in one ("trailers-only"), as grpc-js answers a call without a message. */
  #refuse({ code, details, metadata }: Pick<ErrorStatus, 'code' | 'details' | 'metadata'>): void {
    this.#isAnswered = true;
    if (this.isGone) return;
    const fields = { 'grpc-status': code, 'grpc-message': encodeURI(details), ...metadata.toHttp2Headers() };
    this.#stream.respond({ ...RESPONSE_HEADERS, ...fields }, REFUSAL_OPTIONS);
  }
}
