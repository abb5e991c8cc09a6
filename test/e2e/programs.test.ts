/** The programs of `npm run`, where they meet the shell. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { EXIT_READER_GONE } from '../support/reader-gone.ts';
import { ROOT } from '../support/source-tree.ts';

describe('a program whose reader goes away (| head -1)', () => {
  const rows = [
    { args: ['demo/run.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['perf/run.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['test/faults/run.ts', '--help'], code: EXIT_READER_GONE },
    { args: ['test/sim/run.ts', '--seeds', '1'], code: EXIT_READER_GONE },
    { args: ['test/run.ts', '--help'], code: EXIT_READER_GONE },
    // Its commands have no verdict to give: they were told to stop.
    { args: ['bin/broker.mjs', '--help'], code: 0 },
    { args: ['bin/broker.mjs', 'serve', '--help'], code: 0 },
  ];
  for (const { args, code } of rows) {
    it(`${args.join(' ')}: ends with code ${code}, without a word`, async () => {
      const child = spawn(process.execPath, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
      child.stdout.destroy();
      let said = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      assert.deepEqual([...(await once(child, 'close')), said], [code, null, '']);
    });
  }
});
