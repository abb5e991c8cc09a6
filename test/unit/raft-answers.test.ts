/** What the Raft node of a lone broker answers its shards when their closes and revokes meet an allotment that has its verdict. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it, type TestContext } from 'node:test';
import { closeSize, openSize, writeClose, writeOpen, writeRevoke } from '../../src/allot/commands.ts';
import { AllotVerdict } from '../../src/allot/verdicts.ts';
import type { AnswerPort, RaftNode } from '../../src/workers/raft/raft-node.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { subjectRef } from './batch-support.ts';
import { openNode } from './raft-node-rig.ts';

const { bytes: NAME, hash: HASH } = subjectRef('answers.test');
const SHARD = 3;

const open = (counter: number): Uint8Array => {
  const run = new Uint8Array(openSize(NAME.length, false));
  writeOpen(new DataView(run.buffer), run, 0, NAME, HASH, SHARD, counter, 2, 100, 0, -1);
  return run;
};
const close = (base: number, verdict: number): Uint8Array => {
  const run = new Uint8Array(closeSize(NAME.length));
  writeClose(new DataView(run.buffer), run, 0, NAME, HASH, base, verdict);
  return run;
};
const revoke = (base: number): Uint8Array => {
  const run = new Uint8Array(closeSize(NAME.length));
  writeRevoke(new DataView(run.buffer), run, 0, NAME, HASH, base);
  return run;
};

/** A node, and what its shards were told of closes and revokes, in order. */
async function nodeWithAnswers(t: TestContext): Promise<{ readonly node: RaftNode; readonly told: string[] }> {
  // Closing writes to the folder: before it goes.
  let closeNode = (): void => undefined;
  t.after(() => closeNode());
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'raft'));
  const { node } = await openNode(t, folder, { hasDatabase: true });
  closeNode = () => node.close();
  const told: string[] = [];
  const none = (): void => undefined;
  const answers: AnswerPort = {
    opened: none,
    openRefused: none,
    partsOpened: none,
    producerOpened: none,
    trimmed: none,
    onReadable: none,
    moved: none,
    born: none,
    restored: none,
    mark: () => true,
    revoked: (names, start, end, _hash, base) => void told.push(`revoked ${text(names, start, end)} ${base}`),
    gone: (names, start, end, _hash, base) => void told.push(`gone ${text(names, start, end)} ${base}`),
    closed: (shard, counter, isApplied) => void told.push(`closed ${shard}/${counter} ${isApplied}`),
  };
  node.answerTo(answers);
  return { node, told };
}

function text(names: Uint8Array, start: number, end: number): string {
  return Buffer.from(names.subarray(start, end)).toString();
}

describe('an allotment that became void before its batch was closed', () => {
  it('[S11] is answered while ids before it are open', async (t) => {
    const { node, told } = await nodeWithAnswers(t);
    node.propose([open(1), open(2), revoke(3), close(3, AllotVerdict.VOID)]);
    node.work();
    assert.deepEqual(told.splice(0), ['revoked answers.test 3']);
    node.propose([close(3, AllotVerdict.STORED)]);
    node.work();
    assert.deepEqual(told.splice(0), ['gone answers.test 3']);
    node.propose([revoke(3)]);
    node.work();
    assert.deepEqual(told.splice(0), ['gone answers.test 3']);
    node.propose([close(1, AllotVerdict.STORED)]);
    node.work();
    assert.deepEqual(told, [`closed ${SHARD}/1 true`]);
  });

  it('[S11] is answered when everything up to it is settled', async (t) => {
    const { node, told } = await nodeWithAnswers(t);
    node.propose([open(1), revoke(1), close(1, AllotVerdict.VOID)]);
    node.work();
    told.splice(0);
    node.propose([close(1, AllotVerdict.STORED), revoke(1)]);
    node.work();
    assert.deepEqual(told, ['gone answers.test 1', 'gone answers.test 1']);
  });

  it('is answered as before while it is only revoked', async (t) => {
    const { node, told } = await nodeWithAnswers(t);
    node.propose([open(7), revoke(1), close(1, AllotVerdict.STORED)]);
    node.work();
    assert.deepEqual(told, ['revoked answers.test 1', `closed ${SHARD}/7 false`]);
  });
});
