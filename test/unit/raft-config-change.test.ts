import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  type ConfigChange,
  type ConfigChangeKind,
  changeConfig,
  decodeConfigChange,
  encodeConfigChange,
} from '../../src/raft/config-change.ts';
import type { ConfigState } from '../../src/raft/messages.ts';
import { majorityOf } from '../../src/raft/quorum.ts';
import { bytes } from './raft-group.ts';

function config(text: string): ConfigState {
  const [voters = '', learners = ''] = text.split('|');
  return { voters: [...voters], learners: [...learners] };
}

function show(result: ConfigState | string): string {
  return typeof result === 'string' ? result : `${result.voters.join('')}|${result.learners.join('')}`;
}

/** voters|learners, change, node -> voters|learners or the refusal. */
const TABLE: readonly [before: string, kind: ConfigChangeKind, node: string, after: string][] = [
  ['a|', 'add-voter', 'b', 'ab|'],
  ['a|b', 'add-voter', 'b', 'ab|'],
  ['ab|', 'add-voter', 'b', 'no-change'],
  ['bc|d', 'add-voter', 'a', 'abc|d'],
  ['a|', 'add-learner', 'b', 'a|b'],
  ['a|b', 'add-learner', 'b', 'no-change'],
  ['ab|', 'add-learner', 'b', 'a|b'],
  ['a|', 'add-learner', 'a', 'zero-voters'],
  ['ab|', 'remove', 'b', 'a|'],
  ['a|b', 'remove', 'b', 'a|'],
  ['a|', 'remove', 'b', 'no-change'],
  ['a|', 'remove', 'a', 'zero-voters'],
  ['a|bc', 'remove', 'a', 'zero-voters'],
  ['abc|', 'remove', 'b', 'ac|'],
  ['|', 'add-voter', 'a', 'a|'],
  ['|', 'add-learner', 'a', 'zero-voters'],
  ['ab|cd', 'add-voter', 'd', 'abd|c'],
  ['ab|cd', 'add-learner', 'a', 'b|acd'],
];

test('[R13] membership changes: a table of members before and after', () => {
  for (const [before, kind, node, after] of TABLE) {
    const result = changeConfig(config(before), { kind, node, context: new Uint8Array(0) });
    assert.equal(show(result), after, `${before} ${kind} ${node}`);
  }
});

test('[R12] any change leaves majorities that meet the ones before, and never no voters', () => {
  const names = fc.constantFrom(...'abcdefg');
  const kinds = fc.constantFrom<ConfigChangeKind>('add-voter', 'add-learner', 'remove');
  const changes = fc.array(fc.tuple(kinds, names), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(changes, (list) => {
      let now = config('abc|');
      for (const [kind, node] of list) {
        const next = changeConfig(now, { kind, node, context: new Uint8Array(0) });
        if (typeof next === 'string') {
          continue;
        }
        const all = new Set([...now.voters, ...next.voters]);
        assert.ok(next.voters.length > 0);
        assert.ok(majorityOf(now.voters.length) + majorityOf(next.voters.length) > all.size);
        assert.ok(next.voters.every((voter) => !next.learners.includes(voter)));
        assert.deepEqual([...next.voters].sort(), next.voters);
        now = next;
      }
    }),
    { numRuns: 300 },
  );
});

test('a change comes back from its bytes', () => {
  const kinds = fc.constantFrom<ConfigChangeKind>('add-voter', 'add-learner', 'remove');
  const nodes = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 20 });
  const contexts = fc.uint8Array({ maxLength: 300 });
  fc.assert(
    fc.property(kinds, nodes, contexts, (kind, node, context) => {
      const change = decodeConfigChange(encodeConfigChange({ kind, node, context }));
      assert.deepEqual({ ...change, context: Uint8Array.from(change.context) }, { kind, node, context });
    }),
  );
});

test('the bytes of a change are fixed', () => {
  const change: ConfigChange = { kind: 'add-learner', node: 'n1', context: bytes('x') };
  assert.deepEqual([...encodeConfigChange(change)], [1, 2, 2, 0x6e, 0x31, 0x78]);
});

test('damaged bytes of a change are a broken invariant', () => {
  for (const data of [
    [],
    [1],
    [2, 1, 1, 65],
    [1, 0, 1, 65],
    [1, 4, 1, 65],
    [1, 1, 0, 65],
    [1, 1, 9, 65],
    [1, 1, 1, 0xff],
  ]) {
    assert.throws(() => decodeConfigChange(Uint8Array.from(data)), `[${data}]`);
  }
});

test('an id must have 1 to 255 bytes', () => {
  const change = { kind: 'remove', context: new Uint8Array(0) } as const;
  assert.throws(() => encodeConfigChange({ ...change, node: '' }));
  assert.throws(() => encodeConfigChange({ ...change, node: 'é'.repeat(128) }));
  assert.equal(decodeConfigChange(encodeConfigChange({ ...change, node: 'x'.repeat(255) })).node.length, 255);
});
