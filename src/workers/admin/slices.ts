import { setImmediate as nextTurn } from 'node:timers/promises';

/** How long the event loop may be kept at a time, in ms, and after how many items that is looked at. */
const SLICE_MS = 2;
const LOOK_ITEMS = 128;

/**
 * Visits many things without keeping the event loop: after two milliseconds it lets others work. What is walked over may change meanwhile, if its iterator allows for
 * that, as those of Map and Set do.
 */
export async function visitInSlices<T>(items: Iterable<T>, visit: (item: T) => void): Promise<void> {
  let begun = performance.now();
  let unlooked = 0;
  for (const item of items) {
    visit(item);
    unlooked += 1;
    if (unlooked < LOOK_ITEMS) continue;
    unlooked = 0;
    if (performance.now() - begun < SLICE_MS) continue;
    await nextTurn();
    begun = performance.now();
  }
}
