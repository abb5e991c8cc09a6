import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isAdmitted } from '../../src/replica/admission.ts';

const row = (node: string, instance: string) => ({ node, instance, raft: 'a:1', grpc: 'a:2', protocol: 1 });

test('[R23] a name that the table has with another instance has no say; one that it does not have is heard', () => {
  const members = [row('a', '01'), row('b', '02')];
  assert.equal(isAdmitted(members, 'a', '01'), true);
  assert.equal(isAdmitted(members, 'a', '02'), false);
  assert.equal(isAdmitted(members, 'c', '03'), true);
  assert.equal(isAdmitted([], 'a', '02'), true);
});
