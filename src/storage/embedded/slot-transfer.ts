import type { SlotColumns } from './slot-index.ts';

/**
 * The buffers of exported slots, for the transfer list of a message: where the batches are is not copied, however many there are. The names are:
 * the notes for the sidecar of the segment that grows point into them (sidecar.ts).
 */
export function transferablesOf(slots: readonly (SlotColumns | null)[]): ArrayBuffer[] {
  const buffers: ArrayBuffer[] = [];
  for (const slot of slots) {
    if (slot === null) continue;
    const { slab, free, place, length, blockClass, large } = slot;
    const columns = [slab, free, place, length, blockClass];
    for (const { buffer } of columns) buffers.push(buffer);
    for (const list of large) if (list !== null) buffers.push(list.words.buffer);
  }
  return buffers;
}
