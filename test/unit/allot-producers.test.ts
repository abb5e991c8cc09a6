import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SequenceWindow, WINDOW_SEQUENCES } from '../../src/allot/sequence-window.ts';
import { AssertionError } from '../../src/base/assert.ts';
import { type Command, LIMITS, type Part, Rig } from './allot-rig.ts';

const HOUR = 3_600_000;
const MAX = Number.MAX_SAFE_INTEGER;

function open(subject: string, ...parts: Part[]): Command {
  return { do: 'open', subject, parts };
}

function part(producer: string, sequence: number, count = 1, checksum = 77): Part {
  return { producer, sequence, count, checksum };
}

/** The answers of a run of one open, without the allotment. */
function answers(lines: readonly string[]): string {
  assert.equal(lines.length, 1);
  return (lines[0] as string).replace(/^.*: /, '');
}

for (const restart of [false, true]) {
  const how = restart ? ', with a snapshot and restart between send and retry' : '';
  const rows = restart ? '[R25] [R26]' : '[R25]';

  test(`${rows} a retry of a stored sequence gets its first ids and no new ones${how}`, () => {
    const rig = Rig.started();
    assert.equal(answers(rig.run(open('s', part('p', 1, 3)))), 'ALLOTTED 1');
    rig.run({ do: 'stored', subject: 's', base: 1 });
    if (restart) rig.restart();
    assert.deepEqual(rig.run(open('s', part('p', 1, 3))), ['parts 0.0 0+0 at 1000: STORED 1']);
    assert.equal(rig.state('s')?.head, 3);
  });

  test(`${rows} a retry of an open sequence waits for its allotment, which is told when it is closed${how}`, () => {
    const rig = Rig.started();
    rig.run(open('s', { count: 2 }, part('p', 1)));
    if (restart) rig.restart();
    assert.deepEqual(rig.run(open('s', part('p', 1))), ['parts 0.0 0+0 at 1000: WAITS 3@1']);
    assert.deepEqual(rig.run({ do: 'stored', subject: 's', base: 1 }), ['s 1+3 STORED']);
    assert.equal(answers(rig.run(open('s', part('p', 1)))), 'STORED 3');
  });

  test(`${rows} a retry of a revoked or void sequence is allotted anew${how}`, () => {
    const rig = Rig.started();
    rig.run(open('s', part('p', 1), part('p', 2)));
    if (restart) rig.restart();
    rig.run({ do: 'revoke', subject: 's', base: 1 });
    if (restart) rig.restart();
    assert.equal(answers(rig.run(open('s', part('p', 1)))), 'ALLOTTED 3');
    rig.run({ do: 'void', subject: 's', base: 1 });
    assert.equal(answers(rig.run(open('s', part('p', 2)))), 'ALLOTTED 4');
    assert.equal(answers(rig.run(open('s', part('p', 1)))), 'WAITS 3@3');
  });

  test(`${rows} node-started forgets the sequences of what it revokes${how}`, () => {
    const rig = Rig.started();
    rig.run(open('s', part('p', 1)));
    if (restart) rig.restart();
    rig.runAs({ node: 'a', incarnation: 2 }, { do: 'node-started', keepOpen: false });
    assert.equal(answers(rig.runAs({ node: 'a', incarnation: 2 }, open('s', part('p', 1)))), 'ALLOTTED 2');
  });

  test(`[R26] a producer is forgotten 24 h of log time after its last publish and not 1 ms earlier${how}`, () => {
    const rig = Rig.started();
    rig.run(open('s', part('p', 1)), { do: 'stored', subject: 's', base: 1 });
    rig.time += 20 * HOUR;
    rig.run(open('s', part('p', 2)), { do: 'stored', subject: 's', base: 2 });
    if (restart) rig.restart();
    rig.time += 24 * HOUR - 1;
    assert.equal(answers(rig.run(open('t', part('p', 1)))), 'REFUSED SEQUENCE_REUSED');
    assert.equal(answers(rig.run(open('s', part('p', 4_000, 1))).slice()), 'ALLOTTED 3');
    rig.time += 24 * HOUR;
    assert.equal(answers(rig.run(open('s', part('p', 4_000)))), 'REFUSED SEQUENCE_UNKNOWN');
    assert.equal(answers(rig.run(open('s', part('p', 1)))), 'ALLOTTED 4');
  });
}

test('promise 7: an unknown producer may begin only with sequence 1', () => {
  const rig = Rig.started();
  for (const sequence of [2, 5, MAX]) {
    assert.equal(answers(rig.run(open('s', part('p', sequence)))), 'REFUSED SEQUENCE_UNKNOWN');
  }
  assert.deepEqual(rig.machine.counts().producers, 0);
  assert.equal(rig.state('s'), null, 'a refused part creates no subject');
  assert.equal(answers(rig.run(open('s', part('p', 1)))), 'ALLOTTED 1');
  assert.equal(answers(rig.run(open('s', part('p', 3)))), 'ALLOTTED 2');
  assert.equal(answers(rig.run(open('s', part('p', 2)))), 'ALLOTTED 3');
});

test('promise 7: the last 1,024 sequences are remembered, an older one is SEQUENCE_UNKNOWN', () => {
  const rig = Rig.started({ ...LIMITS, openPerNodeMax: 10_000 });
  for (let sequence = 1; sequence <= 1_500; sequence++) {
    rig.run(open('s', part('p', sequence)), { do: 'stored', subject: 's', base: sequence });
  }
  rig.restart();
  assert.equal(answers(rig.run(open('s', part('p', 1_500 - 1_023)))), 'STORED 477');
  assert.equal(answers(rig.run(open('s', part('p', 1_500 - 1_024)))), 'REFUSED SEQUENCE_UNKNOWN');
});

test('promise 7: a known sequence with another subject, count or checksum is SEQUENCE_REUSED', () => {
  const rig = Rig.started();
  rig.run(open('s', part('p', 1, 2, 5)), open('t', part('q', 1)));
  assert.equal(answers(rig.run(open('t', part('p', 1, 2, 5)))), 'REFUSED SEQUENCE_REUSED');
  assert.equal(answers(rig.run(open('new', part('p', 1, 2, 5)))), 'REFUSED SEQUENCE_REUSED');
  assert.equal(answers(rig.run(open('s', part('p', 1, 3, 5)))), 'REFUSED SEQUENCE_REUSED');
  assert.equal(answers(rig.run(open('s', part('p', 1, 2, 6)))), 'REFUSED SEQUENCE_REUSED');
  assert.equal(answers(rig.run(open('s', part('p', 1, 2, 5)))), 'WAITS 1@1');
  assert.equal(rig.state('new'), null);
});

test('promise 7: sequences are looked up before an expected head is compared', () => {
  const rig = Rig.started();
  rig.run(open('s', part('p', 1)), { do: 'stored', subject: 's', base: 1 });
  const run = rig.run({ do: 'open', subject: 's', expectedHead: 0, parts: [part('p', 1), part('p', 2), { count: 1 }] });
  assert.equal(answers(run), 'STORED 1, REFUSED HEAD_MISMATCH, REFUSED HEAD_MISMATCH');
  assert.equal(answers(rig.run({ do: 'open', subject: 's', expectedHead: 1, parts: [part('p', 2)] })), 'ALLOTTED 2');
});

test('a sequence that comes twice in one request is allotted once; with other content it is refused', () => {
  const rig = Rig.started();
  const run = rig.run(open('s', part('p', 1, 2), part('p', 1, 2), part('p', 1, 1), part('p', 2)));
  assert.deepEqual(run, ['parts 0.0 1+3 at 1000: ALLOTTED 1, WAITS 1@1, REFUSED SEQUENCE_REUSED, ALLOTTED 3']);
  assert.deepEqual(rig.state('s')?.head, 3);
});

test('promise 8: at producers.max a new producer is refused, none is evicted early, the other parts go on', () => {
  const rig = Rig.started({ ...LIMITS, producersMax: 2 });
  assert.equal(
    answers(rig.run(open('s', part('p', 1), part('q', 1), part('r', 1), { count: 1 }))),
    'ALLOTTED 1, ALLOTTED 2, REFUSED PRODUCERS_FULL, ALLOTTED 3',
  );
  rig.time += 12 * HOUR;
  rig.run(open('s', part('q', 2)));
  rig.time += 12 * HOUR - 1;
  assert.equal(answers(rig.run(open('s', part('r', 1)))), 'REFUSED PRODUCERS_FULL');
  rig.restart();
  rig.time += 1;
  assert.equal(answers(rig.run(open('s', part('r', 1)))), 'ALLOTTED 5');
  assert.equal(answers(rig.run(open('s', part('p', 1)))), 'REFUSED PRODUCERS_FULL');
  assert.equal(answers(rig.run(open('s', part('q', 2)))), 'WAITS 4@4');
});

test('a refused part leaves no trace: the same sequence is fresh afterwards', () => {
  const rig = Rig.started({ ...LIMITS, subjectsMax: 1 });
  rig.run({ do: 'open', subject: 's' });
  assert.equal(answers(rig.run(open('t', part('p', 1)))), 'REFUSED SUBJECTS_FULL');
  assert.equal(rig.machine.counts().producers, 0);
  assert.equal(answers(rig.run(open('s', part('p', 1)))), 'ALLOTTED 2');
});

test('every idle producer is forgotten within 1,024 entries, so that memory comes back', () => {
  const rig = Rig.started();
  rig.run(open('s', ...Array.from({ length: 100 }, (_, i) => part(`p${i}`, 1))));
  rig.time += 24 * HOUR;
  for (let i = 0; i < 1_024; i++) rig.run();
  assert.equal(rig.machine.counts().producers, 0);
});

test('a revoke that comes after its producer was forgotten and began again does not touch the new sequences', () => {
  const rig = Rig.started();
  rig.run(open('s', part('p', 1)));
  rig.time += 24 * HOUR;
  assert.equal(answers(rig.run(open('s', part('p', 1)))), 'ALLOTTED 2');
  rig.run({ do: 'revoke', subject: 's', base: 1 });
  assert.equal(answers(rig.run(open('s', part('p', 1)))), 'WAITS 2@2');
});

test('[R29] sequences up to 2^53-1 are exact; two that differ by 2^32 are not confused', () => {
  const rig = Rig.started();
  rig.run(open('s', part('p', 1)));
  assert.equal(answers(rig.run(open('s', part('p', 1 + 2 ** 32)))), 'ALLOTTED 2');
  assert.equal(answers(rig.run(open('s', part('p', 1)))), 'REFUSED SEQUENCE_UNKNOWN');
  assert.equal(answers(rig.run(open('s', part('p', MAX - 1)))), 'ALLOTTED 3');
  assert.equal(answers(rig.run(open('s', part('p', MAX)))), 'ALLOTTED 4');
  rig.restart();
  assert.equal(answers(rig.run(open('s', part('p', MAX - 1)))), 'WAITS 3@3');
  assert.equal(answers(rig.run(open('s', part('p', MAX)))), 'WAITS 4@4');
});

test('the window of sequences equals a plain map over random puts, forgets and jumps', () => {
  let seed = 12345;
  const random = (bound: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % bound;
  };
  for (let round = 0; round < 20; round++) {
    let window = new SequenceWindow();
    const model = new Map<number, number>();
    let last = 0;
    for (let step = 1; step < 3_000; step++) {
      const jump = random(50) === 0 ? random(3_000) : random(4);
      const sequence = Math.max(1, random(3) === 0 ? last + jump : last - random(1_100));
      if (sequence <= last - WINDOW_SEQUENCES) {
        assert.ok(window.isBelow(sequence));
        continue;
      }
      const entry = window.find(sequence);
      assert.equal(entry < 0 ? undefined : window.firstId(entry), model.get(sequence));
      if (entry < 0) {
        window.put(sequence, step, 3, 4, 5);
        model.set(sequence, step);
        last = Math.max(last, sequence);
        for (const known of model.keys()) if (known <= last - WINDOW_SEQUENCES) model.delete(known);
      } else if (random(4) === 0) {
        window.forget(sequence, model.get(sequence) as number, 3);
        model.delete(sequence);
      } else {
        window.forget(sequence, 0, 3);
      }
      assert.equal(window.size, model.size);
      if (random(100) === 0) window = window.clone();
    }
  }
  assert.throws(() => new SequenceWindow().put(1, 0, 0, 1, 0), AssertionError);
});

function ask(producer: string, mayBeNew: boolean): Command {
  return { do: 'producer', producer, mayBeNew };
}

for (const restart of [false, true]) {
  const how = restart ? ', with a snapshot and restart before it goes on' : '';
  test(`[R26] a producer that opens is known from then on, so its sequences may come in any order${how}`, () => {
    const rig = Rig.started();
    assert.deepEqual(rig.run(ask('p', true)), ['producer 0.0 last 0']);
    if (restart) rig.restart();
    assert.equal(answers(rig.run(open('s', part('p', 2)))), 'ALLOTTED 1');
    assert.equal(answers(rig.run(open('t', part('p', 1)))), 'ALLOTTED 1');
    assert.deepEqual(rig.run(ask('p', false)), ['producer 0.0 last 2']);
  });
}

test('a producer that goes on must be known, and 24 h of log time after its last publish it is not', () => {
  const rig = Rig.started();
  assert.deepEqual(rig.run(ask('p', false)), ['refused 0.0 SEQUENCE_UNKNOWN']);
  rig.run(ask('p', true));
  rig.time += 24 * HOUR - 1;
  assert.deepEqual(rig.run(ask('p', false)), ['producer 0.0 last 0'], 'asking keeps it');
  rig.time += 24 * HOUR;
  assert.deepEqual(rig.run(ask('p', false)), ['refused 0.0 SEQUENCE_UNKNOWN']);
});

test('a new producer is refused when producers.max are known, a known one is not', () => {
  const rig = Rig.started({ ...LIMITS, producersMax: 1 });
  rig.run(ask('p', true));
  assert.deepEqual(rig.run(ask('q', true)), ['refused 0.0 PRODUCERS_FULL']);
  assert.deepEqual(rig.run(ask('p', true)), ['producer 0.0 last 0']);
});
