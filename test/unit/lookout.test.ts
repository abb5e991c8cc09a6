/** Looks at who the members are, while the thread that is asked answers late or never. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Lookout } from '../../src/workers/membership/lookout.ts';
import { until } from '../support/until.ts';

/** Only ends a wait that should not be one. */
const LONG_MS = 60_000;

/** Questions that are answered when the test says so. */
class Asked {
  readonly #answers: (() => void)[] = [];
  count = 0;

  readonly ask = (): Promise<void> => {
    this.count += 1;
    return new Promise((resolve) => this.#answers.push(resolve));
  };

  answer(): void {
    for (const answer of this.#answers.splice(0)) answer();
  }
}

describe('A lookout', () => {
  it('asks one question at a time, and the next one when that is answered', async () => {
    const asked = new Asked();
    const lookout = new Lookout(asked.ask);
    const looks = Array.from({ length: 10 }, () => lookout.look());
    assert.equal(asked.count, 1);
    asked.answer();
    await Promise.all(looks);
    void lookout.look();
    assert.equal(asked.count, 2);
  });

  it('looks by itself, and no more after its last look', async () => {
    const seen = { looks: 0 };
    const lookout = new Lookout(async () => {
      seen.looks += 1;
    });
    lookout.start(1);
    await until(
      () => seen.looks >= 3,
      () => `${seen.looks} looks`,
    );
    await lookout.last(LONG_MS);
    const { looks } = seen;
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.equal(seen.looks, looks);
  });

  it('has its last look behind the one that is on its way: that may know less', async () => {
    const asked = new Asked();
    const lookout = new Lookout(asked.ask);
    void lookout.look();
    const last = lookout.last(LONG_MS);
    asked.answer();
    await until(
      () => asked.count === 2,
      () => `${asked.count} questions`,
    );
    asked.answer();
    await last;
  });

  it('does not wait for a thread that hangs longer than it may', async () => {
    const asked = new Asked();
    const lookout = new Lookout(asked.ask);
    // With a question on its way, and without.
    void lookout.look();
    await lookout.last(1);
    assert.equal(asked.count, 1);
    await new Lookout(new Asked().ask).last(1);
  });
});
