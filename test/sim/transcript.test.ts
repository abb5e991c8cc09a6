import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { withoutAmbient } from './determinism.ts';
import { formatTranscript, parseTranscript, Transcript } from './transcript.ts';

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
      return;
    }
    blocks.forEach((block, i) => {
      assert.equal(actual[i]?.expected, block.expected, `${file}: ${block.command}`);
    });
  });
}
