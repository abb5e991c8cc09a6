/** The check of a start that holds the newest ids of the store against the log: both ends of it, without the ring in between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slotOfHash } from '../../src/base/subject.ts';
import { HeadCheck } from '../../src/workers/raft/head-check.ts';
import { verifyHeads } from '../../src/workers/shard/start-up.ts';
import { hashOf, LIMITS, Rig, text } from './allot-rig.ts';

/** What a shard sends of a store with these newest ids. */
function sent(heads: ReadonlyMap<string, number>): Buffer[] {
  const records: Buffer[] = [];
  let isWhole = false;
  const count = verifyHeads(
    {
      heads(visit) {
        for (const [subject, id] of heads) visit(text(subject), hashOf(subject), id, 0);
      },
    },
    {
      verify: (packed) => records.push(Buffer.from(packed)),
      verified() {
        isWhole = true;
      },
    },
  );
  assert.ok(isWhole);
  assert.equal(count, heads.size);
  return records;
}

/** Subjects that have lost messages as `subject@id`, and those that have been trimmed as `subject<first`. */
function check(rig: Rig, heads: ReadonlyMap<string, number>, owns: (slot: number) => boolean = () => true): string[] {
  const told: string[] = [];
  const headCheck = new HeadCheck(rig.machine);
  const nameOf = (names: Uint8Array, start: number, end: number, hash: number): string => {
    const name = Buffer.from(names.subarray(start, end)).toString();
    assert.equal(hash, hashOf(name));
    return name;
  };
  for (const record of sent(heads)) {
    headCheck.take(record, (names, start, end, hash, first) =>
      told.push(`${nameOf(names, start, end, hash)}<${first}`),
    );
  }
  headCheck.missing(owns, (names, start, end, hash, id) => told.push(`${nameOf(names, start, end, hash)}@${id}`));
  return told;
}

/** Every subject has ten stored messages. */
function rigWith(...subjects: readonly string[]): Rig {
  const rig = Rig.started({ ...LIMITS, subjectsMax: 1_000_000, openPerNodeMax: 1_000_000 });
  for (const subject of subjects) {
    rig.run({ do: 'open', subject, count: 10 }, { do: 'stored', subject, base: 1 });
  }
  return rig;
}

test('a store that has what the log has settled, or more of what is open, passes', () => {
  const rig = rigWith('a', 'b');
  rig.run({ do: 'open', subject: 'b', count: 5 });
  for (const b of [10, 12, 15]) assert.deepEqual(check(rig, new Map([['a', 10]]).set('b', b)), []);
  assert.deepEqual(check(Rig.started(), new Map()), []);
});

test('a store with one id more than the log has given of a subject is STORE_AHEAD_OF_LOG, wherever the subject stands', () => {
  const subjects = Array.from({ length: 30_000 }, (_, i) => `subject.${i}`);
  const rig = rigWith(...subjects);
  const heads = new Map(subjects.map((subject) => [subject, 10]));
  assert.ok(sent(heads).length > 2, 'they need several records');
  assert.deepEqual(check(rig, heads), []);
  for (const at of [0, 1, 15_000, 29_999]) {
    const ahead = new Map(heads).set(subjects[at] as string, 11);
    assert.throws(() => check(rig, ahead), {
      code: 'STORE_AHEAD_OF_LOG',
      message: new RegExp(`id 11 of subject "${subjects[at]}", but the log has given ids up to 10 only`),
    });
  }
});

test('a subject that the log has never heard of is STORE_AHEAD_OF_LOG', () => {
  assert.throws(() => check(rigWith('a'), new Map([['a', 10]]).set('b', 1)), { code: 'STORE_AHEAD_OF_LOG' });
});

test('[S11] messages that the log has settled and the store has no more are told: a whole subject, or the end of one', () => {
  const rig = rigWith('whole', 'end', 'there');
  rig.run({ do: 'open', subject: 'end', count: 5 });
  const heads = new Map([['end', 7]]).set('there', 10);
  assert.deepEqual(check(rig, heads).sort(), ['end@8', 'whole@1']);
  assert.deepEqual(check(rig, new Map()).sort(), ['end@1', 'there@1', 'whole@1']);
});

test('every shard answers for its own slots', () => {
  const subjects = Array.from({ length: 200 }, (_, i) => `subject.${i}`);
  const rig = rigWith(...subjects);
  const isOdd = (slot: number): boolean => slot % 2 === 1;
  const mine = subjects.filter((subject) => isOdd(slotOfHash(hashOf(subject))));
  assert.deepEqual(check(rig, new Map(), isOdd).sort(), mine.map((subject) => `${subject}@1`).sort());
});

test('what is trimmed, may have expired, is open, or was made void by a recovery is not missed; what is trimmed is told to the store', () => {
  const rig = rigWith('trimmed', 'half');
  rig.run({ do: 'trim', subject: 'trimmed', first: 11 }, { do: 'trim', subject: 'half', first: 6 });
  rig.run({ do: 'open', subject: 'expires', expiresMax: 60 }, { do: 'stored', subject: 'expires', base: 1 });
  rig.run({ do: 'open', subject: 'open' });
  rig.run({ do: 'recovered', subject: 'recovered', storeHighest: 3, head: 1_000 });
  assert.deepEqual(check(rig, new Map([['recovered', 3]])), ['half@6']);
  assert.deepEqual(check(rig, new Map([['recovered', 3]]).set('half', 10).set('trimmed', 9)), ['half<6', 'trimmed<11']);
  assert.deepEqual(check(rig, new Map([['half', 8]])), ['half<6', 'half@9']);
});

test('a void at the end of a subject is missed like a message: its mark is in the store too', () => {
  const rig = rigWith('v');
  rig.run(
    { do: 'open', subject: 'v' },
    { do: 'revoke', subject: 'v', base: 11 },
    { do: 'void', subject: 'v', base: 11 },
  );
  assert.deepEqual(check(rig, new Map([['v', 10]])), ['v@11']);
  assert.deepEqual(check(rig, new Map([['v', 11]])), []);
});
