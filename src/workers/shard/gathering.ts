import { crc32 } from '../../base/checksum.ts';
import { BatchBuilder } from '../../batch/batch-builder.ts';
import type { RecordsScan } from '../../batch/records-scan.ts';
import { type SealLimits, type SealState, shouldSeal } from '../../batch/seal-policy.ts';
import type { PublishScan } from '../../grpc/codec.ts';
import { ANY_HEAD, OpenBatch, type ProducerPart } from './open-batch.ts';
import type { ActiveSubject } from './subjects.ts';

/** Keeps the request for one batch within a piece of the Raft client, also if every row has a producer id of 64 bytes. */
const WAITING_ROWS_MAX = 8_192;
const BUILDERS_KEPT = 256;

/** Messages that wait for the next group, in one open batch a subject, and the memory that they are gathered in. */
export class Gathering {
  readonly #seal: SealLimits;
  readonly #bytesMax: number;
  readonly #builders: BatchBuilder[] = [];
  #batches: OpenBatch[] = [];
  #bytes = 0;
  #rows = 0;
  /** When the oldest waiting message came, ms of performance.now(). */
  #oldest = 0;
  /** The main thread has no idle time left (seal-policy.ts). */
  isSourceBusy = false;

  constructor(seal: SealLimits, batchBytes: number) {
    this.#seal = seal;
    this.#bytesMax = batchBytes * 2;
  }

  /** Enough waits for the store. */
  get full(): boolean {
    return this.#bytes >= this.#bytesMax || this.#rows >= WAITING_ROWS_MAX;
  }

  get empty(): boolean {
    return this.#batches.length === 0;
  }

  get batches(): readonly OpenBatch[] {
    return this.#batches;
  }

  /** It is time for a group. `now` in ms of performance.now(). */
  isDue(groupsInFlight: number, now: number): boolean {
    const state: SealState = {
      groupsInFlight,
      waitingBytes: this.#bytes,
      waitingMessages: this.#rows,
      oldestMs: now - this.#oldest,
      isSourceBusy: this.isSourceBusy,
    };
    return shouldSeal(state, this.#seal);
  }

  /** The oldest waits as long as that, or longer. `now` in ms of performance.now(). */
  waitsFor(ms: number, now: number): boolean {
    return this.#rows > 0 && now - this.#oldest >= ms;
  }

  /** In how many ms a group is due at the latest; Infinity while nothing waits. */
  dueIn(now: number): number {
    return this.#rows > 0 ? Math.max(0, this.#oldest + this.#seal.lingerMs - now) : Number.POSITIVE_INFINITY;
  }

  /** The batches that waited, for a group. */
  take(): OpenBatch[] {
    const taken = this.#batches;
    this.#batches = [];
    this.#bytes = 0;
    this.#rows = 0;
    for (const batch of taken) if (batch.subject.waiting === batch) batch.subject.waiting = null;
    return taken;
  }

  /** Adds the scanned message of a unary call, and returns its batch; `bytes` is the ring's memory, copied here. `deadline` in epoch ms. */
  add(subject: ActiveSubject, call: number, bytes: Uint8Array, scan: PublishScan, deadline: number): OpenBatch {
    const batch = this.#waitingBatch(subject);
    const before = batch.builder.byteLength;
    batch.builder.appendRecord(
      bytes,
      scan.bodyStart,
      scan.bodyEnd,
      scan.headers,
      scan.headerCount,
      scan.expirationSeconds,
    );
    let part: ProducerPart | null = null;
    if (scan.sequence > 0) {
      const producer = Buffer.from(bytes.subarray(scan.producerStart, scan.producerEnd));
      part = { producer, sequence: scan.sequence, checksum: crc32(batch.builder.lastRecord()) };
    }
    batch.addCall(call, part, deadline);
    this.#added(batch, before);
    return batch;
  }

  /**
   * Adds a batch of a publish stream: the records section bytes[start, end), which `scan` has found good. `producer`: null if nobody remembers
   * its sequence. `expectedHead`: -1 = any.
   */
  addSection(
    subject: ActiveSubject,
    token: number,
    bytes: Uint8Array,
    start: number,
    end: number,
    scan: RecordsScan,
    producer: Uint8Array | null,
    sequence: number,
    expectedHead: number,
  ): OpenBatch {
    // What is expected holds of this batch alone.
    if (expectedHead !== ANY_HEAD) subject.waiting = null;
    const batch = this.#waitingBatch(subject);
    const before = batch.builder.byteLength;
    let part: ProducerPart | null = null;
    if (producer !== null) {
      const checksum = crc32(new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start));
      part = { producer, sequence, checksum };
    }
    batch.builder.appendSection(bytes, start, end, scan, part === null ? null : part.checksum);
    batch.addSection(token, part, sequence, scan.count);
    batch.expectedHead = expectedHead;
    if (expectedHead !== ANY_HEAD) subject.waiting = null;
    this.#added(batch, before);
    return batch;
  }

  #waitingBatch(subject: ActiveSubject): OpenBatch {
    if (subject.waiting !== null) return subject.waiting;
    const batch = new OpenBatch(subject, this.#takeBuilder(subject));
    subject.waiting = batch;
    if (this.#rows === 0) this.#oldest = performance.now();
    this.#batches.push(batch);
    subject.opening += 1;
    return batch;
  }

  #added(batch: OpenBatch, bytesBefore: number): void {
    this.#bytes += batch.builder.byteLength - bytesBefore;
    this.#rows += 1;
    // A stored batch is read as a whole: it stays small enough for that.
    if (batch.builder.byteLength >= this.#seal.fullBytes) batch.subject.waiting = null;
  }

  /** The memory of a batch that nobody reads any more. */
  giveBuilder(builder: BatchBuilder): void {
    if (this.#builders.length < BUILDERS_KEPT) this.#builders.push(builder);
  }

  #takeBuilder(subject: ActiveSubject): BatchBuilder {
    const builder = this.#builders.pop() ?? new BatchBuilder();
    builder.reset(subject.ref.bytes, 0, subject.ref.bytes.length, subject.ref.hash);
    return builder;
  }
}
