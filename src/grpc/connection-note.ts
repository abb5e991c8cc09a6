import type { Http2Session, IncomingHttpHeaders, ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import { hostOf } from '../base/peer-address.ts';
import { TENANT_DEFAULT } from '../base/subject-space.ts';
import { STREAM_WINDOW_BYTES } from './http2-tuning.ts';
import { TENANT_KEY, tenantOfHeader } from './tenant.ts';

/** Of a user-agent, in characters. */
const AGENT_MAX = 100;

/** For calls that end early: what of them may come at one time, on one connection, and what more in a second. A foe can have calls ended at will. */
const REST_BYTES_MAX = 16 * STREAM_WINDOW_BYTES;
const REST_BYTES_PER_S = 1 << 20;

const NOTE = Symbol('connection');

type NotedSession = ServerHttp2Session & { [NOTE]?: ConnectionNote };

/**
 * What is known of one connection of a client. Nothing is counted for it: its bytes and calls are what the socket and HTTP/2 count by themselves, its
 * client is who the first call says it is.
 */
export class ConnectionNote {
  /** ms of performance.now(). */
  readonly openedAt = performance.now();
  /** HOST:PORT */
  readonly peer: string;
  /** HOST, as in `peer`. */
  readonly host: string;
  agent = '';
  tenant = TENANT_DEFAULT;
  /** The tenant that its first caller with a space has proven; '': none has. */
  proven = '';
  /** Bytes of messages that came on it, whole or in part. */
  messageBytes = 0;
  /** Of ReceiveBudget: what is kept of its requests. */
  heldBytes = 0;
  /** Answers of Publish that have not left, and those that have. */
  unread = 0;
  read = 0;
  /** Of AbuseWatch: since when nothing is read, and `read` at that time. */
  unreadSince = 0;
  seenRead = 0;
  /** Calls that began in the last turn of the event loop that had any, and which that is. */
  turn = -1;
  turnCalls = 0;
  /** Of AbuseWatch: calls that it may still break off, bytes of frames that it may still waste, and its last look. */
  brokenLeft = 0;
  emptyLeft = 0;
  seenIn = 0;
  seenOut = 0;
  seenMessages = 0;
  seenCalls = 0;
  seenRefused = 0;
  /** Of AbuseWatch: what may still come, at the most, for calls that the broker ended before their clients did. */
  restBytes = 0;
  /** What `restBytes` may still grow by, and when that was known (ms of performance.now()). */
  #restLeft = REST_BYTES_MAX;
  #restAt = this.openedAt;
  /** Calls that reached the broker: a client may leave out numbers. */
  callsBegun = 0;
  readonly session: ServerHttp2Session;

  constructor(session: ServerHttp2Session) {
    this.session = session;
    this.host = hostOf(session.socket);
    this.peer = `${this.host}:${session.socket?.remotePort ?? 0}`;
    (session as NotedSession)[NOTE] = this;
    session.once('stream', (_stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => this.#met(headers));
  }

  /** As the socket counts them; 0 once the connection is over. */
  get bytesIn(): number {
    return this.session.socket?.bytesRead ?? 0;
  }

  get bytesOut(): number {
    return this.session.socket?.bytesWritten ?? 0;
  }

  /** Calls since it was opened, as its client numbers them (every other number of HTTP/2 is a stream of the client). */
  get callsTotal(): number {
    return Math.ceil((this.session.state.lastProcStreamID ?? 0) / 2);
  }

  /** Calls that are open; -1 where this Node does not say. */
  get callsOpen(): number {
    return this.#streams?.size ?? -1;
  }

  /**
   * What has come for open calls and was not taken yet, because whoever is to take it has stopped reading. Up to half a window more for each: windows are
   * renewed by halves. A walk over all calls.
   */
  get waitingBytes(): number {
    let bytes = 0;
    for (const stream of this.#streams?.values() ?? []) {
      const { localWindowSize = STREAM_WINDOW_BYTES } = stream.state;
      bytes += Math.max(0, STREAM_WINDOW_BYTES - localWindowSize);
    }
    return bytes;
  }

  /** The broker has ended a call whose client had not: as much as the call's window may be on its way, and is no fault of the client's. */
  endedEarly(): void {
    const now = performance.now();
    const earned = ((now - this.#restAt) / 1_000) * REST_BYTES_PER_S;
    this.#restLeft = Math.min(REST_BYTES_MAX, this.#restLeft + earned);
    this.#restAt = now;
    const bytes = Math.min(STREAM_WINDOW_BYTES, this.#restLeft);
    this.#restLeft -= bytes;
    this.restBytes = Math.min(REST_BYTES_MAX, this.restBytes + bytes);
  }

  prove(tenant: string): void {
    if (this.proven === '') this.proven = this.tenant = tenant;
  }

  get #streams(): ReadonlyMap<number, ServerHttp2Stream> | undefined {
    const session = this.session as unknown as Record<symbol, { readonly streams?: Map<number, ServerHttp2Stream> }>;
    const state = Object.getOwnPropertySymbols(session).find(({ description }) => description === 'state');
    return state === undefined ? undefined : session[state]?.streams;
  }

  #met(headers: IncomingHttpHeaders): void {
    if (this.proven === '') this.tenant = tenantOfHeader(headers[TENANT_KEY]) ?? TENANT_DEFAULT;
    this.agent = (headers['user-agent'] ?? '').slice(0, AGENT_MAX);
  }
}

/** Resets a stream whose client may still be sending. */
export function breakOff(stream: ServerHttp2Stream, code: number): void {
  if (!stream.closed && !stream.readableEnded) noteOf(stream.session)?.endedEarly();
  stream.close(code);
}

/** Null for a connection that was not noted, such as one of a test. */
export function noteOf(session: Http2Session | undefined): ConnectionNote | null {
  return (session as NotedSession | undefined)?.[NOTE] ?? null;
}
