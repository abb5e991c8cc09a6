import { subjectFields } from '../../base/subject-space.ts';
import type { ClaimedDatabase } from '../../storage/bind-store.ts';
import type { Log } from '../../telemetry/log.ts';
import type { StoredAllotment } from '../messages.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';

/** How often a start says how far it has compared the database with the log. */
const PROGRESS_MS = 5_000;

/** StartError if the log is older than the database; the log goes on only if not. */
export async function compareWithLog(
  database: Pick<ClaimedDatabase, 'compare'>,
  raft: Pick<RaftHandle, 'heads' | 'lead'>,
  log: Pick<Log, 'info'>,
): Promise<void> {
  let rows = 0;
  const progress = setInterval(() => log.info('comparing the database with the log', { rows }), PROGRESS_MS);
  try {
    await database.compare(
      (subjects) => raft.heads(subjects),
      (more) => {
        rows += more;
      },
    );
  } finally {
    clearInterval(progress);
  }
  raft.lead();
}

/** A database that was put back from an older copy than the log: ids go on behind what is lost, and the rest is served. */
export async function tellLosses(
  database: Pick<ClaimedDatabase, 'missing'>,
  stored: readonly StoredAllotment[],
  log: Pick<Log, 'error'>,
): Promise<void> {
  const missing = await database.missing(stored);
  const [first] = missing;
  if (first === undefined) return;
  log.error('the database lacks acknowledged messages: it is an older copy than the log, or rows were deleted', {
    reason: 'DATA_LOSS',
    missingBatches: missing.length,
    ofTheLast: stored.length,
    ...subjectFields(first.subject),
    id: first.base,
  });
}
