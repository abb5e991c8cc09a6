import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SLOT_COUNT, slotOfHash, subjectFault, subjectHash } from '../../src/base/subject.ts';

function faultOf(subject: string | Uint8Array): string | null {
  const bytes = Buffer.concat([Buffer.from('\x01'), Buffer.from(subject), Buffer.from('\x01')]);
  return subjectFault(bytes, 1, bytes.length - 1);
}

const FINE = [
  'a',
  'orders.europe.1',
  'x'.repeat(255),
  'ü'.repeat(127),
  'with space inside',
  'a*',
  '>>',
  '**.a>b',
  '*a.>a',
  'Ω.日本.🚀',
  '\u00ad',
];

const FAULTS: readonly [string, string | Uint8Array][] = [
  ['SUBJECT_EMPTY', ''],
  ['SUBJECT_TOO_LONG', 'x'.repeat(256)],
  ['SUBJECT_TOO_LONG', 'ü'.repeat(128)],
  ['SUBJECT_NOT_UTF8', Buffer.from([0x61, 0xff])],
  ['SUBJECT_NOT_UTF8', Buffer.from([0xc0, 0xaf])],
  ['SUBJECT_NOT_UTF8', Buffer.from([0xed, 0xa0, 0x80])],
  ['SUBJECT_NOT_UTF8', Buffer.from([0xe6, 0x97])],
  ['SUBJECT_CONTROL_CHARACTER', 'a\x00b'],
  ['SUBJECT_CONTROL_CHARACTER', 'a\nb'],
  ['SUBJECT_CONTROL_CHARACTER', 'a\x7f'],
  ['SUBJECT_CONTROL_CHARACTER', 'a\u0085b'],
  ['SUBJECT_CONTROL_CHARACTER', 'a\u009f'],
  ['SUBJECT_WHITE_SPACE', ' a'],
  ['SUBJECT_WHITE_SPACE', 'a '],
  ['SUBJECT_WHITE_SPACE', '\u00a0a'],
  ['SUBJECT_WHITE_SPACE', 'a\u3000'],
  ['SUBJECT_WHITE_SPACE', ' '],
  ['SUBJECT_EMPTY_TOKEN', '.'],
  ['SUBJECT_EMPTY_TOKEN', '.a'],
  ['SUBJECT_EMPTY_TOKEN', 'a.'],
  ['SUBJECT_EMPTY_TOKEN', 'a..b'],
  ['SUBJECT_WILDCARD_TOKEN', '*'],
  ['SUBJECT_WILDCARD_TOKEN', '>'],
  ['SUBJECT_WILDCARD_TOKEN', 'a.*.b'],
  ['SUBJECT_WILDCARD_TOKEN', 'a.>'],
];

test('section 2: subjects that keep every rule are fine', () => {
  for (const subject of FINE) assert.equal(faultOf(subject), null, subject);
});

for (const [fault, subject] of FAULTS) {
  test(`section 2: ${JSON.stringify(Buffer.from(subject).toString('latin1').slice(0, 12))} is refused as ${fault}`, () => {
    assert.equal(faultOf(subject), fault);
  });
}

test('any bytes get an answer, and what is fine is valid UTF-8 of 1 to 255 bytes without empty tokens', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      if (faultOf(bytes) !== null) return;
      const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
      assert.ok(bytes.length >= 1 && bytes.length <= 255);
      assert.ok(text.split('.').every((token) => token !== '' && token !== '*' && token !== '>'));
      assert.equal(text, text.trim());
    }),
  );
});

test('the hash and the slot of a subject are frozen: golden values', () => {
  const hash = (subject: string) => subjectHash(Buffer.from(subject), 0, Buffer.byteLength(subject));
  for (const [subject, expected] of GOLDEN) assert.equal(hash(subject), expected, subject);
  assert.equal(SLOT_COUNT, 1024);
  assert.equal(slotOfHash(0xffff_fc05), 5);
});

const GOLDEN: readonly [string, number][] = [
  ['a', 444641715],
  ['orders.europe.1', 292437007],
  ['日本', 4026831135],
];

test('slots of 100,000 like-named subjects are even: no slot holds twice its share', () => {
  const counts = new Uint32Array(SLOT_COUNT);
  for (let i = 0; i < 100_000; i++) {
    const subject = Buffer.from(`device.${i}.temperature`);
    const slot = slotOfHash(subjectHash(subject, 0, subject.length));
    counts[slot] = (counts[slot] as number) + 1;
  }
  assert.ok(Math.max(...counts) < 200, `${Math.max(...counts)} in one slot`);
  assert.ok(Math.min(...counts) > 40, `${Math.min(...counts)} in one slot`);
});
