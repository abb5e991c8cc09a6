import { slotOfHash } from '../../base/subject.ts';
import { BatchKind } from '../../batch/batch-format.ts';
import { BatchView } from '../../batch/batch-view.ts';
import type { SubjectRef } from '../../storage/store.ts';
import { PEER_BATCH_HEADER, ToMain } from '../link.ts';
import type { Arrivals } from './arrivals.ts';
import type { MainPort } from './main-port.ts';
import type { RecentBatches } from './recent-batches.ts';

export interface PeerBatchCounters {
  /** A batch for other nodes: handed to the main thread, or dropped because its ring had no room. */
  peerBatch(isDropped: boolean): void;
  /** A batch of another node: kept, or refused because it is not what it is said to be. */
  peerBatchCame(isKept: boolean): void;
}

interface Allotted {
  readonly base: number;
  readonly count: number;
  /** Log time, epoch ms. */
  readonly publishedAt: number;
}

/** Where batches of other nodes are kept. */
export interface KeptBatches {
  readonly recent: RecentBatches;
  readonly arrivals: Arrivals;
}

/**
 * Stored batches on their way to other nodes, and from them. What is on its way is dropped rather than waited for: a node that lacks it reads the store.
 *
 * May a batch that another node sent be wrong? Ids are allotted once, so the ids of a batch have that batch or, if it was revoked, nothing; and a
 * void must never be read as a message. So the writer sends a batch only when the log has closed it as stored, which is the verdict of all nodes for ever,
 * whether or not the log of this one has come that far. Until it has, nobody here reads these ids. That the bytes are the batch of this subject and
 * these ids is checked here; that a peer does not lie is what it is a member for.
 */
export class PeerBatches {
  readonly #main: MainPort;
  /** Null: the store is embedded, and has no need of it. */
  readonly #kept: KeptBatches | null;
  readonly #counters: PeerBatchCounters;
  /** Subjects that other nodes have subscribers of, by their bytes as latin1, with their slot. */
  readonly #wanted = new Map<string, number>();
  #wantsAll = false;
  readonly #view = new BatchView();

  constructor(main: MainPort, kept: KeptBatches | null, counters: PeerBatchCounters) {
    this.#main = main;
    this.#kept = kept;
    this.#counters = counters;
  }

  /** An empty `subject`: all. */
  want(subject: Uint8Array, hash: number, isWanted: boolean): void {
    if (subject.length === 0) this.#wantsAll = isWanted;
    else if (isWanted) this.#wanted.set(keyOf(subject), slotOfHash(hash));
    else this.#wanted.delete(keyOf(subject));
  }

  /** The slots are another shard's from now on, which is told what is wanted of them. */
  dropSlots(slots: readonly number[]): void {
    if (this.#wanted.size === 0) return;
    const leaving = new Set(slots);
    for (const [key, slot] of this.#wanted) if (leaving.has(slot)) this.#wanted.delete(key);
  }

  /** The log has closed the ids: as stored, then `bytes` are the batch, valid until this returns; or as void, which nobody is sent. */
  resolved(
    subject: SubjectRef,
    { base, count, publishedAt }: Allotted,
    bytes: Uint8Array | null,
    trace: Uint8Array = NO_TRACE,
  ): void {
    if (bytes === null) return;
    if (!this.#wantsAll && (this.#wanted.size === 0 || !this.#wanted.has(keyOf(subject.bytes)))) return;
    const { payload, payloadOutbox } = this.#main;
    const name = subject.bytes;
    const batchEnd = PEER_BATCH_HEADER + name.length + bytes.length;
    const length = batchEnd + trace.length;
    // Deliveries to clients of this node come first: they get at least half of the ring.
    const isFree = length <= payload.recordBytesMax && payload.freeBytes() - length >= payload.capacityBytes / 2;
    const at = isFree && !payloadOutbox.blocked ? payload.claim(ToMain.PEER_BATCH, length) : -1;
    this.#counters.peerBatch(at < 0);
    if (at < 0) return;
    const { view } = payload;
    view.setFloat64(at, base, true);
    view.setFloat64(at + 8, publishedAt, true);
    view.setUint32(at + 16, count, true);
    view.setUint32(at + 20, subject.hash, true);
    view.setUint32(at + 24, name.length, true);
    view.setUint32(at + 28, trace.length, true);
    payload.bytes.set(trace, at + batchEnd);
    payload.bytes.set(name, at + PEER_BATCH_HEADER);
    payload.bytes.set(bytes, at + PEER_BATCH_HEADER + name.length);
    payload.commit();
    this.#main.touched();
  }

  /** A ToShard.PEER_BATCH record. */
  came(bytes: Uint8Array, record: DataView, offset: number, length: number): void {
    if (this.#kept === null) return;
    const base = record.getFloat64(offset, true);
    const count = record.getUint32(offset + 16, true);
    const hash = record.getUint32(offset + 20, true);
    const nameAt = offset + PEER_BATCH_HEADER;
    const batchAt = nameAt + record.getUint32(offset + 24, true);
    const subject = { bytes: bytes.subarray(nameAt, batchAt), hash };
    const batch = bytes.subarray(batchAt, offset + length);
    const isGood = this.#isBatchOf(batch, subject, base, count, record.getFloat64(offset + 8, true));
    this.#counters.peerBatchCame(isGood);
    if (!isGood) return;
    const { recent, arrivals } = this.#kept;
    recent.add(subject, base, count, batch);
    arrivals.came(subject, base);
  }

  /** As checkedItem of src/storage does for what a database has, and that its records can be walked: nobody looked at these when they were taken in. */
  #isBatchOf(batch: Uint8Array, subject: SubjectRef, base: number, count: number, publishedAt: number): boolean {
    const view = this.#view;
    return (
      view.wrap(batch, 0) === null &&
      view.kind === BatchKind.DATA &&
      view.totalLength === batch.length &&
      view.base === base &&
      view.count === count &&
      view.publishedAt === publishedAt &&
      view.hash === subject.hash &&
      view.subjectIs(subject.bytes) &&
      view.verifyBody() &&
      view.verifyRecords()
    );
  }
}

const NO_TRACE = new Uint8Array(0);

function keyOf({ buffer, byteOffset, length }: Uint8Array): string {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, length).toString('latin1');
}
