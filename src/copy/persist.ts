import { BrokerError } from '../base/errors.ts';
import { StoreUncertain } from '../storage/store.ts';

const RETRY_MS = 250;

/** A store that does not answer for longer than the patience; the next run goes on. */
export class StoreSilent extends Error {
  override name = 'StoreSilent';
}

/** Does `work` again while the store says that it cannot just now. Appends are idempotent, and reads change nothing. */
export async function persist<T>(patienceMs: number, work: () => T | Promise<T>): Promise<T> {
  const givesUpAt = performance.now() + patienceMs;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const isWorthIt =
        error instanceof StoreUncertain || (error instanceof BrokerError && error.reason === 'STORE_UNAVAILABLE');
      if (!isWorthIt) throw error;
      if (performance.now() >= givesUpAt) throw new StoreSilent(error.message, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
