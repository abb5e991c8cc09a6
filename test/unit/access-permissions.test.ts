/** What the access file allows, by its rules alone. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Verb } from '../../src/access/caller.ts';
import { Permissions } from '../../src/access/permissions.ts';
import { Policy } from '../../src/access/policy.ts';
import { SubjectRule } from '../../src/access/subject-rule.ts';
import { Prng } from '../../src/base/prng.ts';
import { parseAccessFile } from '../../src/config/access-file.ts';
import { PAIRS, type PairVerb, pairsFile } from '../support/access-pairs.ts';

const VERBS: Readonly<Record<PairVerb, Verb>> = {
  publish: Verb.PUBLISH,
  subscribe: Verb.SUBSCRIBE,
  fetch: Verb.FETCH,
};

function policyOf(text: string): Policy {
  const parsed = parseAccessFile(text, 'access.yaml', () => '');
  assert.ok('document' in parsed, 'problems' in parsed ? parsed.problems.join('\n') : '');
  return new Policy(parsed.document);
}

const isPattern = (subject: string): boolean => /(^|\.)[*>](\.|$)/.test(subject);

/** In words that have nothing in common with the rules: a pattern as a regular expression. */
function expression(pattern: string): RegExp {
  const parts = pattern.split('.').map((token) => {
    if (token === '*') return '[^.]+';
    return token === '>' ? '.+' : RegExp.escape(token);
  });
  return new RegExp(`^${parts.join('\\.')}$`);
}

describe('permissions', () => {
  it(`[F13] allow and deny as a table of ${PAIRS.length} pairs says`, () => {
    assert.ok(PAIRS.length >= 50);
    const policy = policyOf(pairsFile());
    for (const [who, verb, subject, isAllowed] of PAIRS) {
      const { permissions } = policy.byTokenName(who) ?? assert.fail(who);
      const bytes = Buffer.from(`..${subject}..`);
      const found = isPattern(subject)
        ? permissions.mayFind(VERBS[verb], subject)
        : permissions.may(VERBS[verb], bytes, 2, bytes.length - 2);
      assert.equal(found, isAllowed, `${who} ${verb} ${subject}`);
      assert.equal(permissions.explain(verb, subject).isAllowed, isAllowed, `explained: ${who} ${verb} ${subject}`);
    }
  });

  it('agree with regular expressions about 20,000 random rules and subjects, and about what two patterns share', () => {
    const prng = new Prng(7);
    const words = ['a', 'b', 'ab', '*', '>'];
    const tokens = (from: readonly string[]): string =>
      Array.from({ length: 1 + prng.nextBelow(4) }, () => from[prng.nextBelow(from.length)]).join('.');
    const pattern = (): string => {
      for (;;) {
        const text = tokens(words);
        if (!text.slice(0, -1).includes('>')) return text;
      }
    };
    const all = ['a', 'b', 'ab', 'c'].flatMap((one) => [
      one,
      ...['a', 'b', 'ab', 'c'].flatMap((two) => [`${one}.${two}`, ...['a', 'b', 'c'].map((x) => `${one}.${two}.${x}`)]),
    ]);
    for (let i = 0; i < 1_000; i++) {
      const [left, right] = [pattern(), pattern()];
      const [one, other] = [SubjectRule.of(left), SubjectRule.of(right)];
      const meet = one.meet(other);
      for (const subject of all.filter((_, at) => at % 3 === i % 3)) {
        const bytes = Buffer.from(subject);
        const isLeft = expression(left).test(subject);
        assert.equal(one.matches(bytes, 0, bytes.length), isLeft, `${left} ${subject}`);
        const isBoth = isLeft && expression(right).test(subject);
        assert.equal(meet?.matches(bytes, 0, bytes.length) ?? false, isBoth, `${left} and ${right}: ${subject}`);
        if (one.covers(other) && expression(right).test(subject))
          assert.ok(isLeft, `${left} covers ${right}: ${subject}`);
      }
    }
  });

  it('are narrowed by what is missing and by what is denied anew, and by nothing else', () => {
    const of = (allow: string[], deny: string[] = []): Permissions => {
      const lists = (publish: string[]) => ({ publish, subscribe: [], fetch: [] });
      const grants = { allow: lists(allow), deny: lists(deny), observe: false, admin: false };
      return new Permissions([{ from: 'test', grants }]);
    };
    assert.equal(of(['a.>']).isNarrowedBy('publish', of(['a.>', 'b.>'])), false);
    assert.equal(of(['a.>'], ['a.b']).isNarrowedBy('publish', of(['a.>'])), false);
    assert.equal(of(['a.>', 'b.>']).isNarrowedBy('publish', of(['a.>'])), true);
    assert.equal(of(['a.>']).isNarrowedBy('publish', of(['a.>'], ['a.b'])), true);
    // Who has the same by other rules, or more, or is denied what was not allowed, has lost nothing.
    assert.equal(of(['a.b', 'a.c.>']).isNarrowedBy('publish', of(['a.>'])), false);
    assert.equal(of(['a.>'], ['a.b.>']).isNarrowedBy('publish', of(['a.>'], ['a.b.c', 'a.b.*'])), false);
    assert.equal(of(['a.>']).isNarrowedBy('publish', of(['a.>'], ['b.>', '*'])), false);
    assert.equal(of(['a.>']).isNarrowedBy('publish', of(['a.*', 'a.b.>'])), true);
  });

  it('that are said not to be narrowed allow whatever they did, by random rules', () => {
    const prng = new Prng(11);
    const pick = (from: readonly string[]): string => from[prng.nextBelow(from.length)] as string;
    const pattern = (): string => {
      const tokens = Array.from({ length: 1 + prng.nextBelow(3) }, () => pick(['a', 'b', '*']));
      return (prng.nextBelow(3) === 0 ? [...tokens, '>'] : tokens).join('.');
    };
    const some = (): string[] => Array.from({ length: prng.nextBelow(4) }, pattern);
    const make = () => {
      const [allow, deny] = [some(), some()].map((publish) => ({ publish, subscribe: [], fetch: [] }));
      assert.ok(allow !== undefined && deny !== undefined);
      return new Permissions([{ from: 'test', grants: { allow, deny, observe: false, admin: false } }]);
    };
    const words = ['a', 'b', 'c'];
    const two = words.flatMap((one) => words.map((other) => `${one}.${other}`));
    const three = two.flatMap((one) => words.map((other) => `${one}.${other}`));
    const all = [...words, ...two, ...three, ...three.map((one) => `${one}.a`)].map((one) => Buffer.from(one));
    let kept = 0;
    for (let i = 0; i < 5_000; i++) {
      const [before, after] = [make(), make()];
      if (before.isNarrowedBy('publish', after)) continue;
      kept += 1;
      for (const subject of all) {
        if (!before.may(Verb.PUBLISH, subject, 0, subject.length)) continue;
        const words = `${subject}: ${before.fingerprint} ${after.fingerprint}`;
        assert.ok(after.may(Verb.PUBLISH, subject, 0, subject.length), words);
      }
    }
    assert.ok(kept > 500, `${kept}`);
  });
});
