import { isOutage } from '../storage/driver-errors.ts';

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
      if (!isOutage(error)) throw error;
      if (performance.now() >= givesUpAt) throw new StoreSilent((error as Error).message, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }
}
