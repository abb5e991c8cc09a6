import { assert } from '../base/assert.ts';
import { SAFE_UINT_MAX, tryReadSafeUint, writeSafeUint } from '../base/bytes.ts';
import { crc32 } from '../base/checksum.ts';
import type { Message } from '../raft/messages.ts';
import { FRAME_HEADER_BYTES, sealFrame, writeHeader } from './framing.ts';
import type { FrameCodec } from './raft-frames.ts';
import { WireError } from './wire-error.ts';

/**
 * Bodies on a connection for a snapshot, in this order. Append-only.
 *
 *   HEADER  0 u8 kind · 1 body of a RAFT frame with Raft's message
 *   CHUNK   0 u8 kind · 1 u64 offset of its first byte in the snapshot · 9 bytes, at least one
 *   END     0 u8 kind · 1 u64 bytes of the whole snapshot · 9 u32 CRC-32 of it
 */
const Kind = { HEADER: 1, CHUNK: 2, END: 3 } as const;
const KIND_BYTES = 1;
const CHUNK_HEADER_BYTES = 9;
const END_CHECKSUM_OFFSET = 9;
const END_BYTES = 13;

export type SnapshotFrame =
  | { readonly kind: 'header'; readonly message: Message }
  | { readonly kind: 'chunk'; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'end'; readonly length: number; readonly checksum: number };

export function headerFrame(codec: FrameCodec, message: Message): Buffer {
  const inner = codec.encode({ kind: 'raft', message });
  const frame = Buffer.allocUnsafe(inner.length + KIND_BYTES);
  frame.writeUInt8(Kind.HEADER, FRAME_HEADER_BYTES);
  inner.copy(frame, FRAME_HEADER_BYTES + KIND_BYTES, FRAME_HEADER_BYTES);
  return sealFrame(frame);
}

/** All of a CHUNK frame but the bytes of the chunk, which follow it: they are not copied. */
export function chunkHead(offset: number, chunk: Uint8Array): Buffer {
  assert(chunk.length > 0, 'an empty chunk');
  const head = Buffer.alloc(FRAME_HEADER_BYTES + CHUNK_HEADER_BYTES);
  head.writeUInt8(Kind.CHUNK, FRAME_HEADER_BYTES);
  writeSafeUint(viewOf(head), FRAME_HEADER_BYTES + KIND_BYTES, offset);
  const checksum = crc32(chunk, crc32(head.subarray(FRAME_HEADER_BYTES)));
  writeHeader(head, CHUNK_HEADER_BYTES + chunk.length, checksum);
  return head;
}

export function endFrame(length: number, checksum: number): Buffer {
  const frame = Buffer.alloc(FRAME_HEADER_BYTES + END_BYTES);
  frame.writeUInt8(Kind.END, FRAME_HEADER_BYTES);
  writeSafeUint(viewOf(frame), FRAME_HEADER_BYTES + KIND_BYTES, length);
  frame.writeUInt32LE(checksum, FRAME_HEADER_BYTES + END_CHECKSUM_OFFSET);
  return sealFrame(frame);
}

/** The bytes of a chunk are a view of `body`. Throws WireError. */
export function decodeSnapshotFrame(codec: FrameCodec, body: Buffer): SnapshotFrame {
  switch (body[0]) {
    case Kind.HEADER: {
      const frame = codec.decode(body.subarray(KIND_BYTES));
      if (frame.kind !== 'raft' || frame.message.type !== 'snapshot' || frame.message.snapshot === null) {
        throw new WireError('MALFORMED', 'a snapshot begins with no snapshot message');
      }
      return { kind: 'header', message: frame.message };
    }
    case Kind.CHUNK:
      if (body.length <= CHUNK_HEADER_BYTES) throw new WireError('MALFORMED', 'an empty chunk');
      return { kind: 'chunk', offset: uintOf(body), bytes: body.subarray(CHUNK_HEADER_BYTES) };
    case Kind.END:
      if (body.length !== END_BYTES) throw new WireError('MALFORMED', 'an end of a wrong length');
      return { kind: 'end', length: uintOf(body), checksum: body.readUInt32LE(END_CHECKSUM_OFFSET) };
    default:
      throw new WireError('MALFORMED', 'an unknown part of a snapshot');
  }
}

function uintOf(body: Buffer): number {
  const value = tryReadSafeUint(viewOf(body), KIND_BYTES);
  if (value < 0) throw new WireError('MALFORMED', `a number beyond ${SAFE_UINT_MAX}`);
  return value;
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
