import { join } from 'node:path';
import { BrokerError } from '../../base/errors.ts';
import type { SubjectScope } from '../../base/subject-space.ts';
import type { VerifyProgress, VerifyRequest } from '../../grpc/gen/broker/v1/inspect.ts';
import type { Answers } from '../../grpc/operator-streams.ts';
import type { VerifyPort } from '../../grpc/verify.ts';
import type { DatabaseOptions } from '../../storage/open-database.ts';
import { type Finding, OPEN_MS_MAX, type Progress } from '../../verify/types.ts';
import { VerifyRun } from '../../verify/verify-run.ts';
import { scopeOf, tenantOf } from '../admin/viewed-subjects.ts';
import type { LogLine } from '../messages.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';

/** Findings of one answer: a few hundred bytes each. */
const FINDINGS_AT_ONCE = 1_000;

/** Before somebody is refused because another one is served. */
const GRACE_MS = 200;

/** Verifies the store of a node that runs, for one client at a time, which ends it by going away. */
export class VerifyService implements VerifyPort {
  readonly #raft: Pick<RaftHandle, 'reportPage' | 'reportsNow'>;
  readonly #dataDirectory: string;
  readonly #database: DatabaseOptions | null;
  readonly #log: (line: LogLine) => void;
  /** Resolves when the one that runs has ended; null: none does. */
  #running: Promise<void> | null = null;
  /** Its client has gone: the next one need not be refused. */
  #isEnding = false;
  readonly #stopping = new AbortController();

  constructor(parts: {
    readonly raft: Pick<RaftHandle, 'reportPage' | 'reportsNow'>;
    readonly dataDirectory: string;
    /** Null: the embedded store. */
    readonly database: DatabaseOptions | null;
    readonly log: (line: LogLine) => void;
  }) {
    this.#log = parts.log;
    this.#raft = parts.raft;
    this.#dataDirectory = parts.dataDirectory;
    this.#database = parts.database;
  }

  async verify(request: VerifyRequest, answers: Answers<VerifyProgress>, space: Uint8Array): Promise<void> {
    const { prefix, tenant, bytesPerSecond } = request;
    const scope = scopeOf(space, tenant, prefix);
    if (this.#stopping.signal.aborted) throw new BrokerError('SHUTTING_DOWN');
    if (bytesPerSecond < 0) throw new BrokerError('MALFORMED_MESSAGE', 'bytes_per_second');
    while (this.#running !== null) {
      // That its client has gone may be heard a moment after this request, which it has sent behind that.
      if (!this.#isEnding) await new Promise((resolve) => setTimeout(resolve, GRACE_MS));
      if (this.#running !== null && !this.#isEnding) throw new BrokerError('VERIFY_RUNNING');
      await this.#running;
    }
    const ended = Promise.withResolvers<void>();
    this.#running = ended.promise;
    this.#isEnding = false;
    const startedAt = performance.now();
    const tell = (level: LogLine['level'], message: string, fields: LogLine['fields']): void =>
      this.#log({ kind: 'log', level, message, fields });
    tell('info', 'verifying the store', { prefix, tenant: tenant || tenantOf(space), bytesPerSecond });
    try {
      const last = await this.#verify(scope, bytesPerSecond, answers);
      const ms = Math.round(performance.now() - startedAt);
      if (last === null) tell('info', 'a verification was ended by its client', { ms });
      else {
        const { subjectsDone: subjects, batches, bytes, findingsTotal: findings } = last;
        tell(findings > 0 ? 'error' : 'info', 'verified the store', { subjects, batches, bytes, findings, ms });
      }
    } catch (error) {
      tell('warn', 'a verification did not come to its end', { error: String(error) });
      throw error;
    } finally {
      this.#running = null;
      ended.resolve();
    }
  }

  /** Ends what runs with SHUTTING_DOWN, and refuses more. */
  stop(): void {
    this.#stopping.abort();
  }

  /** Null: the client has gone. */
  async #verify(
    scope: SubjectScope,
    bytesPerSecond: number,
    answers: Answers<VerifyProgress>,
  ): Promise<Progress | null> {
    const view = new Answering(answers);
    const task = {
      segmentsPath: this.#database === null ? join(this.#dataDirectory, 'segments') : null,
      database: this.#database,
      scope,
      bytesPerSecond,
      stoppedAt: null,
      openMsMax: OPEN_MS_MAX,
    };
    const log = {
      page: (wanted: SubjectScope, cursor: number, limit: number) => this.#raft.reportPage(wanted, cursor, limit),
      now: (subjects: readonly Uint8Array[]) => this.#raft.reportsNow(subjects),
    };
    const run = new VerifyRun(task, log, (progress) => view.show(progress, false));
    const ended = Promise.withResolvers<null>();
    const end = (): void => {
      this.#isEnding = true;
      ended.resolve(null);
    };
    answers.gone.addEventListener('abort', end, { once: true });
    this.#stopping.signal.addEventListener('abort', end, { once: true });
    try {
      if (answers.gone.aborted) return null;
      const last = await Promise.race([run.ended, ended.promise]);
      if (last !== null) view.show(last, true);
      else if (this.#stopping.signal.aborted) throw new BrokerError('SHUTTING_DOWN');
      return last;
    } finally {
      this.#stopping.signal.removeEventListener('abort', end);
      await run.cancel();
    }
  }
}

/** Progress as answers. A client that takes nothing for a while gets the newest later, with all findings: their number is bounded (Tally). */
class Answering {
  readonly #answers: Answers<VerifyProgress>;
  #findings: Finding[] = [];

  constructor(answers: Answers<VerifyProgress>) {
    this.#answers = answers;
  }

  show(progress: Progress, isLast: boolean): void {
    this.#findings.push(...progress.findings);
    if (!this.#answers.isReady && !isLast) return;
    const { findings: _, ...counts } = progress;
    do {
      const findings = this.#findings.splice(0, FINDINGS_AT_ONCE);
      const done = isLast && this.#findings.length === 0;
      this.#answers.write({ ...counts, findings, done });
    } while (this.#findings.length > 0 && (this.#answers.isReady || isLast));
  }
}
