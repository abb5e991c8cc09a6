import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Answer, commonVersion, GreetingCodec, GreetingReader } from '../../src/net/hello.ts';
import { type Hello, REFUSAL_CODES } from '../../src/net/types.ts';
import { WireError } from '../../src/net/wire-error.ts';
import { mutate, noiseOf, numbersFrom } from '../support/fuzz.ts';

const strict = { noNullPrototype: true } as const;
const text = fc.string({ maxLength: 80 });
const name = fc.string({ minLength: 1, maxLength: 80 });
const hellos: fc.Arbitrary<Hello> = fc.record(
  {
    versionMin: fc.nat(65_535),
    versionMax: fc.nat(65_535),
    clusterId: text,
    node: name,
    instance: text,
    targetNode: text,
    targetInstance: text,
    purpose: fc.constantFrom('frames' as const, 'snapshot' as const),
  },
  strict,
);
const refusal = fc.record({ code: fc.constantFrom(...REFUSAL_CODES), words: text }, strict);
const answers: fc.Arbitrary<Answer> = fc.oneof(
  fc.record({ version: fc.integer({ min: 1, max: 65_535 }) }, strict),
  fc.record({ refusal }, strict),
);
const codec = new GreetingCodec();

/** The body of a greeting that comes byte by byte, with `rest` behind it. */
function bodyOf(greeting: Buffer, rest: Buffer): Buffer {
  const reader = new GreetingReader();
  for (const byte of greeting.subarray(0, -1)) assert.equal(reader.push(Buffer.of(byte)), null);
  const read = reader.push(Buffer.concat([greeting.subarray(-1), rest]));
  assert.deepEqual(read?.rest, rest);
  return read?.body ?? assert.fail();
}

test('any hello and any answer comes back as it was, with what stands behind it', () => {
  const rest = fc.uint8Array({ maxLength: 9_000 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(hellos, answers, rest, (hello, answer, behind) => {
      assert.deepEqual(codec.decodeHello(bodyOf(codec.encodeHello(hello), behind)), hello);
      assert.deepEqual(codec.decodeAnswer(bodyOf(codec.encodeAnswer(answer), behind)), answer);
    }),
  );
});

test('words of a refusal are cut, so that the dialer can read them', () => {
  const words = 'ü'.repeat(5_000);
  const answer = codec.decodeAnswer(bodyOf(codec.encodeAnswer({ refusal: { code: 'BUSY', words } }), Buffer.of()));
  assert.deepEqual(answer, { refusal: { code: 'BUSY', words: words.slice(0, 512) } });
});

test('a hello has these bytes', () => {
  const hello: Hello = {
    versionMin: 1,
    versionMax: 2,
    clusterId: 'c',
    node: 'n',
    instance: 'i',
    targetNode: 't',
    targetInstance: '',
    purpose: 'snapshot',
  };
  assert.equal(codec.encodeHello(hello).toString('hex'), '42524b520d0000004c0a8425980102a163a16ea169a174a001');
});

test('20,000 random and mutated greetings: each is read, waited for or refused', () => {
  const below = numbersFrom(99);
  const good = fc.sample(hellos, { numRuns: 40, seed: 3 }).map((hello) => codec.encodeHello(hello));
  for (let i = 0; i < 20_000; i++) {
    const bytes = i % 4 === 0 ? noiseOf(1 + below(60), below) : mutate(good[below(good.length)] as Buffer, below);
    try {
      const greeting = new GreetingReader().push(bytes);
      if (greeting !== null) codec.decodeHello(greeting.body);
    } catch (error) {
      assert.ok(error instanceof WireError, String(error));
    }
  }
});

test('what does not begin as a greeting is refused at its first byte, a long one at its length', () => {
  const codeOf = (bytes: Buffer): string => {
    try {
      return String(new GreetingReader().push(bytes));
    } catch (error) {
      return (error as WireError).code;
    }
  };
  assert.equal(codeOf(Buffer.from('G')), 'MAGIC');
  assert.equal(codeOf(Buffer.from('BRKr')), 'MAGIC');
  assert.equal(codeOf(Buffer.from('BRK')), 'null');
  assert.equal(codeOf(Buffer.concat([Buffer.from('BRKR'), Buffer.from('ffffffff00000000', 'hex')])), 'TOO_LONG');
  assert.equal(codeOf(Buffer.concat([Buffer.from('BRKR'), Buffer.from('0110000000000000', 'hex')])), 'TOO_LONG');
});

test('the version is the newest that both speak', () => {
  const choose = (min: number, max: number): number => {
    const [versionMin, versionMax] = [min, max];
    return commonVersion({ min: 3, max: 5 }, { versionMin, versionMax } as Hello);
  };
  assert.deepEqual(
    [choose(1, 2), choose(1, 3), choose(1, 9), choose(4, 4), choose(5, 9), choose(6, 9)],
    [0, 3, 5, 4, 5, 0],
  );
});
