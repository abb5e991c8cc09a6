/** The messages of the public service, as far as the commands use them. Field numbers are those of proto/broker.proto. */
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import type { PublishInput } from './connection.ts';
import type { Message } from './message.ts';
import type { Start } from './parse.ts';

export function encodePublish(input: PublishInput): Uint8Array {
  const writer = new BinaryWriter()
    .uint32(tag(1, LENGTH))
    .string(input.subject)
    .uint32(tag(2, LENGTH))
    .bytes(input.body);
  if (input.expirationSeconds !== 0) writer.uint32(tag(3, VARINT)).int32(input.expirationSeconds);
  for (const { key, value } of input.headers) {
    const header = new BinaryWriter().uint32(tag(1, LENGTH)).string(key).uint32(tag(2, LENGTH)).bytes(value).finish();
    writer.uint32(tag(4, LENGTH)).bytes(header);
  }
  if (input.producer !== null) {
    writer.uint32(tag(5, LENGTH)).string(input.producer.id).uint32(tag(6, VARINT)).int64(input.producer.sequence);
  }
  return writer.finish();
}

export function encodeFetch(request: { readonly subject: string; readonly id: number }): Uint8Array {
  return new BinaryWriter()
    .uint32(tag(1, LENGTH))
    .string(request.subject)
    .uint32(tag(2, VARINT))
    .int64(request.id)
    .finish();
}

export function encodeSubscribe(request: { readonly subject: string; readonly start: Start }): Uint8Array {
  const writer = new BinaryWriter().uint32(tag(1, LENGTH)).string(request.subject);
  const { start } = request;
  switch (start.kind) {
    case 'new':
      return writer.uint32(tag(2, VARINT)).bool(true).finish();
    case 'earliest':
      return writer.uint32(tag(3, VARINT)).bool(true).finish();
    case 'id':
      return writer.uint32(tag(4, VARINT)).int64(start.id).finish();
    case 'time':
      return writer.uint32(tag(5, VARINT)).int64(start.ms).finish();
  }
}

/** PublishResponse.id */
export function decodePublished(bytes: Uint8Array): number {
  const reader = new BinaryReader(bytes);
  let id = 0;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1 && wireType === VARINT) id = Number(reader.int64());
    else reader.skip(wireType);
  }
  return id;
}

export function decodeMessage(bytes: Uint8Array): Message {
  const reader = new BinaryReader(bytes);
  const message = { id: 0, subject: '', publishedAt: 0, headers: [] as Message['headers'][number][], body: EMPTY };
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1 && wireType === LENGTH) message.body = reader.bytes();
    else if (field === 2 && wireType === VARINT) message.id = Number(reader.int64());
    else if (field === 3 && wireType === LENGTH) message.subject = reader.string();
    else if (field === 4 && wireType === VARINT) message.publishedAt = Number(reader.int64());
    else if (field === 5 && wireType === LENGTH) message.headers.push(decodeHeader(reader.bytes()));
    else reader.skip(wireType);
  }
  return message;
}

function decodeHeader(bytes: Uint8Array): Message['headers'][number] {
  const reader = new BinaryReader(bytes);
  const header = { key: '', value: EMPTY };
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1 && wireType === LENGTH) header.key = reader.string();
    else if (field === 2 && wireType === LENGTH) header.value = reader.bytes();
    else reader.skip(wireType);
  }
  return header;
}

const VARINT = 0;
const LENGTH = 2;
const EMPTY: Uint8Array = new Uint8Array(0);

function tag(field: number, wireType: number): number {
  return field * 8 + wireType;
}
