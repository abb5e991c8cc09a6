import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatEndpoint, parseEndpoint } from '../../src/base/endpoint.ts';
import { defaultConfig } from '../../src/config/load.ts';
import { Findings, NOTHING_GRACE_MS, PROBLEM_LENGTH_MAX, PROBLEMS_MAX } from '../../src/discovery/findings.ts';
import { nameCandidates, parseSearchRules } from '../../src/discovery/name-candidates.ts';
import { openDiscovery } from '../../src/discovery/open-discovery.ts';
import { SEEDS_MAX } from '../../src/discovery/types.ts';
import { Heard } from './discovery-rig.ts';

const at = (...addresses: string[]) => addresses.map((text) => parseEndpoint(text) ?? assert.fail(text));

test('the same seeds in another order, or twice, are told once', () => {
  const heard = new Heard();
  const findings = new Findings(heard, 'x');
  findings.found(at('10.0.0.2:1', '10.0.0.1:1', '[fd00::1]:1'), 'none');
  findings.found(at('[fd00::1]:1', '10.0.0.1:1', '10.0.0.2:1', '10.0.0.1:1'), 'none');
  assert.deepEqual(heard.seeds, ['10.0.0.1:1,10.0.0.2:1,[fd00::1]:1']);
  findings.found(at('10.0.0.1:1'), 'none');
  assert.deepEqual(heard.seeds.slice(1), ['10.0.0.1:1']);
});

test('a problem is told once until seeds are found again, which is told too', () => {
  const heard = new Heard();
  const findings = new Findings(heard, 'source');
  findings.found(at('10.0.0.1:1'), 'none');
  for (const reason of ['a', 'b', 'a', 'b']) findings.problem(reason);
  assert.deepEqual(heard.problems, ['source: a', 'source: b']);
  findings.found(at('10.0.0.1:1'), 'none', false);
  assert.equal(heard.seeds.length, 1);
  findings.found(at('10.0.0.1:1'), 'none');
  assert.equal(heard.seeds.length, 2);
  findings.problem('a');
  assert.equal(heard.problems.length, 3);
});

test(`more than ${SEEDS_MAX} seeds are cut off, and that is said once`, () => {
  const heard = new Heard();
  const findings = new Findings(heard, 'x');
  const many = Array.from({ length: SEEDS_MAX + 5 }, (_, index) => ({ host: '10.0.0.1', port: index + 1 }));
  for (let round = 0; round < 3; round += 1) findings.found(many, 'none');
  assert.equal(heard.seeds.length, 1);
  assert.equal(heard.last.split(',').length, SEEDS_MAX);
  assert.deepEqual(heard.problems, [`x: more than ${SEEDS_MAX} addresses: the rest is left out`]);
});

test('problems are bounded in number and length, and on one line each', () => {
  const heard = new Heard();
  const findings = new Findings(heard, 'x');
  for (let index = 0; index < 100; index += 1) findings.problem(`${index}\r\n\u001b[31m${'y'.repeat(5_000)}`);
  assert.equal(heard.problems.length, PROBLEMS_MAX);
  for (const problem of heard.problems) {
    assert.equal(problem.length, PROBLEM_LENGTH_MAX);
    assert.doesNotMatch(problem, /\p{Cc}/u);
  }
});

test('nothing found is a problem only if it lasts, and takes no seeds back', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const heard = new Heard();
  const findings = new Findings(heard, 'x');
  findings.found(at('10.0.0.1:1'), 'none');
  findings.found([], 'none');
  t.mock.timers.tick(NOTHING_GRACE_MS - 1);
  findings.found(at('10.0.0.1:1'), 'none');
  t.mock.timers.tick(NOTHING_GRACE_MS);
  assert.deepEqual(heard.problems, []);
  findings.found([], 'none');
  t.mock.timers.tick(NOTHING_GRACE_MS);
  assert.deepEqual(heard.problems, ['x: none']);
  assert.deepEqual(heard.seeds, ['10.0.0.1:1']);
  findings.found([], 'none');
  findings.close();
  t.mock.timers.tick(NOTHING_GRACE_MS);
  findings.problem('late');
  findings.found(at('10.0.0.2:1'), 'none');
  assert.equal(heard.problems.length + heard.seeds.length, 2);
});

const RESOLV: readonly [string, string, readonly string[]][] = [
  ['', 'brokers', ['brokers']],
  [
    'search mq.svc.cluster.local svc.cluster.local\noptions ndots:5',
    'brokers',
    ['brokers.mq.svc.cluster.local', 'brokers.svc.cluster.local', 'brokers'],
  ],
  ['options ndots:2 timeout:1\nsearch a b', 'x.y', ['x.y.a', 'x.y.b', 'x.y']],
  ['search a\noptions ndots:1', 'x.y', ['x.y', 'x.y.a']],
  ['# search no\n; search no\nsearch first\nsearch .a. b.', 'x', ['x.a', 'x.b', 'x']],
  ['domain a', 'x', ['x.a', 'x']],
  ['search .', 'x', ['x']],
  [`search ${'a'.repeat(253)} b`, 'x', ['x.b', 'x']],
  ['search a\noptions ndots:99', `x${'.y'.repeat(15)}`, [`x${'.y'.repeat(15)}`, `x${'.y'.repeat(15)}.a`]],
  ['options ndots:999', `x${'.y'.repeat(15)}`, [`x${'.y'.repeat(15)}`]],
  [
    `search ${Array.from({ length: 40 }, (_, index) => `d${index}`).join(' ')}`,
    'x',
    [...Array.from({ length: 32 }, (_, index) => `x.d${index}`), 'x'],
  ],
];
for (const [text, name, expected] of RESOLV) {
  test(`${name.slice(0, 20)} is looked up as resolv.conf says: ${JSON.stringify(text.slice(0, 60))}`, () => {
    assert.deepEqual(nameCandidates(name, parseSearchRules(text)), expected);
  });
}

test('no discovery is nothing to start; the others are opened without asking anybody', () => {
  const heard = new Heard();
  assert.equal(openDiscovery(defaultConfig().discovery, heard), null);
  const database = ['--store=postgres', '--postgres-url=postgres://db/x'];
  for (const flags of [
    ['--discovery=dns', '--dns-name=brokers'],
    ['--discovery=kubernetes', '--kubernetes-service=brokers'],
  ]) {
    openDiscovery(defaultConfig([...database, ...flags]).discovery, heard)?.stop();
  }
  assert.equal(formatEndpoint({ host: '::1', port: 1 }), '[::1]:1');
  assert.equal(heard.seeds.length + heard.problems.length, 0);
});
