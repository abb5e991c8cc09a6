import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AssertionError } from '../../src/base/assert.ts';
import { BrokerError } from '../../src/base/errors.ts';
import { DriverErrors } from '../../src/storage/driver-errors.ts';
import { StoreFailure, StoreUncertain } from '../../src/storage/store.ts';

test('what a driver throws leaves a write uncertain and a read unanswered, and each kind is told once', () => {
  const told: string[] = [];
  const errors = new DriverErrors((message, error) => told.push(`${message}: ${String(error)}`));
  const odd = Object.assign(new Error('odd'), { code: 'E_ODD' });
  for (const thrown of [odd, odd, new Error('other'), 'a text', undefined]) {
    const write = errors.ofWrite(thrown);
    assert.ok(write instanceof StoreUncertain);
    assert.equal(write.cause, thrown);
    const read = errors.ofRead(thrown);
    assert.ok(read instanceof BrokerError);
    assert.equal(read.reason, 'STORE_UNAVAILABLE');
  }
  assert.equal(told.filter((line) => line.startsWith('a write')).length, 3);
  assert.equal(told.filter((line) => line.startsWith('a read')).length, 3);
});

test('named outcomes and defects of the program pass as they are', () => {
  const errors = new DriverErrors(() => assert.fail('nothing to tell'));
  for (const error of [
    new BrokerError('STORE_FULL'),
    new StoreFailure('f'),
    new AssertionError('a'),
    new TypeError('t'),
  ]) {
    assert.equal(errors.ofWrite(error), error);
    assert.equal(errors.ofRead(error), error);
  }
  const uncertain = new StoreUncertain('u');
  assert.equal(errors.ofWrite(uncertain), uncertain);
});
