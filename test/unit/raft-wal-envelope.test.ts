import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { EnvelopeCodec, EnvelopeError } from '../../src/storage/raft-wal/envelope.ts';

/** {v: 1, kind: 2, time: 1700000000000, payload: 01 02 ff} as plain msgpack: a map16, the time as a float64. */
const GOLDEN = 'de0004a17601a46b696e6402a474696d65cb4278bcfe56800000a77061796c6f6164c4030102ff';

function code(body: () => unknown): string {
  try {
    body();
    return 'accepted';
  } catch (error) {
    assert.ok(error instanceof EnvelopeError, String(error));
    return error.code;
  }
}

test('an envelope has these bytes, and they are read back', () => {
  const codec = new EnvelopeCodec();
  const bytes = codec.encode({ kind: 2, time: 1_700_000_000_000, payload: Uint8Array.of(1, 2, 255) });
  assert.equal(bytes.toString('hex'), GOLDEN);
  const back = new EnvelopeCodec().decode(Buffer.from(GOLDEN, 'hex'));
  assert.deepEqual({ ...back, payload: [...back.payload] }, { kind: 2, time: 1_700_000_000_000, payload: [1, 2, 255] });
});

test('any kind, time and payload come back, and an earlier result is not changed by a later call', () => {
  const codec = new EnvelopeCodec();
  fc.assert(
    fc.property(
      fc.array(
        fc.record(
          {
            kind: fc.integer({ min: 0, max: 65_535 }),
            time: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
            payload: fc.uint8Array({ maxLength: 3000 }),
          },
          { noNullPrototype: true },
        ),
        { minLength: 1, maxLength: 6 },
      ),
      (list) => {
        const encoded = list.map((one) => codec.encode(one));
        encoded.forEach((bytes, i) => {
          const { kind, time, payload } = codec.decode(bytes);
          assert.deepEqual({ kind, time, payload: Uint8Array.from(payload) }, list[i]);
        });
      },
    ),
  );
});

test('an unknown version is refused by name, anything else as malformed', () => {
  const codec = new EnvelopeCodec();
  const packr = new Packr({ useRecords: false });
  const payload = Buffer.from('x');
  assert.equal(
    code(() => codec.decode(packr.pack({ v: 2, kind: 1, time: 1, payload }))),
    'RAFT_ENTRY_VERSION',
  );
  for (const value of [
    null,
    7,
    [1, 2],
    {},
    { v: '1', kind: 1, time: 1, payload },
    { v: 1, kind: -1, time: 1, payload },
    { v: 1, kind: 1.5, time: 1, payload },
    { v: 1, kind: 1, time: 'now', payload },
    { v: 1, kind: 1, time: 1, payload: 'text' },
  ]) {
    assert.equal(
      code(() => codec.decode(packr.pack(value))),
      'RAFT_ENTRY_MALFORMED',
      JSON.stringify(value),
    );
  }
  assert.equal(
    code(() => codec.decode(new Uint8Array(0))),
    'RAFT_ENTRY_MALFORMED',
  );
});

test('random and cut bytes are refused and never crash', () => {
  const codec = new EnvelopeCodec();
  const good = codec.encode({ kind: 2, time: 1_700_000_000_000, payload: new Uint8Array(20) });
  for (let length = 0; length < good.length; length++) {
    assert.equal(
      code(() => codec.decode(good.subarray(0, length))),
      'RAFT_ENTRY_MALFORMED',
      `length ${length}`,
    );
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      code(() => codec.decode(bytes));
    }),
  );
});
