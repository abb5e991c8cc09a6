import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AssertionError } from '../../src/base/assert.ts';
import { HOME, LIMITS, Rig, text } from './allot-rig.ts';

const MAX = Number.MAX_SAFE_INTEGER;

test('section 7: an open gets base = head + 1, the log time, and its request back verbatim with its origin', () => {
  const rig = Rig.started();
  assert.deepEqual(rig.run({ do: 'open', subject: 's', count: 3, shard: 4, counter: 4_294_967_295 }), [
    'opened 4.4294967295 1+3 at 1000',
  ]);
  rig.time = 2_000;
  assert.deepEqual(rig.run({ do: 'open', subject: 's', count: 2 }, { do: 'open', subject: 't' }), [
    'opened 0.0 4+2 at 2000',
    'opened 0.0 1+1 at 2000',
  ]);
  assert.deepEqual(rig.state('s'), { head: 5, settled: 0, first: 1, everExpires: false });
  assert.equal(rig.transcript.origins.at(-1), 'a/1');
});

test('section 2: settled follows the highest id below which everything is stored or void, also when closes come out of order', () => {
  const rig = Rig.started();
  for (let i = 0; i < 5; i++) rig.run({ do: 'open', subject: 's', count: 10 });
  rig.run({ do: 'stored', subject: 's', base: 21 }, { do: 'stored', subject: 's', base: 11 });
  assert.equal(rig.state('s')?.settled, 0);
  assert.deepEqual(
    [1, 10, 11, 30, 31, 50, 51].map((id) => rig.verdict('s', id)),
    ['OPEN', 'OPEN', 'STORED', 'STORED', 'OPEN', 'OPEN', 'UNKNOWN'],
  );
  rig.run({ do: 'stored', subject: 's', base: 1 });
  assert.equal(rig.state('s')?.settled, 30);
  assert.equal(rig.verdict('s', 30), 'SETTLED');
  rig.run({ do: 'revoke', subject: 's', base: 31 }, { do: 'stored', subject: 's', base: 41 });
  assert.equal(rig.state('s')?.settled, 30);
  assert.equal(rig.verdict('s', 31), 'REVOKED');
  rig.run({ do: 'void', subject: 's', base: 31 });
  assert.deepEqual(rig.state('s'), { head: 50, settled: 50, first: 1, everExpires: false });
  assert.equal(rig.machine.counts().open + rig.machine.counts().revoked, 0);
});

test('section 7: void above settled is told as VOID until settled passes it, neighbours merged or not', () => {
  const rig = Rig.started();
  for (let i = 0; i < 4; i++) rig.run({ do: 'open', subject: 's', count: 2 });
  for (const base of [3, 5, 7]) rig.run({ do: 'revoke', subject: 's', base });
  for (const base of [7, 3, 5]) rig.run({ do: 'void', subject: 's', base });
  for (const id of [3, 4, 5, 6, 7, 8]) assert.equal(rig.verdict('s', id), 'VOID');
  assert.equal(rig.state('s')?.settled, 0);
  rig.run({ do: 'stored', subject: 's', base: 1 });
  assert.equal(rig.state('s')?.settled, 8);
});

/** Every step from every state: [state to bring it to, command, answer, state afterwards]. */
const STEPS: readonly [string, 'stored' | 'void' | 'revoke', string, string][] = [
  ['OPEN', 'stored', 's 2+2 STORED', 'STORED'],
  ['OPEN', 'revoke', 's 2+2 REVOKED', 'REVOKED'],
  ['OPEN', 'void', 's 2+2 OPEN not applied', 'OPEN'],
  ['STORED', 'stored', 's 2+0 STORED', 'STORED'],
  ['STORED', 'revoke', 's 2+0 STORED not applied', 'STORED'],
  ['STORED', 'void', 's 2+0 STORED not applied', 'STORED'],
  ['REVOKED', 'stored', 's 2+2 REVOKED not applied', 'REVOKED'],
  ['REVOKED', 'revoke', 's 2+2 REVOKED', 'REVOKED'],
  ['REVOKED', 'void', 's 2+2 VOID', 'VOID'],
  ['VOID', 'stored', 's 2+0 VOID not applied', 'VOID'],
  ['VOID', 'revoke', 's 2+0 VOID not applied', 'VOID'],
  ['VOID', 'void', 's 2+0 VOID', 'VOID'],
];
const WAY: Record<string, readonly ('stored' | 'void' | 'revoke')[]> = {
  OPEN: [],
  STORED: ['stored'],
  REVOKED: ['revoke'],
  VOID: ['revoke', 'void'],
};

for (const [from, command, answer, to] of STEPS) {
  test(`section 7: ${command} of an allotment that is ${from} leaves it ${to}; repeats are harmless`, () => {
    const rig = Rig.started();
    rig.run({ do: 'open', subject: 's' }, { do: 'open', subject: 's', count: 2 }, { do: 'open', subject: 's' });
    for (const step of WAY[from] ?? []) rig.run({ do: step, subject: 's', base: 2 });
    assert.equal(rig.verdict('s', 2), from);
    assert.deepEqual(rig.run({ do: command, subject: 's', base: 2 }), [answer]);
    assert.equal(rig.verdict('s', 2), to);
    const before = rig.machine.stateHash();
    const settled = rig.state('s')?.settled;
    rig.run({ do: command, subject: 's', base: 2 });
    assert.equal(rig.verdict('s', 2), to);
    assert.equal(rig.state('s')?.settled, settled);
    assert.notEqual(before, 0);
  });
}

test('section 7, rule 1: a close of something settled says SETTLED and not applied, so that nobody acks on it', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's' }, { do: 'revoke', subject: 's', base: 1 }, { do: 'void', subject: 's', base: 1 });
  assert.deepEqual(rig.run({ do: 'stored', subject: 's', base: 1 }), ['s 1+0 SETTLED not applied']);
});

test('a close that names no allotment changes nothing: unknown subject, above the head, the middle of an allotment', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's', count: 5 });
  assert.deepEqual(rig.run({ do: 'stored', subject: 'never', base: 1 }), ['never 1+0 UNKNOWN not applied']);
  assert.deepEqual(rig.run({ do: 'stored', subject: 's', base: 6 }), ['s 6+0 UNKNOWN not applied']);
  assert.deepEqual(rig.run({ do: 'revoke', subject: 's', base: 3 }), ['s 3+0 UNKNOWN not applied']);
  assert.deepEqual(rig.run({ do: 'stored', subject: 's', base: 0 }), ['s 0+0 UNKNOWN not applied']);
  assert.equal(rig.state('never'), null);
  assert.equal(rig.verdict('s', 3), 'OPEN');
});

test('section 7: an open of another incarnation than the latest is refused', () => {
  const rig = new Rig();
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['refused 0.0 NOT_READY']);
  rig.run({ do: 'node-started', keepOpen: false });
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['opened 0.0 1+1 at 1000']);
  rig.runAs({ node: 'a', incarnation: 2 }, { do: 'node-started', keepOpen: false });
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['refused 0.0 NOT_READY']);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', parts: [{ count: 1 }] }), ['refused 0.0 NOT_READY']);
  assert.deepEqual(rig.runAs({ node: 'a', incarnation: 2 }, { do: 'open', subject: 's' }), ['opened 0.0 2+1 at 1000']);
});

for (const keepOpen of [false, true]) {
  test(`section 7: node-started with keep_open ${keepOpen} ${keepOpen ? 'keeps' : 'revokes'} what earlier incarnations left open`, () => {
    const rig = Rig.started();
    rig.runAs({ node: 'b', incarnation: 9 }, { do: 'node-started', keepOpen }, { do: 'open', subject: 's' });
    rig.run({ do: 'open', subject: 's', count: 2, shard: 1, counter: 5 }, { do: 'open', subject: 't', counter: 6 });
    rig.run({ do: 'stored', subject: 't', base: 1 });
    rig.transcript.owners = [];
    const lines = rig.runAs({ node: 'a', incarnation: 2 }, { do: 'node-started', keepOpen });
    if (keepOpen) {
      assert.deepEqual(lines, ['node 0/2 started, 0 revoked']);
      assert.equal(rig.verdict('s', 2), 'OPEN');
    } else {
      assert.deepEqual(lines, ['s 2+2 REVOKED', 'node 0/2 started, 1 revoked']);
      assert.deepEqual(rig.transcript.owners, ['0/1 1.5']);
      assert.equal(rig.verdict('s', 2), 'REVOKED');
    }
    assert.equal(rig.verdict('s', 1), 'OPEN', 'another node keeps its own');
  });
}

test('section 7: a repeated node-started of the same incarnation revokes nothing of its own', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's' });
  assert.deepEqual(rig.run({ do: 'node-started', keepOpen: false }), ['node 0/1 started, 0 revoked']);
  assert.equal(rig.verdict('s', 1), 'OPEN');
});

test('section 7, rule 3: everything open of a node, or of one of its shards, is revoked at once', () => {
  const rig = Rig.started();
  rig.run(
    { do: 'open', subject: 's', shard: 1 },
    { do: 'open', subject: 't', shard: 2 },
    { do: 'open', subject: 's', shard: 2 },
  );
  assert.deepEqual(rig.run({ do: 'revoke-node', node: 'a', shard: 2 }), ['t 1+1 REVOKED', 's 2+1 REVOKED']);
  assert.deepEqual(rig.run({ do: 'revoke-node', node: 'a' }), ['s 1+1 REVOKED']);
  assert.deepEqual(rig.run({ do: 'revoke-node', node: 'nobody' }), []);
});

test('section 2: trim moves first up only, never past settled + 1', () => {
  const rig = Rig.started();
  rig.run(
    { do: 'open', subject: 's', count: 10 },
    { do: 'open', subject: 's', count: 5 },
    { do: 'stored', subject: 's', base: 1 },
  );
  assert.deepEqual(rig.run({ do: 'trim', subject: 's', first: 4 }), ['s first 4']);
  assert.deepEqual(rig.run({ do: 'trim', subject: 's', first: 2 }), ['s first 4']);
  assert.deepEqual(rig.run({ do: 'trim', subject: 's', first: 14 }), ['s first 11']);
  assert.deepEqual(rig.run({ do: 'trim', subject: 'never', first: 14 }), ['never first 0']);
  assert.equal(rig.machine.counts().subjects, 1);
});

test('section 7, rule 7: a subject remembers whether anything in it ever had an expiry', () => {
  const rig = Rig.started();
  rig.run({ do: 'open', subject: 's' }, { do: 'open', subject: 't', expiresMax: 1 }, { do: 'open', subject: 't' });
  assert.equal(rig.state('s')?.everExpires, false);
  assert.equal(rig.state('t')?.everExpires, true);
});

test('section 7: an expected head that differs refuses, one that is equal does not; a new subject has head 0', () => {
  const rig = Rig.started();
  assert.deepEqual(rig.run({ do: 'open', subject: 's', expectedHead: 1 }), ['refused 0.0 HEAD_MISMATCH']);
  assert.equal(rig.state('s'), null);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', expectedHead: 0 }), ['opened 0.0 1+1 at 1000']);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', expectedHead: 0 }), ['refused 0.0 HEAD_MISMATCH']);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', expectedHead: 1 }), ['opened 0.0 2+1 at 1000']);
});

test('section 3, promise 8: a subject beyond subjects.max is refused, those there go on, and reading creates nothing', () => {
  const rig = Rig.started({ ...LIMITS, subjectsMax: 2 });
  rig.run({ do: 'open', subject: 's' }, { do: 'open', subject: 't' });
  assert.deepEqual(rig.run({ do: 'open', subject: 'u' }), ['refused 0.0 SUBJECTS_FULL']);
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['opened 0.0 2+1 at 1000']);
  assert.equal(rig.state('u'), null);
  assert.equal(rig.machine.counts().subjects, 2);
});

test('section 8: allotments of a node without a verdict are capped, revoked ones included, and a close makes room', () => {
  const rig = Rig.started({ ...LIMITS, openPerNodeMax: 2 });
  rig.run({ do: 'open', subject: 's' }, { do: 'open', subject: 's' });
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['refused 0.0 ALLOTMENTS_FULL']);
  rig.run({ do: 'revoke', subject: 's', base: 1 });
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['refused 0.0 ALLOTMENTS_FULL']);
  rig.run({ do: 'void', subject: 's', base: 1 });
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }), ['opened 0.0 3+1 at 1000']);
  const other = { node: 'b', incarnation: 1 };
  assert.equal(
    rig.runAs(other, { do: 'node-started', keepOpen: true }, { do: 'open', subject: 's' })[1],
    'opened 0.0 4+1 at 1000',
  );
});

test('[R29] ids from 2^53-10 on are exact, and what would pass 2^53-1 is refused and not rounded', () => {
  const rig = Rig.started();
  rig.run({ do: 'recovered', subject: 's', storeHighest: MAX - 100, head: MAX - 9 });
  assert.deepEqual(rig.run({ do: 'open', subject: 's', count: 11 }), ['refused 0.0 IDS_EXHAUSTED']);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', count: 10 - 3 }), [`opened 0.0 ${MAX - 8}+7 at 1000`]);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', parts: [{ count: 1 }, { count: 2 }, { count: 1 }] }), [
    `parts 0.0 ${MAX - 1}+2 at 1000: ALLOTTED ${MAX - 1}, REFUSED IDS_EXHAUSTED, ALLOTTED ${MAX}`,
  ]);
  assert.deepEqual(rig.run({ do: 'open', subject: 's', count: 1 }), ['refused 0.0 IDS_EXHAUSTED']);
  assert.deepEqual(
    rig.run({ do: 'stored', subject: 's', base: MAX - 1 }, { do: 'stored', subject: 's', base: MAX - 8 }),
    [`s ${MAX - 1}+2 STORED`, `s ${MAX - 8}+7 STORED`],
  );
  assert.equal(rig.state('s')?.settled, MAX);
  rig.restart();
  assert.equal(rig.state('s')?.head, MAX);
});

test('section 10: a recovered subject has one void range for ever, and subjects not found start at the floor', () => {
  const rig = Rig.started();
  rig.run({ do: 'recovered', subject: 's', storeHighest: 10, head: 1000 }, { do: 'floor', floor: 1000 });
  assert.deepEqual(rig.run({ do: 'open', subject: 's' }, { do: 'open', subject: 'new' }), [
    'opened 0.0 1001+1 at 1000',
    'opened 0.0 1001+1 at 1000',
  ]);
  rig.restart();
  assert.deepEqual(
    [10, 11, 1000, 1001].map((id) => rig.verdict('s', id)),
    ['SETTLED', 'VOID', 'VOID', 'OPEN'],
  );
  assert.deepEqual(
    [1, 1000].map((id) => rig.verdict('new', id)),
    ['VOID', 'VOID'],
  );
  // Or readers from the beginning would take the ids below the floor for lost messages.
  assert.deepEqual([rig.state('new')?.first, rig.state('s')?.first], [1001, 1]);
  assert.deepEqual(rig.run({ do: 'open', subject: 'newer', expectedHead: 0 }), ['opened 0.0 1001+1 at 1000']);
});

test('log time and index never go back: asserted', () => {
  const rig = Rig.started();
  rig.time = 999;
  assert.throws(() => rig.run(), AssertionError);
  rig.time = 1_000;
  rig.index -= 2;
  assert.throws(() => rig.run(), AssertionError);
});

test('start-up: the open and the revoked allotments of a node are listed with everything needed to look them up', () => {
  const rig = Rig.started();
  rig.run(
    { do: 'open', subject: 's', count: 3, shard: 2, counter: 8, expiresMax: 60 },
    { do: 'open', subject: 't' },
    { do: 'open', subject: 't' },
  );
  rig.run({ do: 'revoke', subject: 't', base: 1 });
  rig.restart();
  const seen: string[] = [];
  rig.machine.openAllotmentsOf(text(HOME.node), (each) => {
    seen.push(
      `${Buffer.from(each.subject)} ${each.base}+${each.count} ${each.shard}.${each.counter} ${each.openedAt} ${each.expiresMax}`,
    );
    return undefined;
  });
  assert.deepEqual(seen.sort(), ['s 1+3 2.8 1000 60', 't 2+1 0.0 1000 0']);
  const revoked: number[] = [];
  rig.machine.revokedAllotmentsOf(text(HOME.node), (each) => {
    revoked.push(each.base);
    return undefined;
  });
  assert.deepEqual(revoked, [1]);
});

test('subjects are listed by prefix in bounded steps, each once', () => {
  const rig = Rig.started({ ...LIMITS, subjectsMax: 100_000, openPerNodeMax: 100_000 });
  const names = Array.from({ length: 9_000 }, (_, i) => `${i % 3 === 0 ? 'x' : 'y'}.${i}`);
  rig.run(...names.map((subject) => ({ do: 'open', subject }) as const));
  for (const prefix of ['', 'x.', 'y.1', 'z']) {
    const seen: string[] = [];
    let calls = 0;
    for (let cursor = 0; cursor >= 0; calls++) {
      const before = seen.length;
      cursor = rig.machine.listSubjects(cursor, { space: null, prefix: text(prefix) }, 100, (_, bytes, start, end) => {
        seen.push(Buffer.from(bytes.subarray(start, end)).toString());
      });
      assert.ok(seen.length - before <= 100);
      assert.ok(calls < 200, 'the cursor does not come to an end');
    }
    assert.deepEqual(seen.sort(), names.filter((name) => name.startsWith(prefix)).sort());
    if (prefix === 'z') assert.ok(calls >= 3, 'a call looked at more rows than it may');
  }
});
