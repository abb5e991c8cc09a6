/** Rules for the page of the console: what its scripts may use, and that they are typed and listed. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ROOT, withoutComments } from '../support/source-tree.ts';

const FOLDER = 'src/console/page';
const read = (name: string): string => readFileSync(join(ROOT, FOLDER, name), 'utf8');
const names = globSync('*', { cwd: join(ROOT, FOLDER) }).sort();
const scripts = names.filter((name) => name.endsWith('.js'));

test('the page has no way to turn text into markup or code', () => {
  const sinks =
    /\b(innerHTML|outerHTML|insertAdjacentHTML|setHTML\w*|parseHTML\w*|document\.write\w*|DOMParser|createContextualFragment|srcdoc|eval|Function|importScripts|javascript:)\b|\.(style|cssText)\s*=|set(Timeout|Interval)\(\s*['"`]/g;
  assert.ok(scripts.length >= 9);
  for (const name of scripts) assert.deepEqual(withoutComments(read(name)).match(sinks), null, name);
  for (const planted of ['a.innerHTML = b', 'eval(x)', 'new DOMParser()', "setTimeout('x')", 'e.style = x']) {
    assert.notEqual(planted.match(sinks), null, planted);
  }
});

test('the page has nothing inline and names nothing elsewhere', () => {
  const html = read('index.html');
  assert.doesNotMatch(html, /<style|\son\w+=|\sstyle=|<script(?![^>]* src=)/);
  for (const name of names.filter((each) => !each.endsWith('.svg')))
    assert.doesNotMatch(read(name), /https?:\/\//, name);
  assert.doesNotMatch(read('icon.svg').replace('http://www.w3.org/2000/svg', ''), /https?:|script|href/);
});

test('every script is served, and no other', () => {
  const list =
    /const SCRIPTS = \[([^\]]*)\]/.exec(readFileSync(join(ROOT, 'src/console/assets.ts'), 'utf8'))?.[1] ?? '';
  const served = [...list.matchAll(/'([a-z-]+)'/g)].map(([, name]) => `${name}.js`);
  assert.deepEqual(served.sort(), scripts);
});

test('its scripts have the types that they say', () => {
  const { stdout, status } = spawnSync(
    process.execPath,
    [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', 'tsconfig.page.json', '--pretty', 'false'],
    { cwd: ROOT, encoding: 'utf8' },
  );
  assert.equal(status, 0, stdout);
});
