import { defined } from '../../base/assert.ts';
import { BrokerError, REASON_CODE } from '../../base/errors.ts';
import { failpoint } from '../../base/failpoint.ts';
import { isPlanted } from '../../base/planted.ts';
import { sealVoidMark } from '../../batch/batch-builder.ts';
import { isOutage } from '../../storage/driver-errors.ts';
import { type MessageStore, type SealedBatch, StoreUncertain } from '../../storage/store.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { Gathering } from './gathering.ts';
import { type Group, isUnclosed } from './group.ts';
import type { MainPort } from './main-port.ts';
import type { OpenBatch } from './open-batch.ts';
import type { PublishCounters, PublishEvents } from './publish-ports.ts';
import { REPEAT_MS, STORE_RETRY_MS, type StoreRules } from './store-rules.ts';
import type { ActiveSubject } from './subjects.ts';
import type { TakeBacks } from './take-backs.ts';

export interface GroupWriterParts {
  readonly store: MessageStore;
  readonly requests: AllotRequests;
  readonly main: MainPort;
  readonly events: PublishEvents;
  readonly counters: PublishCounters;
  readonly gathering: Gathering;
  readonly takeBacks: TakeBacks;
  readonly rules: StoreRules;
  /** In flight, in order. This class takes out what it has finished. */
  readonly groups: Group[];
  /** Groups that the store is given at a time. */
  readonly writesMax: number;
}

/**
 * Writes groups in order, a database several at a time, and closes, acknowledges and delivers them in order; or takes back what the store did not
 * take.
 */
export class GroupWriter {
  readonly #parts: GroupWriterParts;
  /** By counter of the open: what the log has yet to close. */
  readonly #closing = new Map<number, { batch: OpenBatch; group: Group }>();
  #abandoned = 0;

  constructor(parts: GroupWriterParts) {
    this.#parts = parts;
  }

  /** Closes that the log has not answered, and that nobody waits for any more. */
  get abandoned(): number {
    return this.#abandoned;
  }

  /** All its batches have their ids, or were refused. */
  ready(group: Group): void {
    group.state = 'ready';
    if (group.times !== null) group.times.idsAt = performance.now();
    this.#advance();
  }

  /** The log's answer to a close(stored); only with a database. */
  closed(counter: number, isApplied: boolean): void {
    const entry = this.#closing.get(counter);
    if (entry === undefined) return;
    this.#closing.delete(counter);
    const { batch, group } = entry;
    if (batch.isAbandoned) {
      this.#resolveAbandoned(batch, group, isApplied);
      return;
    }
    batch.isRevoked = !isApplied;
    becomeClosed(group);
  }

  /** Somebody else revoked an allotment of this shard, whatever has been done for it here: the process was paused, or cut off. */
  revoked(subject: ActiveSubject, base: number): void {
    const { groups, takeBacks } = this.#parts;
    for (const group of groups) {
      for (const batch of group.batches) {
        const { allotment } = batch;
        if (batch.subject !== subject || batch.base !== base || allotment === null || batch.isAbandoned) continue;
        batch.allotment = null;
        if (this.#closing.delete(batch.counter)) becomeClosed(group);
        takeBacks.giveUp(batch, allotment);
      }
    }
    for (const [counter, { batch }] of this.#closing) {
      if (batch.isAbandoned && batch.subject === subject && batch.base === base) this.closed(counter, false);
    }
  }

  /**
   * The log does not say whether it has closed batches that were sent for it `timeoutMs` ago. They are durable, so what they become is not known to
   * anybody yet: it is taken note of when it comes. `now` in ms of performance.now().
   */
  expire(now: number, timeoutMs: number): void {
    const { takeBacks } = this.#parts;
    for (const { batch, group } of this.#closing.values()) {
      if (batch.isAbandoned || now - group.askedAt < timeoutMs) continue;
      batch.isAbandoned = true;
      this.#abandoned += 1;
      takeBacks.refuseAsUnknown(batch);
      becomeClosed(group);
    }
  }

  #resolveAbandoned(batch: OpenBatch, group: Group, isStored: boolean): void {
    const { events, gathering, takeBacks } = this.#parts;
    const { subject, allotment, publishedAt, expiresMax } = batch;
    this.#abandoned -= 1;
    if (allotment === null) return;
    batch.allotment = null;
    if (isStored) {
      subject.resolved(allotment);
      events.onResolved(subject, allotment, batch.sealed);
    } else takeBacks.mark({ subject, allotment, publishedAt, expiresMax });
    if (!group.wasUncertain) gathering.giveBuilder(batch.builder);
  }

  /**
   * The log has forgotten what became of a batch that it was to close. The store knows, for a mark was there before the log said void, unless it was trimmed
   * since.
   */
  gone(subject: ActiveSubject, base: number): void {
    for (const [counter, { batch }] of this.#closing) {
      if (batch.subject === subject && batch.base === base) void this.#lookUp(batch, counter);
    }
  }

  async #lookUp({ subject, base }: OpenBatch, counter: number): Promise<void> {
    const { store, events } = this.#parts;
    for (;;) {
      try {
        const found = await store.lookup(subject.ref, base);
        if (found === 'absent') this.#forgotten(counter);
        else this.closed(counter, found === 'data');
        events.onProgress();
        return;
      } catch (error) {
        if (error instanceof BrokerError && error.reason === 'SHUTTING_DOWN') return;
        if (!isOutage(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, STORE_RETRY_MS));
      }
    }
  }

  /** The store has neither the batch nor a mark any more: it was trimmed since it had its verdict, and nobody knows which that was. */
  #forgotten(counter: number): void {
    const { events, gathering, takeBacks } = this.#parts;
    const entry = this.#closing.get(counter);
    if (entry === undefined) return;
    this.#closing.delete(counter);
    const { batch, group } = entry;
    const allotment = defined(batch.allotment, 'a batch without ids was to be closed');
    batch.allotment = null;
    batch.subject.resolved(allotment);
    events.onForgotten(batch.subject, allotment);
    if (batch.isAbandoned) {
      this.#abandoned -= 1;
      if (!group.wasUncertain) gathering.giveBuilder(batch.builder);
      return;
    }
    takeBacks.refuseAsUnknown(batch);
    becomeClosed(group);
  }

  /** Finishes groups from the oldest on, as far as they are written; how many. */
  finishWritten(): number {
    const { groups } = this.#parts;
    let done = 0;
    for (let group = groups[0]; group !== undefined; group = groups[0]) {
      if (group.state === 'written') this.#finish(group);
      else if (group.state === 'failed') this.#fail(group);
      else return done;
      groups.shift();
      done += 1;
    }
    return done;
  }

  #advance(): void {
    this.#closeNext();
    this.#writeNext();
  }

  /** What comes behind a failed group must be known before the log is told that it is stored (promise 5). */
  #closeNext(): void {
    for (const group of this.#parts.groups) {
      if (group.state === 'durable') this.#close(group);
      else if (isUnclosed(group)) return;
    }
  }

  #writeNext(): void {
    const { groups, writesMax } = this.#parts;
    let writing = 0;
    for (const group of groups) {
      if (group.state === 'allotting') return;
      if (group.state === 'ready') {
        // A mark may be that of a batch which somebody revoked while it was written: the two would meet in the database.
        if (group.marks.length > 0 && writing > 0) return;
        this.#write(group);
      }
      if (isWriting(group)) writing += 1;
      if (writing >= writesMax) return;
    }
  }

  #write(group: Group): void {
    const { takeBacks, events } = this.#parts;
    const sealed: SealedBatch[] = [];
    for (const batch of group.batches) {
      if (batch.doom >= 0) takeBacks.takeBack(batch, batch.doom);
      if (batch.allotment === null) continue;
      const { subject, base, messages: count, publishedAt, expiresMax } = batch;
      sealed.push({ subject: subject.ref, bytes: batch.sealed, base, count, publishedAt, expiresMax, kind: 'data' });
    }
    for (const { subject, allotment, publishedAt, expiresMax } of group.marks) {
      const { base, count } = allotment;
      const bytes = sealVoidMark(subject.ref.bytes, subject.ref.hash, base, count, publishedAt);
      sealed.push({ subject: subject.ref, bytes, base, count, publishedAt, expiresMax, kind: 'void' });
    }
    if (sealed.length === 0) {
      group.state = 'written';
      events.onProgress();
      return;
    }
    failpoint('shard.before-append');
    group.state = 'writing';
    group.writingSince = performance.now();
    if (group.times !== null) group.times.storeAt = group.writingSince;
    this.#append(group, sealed);
  }

  #append(group: Group, sealed: readonly SealedBatch[]): void {
    const { store, rules, counters, events } = this.#parts;
    const written = store.append(sealed);
    (isPlanted('B2-ack-before-stored') ? unheeded(written) : written).then(
      () => {
        group.state = rules.isRemote ? 'durable' : 'written';
        const now = performance.now();
        if (group.times !== null) group.times.storedAt = now;
        counters.onWritten((now - group.writingSince) * 1000);
        this.#advance();
        events.onProgress();
      },
      (error: unknown) => {
        counters.writeFailed();
        if (error instanceof StoreUncertain) {
          group.wasUncertain = true;
          if (rules.mayRepeat(group.writingSince)) {
            // The same bytes under the same keys: if they are there by now, this says so.
            setTimeout(() => this.#append(group, sealed), REPEAT_MS);
            return;
          }
        }
        this.#becomeFailed(group, error);
      },
    );
  }

  #becomeFailed(group: Group, error: unknown): void {
    const { takeBacks, events } = this.#parts;
    const meant =
      error instanceof StoreUncertain
        ? new BrokerError('STORE_UNAVAILABLE', 'the store did not answer in time', { cause: error })
        : error;
    if (!(meant instanceof BrokerError)) {
      // A defect waits for no group before it, and this one stays as it is: nothing behind it is closed.
      events.onFatal(meant);
      return;
    }
    group.state = 'failed';
    group.error = meant;
    takeBacks.doomBehind(group, REASON_CODE[meant.reason]);
    this.#advance();
    events.onProgress();
  }

  /** Durable in the database: the log is told, and what it has applied may be acknowledged and read (design section 7, rule 1). */
  #close(group: Group): void {
    const { requests, takeBacks } = this.#parts;
    for (const batch of group.batches) {
      // One before it was lost while it was written: the log has closed nothing of it, so its mark may still beat it.
      if (batch.doom >= 0) takeBacks.takeBack(batch, batch.doom);
      if (batch.allotment === null) continue;
      group.unclosed += 1;
      this.#closing.set(batch.counter, { batch, group });
      requests.closeStored(batch.subject, batch.base);
    }
    group.state = group.unclosed > 0 ? 'closing' : 'written';
    group.askedAt = performance.now();
    if (group.times !== null) group.times.closeAt = group.askedAt;
    requests.send();
  }

  #finish(group: Group): void {
    const { requests, main, events, counters, gathering, takeBacks, rules } = this.#parts;
    rules.took();
    let isAnyStored = false;
    for (const batch of group.batches) {
      const { subject, allotment } = batch;
      if (allotment === null || batch.isAbandoned) continue;
      if (batch.isRevoked) {
        takeBacks.giveUp(batch, allotment);
        continue;
      }
      isAnyStored = true;
      if (batch.isUnary) main.acks(batch.base, batch.calls, batch.rows);
      else main.ackRows(batch);
      if (batch.traces !== null) main.traces?.stored(batch);
      subject.resolved(allotment);
      if (!rules.isRemote) requests.closeStored(subject, batch.base);
      events.onResolved(subject, allotment, batch.sealed, batch.traces);
    }
    // A mark that is stored says nothing: marks are taken below the low-space mark too.
    if (isAnyStored) counters.storeRefuses(null);
    for (const mark of group.marks) {
      const { subject, allotment } = mark;
      takeBacks.marked(mark);
      subject.resolved(allotment);
      requests.closeVoid(subject, allotment.base);
      events.onResolved(subject, allotment, null);
    }
    for (const batch of group.batches) {
      // Who still waits for the verdict of an abandoned one is given its bytes.
      if (!group.wasUncertain && !batch.isAbandoned) gathering.giveBuilder(batch.builder);
    }
  }

  /** The store took nothing of the group: its ids are revoked, and its calls are answered when that is applied. */
  #fail(group: Group): void {
    const { requests, counters, gathering, takeBacks, rules } = this.#parts;
    const error = defined(group.error, 'a group failed for no reason');
    for (const batch of group.batches) {
      takeBacks.takeBack(batch, REASON_CODE[error.reason]);
      if (!group.wasUncertain) gathering.giveBuilder(batch.builder);
    }
    const retryAt = performance.now() + STORE_RETRY_MS;
    takeBacks.marksFailed(group.marks, retryAt);
    if (rules.tookNothing(error.reason, group.marks.length > 0, retryAt)) counters.storeRefuses(error.reason);
    requests.send();
  }
}

function isWriting({ state }: Group): boolean {
  return state === 'writing';
}

/** As if it had ended well. */
function unheeded(work: Promise<void>): Promise<void> {
  work.catch(() => undefined);
  return Promise.resolve();
}

/** One batch less is to be closed. */
function becomeClosed(group: Group): void {
  group.unclosed -= 1;
  if (group.unclosed > 0) return;
  group.state = 'written';
  if (group.times !== null) group.times.closedAt = performance.now();
}
