import { assert } from '../../base/assert.ts';
import { failpoint } from '../../base/failpoint.ts';
import { SLOT_COUNT, slotOfHash } from '../../base/subject.ts';
import type { RingConsumer } from '../../shm/ring-consumer.ts';
import type { SlotColumns } from '../../storage/embedded/slot-index.ts';
import type { ExportedSlots, StreamFailure } from '../messages.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { Delivery } from './delivery.ts';
import type { LookupPath } from './lookup-path.ts';
import type { MainPort } from './main-port.ts';
import type { PeerBatches } from './peer-batches.ts';
import type { StreamFailures } from './stream-failures.ts';
import type { ActiveSubject, ActiveSubjects } from './subjects.ts';

/** The slots of this shard; changes only by moves. */
export class OwnedSlots {
  readonly #owned: Uint8Array;

  /** `owned`: by slot, 1 for the shard's. */
  constructor(owned: Uint8Array) {
    assert(owned.length === SLOT_COUNT, 'one byte a slot');
    this.#owned = Uint8Array.from(owned);
  }

  has(slot: number): boolean {
    return this.#owned[slot] === 1;
  }

  add(slots: readonly number[]): void {
    for (const slot of slots) {
      assert(!this.has(slot), () => `slot ${slot} is owned already`);
      this.#owned[slot] = 1;
    }
  }

  remove(slots: readonly number[]): void {
    for (const slot of slots) {
      assert(this.has(slot), () => `slot ${slot} is not owned`);
      this.#owned[slot] = 0;
    }
  }
}

/** What a drain needs of the store. */
export interface SlotStore {
  exportSlot(slot: number): SlotColumns | null;
  importSlot(slot: number, columns: SlotColumns | null): void;
}

export interface DrainParts {
  readonly owned: OwnedSlots;
  readonly store: SlotStore;
  readonly subjects: ActiveSubjects;
  readonly requests: AllotRequests;
  readonly lookup: LookupPath;
  readonly delivery: Delivery;
  readonly failures: StreamFailures;
  readonly peerBatches: Pick<PeerBatches, 'dropSlots'>;
  readonly main: MainPort;
  readonly fromMainPayload: RingConsumer;
  readonly onExported: (token: number, exported: ExportedSlots) => void;
  readonly onCancelled: (token: number) => void;
}

/**
 * reading: what main sent before it held the slots is still on the payload ring. settling: it is on its way. closing: everything has its verdict
 * and its answer; the log is told, and says that it has applied that. leaving: the answers wait for room on the rings to main.
 */
type Phase = 'reading' | 'settling' | 'closing' | 'leaving';

interface Drain {
  readonly token: number;
  readonly slots: readonly number[];
  readonly payloadPosition: number;
  phase: Phase;
  subjects: readonly ActiveSubject[];
  /** So many of them are settled; they stay so, since nothing new comes. */
  settled: number;
}

/**
 * Slots leave this shard. Main sends no more of their work; what is here comes to its end in the usual way, and only then are they handed over, so
 * that two shards never have work of one subject in hand. A thread that dies on the way has lost nothing: until main has the index it
 * counts as the owner, and its replacement makes the index again from the segments.
 */
export class SlotDrain {
  readonly #parts: DrainParts;
  #drain: Drain | null = null;

  constructor(parts: DrainParts) {
    this.#parts = parts;
  }

  get active(): boolean {
    return this.#drain !== null;
  }

  /** `payloadPosition`: of the payload ring from main, behind which nothing concerns the slots. */
  begin(token: number, slots: readonly number[], payloadPosition: number): void {
    assert(this.#drain === null, 'a shard drains one piece at a time');
    for (const slot of slots) assert(this.#parts.owned.has(slot), () => `slot ${slot} is not here to be drained`);
    this.#drain = { token, slots, payloadPosition, phase: 'reading', subjects: [], settled: 0 };
    failpoint('move.drain');
  }

  /** Too late once the slots are exported: main has that message then. */
  cancel(token: number): void {
    if (this.#drain?.token !== token) return;
    this.#drain = null;
    this.#parts.onCancelled(token);
  }

  import(slots: readonly number[], columns: readonly (SlotColumns | null)[], failures: readonly StreamFailure[]): void {
    failpoint('move.import');
    const { owned, store, subjects } = this.#parts;
    owned.add(slots);
    slots.forEach((slot, i) => {
      store.importSlot(slot, columns[i] ?? null);
    });
    for (const failure of failures) {
      const { subject, hash } = failure;
      this.#parts.failures.give(subjects.get(subject, 0, subject.length, hash), failure);
    }
    failpoint('move.imported');
  }

  /** One round. Returns the number of things done. */
  work(): number {
    const drain = this.#drain;
    if (drain === null) return 0;
    switch (drain.phase) {
      case 'reading':
        return this.#maybeSettle(drain);
      case 'settling':
        return this.#maybeClose(drain);
      case 'closing':
        return 0;
      case 'leaving':
        return this.#maybeLeave(drain);
    }
  }

  #maybeSettle(drain: Drain): number {
    const { fromMainPayload, subjects } = this.#parts;
    if (!fromMainPayload.hasPassed(drain.payloadPosition)) return 0;
    const leaving = new Set(drain.slots);
    // Nothing of these slots comes in any more, so this is all there will be.
    drain.subjects = subjects.all().filter(({ ref }) => leaving.has(slotOfHash(ref.hash)));
    this.#parts.lookup.release(drain.subjects);
    drain.phase = 'settling';
    return 1;
  }

  #maybeClose(drain: Drain): number {
    const { requests, lookup } = this.#parts;
    for (; drain.settled < drain.subjects.length; drain.settled++) {
      if (!(drain.subjects[drain.settled] as ActiveSubject).settled) return 0;
    }
    failpoint('move.settled');
    // Closes that lie on the ring die with this thread, and the next owner of the slots would not know that they are missing.
    requests.send();
    drain.phase = 'closing';
    lookup.barrier(() => {
      if (this.#drain === drain) drain.phase = 'leaving';
    });
    return 1;
  }

  #maybeLeave(drain: Drain): number {
    const { main, delivery, lookup, subjects, store, owned } = this.#parts;
    if (main.blocked) return 0;
    // Main sends nothing of these slots, but the log may have: a mark to be written, or an answer that makes a reader ask again.
    if (drain.subjects.some((subject) => !subject.settled)) {
      drain.settled = 0;
      drain.phase = 'settling';
      return 1;
    }
    const { token, slots } = drain;
    this.#drain = null;
    const leaving = new Set(drain.subjects);
    delivery.drop(leaving);
    lookup.drop(leaving);
    const failures = this.#parts.failures.take(leaving);
    this.#parts.peerBatches.dropSlots(slots);
    subjects.forget(leaving);
    owned.remove(slots);
    const columns = slots.map((slot) => store.exportSlot(slot));
    failpoint('move.export');
    this.#parts.onExported(token, { slots, columns, failures, ...main.ringPositions });
    failpoint('move.exported');
    return 1;
  }
}
