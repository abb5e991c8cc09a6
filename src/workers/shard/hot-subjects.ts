import { SpaceSaving } from '../../base/space-saving.ts';
import { nameOf } from '../../base/subject-space.ts';
import type { SubjectRef } from '../../storage/store.ts';
import type { HotSubjects } from '../messages.ts';

/** Finds every subject with more than 1/32 of a shard's messages. */
export const HOT_COUNTERS = 32;
/** Ticks of about a second after which the past weighs half. */
const HALF_LIFE_TICKS = 10;

/** Which subjects a shard is busy with. Fed once a batch; keyed by the hash, of which two heavy subjects will hardly share one. */
export class HotSubjectsSketch {
  readonly #sketch = new SpaceSaving<SubjectRef>(HOT_COUNTERS);
  #ticks = 0;

  add(subject: SubjectRef, messages: number): void {
    this.#sketch.add(subject.hash, subject, messages);
  }

  /** About once a second. */
  tick(): void {
    this.#ticks += 1;
    if (this.#ticks % HALF_LIFE_TICKS === 0) this.#sketch.decay();
  }

  /** `limit`: subjects that are named, at most as many as it keeps counters. */
  report(limit: number): HotSubjects {
    const subjects = this.#sketch
      .top(limit)
      // What is certain: a subject that inherited its counter is not called hot for what others did.
      .map(({ label, count, error }) => ({ ...nameOf(label.bytes), messages: count - error }))
      .filter(({ messages }) => messages > 0);
    return { subjects, total: this.#sketch.total };
  }
}
