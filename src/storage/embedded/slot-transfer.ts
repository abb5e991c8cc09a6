import type { SlotColumns } from './slot-index.ts';

/** The buffers of exported slots, for the transfer list of a message: nothing is copied, however large an index is. */
export function transferablesOf(slots: readonly (SlotColumns | null)[]): ArrayBuffer[] {
  const buffers: ArrayBuffer[] = [];
  for (const slot of slots) {
    if (slot === null) continue;
    const { table, slab, free, place, length, blockClass, large } = slot;
    const columns = [table.index, table.rows, table.arena, slab, free, place, length, blockClass];
    for (const { buffer } of columns) buffers.push(buffer);
    for (const list of large) if (list !== null) buffers.push(list.words.buffer);
  }
  return buffers;
}
