import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { isPlanted, plantBug } from '../../src/base/planted.ts';
import { codeOnly, placesOf, ROOT, sourceFiles } from '../support/source-tree.ts';

const HOME = 'src/base/planted.ts';
const source = sourceFiles('src');
const text = readFileSync(join(ROOT, HOME), 'utf8');
const names = [...text.matchAll(/^ {2}\| '([\w-]+)'/gm)].map((match) => match[1] as string);

test('no code of the broker plants a bug, so no flag, variable, file or message can', () => {
  const found = [...source, ...sourceFiles('bin')]
    .filter((file) => file.path !== HOME)
    .flatMap((file) => placesOf(file, codeOnly(file.text), /\bplantBug\b/g));
  assert.deepEqual(found, []);
});

test('nothing is planted unless a test plants it', () => {
  for (const name of names) assert.equal(isPlanted(name as Parameters<typeof isPlanted>[0]), false, name);
  plantBug('R5-truncate-matching');
  assert.equal(isPlanted('R5-truncate-matching'), true);
  assert.equal(isPlanted('R10-no-quorum-check'), false);
  plantBug(null);
  assert.equal(isPlanted('R5-truncate-matching'), false);
});

test('every planted bug has a place in the code, and every place a bug', () => {
  const places = [...source, ...sourceFiles('test')]
    .filter((file) => file.path !== HOME && !file.path.startsWith('test/unit/'))
    .flatMap((file) => [...file.text.matchAll(/isPlanted\('([\w-]+)'\)/g)].map((match) => match[1] as string));
  assert.deepEqual([...new Set(places)].sort(), [...names].sort());
});
