import { failpoint } from '../../base/failpoint.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { ShardStore } from './shard-store.ts';
import type { ActiveSubject, ActiveSubjects } from './subjects.ts';

/**
 * Lets go of segments that retention drops. What is in them is trimmed in the log first, so that ids that are gone are not taken for lost; once
 * all trims are applied the store forgets the segments, and main may delete them when every shard has.
 */
export class ReleaseJobs {
  readonly #store: ShardStore;
  readonly #subjects: ActiveSubjects;
  readonly #requests: AllotRequests;
  readonly #jobs: { readonly waiting: Map<ActiveSubject, number>; readonly release: () => void }[] = [];
  /** Trims that were applied only in part, because the last ids are not settled yet. */
  readonly #again = new Map<ActiveSubject, number>();

  constructor(store: ShardStore, subjects: ActiveSubjects, requests: AllotRequests) {
    this.#store = store;
    this.#subjects = subjects;
    this.#requests = requests;
  }

  /** `isTrimmed` false: everything in the segments has expired, and the log knows that messages of these subjects expire. */
  release(segments: readonly number[], isTrimmed: boolean, onReleased: () => void): void {
    const set = new Set(segments);
    const waiting = new Map<ActiveSubject, number>();
    const release = (): void => {
      this.#store.releaseSegments(set);
      onReleased();
    };
    if (isTrimmed) {
      this.#store.trimsFor(set, (name, hash, first) => {
        const subject = this.#subjects.get(name, 0, name.length, hash);
        // Keeps it from being forgotten while the answer is on its way.
        subject.parked += 1;
        waiting.set(subject, first);
        this.#requests.trim(subject, first);
      });
    }
    if (waiting.size === 0) release();
    else this.#jobs.push({ waiting, release });
  }

  /** About every second: what was applied in part is asked for again. */
  tick(): void {
    for (const [subject, first] of this.#again) this.#requests.trim(subject, first);
    this.#again.clear();
  }

  /** A trim of the subject was applied, perhaps somebody else's: `first` is what holds now. */
  trimmed(subject: ActiveSubject, first: number): void {
    for (const job of this.#jobs) {
      const wanted = job.waiting.get(subject);
      if (wanted === undefined) continue;
      if (first < wanted) {
        this.#again.set(subject, Math.max(wanted, this.#again.get(subject) ?? 0));
        continue;
      }
      job.waiting.delete(subject);
      subject.parked -= 1;
      if (job.waiting.size > 0) continue;
      failpoint('shard.trimmed');
      job.release();
    }
    while (this.#jobs[0]?.waiting.size === 0) this.#jobs.shift();
  }
}
