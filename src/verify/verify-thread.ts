/**
 * The thread that verifies: beside the threads of a node, at the lowest priority that the system has, so that it takes the time that nobody else wants;
 * with its own files and connections, so that what it reads comes from the disk or the database and not from what a shard has in memory.
 */

import { constants, setPriority } from 'node:os';
import { parentPort, workerData } from 'node:worker_threads';
import { defined } from '../base/assert.ts';
import { BrokerError } from '../base/errors.ts';
import type { SubjectScope } from '../base/subject-space.ts';
import { DiskError } from '../storage/disk.ts';
import { type DatabaseOptions, openDatabase } from '../storage/open-database.ts';
import { StartError } from '../storage/start-error.ts';
import { Pace } from './pace.ts';
import { databaseStore, embeddedStore } from './stores.ts';
import { Tally } from './tally.ts';
import type { FromVerifyThread, LogView, SubjectReport, ToVerifyThread, VerifyTask } from './types.ts';
import { Verifier } from './verifier.ts';

/** Connections to PostgreSQL: the first is for writes, of which there are none. */
const POSTGRES_POOL = 3;
/** Statements to Cassandra that are on their way; of reads half as many. */
const CASSANDRA_IN_FLIGHT = 8;

const port = defined(parentPort, 'verify-thread.ts is the entry point of a worker thread');
const task = workerData as VerifyTask;
const post = (message: FromVerifyThread): void => port.postMessage(message);

class AskedLog implements LogView {
  readonly #waiting = new Map<number, (answer: ToVerifyThread) => void>();
  #nextToken = 1;

  constructor() {
    port.on('message', (answer: ToVerifyThread) => {
      this.#waiting.get(answer.token)?.(answer);
      this.#waiting.delete(answer.token);
    });
  }

  async page(
    scope: SubjectScope,
    cursor: number,
    limit: number,
  ): Promise<{ readonly reports: readonly SubjectReport[]; readonly next: number }> {
    const answer = await this.#ask((token) => ({ kind: 'page', token, scope, cursor, limit }));
    return answer.kind === 'page' ? answer : { reports: [], next: -1 };
  }

  async now(subjects: readonly Uint8Array[]): Promise<readonly (SubjectReport | null)[]> {
    const answer = await this.#ask((token) => ({ kind: 'now', token, subjects }));
    return answer.kind === 'now' ? answer.reports : [];
  }

  #ask(make: (token: number) => FromVerifyThread): Promise<ToVerifyThread> {
    const token = this.#nextToken++;
    return new Promise((resolve) => {
      this.#waiting.set(token, resolve);
      post(make(token));
    });
  }
}

/** The few connections of somebody who is in no hurry. What the server may lose is the node's business. */
function modest(options: DatabaseOptions): DatabaseOptions {
  return options.kind === 'postgres'
    ? { ...options, pool: POSTGRES_POOL, acceptWeakDurability: true }
    : { ...options, inFlight: CASSANDRA_IN_FLIGHT, acceptWeakDurability: true };
}

async function verify(): Promise<void> {
  // Of this thread only, which is what Linux makes of it; elsewhere it would be the process.
  if (process.platform === 'linux') setPriority(0, constants.priority.PRIORITY_LOW);
  const tally = new Tally((progress) => post({ kind: 'progress', progress }));
  const log = new AskedLog();
  const pace = new Pace(task.bytesPerSecond);
  if (task.database === null) {
    const directory = defined(task.segmentsPath, 'a store has segments or is a database');
    await new Verifier(task, log, embeddedStore(directory, tally, pace), tally).run();
  } else {
    const database = await openDatabase(modest(task.database));
    try {
      await new Verifier(task, log, databaseStore(database, tally, pace), tally).run();
    } finally {
      await database.close();
    }
  }
  post({ kind: 'done', progress: tally.take() });
}

verify().then(
  () => port.close(),
  (error: unknown) => {
    post(failureOf(error));
    port.close();
  },
);

function failureOf(error: unknown): FromVerifyThread {
  if (error instanceof BrokerError) {
    const { cause } = error;
    return { kind: 'failed', reason: error.reason, message: cause instanceof Error ? cause.message : '' };
  }
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof StartError || error instanceof DiskError) {
    return { kind: 'failed', reason: 'STORE_UNAVAILABLE', message };
  }
  return { kind: 'failed', reason: null, message: error instanceof Error ? (error.stack ?? message) : message };
}
