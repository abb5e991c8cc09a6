import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tenantOfHeader } from '../../src/grpc/tenant.ts';

test('a call that names no tenant is of the tenant "default"', () => {
  assert.equal(tenantOfHeader(undefined), 'default');
});

test('a tenant has 1 to 64 letters, digits, dots, low lines and hyphens', () => {
  for (const name of ['a', 'Acme-2.eu_west', '0', 'x'.repeat(64)]) {
    assert.equal(tenantOfHeader(name), name);
  }
});

for (const name of ['', 'x'.repeat(65), 'a b', 'a/b', 'a,b', 'a\u00e9', '*', 'a\n', ' a', '{}']) {
  test(`${JSON.stringify(name)} is no tenant`, () => {
    assert.equal(tenantOfHeader(name), null);
  });
}

test('several tenants of one call are refused, also if they are the same', () => {
  assert.equal(tenantOfHeader('a, b'), null);
  assert.equal(tenantOfHeader('a, a'), null);
  assert.equal(tenantOfHeader(['a']), null);
});
