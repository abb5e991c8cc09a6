/** What is written down of refusals and of what operators do. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Redactor } from '../../src/base/redactor.ts';
import { shownSetting } from '../../src/config/shown-setting.ts';
import type { AuditLog } from '../../src/telemetry/log.ts';
import { AccessAudit } from '../../src/workers/access/access-audit.ts';

type Line = Readonly<Record<string, unknown>>;

function audit(secrets: readonly string[] = []) {
  const lines: Line[] = [];
  const clock = { now: 0 };
  const log: AuditLog = {
    ...{ debug: assert.fail, info: assert.fail, warn: assert.fail, error: assert.fail },
    audit: (level, message, fields) => void lines.push({ level, message, ...fields }),
  };
  const redactor = new Redactor(secrets);
  const made = new AccessAudit({
    log,
    file: null,
    disguises: { setting: shownSetting, text: (text) => redactor.redact(text) },
    now: () => clock.now,
  });
  const linesOf = (caller: string): Line[] => lines.filter((line) => line.caller === caller);
  return { made, lines, linesOf, clock };
}

const ACTION = { caller: 'token ops', peer: '127.0.0.1:1', outcome: 'ok' };

test('no secret is in the arguments of an action: not a setting, not a password of a URL, not one that is cut off', () => {
  const secret = 's3cret"of/some length';
  const { made, lines } = audit([secret]);
  made.acted({ ...ACTION, method: 'ChangeSetting', arguments: { key: 'cassandra.password', value: 'Tr0ub4dor' } });
  const address = 'http://me:Tr0ub4dor@node-2:8081';
  made.acted({ ...ACTION, method: 'Add', arguments: { member: { nodeId: secret, grpcAddress: address } } });
  const cut = `${'x'.repeat(250)}${secret}`;
  made.acted({ ...ACTION, method: 'TrimSubject', arguments: { subject: cut, first: 2, tenant: '' } });
  made.acted({ ...ACTION, method: 'GossipKeys', arguments: { action: 'install', key: Buffer.from('Tr0ub4dor') } });
  assert.deepEqual(
    lines.map(({ arguments: given }) => JSON.parse(String(given))),
    [
      { key: 'cassandra.password', value: '***' },
      { member: { nodeId: '***', grpcAddress: 'http://me:***@node-2:8081' } },
      { subject: `${'x'.repeat(250)}***`, first: 2 },
      { action: 'install', key: '9 bytes' },
    ],
  );
});

const WINDOW_MS = 10_000;
const LINES_OF_STRANGERS_MAX = 64 * 2 + 1;
const nothing = (): Line => ({});

/** The number of an address of a flood, which is of as many networks as it can be. */
function flooder(i: number): string {
  return `${11 + (i % 200)}.${(i >> 8) & 255}.${i % 251}.${1 + (i % 250)}:${1_024 + (i % 60_000)}`;
}

/** How many refusals the lines stand for. */
function told(lines: readonly Line[]): number {
  return lines.reduce((sum, line) => sum + Number(line.refusals ?? line.left_out ?? 1), 0);
}

test('a caller is told of at once, then once a window with the number of those between, also if no more come', () => {
  const { made, lines, clock } = audit();
  for (let i = 0; i < 5; i++) made.note('PERMISSION_DENIED', 'token a', '10.0.0.1:7', () => ({ subject: `s${i}` }));
  assert.deepEqual(lines, [
    {
      ...{ level: 'warn', message: 'somebody was refused', caller: 'token a', reason: 'PERMISSION_DENIED' },
      ...{ peer: '10.0.0.1:7', subject: 's0' },
    },
  ]);
  clock.now = WINDOW_MS - 1;
  made.sweep();
  assert.equal(lines.length, 1);
  clock.now = WINDOW_MS;
  made.sweep();
  assert.deepEqual(lines.slice(1), [
    {
      ...{ level: 'warn', message: 'somebody was refused again', caller: 'token a', reason: 'PERMISSION_DENIED' },
      ...{ peer: '10.0.0.1:7', left_out: 4 },
    },
  ]);
  made.note('PERMISSION_DENIED', 'token a', '10.0.0.1:7', nothing);
  assert.equal(lines.length, 3, 'at once again');
});

test('each node that is taken in is written down, and of those that are refused one for each host and reason at a time', () => {
  const { made, lines, clock } = audit();
  const join = (peer: string, outcome: string, caller = 'anonymous'): void =>
    made.acted({ caller, peer, method: 'Join', arguments: { member: { nodeId: 'x' } }, outcome });
  for (const port of [1, 2, 3]) join(`10.0.0.1:${port}`, 'JOIN_UNPROVEN');
  join('10.0.0.2:1', 'JOIN_UNPROVEN');
  join('10.0.0.1:4', 'NOT_LEADER');
  clock.now += WINDOW_MS;
  join('10.0.0.1:5', 'JOIN_UNPROVEN');
  join('10.0.0.3:1', 'ok', 'node x');
  join('10.0.0.3:1', 'ok', 'node x');
  assert.deepEqual(
    lines.map(({ message, peer, reason, left_out, outcome }) => [message, peer, reason ?? outcome, left_out ?? 0]),
    [
      ['somebody was refused', '10.0.0.1:1', 'JOIN_UNPROVEN', 0],
      ['somebody was refused', '10.0.0.2:1', 'JOIN_UNPROVEN', 0],
      ['somebody was refused', '10.0.0.1:4', 'NOT_LEADER', 0],
      ['somebody was refused again', '10.0.0.1:1', 'JOIN_UNPROVEN', 2],
      ['somebody was refused', '10.0.0.1:5', 'JOIN_UNPROVEN', 0],
      ['a node was taken in', '10.0.0.3:1', 'ok', 0],
      ['a node was taken in', '10.0.0.3:1', 'ok', 0],
    ],
  );
  // A node that asks the wrong one is nobody who may not.
  assert.deepEqual([made.refusals.get('JOIN_UNPROVEN'), made.refusals.get('NOT_LEADER')], [5, undefined]);
});

test('a flood of strangers with an address each hides no token that does what it may not, in no window', () => {
  const { made, linesOf, clock } = audit();
  for (let window = 0; window < 3; window++) {
    clock.now = window * WINDOW_MS;
    for (let i = 0; i < 5_000; i++) made.note('CREDENTIALS_INVALID', null, flooder(i + window * 5_000), nothing);
    for (let i = 0; i < 3; i++) made.note('PERMISSION_DENIED', `token ${window}`, '10.0.0.1:7', nothing);
    assert.equal(linesOf(`token ${window}`).length, 1);
  }
  made.close();
  for (let window = 0; window < 3; window++) assert.equal(told(linesOf(`token ${window}`)), 3);
});

test('lines of a flood are bounded, and each refusal is in exactly one of them', () => {
  const { made, lines, clock } = audit();
  let refused = 0;
  for (let window = 0; window < 4; window++) {
    clock.now = window * WINDOW_MS;
    const before = lines.length;
    for (let i = 0; i < 20_000; i++) {
      made.note(i % 3 === 0 ? 'CREDENTIALS_MISSING' : 'CREDENTIALS_INVALID', null, flooder(i * 7), nothing);
      refused += 1;
    }
    clock.now += WINDOW_MS;
    made.sweep();
    assert.ok(lines.length - before <= LINES_OF_STRANGERS_MAX, `${lines.length - before} lines`);
    assert.equal(told(lines), refused);
  }
});

test('a window that overflows says of whom: how many refusals of how many, for what, and who came most', () => {
  const { made, lines } = audit();
  for (let i = 0; i < 3_000; i++) {
    made.note('CREDENTIALS_INVALID', null, flooder(i), nothing);
    if (i > 1_000 && i % 10 === 0) made.note('CREDENTIALS_MISSING', null, '192.0.2.77:9', nothing);
  }
  made.close();
  const { message, callers, refusals, different, reasons, busiest } = lines.at(-1) ?? {};
  assert.deepEqual([message, callers], ['more were refused than are told of one by one', 'unknown']);
  assert.ok(Number(refusals) > 2_000 && Number(different) > 2_000, `${refusals} of ${different}`);
  assert.match(String(reasons), /^CREDENTIALS_INVALID 29\d\d, CREDENTIALS_MISSING 199$/);
  // Its number is what is certain, which may be less than there were.
  assert.match(String(busiest), /^192\.0\.2\.77 1\d\d, /);
});

for (const [name, address] of [
  ['IPv4', (i: number) => `198.51.100.${i % 256}:1`],
  ['IPv6', (i: number) => `[2001:db8:1:${i.toString(16)}::${(i * 31).toString(16)}]:1`],
] as const) {
  test(`whoever has all addresses of one network of ${name} does not hide a stranger of another one`, () => {
    const { made, lines } = audit();
    for (let i = 0; i < 10_000; i++) made.note('CREDENTIALS_INVALID', null, address(i), nothing);
    for (const other of ['203.0.113.9:2', '[2001:db8:2::1]:2', '[::1]:2'])
      made.note('CREDENTIALS_INVALID', null, other, nothing);
    for (const other of ['203.0.113.9:2', '[2001:db8:2::1]:2', '[::1]:2'])
      assert.equal(lines.filter(({ peer }) => peer === other).length, 1, other);
  });
}

test('one token on many machines hides no other one, and is told of with the first of its addresses', () => {
  const { made, linesOf } = audit();
  for (let i = 0; i < 10_000; i++) made.note('PERMISSION_DENIED', 'token stolen', flooder(i), nothing);
  made.note('PERMISSION_DENIED', 'token a', '10.0.0.1:7', nothing);
  assert.equal(linesOf('token stolen').length, 8);
  assert.equal(linesOf('token a').length, 1);
});

test('what a caller chooses is cut: neither a path nor the name in a token makes a line of any length', () => {
  const { made, lines } = audit();
  const caller = `jwt login/${'x'.repeat(10_000)}`;
  made.note('CREDENTIALS_INVALID', null, '10.0.0.1:7', () => ({ method: `/${'x'.repeat(10_000)}` }));
  made.note('PERMISSION_DENIED', caller, '10.0.0.1:7', nothing);
  made.acted({ ...ACTION, caller, method: 'Verify', arguments: {} });
  assert.equal(lines.length, 3);
  for (const line of lines) assert.ok(JSON.stringify(line).length < 500);
});
