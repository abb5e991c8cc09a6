/** The command `broker store copy`, around a copy that is told how to end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXIT } from '../../src/cli/failure.ts';
import type { RunOptions } from '../../src/cli/run.ts';
import type { ComparedSubject, CopyRequest, CopySummary } from '../../src/copy/types.ts';
import { broker, Sink } from './cli-rig.ts';

const SIDE = { batches: 1, messages: 2, bytes: 80, first: 1, last: 2, checksum: 0xab };
const SAME: ComparedSubject = { tenant: '', subject: 'a.b', source: SIDE, target: SIDE, difference: null };
const OTHER: ComparedSubject = {
  ...SAME,
  target: { ...SIDE, messages: 1, last: 1 },
  difference: 'the target lacks ids 2 to 2',
};
const COPIED: CopySummary = {
  from: 'embedded',
  to: 'postgres',
  subjects: 2,
  batches: 2,
  messages: 4,
  bytes: 160,
  copiedBatches: 2,
  copiedBytes: 160,
  foundBatches: 0,
  expiredBatches: 0,
  damagedBatches: 0,
  missingIds: 0,
  differingSubjects: 0,
  switched: true,
  ms: 7,
};
const STORE_COPY = [
  'store',
  'copy',
  '--from',
  'embedded',
  '--to',
  'postgres',
  '--postgres-url',
  'postgres://h/d',
  '--data-dir',
  '/d',
];

test('store copy passes stores, options and configuration on, and shows the comparison of what differs', async () => {
  const requests: CopyRequest[] = [];
  const copyStore: RunOptions['copyStore'] = async (request) => {
    requests.push(request);
    request.onProgress({ phase: 'copying', done: 2, total: 4, bytes: 160 });
    for (const compared of [SAME, OTHER]) await request.onSubject(compared);
    return { kind: 'done', summary: { ...COPIED, differingSubjects: 1, switched: false } };
  };
  const { code, out, err } = await broker([...STORE_COPY, '-o', 'json'], { copyStore });
  assert.equal(code, EXIT.failed);
  const [differing, summary] = out
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  assert.deepEqual(
    [differing?.subject, differing?.same, differing?.checksum, differing?.target_last],
    ['a.b', false, '000000ab', 1],
  );
  assert.deepEqual([summary?.batches, summary?.switched, summary?.differing_subjects], [2, false, 1]);
  assert.match(err, /not the same in both stores: 1 subject\b/);
  const [request] = requests;
  assert.deepEqual(
    [request?.from, request?.to, request?.compareOnly, request?.switchOver, request?.config.dataDir],
    ['embedded', 'postgres', false, true, '/d'],
  );
  const listed = await broker([...STORE_COPY, '--list', '--no-switch', '--compare-only'], {
    copyStore: async (given) => {
      requests.push(given);
      await given.onSubject(SAME);
      return { kind: 'done', summary: { ...COPIED, switched: false } };
    },
  });
  assert.deepEqual([listed.code, requests[1]?.switchOver, requests[1]?.compareOnly], [0, false, true]);
  assert.match(listed.out, /^SUBJECT .*\na\.b +true/);
});

test('store copy --list holds few rows at a time, whatever their number', async () => {
  const SUBJECTS = 2_000;
  const HELD_MAX = 256;
  const stdout = new Sink();
  const shown = (): string[] => stdout.text.split('\n').filter((line) => line.startsWith('s.'));
  const copyStore: RunOptions['copyStore'] = async (request) => {
    for (let i = 0; i < SUBJECTS; i++) {
      await request.onSubject({ ...SAME, subject: `s.${i}` });
      assert.ok(shown().length >= i + 1 - HELD_MAX, `${shown().length} of ${i + 1} rows are shown`);
    }
    return { kind: 'done', summary: { ...COPIED, switched: false } };
  };
  const { code } = await broker([...STORE_COPY, '--list', '--compare-only'], { copyStore, stdout });
  assert.equal(code, 0);
  assert.deepEqual(
    shown().map((line) => line.split(' ')[0]),
    Array.from({ length: SUBJECTS }, (_, i) => `s.${i}`),
  );
  assert.equal(stdout.text.split('SUBJECT').length, 2, 'one heading');
  assert.ok(stdout.text.indexOf('SUBJECT') < stdout.text.indexOf('s.0'));
  assert.ok(stdout.text.indexOf('s.1999') < stdout.text.indexOf('from '), 'the summary comes last');
});

test('store copy shows how far it is, on a terminal only, and clears that before whatever else it writes', async () => {
  const copyStore: RunOptions['copyStore'] = async (request) => {
    for (let done = 1_500; done < 2_500; done++) {
      request.onProgress({ phase: 'copying', done, total: 6_000, bytes: 160 });
    }
    await request.onSubject(SAME);
    return { kind: 'done', summary: COPIED };
  };
  // A terminal has both.
  const terminal = new Sink({ isTTY: true });
  const shown = await broker([...STORE_COPY, '--list'], { copyStore, stdout: terminal, stderr: terminal });
  assert.equal(shown.code, EXIT.ok);
  const pieces = terminal.text.split('\r\u001b[K');
  assert.equal(pieces[0], '');
  assert.match(pieces[1] ?? '', /^copying \[#{6}\.{18}\] 1,500 of 6,000 ids, \d+\.\d MB\/s$/);
  const bars = pieces.filter((piece) => piece.startsWith('copying'));
  assert.ok(bars.length < 100, `${bars.length} bars at once, of which nobody could read any`);
  assert.match(pieces.slice(1 + bars.length).join(''), /^SUBJECT .*\na\.b +true/);
  for (const bar of bars) assert.match(bar, /MB\/s$/);
  const piped = await broker([...STORE_COPY, '--list'], { copyStore });
  assert.deepEqual([piped.code, piped.err], [EXIT.ok, '']);
});

test('store copy: the bar of nothing at all is full, and one of more than was expected is no longer than others', async () => {
  for (const [done, total] of [
    [0, 0],
    [9, 6],
  ] as const) {
    const stderr = new Sink({ isTTY: true });
    await broker(STORE_COPY, {
      stderr,
      copyStore: async (request) => {
        request.onProgress({ phase: 'comparing', done, total, bytes: 0 });
        return { kind: 'done', summary: COPIED };
      },
    });
    assert.match(stderr.text, /\[#{24}\]/);
  }
});

test('store copy that stops shows what it has compared', async () => {
  const { code, out } = await broker([...STORE_COPY, '--list'], {
    copyStore: async (request) => {
      await request.onSubject(OTHER);
      return { kind: 'refused', message: 'interrupted', next: 'again' };
    },
  });
  assert.equal(code, EXIT.failed);
  assert.match(out, /^SUBJECT .*\na\.b +false/);
});

test('store copy with damage or losses in the source fails, unless they are accepted', async () => {
  const copyStore: RunOptions['copyStore'] = async () => ({
    kind: 'done',
    summary: { ...COPIED, damagedBatches: 1, missingIds: 3, switched: false },
  });
  assert.equal((await broker(STORE_COPY, { copyStore })).code, EXIT.failed);
  assert.equal((await broker([...STORE_COPY, '--accept-loss'], { copyStore })).code, EXIT.ok);
});

test('store copy: what is wrong with the command line or refused by the copy is said in one line', async () => {
  for (const [argv, pattern, code] of [
    [['store', 'copy', '--from', 'embedded'], /--to/, EXIT.usage],
    [['store', 'copy', '--from', 'embedded', '--to', 'mongo'], /--to mongo: must be/, EXIT.usage],
    [['store', 'copy', '--from', 'embedded', '--to', 'embedded'], /are both embedded/, EXIT.usage],
    [['store', 'copy', '--from', 'embedded', '--to', 'postgres'], /postgres\.url is not set/, EXIT.usage],
    [['store', 'copy', '--from', 'cassandra', '--to', 'embedded'], /cassandra\.contact_points/, EXIT.usage],
    [STORE_COPY, /no copy here\n +try elsewhere/, EXIT.failed],
  ] as const) {
    const ended = await broker(argv);
    assert.match(ended.err, pattern);
    assert.equal(ended.code, code);
  }
});
