/** What a generator sends its calls through: one connection. Calls are named by slots, small numbers that the generator reuses. */
export interface Transport {
  /** Sends `payload[0, length)` as the one message of a new call; the bytes are copied or sent before this returns. */
  call(slot: number, path: string, payload: Buffer, length: number): void;
  /** Opens a bidirectional stream; it lives until the server or `close` ends it. */
  open(slot: number, path: string): void;
  /** Sends one more message on it; the bytes are copied or sent before this returns. */
  send(slot: number, payload: Buffer, length: number): void;
  /** Messages of the slot that wait for a flow-control window: whoever sends on regardless fills this process's memory. */
  backlog(slot: number): number;
  /** Calls made since the last flush may wait for it. */
  flush(): void;
  close(): void;
}

export interface CallListener {
  /** The response headers came. */
  onHeaders(slot: number): void;
  /** A message, `bytes[start, end)`; valid during the call only. */
  onMessage(slot: number, bytes: Buffer, start: number, end: number): void;
  /** The call ended with a gRPC status; the slot may be used again. */
  onEnd(slot: number, status: number): void;
  /** The connection is gone, and with it every open call. */
  onLost(why: string): void;
}

export type ClientKind = 'raw' | 'grpc-js';

const TLS = 'tls://';

/** The address as the generators are told that TLS is spoken there. */
export function tlsAddress(address: string): string {
  return `${TLS}${address}`;
}

export function isTlsAddress(address: string): boolean {
  return address.startsWith(TLS);
}
