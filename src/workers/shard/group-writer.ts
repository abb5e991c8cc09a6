import { BrokerError, REASON_CODE } from '../../base/errors.ts';
import { failpoint } from '../../base/failpoint.ts';
import { sealVoidMark } from '../../batch/batch-builder.ts';
import { isOutage } from '../../storage/driver-errors.ts';
import { type MessageStore, type SealedBatch, StoreUncertain } from '../../storage/store.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { Gathering } from './gathering.ts';
import type { Group } from './group.ts';
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
}

/** Writes groups one after another, and acknowledges and delivers them in order; or takes back what the store did not take. */
export class GroupWriter {
  readonly #parts: GroupWriterParts;
  /** By counter of the open: what the log has yet to close. */
  readonly #closing = new Map<number, { batch: OpenBatch; group: Group }>();

  constructor(parts: GroupWriterParts) {
    this.#parts = parts;
  }

  /** All its batches have their ids, or were refused. */
  ready(group: Group): void {
    group.state = 'ready';
    this.#writeNext();
  }

  /** The log's answer to a close(stored); only with a database. */
  closed(counter: number, isApplied: boolean): void {
    const entry = this.#closing.get(counter);
    if (entry === undefined) return;
    this.#closing.delete(counter);
    entry.batch.isRevoked = !isApplied;
    entry.group.unclosed -= 1;
    if (entry.group.unclosed === 0) entry.group.state = 'written';
  }

  /** The log has forgotten what became of a batch that it was to close. The store knows: a mark was there before the log said void. */
  gone(subject: ActiveSubject, base: number): void {
    for (const [counter, { batch }] of this.#closing) {
      if (batch.subject === subject && batch.base === base) void this.#lookUp(batch, counter);
    }
  }

  async #lookUp({ subject, base }: OpenBatch, counter: number): Promise<void> {
    const { store, events } = this.#parts;
    for (;;) {
      try {
        this.closed(counter, (await store.lookup(subject.ref, base)) === 'data');
        events.onProgress();
        return;
      } catch (error) {
        if (error instanceof BrokerError && error.reason === 'SHUTTING_DOWN') return;
        if (!isOutage(error)) throw error;
        await new Promise((resolve) => setTimeout(resolve, STORE_RETRY_MS));
      }
    }
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

  /** What comes behind a failed group must be known before it is stored (promise 5). */
  #writeNext(): void {
    for (const group of this.#parts.groups) {
      if (group.state === 'closing' || group.state === 'written' || group.state === 'failed') continue;
      if (group.state === 'ready') this.#write(group);
      return;
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
      this.#writeNext();
      events.onProgress();
      return;
    }
    failpoint('shard.before-append');
    group.state = 'writing';
    group.writingSince = performance.now();
    this.#append(group, sealed);
  }

  #append(group: Group, sealed: readonly SealedBatch[]): void {
    const { store, rules, counters, events } = this.#parts;
    store.append(sealed).then(
      () => {
        if (rules.isRemote) this.#close(group);
        else group.state = 'written';
        counters.onWritten((performance.now() - group.writingSince) * 1000);
        this.#writeNext();
        events.onProgress();
      },
      (error: unknown) => {
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
    group.state = 'failed';
    group.error =
      error instanceof StoreUncertain
        ? new BrokerError('STORE_UNAVAILABLE', 'the store did not answer in time', { cause: error })
        : error;
    if (group.error instanceof BrokerError) takeBacks.doomBehind(group, REASON_CODE[group.error.reason]);
    this.#writeNext();
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
    requests.send();
  }

  #finish(group: Group): void {
    const { requests, main, events, counters, gathering, takeBacks, rules } = this.#parts;
    rules.took();
    let isAnyStored = false;
    for (const batch of group.batches) {
      const { subject, allotment } = batch;
      if (allotment === null) continue;
      if (batch.isRevoked) {
        takeBacks.giveUp(batch, allotment);
        continue;
      }
      isAnyStored = true;
      if (batch.isUnary) main.acks(batch.base, batch.calls, batch.rows);
      else main.ackRows(batch);
      subject.resolved(allotment);
      if (!rules.isRemote) requests.closeStored(subject, batch.base);
      events.onResolved(subject, allotment, batch.sealed);
    }
    // A mark that is stored says nothing: marks are taken below the low-space mark too.
    if (isAnyStored) counters.storeRefuses(null);
    for (const { subject, allotment } of group.marks) {
      subject.resolved(allotment);
      requests.closeVoid(subject, allotment.base);
      events.onResolved(subject, allotment, null);
    }
    for (const batch of group.batches) if (!group.wasUncertain) gathering.giveBuilder(batch.builder);
  }

  /** The store took nothing of the group: its ids are revoked, and its calls are answered when that is applied. */
  #fail(group: Group): void {
    const { requests, events, counters, gathering, takeBacks, rules } = this.#parts;
    const { error } = group;
    if (!(error instanceof BrokerError)) {
      events.onFatal(error);
      return;
    }
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
