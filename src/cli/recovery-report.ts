/** What `cluster recover`, `restore` and `backup` have in common on the command line. */
import type { Outcome, RecoveryProgress, RecoverySummary } from '../recovery/types.ts';
import type { Context } from './context.ts';
import { CliError, EXIT } from './failure.ts';
import type { Format, Row } from './output.ts';
import { ProgressLine } from './progress-line.ts';

/** Runs one of them with a line of progress. CliError if it was refused. */
export async function withProgress<T>(
  context: Context,
  run: (onProgress: (progress: RecoveryProgress) => void) => Promise<Outcome<T>>,
): Promise<T> {
  const line = new ProgressLine(context.notes);
  let outcome: Outcome<T>;
  try {
    outcome = await run(({ step, done }) => line.show(`${step}: ${done.toLocaleString('en-US')}`));
  } finally {
    await line.clear();
  }
  if (outcome.kind === 'refused') throw new CliError(EXIT.failed, outcome.message, outcome.next);
  return outcome.summary;
}

/** The plan, or what was done. A plan alone ends with exit code 2: nothing was done. */
export async function reportRecovery(context: Context, summary: RecoverySummary, format: Format): Promise<void> {
  for (const warning of summary.warnings) await context.notes.line(`broker: ${warning}`);
  await context.out.record(rowOf(summary), format);
  if (!summary.done) {
    throw new CliError(
      EXIT.usage,
      'nothing was changed: this is the plan',
      'stop every broker on this store, and add --yes',
    );
  }
  const forgotten =
    'producers are forgotten: each begins again with sequence 1, and what it repeats of before may be stored a second time';
  await context.notes.line(
    `broker: ${forgotten}. Other data directories of the old cluster are refused by the store: wipe them, and let them join.`,
  );
}

function rowOf(summary: RecoverySummary): Row {
  return {
    done: summary.done,
    store: summary.store,
    node: summary.nodeId,
    cluster_name: summary.clusterName,
    cluster_before: summary.clusterBefore,
    cluster: summary.cluster,
    nodes_fenced: summary.nodesFenced,
    subjects: summary.subjects,
    subjects_of_log: summary.subjectsOfLog,
    ids_beyond_store: summary.idsBeyondStore,
    largest_head: summary.largestHead,
    largest_subject: summary.largestSubject,
    ...(summary.largestTenant === '' ? {} : { largest_tenant: summary.largestTenant }),
    gap: summary.gap,
    floor: summary.floor,
    log_time: new Date(summary.logTime).toISOString(),
    producers_forgotten: summary.producersForgotten,
    discarded: summary.discarded,
  };
}
