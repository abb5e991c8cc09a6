import { assert } from '../../base/assert.ts';
import type { SnapshotReader } from '../../storage/raft-wal/snapshot-file.ts';
import type { SnapshotWriter } from '../../storage/raft-wal/types.ts';

/*
 * A snapshot between two members is a run of pieces, each u32 LE length and its bytes: first the metadata, then the chunks of the state as they lie in the
 * file. The network may cut it elsewhere, and checks the bytes on their way.
 */
const LENGTH_BYTES = 4;
/** The largest chunk of a snapshot's file. */
const PIECE_BYTES_MAX = 16 * 1024 * 1024;

/** The pieces of a snapshot file. It is read as they are taken; the caller closes the reader, also if it takes none. */
export function* snapshotPieces(reader: Pick<SnapshotReader, 'head' | 'nextChunk'>): Generator<Uint8Array> {
  yield withLength(reader.head.meta);
  for (let chunk = reader.nextChunk(); chunk !== null; chunk = reader.nextChunk()) yield withLength(chunk);
}

function withLength(bytes: Uint8Array): Uint8Array {
  const piece = Buffer.allocUnsafe(LENGTH_BYTES + bytes.length);
  piece.writeUInt32LE(bytes.length, 0);
  piece.set(bytes, LENGTH_BYTES);
  return piece;
}

/** Puts the pieces of an incoming snapshot together again, and into a file that is not published yet. */
export class SnapshotIntake {
  readonly #begin: (meta: Uint8Array) => SnapshotWriter;
  #file: SnapshotWriter | null = null;
  #waiting: Buffer = Buffer.alloc(0);

  /** `begin` makes the file, once the metadata are there. */
  constructor(begin: (meta: Uint8Array) => SnapshotWriter) {
    this.#begin = begin;
  }

  /** Throws if it is no snapshot, or the disk takes no more. */
  write(bytes: Uint8Array): void {
    let rest = this.#waiting.length === 0 ? asBuffer(bytes) : Buffer.concat([this.#waiting, bytes]);
    while (rest.length >= LENGTH_BYTES) {
      const length = rest.readUInt32LE(0);
      assert(length <= PIECE_BYTES_MAX, () => `a piece of a snapshot has ${length} bytes`);
      const end = LENGTH_BYTES + length;
      if (rest.length < end) break;
      this.#piece(rest.subarray(LENGTH_BYTES, end));
      rest = rest.subarray(end);
    }
    this.#waiting = Buffer.from(rest);
  }

  /** All of it was written; the file is whole, and not published. */
  end(): SnapshotWriter {
    assert(this.#file !== null && this.#waiting.length === 0, 'a snapshot ends in the middle of a piece');
    return this.#file;
  }

  abort(): void {
    this.#file?.abort();
    this.#file = null;
  }

  #piece(bytes: Uint8Array): void {
    if (this.#file === null) this.#file = this.#begin(Uint8Array.from(bytes));
    else this.#file.write(bytes);
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
