/** Batches with arbitrary messages, for the tests of the format and of the stores. */
import fc from 'fast-check';
import { subjectHash } from '../../src/base/subject.ts';
import { BatchBuilder, sealVoidMark, stampBatch } from '../../src/batch/batch-builder.ts';
import type { SealedBatch, SubjectRef } from '../../src/storage/store.ts';

export interface Header {
  readonly key: string;
  readonly value: Uint8Array;
}

export interface Message {
  readonly body: Uint8Array;
  readonly headers: readonly Header[];
  readonly expirationSeconds: number;
}

export function subjectRef(name: string): SubjectRef {
  // As the broker has it: no Buffer.
  const bytes = Uint8Array.from(Buffer.from(name));
  return { bytes, hash: subjectHash(bytes, 0, bytes.length) };
}

/** The content of a Header message, as a client's library encodes it. */
function encodeHeader({ key, value }: Header): Buffer {
  const name = Buffer.from(key);
  const parts: Buffer[] = [];
  if (name.length > 0) parts.push(Buffer.from([0x0a, ...lengthBytes(name.length)]), name);
  if (value.length > 0) parts.push(Buffer.from([0x12, ...lengthBytes(value.length)]), Buffer.from(value));
  return Buffer.concat(parts);
}

function lengthBytes(length: number): number[] {
  return length < 0x80 ? [length] : [(length & 0x7f) | 0x80, ...lengthBytes(length >>> 7)];
}

/** Puts a message somewhere into a larger buffer, as it lies in a request, and appends it from there. */
export function appendMessage(builder: BatchBuilder, message: Message): void {
  const headers = message.headers.map(encodeHeader);
  const source = Buffer.concat([Buffer.from('before'), message.body, ...headers, Buffer.from('behind')]);
  const ranges = new Uint32Array(headers.length * 2);
  const bodyEnd = 6 + message.body.length;
  let at = bodyEnd;
  headers.forEach((header, i) => {
    ranges[i * 2] = at;
    ranges[i * 2 + 1] = at + header.length;
    at += header.length;
  });
  builder.appendRecord(source, 6, bodyEnd, ranges, headers.length, message.expirationSeconds);
}

export function plain(text: string, expirationSeconds = 0): Message {
  return { body: Buffer.from(text), headers: [], expirationSeconds };
}

export interface BatchOptions {
  readonly base?: number;
  readonly publishedAt?: number;
}

/** A stamped batch with memory of its own. */
export function dataBatch(subject: SubjectRef, messages: readonly Message[], options: BatchOptions = {}): SealedBatch {
  const { base = 1, publishedAt = 1_700_000_000_000 } = options;
  const builder = new BatchBuilder();
  builder.reset(subject.bytes, 0, subject.bytes.length, subject.hash);
  for (const message of messages) appendMessage(builder, message);
  const bytes = Buffer.from(builder.seal());
  stampBatch(bytes, base, publishedAt);
  const { count, expiresMax } = builder;
  return { subject, bytes, base, count, publishedAt, expiresMax, kind: 'data' };
}

export function voidBatch(
  subject: SubjectRef,
  base: number,
  count: number,
  publishedAt = 1_700_000_000_000,
  expiresMax = 0,
): SealedBatch {
  const bytes = sealVoidMark(subject.bytes, subject.hash, base, count, publishedAt);
  return { subject, bytes, base, count, publishedAt, expiresMax, kind: 'void' };
}

export const arbitraryMessage: fc.Arbitrary<Message> = fc.record({
  body: fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.uint8Array({ minLength: 100, maxLength: 300 }),
    fc.constant(new Uint8Array(20_000).fill(7)),
  ),
  headers: fc.array(
    fc.record({ key: fc.string({ minLength: 1, maxLength: 12 }), value: fc.uint8Array({ maxLength: 200 }) }),
    {
      maxLength: 3,
    },
  ),
  expirationSeconds: fc.oneof(
    fc.constant(0),
    fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    fc.integer({ min: 1, max: 200 }),
  ),
});

export const arbitraryMessages = fc.array(arbitraryMessage, { minLength: 1, maxLength: 8 });

/** Ids up to the last one that exists. */
export const arbitraryBase = fc.oneof(
  fc.integer({ min: 1, max: 1000 }),
  fc.integer({ min: 2 ** 31 - 4, max: 2 ** 32 + 4 }),
  fc.integer({ min: Number.MAX_SAFE_INTEGER - 1000, max: Number.MAX_SAFE_INTEGER - 8 }),
);
