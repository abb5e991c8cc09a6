import { assert } from '../../base/assert.ts';
import { tryReadSafeUint, writeSafeUint } from '../../base/bytes.ts';
import { crc32 } from '../../base/checksum.ts';
import type { Disk, DiskFile } from '../disk.ts';
import type { SnapshotHead } from './types.ts';

/**
 * Format of a snapshot file, version 1; little endian; DATA/raft/snap-<index, 16 digits>-<term, 16 digits>.snap
 *
 *   header    0 magic "BRKRSNAP"   8 u32 version   12 u32 meta length   16 u64 index   24 u64 term   32 u32 epoch (random)
 *            36 u32 CRC of bytes 0..35 and the meta   40 meta
 *   chunk     0 u32 length, 1 to 16 MiB   4 u32 number from 0   8 u32 CRC of bytes 0..7 and the content, seeded with the CRC before
 *            12 content
 *   trailer   0 u32 zero   4 u32 chunks   8 u64 bytes in chunks   16 u32 CRC of bytes 0..15, seeded with the CRC before; then the file ends
 */
const MAGIC = 'BRKRSNAP';
const VERSION = 1;
const HEADER_BYTES = 40;
const CHUNK_HEADER_BYTES = 12;
const TRAILER_BYTES = 20;
const CHUNK_BYTES_MAX = 16 * 1024 * 1024;
const META_BYTES_MAX = 1024 * 1024;

export const SNAPSHOT_TEMPORARY_NAME = 'snap.tmp';
const NAME = /^snap-(\d{16})-(\d{16})\.snap$/;

export function snapshotName(index: number, term: number): string {
  return `snap-${String(index).padStart(16, '0')}-${String(term).padStart(16, '0')}.snap`;
}

export function isSnapshotName(name: string): boolean {
  return NAME.test(name);
}

/** The file cannot be used. Whether that is fatal depends on what else there is: recovery.ts. */
export class SnapshotDamaged extends Error {
  override name = 'SnapshotDamaged';

  constructor(path: string, detail: string) {
    super(`${path}: ${detail}`);
  }
}

/** Writes the format; knows nothing of pointers and names. A failed write changes nothing and may be repeated. */
export class SnapshotFileWriter {
  readonly #file: DiskFile;
  readonly #chunkHeader = Buffer.alloc(CHUNK_HEADER_BYTES);
  #position = 0;
  #chunks = 0;
  #contentBytes = 0;
  #crc = 0;

  constructor(file: DiskFile, head: SnapshotHead, epoch: number) {
    assert(head.meta.length <= META_BYTES_MAX, 'snapshot meta is over 1 MiB');
    this.#file = file;
    const header = Buffer.alloc(HEADER_BYTES);
    const view = viewOf(header);
    header.write(MAGIC, 0, 'latin1');
    view.setUint32(8, VERSION, true);
    view.setUint32(12, head.meta.length, true);
    writeSafeUint(view, 16, head.index);
    writeSafeUint(view, 24, head.term);
    view.setUint32(32, epoch, true);
    this.#crc = crc32(head.meta, crc32(header.subarray(0, 36)));
    view.setUint32(36, this.#crc, true);
    this.#position = file.writevFullySync([header, head.meta], 0);
  }

  get bytesWritten(): number {
    return this.#position;
  }

  /** Checksum of the last part: of the trailer once it is written. */
  get crc(): number {
    return this.#crc;
  }

  write(chunk: Uint8Array): void {
    assert(chunk.length >= 1 && chunk.length <= CHUNK_BYTES_MAX, 'a snapshot chunk has 1 byte to 16 MiB');
    const header = this.#chunkHeader;
    header.writeUInt32LE(chunk.length, 0);
    header.writeUInt32LE(this.#chunks, 4);
    const crc = crc32(chunk, crc32(header.subarray(0, 8), this.#crc));
    header.writeUInt32LE(crc, 8);
    this.#position += this.#file.writevFullySync([header, chunk], this.#position);
    this.#crc = crc;
    this.#chunks += 1;
    this.#contentBytes += chunk.length;
  }

  writeTrailer(): void {
    const trailer = Buffer.alloc(TRAILER_BYTES);
    const view = viewOf(trailer);
    view.setUint32(4, this.#chunks, true);
    writeSafeUint(view, 8, this.#contentBytes);
    const crc = crc32(trailer.subarray(0, 16), this.#crc);
    view.setUint32(16, crc, true);
    this.#position += this.#file.writevFullySync([trailer], this.#position);
    this.#crc = crc;
  }
}

/** Reads a snapshot chunk by chunk, each checked before it is handed out. Throws SnapshotDamaged. */
export class SnapshotReader {
  readonly head: SnapshotHead;
  readonly #file: DiskFile;
  readonly #fileBytes: number;
  #buffer = Buffer.alloc(0);
  #position: number;
  #chunks = 0;
  #contentBytes = 0;
  #crc: number;

  constructor(disk: Disk, path: string) {
    this.#file = disk.open(path, 'read', 'snap');
    try {
      this.#fileBytes = this.#file.size();
      const header = this.#read(0, HEADER_BYTES);
      const view = viewOf(header);
      if (header.toString('latin1', 0, 8) !== MAGIC) this.#damaged('it does not begin like a snapshot');
      const version = view.getUint32(8, true);
      if (version !== VERSION) this.#damaged(`format version ${version} is not known`);
      const metaLength = view.getUint32(12, true);
      if (metaLength > META_BYTES_MAX) this.#damaged('the header is damaged');
      const index = tryReadSafeUint(view, 16);
      const term = tryReadSafeUint(view, 24);
      const stored = view.getUint32(36, true);
      const seed = crc32(header.subarray(0, 36));
      const meta = Uint8Array.from(this.#read(HEADER_BYTES, metaLength));
      this.#crc = crc32(meta, seed);
      if (this.#crc !== stored || index < 0 || term < 0) this.#damaged('the header is damaged');
      this.head = { index, term, meta };
      this.#position = HEADER_BYTES + metaLength;
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  /** The next chunk, a view that is valid until the next call; null at the checked end. */
  nextChunk(): Uint8Array | null {
    const header = this.#read(this.#position, CHUNK_HEADER_BYTES);
    const length = header.readUInt32LE(0);
    const number = header.readUInt32LE(4);
    if (length === 0) {
      this.#checkTrailer();
      return null;
    }
    if (number !== this.#chunks || length > CHUNK_BYTES_MAX) this.#damaged(`chunk ${this.#chunks} is damaged`);
    const stored = header.readUInt32LE(8);
    const seed = crc32(header.subarray(0, 8), this.#crc);
    const content = this.#read(this.#position + CHUNK_HEADER_BYTES, length);
    this.#crc = crc32(content, seed);
    if (this.#crc !== stored) this.#damaged(`chunk ${this.#chunks} is damaged`);
    this.#position += CHUNK_HEADER_BYTES + length;
    this.#chunks += 1;
    this.#contentBytes += length;
    return content;
  }

  /** The rest of the chunks; see nextChunk for how long each is valid. Closes the file at the end. */
  *chunks(): Generator<Uint8Array> {
    try {
      for (let chunk = this.nextChunk(); chunk !== null; chunk = this.nextChunk()) yield chunk;
    } finally {
      this.close();
    }
  }

  /** Checksum of the last part that was read: of the trailer once nextChunk has returned null. */
  get crc(): number {
    return this.#crc;
  }

  get fileBytes(): number {
    return this.#fileBytes;
  }

  close(): void {
    this.#file.close();
  }

  #checkTrailer(): void {
    const trailer = this.#read(this.#position, TRAILER_BYTES);
    const view = viewOf(trailer);
    this.#crc = crc32(trailer.subarray(0, 16), this.#crc);
    const isRight =
      this.#crc === view.getUint32(16, true) &&
      view.getUint32(4, true) === this.#chunks &&
      tryReadSafeUint(view, 8) === this.#contentBytes &&
      this.#position + TRAILER_BYTES === this.#fileBytes;
    if (!isRight) this.#damaged('the trailer is damaged');
  }

  #read(position: number, length: number): Buffer {
    if (position + length > this.#fileBytes) this.#damaged('it is cut short');
    if (this.#buffer.length < length) this.#buffer = Buffer.allocUnsafeSlow(Math.max(length, 4096));
    const read = this.#file.preadSync(this.#buffer, 0, length, position);
    if (read < length) this.#damaged('it is cut short');
    return this.#buffer.subarray(0, length);
  }

  #damaged(detail: string): never {
    throw new SnapshotDamaged(this.#file.path, detail);
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
