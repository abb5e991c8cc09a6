/** Tag filters. What Go's regexp.MatchString says (Go 1.26) of each expression and value; null: this node does not understand it, or Go neither. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isMeant } from '../../src/gossip/serf/query-filters.ts';
import { EXPRESSION_LENGTH_MAX, STEPS_MAX, SUBJECT_LENGTH_MAX, TagPattern } from '../../src/gossip/serf/tag-pattern.ts';

function find(expression: string, value: string): boolean | null {
  return TagPattern.parse(expression)?.isFoundIn(value) ?? null;
}

const FOUND: readonly (readonly [expression: string, value: string])[] = [
  ['', ''],
  ['', 'anything'],
  ['broker', 'my-broker-1'],
  ['^broker-[0-9]+$', 'broker-12'],
  ['bro.er', 'broKer'],
  ['^(web|db)$', 'db'],
  ['^(?:web|)$', ''],
  ['a|b|', ''],
  ['ab*c', 'ac'],
  ['ab+c', 'abbbc'],
  ['ab?c', 'abc'],
  ['^a{2,3}$', 'aaa'],
  ['^a{2,}$', 'aaaaa'],
  ['^(ab){2}$', 'abab'],
  ['a*?b', 'aab'],
  ['\\d\\s\\w', '1 _'],
  ['^\\D\\S\\W$', 'ab-'],
  ['[[:alpha:]]+[[:digit:]]', 'x1'],
  ['[^[:space:]]', 'x'],
  ['[]a]', ']'],
  ['[^]a]', 'b'],
  ['[a-]', '-'],
  ['[-a]', '-'],
  ['[\\d.]+', '1.2'],
  ['[\\]x]', ']'],
  ['(?i)BROKER', 'broker'],
  ['(?i:B)roker', 'broker'],
  ['(?i)[A-C]', 'b'],
  ['(?s)a.b', 'a\nb'],
  ['\\bweb\\b', 'a web b'],
  ['\\Bb', 'ab'],
  ['\\Aa\\z', 'a'],
  ['\\x41\\x{42}', 'AB'],
  ['\\.\\$\\^\\(\\)', '.$^()'],
  ['a{,3}', 'a{,3}'],
  ['}', '}'],
  ['(?P<name>a)(?<other>b)', 'ab'],
  ['é', 'café'],
  ['^.$', '\u{1f600}'],
  ['[é-ü]', 'ö'],
  ['((a*)*)*b', 'aaab'],
  ['(|a)+', ''],
  ['^*a', 'a'],
];

const NOT_FOUND: readonly (readonly [expression: string, value: string])[] = [
  ['broker', ''],
  ['^broker$', 'a broker'],
  ['a.b', 'a\nb'],
  ['^a$', 'a\n'],
  ['BROKER', 'broker'],
  ['(?i:B)ROKER', 'broker'],
  ['a(?i)b', 'Ab'],
  ['((?i)a)b', 'aB'],
  ['(?i)a(?-i)b', 'AB'],
  ['^a{2,3}$', 'aaaa'],
  ['[^a-c]', 'abc'],
  ['\\bweb\\b', 'cobweb'],
  ['\\w', 'é'],
  ['\\s', '\v'],
];

const NOT_UNDERSTOOD = [
  '(',
  ')',
  'a)',
  '(a',
  '[a',
  '[b-a]',
  '[]',
  '*',
  'a|*',
  '+a',
  'a**',
  'a{2}{3}',
  '{2}',
  'a{1001}',
].concat(
  ['a{3,1}', '\\', '\\8', '\\pL', '\\p{Greek}', '\\Qa\\E', '(?m)a', '(?U)a', '(?=a)', '(?!a)', '(?<=a)b', '\\1'],
  ['[[:foo:]]', '(?i)*', 'a(?s){2}', '\\x{110000}', '\\xg0', '(?P<1>a)', '(?z)', '\\C'],
);

test('expressions find what they find in Go', () => {
  for (const [expression, value] of FOUND) assert.equal(find(expression, value), true, `${expression} in ${value}`);
  for (const [expression, value] of NOT_FOUND)
    assert.equal(find(expression, value), false, `${expression} in ${value}`);
});

test('what is not understood is refused as a whole', () => {
  const nested = `${'('.repeat(150)}a${')'.repeat(150)}`;
  for (const expression of [...NOT_UNDERSTOOD, nested]) assert.equal(find(expression, 'a'), null, expression);
});

test('[G7] expressions that take JavaScript years, or much memory, cost a bounded number of steps', () => {
  const bombs = [
    '^(a+)+$',
    '(a|a)*$',
    '(a*)*b',
    '(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x',
    `${'(a?){300}'}${'a{300}'}`,
    '(((((((){1000}){1000}){1000}){1000}){1000}){1000}){1000}',
    '((((((a{1000}){1000}){1000}){1000}){1000}){1000}){1000}',
    '('.repeat(EXPRESSION_LENGTH_MAX),
    `${'('.repeat(500)}a${')'.repeat(500)}`,
    '[a-z'.repeat(200),
  ];
  for (const expression of bombs) {
    const budget = { steps: STEPS_MAX };
    TagPattern.parse(expression, budget)?.isFoundIn(`${'a'.repeat(SUBJECT_LENGTH_MAX - 1)}!`, budget);
    // One more character is looked at than the budget has steps for.
    assert.ok(budget.steps > -2_000, `${expression.slice(0, 40)}: ${STEPS_MAX - budget.steps} steps`);
  }
  assert.equal(TagPattern.parse('a'.repeat(EXPRESSION_LENGTH_MAX + 1)), null);
  assert.equal(find('a', 'a'.repeat(SUBJECT_LENGTH_MAX + 1)), false);
});

test('[G7] the filters of one query share a budget: beyond it nobody is meant', () => {
  const tags = new Map([['t', 'a'.repeat(500)]]);
  const filter = { kind: 'tag', tag: 't', expression: '^(a|b|c|d|e|f|g|h)*$' } as const;
  assert.equal(isMeant([filter], 'n', tags), true);
  assert.equal(isMeant(new Array(40).fill(filter), 'n', tags), false);
});

test('whatever the expression, parsing and matching end and throw nothing', () => {
  const piece = fc.constantFrom(
    'a',
    'b',
    '(',
    ')',
    '[',
    ']',
    '{2}',
    '{',
    '}',
    '*',
    '+',
    '?',
    '|',
    '^',
    '$',
    '.',
    '\\',
    '-',
    '(?i)',
    'é',
    '\n',
  );
  const expression = fc.oneof(
    fc.array(piece, { maxLength: 30 }).map((pieces) => pieces.join('')),
    fc.string({ unit: 'binary' }),
  );
  fc.assert(
    fc.property(expression, fc.string({ unit: 'binary' }), (words, value) => {
      find(words, value);
    }),
    { numRuns: 3_000 },
  );
});

test('a plain word is found where String.includes finds it', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', '-'), maxLength: 4 });
  fc.assert(
    fc.property(word, fc.string({ unit: fc.constantFrom('a', 'b', '-') }), (a, b) => find(a, b) === b.includes(a)),
  );
});
