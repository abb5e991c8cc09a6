import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LEDGER_SEQUENCES, SequenceLedger } from '../../src/publish/sequence-ledger.ts';

/** Takes the batches first, first + 1, … */
function taken(first: number, count: number): SequenceLedger {
  const ledger = new SequenceLedger(first);
  for (let sequence = first; sequence < first + count; sequence++) {
    assert.equal(ledger.judge(sequence), 'taken');
    ledger.take(sequence, sequence % 3, 100, 2, sequence);
  }
  return ledger;
}

test('the acknowledged sequence is the highest up to which every batch has a result', () => {
  const ledger = taken(1, 5);
  ledger.settle(2, true);
  ledger.settle(3, false);
  assert.equal(ledger.acknowledged, 0);
  ledger.settle(1, true);
  assert.equal(ledger.acknowledged, 3);
  ledger.settle(5, true);
  ledger.settle(4, true);
  assert.deepEqual([ledger.acknowledged, ledger.inFlight, ledger.bytesInFlight, ledger.messagesInFlight], [5, 0, 0, 0]);
});

for (const first of [1, 7, 2 ** 31 - 3, 2 ** 32 - 5, Number.MAX_SAFE_INTEGER - 3000]) {
  test(`from sequence ${first}: 1,024 batches are on their way, one more has to wait, and answers find theirs by ten bits`, () => {
    const ledger = taken(first, LEDGER_SEQUENCES);
    assert.equal(ledger.judge(first + LEDGER_SEQUENCES), 'too-many');
    for (let sequence = first; sequence < first + LEDGER_SEQUENCES; sequence++) {
      assert.equal(ledger.sequenceOf(sequence % 1024), sequence);
    }
    ledger.settle(first, true);
    assert.equal(ledger.judge(first + LEDGER_SEQUENCES), 'taken');
    assert.equal(ledger.judge(first + LEDGER_SEQUENCES + 1), 'too-many');
  });
}

test('a refused batch may come again, a stored one or one that is on its way may not', () => {
  const ledger = taken(1, 3);
  ledger.settle(1, false);
  ledger.settle(2, true);
  assert.deepEqual(
    [1, 2, 3, 4].map((sequence) => ledger.judge(sequence)),
    ['taken', 'out-of-order', 'out-of-order', 'taken'],
  );
  ledger.take(1, 0, 10, 1, 0);
  assert.equal(ledger.judge(1), 'out-of-order');
  assert.equal(ledger.acknowledged, 2, 'what comes again does not take back what was acknowledged');
  ledger.settle(3, true);
  assert.equal(ledger.acknowledged, 3);
});

test('a refused batch may come again while it is among the last 1,024', () => {
  const ledger = new SequenceLedger(1);
  ledger.refuse(1);
  for (let sequence = 2; sequence <= LEDGER_SEQUENCES; sequence++) {
    ledger.take(sequence, 0, 1, 1, 0);
    ledger.settle(sequence, true);
  }
  assert.equal(ledger.judge(1), 'taken');
  ledger.take(LEDGER_SEQUENCES + 1, 0, 1, 1, 0);
  assert.equal(ledger.judge(1), 'out-of-order');
});

for (const sequence of [0, -1, 0.5, Number.MAX_SAFE_INTEGER + 1]) {
  test(`sequence ${sequence} is out of order`, () => {
    assert.equal(new SequenceLedger(1).judge(sequence), 'out-of-order');
  });
}

/** What the ledger stands for, without any limit of memory. */
class Model {
  readonly states = new Map<number, 'flying' | 'stored' | 'refused'>();
  last: number;

  constructor(first: number) {
    this.last = first - 1;
  }

  get flying(): number[] {
    return [...this.states].filter(([, state]) => state === 'flying').map(([sequence]) => sequence);
  }

  judge(sequence: number): string {
    if (sequence > this.last) {
      return sequence - Math.min(sequence, ...this.flying) >= LEDGER_SEQUENCES ? 'too-many' : 'taken';
    }
    const isRecent = sequence > this.last - LEDGER_SEQUENCES;
    return isRecent && this.states.get(sequence) === 'refused' ? 'taken' : 'out-of-order';
  }

  get acknowledged(): number {
    const above = this.flying.filter((sequence) => sequence > this.#acknowledged);
    this.#acknowledged = Math.max(this.#acknowledged, above.length === 0 ? this.last : Math.min(...above) - 1);
    return this.#acknowledged;
  }

  #acknowledged = 0;
}

test('whatever comes and is answered in whatever order, the ledger says what an unbounded one says', () => {
  const step = fc.oneof(
    fc.record({
      do: fc.constant('next' as const),
      skip: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, fc.nat(1_500)),
    }),
    fc.record({ do: fc.constant('again' as const), back: fc.nat(1_100) }),
    fc.record({ do: fc.constant('answer' as const), which: fc.nat(), stored: fc.boolean() }),
  );
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 2 ** 40 }),
      fc.array(step, { minLength: 30, maxLength: 600, size: 'max' }),
      (first, steps) => {
        const ledger = new SequenceLedger(first);
        const model = new Model(first);
        for (const each of steps) {
          const { flying } = model;
          if (each.do === 'answer') {
            const sequence = flying[each.which % Math.max(1, flying.length)];
            if (sequence === undefined) continue;
            assert.equal(ledger.sequenceOf(sequence % 1024), sequence);
            ledger.settle(sequence, each.stored);
            model.states.set(sequence, each.stored ? 'stored' : 'refused');
          } else {
            const sequence = each.do === 'next' ? model.last + 1 + each.skip : Math.max(1, model.last - each.back);
            const verdict = model.judge(sequence);
            const said = ledger.judge(sequence);
            assert.equal(said, verdict, `sequence ${sequence}`);
            if (said !== 'taken') continue;
            ledger.take(sequence, 1, 5, 1, 0);
            model.states.set(sequence, 'flying');
            model.last = Math.max(model.last, sequence);
          }
          assert.equal(ledger.inFlight, model.flying.length);
          assert.equal(ledger.acknowledged, model.acknowledged);
          assert.deepEqual(
            ledger.inFlightOf(1),
            model.flying.sort((a, b) => a - b),
          );
        }
      },
    ),
    { numRuns: 100 },
  );
});
