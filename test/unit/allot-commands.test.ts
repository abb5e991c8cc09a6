import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import { expiresMaxOf, expiryWord } from '../../src/allot/commands.ts';
import { AssertionError } from '../../src/base/assert.ts';
import { Prng } from '../../src/base/prng.ts';
import { type Command, encode, HOME, LIMITS, Rig, Transcript } from './allot-rig.ts';

const GOLDEN: readonly [Command, string][] = [
  [
    { do: 'open', subject: 'ab', count: 258, shard: 1, counter: 2, expiresMax: 60 },
    '020200000d64cc98010000000200000002010000640000003c0000806162',
  ],
  [
    { do: 'open', subject: 'ab', count: 1, expiresMax: 0, hasExpiry: true },
    '020200000d64cc980000000000000000010000006400000000000080' + '6162',
  ],
  [
    { do: 'open', subject: 'ab', count: 1, expectedHead: 2 ** 53 - 1 },
    '020201000d64cc9800000000000000000100000064000000000000006162ffffffffffff1f00',
  ],
  [
    {
      do: 'open',
      subject: 'ab',
      parts: [{ count: 1 }, { count: 2, producer: 'p', sequence: 2 ** 53 - 1, checksum: 0xdeadbeef }],
    },
    '020202000d64cc9800000000000000000300000064000000000000006162020001000000000200000001efbeaddeffffffffffff1f0070',
  ],
  [{ do: 'stored', subject: 'ab', base: 2 ** 53 - 1 }, '030202000d64cc98ffffffffffff1f006162'],
  [{ do: 'void', subject: 'ab', base: 1 }, '030204000d64cc9801000000000000006162'],
  [{ do: 'revoke', subject: 'ab', base: 1 }, '040203000d64cc9801000000000000006162'],
  [{ do: 'revoke-behind', subject: 'ab', base: 1 }, '040203010d64cc9801000000000000006162'],
  [{ do: 'trim', subject: 'ab', first: 258 }, '050200000d64cc9802010000000000006162'],
  [{ do: 'node-started', keepOpen: true }, '0601'],
  [{ do: 'revoke-node', node: 'b', shard: 3 }, '070101000300000062'],
  [
    { do: 'recovered', subject: 'ab', storeHighest: 1, head: 258 },
    '080200000d64cc98010000000000000061620201000000000000',
  ],
  [{ do: 'floor', floor: 258 }, '09000201000000000000'],
];

for (const [command, bytes] of GOLDEN) {
  test(`the layout of ${JSON.stringify(command)} is frozen: golden bytes`, () => {
    assert.equal(Buffer.from(encode(HOME, [command])).toString('hex'), `0101010000000700000061${bytes}`);
  });
}

test('the expiry of an open is exact, whether some or all of its messages expire; that of an earlier version is read as it was meant', () => {
  const EXPIRES_MAX = fc.oneof(fc.constantFrom(0, 1, 2, 2 ** 31 - 1), fc.integer({ min: 0, max: 2 ** 31 - 1 }));
  fc.assert(
    fc.property(EXPIRES_MAX, (expiresMax) => {
      const word = expiryWord(expiresMax, true);
      assert.equal(expiresMaxOf(word), expiresMax);
      assert.ok(word > 0 && word >>> 0 === word);
      // What an earlier version wrote: 1 also where some messages never expire.
      assert.equal(expiresMaxOf(expiresMax), expiresMax === 1 ? 0 : expiresMax);
    }),
  );
  assert.equal(expiryWord(0, false), 0);
  assert.throws(() => expiryWord(1, false), AssertionError);
  assert.throws(() => expiryWord(2 ** 31, true), AssertionError);
});

test('what cannot be a command is not written: empty or long subjects, no ids, ids beyond 2^53-1', () => {
  const refused = (command: Command) => assert.throws(() => encode(HOME, [command]), AssertionError);
  refused({ do: 'open', subject: '' });
  refused({ do: 'open', subject: 'x'.repeat(256) });
  refused({ do: 'open', subject: 's', count: 0 });
  refused({ do: 'open', subject: 's', count: 2 ** 32 });
  refused({ do: 'open', subject: 's', parts: [] });
  refused({ do: 'open', subject: 's', parts: [{ count: 1, producer: 'x'.repeat(65), sequence: 1 }] });
  refused({ do: 'open', subject: 's', parts: [{ count: 1, producer: 'x', sequence: 0 }] });
  refused({ do: 'stored', subject: 's', base: 2 ** 53 });
  refused({ do: 'trim', subject: 's', first: 1.5 });
  assert.throws(() => encode({ node: '', incarnation: 1 }, []), AssertionError);
});

/** Everything once, so that mutations reach every branch. */
const RUN: readonly Command[] = [
  { do: 'node-started', keepOpen: true },
  { do: 'open', subject: 'ab', count: 3 },
  { do: 'open', subject: 'ab', count: 1, expectedHead: 3 },
  { do: 'open', subject: 'cd', parts: [{ count: 1 }, { count: 2, producer: 'p', sequence: 1, checksum: 9 }] },
  { do: 'stored', subject: 'ab', base: 1 },
  { do: 'revoke', subject: 'ab', base: 4 },
  { do: 'void', subject: 'ab', base: 4 },
  { do: 'trim', subject: 'ab', first: 2 },
  { do: 'revoke-node', node: 'a', shard: 3 },
];

/** Applies bytes; true if they were taken. Anything but an assertion fails the test. */
function applies(payload: Uint8Array): boolean {
  const machine = new AllotMachine(LIMITS);
  try {
    machine.apply(1, 1_000, payload, new Transcript());
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('hash of')) return false;
    assert.ok(error instanceof AssertionError, `${error}`);
    return false;
  }
  AllotMachine.restore(drainOf(machine), LIMITS);
  return true;
}

function drainOf(machine: AllotMachine): Uint8Array[] {
  const writer = machine.beginSnapshot();
  const chunks: Uint8Array[] = [];
  for (let chunk = writer.nextChunk(1 << 16); chunk !== null; chunk = writer.nextChunk(1 << 16)) chunks.push(chunk);
  return chunks;
}

test('an entry cut anywhere but between two commands is an assertion', () => {
  const whole = encode(HOME, RUN);
  const borders = new Set(RUN.map((_, i) => encode(HOME, RUN.slice(0, i)).length));
  borders.add(0);
  for (let length = 0; length < whole.length; length++) {
    assert.equal(applies(whole.subarray(0, length)), borders.has(length), `cut at ${length}`);
  }
});

test('damaged commands are assertions or named refusals, never another error: each byte and 3,000 random damages', () => {
  const whole = encode(HOME, RUN);
  for (let at = 0; at < whole.length; at++) {
    for (const value of [0, 1, 0x7f, 0xff]) {
      const damaged = whole.slice();
      damaged[at] = value;
      applies(damaged);
    }
  }
  const prng = new Prng(99);
  for (let round = 0; round < 3_000; round++) {
    const damaged = whole.slice(0, 1 + prng.nextBelow(whole.length));
    for (let i = prng.nextBelow(4); i >= 0; i--) damaged[prng.nextBelow(damaged.length)] = prng.nextBelow(256);
    applies(damaged);
  }
  for (let round = 0; round < 500; round++) {
    applies(Uint8Array.from({ length: prng.nextBelow(200) }, () => prng.nextBelow(12)));
  }
});

test('[R29] an id of 2^53 or more in a command is an assertion, not rounded', () => {
  const payload = encode(HOME, [{ do: 'stored', subject: 's', base: 2 ** 53 - 1 }]).slice();
  assert.equal(applies(payload), true);
  const high = payload.length - 1 - 1;
  payload[high] = 0x20;
  payload[high - 1] = 0;
  assert.throws(() => new AllotMachine(LIMITS).apply(1, 1, payload, new Transcript()), /2\^53-1/);
});

test('a wrong hash is an assertion before it gives a subject a second row', () => {
  const rig = Rig.started();
  const payload = encode(HOME, [{ do: 'open', subject: 's' }]).slice();
  const hashAt = 11 + 4;
  payload[hashAt] = (payload[hashAt] as number) ^ 1;
  assert.throws(() => rig.machine.apply(2, 1_000, payload, rig.transcript), /hash/);
});
