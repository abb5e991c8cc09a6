/** HTTP/2 frames written by hand, for what a well-behaved client would not send. */
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';

/** Types of HTTP/2 frames (RFC 9113, section 6). */
export const Frame = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;
export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
export const END_STREAM = 1;
export const END_HEADERS = 4;
export const ACK = 1;

export interface FrameRead {
  readonly type: number;
  readonly flags: number;
  readonly stream: number;
  readonly payload: Buffer;
}

/** One connection on which the test writes frames as it likes. What comes back is counted, and acknowledged where it must be. */
export class RawConnection {
  readonly socket: Socket;
  readonly frames: FrameRead[] = [];
  closed = false;
  /** As the server sees it: 127.0.0.1:PORT, once it is open. */
  name = '';
  #unread: Buffer = Buffer.alloc(0);
  #waiting: (() => void)[] = [];

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('connect', () => {
      this.name = `127.0.0.1:${socket.localPort}`;
    });
    socket.on('data', (bytes: Buffer) => this.#read(bytes));
    socket.on('error', () => this.#wake());
    socket.on('close', () => {
      this.closed = true;
      this.#wake();
    });
  }

  static async open(t: Pick<TestContext, 'after'>, address: string): Promise<RawConnection> {
    const port = Number(address.slice(address.lastIndexOf(':') + 1));
    const socket = connect(port, '127.0.0.1');
    t.after(() => socket.destroy());
    const connection = new RawConnection(socket);
    socket.write(PREFACE);
    socket.write(frame(Frame.SETTINGS, 0, 0, Buffer.alloc(0)));
    await connection.until(() => connection.closed || connection.frames.some(({ type }) => type === Frame.SETTINGS));
    return connection;
  }

  /** Resolves when `isDone` holds; it is asked after everything that comes in. */
  async until(isDone: () => boolean): Promise<void> {
    while (!isDone()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  count(type: number): number {
    return this.frames.filter((frame) => frame.type === type).length;
  }

  #read(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    while (this.#unread.length >= 9) {
      const length = this.#unread.readUIntBE(0, 3);
      if (this.#unread.length < 9 + length) break;
      const read = {
        type: this.#unread.readUInt8(3),
        flags: this.#unread.readUInt8(4),
        stream: this.#unread.readUInt32BE(5) & 0x7fff_ffff,
        payload: this.#unread.subarray(9, 9 + length),
      };
      this.#unread = this.#unread.subarray(9 + length);
      this.frames.push(read);
      const isAcknowledged = (read.flags & ACK) !== 0;
      if (read.type === Frame.SETTINGS && !isAcknowledged)
        this.socket.write(frame(Frame.SETTINGS, ACK, 0, Buffer.alloc(0)));
      if (read.type === Frame.PING && !isAcknowledged) this.socket.write(frame(Frame.PING, ACK, 0, read.payload));
    }
    this.#wake();
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** The head of a gRPC call: HPACK literals that are not indexed (RFC 7541, section 6.2.2), names from the static table where they are in it. */
export function headersFrame(stream: number, path: string, extra: Readonly<Record<string, string>> = {}): Buffer {
  return frame(Frame.HEADERS, END_HEADERS, stream, callBlock(path, extra));
}

/** The same without its frame. */
export function callBlock(path: string, extra: Readonly<Record<string, string>> = {}): Buffer {
  return Buffer.concat([
    Buffer.from([0x83, 0x86]), // :method POST, :scheme http
    literal(4, path),
    literal(1, 'localhost'),
    named('content-type', 'application/grpc'),
    named('te', 'trailers'),
    ...Object.entries(extra).map(([name, value]) => named(name, value)),
  ]);
}

/** A gRPC message as one DATA frame (at most 16 KiB) that ends the stream. */
export function messageFrame(stream: number, message: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return frame(Frame.DATA, END_STREAM, stream, Buffer.concat([head, message]));
}

export function resetFrame(stream: number): Buffer {
  return frame(Frame.RST_STREAM, 0, stream, Buffer.from([0, 0, 0, 8]));
}

function literal(nameIndex: number, value: string): Buffer {
  return Buffer.concat([Buffer.from([nameIndex]), textOf(value)]);
}

/** A literal that is not indexed, with a name of its own. */
export function named(name: string, value: string): Buffer {
  return Buffer.concat([Buffer.from([0]), textOf(name), textOf(value)]);
}

/** A string without Huffman coding; its length in HPACK's integer form with a 7-bit prefix. */
export function textOf(value: string): Buffer {
  const bytes = Buffer.from(value);
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
  const length = [127];
  let rest = bytes.length - 127;
  for (; rest >= 0x80; rest >>>= 7) length.push((rest & 0x7f) | 0x80);
  length.push(rest);
  return Buffer.concat([Buffer.from(length), bytes]);
}
