import { constants, type Http2Server, type ServerHttp2Session } from 'node:http2';
import type { Socket } from 'node:net';
import { hostOf } from '../base/peer-address.ts';
import { carrierOf } from '../tls/handshake-watch.ts';
import type { AbuseWatch } from './abuse-watch.ts';
import { ConnectionNote } from './connection-note.ts';
import { CONNECTION_WINDOW_BYTES } from './http2-tuning.ts';
import { OpenHandshakes } from './open-handshakes.ts';

/** Who else has a say in which connections stay. */
type Admits = (session: ServerHttp2Session) => boolean;

/** Between two looks at all connections, in ms: usually, and while somebody misbehaves. */
const SWEEP_MS = 1_000;
const ALERT_SWEEP_MS = 100;

/**
 * Opens the window of every connection, and closes those beyond `connectionsMax`, over all addresses together. When it is full, whoever has not made a call
 * yet goes first, the oldest before the others: else somebody who only connects would keep everybody out. Those in the middle of their TLS handshake
 * count: else whoever never ends it could have as many as the system has files. Of these the oldest goes of the host that has the most: whoever holds
 * handshakes open takes the room from nobody else.
 */
export class ConnectionGuard {
  readonly #connectionsMax: number;
  readonly #handshakeTimeoutMs: number;
  readonly #watch: AbuseWatch;
  readonly #admits: Admits;
  /** Of connections by TLS, from the first byte on. */
  readonly #sockets = new Set<Socket>();
  /** Those among them whose handshake is not done. */
  readonly #handshakes = new OpenHandshakes();
  readonly #sessions = new Map<ServerHttp2Session, ConnectionNote>();
  /** Those without a call, the oldest first. */
  readonly #unproven = new Map<ServerHttp2Session, ConnectionNote>();
  /** Those among them that have not sent their settings. */
  readonly #unspoken = new Map<ServerHttp2Session, ConnectionNote>();
  #timer: NodeJS.Timeout | null = null;

  constructor(connectionsMax: number, handshakeTimeoutMs: number, watch: AbuseWatch, admits: Admits = () => true) {
    this.#admits = admits;
    this.#connectionsMax = connectionsMax;
    this.#handshakeTimeoutMs = handshakeTimeoutMs;
    this.#watch = watch;
  }

  get open(): number {
    return this.#sessions.size;
  }

  /** What is known of those that are open. */
  notes(): Iterable<ConnectionNote> {
    return this.#sessions.values();
  }

  /** Connections that were closed because there were too many. */
  get refused(): number {
    const { cuts } = this.#watch;
    return cuts.full + cuts['address-full'] + cuts['address-suspect'];
  }

  watch(http2Server: Http2Server): void {
    http2Server.on('session', (session: ServerHttp2Session) => this.#opened(session));
  }

  /** The same of a server whose connections begin with a handshake. */
  watchHandshakes(http2Server: Http2Server): void {
    http2Server.on('connection', (socket: Socket) => {
      if (this.#sockets.size >= this.#connectionsMax && !this.#endHandshake() && !this.#makeRoom()) {
        this.#watch.cuts.full += 1;
        socket.destroy();
        return;
      }
      this.#sockets.add(socket);
      this.#handshakes.add(socket, hostOf(socket));
      socket.once('close', () => {
        this.#sockets.delete(socket);
        this.#handshakes.delete(socket);
      });
    });
    http2Server.on('secureConnection', (socket: Socket) => this.#handshakes.delete(carrierOf(socket)));
  }

  /** False: all are done. */
  #endHandshake(): boolean {
    const oldest = this.#handshakes.oldestOfMost();
    if (oldest === undefined) return false;
    this.#watch.cuts.full += 1;
    oldest.destroy();
    // The event comes later.
    this.#sockets.delete(oldest);
    this.#handshakes.delete(oldest);
    return true;
  }

  /** Ends all connections with what is on them. `forceShutdown` of grpc-js forgets them while channelz is off. */
  destroyAll(): void {
    for (const socket of this.#sockets) socket.destroy();
    for (const session of this.#sessions.keys()) session.destroy(undefined, constants.NGHTTP2_CANCEL);
  }

  #opened(session: ServerHttp2Session): void {
    if (!this.#admits(session)) {
      session.destroy();
      return;
    }
    const note = new ConnectionNote(session);
    if (this.#watch.opened(note, note.openedAt) !== null) {
      session.destroy();
      return;
    }
    session.once('close', () => {
      this.#watch.closed(note);
      this.#sessions.delete(session);
      this.#unproven.delete(session);
      this.#unspoken.delete(session);
    });
    if (this.#sessions.size >= this.#connectionsMax && !this.#makeRoom()) {
      this.#watch.refuse('full', note);
      session.destroy();
      return;
    }
    this.#sessions.set(session, note);
    this.#unproven.set(session, note);
    this.#unspoken.set(session, note);
    session.once('remoteSettings', () => this.#unspoken.delete(session));
    session.once('stream', () => this.#unproven.delete(session));
    // What HTTP/2 itself does not put up with; a connection that was lost is nobody's fault.
    session.once('error', (error: NodeJS.ErrnoException) => {
      if (OF_THE_CLIENT.has(error.code ?? '')) this.#watch.refuse('protocol', note, error.message);
    });
    session.setLocalWindowSize(CONNECTION_WINDOW_BYTES);
    this.#sweepLater();
  }

  #makeRoom(): boolean {
    const [oldest] = [...first(this.#unspoken), ...first(this.#unproven)];
    if (oldest === undefined) return false;
    const [session, note] = oldest;
    this.#watch.refuse('full', note);
    session.destroy();
    // The event comes later.
    this.#sessions.delete(session);
    this.#unproven.delete(session);
    this.#unspoken.delete(session);
    return true;
  }

  /** Nothing is looked at while nobody is connected. */
  #sweepLater(): void {
    if (this.#timer !== null || this.#sessions.size === 0) return;
    const sweep = (): void => {
      this.#timer = null;
      this.#sweep(performance.now());
      this.#sweepLater();
    };
    this.#timer = setTimeout(sweep, this.#watch.isAlert ? ALERT_SWEEP_MS : SWEEP_MS).unref();
  }

  #sweep(now: number): void {
    for (const note of this.#unspoken.values()) {
      if (now - note.openedAt < this.#handshakeTimeoutMs) break;
      this.#watch.cut('no-handshake', note);
    }
    this.#watch.sweep([...this.#sessions.values()], now);
  }
}

const OF_THE_CLIENT: ReadonlySet<string> = new Set([
  'ERR_HTTP2_ERROR',
  'ERR_HTTP2_TOO_MANY_INVALID_FRAMES',
  'ERR_HTTP2_MAX_PENDING_SETTINGS_ACK',
]);

function first<Key, Value>(map: ReadonlyMap<Key, Value>): [Key, Value][] {
  for (const entry of map) return [entry];
  return [];
}
