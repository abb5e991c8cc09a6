import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { errorsMarkdown } from '../../src/base/errors-document.ts';
import { ROOT } from '../support/source-tree.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { loadOracle } from './grpc-oracle.ts';

const EVERY_FILE = { recursive: true, withFileTypes: true } as const;

/** Paths below `folder` with their texts. */
function textsOf(folder: string): Map<string, string> {
  const files = readdirSync(folder, EVERY_FILE).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.sort().map((path) => [path.slice(folder.length), readFileSync(path, 'utf8')]));
}

test('src/grpc/gen is what `npm run generate` makes of the proto files, which pass the linter', {
  timeout: 60_000,
}, (t) => {
  const copy = temporaryFolder(t);
  cpSync(join(ROOT, 'proto'), join(copy, 'proto'), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(copy, 'node_modules'));
  mkdirSync(join(copy, 'src/grpc'), { recursive: true });
  execFileSync(process.execPath, [join(copy, 'proto/generate.ts')], { stdio: ['ignore', 'ignore', 'inherit'] });
  assert.deepEqual(textsOf(join(copy, 'src/grpc/gen')), textsOf(join(ROOT, 'src/grpc/gen')));
});

test('docs/errors.md is what `npm run generate` writes', () => {
  assert.equal(readFileSync(join(ROOT, 'docs/errors.md'), 'utf8'), errorsMarkdown());
});

test('a record and its delivery share the numbers of body, headers and expirationSeconds', () => {
  const fields = { body: Buffer.from('b'), headers: [{ key: 'k', value: Buffer.from('v') }], expirationSeconds: 7 };
  assert.deepEqual(loadOracle('broker.v1.Record').encode(fields), loadOracle('broker.MessageResponse').encode(fields));
});
