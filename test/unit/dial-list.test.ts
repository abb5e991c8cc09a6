/** Whom a Raft node dials. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Member } from '../../src/replica/types.ts';
import { dialList } from '../../src/workers/raft/dial-list.ts';

function member(node: string, instance: string, port: number): Member {
  return { node, instance, raft: `h:${port}`, grpc: `h:${port + 1}`, protocol: 1 };
}

const shown = (members: readonly Member[], told: readonly Member[]): string[] =>
  dialList(members, told, new Map(), 'me').map(({ node, instance, address }) => `${node}/${instance} ${address}`);

test('a node that joins dials the leader as the instance that it was told, not as that of an older snapshot', () => {
  const old = [member('me', '1', 1), member('a', '2', 3), member('b', '3', 5)];
  const told = [member('me', '9', 1), member('a', '7', 11)];
  assert.deepEqual(shown(old, told), ['b/3 h:5', 'a/7 h:11']);
  // Of one instance the log knows the newer address.
  assert.deepEqual(shown([member('a', '7', 13)], told), ['a/7 h:13']);
  // Before it has a snapshot, and when its log has caught up.
  assert.deepEqual(shown([], told), ['a/7 h:11']);
  assert.deepEqual(shown(old, []), ['a/2 h:3', 'b/3 h:5']);
});
