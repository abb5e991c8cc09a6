/** A TCP relay in front of a server, which can be cut: at once, or between a request and its reply. */
import { createConnection, createServer, type Server, type Socket } from 'node:net';

interface Address {
  readonly host: string;
  readonly port: number;
}

export class Relay {
  readonly port: number;
  readonly #server: Server;
  readonly #pairs = new Set<readonly [Socket, Socket]>();
  #target: Address;
  #isCut = false;
  #dropsReplies = false;
  /** Ms on the way of every reply. */
  #delayMs = 0;
  /** Bytes of requests that still pass, and who waits for the last of them. */
  #passes = Number.POSITIVE_INFINITY;
  #onHeld: (() => void) | null = null;
  /** Bytes of requests seen since `dropReplies`. */
  #swallowing: ((bytes: number) => void) | null = null;

  private constructor(server: Server, port: number, target: Address) {
    this.#server = server;
    this.port = port;
    this.#target = target;
    server.on('connection', (client) => this.#join(client));
  }

  /** The same URL, by way of this relay. */
  through(url: string): string {
    const changed = new URL(url);
    changed.host = `127.0.0.1:${this.port}`;
    return String(changed);
  }

  static async start(host: string, port: number): Promise<Relay> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
    const address = server.address();
    if (address === null || typeof address === 'string') throw new Error('the relay has no port');
    return new Relay(server, address.port, { host, port });
  }

  /** Breaks every connection and takes no new one, until `restore`. */
  cut(): void {
    this.#isCut = true;
    this.breakAll();
  }

  restore(): void {
    this.#isCut = false;
    this.#dropsReplies = false;
    this.#delayMs = 0;
    this.#swallowing = null;
    this.#passes = Number.POSITIVE_INFINITY;
  }

  /** From now on every reply takes so many ms more, until `restore`: a server far away. */
  delayReplies(ms: number): void {
    this.#delayMs = ms;
  }

  /** From now on requests pass and replies do not. Resolves with the size of the first reply that was swallowed: the server has answered. */
  dropReplies(): Promise<number> {
    this.#dropsReplies = true;
    return new Promise((resolve) => {
      this.#swallowing = resolve;
    });
  }

  /** Lets so many bytes of requests pass and swallows the rest, until `restore`. Resolves when there was a rest. */
  holdAfter(bytes: number): Promise<void> {
    this.#passes = bytes;
    return new Promise((resolve) => {
      this.#onHeld = resolve;
    });
  }

  /** New connections go to another server: what an address does that moves with a fail-over. */
  retarget(host: string, port: number): void {
    this.#target = { host, port };
    this.breakAll();
  }

  breakAll(): void {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }

  #join(client: Socket): void {
    if (this.#isCut) {
      client.destroy();
      return;
    }
    const server = createConnection(this.#target);
    const pair = [client, server] as const;
    this.#pairs.add(pair);
    const end = (): void => {
      this.#pairs.delete(pair);
      for (const socket of pair) socket.destroy();
    };
    for (const socket of pair) socket.setNoDelay(true).on('error', end).on('close', end);
    client.on('data', (bytes) => this.#request(server, bytes));
    // Replies that wait, in their order: what comes behind `restore` must not overtake them.
    const late: Buffer[] = [];
    const flush = (): void => {
      for (const bytes of late.splice(0)) client.write(bytes);
    };
    server.on('data', (bytes) => {
      if (this.#dropsReplies) {
        this.#swallowing?.(bytes.length);
        return;
      }
      late.push(bytes);
      if (this.#delayMs === 0) flush();
      // Each timer lets one go, the oldest: as many as there are replies, unless the delay has ended meanwhile.
      else setTimeout(() => late.length > 0 && client.write(late.shift() as Buffer), this.#delayMs);
    });
  }

  #request(server: Socket, bytes: Buffer): void {
    const passed = bytes.subarray(0, Math.min(bytes.length, this.#passes));
    this.#passes -= passed.length;
    if (passed.length > 0) server.write(passed);
    if (passed.length < bytes.length) this.#onHeld?.();
  }
}
