/** One gRPC stream over bare HTTP/2, for clients that send what no library would: any bytes, in any pieces, at any moment. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type IncomingHttpHeaders } from 'node:http2';
import { FRAME_HEADER_BYTES, frameOf } from '../../src/grpc/frame.ts';
import { decodeErrorDetails } from './wire.ts';

export const PUBLISH_STREAM_PATH = '/broker.v1.Producer/PublishStream';
export const CONSUME_PATH = '/broker.v1.Consumer/Consume';

/** How a stream ended. */
export interface RawEnd {
  /** grpc-status; null: it was cut off without one. */
  readonly status: number | null;
  /** ErrorInfo.reason; '' without one. */
  readonly reason: string;
  readonly message: string;
}

export class RawStream implements Disposable {
  readonly ended: Promise<RawEnd>;
  /** The status came; the server's side may be open still. */
  readonly told: Promise<RawEnd>;
  onMessage: (message: Buffer) => void = () => undefined;
  end: RawEnd | null = null;
  readonly #session: ClientHttp2Session;
  readonly #isShared: boolean;
  readonly #stream: ClientHttp2Stream;
  #rest: Buffer = Buffer.alloc(0);

  /** On a connection of its own to an address, or on one that several share. */
  constructor(to: string | ClientHttp2Session, path: string, headers: Readonly<Record<string, string>> = {}) {
    this.#isShared = typeof to !== 'string';
    this.#session = typeof to === 'string' ? connect(`http://${to}`) : to;
    // A connection that is lost ends the stream, which says so.
    if (!this.#isShared) this.#session.on('error', () => undefined);
    const stream = this.#session.request({
      ':method': 'POST',
      ':path': path,
      te: 'trailers',
      'content-type': 'application/grpc',
      ...headers,
    });
    this.#stream = stream;
    let said: RawEnd | null = null;
    const told = Promise.withResolvers<RawEnd>();
    this.told = told.promise;
    const take = (fields: IncomingHttpHeaders): void => {
      said = endOf(fields) ?? said;
      if (said !== null) told.resolve(said);
    };
    stream.on('response', take).on('trailers', take);
    stream.on('data', (chunk: Buffer) => this.#onData(chunk));
    // The close that follows says the same.
    stream.on('error', () => undefined);
    this.ended = new Promise((resolve) => {
      stream.on('close', () => {
        this.end = said ?? { status: null, reason: '', message: `reset with code ${stream.rstCode}` };
        told.resolve(this.end);
        resolve(this.end);
      });
    });
  }

  /** Bytes as they are, framed or not. Resolves when they were given to the socket, or the stream has ended. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stream.destroyed || this.#stream.writableEnded) resolve();
      else this.#stream.write(bytes, () => resolve());
    });
  }

  /** A whole message. */
  send(message: Uint8Array): Promise<void> {
    return this.write(frameOf(message));
  }

  halfClose(): void {
    this.#stream.end();
  }

  /** Takes nothing in any more, so that HTTP/2's windows fill up. */
  pause(): void {
    this.#stream.pause();
  }

  [Symbol.dispose](): void {
    if (this.#isShared) this.#stream.close(8);
    else this.#session.destroy();
  }

  #onData(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= FRAME_HEADER_BYTES) {
      const length = FRAME_HEADER_BYTES + bytes.readUInt32BE(1);
      if (bytes.length < length) break;
      this.onMessage(bytes.subarray(FRAME_HEADER_BYTES, length));
      bytes = bytes.subarray(length);
    }
    this.#rest = bytes;
  }
}

function endOf(fields: IncomingHttpHeaders): RawEnd | null {
  const status = fields['grpc-status'];
  if (status === undefined) return null;
  const details = fields['grpc-status-details-bin'];
  const reason = details === undefined ? null : decodeErrorDetails(Buffer.from(String(details), 'base64')).reason;
  return {
    status: Number(status),
    reason: reason ?? '',
    message: decodeURIComponent(String(fields['grpc-message'] ?? '')),
  };
}
