/** Waiting for facts. How long a machine takes for one is not known; the limits only end a wait that would never end. */
import assert from 'node:assert/strict';

const TIMEOUT_MS = 120_000;
const LOOK_MS = 25;

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until `holds`; fails with what `describe` says after `timeoutMs`. */
export async function until(
  holds: () => boolean | Promise<boolean>,
  describe: () => unknown,
  timeoutMs = TIMEOUT_MS,
): Promise<void> {
  for (const begun = performance.now(); performance.now() - begun < timeoutMs; ) {
    if (await holds()) return;
    await pause(LOOK_MS);
  }
  assert.fail(`after ${timeoutMs} ms: ${describe()}`);
}
