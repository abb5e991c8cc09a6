/** Parts of the fuzzer: marks in the text of modules, mutants, and the cuts of streams. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runInNewContext } from 'node:vm';
import { instrument } from '../fuzz/instrument.ts';
import { Mutator } from '../fuzz/mutator.ts';
import { regressionsIn } from '../fuzz/regressions.ts';
import { piecesOf } from '../fuzz/target.ts';
import { sourceFiles } from '../support/source-tree.ts';

const SAMPLE = `
function f(a, b) {
  // if (a) { is a comment
  const words = { case: 1, default: 2, if: 'x ? y : z' };
  let text = \`\${a ? \`in \${b}\` : '}'} ?\`;
  if (a && /[/)]{1}\\/(?:x)/.test(text) || b === 0x10) text += 'r';
  switch (a > 2 ? 'big' : text) {
    case 'big': return [words.case, words?.default ?? 0, a ? (b ? 1 : 2) : 3];
    case a ? 'p' : 'q': return 'ternary';
    default: break;
  }
  for (const x of [1, 2]) if (x === b) return () => ({ x });
  while (b-- > 3) text += b;
  try { if (b < -5) throw new Error('e'); } catch { return 'caught'; } finally { text += '!'; }
  do text += ','; while (text.length < 5);
  return text / 2 / 3 || text;
}
results = [];
for (const a of [0, 1, 3]) for (const b of [-7, 0, 1, 2, 6, 16]) {
  const r = f(a, b);
  results.push(typeof r === 'function' ? r() : r);
}`;

test('marked text does what it did, tells each point once or more, and names what it compares with', () => {
  const { text, points, numbers, words } = instrument(SAMPLE, 100);
  const seen = new Set<number>();
  const reach = (point: number): void => {
    seen.add(point);
  };
  const globals = {
    __fuzzPoints: {
      h: reach,
      y: <T>(point: number, value: T): T => {
        reach(value ? point : point + 1);
        return value;
      },
      t: (point: number): boolean => {
        reach(point);
        return true;
      },
      f: (point: number): boolean => {
        reach(point);
        return false;
      },
    },
    results: [] as unknown[],
  };
  runInNewContext(text, globals);
  const plain = { results: [] as unknown[] };
  runInNewContext(SAMPLE, plain);
  assert.equal(JSON.stringify(globals.results), JSON.stringify(plain.results));
  assert.deepEqual([points, seen.size], [24, 22]);
  assert.ok([...seen].every((point) => point >= 100 && point < 100 + points));
  assert.ok(numbers.has(16) && words.has('big'));
  assert.equal(text.split('\n').length, SAMPLE.split('\n').length, 'lines stay where they are');
});

test('every module of src/ can be marked', () => {
  const marked = sourceFiles('src')
    .filter(({ path }) => path.endsWith('.ts'))
    .map(({ text }) => instrument(text, 0).points);
  assert.ok(marked.reduce((sum, points) => sum + points, 0) > 10_000);
});

test('equal seeds make equal mutants, never longer than they may be', () => {
  const make = (seed: number): string[] => {
    const mutator = new Mutator({ seed, words: [Buffer.from('word')], numbers: [0x4c57], lengthMax: 64 });
    const corpus = [Buffer.from('0123456789'), Buffer.alloc(64, 7), Buffer.alloc(0)];
    return Array.from({ length: 5_000 }, () => mutator.next(corpus).toString('hex'));
  };
  const first = make(1);
  assert.deepEqual(make(1), first);
  assert.notDeepEqual(make(2), first);
  assert.ok(first.every((hex) => hex.length <= 128));
  // A few kinds of change are certain to be among so many.
  assert.ok(new Set(first.map((hex) => hex.length)).size > 30 && first.some((hex) => hex.includes('776f7264')));
});

test('a stream that is cut has all of its bytes, and is cut in the same places again', () => {
  for (let length = 0; length < 200; length++) {
    const bytes = Buffer.from(Uint8Array.from({ length }, (_, i) => i * 7 + length));
    const pieces = piecesOf(bytes);
    assert.ok(Buffer.concat(pieces).equals(bytes));
    assert.deepEqual(piecesOf(bytes), pieces);
  }
});

test('regressions are read with their names, and an empty input is one', () => {
  const found = regressionsIn('# comment\n\na aGk= # why\na\nb   AA==\n');
  assert.deepEqual(
    [...found].map(([name, inputs]) => [name, inputs.map((input) => Buffer.from(input).toString('hex'))]),
    [
      ['a', ['6869', '']],
      ['b', ['00']],
    ],
  );
});
