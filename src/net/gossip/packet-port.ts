import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { Address } from '../../gossip/types.ts';
import { LogLimit } from '../log-limit.ts';
import type { NetworkLog } from '../types.ts';
import { normalHost } from './hosts.ts';

/**
 * What may wait in the kernel while the thread does something else (memberlist's transport asks for as much). The kernel gives what it allows; it holds some
 * hundred packets at least.
 */
const RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024;
/** Bytes of packets that the kernel has not taken: more are dropped, as a network does. */
const UNSENT_BYTES_MAX = 1024 * 1024;

export interface PacketCounters {
  packetsIn: number;
  bytesIn: number;
  packetsOut: number;
  bytesOut: number;
  /** Packets that were not sent: the kernel refused them, or too many waited for it. */
  unsent: number;
}

export interface PacketPortOptions {
  /** An IPv4 or IPv6 address; `::` takes IPv4 too. */
  readonly host: string;
  readonly port: number;
  /** `bytes` are the callee's to keep. libuv reads at most 32 packets before other sockets have their turn. */
  onPacket(bytes: Uint8Array, from: Address): void;
  readonly log: NetworkLog;
}

/** The UDP socket of gossip: bytes in, bytes out, nothing of what they mean. */
export class PacketPort {
  readonly counters: PacketCounters = { packetsIn: 0, bytesIn: 0, packetsOut: 0, bytesOut: 0, unsent: 0 };
  readonly #options: PacketPortOptions;
  readonly #socket: Socket;
  readonly #isV6: boolean;
  readonly #log: LogLimit;
  #isClosed = false;

  private constructor(options: PacketPortOptions) {
    this.#options = options;
    this.#isV6 = isIPv6(options.host);
    this.#log = new LogLimit(options.log);
    this.#socket = createSocket({
      type: this.#isV6 ? 'udp6' : 'udp4',
      // Only addresses come here: asking the resolver for each would be a trip through another turn.
      lookup: (host, _options, done) => done(null, host, this.#isV6 ? 6 : 4),
    });
  }

  /** Rejects with the system's error if the port cannot be had. */
  static async open(options: PacketPortOptions): Promise<PacketPort> {
    const port = new PacketPort(options);
    await port.#bind();
    return port;
  }

  /** The port that was chosen, if the one asked for was 0. */
  get port(): number {
    return this.#socket.address().port;
  }

  /** `to.host` is an address. What cannot be sent is lost and counted: it is a packet. */
  send(to: Address, bytes: Uint8Array): void {
    const host = this.#hostFor(to.host);
    // A packet can come from port 0, and so ask to be answered there: the socket throws at it.
    if (this.#isClosed || host === null || to.port === 0 || this.#socket.getSendQueueSize() > UNSENT_BYTES_MAX) {
      this.counters.unsent += 1;
      return;
    }
    this.counters.packetsOut += 1;
    this.counters.bytesOut += bytes.length;
    this.#socket.send(bytes, 0, bytes.length, to.port, host, this.#onSent);
  }

  /** Resolves when the port is free. */
  close(): Promise<void> {
    if (this.#isClosed) return Promise.resolve();
    this.#isClosed = true;
    return new Promise((resolve) => this.#socket.close(() => resolve()));
  }

  readonly #onSent = (error: Error | null): void => {
    if (error === null) return;
    this.counters.unsent += 1;
    // A destination that is down can answer so (ECONNREFUSED), or a network that is: probes tell who is not there.
    this.#log.warn('send', 'a gossip packet could not be sent', { error: error.message });
  };

  /** Null: this socket cannot reach it. */
  #hostFor(host: string): string | null {
    if (isIPv6(host)) return this.#isV6 ? host : null;
    return this.#isV6 ? `::ffff:${host}` : host;
  }

  #bind(): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const onError = (error: Error): void => {
        this.#isClosed = true;
        socket.close();
        reject(error);
      };
      socket.once('error', onError);
      socket.bind({ address: this.#options.host, port: this.#options.port, exclusive: true }, () => {
        socket.off('error', onError);
        socket.on('error', (error) =>
          this.#log.warn('socket', 'the gossip port has an error', { error: error.message }),
        );
        socket.on('message', (bytes, from) => this.#handle(bytes, from));
        this.#widen();
        resolve();
      });
    });
  }

  #handle(bytes: Uint8Array, from: RemoteInfo): void {
    this.counters.packetsIn += 1;
    this.counters.bytesIn += bytes.length;
    this.#options.onPacket(bytes, { host: normalHost(from.address), port: from.port });
  }

  #widen(): void {
    try {
      this.#socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES);
    } catch (error) {
      this.#options.log.info('the kernel keeps its receive buffer for gossip', { error: String(error) });
    }
  }
}
