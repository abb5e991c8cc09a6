import { join } from 'node:path';
import { assert } from '../../base/assert.ts';
import type { Disk, DiskFile } from '../disk.ts';
import { laneName, laneOf, numberOf, segmentName } from './segment-format.ts';

/** A segment open for reading. */
interface OpenSegment {
  readonly file: DiskFile;
  /** Reads on their way: it may not be closed before they end. */
  pins: number;
  isDropped: boolean;
}

/** Segments open for reading, any lane's; the one used longest ago is closed when there are too many. */
export class SegmentFiles {
  readonly #disk: Disk;
  readonly #directory: string;
  readonly #openMax: number;
  /** In order of use. */
  readonly #open = new Map<number, OpenSegment>();

  /** `directory`: where the lanes are. `openMax`: descriptors, more only while reads are on their way. */
  constructor(disk: Disk, directory: string, openMax: number) {
    this.#disk = disk;
    this.#directory = directory;
    this.#openMax = openMax;
  }

  /** Reads bytes of a segment; fewer than wanted if the file is shorter. DiskError if it cannot be opened or read. */
  readSync(segment: number, target: Uint8Array, position: number): number {
    return this.#get(segment).file.preadSync(target, 0, target.length, position);
  }

  async read(segment: number, target: Uint8Array, position: number): Promise<number> {
    const open = this.#get(segment);
    open.pins += 1;
    try {
      return await open.file.pread(target, 0, target.length, position);
    } finally {
      open.pins -= 1;
      if (open.isDropped && open.pins === 0) open.file.close();
    }
  }

  /** Closes a segment that will be deleted. Reads on their way still end well. */
  drop(segment: number): void {
    const open = this.#open.get(segment);
    if (open !== undefined) this.#drop(segment, open);
  }

  close(): void {
    for (const [segment, open] of this.#open) this.#drop(segment, open);
  }

  #get(segment: number): OpenSegment {
    const found = this.#open.get(segment);
    if (found !== undefined) {
      this.#open.delete(segment);
      this.#open.set(segment, found);
      return found;
    }
    this.#makeRoom();
    const path = join(this.#directory, laneName(laneOf(segment)), segmentName(numberOf(segment)));
    const open = { file: this.#disk.open(path, 'read', 'segment-read'), pins: 0, isDropped: false };
    this.#open.set(segment, open);
    return open;
  }

  #makeRoom(): void {
    if (this.#open.size < this.#openMax) return;
    for (const [segment, open] of this.#open) {
      if (open.pins > 0) continue;
      this.#drop(segment, open);
      return;
    }
  }

  #drop(segment: number, open: OpenSegment): void {
    assert(!open.isDropped, 'a segment is closed twice');
    this.#open.delete(segment);
    open.isDropped = true;
    if (open.pins === 0) open.file.close();
  }
}
