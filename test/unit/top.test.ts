import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statusText } from '../../src/cli/commands/status.ts';
import type { Row } from '../../src/cli/output.ts';
import { keysOf } from '../../src/cli/top/keys.ts';
import {
  connectionRow,
  PANES,
  type Sample,
  shardRow,
  sorted,
  subjectRow,
  subscriptionRow,
} from '../../src/cli/top/panes.ts';
import { pageOf, renderTop, type View } from '../../src/cli/top/render.ts';
import { Screen } from '../../src/cli/top/screen.ts';
import { firstState, pressed, type TopState } from '../../src/cli/top/state.ts';
import { ageOf, bytesOf, compact, counted, cut, pad, safe, widthOf } from '../../src/cli/top/text.ts';
import { CONNECTION, SHARD, STATUS, SUBSCRIPTION } from './cli-rig.ts';

const NOW = Date.parse('2026-01-01T12:00:00Z');
const FIRST = firstState({ pane: 'shards', sort: null, intervalMs: 1_000 });

function sample(rest: Partial<Sample> = {}): Sample {
  const other = { ...SUBSCRIPTION, subject: 'orders.us', lag: 0, state: 'tail', unsentBytes: 0, sent: 2_500 };
  return {
    at: NOW,
    status: STATUS,
    rows: {
      shards: [{ ...SHARD, shard: 1, utilization: 0.1, hotSubjects: [] }, SHARD].map(shardRow),
      subjects: [subjectRow({ tenant: '', subject: 'orders.eu', shard: 0, messagesPerSecond: 1_000, share: 0.8 })],
      subscriptions: [subscriptionRow(SUBSCRIPTION), subscriptionRow(other)],
      connections: [connectionRow(CONNECTION)],
    },
    totals: { shards: 2, subjects: 1, subscriptions: 123_456, connections: 1 },
    lagMax: 1_500,
    change: '',
    ...rest,
  };
}

function screenOf(state: Partial<TopState>, rest: Partial<View> = {}): string[] {
  const view = {
    state: { ...FIRST, ...state },
    sample: sample(),
    failure: null,
    address: '127.0.0.1:8081',
    now: NOW,
    columns: 80,
    rows: 24,
    ...rest,
  };
  const lines = renderTop(view).map(({ text }) => text);
  assert.equal(lines.length, view.rows);
  for (const line of lines) assert(widthOf(line) <= view.columns, line);
  return lines;
}

/** What is on the screen, without the empty lines. */
const shown = (state: Partial<TopState>, rest: Partial<View> = {}): string[] =>
  screenOf(state, rest).filter((line) => line !== '');

const HEADER = [
  'broker top  n1  cluster broker, alone  up 3h12m              every 1s  12:00:00Z',
  'in 12.3k msg/s 3.1 MB/s  out 24.7k msg/s 6.2 MB/s  p99 ms publish 2.0 write 1.0',
  'main thread 42%   cpu 20%   7 connections   3 subscriptions   1,234 subjects',
  'no warnings',
];
const KEYS = 'q quit  h help  s sort  r reverse  / filter  p pause  +- interval';

test('the screen of each pane on 80 columns', () => {
  assert.deepEqual(shown({ pane: 'shards' }).slice(4, -1), [
    '[1 shards] 2 subjects  3 subscriptions  4 connections                   by shard',
    'SHARD  SLOTS  BUSY  STORE   MSG/S   BYTES/S   WAIT  WRITE  GROUP  HOTTEST',
    '    0   1024   51%    25%   1,234    500 kB    0.1    1.5     33  50% orders.eu',
    '    1   1024   10%    25%   1,234    500 kB    0.1    1.5     33',
  ]);
  assert.deepEqual(shown({ pane: 'subjects' }).slice(4, -1), [
    ' 1 shards [2 subjects] 3 subscriptions  4 connections              by messages_s',
    'SUBJECT                                                      MSG/S  SHARE  SHARD',
    'orders.eu                                                    1,000    80%      0',
  ]);
  assert.deepEqual(shown({ pane: 'subscriptions' }).slice(4), [
    ' 1 shards  2 subjects [3 subscriptions] 4 connections                     by lag',
    '   LAG  STATE     SUBJECT                          SENT    MSGS   UNSENT     AGE',
    ' 1,500  waiting   orders.eu                       1,000   1,000  65.5 kB     45s',
    '     0  tail      orders.us                       2,500   1,000      0 B     45s',
    `${KEYS}   2 of 123,456`,
  ]);
  assert.deepEqual(shown({ pane: 'connections' }), [
    ...HEADER,
    ' 1 shards  2 subjects  3 subscriptions [4 connections]                  by bytes',
    'CLIENT                      IN      OUT   OPEN  PUBL   SUBS  AGENT',
    '10.0.0.9:40000          1.2 MB   3.4 kB      2     1      1  grpc-node-js/1.14.7',
    `${KEYS}              1`,
  ]);
});

test('a wide screen has more columns, a narrow one fewer, and a small one fewer rows', () => {
  const wide = shown({ pane: 'subscriptions' }, { columns: 160 });
  assert.match(wide[5] ?? '', /AGE {2}CLIENT +CALL +TENANT$/);
  assert.match(wide[6] ?? '', /10\.0\.0\.9:40000 +consume +default$/);
  const narrow = shown({ pane: 'subscriptions' }, { columns: 34 });
  assert.deepEqual(narrow.slice(5, 7), ['   LAG  STATE     SUBJECT', ' 1,500  waiting   orders.eu']);
  for (const [columns, rows] of [
    [1, 1],
    [5, 3],
    [20, 8],
  ] as const) {
    for (const pane of PANES) screenOf({ pane }, { columns, rows });
    screenOf({ isHelp: true }, { columns, rows });
  }
});

test('warnings, and a broker that does not answer, are told in place of each other', () => {
  const warned = sample({ status: { ...STATUS, warnings: ['the disk is full', 'another'] } });
  assert.equal(shown({}, { sample: warned })[3], '! (1 of 2) the disk is full');
  const unready = sample({ status: { ...STATUS, ready: false, notReady: ['no leader'] } });
  assert.equal(shown({}, { sample: unready })[3], '! not ready: no leader');
  const moving = sample({ change: '1 -> 2 shards: 3 of 512 slots moved' });
  assert.equal(shown({}, { sample: moving })[3], '! 1 -> 2 shards: 3 of 512 slots moved');
  const failure = { since: NOW - 75_000, why: 'cannot connect' };
  assert.equal(shown({}, { failure })[3], '! no answer since 11:58:45Z (1m): cannot connect');
  assert.equal(screenOf({}, { sample: null })[3], 'waiting for the first answer');
});

test('rows: filtered by the beginning of the name, in order or reversed, scrolled no further than their end', () => {
  const rows: Row[] = Array.from({ length: 50 }, (_, n) => ({ subject: `s.${n}`, messages_s: n, share: 0, shard: 0 }));
  const many = sample({ rows: { ...sample().rows, subjects: rows } });
  const names = (state: Partial<TopState>) =>
    shown({ pane: 'subjects', ...state }, { sample: many })
      .slice(6, -1)
      .map((line) => line.split(' ')[0]);
  assert.equal(names({}).length, pageOf(24));
  assert.deepEqual(names({}).slice(0, 2), ['s.49', 's.48']);
  assert.deepEqual(names({ isReversed: true }).slice(0, 2), ['s.0', 's.1']);
  assert.deepEqual(names({ filter: 's.4' }).length, 11);
  assert.deepEqual(names({ scroll: 1 })[0], 's.48');
  assert.deepEqual(names({ scroll: 1_000 }).at(-1), 's.0');
  assert.deepEqual(shown({ pane: 'subjects', filter: 'x' }, { sample: many })[6], 'nothing begins with x');
});

test('what clients say cannot write to the terminal', () => {
  assert.equal(safe('a\u001b[2Jb\u009b\r\n\u202ec'), 'a\ufffd[2Jb\ufffd\ufffd\ufffd\ufffdc');
  const row = connectionRow({ ...CONNECTION, agent: 'evil\u001b[?1049l' });
  const view = sample({ rows: { ...sample().rows, connections: [row] } });
  assert.doesNotMatch(screenOf({ pane: 'connections' }, { sample: view, columns: 200 }).join('\n'), /\p{Cc}\[/u);
});

test('keys of a terminal, alone and several at a time, and sequences that nobody knows', () => {
  const cases: [string, string[]][] = [
    ['q', ['q']],
    ['\u001b[A\u001b[B', ['up', 'down']],
    ['\u001bOA', ['up']],
    ['\u001b[6~1', ['page-down', '1']],
    ['\u001b', ['escape']],
    ['\u001b[Z\t', ['shift-tab', 'tab']],
    ['\u001b[1;5Cq', ['q']],
    ['\u0003', ['ctrl-c']],
    ['/é漢\r\u007f', ['/', 'é', '漢', 'enter', 'backspace']],
  ];
  for (const [input, keys] of cases) assert.deepEqual(keysOf(input), keys, JSON.stringify(input));
});

test('each key changes what it is for: pane, order, filter, pause, interval, scroll, help or the end', () => {
  const after = (keys: string, state: TopState = FIRST): TopState =>
    keysOf(keys).reduce((current, key) => pressed(current, key, 10), state);
  assert.equal(after('3').pane, 'subscriptions');
  assert.equal(after('\t').pane, 'subjects');
  assert.equal(after('\u001b[Z').pane, 'connections');
  assert.equal(after('s').sort.shards, 'busy');
  assert.equal(after('3s').sort.subscriptions, 'messages');
  assert.equal(after('3sssss').sort.subscriptions, 'lag', 'the last column is followed by the first one');
  assert.equal(after('r').isReversed, true);
  assert.equal(after('rs').isReversed, false);
  assert.deepEqual([after('/ab').typing, after('/ab').filter], ['ab', '']);
  assert.deepEqual([after('/ab\r').typing, after('/ab\r').filter], [null, 'ab']);
  assert.deepEqual([after('/abq\u007f\r').filter, after('/q\r').end], ['ab', null], 'q is a letter there');
  assert.equal(after('/ab\r\u001b').filter, '');
  assert.equal(after('p').isPaused, true);
  assert.equal(after('pp').isPaused, false);
  assert.deepEqual([after('+').intervalMs, after('--').intervalMs, after('------').intervalMs], [2_000, 250, 250]);
  assert.deepEqual([after('jj').scroll, after('jjk').scroll, after('k').scroll], [2, 1, 0]);
  assert.deepEqual([after('\u001b[6~').scroll, after('\u001b[6~2').scroll], [10, 0]);
  assert.deepEqual([after('h').isHelp, after('hs').isHelp, after('hs').sort], [true, false, FIRST.sort]);
  assert.deepEqual(
    [after('q').end, after('hq').end, after('\u0003').end, after('/\u0003').end],
    ['quit', 'quit', 'interrupt', 'interrupt'],
  );
  assert.equal(after(`/${'x'.repeat(300)}\r`).filter.length, 255);
});

test('rows in order: numbers fall, names rise', () => {
  const rows: Row[] = [
    { subject: 'b', lag: 1 },
    { subject: 'a', lag: 2 },
    { subject: 'c', lag: null },
  ];
  const order = (key: string, isReversed: boolean) =>
    sorted(rows, key, isReversed)
      .map(({ subject }) => subject)
      .join('');
  assert.deepEqual([order('lag', false), order('lag', true)], ['abc', 'cba']);
  assert.deepEqual([order('subject', false), order('subject', true)], ['abc', 'cba']);
});

test('numbers and text in few columns', () => {
  assert.deepEqual([0, 9.54, 1_234, 9_999, 9_999.6, 12_345, 999_960, 4_560_000, 7e15].map(compact), [
    '0',
    '9.5',
    '1,234',
    '9,999',
    '10.0k',
    '12.3k',
    '1.0M',
    '4.6M',
    '7.0P',
  ]);
  assert.deepEqual([0, 999, 1_000, 12_345_678].map(bytesOf), ['0 B', '999 B', '1.0 kB', '12.3 MB']);
  assert.deepEqual([999, 60_000, 3_600_000 * 3 + 720_000, 86_400_000 * 4].map(ageOf), ['0s', '1m', '3h12m', '4d0h']);
  assert.deepEqual([cut('abcdef', 4), cut('漢字漢字', 5), cut('abc', 3), cut('abc', 0)], ['abc…', '漢字…', 'abc', '']);
  assert.deepEqual([pad('漢', 4), pad('7', 3, true), widthOf('e\u0301漢🙂')], ['漢  ', '  7', 5]);
});

test('a screen is written as a whole once, then only lines that have changed', () => {
  const written: string[] = [];
  const terminal = {
    columns: 80,
    rows: 24,
    writeNow: (text: string) => void written.push(text),
    onResize: () => () => undefined,
  };
  const screen = new Screen(terminal, true);
  const line = (text: string) => ({ text, style: 'plain' as const });
  const first = screen.draw([line('one'), { text: 'two', style: 'bad' }]);
  assert.match(first, /2J.*one.*1;31mtwo/s);
  assert.equal(screen.draw([line('one'), { text: 'two', style: 'bad' }]), '');
  const second = screen.draw([line('one'), line('2')]);
  assert.doesNotMatch(second, /one|2J/);
  assert.match(second, /\[2;1H.\[2K2/);
  screen.forget();
  assert.match(screen.draw([line('one'), line('2')]), /2J.*one.*2/s);
  const before = process.listeners('exit');
  screen.enter();
  const [onExit] = process.listeners('exit').filter((listener) => !before.includes(listener));
  assert(onExit !== undefined);
  // As at an error that nobody catches.
  onExit(1);
  screen.leave();
  assert.deepEqual(process.listeners('exit'), before);
  assert.equal(written.length, 2, 'it is left once');
  assert.match(written[1] ?? '', /\?25h.*\?1049l/s);
});

for (const [count, noun, shown] of [
  [0, 'connection', '0 connections'],
  [1, 'connection', '1 connection'],
  [2, 'damaged batch', '2 damaged batches'],
  [1_234, 'id', '1,234 ids'],
] as const) {
  test(`${count} of ${noun} read ${shown}`, () => assert.equal(counted(count, noun), shown));
}

test('the status says of one what it says of one', () => {
  const status = { ...STATUS, connections: 1, subscriptions: 1, openAllotments: 1, damaged: 1 };
  const shown = statusText(status, null);
  for (const noun of ['1 connection', '1 subscription', '1 allotment', '1 read']) {
    assert.match(shown, new RegExp(`${noun}\\b`));
    assert.doesNotMatch(shown, new RegExp(`${noun}s`));
  }
});
