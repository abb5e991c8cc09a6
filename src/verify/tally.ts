import type { IdWalk } from './id-walk.ts';
import type { Finding, Progress } from './types.ts';

/** Findings that are told one by one; of more only the number is. */
const TOLD_MAX = 10_000;
const TELL_MS = 250;

/** Counts what was read and found, and tells it now and then. */
export class Tally {
  step = '';
  subjectsTotal = 0;
  /** Ids that are missing and may have expired. */
  maybeExpired = 0;
  readonly #tell: (progress: Progress) => void;
  #subjectsDone = 0;
  #batches = 0;
  #messages = 0;
  #voids = 0;
  #bytes = 0;
  #findings: Finding[] = [];
  #total = 0;
  #toldAt = performance.now();

  constructor(tell: (progress: Progress) => void) {
    this.#tell = tell;
  }

  add(finding: Finding): void {
    this.#total += 1;
    if (this.#total <= TOLD_MAX) this.#findings.push(finding);
  }

  walked(walk: IdWalk): void {
    this.#subjectsDone += 1;
    this.#batches += walk.batches;
    this.#messages += walk.messages;
    this.#voids += walk.voids;
    this.maybeTell();
  }

  read(bytes: number): void {
    this.#bytes += bytes;
    this.maybeTell();
  }

  /** About four times a second, so that whoever listens knows that it goes on. */
  maybeTell(): void {
    const now = performance.now();
    if (now - this.#toldAt < TELL_MS) return;
    this.#toldAt = now;
    this.#tell(this.take());
  }

  take(): Progress {
    return {
      step: this.step,
      subjectsDone: this.#subjectsDone,
      subjectsTotal: this.subjectsTotal,
      batches: this.#batches,
      messages: this.#messages,
      voids: this.#voids,
      bytes: this.#bytes,
      findings: this.#findings.splice(0),
      findingsTotal: this.#total,
      maybeExpired: this.maybeExpired,
    };
  }
}
