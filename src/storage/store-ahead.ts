import { quotedSubject } from '../base/subject-space.ts';
import { StartError } from './start-error.ts';
import type { BeyondHead } from './store.ts';

/** The log was put back from an older copy than the messages, and would give ids again that have some. */
export function storeIsAhead({ subject, lastId, head }: BeyondHead): StartError {
  return new StartError(
    'STORE_AHEAD_OF_LOG',
    `the store has id ${lastId} of subject ${quotedSubject(subject)}, but the log has given ids up to ${head} only: the Raft log is an older copy than the messages. Put back both from the same backup`,
  );
}
