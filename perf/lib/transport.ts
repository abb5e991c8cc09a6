/** What a generator sends its calls through: one connection. Calls are named by slots, small numbers that the generator reuses. */
export interface Transport {
  /** Sends `payload[0, length)` as the one message of a new call; the bytes are copied or sent before this returns. */
  call(slot: number, path: string, payload: Buffer, length: number): void;
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
