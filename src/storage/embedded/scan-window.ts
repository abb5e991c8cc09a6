import { assert } from '../../base/assert.ts';
import { crc32 } from '../../base/checksum.ts';
import type { DiskFile } from '../disk.ts';

const WINDOW_BYTES = 1024 * 1024;

/** Reads a file from front to back through one buffer, however large the things in it are. */
export class ScanWindow {
  readonly bytes: Buffer;
  readonly #file: DiskFile;
  readonly #size: number;
  #start = 0;
  #end = 0;

  /** `size`: bytes of the file; nothing behind is read. */
  constructor(file: DiskFile, size: number) {
    this.#file = file;
    this.#size = size;
    this.bytes = Buffer.allocUnsafeSlow(Math.min(WINDOW_BYTES, size));
  }

  /** Makes [position, position + length) available, at most the window's size; returns where it starts in `bytes`. */
  at(position: number, length: number): number {
    assert(length <= WINDOW_BYTES && position + length <= this.#size, 'a scan reads outside of its file');
    if (position < this.#start || position + length > this.#end) {
      const wanted = Math.min(WINDOW_BYTES, this.#size - position);
      const read = this.#file.preadSync(this.bytes, 0, wanted, position);
      // A file that is shorter than its size said is read as zeros: nothing in it will pass its checksum.
      if (read < wanted) this.bytes.fill(0, read, wanted);
      this.#start = position;
      this.#end = position + wanted;
    }
    return position - this.#start;
  }

  copy(position: number, length: number): Buffer {
    const copy = Buffer.allocUnsafeSlow(length);
    this.#forEachPart(position, position + length, (start, end, at) => {
      this.bytes.copy(copy, at - position, start, end);
      return true;
    });
    return copy;
  }

  crc(start: number, end: number): number {
    let crc = 0;
    this.#forEachPart(start, end, (from, to) => {
      crc = crc32(this.bytes.subarray(from, to), crc);
      return true;
    });
    return crc;
  }

  isZero(start: number, end: number): boolean {
    let isZero = true;
    this.#forEachPart(start, end, (from, to) => {
      for (let i = from; i < to && isZero; i++) isZero = this.bytes[i] === 0;
      return isZero;
    });
    return isZero;
  }

  #forEachPart(start: number, end: number, part: (from: number, to: number, position: number) => boolean): void {
    for (let position = start; position < end; ) {
      const from = this.at(position, 1);
      const length = Math.min(end, this.#end) - position;
      if (!part(from, from + length, position)) return;
      position += length;
    }
  }
}
