import { constants } from 'node:http2';
import type { ConnectionNote } from './connection-note.ts';
import { CALLS_A_TURN, ReadTurns } from './read-turns.ts';

/** Why a connection was ended, or not taken. */
export const CUT_REASONS = [
  'full',
  'address-full',
  'address-suspect',
  'no-handshake',
  'empty-frames',
  'resets',
  'protocol',
  'unread',
  'streams',
] as const;
export type CutReason = (typeof CUT_REASONS)[number];

export interface AbuseLimits {
  /** limits.connections_per_address */
  readonly connectionsPerAddress: number;
  /** limits.handshake_timeout in ms. */
  readonly handshakeTimeoutMs: number;
  /** limits.empty_bytes: in a second, on one connection. */
  readonly emptyBytes: number;
  /** limits.streams: open calls and streams of all connections. */
  readonly streams: number;
}

/** Where it is told; kinds are few constants, and repeats are to be left out. */
export interface AbuseLog {
  warn(kind: string, message: string, fields: Readonly<Record<string, unknown>>): void;
}

/** Streams that a connection may begin and break off in one turn of the event loop, before anything could be done for them: at once, and per second. */
export const BROKEN_BURST = 1_000;
const BROKEN_PER_S = 500;
/** So many seconds' worth of empty bytes may come at once. */
const EMPTY_BURST_S = 4;
/** Connections of an address of which one was just cut off get this part of both. */
const SUSPECT_SHARE = 1 / 10;
/** How long an address is under suspicion after a connection of it was cut off, in ms. */
const SUSPECT_MS = 60_000;
/** New connections that such an address may open in a second; those that are open are not touched. */
const SUSPECT_CONNECTIONS_PER_S = 5;
/** A connection with so many answers that have not left, of which none leaves for this long (ms), has a client that reads nothing. */
const UNREAD_MIN = 64;
const UNREAD_MS = 30_000;
/** A head has its list's bound, which clients use who send a token with each call. */
const HEAD_BYTES = 16 << 10;
/** Window updates and acknowledgements of pings grow with what was sent: at least as many bytes for each of these. */
const BYTES_OUT_PER_IN = 4;

const MESSAGES: Readonly<Record<CutReason, string>> = {
  full: 'refused a connection: limits.connections are open',
  'address-full': 'refused a connection: its address has as many as it may',
  'address-suspect': 'refused a connection: others of its address were cut off, and it comes fast',
  'no-handshake': 'ended a connection whose client did not begin to speak HTTP/2',
  'empty-frames': 'ended a connection for frames that carry nothing',
  resets: 'ended a connection for calls that were broken off as soon as they were begun',
  protocol: 'a connection ended for what its client sent',
  unread: 'ended a connection whose client does not read its answers',
  streams: 'ended a connection: more than limits.streams are open, and it has the most',
};

/** Of these the client is at fault, not only unlucky: its address is watched more closely. */
const SUSPICIOUS: ReadonlySet<CutReason> = new Set(['empty-frames', 'resets', 'protocol', 'unread', 'streams']);

interface Address {
  open: number;
  /** ms of performance.now(); until then it is under suspicion. */
  suspectUntil: number;
  /** Connections that it may open now, while it is. */
  tokens: number;
  tokensAt: number;
}

/**
 * What clients do to a connection rather than with it. HTTP/2 lets a client begin streams only to break them off, and send any number of frames that
 * carry nothing; neither reaches a limit of a call. No address is shut out: behind one there may be a proxy with many clients, so that only connections
 * that do it are ended, and the next ones of their address are given less and come slower.
 */
export class AbuseWatch {
  readonly cuts: Record<CutReason, number>;
  readonly #limits: AbuseLimits;
  readonly #log: AbuseLog | null;
  readonly #addresses = new Map<string, Address>();
  #suspects = 0;
  readonly #turns = new ReadTurns();
  #sweptAt = performance.now();

  constructor(limits: AbuseLimits, log: AbuseLog | null) {
    this.#limits = limits;
    this.#log = log;
    this.cuts = Object.fromEntries(CUT_REASONS.map((reason) => [reason, 0])) as Record<CutReason, number>;
  }

  /** A new connection; why it is not taken, or null. It counts until `closed`. */
  opened(note: ConnectionNote, now: number): CutReason | null {
    const address = this.#addressOf(note.host);
    const isFull = address.open >= this.#limits.connectionsPerAddress;
    if (isFull || !isPaced(address, now)) {
      const reason = isFull ? 'address-full' : 'address-suspect';
      this.refuse(reason, note);
      return reason;
    }
    address.open += 1;
    const share = address.suspectUntil > now ? SUSPECT_SHARE : 1;
    note.brokenLeft = BROKEN_BURST * share;
    note.emptyLeft = this.#limits.emptyBytes * EMPTY_BURST_S * share;
    return null;
  }

  closed(note: ConnectionNote): void {
    const address = this.#addresses.get(note.host);
    if (address === undefined) return;
    address.open -= 1;
    if (address.open === 0 && address.suspectUntil === 0) this.#addresses.delete(note.host);
  }

  /** It is not taken, or ended by somebody else. */
  refuse(reason: CutReason, note: ConnectionNote, detail?: string): void {
    this.cuts[reason] += 1;
    const fields = { peer: note.peer, agent: note.agent, reason, ...(detail === undefined ? {} : { detail }) };
    this.#log?.warn(reason, MESSAGES[reason], fields);
    if (!SUSPICIOUS.has(reason)) return;
    const address = this.#addressOf(note.host);
    if (address.suspectUntil === 0) this.#suspects += 1;
    address.suspectUntil = performance.now() + SUSPECT_MS;
  }

  /** Ends it with all that is on it. */
  cut(reason: CutReason, note: ConnectionNote): void {
    const { session } = note;
    if (session.destroyed) return;
    this.refuse(reason, note);
    // `destroy` with a code would end each of its streams with an error.
    session.goaway(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    session.destroy();
  }

  /** A stream began: which turn of the event loop it is. */
  begin(note: ConnectionNote | null): number {
    const { turn } = this.#turns;
    if (note === null) return turn;
    if (note.turn !== turn) {
      note.turn = turn;
      note.turnCalls = 0;
    }
    note.turnCalls += 1;
    note.callsBegun += 1;
    if (note.turnCalls === CALLS_A_TURN) this.#turns.endTurn(note.session);
    return turn;
  }

  /** A stream that began in `turn` was reset: if that is this turn, before its client can have seen an answer. */
  brokenOff(note: ConnectionNote | null, turn: number): void {
    if (note === null || turn !== this.#turns.turn) return;
    note.brokenLeft -= 1;
    if (note.brokenLeft < 0) this.cut('resets', note);
  }

  /** Addresses are under suspicion: `sweep` should come often. */
  get isAlert(): boolean {
    return this.#suspects > 0;
  }

  /** Of all connections; `now` in ms of performance.now(). */
  sweep(connections: Iterable<ConnectionNote>, now: number): void {
    const seconds = (now - this.#sweptAt) / 1_000;
    this.#sweptAt = now;
    for (const note of connections) {
      const isSuspect = this.#suspects > 0 && (this.#addresses.get(note.host)?.suspectUntil ?? 0) > now;
      const share = isSuspect ? SUSPECT_SHARE : 1;
      note.brokenLeft = Math.min(BROKEN_BURST * share, note.brokenLeft + BROKEN_PER_S * seconds);
      const burst = this.#limits.emptyBytes * EMPTY_BURST_S * share;
      note.emptyLeft = Math.min(burst, note.emptyLeft + this.#limits.emptyBytes * seconds);
      this.#takeEmpty(note, burst);
      if (note.emptyLeft < 0 && note.emptyLeft + note.waitingBytes < 0) this.cut('empty-frames', note);
      else if (isUnread(note, now)) this.cut('unread', note);
    }
    this.#boundStreams(connections);
    this.#forgive(now);
  }

  /** What has come since the last look, less what it was for. That of a message that was not taken then is for something once it is. */
  #takeEmpty(note: ConnectionNote, burst: number): void {
    const { bytesIn } = note;
    const grown = bytesIn - note.seenIn;
    // The usual case: nothing else is worth a look.
    if (grown < this.#limits.emptyBytes / 16 && note.emptyLeft >= 0) return;
    const { callsBegun, callsTotal, bytesOut, messageBytes } = note;
    // HTTP/2 refuses a call above the client's cap by itself, also if it comes in one packet with the reset that makes room for it.
    if (callsTotal - callsBegun > note.seenRefused) note.endedEarly();
    note.seenRefused = callsTotal - callsBegun;
    const messages = (messageBytes - note.seenMessages) * 2;
    const heads = (callsBegun - note.seenCalls) * HEAD_BYTES;
    const answers = (bytesOut - note.seenOut) / BYTES_OUT_PER_IN;
    note.seenIn = bytesIn;
    note.seenMessages = messageBytes;
    note.seenCalls = callsBegun;
    note.seenOut = bytesOut;
    const empty = grown - messages - heads - answers;
    const rest = Math.max(0, Math.min(note.restBytes, empty));
    note.restBytes -= rest;
    note.emptyLeft = Math.min(burst, note.emptyLeft - empty + rest);
  }

  /** Each is bounded on its connection; what all have together is bounded here. */
  #boundStreams(connections: Iterable<ConnectionNote>): void {
    let total = 0;
    for (const { callsOpen } of connections) total += Math.max(0, callsOpen);
    if (total <= this.#limits.streams) return;
    const open = [...connections].map((note) => ({ note, streams: note.callsOpen }));
    for (const { note, streams } of open.sort((a, b) => b.streams - a.streams)) {
      if (total <= this.#limits.streams) return;
      this.cut('streams', note);
      total -= streams;
    }
  }

  #forgive(now: number): void {
    if (this.#suspects === 0) return;
    for (const [host, address] of this.#addresses) {
      if (address.suspectUntil === 0 || address.suspectUntil > now) continue;
      address.suspectUntil = 0;
      this.#suspects -= 1;
      if (address.open === 0) this.#addresses.delete(host);
    }
  }

  #addressOf(host: string): Address {
    let address = this.#addresses.get(host);
    if (address === undefined) {
      address = { open: 0, suspectUntil: 0, tokens: SUSPECT_CONNECTIONS_PER_S, tokensAt: 0 };
      this.#addresses.set(host, address);
    }
    return address;
  }
}

function isUnread(note: ConnectionNote, now: number): boolean {
  if (note.unread < UNREAD_MIN) {
    note.unreadSince = 0;
    return false;
  }
  // Streams that were reset do not say that they are over.
  note.unread = Math.min(note.unread, Math.max(0, note.callsOpen));
  if (note.unreadSince === 0 || note.read !== note.seenRead) {
    note.unreadSince = now;
    note.seenRead = note.read;
  }
  return now - note.unreadSince >= UNREAD_MS;
}

/** False: it opens connections faster than one under suspicion may. */
function isPaced(address: Address, now: number): boolean {
  if (address.suspectUntil <= now) return true;
  const earned = ((now - address.tokensAt) / 1_000) * SUSPECT_CONNECTIONS_PER_S;
  address.tokens = Math.min(SUSPECT_CONNECTIONS_PER_S, address.tokens + earned);
  address.tokensAt = now;
  if (address.tokens < 1) return false;
  address.tokens -= 1;
  return true;
}
