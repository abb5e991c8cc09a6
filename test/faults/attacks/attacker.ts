/** What the attacks share: connections on which anything can be written, and a bound on what the attacker itself costs. */
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { Prng } from '../../../src/base/prng.ts';
import { ACK, Frame, frame, PREFACE } from '../../support/http2-frames.ts';

/** HOST:PORT of the ports of a broker. */
export interface AttackTarget {
  readonly grpc: string;
  readonly admin: string;
}

export interface Attack {
  readonly name: string;
  /** What it does, in a few words. */
  readonly about: string;
  /** Flags of the broker, with which the attack reaches its bound in a short time. */
  readonly flags?: readonly string[];
  /** The log of the broker has to name who does it. */
  readonly isTold?: true;
  /** Goes on until the attacker is told to stop. */
  run(attacker: Attacker): Promise<void>;
}

/** Of one core: attacker and broker share a machine, and what is to be seen is what the attack costs the broker. */
const CPU_SHARE_MAX = 0.25;
const RECONNECT_MS = 50;
const NOTHING = Buffer.alloc(0);

export class Attacker {
  readonly target: AttackTarget;
  readonly prng: Prng;
  readonly signal: AbortSignal;
  /** What was done, and what came of it. */
  readonly tally: Record<string, number> = {};
  readonly #begun = performance.now();
  readonly #cpuAtStart = process.cpuUsage();

  constructor(target: AttackTarget, seed: number, signal: AbortSignal) {
    this.target = target;
    this.prng = new Prng(seed);
    this.signal = signal;
  }

  get isOver(): boolean {
    return this.signal.aborted;
  }

  count(what: string, times = 1): void {
    this.tally[what] = (this.tally[what] ?? 0) + times;
  }

  /** Between two bursts: lets others run, and waits while more than its share of a core was used. */
  async breathe(): Promise<void> {
    await sleep(1);
    while (!this.isOver) {
      const { user, system } = process.cpuUsage(this.#cpuAtStart);
      if ((user + system) / 1_000 <= (performance.now() - this.#begun) * CPU_SHARE_MAX) return;
      await sleep(5);
    }
  }

  /** Resolves earlier when the attack is over. */
  async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.signal }).catch(() => undefined);
  }

  /** `attack` on `count` connections, each of which is opened again when the server has closed it. */
  async onConnections(
    count: number,
    options: ConnectionOptions,
    attack: (connection: AttackConnection) => Promise<void>,
  ): Promise<void> {
    const one = async (): Promise<void> => {
      while (!this.isOver) {
        const connection = await AttackConnection.open(this.target.grpc, options);
        this.count('connections');
        const stop = (): void => connection.destroy();
        this.signal.addEventListener('abort', stop);
        await attack(connection);
        this.signal.removeEventListener('abort', stop);
        if (connection.isClosed && !this.isOver) this.count('cut by the server');
        for (const [name, times] of connection.got) this.count(`got ${name}`, times);
        connection.destroy();
        await this.pause(RECONNECT_MS);
      }
    };
    await Promise.all(Array.from({ length: count }, one));
  }
}

export interface ConnectionOptions {
  /** Sends preface and SETTINGS (with this payload) at once. Default: empty settings; null: nothing. */
  readonly settings?: Buffer | null;
  /** Reads nothing of what the server sends. */
  readonly isDeaf?: boolean;
}

const NAMES = new Map(Object.entries(Frame).map(([name, type]) => [type as number, name]));

export class AttackConnection {
  readonly socket: Socket;
  isClosed = false;
  /** Frames of the server by name. */
  readonly got = new Map<string, number>();
  #unread: Buffer = NOTHING;
  /** Who has not sent the preface must not send anything else. */
  #answers = false;
  readonly #greeted = Promise.withResolvers<void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    // The close that follows says the same.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.isClosed = true;
    });
  }

  /** Resolves when it is open, or was refused. */
  static async open(address: string, { settings = NOTHING, isDeaf = false }: ConnectionOptions = {}) {
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const connection = new AttackConnection(socket);
    if (isDeaf) socket.pause();
    else socket.on('data', (bytes: Buffer) => connection.#read(bytes));
    await new Promise<void>((resolve) => {
      socket.once('connect', () => resolve());
      socket.once('close', () => resolve());
    });
    if (settings === null) return connection;
    connection.#answers = true;
    await connection.write(Buffer.from(PREFACE), frame(Frame.SETTINGS, 0, 0, settings));
    // Acknowledged before anything else: in the middle of a head it would be an error that ends the attack.
    if (!isDeaf) await Promise.race([connection.#greeted.promise, connection.closed()]);
    return connection;
  }

  /** Resolves when the socket took it, or is closed. */
  write(...parts: readonly Uint8Array[]): Promise<void> {
    return new Promise((resolve) => {
      if (this.isClosed || this.socket.destroyed) {
        this.isClosed = true;
        resolve();
        return;
      }
      this.socket.once('close', resolve);
      this.socket.write(Buffer.concat(parts), () => {
        this.socket.off('close', resolve);
        resolve();
      });
    });
  }

  /** Resolves when the server has closed it. */
  closed(): Promise<void> {
    return new Promise((resolve) => {
      if (this.isClosed) resolve();
      else this.socket.once('close', () => resolve());
    });
  }

  destroy(): void {
    this.socket.destroy();
  }

  #read(bytes: Buffer): void {
    this.#unread = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    let at = 0;
    while (this.#unread.length - at >= 9) {
      const length = this.#unread.readUIntBE(at, 3);
      if (this.#unread.length - at < 9 + length) break;
      this.#take(
        this.#unread.readUInt8(at + 3),
        this.#unread.readUInt8(at + 4),
        this.#unread.subarray(at + 9, at + 9 + length),
      );
      at += 9 + length;
    }
    this.#unread = this.#unread.subarray(at);
  }

  #take(type: number, flags: number, payload: Buffer): void {
    const name = NAMES.get(type) ?? 'other frames';
    this.got.set(name, (this.got.get(name) ?? 0) + 1);
    if ((flags & ACK) !== 0 || !this.#answers) return;
    if (type === Frame.SETTINGS) {
      this.socket.write(frame(Frame.SETTINGS, ACK, 0, NOTHING));
      this.#greeted.resolve();
    } else if (type === Frame.PING) this.socket.write(frame(Frame.PING, ACK, 0, payload));
  }
}

/** One entry of SETTINGS (RFC 9113, section 6.5.1). */
export function setting(id: number, value: number): Buffer {
  const bytes = Buffer.alloc(6);
  bytes.writeUInt16BE(id, 0);
  bytes.writeUInt32BE(value, 2);
  return bytes;
}

export const Setting = { HEADER_TABLE_SIZE: 1, INITIAL_WINDOW_SIZE: 4, MAX_FRAME_SIZE: 5 } as const;

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0, 0);
  return bytes;
}

/** Streams of a client have odd numbers. */
export function* streamIds(): Generator<number, never> {
  for (let id = 1; ; id += 2) yield id;
}
