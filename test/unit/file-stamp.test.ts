import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileStamp } from '../../src/base/file-stamp.ts';
import { temporaryFolder } from '../support/temporary.ts';

test('a stamp is another one when a file was written, replaced, opened up or reached by another link, and the same while nothing happens', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'file');
  const seen: string[] = [fileStamp(path)];
  const see = (): void => {
    assert.equal(fileStamp(path), fileStamp(path));
    seen.push(fileStamp(path));
  };
  writeFileSync(path, 'one', { mode: 0o600 });
  see();
  chmodSync(path, 0o640);
  see();
  writeFileSync(`${path}.new`, 'one', { mode: 0o640 });
  renameSync(`${path}.new`, path);
  see();
  writeFileSync(path, 'longer');
  see();
  // As Kubernetes does it: the file is a link into a folder that is a link itself, and that one is changed.
  for (const generation of ['1', '2']) {
    mkdirSync(join(folder, generation));
    writeFileSync(join(folder, generation, 'file'), 'same');
    symlinkSync(generation, join(folder, '..data.new'));
    renameSync(join(folder, '..data.new'), join(folder, '..data'));
    if (generation === '1') {
      rmSync(path);
      symlinkSync('..data/file', path);
    }
    see();
  }
  assert.equal(new Set(seen).size, seen.length, seen.join('\n'));
});

test('a file that is not there, or that cannot be looked at, has a stamp that says why', (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'file');
  assert.equal(fileStamp(path), 'unreadable (ENOENT)');
  symlinkSync(path, path);
  assert.equal(fileStamp(path), 'unreadable (ELOOP)');
  rmSync(path);
  writeFileSync(path, '');
  assert.equal(fileStamp(join(path, 'below')), 'unreadable (ENOTDIR)');
});
