/** The access file is followed by real files and the real parser; looks are made here, one by one. */
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type LoadedAccess, loadAccessFile } from '../../src/config/access-file.ts';
import { AccessFileWatch } from '../../src/workers/access/access-file-watch.ts';
import { hashOf } from '../support/access-pairs.ts';
import { temporaryFolder } from '../support/temporary.ts';

const LOOK_MS = 200;

const row = (name: string, more: string): string => `  - {name: ${name}, hash: "${hashOf(name)}", ${more}}\n`;
const ALLOWED = `tokens:\n${row('a', 'allow: {publish: [">"]}')}`;
const publicKey = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ type: 'spki', format: 'pem' }).toString();
const issuer = (keys: string): string =>
  `jwt:\n  - {name: login, issuer: i, audience: broker, keys: ${keys}, allow: {publish: [">"]}}\n`;

/** A watch over a file with this text; `onLoad` is called when a load has read all of it, before it is looked at again. */
function watching(t: TestContext, text: string, onLoad: (path: string) => void = () => undefined) {
  const folder = temporaryFolder(t);
  const path = join(folder, 'access.yaml');
  writeFileSync(path, text);
  const applied: LoadedAccess[] = [];
  const said: string[] = [];
  const say = (message: string, fields?: object): void => void said.push(`${message} ${JSON.stringify(fields ?? {})}`);
  const watch = new AccessFileWatch({
    path,
    load: (file, onRead) => {
      try {
        return loadAccessFile(file, onRead);
      } finally {
        onLoad(file);
      }
    },
    apply: (loaded) => void applied.push(loaded),
    log: { debug: say, info: say, warn: say, error: say },
  });
  watch.open();
  t.mock.timers.enable({ apis: ['setInterval'] });
  watch.start();
  t.after(() => watch.stop());
  const look = (times = 1): void => t.mock.timers.tick(times * LOOK_MS);
  /** By what was applied last; undefined: nothing was. */
  const mayPublish = (name: string, subject = 'orders'): boolean | undefined =>
    applied.length === 0
      ? undefined
      : (applied.at(-1)?.policy.byTokenName(name)?.permissions.explain('publish', subject).isAllowed ?? false);
  return { folder, path, watch, applied, said, look, mayPublish };
}

/** `deny` is at the end: without it the file is a good one. */
const OPEN = `tokens:\n${row('a', 'allow: {publish: [">"]}, deny: {publish: [secret]}')}`;
const HALF = OPEN.replace(/, deny.*/, '}');

test('a file that is written in place is taken when two looks found the same: never the half of it, which is a good file too', (t) => {
  const { path, applied, watch, look, mayPublish } = watching(t, OPEN);
  look(3);
  assert.equal(applied.length, 0, 'it is as it was at the start');
  // Whoever writes it gets ahead between any two looks.
  for (const text of ['tokens:\n', HALF, `${HALF}# `, `${HALF}# more`]) {
    writeFileSync(path, text);
    look();
  }
  writeFileSync(path, OPEN.replace('name: a', 'name: b'));
  look();
  assert.deepEqual([applied.length, watch.loads, watch.failures], [0, 0, 0]);
  look();
  assert.deepEqual([applied.length, watch.loads, watch.failures], [1, 1, 0]);
  assert.deepEqual([mayPublish('a'), mayPublish('b'), mayPublish('b', 'secret')], [false, true, false]);
  look(5);
  assert.equal(applied.length, 1, 'once');
});

test('what was read of a file that changes meanwhile is not taken', (t) => {
  let onLoad = (): void => undefined;
  const { path, applied, look, mayPublish } = watching(t, OPEN, () => onLoad());
  writeFileSync(path, HALF);
  onLoad = () => {
    onLoad = () => undefined;
    writeFileSync(path, OPEN);
  };
  look(2);
  assert.equal(applied.length, 0);
  look();
  assert.deepEqual([applied.length, mayPublish('a'), mayPublish('a', 'secret')], [1, true, false]);
});

test('a change while the file is read for the first time is noticed', (t) => {
  let loads = 0;
  const { applied, look, mayPublish } = watching(t, HALF, (path) => {
    loads += 1;
    if (loads === 1) writeFileSync(path, OPEN);
  });
  look(2);
  assert.deepEqual([applied.length, mayPublish('a', 'secret')], [1, false]);
});

for (const [how, replace] of [
  ['a rename', (folder: string, text: string): void => replaceFile(join(folder, 'access.yaml'), text)],
  ['a swap of the links of Kubernetes', swapLinks],
] as const) {
  test(`a file that is replaced by ${how} is taken at the second look`, (t) => {
    const { folder, applied, look, mayPublish } = watching(t, ALLOWED);
    replace(folder, ALLOWED);
    look(2);
    replace(folder, OPEN);
    look();
    assert.equal(applied.length, 1);
    look();
    assert.deepEqual([applied.length, mayPublish('a'), mayPublish('a', 'secret')], [2, true, false]);
  });
}

test('whoever asks has an unchanged file read again, and a half-written one not', (t) => {
  const { path, applied, watch, look } = watching(t, OPEN);
  look();
  watch.reload();
  look(2);
  assert.equal(applied.length, 1);
  for (const text of [HALF, `${HALF}# `, `${HALF}# more`]) {
    writeFileSync(path, text);
    watch.reload();
    look();
  }
  assert.equal(applied.length, 1);
  // However often somebody asks, it comes to be read.
  watch.reload();
  look();
  assert.equal(applied.length, 2);
});

test('a file that never comes to rest is told of once, and taken when it does', (t) => {
  const { path, applied, said, watch, look } = watching(t, OPEN);
  for (let i = 0; i < 60; i += 1) {
    writeFileSync(path, `${OPEN}#${'x'.repeat(i)}`);
    look();
  }
  assert.deepEqual([applied.length, watch.failures, said.length], [0, 1, 1]);
  assert.match(said[0] ?? '', /changes all the time.*write the new one beside it and rename it/);
  look();
  assert.equal(applied.length, 1);
});

test('a bad file is told of once, and files of keys that it names are watched with it; so are those of a good one', (t) => {
  const { folder, path, applied, said, watch, look } = watching(t, OPEN);
  replaceFile(path, issuer('keys.pem'));
  look(3);
  assert.deepEqual([applied.length, watch.failures, said.length], [0, 1, 1]);
  assert.match(said[0] ?? '', /keys\.pem: cannot be read/);
  look(5);
  assert.equal(watch.failures, 1);

  const keys = join(folder, 'keys.pem');
  writeFileSync(keys, 'half of it');
  look();
  writeFileSync(keys, publicKey());
  look();
  assert.deepEqual([applied.length, watch.failures], [0, 1]);
  look();
  assert.deepEqual([applied.length, watch.failures], [1, 1]);

  replaceFile(keys, publicKey());
  look(2);
  assert.equal(applied.length, 2);
  rmSync(keys);
  symlinkSync(keys, keys);
  look(2);
  assert.deepEqual([applied.length, watch.failures], [2, 2]);
  replaceFile(keys, publicKey());
  look(2);
  assert.equal(applied.length, 3);
});

function replaceFile(path: string, text: string): void {
  writeFileSync(`${path}.new`, text);
  renameSync(`${path}.new`, path);
}

/** The file is a link into a folder that is a link itself, and that one is changed in one step. */
function swapLinks(folder: string, text: string): void {
  const generation = String(readdirSync(folder).length);
  mkdirSync(join(folder, generation));
  writeFileSync(join(folder, generation, 'access.yaml'), text);
  symlinkSync(generation, join(folder, '..data.new'));
  renameSync(join(folder, '..data.new'), join(folder, '..data'));
  symlinkSync('..data/access.yaml', join(folder, 'access.yaml.new'));
  renameSync(join(folder, 'access.yaml.new'), join(folder, 'access.yaml'));
}
