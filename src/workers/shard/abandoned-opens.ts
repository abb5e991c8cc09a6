import type { PartAnswers, VoidMark } from './group.ts';
import type { OpenBatch } from './open-batch.ts';
import type { ActiveSubject } from './subjects.ts';

interface Abandoned {
  readonly subject: ActiveSubject;
  readonly expiresMax: number;
  readonly messages: number;
  /** Messages of each row, if the answer comes part by part. */
  readonly rows: Uint32Array | null;
}

/**
 * Requests for ids that the log did not answer in time: their senders have been told so, and what they sent is dropped. Ids that come all the
 * same are for nobody. The subject stays in use until then (`opening`), so that its slot does not leave with an answer on its way.
 */
export class AbandonedOpens {
  readonly #byCounter = new Map<number, Abandoned>();

  get size(): number {
    return this.#byCounter.size;
  }

  add({ subject, expiresMax, messages, rows, parts, counter }: OpenBatch, messagesOf: (row: number) => number): void {
    const counts = parts === null ? null : Uint32Array.from({ length: rows }, (_, row) => messagesOf(row));
    this.#byCounter.set(counter, { subject, expiresMax, messages, rows: counts });
  }

  /** The ids that came for one of them, to be made void; null: it is none of them. */
  opened(counter: number, base: number, time: number): VoidMark | null {
    const entry = this.#take(counter);
    return entry === null ? null : toBeVoid(entry, base, entry.messages, time);
  }

  /** The same of an answer part by part. Undefined: it is one of them, and no new ids came for it. */
  openedParts(counter: number, base: number, time: number, parts: PartAnswers): VoidMark | null | undefined {
    const entry = this.#take(counter);
    if (entry === null) return null;
    let count = 0;
    for (let row = 0; row < parts.count; row++) if (parts.isNew(row)) count += entry.rows?.[row] ?? 1;
    return count === 0 ? undefined : toBeVoid(entry, base, count, time);
  }

  /** True if it is one of them: nothing came of it. */
  refused(counter: number): boolean {
    return this.#take(counter) !== null;
  }

  #take(counter: number): Abandoned | null {
    const entry = this.#byCounter.get(counter) ?? null;
    if (entry === null) return null;
    this.#byCounter.delete(counter);
    entry.subject.opening -= 1;
    return entry;
  }
}

function toBeVoid({ subject, expiresMax }: Abandoned, base: number, count: number, publishedAt: number): VoidMark {
  return { subject, allotment: subject.allotted(base, count, publishedAt), publishedAt, expiresMax };
}
