/** Where a subscription stands: the next id of each subject. Pure. It makes every id come once, whatever a broker sends again. */
import type { Start } from './codec.ts';
import { type ClientError, RefusedError } from './errors.ts';

export function isPattern(subject: string): boolean {
  return subject.split('.').some((token) => token === '*' || token === '>');
}

export interface SubjectStart {
  readonly subject: string;
  readonly start: Start;
}

export class Positions {
  readonly #subjects: readonly string[];
  readonly #start: Start;
  readonly #next = new Map<string, number>();
  #token: Buffer | null = null;
  #taken = 0;

  constructor(subjects: readonly string[], start: Start) {
    this.#subjects = subjects;
    this.#start = start;
  }

  /** Messages that were taken, over all subjects. */
  get taken(): number {
    return this.#taken;
  }

  /** Subject and next id, of all that are known. */
  entries(): Iterable<[string, number]> {
    return this.#next;
  }

  nextId(subject: string): number | undefined {
    return this.#next.get(subject);
  }

  /** Goes on where the broker says that the stream stands: only for subjects that were not known. */
  began(subject: string, nextId: number): void {
    // The time may be still to come: it stays the start until a message has come.
    if (typeof this.#start === 'object' && 'time' in this.#start) return;
    if (!this.#next.has(subject)) this.#next.set(subject, nextId);
  }

  /** Behind everything that was taken before. */
  noteToken(token: Buffer): void {
    this.#token = token;
  }

  /**
   * Takes the ids from `firstId` on, `count` of them: how many of them, from the front, were taken before. All of them: it is a repeat.
   */
  take(subject: string, firstId: number, count: number): number {
    const next = this.#next.get(subject) ?? firstId;
    const skip = Math.min(count, Math.max(0, next - firstId));
    if (skip < count) this.#next.set(subject, firstId + count);
    this.#taken += count - skip;
    return skip;
  }

  /** A token that the broker does not understand (any more) is of no use; the positions are still there. False: there was none. */
  dropToken(): boolean {
    const had = this.#token !== null;
    this.#token = null;
    return had;
  }

  /**
   * What the next stream is opened with: subjects go on by their id. A pattern goes on by the token, in which the broker keeps the subjects that it
   * has found. Until the first token has come it begins as it did (what is then sent again is dropped), and, where that was `new`,
   * the subjects found so far go on by their ids.
   */
  open(): { readonly starts: SubjectStart[]; readonly token: Buffer | null } {
    const starts = this.#subjects.map((subject) => this.#startOf(subject));
    const hasPattern = this.#subjects.some(isPattern);
    if (!hasPattern) return { starts, token: null };
    if (this.#token === null && this.#start === 'new') {
      for (const [subject, id] of this.#next) {
        if (!this.#subjects.includes(subject)) starts.push({ subject, start: { id } });
      }
    }
    return { starts, token: this.#token };
  }

  #startOf(subject: string): SubjectStart {
    const next = this.#next.get(subject);
    return { subject, start: next === undefined ? this.#start : { id: next } };
  }
}

/** Whether a subscription that ended with this error can go on by itself. */
export function isPassing(error: ClientError): boolean {
  // Without a reason only the transport can have said it, or a proxy: what it says of a connection passes, and a limit on calls.
  if (error.reason === null) return !(error instanceof RefusedError) || error.retryable;
  return error.retryAfterMs !== null || error.reason === 'OUTCOME_UNKNOWN';
}
