/**
 * The few protobuf messages of the public service, written and read by hand, so that tests and load generators share no code with the
 * broker. Field numbers are those of proto/broker.proto.
 */

export interface Header {
  readonly key: string;
  readonly value: Uint8Array;
}

export interface PublishFields {
  readonly subject: string | Uint8Array;
  readonly body: Uint8Array;
  readonly expirationSeconds?: number;
  readonly headers?: readonly Header[];
  readonly producerId?: string;
  readonly sequence?: number | bigint;
}

/** Where a subscription begins; times are ms since 1970. */
export type Start =
  | { readonly at: 'default' | 'new' | 'earliest' }
  | { readonly at: 'id'; readonly id: number | bigint }
  | { readonly at: 'time'; readonly ms: number };

export interface Message {
  readonly id: number;
  readonly subject: string;
  readonly body: Buffer;
  /** ms since 1970 */
  readonly publishedAt: number;
  readonly headers: readonly Header[];
}

export interface ErrorDetails {
  readonly reason: string | null;
  readonly domain: string | null;
  readonly metadata: Readonly<Record<string, string>>;
  readonly retryAfterMs: number | null;
}

export class Writer {
  readonly #parts: Uint8Array[] = [];

  varint(field: number, value: number | bigint): this {
    this.#parts.push(varintBytes((BigInt(field) << 3n) | 0n), varintBytes(BigInt.asUintN(64, BigInt(value))));
    return this;
  }

  bytes(field: number, value: Uint8Array | string): this {
    const bytes = typeof value === 'string' ? Buffer.from(value, 'utf8') : value;
    this.#parts.push(varintBytes((BigInt(field) << 3n) | 2n), varintBytes(BigInt(bytes.length)), bytes);
    return this;
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

function varintBytes(value: bigint): Uint8Array {
  const out: number[] = [];
  let rest = value;
  while (rest >= 0x80n) {
    out.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  out.push(Number(rest));
  return Uint8Array.from(out);
}

/** One field of a message: `number` for varints (exact to 2^53; larger ones lose precision, which no valid answer has), else bytes. */
export interface Field {
  readonly number: number;
  readonly value: number;
  readonly bytes: Buffer;
}

const NO_BYTES: Buffer = Buffer.alloc(0);

/** All fields in order. Throws RangeError when the bytes are not a protobuf message. */
export function readFields(message: Buffer): Field[] {
  const fields: Field[] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = message[at++];
      if (byte === undefined) throw new RangeError('truncated protobuf message');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.length) {
    const tag = varint();
    const wireType = tag & 7;
    const number = Math.floor(tag / 8);
    if (wireType === 0) {
      fields.push({ number, value: varint(), bytes: NO_BYTES });
    } else if (wireType === 2) {
      const length = varint();
      if (at + length > message.length) throw new RangeError('truncated protobuf message');
      fields.push({ number, value: 0, bytes: message.subarray(at, at + length) });
      at += length;
    } else {
      throw new RangeError(`protobuf wire type ${wireType} is in none of our messages`);
    }
  }
  return fields;
}

export function encodePublish(fields: PublishFields): Buffer {
  const writer = new Writer().bytes(1, fields.subject).bytes(2, fields.body);
  if (fields.expirationSeconds !== undefined) writer.varint(3, fields.expirationSeconds);
  for (const header of fields.headers ?? []) {
    writer.bytes(4, new Writer().bytes(1, header.key).bytes(2, header.value).finish());
  }
  if (fields.producerId !== undefined) writer.bytes(5, fields.producerId);
  if (fields.sequence !== undefined) writer.varint(6, fields.sequence);
  return writer.finish();
}

export function encodeFetch(subject: string | Uint8Array, id: number | bigint): Buffer {
  return new Writer().bytes(1, subject).varint(2, id).finish();
}

export function encodeSubscribe(subject: string | Uint8Array, start: Start): Buffer {
  const writer = new Writer().bytes(1, subject);
  if (start.at === 'new') writer.varint(2, 1);
  if (start.at === 'earliest') writer.varint(3, 1);
  if (start.at === 'id') writer.varint(4, start.id);
  if (start.at === 'time') writer.varint(5, start.ms);
  return writer.finish();
}

export function encodeIncIdx(subject: string | Uint8Array): Buffer {
  return new Writer().bytes(1, subject).finish();
}

/** Field 1 of PublishResponse, IncIdxResponse and BroadcastResponse; 0 if absent. */
export function decodeNumber(message: Buffer): number {
  let value = 0;
  for (const field of readFields(message)) {
    if (field.number === 1) value = field.value;
  }
  return value;
}

export function decodeMessage(message: Buffer): Message {
  let body = NO_BYTES;
  let id = 0;
  let subject = '';
  let publishedAt = 0;
  const headers: Header[] = [];
  for (const field of readFields(message)) {
    if (field.number === 1) body = field.bytes;
    else if (field.number === 2) id = field.value;
    else if (field.number === 3) subject = field.bytes.toString('utf8');
    else if (field.number === 4) publishedAt = field.value;
    else if (field.number === 5) headers.push(decodeHeader(field.bytes));
  }
  return { id, subject, body, publishedAt, headers };
}

function decodeHeader(bytes: Buffer): Header {
  let key = '';
  let value = NO_BYTES;
  for (const field of readFields(bytes)) {
    if (field.number === 1) key = field.bytes.toString('utf8');
    else if (field.number === 2) value = field.bytes;
  }
  return { key, value };
}

/** Reads `grpc-status-details-bin`: a google.rpc.Status with ErrorInfo and RetryInfo among its details. */
export function decodeErrorDetails(status: Buffer): ErrorDetails {
  let reason: string | null = null;
  let domain: string | null = null;
  let retryAfterMs: number | null = null;
  const metadata: Record<string, string> = {};
  for (const field of readFields(status)) {
    if (field.number !== 3) continue;
    const any = readFields(field.bytes);
    const type = any.find((part) => part.number === 1)?.bytes.toString('utf8') ?? '';
    const value = any.find((part) => part.number === 2)?.bytes ?? NO_BYTES;
    if (type.endsWith('/google.rpc.ErrorInfo')) {
      for (const part of readFields(value)) {
        if (part.number === 1) reason = part.bytes.toString('utf8');
        else if (part.number === 2) domain = part.bytes.toString('utf8');
        else if (part.number === 3) {
          const pair = decodeHeader(part.bytes);
          metadata[pair.key] = Buffer.from(pair.value).toString('utf8');
        }
      }
    } else if (type.endsWith('/google.rpc.RetryInfo')) {
      const delay = readFields(value).find((part) => part.number === 1)?.bytes ?? NO_BYTES;
      retryAfterMs = 0;
      for (const part of readFields(delay)) retryAfterMs += part.number === 1 ? part.value * 1_000 : part.value / 1e6;
    }
  }
  return { reason, domain, metadata, retryAfterMs };
}
