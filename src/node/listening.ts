import { AssertionError } from '../base/assert.ts';
import { StartError } from '../storage/start-error.ts';

/** A port that cannot be opened is a clear end of the start, naming the key. A defect stays one: no other address would help. */
export async function listening<T>(key: string, opened: Promise<T>): Promise<T> {
  try {
    return await opened;
  } catch (cause) {
    if (cause instanceof AssertionError) throw cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new StartError('PORT_UNAVAILABLE', `${key}: ${message}; choose another address, or stop what uses it`, {
      cause,
    });
  }
}
