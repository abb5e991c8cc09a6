/** What is written down of nodes that want to be taken in. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AccessAudit } from '../../src/workers/front/access-audit.ts';

test('each node that is taken in is written down, and of those that are refused one for each host and reason at a time', () => {
  const lines: Record<string, unknown>[] = [];
  const write = (msg: string, fields: object = {}): void => void lines.push({ msg, ...fields });
  let now = 0;
  const log = { debug: write, info: write, warn: write, error: write };
  const audit = new AccessAudit(log as unknown as ConstructorParameters<typeof AccessAudit>[0], null, () => now);
  const join = (peer: string, outcome: string, caller = 'anonymous'): void =>
    audit.acted({ caller, peer, method: 'Join', arguments: { member: { nodeId: 'x' } }, outcome });
  for (const port of [1, 2, 3]) join(`10.0.0.1:${port}`, 'JOIN_UNPROVEN');
  join('10.0.0.2:1', 'JOIN_UNPROVEN');
  join('10.0.0.1:4', 'NOT_LEADER');
  now += 10_000;
  join('10.0.0.1:5', 'JOIN_UNPROVEN');
  join('10.0.0.3:1', 'ok', 'node x');
  join('10.0.0.3:1', 'ok', 'node x');
  assert.deepEqual(
    lines.map(({ msg, peer, reason, left_out, outcome }) => [msg, peer, reason ?? outcome, left_out ?? 0]),
    [
      ['somebody was refused', '10.0.0.1:1', 'JOIN_UNPROVEN', 0],
      ['somebody was refused', '10.0.0.2:1', 'JOIN_UNPROVEN', 0],
      ['somebody was refused', '10.0.0.1:4', 'NOT_LEADER', 0],
      ['somebody was refused', '10.0.0.1:5', 'JOIN_UNPROVEN', 2],
      ['a node was taken in', '10.0.0.3:1', 'ok', 0],
      ['a node was taken in', '10.0.0.3:1', 'ok', 0],
    ],
  );
  // A node that asks the wrong one is nobody who may not.
  assert.deepEqual([audit.refusals.get('JOIN_UNPROVEN'), audit.refusals.get('NOT_LEADER')], [5, undefined]);
  assert.ok(lines.every(({ audit }) => audit === true));
});
