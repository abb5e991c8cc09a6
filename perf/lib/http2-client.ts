/**
 * A gRPC client cut down to what a load generator needs, straight on a TCP socket: requests are built from a template, answers are
 * scanned, many of both share one system call. It costs a fraction of what any server spends on a call, so that on a small machine the
 * server is what is measured. `--client grpc-js` runs the same load through @grpc/grpc-js instead.
 *
 * Protocol: RFC 9113 (frames, windows) and RFC 7541 (header blocks). The client announces a header table of size 0, so that answers need
 * no dynamic table to be read.
 */
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { type CallListener, isTlsAddress, type Transport } from './transport.ts';

const FRAME_HEADER = 9;
const Frame = { DATA: 0, HEADERS: 1, RST_STREAM: 3, SETTINGS: 4, PING: 6, GOAWAY: 7, WINDOW_UPDATE: 8 } as const;
const Flag = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8 } as const;
const Setting = { HEADER_TABLE_SIZE: 1, ENABLE_PUSH: 2, INITIAL_WINDOW_SIZE: 4 } as const;
const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
/** Largest DATA frame that every peer takes. */
const DATA_MAX = 16_384;
const DEFAULT_WINDOW = 65_535;
/** What a server may send ahead of us, per stream and per connection. Given back at half. */
const STREAM_WINDOW = 4 << 20;
const CONNECTION_WINDOW = 16 << 20;
/** gRPC's message prefix: a flag for compression, and the length. */
const MESSAGE_PREFIX = 5;
/** Such a request fits the window that every stream begins with, so the windows of single streams need no watching. */
const MESSAGE_MAX = DEFAULT_WINDOW - MESSAGE_PREFIX;
/** Requests are gathered up to this many bytes before they are written. */
const OUT_BYTES = 64 << 10;
const GRPC_UNAVAILABLE = 14;
/** First index of HPACK's dynamic table; the newest entry has it. */
const DYNAMIC_FIRST = 62;

/** `grpc-status` as a literal name: as it is, and in HPACK's Huffman code. */
const STATUS_NAMES = [Buffer.from('grpc-status', 'latin1'), Buffer.from('9acac8b21234da8f', 'hex')];

/** A message of which the connection's window has let through `sent` bytes, prefix included. */
interface Waiting {
  readonly stream: number;
  readonly payload: Buffer;
  sent: number;
}

/** What is known of the stream that a slot has open. */
interface SlotState {
  /** Pieces of a message whose end is still to come, and their bytes together. */
  rest: Buffer[];
  restBytes: number;
  /** Bytes that `rest` must reach before anything can be read: the prefix, then the whole message. */
  needed: number;
  received: number;
  /** Of a stream that is written to more than once, else null. */
  outgoing: Outgoing | null;
}

/** A bidirectional stream's way out: what it may still send, and the messages that wait for its window or for the connection's. */
interface Outgoing {
  readonly stream: number;
  window: number;
  readonly queue: Waiting[];
}

export class Http2Connection implements Transport {
  readonly #socket: Socket;
  readonly #listener: CallListener;
  readonly #authority: string;
  readonly #token: string;
  readonly #slotOf = new Map<number, number>();
  readonly #states: SlotState[] = [];
  readonly #indexed: string[] = [];
  readonly #blocks = new Map<string, Buffer>();
  readonly #waiting: Waiting[] = [];
  /** Streams with something in their queue. */
  readonly #stalled = new Set<Outgoing>();
  #initialWindow = DEFAULT_WINDOW;
  #out: Buffer = Buffer.allocUnsafe(OUT_BYTES);
  #outLength = 0;
  #leftover: Buffer | null = null;
  #nextStream = 1;
  #sendWindow = DEFAULT_WINDOW;
  #received = 0;
  #closed = false;

  private constructor(socket: Socket, authority: string, listener: CallListener, token: string) {
    this.#socket = socket;
    this.#authority = authority;
    this.#token = token;
    this.#listener = listener;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error) => this.#fail(error.message));
    socket.on('close', () => this.#fail('connection closed'));
    this.#write(Buffer.from(PREFACE, 'latin1'));
    this.#write(settingsFrame());
    this.#write(windowFrame(0, CONNECTION_WINDOW - DEFAULT_WINDOW));
    this.flush();
  }

  /** `token`: sent with each call, at most 100 characters; '' for none. */
  static connect(address: string, listener: CallListener, token = ''): Promise<Http2Connection> {
    const authority = address.slice(address.lastIndexOf('/') + 1);
    const at = authority.lastIndexOf(':');
    const where = { host: authority.slice(0, at), port: Number(authority.slice(at + 1)) };
    // What a certificate says is not measured: whose it is was chosen a moment ago.
    const socket = isTlsAddress(address)
      ? connectTls({ ...where, ALPNProtocols: ['h2'], rejectUnauthorized: false }).setNoDelay(true)
      : connect({ ...where, noDelay: true });
    return new Promise((resolve, reject) => {
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Http2Connection(socket, authority, listener, token));
      });
    });
  }

  call(slot: number, path: string, payload: Buffer, length: number): void {
    if (length > MESSAGE_MAX) throw new Error(`perf: requests of over ${MESSAGE_MAX} bytes need --client grpc-js`);
    const stream = this.#nextStream;
    this.#nextStream += 2;
    this.#slotOf.set(stream, slot);
    this.#states[slot] = newState(null);
    this.#writeHeaders(stream, path);
    const sent = this.#waiting.length > 0 ? 0 : this.#writeMessage(stream, payload.subarray(0, length), 0);
    if (sent < length + MESSAGE_PREFIX) {
      this.#waiting.push({ stream, payload: Buffer.from(payload.subarray(0, length)), sent });
    }
  }

  open(slot: number, path: string): void {
    const stream = this.#nextStream;
    this.#nextStream += 2;
    this.#slotOf.set(stream, slot);
    this.#states[slot] = newState({ stream, window: this.#initialWindow, queue: [] });
    this.#writeHeaders(stream, path);
  }

  send(slot: number, payload: Buffer, length: number): void {
    const outgoing = this.#outgoing(slot);
    const message = payload.subarray(0, length);
    const sent = outgoing.queue.length > 0 ? 0 : this.#writeMessage(outgoing.stream, message, 0, outgoing);
    if (sent === length + MESSAGE_PREFIX) return;
    outgoing.queue.push({ stream: outgoing.stream, payload: Buffer.from(message), sent });
    this.#stalled.add(outgoing);
  }

  backlog(slot: number): number {
    return this.#outgoing(slot).queue.length;
  }

  #outgoing(slot: number): Outgoing {
    const outgoing = this.#states[slot]?.outgoing;
    if (outgoing === undefined || outgoing === null) throw new Error(`perf: slot ${slot} has no stream to send on`);
    return outgoing;
  }

  #writeHeaders(stream: number, path: string): void {
    const block = this.#headerBlock(path);
    this.#room(FRAME_HEADER + block.length);
    this.#frameHeader(block.length, Frame.HEADERS, Flag.END_HEADERS, stream);
    this.#write(block);
  }

  /**
   * Writes the message from its byte `sent` on (its prefix included), as far as the windows allow; returns where it stopped. The last message
   * of a call ends its stream, those of `outgoing` never do.
   */
  #writeMessage(stream: number, payload: Buffer, sentBefore: number, outgoing: Outgoing | null = null): number {
    const total = payload.length + MESSAGE_PREFIX;
    let sent = sentBefore;
    for (;;) {
      const window = outgoing === null ? this.#sendWindow : Math.min(this.#sendWindow, outgoing.window);
      if (sent === total || window < Math.min(MESSAGE_PREFIX, total - sent)) break;
      const size = Math.min(DATA_MAX, total - sent, window);
      this.#room(FRAME_HEADER + size);
      const isLast = outgoing === null && sent + size === total;
      this.#frameHeader(size, Frame.DATA, isLast ? Flag.END_STREAM : 0, stream);
      if (sent === 0) {
        this.#out[this.#outLength] = 0;
        this.#out.writeUInt32BE(payload.length, this.#outLength + 1);
        this.#outLength += MESSAGE_PREFIX;
      }
      const from = Math.max(0, sent - MESSAGE_PREFIX);
      this.#outLength += payload.copy(this.#out, this.#outLength, from, sent + size - MESSAGE_PREFIX);
      this.#sendWindow -= size;
      if (outgoing !== null) outgoing.window -= size;
      sent += size;
    }
    return sent;
  }

  #frameHeader(length: number, type: number, flags: number, stream: number): void {
    const at = this.#outLength;
    this.#out.writeUIntBE(length, at, 3);
    this.#out[at + 3] = type;
    this.#out[at + 4] = flags;
    this.#out.writeUInt32BE(stream, at + 5);
    this.#outLength = at + FRAME_HEADER;
  }

  #write(bytes: Buffer): void {
    this.#room(bytes.length);
    this.#outLength += bytes.copy(this.#out, this.#outLength);
  }

  #room(bytes: number): void {
    if (this.#outLength + bytes > this.#out.length) this.flush();
  }

  /** Hands what was gathered to the socket. Also done by itself after each piece of input. */
  flush(): void {
    if (this.#outLength === 0 || this.#closed) return;
    // The socket keeps the buffer until the kernel has taken it, so the next requests go into another one.
    this.#socket.write(this.#out.subarray(0, this.#outLength));
    this.#out =
      this.#out.length - this.#outLength > DATA_MAX + 1_024
        ? this.#out.subarray(this.#outLength)
        : Buffer.allocUnsafe(OUT_BYTES);
    this.#outLength = 0;
  }

  /** Headers that repeat go into the server's dynamic table once and are one byte each from then on, as with any real client. */
  #headerBlock(path: string): Buffer {
    const cached = this.#blocks.get(path);
    if (cached !== undefined) return cached;
    const known = this.#indexed.length;
    const parts = [Buffer.from([0x83, 0x86])];
    const fields = [
      [`:path ${path}`, 0x44, path],
      [':authority', 0x41, this.#authority],
      ['te', 0x40, 'trailers'],
      ['content-type', 0x5f, 'application/grpc'],
      ...(this.#token === '' ? [] : [['authorization', 0x40, `Bearer ${this.#token}`] as const]),
    ] as const;
    for (const [key, prefix, value] of fields) {
      const position = this.#indexed.indexOf(key);
      if (position >= 0) {
        parts.push(Buffer.from([0x80 | (DYNAMIC_FIRST + this.#indexed.length - 1 - position)]));
        continue;
      }
      this.#indexed.push(key);
      const name = prefix === 0x40 ? [key.length, ...Buffer.from(key, 'latin1')] : [];
      parts.push(Buffer.from([prefix, ...name, value.length]), Buffer.from(value, 'latin1'));
    }
    const block = Buffer.concat(parts);
    // A block that added entries moves the indexes of all others; it is right for this one time only.
    if (this.#indexed.length > known) this.#blocks.clear();
    else this.#blocks.set(path, block);
    return block;
  }

  #read(chunk: Buffer): void {
    const input = this.#leftover === null ? chunk : Buffer.concat([this.#leftover, chunk]);
    let at = 0;
    while (input.length - at >= FRAME_HEADER) {
      const length = input.readUIntBE(at, 3);
      if (input.length - at < FRAME_HEADER + length) break;
      const stream = input.readUInt32BE(at + 5) & 0x7fffffff;
      const start = at + FRAME_HEADER;
      at = start + length;
      this.#frame(input[start - 6] as number, input[start - 5] as number, stream, input.subarray(start, at));
    }
    this.#leftover = at === input.length ? null : input.subarray(at);
    this.flush();
  }

  #frame(type: number, flags: number, stream: number, payload: Buffer): void {
    switch (type) {
      case Frame.DATA:
        this.#data(flags, stream, payload);
        return;
      case Frame.HEADERS:
        this.#headers(flags, stream, payload);
        return;
      case Frame.RST_STREAM:
        this.#end(stream, GRPC_UNAVAILABLE);
        return;
      case Frame.SETTINGS:
        if ((flags & Flag.ACK) !== 0) return;
        this.#settings(payload);
        this.#room(FRAME_HEADER);
        this.#frameHeader(0, Frame.SETTINGS, Flag.ACK, 0);
        return;
      case Frame.PING:
        if ((flags & Flag.ACK) !== 0) return;
        this.#room(FRAME_HEADER + payload.length);
        this.#frameHeader(payload.length, Frame.PING, Flag.ACK, 0);
        this.#write(payload);
        return;
      case Frame.GOAWAY:
        this.#fail(`server says GOAWAY ${payload.readUInt32BE(4)} ${payload.toString('latin1', 8)}`);
        return;
      case Frame.WINDOW_UPDATE:
        this.#widen(stream, payload.readUInt32BE(0));
        return;
      default:
        return;
    }
  }

  /** A changed initial window also moves that of every open stream (RFC 9113, section 6.9.2). */
  #settings(payload: Buffer): void {
    for (let at = 0; at + 6 <= payload.length; at += 6) {
      if (payload.readUInt16BE(at) !== Setting.INITIAL_WINDOW_SIZE) continue;
      const change = payload.readUInt32BE(at + 2) - this.#initialWindow;
      this.#initialWindow += change;
      for (const slot of this.#slotOf.values()) {
        const outgoing = this.#states[slot]?.outgoing;
        if (outgoing !== undefined && outgoing !== null) outgoing.window += change;
      }
    }
    this.#writeWaiting();
  }

  #widen(stream: number, bytes: number): void {
    if (stream === 0) {
      this.#sendWindow += bytes;
    } else {
      const slot = this.#slotOf.get(stream);
      const outgoing = slot === undefined ? null : this.#states[slot]?.outgoing;
      // Requests of calls fit the window that every stream begins with.
      if (outgoing === undefined || outgoing === null) return;
      outgoing.window += bytes;
    }
    this.#writeWaiting();
  }

  #writeWaiting(): void {
    this.#writeQueue(this.#waiting, null);
    for (const outgoing of this.#stalled) {
      if (this.#writeQueue(outgoing.queue, outgoing)) this.#stalled.delete(outgoing);
    }
  }

  /** False when a window stopped it. */
  #writeQueue(queue: Waiting[], outgoing: Outgoing | null): boolean {
    for (;;) {
      const next = queue[0];
      if (next === undefined) return true;
      next.sent = this.#writeMessage(next.stream, next.payload, next.sent, outgoing);
      if (next.sent < next.payload.length + MESSAGE_PREFIX) return false;
      queue.shift();
    }
  }

  #data(flags: number, stream: number, payload: Buffer): void {
    this.#received += payload.length;
    if (this.#received > CONNECTION_WINDOW / 2) {
      this.#write(windowFrame(0, this.#received));
      this.#received = 0;
    }
    const slot = this.#slotOf.get(stream);
    if (slot === undefined) return;
    if ((flags & Flag.PADDED) !== 0) throw new Error('perf: padded DATA frames are not handled');
    const state = this.#states[slot] as SlotState;
    state.received += payload.length;
    if (state.received > STREAM_WINDOW / 2) {
      this.#write(windowFrame(stream, state.received));
      state.received = 0;
    }
    if (state.restBytes + payload.length < state.needed) {
      state.rest.push(payload);
      state.restBytes += payload.length;
      return;
    }
    const input = state.restBytes === 0 ? payload : Buffer.concat([...state.rest, payload]);
    let at = 0;
    state.needed = MESSAGE_PREFIX;
    while (input.length - at >= MESSAGE_PREFIX) {
      const end = at + MESSAGE_PREFIX + input.readUInt32BE(at + 1);
      if (end > input.length) {
        state.needed = end - at;
        break;
      }
      this.#listener.onMessage(slot, input, at + MESSAGE_PREFIX, end);
      at = end;
    }
    state.rest = at === input.length ? [] : [input.subarray(at)];
    state.restBytes = input.length - at;
  }

  #headers(flags: number, stream: number, block: Buffer): void {
    if ((flags & Flag.END_HEADERS) === 0) throw new Error('perf: CONTINUATION frames are not handled');
    if ((flags & Flag.END_STREAM) !== 0) {
      this.#end(stream, readStatus(block));
      return;
    }
    const slot = this.#slotOf.get(stream);
    if (slot !== undefined) this.#listener.onHeaders(slot);
  }

  #end(stream: number, status: number): void {
    const slot = this.#slotOf.get(stream);
    if (slot === undefined) return;
    this.#slotOf.delete(stream);
    this.#listener.onEnd(slot, status);
  }

  #fail(why: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#socket.destroy();
    this.#listener.onLost(why);
  }

  close(): void {
    this.#closed = true;
    this.#socket.destroy();
  }
}

function newState(outgoing: Outgoing | null): SlotState {
  return { rest: [], restBytes: 0, needed: MESSAGE_PREFIX, received: 0, outgoing };
}

/** Number of the gRPC status in a header block that was written without dynamic table. */
function readStatus(block: Buffer): number {
  for (const name of STATUS_NAMES) {
    const at = block.indexOf(name);
    if (at < 0) continue;
    const length = block[at + name.length] as number;
    // Both digits of a status cost as much in Huffman code as without, and then it is not used.
    if (length <= 2) return Number(block.toString('latin1', at + name.length + 1, at + name.length + 1 + length));
  }
  throw new Error(`perf: no grpc-status in ${block.toString('hex')}`);
}

function settingsFrame(): Buffer {
  const values = [
    [Setting.HEADER_TABLE_SIZE, 0],
    [Setting.ENABLE_PUSH, 0],
    [Setting.INITIAL_WINDOW_SIZE, STREAM_WINDOW],
  ] as const;
  const frame = Buffer.alloc(FRAME_HEADER + values.length * 6);
  frame.writeUIntBE(values.length * 6, 0, 3);
  frame[3] = Frame.SETTINGS;
  values.forEach(([id, value], index) => {
    frame.writeUInt16BE(id, FRAME_HEADER + index * 6);
    frame.writeUInt32BE(value, FRAME_HEADER + index * 6 + 2);
  });
  return frame;
}

function windowFrame(stream: number, bytes: number): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER + 4);
  frame.writeUIntBE(4, 0, 3);
  frame[3] = Frame.WINDOW_UPDATE;
  frame.writeUInt32BE(stream, 5);
  frame.writeUInt32BE(bytes, FRAME_HEADER);
  return frame;
}
