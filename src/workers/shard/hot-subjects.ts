import { SpaceSaving } from '../../base/space-saving.ts';
import { slotOfHash } from '../../base/subject.ts';
import { nameOf } from '../../base/subject-space.ts';
import type { SubjectRef } from '../../storage/store.ts';
import type { HotSubjects } from '../messages.ts';
import type { OwnedSlots } from './slot-drain.ts';

/** Finds every subject with more than 1/32 of a shard's messages. */
export const HOT_COUNTERS = 32;
/** Ticks of about a second after which the past weighs half. */
const HALF_LIFE_TICKS = 10;

/** Which subjects a shard is busy with. Fed once a batch; keyed by the hash, of which two heavy subjects will hardly share one. */
export class HotSubjectsSketch {
  readonly #sketch = new SpaceSaving<SubjectRef>(HOT_COUNTERS);
  readonly #owned: Pick<OwnedSlots, 'has'>;
  #ticks = 0;

  constructor(owned: Pick<OwnedSlots, 'has'>) {
    this.#owned = owned;
  }

  add(subject: SubjectRef, messages: number): void {
    this.#sketch.add(subject.hash, subject, messages);
  }

  /** About once a second. */
  tick(): void {
    this.#ticks += 1;
    if (this.#ticks % HALF_LIFE_TICKS === 0) this.#sketch.decay();
  }

  /**
   * `limit`: subjects that are named, at most as many as it keeps counters. None whose slot has left: it is another shard's by now, which names it too,
   * and by the rate of this one it would be called busy for what others do.
   */
  report(limit: number): HotSubjects {
    let { total } = this.#sketch;
    const subjects: HotSubjects['subjects'][number][] = [];
    for (const { label, count, error } of this.#sketch.top(HOT_COUNTERS)) {
      // What is certain: a subject that inherited its counter is not called hot for what others did.
      const messages = count - error;
      if (!this.#owned.has(slotOfHash(label.hash))) total -= messages;
      else if (messages > 0 && subjects.length < limit) subjects.push({ ...nameOf(label.bytes), messages });
    }
    return { subjects, total };
  }
}
