/** `broker store copy`: moves the messages of a broker that does not run from one store to another, under the same ids. */

import type { AllotMachine } from '../allot/allot-machine.ts';
import { assert } from '../base/assert.ts';
import { BrokerError } from '../base/errors.ts';
import { subjectHash } from '../base/subject.ts';
import { ALL_SUBJECTS, nameOf } from '../base/subject-space.ts';
import { checkOwner, markStore, storeKindOf } from '../storage/bind-store.ts';
import { type DataDirectory, openDataDirectory, readNodeIdentity } from '../storage/data-directory.ts';
import { type Disk, DiskError, NodeDisk } from '../storage/disk.ts';
import { StartError } from '../storage/start-error.ts';
import { allotLimits } from '../workers/raft/raft-settings.ts';
import { readLog } from '../workers/raft/read-log.ts';
import { type End, openEnd } from './open-end.ts';
import { PageWriter } from './page-writer.ts';
import { StoreSilent } from './persist.ts';
import { type LogSubject, SubjectWalk, type Walked } from './subject-walk.ts';
import type { CopyOutcome, CopyProgress, CopyRequest, CopySummary } from './types.ts';

/** Subjects at a time: their pages travel together, and each holds at most a few pages. */
const WALKS_MAX = 32;
/** Subjects that are listed at a time. */
const LIST_ROWS = 256;
/** A store that does not answer is asked again for this many times store.timeout. */
const PATIENCE_TIMES = 3;

const AGAIN = 'run the same command again: it goes on where it stopped';

/** What stops a copy before it has changed anything, or in the middle. */
class Refusal extends Error {
  override name = 'Refusal';
  readonly next: string;

  constructor(message: string, next: string, options?: ErrorOptions) {
    super(message, options);
    this.next = next;
  }
}

export async function copyStore(request: CopyRequest): Promise<CopyOutcome> {
  try {
    return { kind: 'done', summary: await copy(request) };
  } catch (error) {
    if (error instanceof Refusal) return { kind: 'refused', message: error.message, next: error.next };
    if (error instanceof StartError) return { kind: 'refused', message: error.message, next: '' };
    if (error instanceof StoreSilent || error instanceof DiskError || error instanceof BrokerError) {
      return { kind: 'refused', message: `the copy stopped: ${whyOf(error)}`, next: AGAIN };
    }
    throw error;
  }
}

async function copy(request: CopyRequest): Promise<CopySummary> {
  const { config, from, to } = request;
  const disk = new NodeDisk();
  const directory = lockDirectory(disk, config.dataDir);
  try {
    if (!request.compareOnly) checkDirection(disk, directory, request);
    const machine = readLog(disk, directory.raftPath, directory.node.instanceId, allotLimits(config));
    checkSettled(machine);
    const ends: End[] = [];
    try {
      for (const kind of [from, to]) ends.push(await openEnd(kind, config, directory.path));
      const [source, target] = ends as [End, End];
      await checkBirth(source, directory, false);
      await checkBirth(target, directory, !request.compareOnly);
      return await new Copy(request, machine, source, target).run(() => markStore(disk, directory.path, to));
    } finally {
      for (const { store } of ends) await store.close();
    }
  } finally {
    directory.close();
  }
}

/** With its causes: what a driver says is what people look for. */
function whyOf(error: Error): string {
  const words = [error.message];
  for (let { cause } = error; cause instanceof Error; { cause } = cause) words.push(cause.message);
  return [...new Set(words)].join(': ');
}

/** The lock keeps brokers out: what a copy reads must not change, and the log's heads must not move. */
function lockDirectory(disk: Disk, path: string): DataDirectory {
  const node = readNodeIdentity(disk, path);
  if (node === null) {
    throw new Refusal(
      `${path} is no broker's data directory`,
      'name the one of the broker whose messages move: --data-dir DIR',
    );
  }
  return openDataDirectory(disk, path, { clusterName: node.clusterName, nodeId: node.nodeId, now: Date.now() });
}

function checkDirection(disk: Disk, directory: DataDirectory, { from, to }: CopyRequest): void {
  const kind = storeKindOf(disk, directory.path);
  if (kind === from) return;
  throw new Refusal(
    `${directory.path} belongs to store ${kind}, so its messages cannot be copied from ${from}`,
    kind === to ? 'it was copied already: start the broker with that store, or use --compare-only' : '',
  );
}

/** What is open would be resolved by the next start, from a store that the next start may not have. */
function checkSettled(machine: AllotMachine): void {
  const { open, revoked } = machine.counts();
  if (open + revoked === 0) return;
  throw new Refusal(
    `the log has ${open + revoked} batches of which it does not know what became of them: the broker was not stopped cleanly`,
    'start it once more on its present store, and stop it with SIGTERM',
  );
}

/** The row says whose messages a database has. The target's is made by the first run, so that nobody else takes it meanwhile. */
async function checkBirth({ database }: End, { node }: DataDirectory, claims: boolean): Promise<void> {
  if (database === null) return;
  const { birth, place, settings } = database;
  const { clusterId, clusterName } = node;
  const row = claims ? (await birth.claim({ clusterId, name: clusterName, settings })).row : await birth.find();
  checkOwner(row, clusterId, place, settings);
}

class Copy {
  readonly #request: CopyRequest;
  readonly #machine: AllotMachine;
  readonly #source: End;
  readonly #target: End;
  readonly #startedAt = performance.now();
  #progress: CopyProgress = { phase: 'copying', done: 0, total: 0, bytes: 0 };

  constructor(request: CopyRequest, machine: AllotMachine, source: End, target: End) {
    this.#request = request;
    this.#machine = machine;
    this.#source = source;
    this.#target = target;
  }

  async run(switchOver: () => void): Promise<CopySummary> {
    const { compareOnly, acceptLoss } = this.#request;
    const copied = compareOnly ? new Totals() : await this.#pass('copying');
    const compared = await this.#pass('comparing');
    const isWhole = compared.damagedBatches + compared.missingIds === 0 || acceptLoss;
    const switches = !compareOnly && this.#request.switchOver && compared.differingSubjects === 0 && isWhole;
    if (switches) switchOver();
    const { batches, messages, bytes, subjects, expiredBatches, damagedBatches, missingIds, differingSubjects } =
      compared;
    return {
      from: this.#source.kind,
      to: this.#target.kind,
      subjects,
      batches,
      messages,
      bytes,
      copiedBatches: copied.copiedBatches,
      copiedBytes: copied.copiedBytes,
      foundBatches: copied.foundBatches,
      expiredBatches,
      damagedBatches,
      missingIds,
      differingSubjects,
      switched: switches,
      ms: Math.round(performance.now() - this.#startedAt),
    };
  }

  /** All subjects once, WALKS_MAX at a time, in the order of the log. */
  async #pass(phase: CopyProgress['phase']): Promise<Totals> {
    const { config, onSubject } = this.#request;
    const patienceMs = config.store.timeoutMs * PATIENCE_TIMES;
    this.#progress = { phase, done: 0, total: this.#idsOfAll(), bytes: 0 };
    const options = {
      source: this.#source.store,
      target: this.#target.store,
      writer: phase === 'copying' ? new PageWriter(this.#target.store, patienceMs) : null,
      patienceMs,
      now: Date.now,
      onProgress: (ids: number, bytes: number) => this.#progressed(ids, bytes),
    };
    const totals = new Totals();
    const subjects = this.#subjects();
    const walk = async (): Promise<void> => {
      for (const subject of subjects) {
        const walked = await new SubjectWalk(options, subject).run();
        totals.add(walked);
        if (phase === 'copying') continue;
        const { source, target, difference } = walked;
        await onSubject({ ...nameOf(subject.ref.bytes), source, target, difference });
      }
    };
    const endsAll = (error: unknown): never => {
      // The others finish the subject that they are at.
      subjects.return(undefined);
      throw error;
    };
    const results = await Promise.allSettled(Array.from({ length: WALKS_MAX }, () => walk().catch(endsAll)));
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    this.#request.onProgress(this.#progress);
    return totals;
  }

  #progressed(ids: number, bytes: number): void {
    if (this.#request.interrupt.aborted) throw new Refusal('interrupted', AGAIN);
    const { phase, done, total, bytes: before } = this.#progress;
    this.#progress = { phase, done: done + ids, total, bytes: before + bytes };
    this.#request.onProgress(this.#progress);
  }

  #idsOfAll(): number {
    let ids = 0;
    for (const { first, head } of this.#subjects()) ids += head - first + 1;
    return ids;
  }

  /** One iterator that all walks draw from. */
  *#subjects(): Generator<LogSubject, undefined> {
    const machine = this.#machine;
    let cursor = 0;
    while (cursor >= 0) {
      const some: LogSubject[] = [];
      cursor = machine.listSubjects(cursor, ALL_SUBJECTS, LIST_ROWS, (subject, names, start, end) => {
        const bytes = names.slice(start, end);
        some.push({
          ref: { bytes, hash: subjectHash(bytes, 0, bytes.length) },
          first: machine.first(subject),
          head: machine.head(subject),
          mayHaveHoles: machine.everExpires(subject),
        });
        assert(machine.settled(subject) === machine.head(subject), 'a subject has open ids, but nothing is open');
      });
      yield* some;
    }
  }
}

class Totals {
  subjects = 0;
  batches = 0;
  messages = 0;
  bytes = 0;
  copiedBatches = 0;
  copiedBytes = 0;
  foundBatches = 0;
  expiredBatches = 0;
  damagedBatches = 0;
  missingIds = 0;
  differingSubjects = 0;

  add(walked: Walked): void {
    const { source } = walked;
    this.subjects += 1;
    this.batches += source.batches;
    this.messages += source.messages;
    this.bytes += source.bytes;
    this.copiedBatches += walked.copiedBatches;
    this.copiedBytes += walked.copiedBytes;
    this.foundBatches += walked.foundBatches;
    this.expiredBatches += walked.expiredBatches;
    this.damagedBatches += walked.damagedBatches;
    this.missingIds += walked.missingIds;
    if (walked.difference !== null) this.differingSubjects += 1;
  }
}
