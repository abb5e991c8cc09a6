import { assert } from '../../base/assert.ts';
import { DoorbellRinger } from '../../shm/doorbell.ts';
import { RingProducer } from '../../shm/ring-producer.ts';
import type { SubjectRef } from '../../storage/store.ts';
import { INTEREST_HEADER, LOG_TRACE_BYTES, QUERY_HEADER, RAFT_RING_BYTES, ToRaft } from '../link.ts';
import { Outbox } from '../outbox.ts';

/** Commands are gathered in pieces of at most this many bytes; a quarter of the ring, so that a record of it always fits. */
const PIECE_BYTES = RAFT_RING_BYTES / 4;

/**
 * The shard's requests to the Raft thread. Commands are gathered and sent together, so that a group's opens and the closes of the group
 * before it share one ring record and one log entry. Nothing is lost when the ring is full: `blocked` tells the shard to take in no more.
 */
export class RaftClient {
  readonly #outbox: Outbox;
  readonly #ringer: DoorbellRinger;
  readonly #piece = Buffer.allocUnsafe(PIECE_BYTES);
  readonly #pieceView = new DataView(this.#piece.buffer, this.#piece.byteOffset, PIECE_BYTES);
  #used = 0;
  #nextCounter: number;
  #sent = false;

  /** `generation` keeps the counters of a replaced shard apart from those that its predecessor was still waiting for. */
  constructor(requests: SharedArrayBuffer, raftDoorbell: SharedArrayBuffer, generation: number) {
    this.#outbox = new Outbox(new RingProducer(requests));
    this.#ringer = new DoorbellRinger(raftDoorbell);
    this.#nextCounter = (generation << 24) >>> 0;
  }

  get blocked(): boolean {
    return this.#outbox.blocked;
  }

  /** A number for a request; answers carry it. */
  takeCounter(): number {
    const counter = this.#nextCounter;
    this.#nextCounter = (counter + 1) >>> 0;
    return counter;
  }

  /** Room for a command of `length` bytes: write it at the returned offset of `bytes` / `view`. */
  claim(length: number): number {
    assert(length <= PIECE_BYTES, 'a command is larger than a piece');
    if (this.#used + length > PIECE_BYTES) this.send();
    const offset = this.#used;
    this.#used += length;
    return offset;
  }

  get bytes(): Buffer {
    return this.#piece;
  }

  get view(): DataView {
    return this.#pieceView;
  }

  /** Passes on what was gathered. */
  send(): void {
    if (this.#used === 0) return;
    const at = this.#outbox.begin(ToRaft.COMMANDS, this.#used);
    this.#outbox.bytes.set(this.#piece.subarray(0, this.#used), at);
    this.#outbox.end();
    this.#used = 0;
    this.#sent = true;
  }

  /** Asks for the state of a subject and the verdict of `id` (0: none). */
  query(subject: SubjectRef, id: number): number {
    const counter = this.takeCounter();
    const at = this.#outbox.begin(ToRaft.QUERY, QUERY_HEADER + subject.bytes.length);
    const view = this.#outbox.view;
    view.setFloat64(at, id, true);
    view.setUint32(at + 8, counter, true);
    view.setUint32(at + 12, subject.hash, true);
    this.#outbox.bytes.set(subject.bytes, at + QUERY_HEADER);
    this.#outbox.end();
    this.#sent = true;
    return counter;
  }

  /** The open with this counter, which was not sent yet, is traced. */
  trace(counter: number, context: Uint8Array): void {
    const at = this.#outbox.begin(ToRaft.TRACE, LOG_TRACE_BYTES);
    this.#outbox.view.setUint32(at, counter, true);
    this.#outbox.bytes.set(context, at + 4);
    this.#outbox.end();
    this.#sent = true;
  }

  /** From now on, or no more, the shard is told where the log stands with this subject. */
  interest(subject: SubjectRef, isOn: boolean): void {
    const at = this.#outbox.begin(ToRaft.INTEREST, INTEREST_HEADER + subject.bytes.length);
    this.#outbox.view.setUint32(at, subject.hash, true);
    this.#outbox.view.setUint32(at + 4, isOn ? 1 : 0, true);
    this.#outbox.bytes.set(subject.bytes, at + INTEREST_HEADER);
    this.#outbox.end();
    this.#sent = true;
  }

  /** From now on the shard is told of subjects that get their first ids. */
  watch(): void {
    const at = this.#outbox.begin(ToRaft.WATCH, 4);
    this.#outbox.view.setUint32(at, 1, true);
    this.#outbox.end();
    this.#sent = true;
  }

  /** Newest stored ids, packed as ToRaft.VERIFY says. */
  verify(packed: Uint8Array): void {
    const at = this.#outbox.begin(ToRaft.VERIFY, packed.length);
    this.#outbox.bytes.set(packed, at);
    this.#outbox.end();
    this.#sent = true;
  }

  /** Everything was sent with `verify`. */
  verified(): void {
    const at = this.#outbox.begin(ToRaft.VERIFIED, 4);
    this.#outbox.view.setUint32(at, 0, true);
    this.#outbox.end();
    this.#sent = true;
  }

  /** Moves what waited, and rings the Raft thread once for everything of this round. */
  flush(): void {
    this.#outbox.flush();
    if (!this.#sent && !this.#outbox.blocked) return;
    this.#sent = false;
    this.#ringer.ring();
  }
}

/** Requests that wait for an answer, by counter. */
export class Pending<T> {
  readonly #byCounter = new Map<number, T>();

  get size(): number {
    return this.#byCounter.size;
  }

  set(counter: number, value: T): void {
    this.#byCounter.set(counter, value);
  }

  /** Null for an answer to a predecessor of this thread. */
  take(counter: number): T | null {
    const value = this.#byCounter.get(counter) ?? null;
    this.#byCounter.delete(counter);
    return value;
  }

  /** Takes out those that `isOver` accepts. */
  takeThose(isOver: (value: T) => boolean): T[] {
    const taken: T[] = [];
    for (const [counter, value] of this.#byCounter) {
      if (!isOver(value)) continue;
      this.#byCounter.delete(counter);
      taken.push(value);
    }
    return taken;
  }
}
