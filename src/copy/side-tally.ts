import { crc32 } from '../base/checksum.ts';
import type { StoredItem } from '../storage/store.ts';
import type { Side } from './types.ts';

/** Counts one store's items of a subject, in order. */
export class SideTally implements Side {
  batches = 0;
  messages = 0;
  bytes = 0;
  first = 0;
  last = 0;
  checksum = 0;
  readonly #mark = Buffer.alloc(16);

  add(item: StoredItem): void {
    this.batches += 1;
    if (this.first === 0) this.first = item.from;
    this.last = item.to - 1;
    if (item.kind === 'data') {
      this.messages += item.to - item.from;
      this.bytes += item.bytes.length;
      this.checksum = crc32(item.bytes, this.checksum);
      return;
    }
    this.#mark.writeDoubleLE(item.from, 0);
    this.#mark.writeDoubleLE(item.to, 8);
    this.checksum = crc32(this.#mark, this.checksum);
  }
}
