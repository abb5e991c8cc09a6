import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readSmallFile, UnfitFile } from '../../src/base/small-file.ts';
import { loadAccessFile } from '../../src/config/access-file.ts';
import { readMaterial } from '../../src/tls/material.ts';
import { temporaryFolder } from '../support/temporary.ts';

test('a small file is read whole, also by a link, and with its mode', (t) => {
  const folder = temporaryFolder(t);
  const [path, link] = [join(folder, 'file'), join(folder, 'link')];
  writeFileSync(path, 'grün\n');
  chmodSync(path, 0o640);
  symlinkSync(path, link);
  for (const each of [path, link]) {
    const { text, mode } = readSmallFile(each, 6);
    assert.deepEqual([text, mode & 0o777], ['grün\n', 0o640]);
  }
  writeFileSync(path, '');
  assert.equal(readSmallFile(path, 6).text, '');
});

test('one that is too large, or not there, or a folder, is an error', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'file');
  writeFileSync(path, '1234567');
  assert.throws(() => readSmallFile(path, 6), new UnfitFile('it is larger than 6 bytes'));
  assert.throws(() => readSmallFile(join(folder, 'none'), 6), { code: 'ENOENT' });
  assert.throws(() => readSmallFile(folder, 1 << 20), { code: 'EISDIR' });
});

test('a pipe is refused at once: waiting for a writer would stop the whole process', (t) => {
  const folder = temporaryFolder(t);
  const pipe = join(folder, 'pipe');
  execFileSync('mkfifo', [pipe]);
  assert.throws(() => readSmallFile(pipe, 6), new UnfitFile('it is no ordinary file'));
  assert.throws(() => loadAccessFile(pipe), /access\.file .*pipe: cannot be read: it is no ordinary file$/);
  const files = { cert: pipe, key: pipe, ca: null };
  assert.throws(() => readMaterial(files, Date.now()), /tls\.cert .*pipe: it is no ordinary file$/);
  assert.throws(() => readSmallFile('/dev/zero', 6), new UnfitFile('it is no ordinary file'));
});
