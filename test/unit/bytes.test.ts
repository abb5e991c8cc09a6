import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AssertionError } from '../../src/base/assert.ts';
import { ByteReader, ByteWriter, readSafeUint, tryReadSafeUint, writeSafeUint } from '../../src/base/bytes.ts';

const MAX = Number.MAX_SAFE_INTEGER;

test('[R29] integers to 2^53-1 are written and read exactly, as BigInt would', () => {
  const view = new DataView(new ArrayBuffer(16));
  const check = (value: number) => {
    writeSafeUint(view, 3, value);
    assert.equal(view.getBigUint64(3, true), BigInt(value));
    assert.equal(readSafeUint(view, 3), value);
  };
  for (const value of [0, 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 11, MAX - 1, MAX]) check(value);
  fc.assert(fc.property(fc.maxSafeNat(), check));
});

test('[R29] integers beyond 2^53-1 are refused, not rounded', () => {
  const view = new DataView(new ArrayBuffer(8));
  for (const value of [2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 10n, 2n ** 64n - 1n]) {
    view.setBigUint64(0, value, true);
    assert.equal(tryReadSafeUint(view, 0), -1);
    assert.throws(() => readSafeUint(view, 0), AssertionError);
  }
  for (const value of [2 ** 53, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => writeSafeUint(view, 0, value), AssertionError);
  }
});

test('what a writer writes a reader reads, from an empty buffer on and at any offset', () => {
  const writer = new ByteWriter(0);
  const row = fc.record({
    a: fc.nat(255),
    b: fc.nat(65_535),
    c: fc.nat(0xffff_ffff),
    d: fc.maxSafeNat(),
    e: fc.double(),
    f: fc.uint8Array({ maxLength: 40 }),
  });
  fc.assert(
    fc.property(fc.array(row, { maxLength: 20 }), fc.nat(5), (rows, lead) => {
      writer.clear();
      writer.claim(lead);
      for (const each of rows) {
        writer.uint8(each.a);
        writer.uint16(each.b);
        writer.uint32(0);
        writer.patchUint32(writer.length - 4, each.c);
        writer.safeUint(each.d);
        writer.float64(each.e);
        writer.uint8(each.f.length);
        writer.bytes(each.f);
      }
      const reader = new ByteReader(writer.toBytes(), lead);
      for (const each of rows) {
        assert.equal(reader.uint8(), each.a);
        assert.equal(reader.uint16(), each.b);
        assert.equal(reader.uint32(), each.c);
        assert.equal(reader.safeUint(), each.d);
        assert.ok(Object.is(reader.float64(), each.e));
        assert.deepEqual(Buffer.from(reader.take(reader.uint8())), Buffer.from(each.f));
      }
      assert.equal(reader.remaining, 0);
      assert.throws(() => reader.uint8(), AssertionError);
    }),
  );
});

test('numbers that do not fit their field are assertions', () => {
  const writer = new ByteWriter();
  assert.throws(() => writer.uint8(256), AssertionError);
  assert.throws(() => writer.uint16(-1), AssertionError);
  assert.throws(() => writer.uint32(2 ** 32), AssertionError);
  assert.throws(() => writer.patchUint32(0, 1), AssertionError);
});
