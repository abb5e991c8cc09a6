/** The unary messages of the public service (proto/broker.proto), written and read by hand on raw bytes. */
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { FieldCursor, type Header, type Message, readHeaders } from './message.ts';

/** Where a subscription begins. */
export type Start =
  | 'new'
  | 'earliest'
  /** Inclusive. */
  | { readonly id: number }
  /** Milliseconds since 1970, or a Date: the first message published then or later. */
  | { readonly time: number | Date };

export interface PublishFields {
  readonly subject: string;
  readonly body: Uint8Array;
  readonly headers: readonly Header[];
  readonly expirationSeconds: number;
  readonly producer: { readonly id: string; readonly sequence: number } | null;
}

const VARINT = 0;
const LENGTH = 2;

function tag(field: number, wireType: number): number {
  return field * 8 + wireType;
}

export function encodePublish(fields: PublishFields): Buffer {
  const writer = new BinaryWriter()
    .uint32(tag(1, LENGTH))
    .string(fields.subject)
    .uint32(tag(2, LENGTH))
    .bytes(fields.body);
  if (fields.expirationSeconds !== 0) writer.uint32(tag(3, VARINT)).int32(fields.expirationSeconds);
  for (const { key, value } of fields.headers) {
    writer.uint32(tag(4, LENGTH)).fork().uint32(tag(1, LENGTH)).string(key).uint32(tag(2, LENGTH)).bytes(value).join();
  }
  if (fields.producer !== null) {
    writer.uint32(tag(5, LENGTH)).string(fields.producer.id).uint32(tag(6, VARINT)).int64(fields.producer.sequence);
  }
  return finish(writer);
}

export function encodeFetch(subject: string, id: number): Buffer {
  return finish(new BinaryWriter().uint32(tag(1, LENGTH)).string(subject).uint32(tag(2, VARINT)).int64(id));
}

export function encodeIncrementId(subject: string): Buffer {
  return finish(new BinaryWriter().uint32(tag(1, LENGTH)).string(subject));
}

/** HealthCheckRequest of grpc.health.v1; '' asks for the whole server. */
export function encodeHealthCheck(service: string): Buffer {
  return finish(new BinaryWriter().uint32(tag(1, LENGTH)).string(service));
}

/** SubscribeRequest, and SubjectStart, whose fields have the same numbers. */
export function encodeSubscribe(subject: string, start: Start): Buffer {
  const writer = new BinaryWriter().uint32(tag(1, LENGTH)).string(subject);
  if (start === 'new') writer.uint32(tag(2, VARINT)).bool(true);
  else if (start === 'earliest') writer.uint32(tag(3, VARINT)).bool(true);
  else if ('id' in start) writer.uint32(tag(4, VARINT)).int64(start.id);
  else writer.uint32(tag(5, VARINT)).int64(Number(start.time));
  return finish(writer);
}

function finish(writer: BinaryWriter): Buffer {
  const bytes = writer.finish();
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Field 1 of PublishResponse, IncIdxResponse and BroadcastResponse; 0 if it is not there. */
export function decodeNumber(bytes: Buffer): number {
  const fields = new FieldCursor(bytes);
  let value = 0;
  while (fields.next()) if (fields.tag === tag(1, VARINT)) value = fields.value;
  return value;
}

/** A MessageResponse; the body is a view of `bytes`. */
export function decodeMessage(bytes: Buffer): Message {
  const fields = new FieldCursor(bytes);
  const found = { id: 0, subject: '', publishedAt: 0, body: EMPTY, expirationSeconds: 0 };
  let hasHeaders = false;
  while (fields.next()) {
    if (fields.tag === tag(1, LENGTH)) found.body = bytes.subarray(fields.start, fields.end);
    else if (fields.tag === tag(2, VARINT)) found.id = fields.value;
    else if (fields.tag === tag(3, LENGTH)) found.subject = bytes.toString('utf8', fields.start, fields.end);
    else if (fields.tag === tag(4, VARINT)) found.publishedAt = fields.value;
    else if (fields.tag === tag(5, LENGTH)) hasHeaders = true;
    else if (fields.tag === tag(6, VARINT)) found.expirationSeconds = fields.value;
  }
  const headers = hasHeaders ? readHeaders(bytes, 0, bytes.length) : [];
  return {
    ...found,
    headers,
    get text() {
      return this.body.toString();
    },
  };
}

const EMPTY: Buffer = Buffer.alloc(0);
