import { BrokerError } from '../../base/errors.ts';

/** For so long, in ms, an answer is given to whoever asks the same; longer if it took long to find, so that looking takes a fiftieth of the time at most. */
const FRESH_MS = 500;
const FRESH_TIMES = 50;
const FRESH_MAX_MS = 5_000;
/** Different questions at a time, those included whose answer is kept. */
const QUESTIONS_MAX = 16;

interface Kept {
  readonly answer: Promise<unknown>;
  /** Until when it is kept, ms of performance.now(); Infinity while it is looked for. */
  until: number;
}

/** Answers that cost something: one for all who ask the same within half a second or more, and found one after another. */
export class SharedAnswers {
  readonly #kept = new Map<string, Kept>();
  #last: Promise<unknown> = Promise.resolve();

  /** Rejects as `find` does, or with IN_FLIGHT_FULL when too much else is asked. */
  async get<T>(question: string, find: () => Promise<T>): Promise<T> {
    const now = performance.now();
    for (const [other, { until }] of this.#kept) if (now > until) this.#kept.delete(other);
    const known = this.#kept.get(question);
    if (known !== undefined) return (await known.answer) as T;
    if (this.#kept.size >= QUESTIONS_MAX) throw new BrokerError('IN_FLIGHT_FULL', 'questions of operators');
    let begun = now;
    const answer = this.#last.then(() => {
      begun = performance.now();
      return find();
    });
    const kept: Kept = { answer, until: Number.POSITIVE_INFINITY };
    this.#kept.set(question, kept);
    const found = (): void => {
      const end = performance.now();
      kept.until = end + Math.min(FRESH_MAX_MS, Math.max(FRESH_MS, (end - begun) * FRESH_TIMES));
    };
    this.#last = answer.then(found, found);
    return await answer;
  }
}
