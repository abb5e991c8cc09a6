/** The parts of consume streams that stand alone: patterns, credit, tokens, frames. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { BatchView } from '../../src/batch/batch-view.ts';
import { SectionCutter } from '../../src/batch/section-cutter.ts';
import { ConsumeScan, cutFrame, deliveryBytes, scanConsume, writeDelivery } from '../../src/grpc/consumer-codec.ts';
import { frameOf } from '../../src/grpc/frame.ts';
import { ConsumeRequest, ConsumeResponse } from '../../src/grpc/gen/broker/v1/consumer.ts';
import { decodeResumeToken, encodeResumeToken } from '../../src/grpc/resume-token.ts';
import { hasWildcard, Pattern } from '../../src/subscribe/pattern.ts';
import { StreamCredit } from '../../src/subscribe/stream-credit.ts';
import { dataBatch, plain } from './batch-support.ts';

const SUBJECT = { bytes: Buffer.from('t.parts'), hash: 7 };

describe('a pattern', () => {
  const rows: readonly (readonly [pattern: string, subject: string, matches: boolean])[] = [
    ['*', 'a', true],
    ['*', 'a.b', false],
    ['>', 'a', true],
    ['>', 'a.b.c', true],
    ['a.*', 'a', false],
    ['a.*', 'a.b', true],
    ['a.*', 'a.b.c', false],
    ['a.>', 'a', false],
    ['a.>', 'a.b.c', true],
    ['a.*.c', 'a.b.c', true],
    ['a.*.c', 'a.b.d', false],
    ['*.b.>', 'a.b.c.d', true],
    ['*.b.>', 'a.b', false],
    ['a*.*', 'a*.x', true],
    ['a*.*', 'ab.x', false],
    ['ä.*', 'ä.ö', true],
  ];
  for (const [text, subject, expected] of rows) {
    it(`${text} ${expected ? 'takes' : 'does not take'} ${subject}`, () => {
      const pattern = Pattern.parse(Buffer.from(text));
      assert(pattern instanceof Pattern);
      assert.equal(pattern.matches(Buffer.from(subject)), expected);
      assert(!expected || subject.startsWith(Buffer.from(pattern.prefix).toString()));
    });
  }

  const faults = [
    ['>.a', 'PATTERN_INVALID'],
    ['a.>.b', 'PATTERN_INVALID'],
    ['a.b', 'PATTERN_INVALID'],
    ['a..*', 'SUBJECT_EMPTY_TOKEN'],
    ['.*', 'SUBJECT_EMPTY_TOKEN'],
    ['*.', 'SUBJECT_EMPTY_TOKEN'],
    ['*.\u0007', 'SUBJECT_CONTROL_CHARACTER'],
    [`*.${'x'.repeat(254)}`, 'SUBJECT_TOO_LONG'],
  ] as const;
  for (const [text, reason] of faults) {
    it(`${JSON.stringify(text.slice(0, 20))} is refused with ${reason}`, () => {
      assert.equal(Pattern.parse(Buffer.from(text)), reason);
    });
  }

  it('does what a regular expression made of it does, and leaves its bytes as they are', () => {
    const token = fc.constantFrom('a', 'b', 'ab', 'a*', '>b');
    const subject = fc.array(token, { minLength: 1, maxLength: 5 }).map((tokens) => tokens.join('.'));
    const pattern = fc
      .tuple(fc.array(fc.oneof(token, fc.constant('*')), { maxLength: 4 }), fc.constantFrom('*', '>', 'a'))
      .map(([tokens, last]) => [...tokens, last].join('.'));
    fc.assert(
      fc.property(pattern, subject, (text, name) => {
        const bytes = Buffer.from(text);
        const parsed = Pattern.parse(bytes);
        assert.equal(bytes.toString(), text);
        const isPattern = text.split('.').some((part) => part === '*' || part === '>');
        assert.equal(hasWildcard(bytes), isPattern);
        assert.equal(parsed instanceof Pattern, isPattern);
        if (!(parsed instanceof Pattern)) return;
        const source = text
          .split('.')
          .map((part) => (part === '*' ? '[^.]+' : part === '>' ? '.+' : part.replaceAll('*', '\\*')))
          .join('\\.');
        assert.equal(parsed.matches(Buffer.from(name)), new RegExp(`^${source}$`).test(name));
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('credit of a stream', () => {
  it('is what was granted less what was spent; a grant that is none changes nothing', () => {
    const amount = fc.integer({ min: -5, max: 50 });
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), amount, amount)), (steps) => {
        const credit = new StreamCredit();
        let [bytes, messages] = [0, 0];
        for (const [isGrant, b, m] of steps) {
          if (isGrant) {
            const isCredit = b >= 0 && m >= 0;
            assert.equal(credit.tryGrant(b, m), isCredit);
            if (!isCredit) continue;
            bytes += b;
            messages += m;
          } else if (!credit.isSpent) {
            credit.spend(Math.abs(b), Math.abs(m));
            bytes -= Math.abs(b);
            messages -= Math.abs(m);
          }
          assert.deepEqual([credit.bytes, credit.messages], [bytes, messages]);
          assert.equal(credit.isSpent, bytes <= 0 || messages <= 0);
        }
      }),
    );
  });

  it('may not be granted beyond 2^53-1 in all, also if some was spent', () => {
    const credit = new StreamCredit();
    assert(credit.tryGrant(Number.MAX_SAFE_INTEGER, 1));
    credit.spend(1_000, 0);
    assert(!credit.tryGrant(1, 0));
    assert(credit.tryGrant(0, Number.MAX_SAFE_INTEGER - 1));
  });
});

describe('a resume token', () => {
  const positions = {
    patterns: new Set(['a.>', '*']),
    next: new Map([
      ['a.b', 7],
      ['ü', Number.MAX_SAFE_INTEGER],
    ]),
    times: new Map([['ü', 1_900_000_000_000]]),
  };

  it('gives back what was put into it', () => {
    assert.deepEqual(decodeResumeToken(encodeResumeToken(positions), 10), positions);
    const withoutTimes = { ...positions, times: new Map() };
    assert.deepEqual(decodeResumeToken(encodeResumeToken(withoutTimes), 10), withoutTimes);
  });

  it('with one bit changed, cut or made longer is none', () => {
    const token = encodeResumeToken(positions);
    for (let bit = 0; bit < token.length * 8; bit++) {
      const bad = Buffer.from(token);
      bad[bit >> 3] = (bad[bit >> 3] as number) ^ (1 << (bit & 7));
      assert.equal(decodeResumeToken(bad, 10), null);
    }
    for (let length = 0; length < token.length; length++) {
      assert.equal(decodeResumeToken(token.subarray(0, length), 10), null);
    }
    assert.equal(decodeResumeToken(Buffer.concat([token, Buffer.from([0])]), 10), null);
  });

  it('of more subjects than a stream may have is none, whatever is in it', () => {
    assert.equal(decodeResumeToken(encodeResumeToken(positions), 1), null);
    for (const next of [new Map([['', 1]]), new Map([['a', 0]]), new Map([['a', 1.5]])]) {
      assert.equal(decodeResumeToken(encodeResumeToken({ patterns: new Set(), next, times: new Map() }), 10), null);
    }
    for (const time of [-1, 1.5]) {
      const times = new Map([['a.b', time]]);
      assert.equal(decodeResumeToken(encodeResumeToken({ ...positions, times }), 10), null);
    }
  });
});

/** A frame as a shard writes it, of the sections that a cutter finds in the batches. */
function frameOfBatches(batches: readonly Buffer[], from: number, bytesMax: number, now: number): Buffer {
  const parts: Buffer[] = [];
  for (const bytes of batches) {
    const view = new BatchView();
    view.wrap(bytes, 0);
    if (view.base + view.count <= from) continue;
    const cutter = new SectionCutter();
    cutter.wrap(view, from, bytesMax, now);
    while (cutter.next()) {
      const head = { firstId: cutter.firstId, count: cutter.count, publishedAt: view.publishedAt };
      const part = Buffer.alloc(deliveryBytes(SUBJECT.bytes.length, head, cutter.end - cutter.start));
      const end = writeDelivery(part, 0, SUBJECT.bytes, head, bytes, cutter.start, cutter.end);
      assert.equal(end, part.length);
      parts.push(part);
    }
  }
  return frameOf(Buffer.concat(parts));
}

/** Ids and bodies of a frame, read by the generated code. */
function contentOf(frame: Buffer): [number, string][] {
  assert.equal(frame.readUInt32BE(1), frame.length - 5);
  const { deliveries } = ConsumeResponse.decode(frame.subarray(5));
  return deliveries.flatMap(({ subject, firstId, count, records }) => {
    assert.equal(subject, SUBJECT.bytes.toString());
    assert.equal(records?.records.length, count);
    return (records?.records ?? []).map(({ body }, i): [number, string] => [firstId + i, body.toString()]);
  });
}

const PUBLISHED = 1_700_000_000_000;
/** Batches of messages whose expiry, in seconds, is given; ids from 1. */
const batchesOf = (expiries: readonly (readonly number[])[]): Buffer[] => {
  let base = 1;
  return expiries.map((batch) => {
    const messages = batch.map((expiry, i) => plain(`m${base + i}`.padEnd(10 + ((base + i) % 7)), expiry));
    const { bytes } = dataBatch(SUBJECT, messages, { base, publishedAt: PUBLISHED });
    base += batch.length;
    return bytes;
  });
};
const anyBatches = fc.array(fc.array(fc.constantFrom(0, 0, 5, 50), { minLength: 1, maxLength: 9 }), {
  minLength: 1,
  maxLength: 5,
});

describe('sections of stored batches', () => {
  it('have each message from the wanted id on that has not expired, once and in order, for every cut', () => {
    const past = fc.constantFrom(0, 999, 5_000, 49_999, 50_000);
    fc.assert(
      fc.property(
        anyBatches,
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 80 }),
        past,
        (rows, from, max, ms) => {
          const expected = rows.flat().flatMap((expiry, i) => {
            const isGone = expiry > 0 && ms >= expiry * 1_000;
            return i + 1 < from || isGone ? [] : [i + 1];
          });
          const frame = frameOfBatches(batchesOf(rows), from, max, PUBLISHED + ms);
          const content = contentOf(frame);
          assert.deepEqual(
            content.map(([id]) => id),
            expected,
          );
          for (const [id, body] of content) assert.equal(body.trimEnd(), `m${id}`);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('a batch that is wanted whole is its records section, byte for byte', () => {
    const [bytes] = batchesOf([[0, 0, 0]]);
    const view = new BatchView();
    view.wrap(bytes as Buffer, 0);
    const cutter = new SectionCutter();
    cutter.wrap(view, 1, 1 << 20, PUBLISHED);
    assert(cutter.next());
    assert.deepEqual([cutter.start, cutter.end, cutter.count], [view.recordsStart, view.recordsEnd, 3]);
    assert(!cutter.next());
  });
});

describe('a frame that a stream may have in part', () => {
  it('is cut where it stands and where its credit ends; the rest begins at the id that is named', () => {
    fc.assert(
      fc.property(
        anyBatches,
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 1, max: 20 }),
        (rows, next, bytes, messages) => {
          const frame = frameOfBatches(batchesOf(rows), 1, 1 << 20, PUBLISHED);
          const wanted = contentOf(frame).filter(([id]) => id >= next);
          const cut = cutFrame(frame, next, bytes, messages);
          const got = cut.frame === null ? [] : contentOf(cut.frame);
          assert.equal(cut.messages, got.length);
          assert.deepEqual(got, wanted.slice(0, got.length));
          assert.equal(cut.stoppedAt, wanted[got.length]?.[0] ?? -1);
          // Without its last delivery it has credit left.
          if (cut.stoppedAt >= 0) assert(cut.bytes >= bytes || cut.messages >= messages);
          assert(got.length - messages < 9, 'more than one delivery over its credit');
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe('the first frame', () => {
  const scan = new ConsumeScan();
  const encode = (request: Parameters<typeof ConsumeRequest.encode>[0]): Buffer =>
    Buffer.from(ConsumeRequest.encode(request).finish());

  it('is read as the generated code writes it', () => {
    const subjects = [
      { subject: 'a', id: 7 },
      { subject: 'b.*', earliest: true },
      { subject: 'c', time: 9 },
      { subject: 'd' },
    ];
    const resumeToken = Buffer.from('token');
    const frame = encode({ open: { subjects, resumeToken, heartbeatMs: 1 }, credit: { bytes: 5, messages: 6 } });
    assert.equal(scanConsume(frame, 4, scan), null);
    assert.deepEqual(
      scan.opening?.specs.map(({ name, start, value }) => [name.toString(), start, value]),
      [
        ['a', 2, 7],
        ['b.*', 1, 1],
        ['c', 3, 9],
        ['d', 0, 0],
      ],
    );
    assert.deepEqual([scan.bytes, scan.messages, scan.opening?.heartbeatMs], [5, 6, 100]);
    assert.equal(scanConsume(frame, 3, scan), 'CONSUMER_SUBJECTS_FULL');
  });

  const rows: readonly (readonly [what: string, frame: Buffer, reason: string])[] = [
    [
      'no subject',
      encode({ open: { subjects: [], resumeToken: Buffer.alloc(0), heartbeatMs: 0 }, credit: undefined }),
      'SUBJECT_EMPTY',
    ],
    [
      'an id of 0',
      encode({
        open: { subjects: [{ subject: 'a', id: 0 }], resumeToken: Buffer.alloc(0), heartbeatMs: 0 },
        credit: undefined,
      }),
      'ID_INVALID',
    ],
    ['negative bytes', encode({ open: undefined, credit: { bytes: -1, messages: 0 } }), 'CREDIT_INVALID'],
    ['credit of 2^63-1', Buffer.from([0x12, 10, 0x08, 255, 255, 255, 255, 255, 255, 255, 255, 0x7f]), 'CREDIT_INVALID'],
    ['a subject that is not UTF-8', Buffer.from([0x0a, 5, 0x0a, 3, 0x0a, 1, 0xff]), 'SUBJECT_NOT_UTF8'],
    ['a cut field', Buffer.from([0x0a, 5, 0x0a]), 'MALFORMED_MESSAGE'],
  ];
  for (const [what, frame, reason] of rows) {
    it(`with ${what} is refused with ${reason}`, () => assert.equal(scanConsume(frame, 10, scan), reason));
  }

  it('of any bytes is read or refused, never thrown at; what the generated code cannot read is refused', () => {
    const whole = encode({
      open: {
        subjects: [{ subject: 'a.b', id: 3 }, { subject: '>' }],
        resumeToken: Buffer.from('t'),
        heartbeatMs: 500,
      },
      credit: { bytes: 100, messages: 10 },
    });
    const broken = fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }).map((changes) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes;
    });
    fc.assert(
      fc.property(fc.oneof(broken, fc.uint8Array({ maxLength: 60 })), (bytes) => {
        const reason = scanConsume(Buffer.from(bytes), 10, scan);
        if (reason !== null) return;
        const read = ConsumeRequest.decode(bytes);
        assert.equal(scan.opening === null, read.open === undefined);
      }),
      { numRuns: 5_000 },
    );
  });
});
