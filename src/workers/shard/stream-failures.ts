import { REASON_NAMES, REASONS, type Reason, type ReasonRow } from '../../base/errors.ts';
import { StreamToken } from '../link.ts';
import type { StreamFailure } from '../messages.ts';
import type { OpenBatch } from './open-batch.ts';
import type { ActiveSubject } from './subjects.ts';

/**
 * Keeps the order of a publish stream's batches of one subject when one of them is refused and may come again (design section 3, promise 5): until it
 * does, later ones are refused with PREDECESSOR_FAILED. What may not come again with success (a malformed batch, another head) fails alone.
 */
export class StreamFailures {
  readonly #subjects = new Set<ActiveSubject>();

  /** A batch of a stream was refused for that reason. */
  note(subject: ActiveSubject, token: number, sequence: number, reason: Reason): void {
    const row: ReasonRow = REASONS[reason];
    // What has an unknown outcome is sent again to find out; if it was not stored then, those behind it must not be.
    const mayComeAgain = row.retryAfterMs !== undefined || reason === 'OUTCOME_UNKNOWN';
    if (!StreamToken.is(token) || !mayComeAgain) return;
    const stream = StreamToken.stream(token);
    subject.failures ??= new Map();
    this.#subjects.add(subject);
    subject.failures.set(stream, Math.min(sequence, subject.failures.get(stream) ?? sequence));
  }

  /** The batch would overtake one that was refused. */
  isBehind(subject: ActiveSubject, token: number, sequence: number): boolean {
    if (subject.failures === null || !StreamToken.is(token)) return false;
    const failed = subject.failures.get(StreamToken.stream(token));
    return failed !== undefined && sequence > failed;
  }

  hasRowBehind(batch: OpenBatch): boolean {
    if (batch.subject.failures === null || batch.isUnary) return false;
    for (let row = 0; row < batch.rows; row++) {
      if (this.isBehind(batch.subject, batch.calls[row] as number, batch.sequenceOf(row))) return true;
    }
    return false;
  }

  /** A batch came that is not behind: if it is the refused one, those behind it may follow. */
  cameAgain(subject: ActiveSubject, token: number): void {
    if (subject.failures === null || !subject.failures.delete(StreamToken.stream(token))) return;
    this.#forgetIfEmpty(subject);
  }

  /** The stream has ended: its number may stand for another one from now on. */
  streamEnded(stream: number): void {
    for (const subject of this.#subjects) {
      subject.failures?.delete(stream);
      this.#forgetIfEmpty(subject);
    }
  }

  /** The reason of each row of a batch that is refused with `reasonCode`; those that may come again are noted. */
  reasonsOf(batch: OpenBatch, reasonCode: number): Uint16Array {
    const reasons = new Uint16Array(batch.rows);
    const reason = REASON_NAMES[reasonCode] as Reason;
    for (let row = 0; row < batch.rows; row++) {
      const token = batch.calls[row] as number;
      const sequence = batch.sequenceOf(row);
      const isBehind = this.isBehind(batch.subject, token, sequence);
      reasons[row] = isBehind ? PREDECESSOR_FAILED : reasonCode;
      if (!isBehind) this.note(batch.subject, token, sequence, reason);
    }
    return reasons;
  }

  /** Nobody can tell what becomes of a batch: its rows may come again. */
  noteUnknown(batch: OpenBatch): Uint16Array {
    for (let row = 0; row < batch.rows; row++) {
      const token = batch.calls[row] as number;
      const sequence = batch.sequenceOf(row);
      if (!this.isBehind(batch.subject, token, sequence)) {
        this.note(batch.subject, token, sequence, 'OUTCOME_UNKNOWN');
      }
    }
    return new Uint16Array(batch.rows).fill(OUTCOME_UNKNOWN);
  }

  /** Hands over what is remembered of subjects that are another shard's from now on. */
  take(leaving: ReadonlySet<ActiveSubject>): StreamFailure[] {
    const taken: StreamFailure[] = [];
    for (const subject of this.#subjects) {
      if (!leaving.has(subject)) continue;
      const { bytes, hash } = subject.ref;
      for (const [stream, sequence] of subject.failures ?? []) taken.push({ subject: bytes, hash, stream, sequence });
      subject.failures = null;
      this.#subjects.delete(subject);
    }
    return taken;
  }

  /** What another shard remembered of a subject that is here now. */
  give(subject: ActiveSubject, { stream, sequence }: StreamFailure): void {
    subject.failures ??= new Map();
    subject.failures.set(stream, sequence);
    this.#subjects.add(subject);
  }

  #forgetIfEmpty(subject: ActiveSubject): void {
    if (subject.failures === null || subject.failures.size > 0) return;
    subject.failures = null;
    this.#subjects.delete(subject);
  }
}

const PREDECESSOR_FAILED = REASON_NAMES.indexOf('PREDECESSOR_FAILED');
const OUTCOME_UNKNOWN = REASON_NAMES.indexOf('OUTCOME_UNKNOWN');
