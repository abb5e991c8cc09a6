/** Does this server keep what it acknowledged, through a power cut and through the promotion of a standby? */
import type { Database } from './connection.ts';

interface Settings {
  readonly fsync: string;
  readonly synchronous_commit: string;
  readonly full_page_writes: string;
  readonly synchronous_standby_names: string;
  readonly client_min_messages: string;
  readonly in_recovery: boolean;
  readonly encoding: string;
  /** Connected ones, and those whose slot waits for them. Subscribers of a logical slot cannot be promoted. */
  readonly standbys: number;
}

export interface Durability {
  /** What loses acknowledged rows, one sentence each; empty: nothing does. */
  readonly weaknesses: readonly string[];
  /** The server takes no writes: it is a standby. */
  readonly isStandby: boolean;
  /** Of the text in this database, as the server names it. */
  readonly encoding: string;
}

/** Levels at which a server keeps its warnings to itself. */
const LOUDER_THAN_WARNINGS: ReadonlySet<string> = new Set(['error', 'fatal', 'panic']);

export async function checkDurability(database: Database): Promise<Durability> {
  const settings = await database.one<Settings>(`
    SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS synchronous_commit,
      current_setting('full_page_writes') AS full_page_writes,
      current_setting('synchronous_standby_names') AS synchronous_standby_names,
      current_setting('client_min_messages') AS client_min_messages, pg_is_in_recovery() AS in_recovery,
      current_setting('server_encoding') AS encoding,
      ((SELECT count(*) FROM pg_stat_replication r WHERE application_name <> 'pg_basebackup'
          AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical'))
       + (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active))::int4 AS standbys`);
  return { weaknesses: weaknessesOf(settings), isStandby: settings.in_recovery, encoding: settings.encoding };
}

function weaknessesOf(settings: Settings): string[] {
  const found: string[] = [];
  if (settings.fsync !== 'on') found.push('fsync is off: a power cut loses or breaks what was committed');
  if (settings.full_page_writes !== 'on') found.push('full_page_writes is off: a power cut can tear pages');
  const commit = settings.synchronous_commit;
  const hasNames = settings.synchronous_standby_names.trim() !== '';
  if (commit === 'off') found.push('synchronous_commit is off: the last commits before a crash are lost');
  if (settings.standbys > 0 && !hasNames) {
    found.push(
      'there are standbys and synchronous_standby_names is empty: promoting one loses what it had not received',
    );
  }
  if (hasNames && (commit === 'local' || commit === 'remote_write')) {
    found.push(`synchronous_commit is ${commit}: promoting a standby can lose what it had not fsynced`);
  }
  if (hasNames && LOUDER_THAN_WARNINGS.has(settings.client_min_messages)) {
    found.push(
      `client_min_messages is ${settings.client_min_messages}: the server does not say when it has not waited for its standby`,
    );
  }
  return found;
}
