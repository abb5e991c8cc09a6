import { assert } from '../base/assert.ts';
import { crc32 } from '../base/checksum.ts';
import { WireError } from './wire-error.ts';

/**
 *   0         4         8
 *   +---------+---------+------------------+
 *   | length  | CRC-32  | body             |
 *   +---------+---------+------------------+
 *
 * u32 little endian; length and checksum are of the body.
 */
export const FRAME_HEADER_BYTES = 8;
const CHECKSUM_OFFSET = 4;

/** An append is at most a megabyte, or one entry: 16 MiB of commands and what stands round them. */
export const BODY_BYTES_MAX = 16 * 1024 * 1024 + 64 * 1024;

const GATHER_BYTES_MIN = 64 * 1024;

/** Fills in the header of a frame whose body stands behind it already. */
export function sealFrame(frame: Buffer): Buffer {
  const length = frame.length - FRAME_HEADER_BYTES;
  assert(length > 0 && length <= BODY_BYTES_MAX, () => `a frame of ${length} bytes`);
  writeHeader(frame, length, crc32(frame.subarray(FRAME_HEADER_BYTES)));
  return frame;
}

export function writeHeader(frame: Buffer, length: number, checksum: number): void {
  frame.writeUInt32LE(length, 0);
  frame.writeUInt32LE(checksum, CHECKSUM_OFFSET);
}

/** The length of the body whose header starts at `offset`. Throws WireError if it is 0 or beyond `bytesMax`. */
export function bodyLength(bytes: Buffer, offset: number, bytesMax: number): number {
  const length = bytes.readUInt32LE(offset);
  if (length > bytesMax) throw new WireError('TOO_LONG', `a frame of ${length} bytes: at most ${bytesMax} may come`);
  if (length === 0) throw new WireError('MALFORMED', 'an empty frame');
  return length;
}

/** The body of a whole frame: a view. Throws WireError for a wrong checksum. */
export function bodyOf(frame: Buffer): Buffer {
  const body = frame.subarray(FRAME_HEADER_BYTES);
  if (crc32(body) !== frame.readUInt32LE(CHECKSUM_OFFSET)) {
    throw new WireError('CHECKSUM', 'the checksum of a frame is wrong');
  }
  return body;
}

/**
 * Cuts a stream of bytes into frames. Memory is given to a frame as its bytes come, not as its header asks for: at most twice of what came, in whatever pieces.
 * Bodies are views of memory that is never written again: of the chunk, or of a buffer made for this frame.
 */
export class FrameReader {
  readonly #bytesMax: number;
  /** A frame of which a part has come. */
  #gathered: Buffer = Buffer.alloc(0);
  #filled = 0;

  constructor(bytesMax = BODY_BYTES_MAX) {
    this.#bytesMax = bytesMax;
  }

  /** Calls `onBody` for each frame that is whole now. The chunk belongs to the reader. Throws WireError; nothing may be pushed after that. */
  push(chunk: Buffer, onBody: (body: Buffer) => void): void {
    let at = 0;
    while (at < chunk.length) {
      const left = chunk.length - at;
      if (this.#filled === 0 && left >= FRAME_HEADER_BYTES) {
        const end = at + FRAME_HEADER_BYTES + bodyLength(chunk, at, this.#bytesMax);
        if (end <= chunk.length) {
          onBody(bodyOf(chunk.subarray(at, end)));
          at = end;
          continue;
        }
      }
      at += this.#gather(chunk, at);
      this.#maybeEmit(onBody);
    }
  }

  /** Bytes that the frame under way needs, as far as they are known. */
  #needed(): number {
    if (this.#filled < FRAME_HEADER_BYTES) return FRAME_HEADER_BYTES;
    return FRAME_HEADER_BYTES + bodyLength(this.#gathered, 0, this.#bytesMax);
  }

  #gather(chunk: Buffer, at: number): number {
    const needed = this.#needed();
    const count = Math.min(needed - this.#filled, chunk.length - at);
    const filled = this.#filled + count;
    if (filled > this.#gathered.length) {
      const grown = Buffer.allocUnsafeSlow(Math.min(needed, Math.max(filled, 2 * this.#filled, GATHER_BYTES_MIN)));
      this.#gathered.copy(grown, 0, 0, this.#filled);
      this.#gathered = grown;
    }
    chunk.copy(this.#gathered, this.#filled, at, at + count);
    this.#filled = filled;
    return count;
  }

  #maybeEmit(onBody: (body: Buffer) => void): void {
    // The header may just have become whole, and with it the length.
    if (this.#filled <= FRAME_HEADER_BYTES || this.#filled < this.#needed()) return;
    const frame = this.#gathered.subarray(0, this.#filled);
    this.#gathered = Buffer.alloc(0);
    this.#filled = 0;
    onBody(bodyOf(frame));
  }
}
