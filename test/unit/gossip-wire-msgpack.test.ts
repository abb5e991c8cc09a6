import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode } from '@msgpack/msgpack';
import fc from 'fast-check';
import { MsgpackReader, MsgpackWriter } from '../../src/net/gossip/wire/msgpack.ts';

/** Bytes as hashicorp/go-msgpack v2.1.5 writes them. */
const UNSIGNED: readonly (readonly [number | bigint, string])[] = [
  [0, '00'],
  [127, '7f'],
  [128, 'cc80'],
  [255, 'ccff'],
  [256, 'cd0100'],
  [65_535, 'cdffff'],
  [65_536, 'ce00010000'],
  [4_294_967_295, 'ceffffffff'],
  [4_294_967_296, 'cf0000000100000000'],
  [2n ** 64n - 1n, 'cfffffffffffffffff'],
];
const SIGNED: readonly (readonly [number | bigint, string])[] = [
  [127, '7f'],
  [128, 'd10080'],
  [255, 'd100ff'],
  [32_767, 'd17fff'],
  [32_768, 'd200008000'],
  [2_147_483_648, 'd30000000080000000'],
  [-1, 'ff'],
  [-32, 'e0'],
  [-33, 'd0df'],
  [-129, 'd1ff7f'],
  [-32_769, 'd2ffff7fff'],
  [-(2n ** 63n), 'd38000000000000000'],
];

for (const [value, hex] of UNSIGNED) {
  test(`an unsigned ${value} is ${hex}, and read again`, () => {
    const bytes = new MsgpackWriter().uint(value).toBytes();
    assert.equal(Buffer.from(bytes).toString('hex'), hex);
    assert.equal(new MsgpackReader(bytes).uint64(), BigInt(value));
  });
}

for (const [value, hex] of SIGNED) {
  test(`a signed ${value} is ${hex}, and read again`, () => {
    const bytes = new MsgpackWriter().int(value).toBytes();
    assert.equal(Buffer.from(bytes).toString('hex'), hex);
    const reader = new MsgpackReader(bytes);
    const read = reader.int();
    if (Number.isSafeInteger(Number(value))) assert.equal(read, Number(value));
    else assert.equal(reader.failure, 'range');
  });
}

for (const [length, head] of [
  [0, 'a0'],
  [31, 'bf'],
  [32, 'da0020'],
  [255, 'da00ff'],
  [65_535, 'daffff'],
  [65_536, 'db00010000'],
] as const) {
  test(`a byte slice of ${length} bytes starts with ${head}: raw has no 8-bit length`, () => {
    const bytes = new MsgpackWriter().bytes(new Uint8Array(length).fill(7)).toBytes();
    assert.equal(Buffer.from(bytes.subarray(0, head.length / 2)).toString('hex'), head);
    assert.equal(new MsgpackReader(bytes).bytes(length).length, length);
    const refused = new MsgpackReader(bytes);
    assert.equal(refused.bytes(length - 1).length, 0);
    assert.equal(refused.failure, 'long');
  });
}

test('what a package writes is passed over to its last byte, and each cut is noticed', () => {
  fc.assert(
    fc.property(fc.anything({ withNullPrototype: false, maxDepth: 4 }), (value) => {
      const bytes = tryEncode(value);
      if (bytes === null) return;
      const whole = new MsgpackReader(bytes);
      whole.skip();
      assert.equal(whole.failure, null);
      assert.equal(whole.remaining, 0);
      for (let end = 0; end < bytes.length; end++) {
        const cut = new MsgpackReader(bytes, 0, end);
        cut.skip();
        assert.equal(cut.failure, 'cut');
      }
    }),
    { numRuns: 300 },
  );
});

/** fast-check makes values that msgpack has no type for, such as symbols. */
function tryEncode(value: unknown): Uint8Array | null {
  try {
    return encode(value, { useBigInt64: true });
  } catch (error) {
    assert.ok(error instanceof Error);
    return null;
  }
}

test('what is written here is read by a package', () => {
  const writer = new MsgpackWriter().map(6).string('Uint').uint(300).string('Int').int(-300).string('Yes').bool(true);
  writer.string('Nil').bytes(null).string('Float').float64(-0.5).string('Strings').array(2).string('é').string('');
  assert.deepEqual(decode(writer.toBytes()), {
    Uint: 300,
    Int: -300,
    Yes: true,
    Nil: null,
    Float: -0.5,
    Strings: ['é', ''],
  });
});

test('nil is the zero value of whatever is asked for', () => {
  const nil = Uint8Array.of(0xc0);
  assert.equal(new MsgpackReader(nil).uint(5), 0);
  assert.equal(new MsgpackReader(nil).int(), 0);
  assert.equal(new MsgpackReader(nil).float64(), 0);
  assert.equal(new MsgpackReader(nil).bool(), false);
  assert.equal(new MsgpackReader(nil).string(5), '');
  assert.equal(new MsgpackReader(nil).mapStart(5), 0);
  assert.equal(new MsgpackReader(nil).arrayStart(5), 0);
});

for (const [what, hex, read, failure] of [
  ['a map of 2^32-1 fields', 'dfffffffff', (reader: MsgpackReader) => reader.mapStart(2 ** 32), 'cut'],
  ['an array of 2^31 values', 'dd80000000', (reader: MsgpackReader) => reader.arrayStart(2 ** 20), 'range'],
  ['a string of 4 GiB', 'dbffffffff', (reader: MsgpackReader) => reader.string(2 ** 33), 'cut'],
  ['a float for an integer', 'cb3ff0000000000000', (reader: MsgpackReader) => reader.uint(9), 'type'],
  ['a negative for an unsigned', 'ff', (reader: MsgpackReader) => reader.uint(9), 'range'],
  ['a number one beyond its bound', '0a', (reader: MsgpackReader) => reader.uint(9), 'range'],
  ['2^53 for a safe integer', 'cf0020000000000000', (reader: MsgpackReader) => reader.uint(2 ** 53 - 1), 'range'],
  ['half a character', 'a1c3', (reader: MsgpackReader) => reader.string(9), 'utf8'],
  ['the byte that no value has', 'c1', (reader: MsgpackReader) => reader.skip(), 'type'],
  ['nothing', '', (reader: MsgpackReader) => reader.bool(), 'cut'],
] as const) {
  test(`[G7] ${what} is refused as ${failure}, and so is all behind it`, () => {
    const reader = new MsgpackReader(Buffer.from(`${hex}`, 'hex'));
    read(reader);
    assert.equal(reader.failure, failure);
    assert.equal(reader.remaining, 0);
    assert.equal(reader.mapStart(9), 0);
    assert.equal(reader.key(), '');
    assert.equal(reader.failure, failure);
  });
}

test('[G7] a hundred thousand arrays in one another are passed over without recursion', () => {
  const bytes = new Uint8Array(100_000).fill(0x91);
  bytes[bytes.length - 1] = 0xc0;
  const reader = new MsgpackReader(bytes);
  reader.skip();
  assert.equal(reader.failure, null);
  assert.equal(reader.remaining, 0);
});
