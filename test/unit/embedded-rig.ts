/** An embedded store on a folder, opened and reopened as a node does it. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Disk, NodeDisk } from '../../src/storage/disk.ts';
import type { BatchDamage } from '../../src/storage/embedded/batch-reader.ts';
import { type EmbeddedOptions, EmbeddedStore } from '../../src/storage/embedded/embedded-store.ts';
import { type SealReport, sealLanes } from '../../src/storage/embedded/seal-lanes.ts';

export class EmbeddedRig {
  directory: string;
  readonly fatal: unknown[] = [];
  readonly damage: BatchDamage[] = [];
  readonly notices: string[] = [];
  readonly #options: Partial<EmbeddedOptions>;
  readonly #folder: string;
  readonly #opened: EmbeddedStore[] = [];
  #copies = 0;
  /** Of the last `open`. */
  report: SealReport | null = null;

  constructor(folder: string, options: Partial<EmbeddedOptions> = {}) {
    this.#folder = folder;
    this.directory = join(folder, 'segments');
    this.#options = options;
  }

  get disk(): Disk {
    return this.#options.disk ?? new NodeDisk();
  }

  /** Both phases of a start. */
  open(more: Partial<EmbeddedOptions> = {}): EmbeddedStore {
    this.report = sealLanes(this.disk, this.directory);
    return this.openOnly(more);
  }

  openOnly(more: Partial<EmbeddedOptions> = {}): EmbeddedStore {
    const store = new EmbeddedStore({
      directory: this.directory,
      lane: 0,
      ownsSlot: () => true,
      segmentBytes: 1024 * 1024,
      lowSpaceBytes: 0,
      cacheBytes: 256 * 1024,
      onFatal: (error) => this.fatal.push(error),
      onDamage: (damage) => this.damage.push(damage),
      onNotice: (message) => this.notices.push(message),
      ...this.#options,
      ...more,
    });
    this.#opened.push(store);
    return store;
  }

  async reopen(): Promise<EmbeddedStore> {
    await this.#opened.at(-1)?.close();
    return this.open();
  }

  /** What is on the disk now is all that a new process finds; the old store goes on with files that nobody will see. */
  async reopenAfterKill(): Promise<EmbeddedStore> {
    this.#copies += 1;
    const copy = join(this.#folder, `copy-${this.#copies}`);
    cpSync(this.directory, copy, { recursive: true });
    this.directory = copy;
    return this.open();
  }

  /** Changes a byte of a batch that is on the disk, where no store has it open or in memory. */
  changeByte(batch: Buffer, offset: number): void {
    for (const name of this.files().filter((each) => each.endsWith('.seg'))) {
      const path = join(this.lanePath(), name);
      const bytes = readFileSync(path);
      const at = bytes.indexOf(batch);
      if (at < 0) continue;
      bytes.writeUInt8(bytes.readUInt8(at + offset) ^ 1, at + offset);
      writeFileSync(path, bytes);
      return;
    }
    throw new Error('no segment has the batch');
  }

  async close(): Promise<void> {
    for (const store of this.#opened) await store.close();
  }

  lanePath(lane = 0): string {
    return join(this.directory, `lane-${String(lane).padStart(3, '0')}`);
  }

  files(lane = 0): string[] {
    return readdirSync(this.lanePath(lane)).sort();
  }

  segmentPath(number = 1, lane = 0): string {
    return join(this.lanePath(lane), `${String(number).padStart(8, '0')}.seg`);
  }
}
