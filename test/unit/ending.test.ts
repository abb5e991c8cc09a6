/** The end of a broker, of which one part hangs or fails. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Ending } from '../../src/node/ending.ts';

function rig() {
  const told: string[] = [];
  const ending = new Ending({ error: (message, fields) => void told.push(`${message}: ${fields?.what}`) });
  return { ending, told };
}

describe('A step of the end', () => {
  it('that rejects, or throws, is told and keeps no other from its turn; the process can end by itself', async () => {
    const { ending, told } = rig();
    const stopped: string[] = [];
    await ending.step('a', () => Promise.reject(new Error('no')));
    await ending.step('b', () => {
      throw new Error('no');
    });
    await ending.step('c', async () => void stopped.push('c'));
    await ending.step('d', () => void stopped.push('d'));
    assert.deepEqual(told, ['something failed as it stopped: a', 'something failed as it stopped: b']);
    assert.deepEqual(stopped, ['c', 'd']);
    assert.equal(ending.isStuck, false);
  });

  it('that hangs is told and waited for no longer; the process has to be ended, also if it fails later', async () => {
    const { ending, told } = rig();
    const hanging = Promise.withResolvers<void>();
    await ending.step('a', () => hanging.promise, 1);
    assert.deepEqual(told, ['something did not stop in time: a']);
    assert.equal(ending.isStuck, true);
    await ending.step('b', () => undefined);
    hanging.reject(new Error('late'));
    await ending.step('c', () => undefined);
    assert.deepEqual(told.slice(1), ['something failed as it stopped: a']);
    assert.equal(ending.isStuck, true);
  });
});
