import assert from 'node:assert/strict';
import { mock, test } from 'node:test';
import { EXPIRY_LOOK_MS, Expiry } from '../../src/net/expiry.ts';

test('what expires is told once, at most 5 s after the wall clock says so, though the clock was set', (t) => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 1_000_000 });
  t.after(() => mock.timers.reset());
  let told = 0;
  const expiry = new Expiry(Date.now() + 100 * EXPIRY_LOOK_MS, () => {
    told += 1;
  });
  mock.timers.tick(10 * EXPIRY_LOOK_MS);
  assert.equal(told, 0);
  // Somebody has set the clock ahead, which timers do not notice.
  mock.timers.setTime(1_000_000 + 200 * EXPIRY_LOOK_MS);
  mock.timers.tick(EXPIRY_LOOK_MS);
  assert.equal(told, 1);
  mock.timers.tick(500 * EXPIRY_LOOK_MS);
  assert.equal(told, 1);
  expiry.clear();
});

test('what is over is told of no more', (t) => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: 0 });
  t.after(() => mock.timers.reset());
  new Expiry(1_000, () => assert.fail('it was cleared')).clear();
  mock.timers.tick(10_000);
});
