import { assert } from '../base/assert.ts';
import type { Index } from './messages.ts';

/**
 * probe: where the logs match is not known; one append per heartbeat, no more.
 * replicate: it is known; appends follow each other without waiting, up to the inflight limits.
 * snapshot: what the node needs is compacted away; nothing is sent until the snapshot's fate is known.
 */
export type ProgressState = 'probe' | 'replicate' | 'snapshot';

/** Appends sent and not yet answered: a ring of (last position, bytes), oldest first. */
export class Inflights {
  readonly #last: Float64Array;
  readonly #bytes: Float64Array;
  readonly #bytesMax: number;
  #start = 0;
  #count = 0;
  #byteSum = 0;

  constructor(messagesMax: number, bytesMax: number) {
    assert(messagesMax > 0 && bytesMax > 0, 'inflight limits must be positive');
    this.#last = new Float64Array(messagesMax);
    this.#bytes = new Float64Array(messagesMax);
    this.#bytesMax = bytesMax;
  }

  get count(): number {
    return this.#count;
  }

  /** The byte limit is soft: the append that reaches it was still sent. */
  get isFull(): boolean {
    return this.#count === this.#last.length || this.#byteSum >= this.#bytesMax;
  }

  add(last: Index, bytes: number): void {
    assert(!this.isFull, 'too many appends in flight');
    const at = (this.#start + this.#count) % this.#last.length;
    this.#last[at] = last;
    this.#bytes[at] = bytes;
    this.#count += 1;
    this.#byteSum += bytes;
  }

  /** Everything up to `index` has arrived. */
  freeTo(index: Index): void {
    while (this.#count > 0 && (this.#last[this.#start] as number) <= index) {
      this.#byteSum -= this.#bytes[this.#start] as number;
      this.#start = (this.#start + 1) % this.#last.length;
      this.#count -= 1;
    }
  }

  clear(): void {
    this.#start = 0;
    this.#count = 0;
    this.#byteSum = 0;
  }
}

/** What the leader knows of one node's log. Invariant: match < next. */
export class Progress {
  state: ProgressState = 'probe';
  /** The highest position known to be durable on the node and equal to ours. */
  match: Index;
  /** The next position to send. */
  next: Index;
  /** The highest commit index told to the node with a position that lets it take it. */
  sentCommit: Index = 0;
  /** Heard from since the last quorum check. */
  isActive: boolean;
  /** probe: waits for the answer or a heartbeat's. replicate: the window is full. */
  isPaused = false;
  /** Position of the snapshot on its way; 0 outside of `snapshot`. */
  pendingSnapshot: Index = 0;
  /** Snapshots sent since `match` last rose: each of them but the one on its way was in vain. */
  snapshotsTried = 0;
  /** Ticks before the next snapshot may be sent. */
  snapshotWait = 0;
  isLearner: boolean;
  readonly inflights: Inflights;

  constructor(options: { next: Index; match: Index; isLearner: boolean; isActive: boolean; inflights: Inflights }) {
    assert(options.match < options.next, 'match must be below next');
    this.next = options.next;
    this.match = options.match;
    this.isLearner = options.isLearner;
    this.isActive = options.isActive;
    this.inflights = options.inflights;
  }

  #enter(state: ProgressState): void {
    this.state = state;
    this.isPaused = false;
    this.pendingSnapshot = 0;
    this.inflights.clear();
  }

  /** After a snapshot that arrived the probe starts behind it. */
  becomeProbe(): void {
    const arrived = this.pendingSnapshot;
    this.#enter('probe');
    this.next = Math.max(this.match, arrived) + 1;
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
  }

  becomeReplicate(): void {
    this.#enter('replicate');
    this.next = this.match + 1;
  }

  becomeSnapshot(index: Index): void {
    assert(this.snapshotWait === 0, 'a snapshot is sent before its time');
    this.#enter('snapshot');
    this.pendingSnapshot = index;
    this.snapshotsTried += 1;
    this.next = index + 1;
    this.sentCommit = index;
  }

  /** Nothing with entries may be sent now. */
  get isBlocked(): boolean {
    return this.state === 'snapshot' || this.isPaused;
  }

  /** An append with `count` entries and the commit index was sent. */
  onSent(count: number, bytes: number, commit: Index): void {
    assert(this.state !== 'snapshot', 'append sent during a snapshot');
    if (this.state === 'replicate') {
      if (count > 0) {
        this.next += count;
        this.inflights.add(this.next - 1, bytes);
      }
      this.isPaused = this.inflights.isFull;
    } else {
      this.isPaused = true;
    }
    this.sentCommit = commit;
  }

  /** Telling the node the commit index could move it: it is not told yet, and the node may hold what is committed. */
  needsCommit(commit: Index): boolean {
    return commit > this.sentCommit && this.sentCommit < this.next - 1;
  }

  /** The node holds everything up to `index`. False when that was known. */
  maybeAdvance(index: Index): boolean {
    if (index <= this.match) {
      return false;
    }
    this.match = index;
    this.next = Math.max(this.next, index + 1);
    this.isPaused = false;
    this.snapshotsTried = 0;
    this.snapshotWait = 0;
    return true;
  }

  /**
   * An append after position `rejected` was refused; the logs may match at `hint`. False when the answer is old: what it
   * refuses is acknowledged since, or is not what was asked last.
   */
  maybeRetreat(rejected: Index, hint: Index): boolean {
    if (this.state === 'replicate') {
      if (rejected <= this.match) {
        return false;
      }
      this.next = this.match + 1;
    } else {
      if (this.next - 1 !== rejected) {
        return false;
      }
      this.next = Math.max(Math.min(rejected, hint + 1), this.match + 1);
      this.isPaused = false;
    }
    this.sentCommit = Math.min(this.sentCommit, this.next - 1);
    return true;
  }
}
