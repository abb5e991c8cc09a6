import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { withoutAmbient } from './determinism.ts';
import { formatTranscript, parseTranscript, Transcript } from './transcript.ts';
import { countClaims, findBrokenClaims } from './transcript-claims.ts';

/** With --rewrite the files get what the cores do now; the diff is then read by a person. */
const isRewriting = process.argv.includes('--rewrite');
const folder = join(import.meta.dirname, 'transcripts');

for (const file of readdirSync(folder)
  .filter((name) => name.endsWith('.txt'))
  .sort()) {
  const path = join(folder, file);
  const text = readFileSync(path, 'utf8');
  const blocks = parseTranscript(text);
  const title = blocks[0]?.comment[0]?.replace(/^# */, '') ?? '';
  test(`transcript ${file}: ${title}`, () => {
    const transcript = new Transcript();
    const actual = withoutAmbient(() =>
      blocks.map((block) => (block.command === '' ? block : { ...block, expected: transcript.run(block.command) })),
    );
    if (isRewriting) {
      writeFileSync(path, formatTranscript(actual));
    }
    assert.deepEqual(findBrokenClaims(actual), [], `${file}: what must be seen`);
    assert.ok(countClaims(blocks) > 0, `${file} says nowhere what must be seen`);
    if (isRewriting) {
      return;
    }
    blocks.forEach((block, i) => {
      assert.equal(actual[i]?.expected, block.expected, `${file}: ${block.command}`);
    });
  });
}

test('a claim that does not hold is found, whichever way', () => {
  const claims = ['# seen: granted', '# never: refused'];
  const block = (expected: string) => parseTranscript(`${claims.join('\n')}\nready b\n----\n${expected}\n`);
  assert.deepEqual(findBrokenClaims(block('vote granted')), []);
  assert.deepEqual(findBrokenClaims(block('vote granted\nvote refused')), ['"ready b" must not show: refused']);
  assert.deepEqual(findBrokenClaims(block('nothing')), ['"ready b" must show: granted']);
  assert.equal(countClaims(block('')), 2);
});
