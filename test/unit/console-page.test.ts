/** The parts of the console's page that need no browser, and what the console serves of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { assert as check, jsonValue, property, string, uint8Array } from 'fast-check';
import { Assets } from '../../src/console/assets.ts';

interface Text {
  indentJson(text: string): string | null;
  hexDump(bytes: Uint8Array, width: number): string;
  bytesOf(base64: string): Uint8Array;
  textOf(bytes: Uint8Array, isCut: boolean): string | null;
  size(bytes: number): string;
  span(ms: number): string;
}

const text = (await import(new URL('../../src/console/page/text.js', import.meta.url).href)) as Text;

test('JSON is indented without a change to what it says: numbers are not rounded, names that come twice stay', () => {
  assert.equal(
    text.indentJson('{"a":12345678901234567890.10,"a":[],"b":{},"c":[1,{"d":" {,}: \\" "}]}'),
    '{\n  "a": 12345678901234567890.10,\n  "a": [],\n  "b": {},\n  "c": [\n    1,\n    {\n      "d": " {,}: \\" "\n    }\n  ]\n}',
  );
  check(
    property(jsonValue(), (value) => {
      const compact = JSON.stringify(value);
      const shown = text.indentJson(compact);
      assert.deepEqual(JSON.parse(shown ?? ''), JSON.parse(compact));
      assert.equal(shown, text.indentJson(JSON.stringify(value, null, 7)), 'the same for any spelling');
    }),
  );
});

test('what is no JSON, or is nested deeper than 64, is not shown as JSON', () => {
  check(
    property(string(), (input) => {
      const shown = text.indentJson(input);
      if (shown !== null) JSON.parse(input);
    }),
  );
  for (const input of ['', '{', '{"a":1}x', "{'a':1}", 'undefined', '[1,]']) assert.equal(text.indentJson(input), null);
  assert.notEqual(text.indentJson(`${'['.repeat(64)}${']'.repeat(64)}`), null);
  assert.equal(text.indentJson(`${'['.repeat(65)}${']'.repeat(65)}`), null);
  assert.equal(text.indentJson(`${'['.repeat(100_000)}${']'.repeat(100_000)}`), null);
});

test('a hex dump has every byte, and nothing but printable ASCII and a dot', () => {
  assert.equal(
    text.hexDump(Buffer.from('GET <b>\0\x7f\u202e'), 8),
    '000000  47 45 54 20 3c 62 3e 00  GET <b>·\n000008  7f e2 80 ae              ····',
  );
  check(
    property(uint8Array({ maxLength: 100 }), (bytes) => {
      const dump = text.hexDump(bytes, 16);
      assert.match(dump, /^[\x20-\x7e\n·]*$/);
      const hex = dump.split('\n').map((line) => line.slice(8, 8 + 47));
      assert.deepEqual(Buffer.from(hex.join('').replaceAll(' ', ''), 'hex'), Buffer.from(bytes));
    }),
  );
});

test('bytes are text only if they are UTF-8; where they were cut, half a character at the end is left out', () => {
  assert.equal(text.textOf(Buffer.from('grün \ufeff'), false), 'grün \ufeff');
  assert.equal(text.textOf(Buffer.from([0x66, 0xff]), false), null);
  assert.equal(text.textOf(Buffer.from('€').subarray(0, 2), false), null);
  assert.equal(text.textOf(Buffer.from('a€').subarray(0, 3), true), 'a');
  check(
    property(uint8Array(), (bytes) => {
      assert.deepEqual(Buffer.from(text.bytesOf(Buffer.from(bytes).toString('base64'))), Buffer.from(bytes));
    }),
  );
});

test('sizes and times have the unit that suits them', () => {
  assert.deepEqual(
    [0, 1_023, 1_024, 1_536, 5 * 2 ** 30].map((bytes) => text.size(bytes)),
    ['0 B', '1,023 B', '1 KiB', '1.5 KiB', '5 GiB'],
  );
  assert.deepEqual(
    [0.25, 40.4, 999, 61_000, 7_260_000, 90_000_000].map((ms) => text.span(ms)),
    ['0.3 ms', '40 ms', '999 ms', '1 min 1 s', '2 h 1 min', '1 d 1 h'],
  );
});

test('the page names its files by what is in them; they are kept for ever, the page is asked for again', () => {
  const assets = new Assets();
  const get = (path: string, headers: Record<string, string> = {}) => assets.answer({ path, headers });
  const page = get('/');
  assert.ok(page !== null);
  const html = String(page.body);
  const names = [...html.matchAll(/(?:src|href)="(\/[^"]*)"/g)].map(([, name]) => name ?? '');
  assert.equal(names.length, 4);
  for (const name of names) {
    assert.match(name, /^\/console\/[0-9a-f]{16}\/[a-z]+\.(js|css|svg)$/);
    const file = get(name);
    assert.equal(file?.headers?.['Cache-Control'], 'public, max-age=31536000, immutable', name);
    const packed = get(name, { 'accept-encoding': 'br, gzip' });
    assert.equal(packed?.headers?.['Content-Encoding'], 'gzip');
    assert.deepEqual(gunzipSync(packed?.body ?? ''), Buffer.from(file?.body ?? ''));
    assert.equal(get(name, { 'accept-encoding': 'gzip;q=0' })?.headers?.['Content-Encoding'], undefined);
  }
  assert.equal(page.headers?.['Cache-Control'], 'no-cache');
  assert.equal(get('/', { 'if-none-match': page.headers?.ETag ?? '' })?.status, 304);
  const policy = page.headers?.['Content-Security-Policy'] ?? '';
  assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';/);
  assert.ok(!policy.includes('unsafe'));
});

test('nothing but its own files is served, whatever the path', () => {
  const assets = new Assets();
  const script = /src="([^"]*)main\.js"/.exec(String(assets.answer({ path: '/', headers: {} })?.body))?.[1] ?? '';
  const paths = [
    '../api.ts',
    '..%2fapi.ts',
    '%2e%2e/api.ts',
    'index.html',
    'uplot.d.ts',
    '',
    'main.js/',
    'constructor',
  ];
  for (const path of paths) assert.equal(assets.answer({ path: script + path, headers: {} }), null, path);
  for (const path of ['/main.js', '/console/main.js', '/console/0123456789abcdef/main.js', `/x${script}main.js`]) {
    assert.equal(assets.answer({ path, headers: {} }), null, path);
  }
  check(
    property(string(), (path) => {
      assert.equal(assets.answer({ path: `/console/${path}`, headers: {} }), null);
    }),
  );
});
