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
  });
});
