/**
 * Newest ids of a store, packed for the Raft thread, which halts the node if one is above its head: such a log was put back from an older copy, and
 * would give ids again that have messages (design section 9). A run of f64 id · u32 hash · u32 length · subject · padding to 8.
 */
import type { AllotMachine } from '../allot/allot-machine.ts';
import { storeIsAhead } from '../storage/store-ahead.ts';

const HEADER = 16;

export function newestIdSize(nameLength: number): number {
  return HEADER + ((nameLength + 7) & ~7);
}

/** Returns the offset behind it. */
export function writeNewestId(target: Buffer, at: number, name: Uint8Array, hash: number, lastId: number): number {
  target.writeDoubleLE(lastId, at);
  target.writeUInt32LE(hash, at + 8);
  target.writeUInt32LE(name.length, at + 12);
  target.set(name, at + HEADER);
  return at + newestIdSize(name.length);
}

/** StartError STORE_AHEAD_OF_LOG if the store has an id that was never given. `visit`: each subject, by its number and its name packed[start, end). */
export function verifyNewestIds(
  machine: AllotMachine,
  packed: Uint8Array,
  visit: (subject: number, start: number, end: number, hash: number, lastId: number) => void,
): void {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.length);
  for (let at = 0; at < packed.length; ) {
    const lastId = view.getFloat64(at, true);
    const hash = view.getUint32(at + 8, true);
    const length = view.getUint32(at + 12, true);
    const start = at + HEADER;
    const subject = machine.find(packed, start, start + length, hash);
    const head = subject < 0 ? 0 : machine.head(subject);
    if (head < lastId) throw storeIsAhead({ subject: packed.subarray(start, start + length), lastId, head });
    visit(subject, start, start + length, hash, lastId);
    at += newestIdSize(length);
  }
}
