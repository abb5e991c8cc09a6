import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { CHECKS, type Facts, type Finding, judge, type Level, levelOf, worst } from '../../src/cli/check/checks.ts';
import { toPrometheus, toText } from '../../src/cli/check/report.ts';
import { CliError, EXIT } from '../../src/cli/failure.ts';
import type { NodeStatus } from '../../src/client/index.ts';
import { broker, FakeBroker, member, STATUS, VIEW } from './cli-rig.ts';

const WELL: Facts = {
  unreachable: null,
  status: STATUS,
  members: { ...VIEW, members: [member('n1')], toleratesNow: 0 },
  lagMax: 0,
  nodes: [{ node: 'n1', version: '1.2.3', clockOffsetMs: 12 }],
};

function findingOf(check: string, facts: Partial<Facts>, thresholds = {}): Finding {
  const [finding] = judge({ ...WELL, ...facts }, [check], thresholds);
  assert(finding !== undefined);
  return finding;
}

const status = (rest: Partial<NodeStatus>): Partial<Facts> => ({ status: { ...STATUS, ...rest } });
const nodes = (...versions: (string | null)[]): Partial<Facts> => ({
  nodes: versions.map((version, i) => ({ node: `n${i + 1}`, version, clockOffsetMs: i * 500 })),
});
const heard = (toleratesNow: number, voters = 3): Partial<Facts> => ({
  members: { ...VIEW, members: Array.from({ length: voters }, (_, i) => member(`n${i}`)), toleratesNow },
});

const CASES: readonly [string, string, Partial<Facts>, Level, RegExp][] = [
  ['reachable', 'an answer', {}, 'ok', /^n1 1\.2\.3$/],
  ['reachable', 'no answer', { unreachable: 'cannot connect', status: null }, 'critical', /^cannot connect$/],
  ['ready', 'ready', {}, 'ok', /^ready$/],
  ['ready', 'not', status({ ready: false, notReady: ['starting', 'full'] }), 'critical', /starting; full/],
  ['leader', 'alone', {}, 'ok', /alone/],
  ['leader', 'another', status({ role: 'voter', leader: 'n2' }), 'ok', /n2 leads/],
  ['leader', 'none', status({ role: 'voter', leader: '' }), 'critical', /no leader/],
  ['tolerance', 'one voter', {}, 'ok', /nothing to tolerate/],
  ['tolerance', 'all three', heard(1), 'ok', /3 of 3 voters are heard, 1 of them may fail/],
  ['tolerance', 'one is missing', heard(0), 'warning', /0 of them may fail/],
  ['tolerance', 'the leader is silent', heard(-1), 'critical', /does not say/],
  ['tolerance', 'not known', { members: null }, 'unknown', /not known/],
  ['disk_free', '15 %', status({ diskFreeBytes: 15, diskBytes: 100 }), 'ok', /^15 % free/],
  ['disk_free', '14.9 %', status({ diskFreeBytes: 149, diskBytes: 1_000 }), 'warning', /^14\.9 % free/],
  ['disk_free', '4.9 %', status({ diskFreeBytes: 49, diskBytes: 1_000 }), 'critical', /^4\.9 % free/],
  ['clock_skew', 'alone', {}, 'ok', /^12 ms from this machine/],
  ['clock_skew', 'two nodes', nodes('1', '1'), 'ok', /^500 ms between 2 nodes/],
  ['clock_skew', 'three nodes', nodes('1', '1', '1'), 'warning', /^1,000 ms between 3 nodes/],
  ['clock_skew', 'one of three is silent', nodes('1', '1', null), 'ok', /^500 ms between 2 nodes/],
  ['clock_skew', 'an hour', { nodes: [{ node: 'n', version: '1', clockOffsetMs: -3.6e6 }] }, 'critical', /3,600,000/],
  ['subjects', '79.9 %', status({ subjects: 799, subjectsMax: 1_000 }), 'ok', /799 of 1,000 \(79\.9 %\)/],
  ['subjects', '80 %', status({ subjects: 800, subjectsMax: 1_000 }), 'warning', /80 %/],
  ['subjects', '95 %', status({ subjects: 950, subjectsMax: 1_000 }), 'critical', /95 %/],
  ['producers', 'few', {}, 'ok', /10 of 100,000/],
  ['producers', '96 %', status({ producers: 96, producersMax: 100 }), 'critical', /96 of 100/],
  ['lag', 'however much', { lagMax: 10 ** 9 }, 'ok', /1,000,000,000 ids/],
  ['lag', 'not known', { lagMax: null }, 'unknown', /not known/],
  ['event_loop', '42 %', {}, 'ok', /42 % busy/],
  ['event_loop', '80 %', status({ mainUtilization: 0.8 }), 'warning', /80 % busy/],
  ['event_loop', '95 %', status({ mainUtilization: 0.95 }), 'critical', /95 % busy/],
  ['store_write', 'nothing', status({ storeWriteP99Ms: 0 }), 'ok', /nothing was written/],
  ['store_write', 'half a second', status({ storeWriteP99Ms: 524.3 }), 'warning', /p99 524\.3 ms/],
  ['store_write', 'five seconds', status({ storeWriteP99Ms: 8_388.6 }), 'critical', /p99 8,388\.6 ms/],
  ['damaged', 'none', {}, 'ok', /^0 reads/],
  ['damaged', 'one', status({ damaged: 1 }), 'critical', /^1 read\b/],
  ['durability', 'durable', {}, 'ok', /embedded: durable/],
  ['durability', 'weak', status({ durability: 'replicated' }), 'warning', /replicated, not durable/],
  ['versions', 'one node', {}, 'ok', /1\.2\.3 on one node/],
  ['versions', 'the same', nodes('1.0.0', '1.0.0'), 'ok', /1\.0\.0 on 2 nodes/],
  ['versions', 'different', nodes('1.0.0', '1.1.0'), 'warning', /n1 1\.0\.0, n2 1\.1\.0/],
  ['versions', 'one is silent', nodes('1.0.0', null), 'unknown', /no answer of n2/],
];

describe('broker check: each check', () => {
  for (const [check, what, facts, level, message] of CASES) {
    test(`${check}: ${what} is ${level}`, () => {
      const finding = findingOf(check, facts);
      assert.deepEqual([finding.check, finding.level], [check, level], finding.message);
      assert.match(finding.message, message);
    });
  }

  test('each is in the table above as ok and, but for lag, as something else', () => {
    for (const name of Object.keys(CHECKS)) {
      const levels = new Set(CASES.filter(([check]) => check === name).map(([, , , level]) => level));
      assert(levels.has('ok') && levels.size > 1, name);
    }
  });

  test('a limit is reached at its value from above, and passed below it from below', () => {
    const limit = { warning: 10, critical: 20 };
    const high = [9.9, 10, 19.9, 20].map((value) => levelOf(value, 'high', limit));
    assert.deepEqual(high, ['ok', 'warning', 'warning', 'critical']);
    const low = [20, 19.9, 10, 9.9].map((value) => levelOf(value, 'low', { warning: 20, critical: 10 }));
    assert.deepEqual(low, ['ok', 'warning', 'warning', 'critical']);
    assert.equal(levelOf(null, 'high', limit), 'unknown');
    assert.equal(levelOf(1e9, 'high', { warning: null, critical: null }), 'ok');
  });

  test('of all, what is known to be bad counts before what is not known', () => {
    const of = (...levels: Level[]) => worst(levels.map((level) => ({ ...findingOf('lag', {}), level })));
    assert.equal(of('ok', 'ok'), 'ok');
    assert.equal(of('ok', 'unknown'), 'unknown');
    assert.equal(of('unknown', 'warning'), 'warning');
    assert.equal(of('warning', 'critical', 'unknown'), 'critical');
  });

  test('of a broker that does not answer only that is told', () => {
    const facts = { ...WELL, unreachable: 'cannot connect', status: null };
    assert.deepEqual(
      judge(facts, Object.keys(CHECKS), {}).map(({ check, level }) => [check, level]),
      [['reachable', 'critical']],
    );
    assert.deepEqual(
      judge(facts, ['lag'], {}).map(({ check, level }) => [check, level]),
      [['reachable', 'critical']],
    );
  });
});

describe('broker check: the command', () => {
  const check = (...argv: string[]) => broker(['check', ...argv]);

  test('one line for each, behind one that sums them up', async () => {
    const { code, out } = await check('--only', 'lag,leader');
    assert.deepEqual(
      [code, out],
      [
        0,
        'broker 127.0.0.1:8081 OK: all 2 checks\nOK        leader  a node alone leads itself\nOK        lag     1,500 ids at most\n',
      ],
    );
  });

  test('exit codes are those of Nagios: 0 ok, 1 warning, 2 critical, 3 unknown', async () => {
    assert.equal((await check('--only', 'lag', '--warn', 'lag=1501')).code, 0);
    const warning = await check('--only', 'lag', '--warn', 'lag=1500', '--critical', 'lag=1501');
    assert.deepEqual([warning.code, warning.out.split('\n')[0]], [1, 'broker 127.0.0.1:8081 WARNING: lag']);
    assert.equal((await check('--only', 'lag', '--warn', 'lag=1', '--critical', 'lag=1500')).code, 2);
    const fake = new FakeBroker();
    fake.subscriptions = async () => {
      throw new CliError(EXIT.failed, 'it is starting');
    };
    assert.equal((await broker(['check', '--only', 'lag'], { fake })).code, 3);
    fake.status = async () => {
      throw new CliError(EXIT.unreachable, 'cannot connect');
    };
    const gone = await broker(['check'], { fake });
    assert.equal(gone.code, 2);
    assert.match(gone.out, /CRITICAL: reachable\nCRITICAL {2}reachable {2}cannot connect\n$/);
  });

  test('wrong usage is 3, not 2, and says what there is', async () => {
    const cases: [string[], RegExp][] = [
      [['--nosuch'], /unknown option/],
      [['--only', 'nosuch'], /no such check.*\n.*reachable, ready/],
      [['--warn', 'lag'], /must be CHECK=NUMBER/],
      [['--warn', 'lag=-1'], /must be CHECK=NUMBER/],
      [['--critical', 'leader=1'], /no number to compare/],
      [['--only', 'lag', '--skip', 'lag'], /no check is left/],
      [['-o', 'table'], /Allowed choices are text, json, prometheus/],
      [['--address', 'nohost'], /HOST:PORT/],
    ];
    for (const [argv, pattern] of cases) {
      const { code, err, out } = await check(...argv);
      assert.deepEqual([code, out], [3, ''], argv.join(' '));
      assert.match(err, pattern);
    }
  });

  test('every node of a cluster is asked for its version and clock, unless that is skipped', async () => {
    const fake = new FakeBroker();
    fake.node = { ...STATUS, nodeId: 'n2' };
    const all = await broker(['check', '--only', 'versions'], { fake });
    assert.deepEqual(
      all.connected.map(({ addresses }) => addresses.join()),
      ['127.0.0.1:8081', 'n1:8081', 'n3:8081'],
    );
    assert.match(all.out, /1\.2\.3 on 3 nodes/);
    const one = await broker(['check', '--skip', 'versions,clock_skew'], { fake });
    assert.equal(one.connected.length, 1);
  });

  test('json has every value with its limits; prometheus has levels and values', async () => {
    const json = JSON.parse((await check('-o', 'json', '--only', 'lag', '--warn', 'lag=5')).out);
    assert.deepEqual(json, {
      address: '127.0.0.1:8081',
      level: 'warning',
      checks: [
        {
          check: 'lag',
          level: 'warning',
          value: 1_500,
          unit: 'ids',
          warning: 5,
          critical: null,
          message: '1,500 ids at most',
        },
      ],
    });
    const { out } = await check('-o', 'prometheus', '--only', 'lag', '--warn', 'lag=5');
    assert.match(out, /^broker_check_level\{address="127\.0\.0\.1:8081",check="lag"\} 1$/m);
    assert.match(out, /^broker_check_value\{address="127\.0\.0\.1:8081",check="lag",unit="ids"\} 1500$/m);
    assert.match(toPrometheus([findingOf('leader', {})], 'a"b\\'), /address="a\\"b\\\\"/);
    assert.doesNotMatch(
      toText([findingOf('reachable', { status: { ...STATUS, nodeId: 'n\u001b[2J' } })], 'a'),
      /\p{Cc}\[/u,
    );
  });

  test('its help tells its checks with their limits, and that its exit codes differ', async () => {
    const { code, out } = await check('--help');
    assert.equal(code, 0);
    for (const name of Object.keys(CHECKS)) assert.match(out, new RegExp(`^ {2}${name} +\\S`, 'm'));
    assert.match(out, /disk_free .*warning < 15, critical < 5/);
    assert.match(out, /Exit codes of this command.*0 ok, 1 warning, 2 critical.*3 unknown/);
  });
});
