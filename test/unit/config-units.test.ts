import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatEndpoint, parseEndpoint } from '../../src/config/endpoint.ts';
import { formatBytes, formatDuration, parseBytes, parseDuration } from '../../src/config/units.ts';

const DURATIONS: readonly [string, number | null][] = [
  ['0', 0],
  ['0s', 0],
  ['250ms', 250],
  ['10s', 10_000],
  ['1.5s', 1_500],
  ['24h', 86_400_000],
  ['7d', 604_800_000],
  ['5', null],
  ['-1s', null],
  ['1.5ms', null],
  ['1e3s', null],
  ['10 s', null],
  ['10S', null],
  ['', null],
  ['99999999999999999d', null],
];

for (const [text, expected] of DURATIONS) {
  test(`duration "${text}" is ${expected} ms`, () => assert.equal(parseDuration(text), expected));
}

const SIZES: readonly [string, number | null][] = [
  ['0', 0],
  ['4096', 4_096],
  ['64KiB', 65_536],
  ['1.5MiB', 1_572_864],
  ['2GiB', 2_147_483_648],
  ['1B', 1],
  ['1.5', null],
  ['1KB', null],
  ['1kib', null],
  ['-1', null],
  ['9007199254740992', null],
];

for (const [text, expected] of SIZES) {
  test(`size "${text}" is ${expected} bytes`, () => assert.equal(parseBytes(text), expected));
}

test('what is formatted reads back as the same number', () => {
  fc.assert(
    fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), (value) => {
      assert.equal(parseDuration(formatDuration(value)), value);
      assert.equal(parseBytes(formatBytes(value)), value);
    }),
  );
});

const ENDPOINTS: readonly [string, { host: string; port: number } | null][] = [
  ['127.0.0.1:8081', { host: '127.0.0.1', port: 8081 }],
  ['localhost:0', { host: 'localhost', port: 0 }],
  ['broker-0.broker.default.svc:65535', { host: 'broker-0.broker.default.svc', port: 65_535 }],
  ['[::1]:80', { host: '::1', port: 80 }],
  ['[::]:80', { host: '::', port: 80 }],
  ['::1:80', null],
  ['[localhost]:80', null],
  ['localhost:65536', null],
  ['localhost', null],
  [':80', null],
  ['a b:80', null],
  ['-a:80', null],
  ['http://a:80', null],
];

for (const [text, expected] of ENDPOINTS) {
  test(`address "${text}" is ${expected === null ? 'refused' : 'taken'}`, () => {
    assert.deepEqual(parseEndpoint(text), expected);
    if (expected !== null) assert.equal(formatEndpoint(expected), text);
  });
}

test('an IPv4 address may be in brackets, for those who do not know which kind they have', () => {
  assert.deepEqual(parseEndpoint('[10.0.0.1]:80'), { host: '10.0.0.1', port: 80 });
  assert.equal(parseEndpoint('[10.0.0]:80'), null);
});
