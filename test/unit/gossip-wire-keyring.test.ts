import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Keyring } from '../../src/net/gossip/wire/keyring.ts';
import { KEYS_MAX } from '../../src/net/gossip/wire/limits.ts';

const keyOf = (byte: number, length = 32): Uint8Array => new Uint8Array(length).fill(byte);

test('an empty ring has no primary key, and means no encryption', () => {
  const ring = new Keyring();
  assert.equal(ring.primary, null);
  assert.deepEqual(ring.keys, []);
  assert.equal(ring.use(keyOf(1)), 'unknown');
  assert.equal(ring.remove(keyOf(1)), null);
});

test('keys have 16, 24 or 32 bytes', () => {
  const ring = new Keyring();
  for (const length of [0, 1, 15, 17, 31, 33]) assert.equal(ring.add(keyOf(1, length)), 'size');
  for (const length of [16, 24, 32]) assert.equal(ring.add(keyOf(1, length)), null);
  assert.equal(ring.keys.length, 3);
});

test('a key is installed, used and its predecessor removed, as a rotation does it; the others keep their order', () => {
  const ring = new Keyring();
  for (const byte of [1, 2, 3, 4]) assert.equal(ring.add(keyOf(byte)), null);
  assert.equal(ring.add(keyOf(2)), null, 'it is there already');
  const order = (): number[] => ring.keys.map((key) => key[0] as number);
  assert.deepEqual(order(), [1, 2, 3, 4]);
  assert.equal(ring.use(keyOf(3)), null);
  assert.deepEqual(order(), [3, 1, 2, 4]);
  assert.equal(ring.remove(keyOf(3)), 'primary');
  assert.equal(ring.remove(keyOf(1)), null);
  assert.equal(ring.remove(keyOf(1)), null, 'it is gone already');
  assert.equal(ring.use(keyOf(1)), 'unknown');
  assert.deepEqual(order(), [3, 2, 4]);
  assert.deepEqual(ring.primary, keyOf(3));
});

test('a ring has its own copy of a key, and what was taken from it does not change', () => {
  const ring = new Keyring();
  const key = keyOf(1);
  assert.equal(ring.add(key), null);
  const before = ring.keys;
  key.fill(9);
  assert.equal(ring.add(keyOf(2)), null);
  assert.deepEqual(before, [keyOf(1)]);
  assert.deepEqual(ring.keys, [keyOf(1), keyOf(2)]);
});

test('[G7] a ring takes so many keys: each is a trial for each foreign packet', () => {
  const ring = new Keyring();
  for (let byte = 0; byte < KEYS_MAX; byte++) assert.equal(ring.add(keyOf(byte)), null);
  assert.equal(ring.add(keyOf(KEYS_MAX)), 'full');
  assert.equal(ring.add(keyOf(0)), null);
});
