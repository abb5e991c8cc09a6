import { BrokerError } from '../../base/errors.ts';
import { StartError } from '../../storage/start-error.ts';
import { StoreUncertain } from '../../storage/store.ts';

/** Before a store that is away is tried again, in ms. */
const AGAIN_MS = 250;

/**
 * Does `work` again until the remote store takes part in it; null once `isOver`. For the thread that replaces one that died: its subjects are refused
 * until it serves, and a thread that ended for each try would count as one that cannot live. `onAway` hears of the first failure.
 */
export async function untilThere<T>(
  work: () => Promise<T>,
  isOver: () => boolean,
  onAway: (error: unknown) => void,
): Promise<T | null> {
  for (let tries = 0; !isOver(); tries++) {
    try {
      return await work();
    } catch (error) {
      if (!isAway(error)) throw error;
      if (tries === 0) onAway(error);
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
  }
  return null;
}

function isAway(error: unknown): boolean {
  if (error instanceof StartError) return error.code === 'STORE_UNUSABLE';
  return error instanceof BrokerError || error instanceof StoreUncertain;
}
