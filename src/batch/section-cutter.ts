import { assert } from '../base/assert.ts';
import type { BatchView } from './batch-view.ts';

/** No message expires earlier than this after it was published, in ms. */
const EXPIRY_MS_MIN = 1_000;

/**
 * Cuts what a reader may have of a stored batch into sections: runs of records that follow each other without a gap, as they lie in the batch. A
 * batch that is wanted whole and where nothing can have expired is one section, and none of its records is looked at.
 */
export class SectionCutter {
  /** Offsets in the bytes of the view. */
  start = 0;
  end = 0;
  firstId = 0;
  count = 0;
  #view: BatchView | null = null;
  #next = 0;
  #stop = 0;
  #bytesMax = 0;
  /** Ms; 0: nothing of the batch can have expired yet. */
  #now = 0;

  /** `from`: first id that is wanted. A section has at most `bytesMax` bytes, or one record. */
  wrap(view: BatchView, from: number, bytesMax: number, now: number): void {
    this.#view = view;
    this.#next = Math.max(from, view.base);
    this.#stop = view.base + view.count;
    this.#bytesMax = bytesMax;
    this.#now = view.hasExpiry && now >= view.publishedAt + EXPIRY_MS_MIN ? now : 0;
    const isAllExpired = view.expiresMax > 0 && now >= view.publishedAt + view.expiresMax * 1_000;
    if (isAllExpired) this.#next = this.#stop;
  }

  /** The next section; false when there is none. */
  next(): boolean {
    const view = this.#view;
    assert(view !== null, 'no batch to cut');
    if (this.#next >= this.#stop) return false;
    const isWhole = this.#next === view.base && this.#now === 0;
    if (isWhole && view.recordsEnd - view.recordsStart <= this.#bytesMax) {
      this.start = view.recordsStart;
      this.end = view.recordsEnd;
      this.firstId = view.base;
      this.count = view.count;
      this.#next = this.#stop;
      return true;
    }
    return this.#cut(view);
  }

  #cut(view: BatchView): boolean {
    view.seek(this.#next);
    this.count = 0;
    for (let id = this.#next; id < this.#stop; id++) {
      const at = view.nextFrame;
      view.next();
      if (this.#now > 0 && view.expiresAt <= this.#now) {
        if (this.count > 0) break;
        this.#next = id + 1;
        continue;
      }
      if (this.count > 0 && view.recordEnd - this.start > this.#bytesMax) break;
      if (this.count === 0) {
        this.start = at;
        this.firstId = id;
      }
      this.count += 1;
      this.end = view.recordEnd;
      this.#next = id + 1;
    }
    return this.count > 0;
  }
}
