import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { armFailpoints, failpoint, isFailpointSpec } from '../../src/base/failpoint.ts';
import { temporaryFolder } from '../support/temporary.ts';

describe('failpoints', () => {
  afterEach(() => armFailpoints(''));

  it('act at their site, on the hit they name, and not after they are disarmed', () => {
    armFailpoints('a.b=eio@2, c=throw');
    failpoint('a.b');
    failpoint('other');
    assert.throws(() => failpoint('a.b'), { code: 'EIO' });
    failpoint('a.b');
    assert.throws(() => failpoint('c'), /failpoint c/);
    armFailpoints('');
    failpoint('c');
  });

  for (const spec of [
    'a',
    'a=',
    'a=explode',
    'a=sleep',
    'a=sleep:x',
    'a=kill:5',
    'a=wait',
    'a=wait:@1',
    'a=eio@',
    'a=eio@x',
    'a=eio!',
    'a=eio@!/over',
  ]) {
    it(`cannot be armed with "${spec}"`, () => {
      assert.throws(() => armFailpoints(spec), /cannot read/);
      assert.equal(isFailpointSpec(spec), false);
    });
  }

  it('act until the file is there that ends them', (t) => {
    const file = join(temporaryFolder(t), 'over');
    armFailpoints(`a=eio!${file}, b=throw@2!${file}`);
    assert.throws(() => failpoint('a'), { code: 'EIO' });
    failpoint('b');
    writeFileSync(file, '');
    failpoint('a');
    failpoint('b');
  });

  it('wait holds the thread until the file is there', { timeout: 20_000 }, async (t) => {
    const file = join(temporaryFolder(t), 'open');
    const passed = new Int32Array(new SharedArrayBuffer(4));
    const module = new URL('../../src/base/failpoint.ts', import.meta.url).href;
    const thread = new Worker(
      `const { workerData: { passed, module, file }, parentPort } = require('node:worker_threads');
       import(module).then(({ armFailpoints, failpoint }) => {
         armFailpoints('site=wait:' + file + '@1');
         parentPort.postMessage('armed');
         failpoint('site');
         Atomics.store(passed, 0, 1);
         Atomics.notify(passed, 0);
       });`,
      { eval: true, workerData: { passed, module, file } },
    );
    await new Promise((resolve) => thread.once('message', resolve));
    assert.equal(await Atomics.waitAsync(passed, 0, 0, 200).value, 'timed-out');
    writeFileSync(file, '');
    assert.notEqual(await Atomics.waitAsync(passed, 0, 0, 10_000).value, 'timed-out');
    await thread.terminate();
  });
});
