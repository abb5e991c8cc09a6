/** The same calls through @grpc/grpc-js with raw bytes: what a Node client costs, for comparison with http2-client.ts. */
import * as grpc from '@grpc/grpc-js';
import { type CallListener, isTlsAddress, type Transport } from './transport.ts';

const identity = (bytes: Buffer): Buffer => bytes;

export class GrpcConnection implements Transport {
  readonly #client: grpc.Client;
  readonly #listener: CallListener;
  readonly #open = new Map<number, { stream: grpc.ClientDuplexStream<Buffer, Buffer>; isFull: boolean }>();
  #closed = false;

  private constructor(client: grpc.Client, listener: CallListener) {
    this.#client = client;
    this.#listener = listener;
  }

  static connect(address: string, listener: CallListener): Promise<GrpcConnection> {
    const { createInsecure, createSsl } = grpc.credentials;
    const isTls = isTlsAddress(address);
    const credentials = isTls ? createSsl(null, null, null, { rejectUnauthorized: false }) : createInsecure();
    const client = new grpc.Client(address.slice(address.lastIndexOf('/') + 1), credentials, {
      // Each client is to have a connection of its own.
      'grpc.use_local_subchannel_pool': 1,
      // What is measured is on this machine, or reached without a machine in between.
      'grpc.enable_http_proxy': 0,
      'grpc.enable_retries': 0,
    });
    return new Promise((resolve, reject) => {
      client.waitForReady(Date.now() + 10_000, (error) => {
        if (error) reject(error);
        else resolve(new GrpcConnection(client, listener));
      });
    });
  }

  call(slot: number, path: string, payload: Buffer, length: number): void {
    const request = Buffer.from(payload.subarray(0, length));
    if (path.endsWith('/Subscribe') || path.endsWith('/Stream')) {
      this.#stream(slot, path, request);
      return;
    }
    this.#client.makeUnaryRequest(path, identity, identity, request, (error, response) => {
      if (this.#closed) return;
      if (response !== undefined) this.#listener.onMessage(slot, response, 0, response.length);
      this.#listener.onEnd(slot, error === null ? 0 : error.code);
    });
  }

  #stream(slot: number, path: string, request: Buffer): void {
    this.#listen(slot, this.#client.makeServerStreamRequest(path, identity, identity, request));
  }

  open(slot: number, path: string): void {
    const stream = this.#client.makeBidiStreamRequest<Buffer, Buffer>(path, identity, identity);
    const entry = { stream, isFull: false };
    this.#open.set(slot, entry);
    stream.on('drain', () => {
      entry.isFull = false;
    });
    this.#listen(slot, stream);
  }

  send(slot: number, payload: Buffer, length: number): void {
    const entry = this.#open.get(slot);
    if (entry === undefined) throw new Error(`perf: slot ${slot} has no stream to send on`);
    entry.isFull = !entry.stream.write(Buffer.from(payload.subarray(0, length)));
  }

  backlog(slot: number): number {
    return this.#open.get(slot)?.isFull === true ? 1 : 0;
  }

  #listen(slot: number, stream: grpc.ClientReadableStream<Buffer> | grpc.ClientDuplexStream<Buffer, Buffer>): void {
    stream.on('metadata', () => this.#listener.onHeaders(slot));
    stream.on('data', (bytes: Buffer) => this.#listener.onMessage(slot, bytes, 0, bytes.length));
    // The failure arrives as `status` too; unheard, it would be thrown.
    stream.on('error', () => undefined);
    stream.on('status', (status) => this.#closed || this.#listener.onEnd(slot, status.code));
  }

  flush(): void {
    // grpc-js writes each call by itself.
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }
}
