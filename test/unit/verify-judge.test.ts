/** What of a difference between store and log is a finding. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { IdWalk } from '../../src/verify/id-walk.ts';
import { Pace } from '../../src/verify/pace.ts';
import type { VerifiedStore } from '../../src/verify/verifier.ts';
import { logOf, shown, verified } from './verify-rig.ts';

/** A store that has these ids of each subject. */
function holding(items: Readonly<Record<string, readonly (readonly [number, number])[]>>): VerifiedStore {
  const of = (bytes: Uint8Array) => items[Buffer.from(bytes).toString()] ?? [];
  return {
    atOnce: 2,
    isBySlots: false,
    begin: async () => undefined,
    ensure: () => 1024,
    async walk(subject, first, settled, walk) {
      for (const [from, to] of of(subject.bytes)) if (to > first && from <= settled) walk.meet('data', from, to);
    },
    async newest(visit) {
      for (const [name, all] of Object.entries(items)) visit(Buffer.from(name), (all.at(-1)?.[1] ?? 1) - 1);
    },
    beyond: async (subject, head) =>
      of(subject.bytes)
        .filter(([, to]) => to > head + 1)
        .map(([from, to]) => ({ from, to })),
  };
}

test('verify: a walk of any ranges says exactly which ids have none and which have several', () => {
  const ranges = fc.array(fc.tuple(fc.integer({ min: 1, max: 30 }), fc.integer({ min: 1, max: 6 })), { maxLength: 12 });
  fc.assert(
    fc.property(ranges, fc.integer({ min: 1, max: 20 }), fc.integer({ min: 0, max: 40 }), (given, first, settled) => {
      const items = given
        .map(([from, count]) => ({ from, to: from + count }))
        .filter(({ from, to }) => to > first && from <= settled)
        .sort((left, right) => left.from - right.from);
      const walk = new IdWalk(first, settled);
      for (const { from, to } of items) walk.meet('data', from, to);
      walk.end();
      const times = (id: number) => items.filter(({ from, to }) => id >= from && id < to).length;
      const isIn = (list: readonly { from: number; to: number }[], id: number) =>
        list.some(({ from, to }) => id >= from && id < to);
      for (let id = 1; id <= 40; id++) {
        assert.equal(isIn(walk.missing, id), id >= first && id <= settled && times(id) === 0, `missing ${id}`);
        assert.equal(isIn(walk.twice, id), times(id) > 1, `twice ${id}`);
      }
    }),
  );
});

test('verify: what is open for longer than it should be is named; what is settled meanwhile is not', async () => {
  const open = { settled: 3, head: 6, openSince: 1_000 };
  const log = logOf({ late: open, young: { ...open, openSince: 9_500 }, done: open }, { done: { settled: 6 } });
  const store = holding({ late: [[1, 4]], young: [[1, 4]], done: [[1, 4]] });
  const { findings } = await verified(log, () => store, { stoppedAt: 10_000, openMsMax: 5_000 });
  assert.deepEqual(shown(findings), ['not-settled late 4-6']);
  assert.match(findings[0]?.detail ?? '', /given 9 s ago/);
});

test('verify: ids that are settled after the beginning are not asked of what was read before', async () => {
  const subjects: Record<string, { settled: number }> = { old: { settled: 2 } };
  const log = logOf(subjects);
  const store = holding({ old: [[1, 3]] });
  const begin = async (): Promise<void> => {
    subjects.old = { settled: 5 };
  };
  const { findings, last } = await verified(log, () => ({ ...store, begin }));
  assert.deepEqual(findings, []);
  assert.equal(last.messages, 2);
});

test('verify: what is missing where messages expire is no finding, but counted; behind a trim it is neither', async () => {
  const all = { settled: 10, head: 10, everExpires: true };
  const log = logOf({ a: all, b: { settled: 10, head: 10 }, c: all }, { c: { ...all, first: 8 } });
  const store = holding({ a: [[1, 3]], b: [[1, 11]], c: [[1, 6]] });
  const { findings, last } = await verified(log, () => store);
  assert.deepEqual(findings, []);
  // 3 to 10 of a; 8 to 10 of c, the rest of which was trimmed meanwhile.
  assert.equal(last.maybeExpired, 11);
});

test('verify: findings beyond ten thousand are counted, not told', async () => {
  const names = Array.from({ length: 11_000 }, (_, i) => `s${i}`);
  const log = logOf({});
  const { findings, last } = await verified(log, () =>
    holding(Object.fromEntries(names.map((name) => [name, [[1, 2]]]))),
  );
  assert.equal(findings.length, 10_000);
  assert.equal(last.findingsTotal, 11_000);
});

test('verify: a rate is kept, and what was not used is not saved up', () => {
  const pace = new Pace(1_000_000);
  assert.equal(pace.after(0), 0);
  // A second of bytes: told to wait for the longest nap, again and again.
  assert.equal(pace.after(1_000_000), 100);
  assert.equal(pace.after(0), 100);
  assert.equal(new Pace(0).after(1e12), 0);
});
