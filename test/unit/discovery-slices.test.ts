import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { formatEndpoint } from '../../src/base/endpoint.ts';
import { EndpointSlices, SLICES_MAX } from '../../src/discovery/endpoint-slices.ts';
import { SEEDS_MAX } from '../../src/discovery/types.ts';
import { slice } from '../servers/kubernetes.ts';

function addressesOf(...slices: readonly unknown[]): string {
  const known = new EndpointSlices('gossip');
  for (const one of slices) known.put(one);
  return [...known.addresses()].map(formatEndpoint).join();
}

const ONE = ['10.0.0.1'];
const ROWS: readonly [string, unknown, string][] = [
  ['a slice as the controller makes it', slice('a', ONE), '10.0.0.1:7946'],
  ['no port of the name', slice('a', ONE, { ports: [{ name: 'grpc', port: 1 }] }), '10.0.0.1:7946'],
  ['no ports at all', slice('a', ONE, { ports: null }), '10.0.0.1:7946'],
  ['a port of the name with another number', slice('a', ONE, { ports: [{ name: 'gossip', port: 9 }] }), '10.0.0.1:9'],
  [
    'a port of the name without a number',
    slice('a', ONE, { ports: [{ name: 'gossip', port: null }] }),
    '10.0.0.1:7946',
  ],
  ['a port that is none', slice('a', ONE, { ports: [{ name: 'gossip', port: 65_536 }] }), '10.0.0.1:7946'],
  ['no endpoints', slice('a', [], { endpoints: null }), ''],
  ['names instead of addresses', slice('a', ['host.example'], { addressType: 'FQDN' }), ''],
  ['an address of the other family', slice('a', ['fd00::1', '10.0.0.1']), '10.0.0.1:7946'],
  ['a type that is a property of every object', slice('a', ONE, { addressType: 'constructor' }), ''],
  [
    'several addresses of one endpoint',
    slice('a', [], { endpoints: [{ addresses: ['10.0.0.1', '10.0.0.2'] }] }),
    '10.0.0.1:7946',
  ],
  [
    'endpoints that are none',
    slice('a', [], { endpoints: [null, 1, {}, { addresses: [] }, { addresses: [7] }, { addresses: 'x' }] }),
    '',
  ],
  [
    'a pod that is ending',
    slice('a', [], { endpoints: [{ addresses: ONE, conditions: { terminating: true } }] }),
    '10.0.0.1:7946',
  ],
];
for (const [name, given, expected] of ROWS) {
  test(`addresses of ${name}: ${expected === '' ? 'none' : expected}`, () =>
    assert.equal(addressesOf(given), expected));
}

test('a slice replaces the one of its name, and one that is removed takes its addresses with it', () => {
  const known = new EndpointSlices('gossip');
  known.put(slice('a', ['10.0.0.1']));
  known.put(slice('b', ['10.0.0.2']));
  known.put(slice('a', ['10.0.0.3']));
  assert.equal([...known.addresses()].map(({ host }) => host).join(), '10.0.0.3,10.0.0.2');
  assert.equal(known.remove(slice('a', [])), true);
  assert.equal(known.remove(slice('unknown', [])), true);
  assert.equal([...known.addresses()].map(({ host }) => host).join(), '10.0.0.2');
  known.clear();
  assert.equal([...known.addresses()].length, 0);
});

test('[G7] slices and addresses are kept up to a limit, one more than is told', () => {
  const hosts = Array.from({ length: 2_000 }, (_, index) => `10.0.${index >> 8}.${index & 255}`);
  const known = new EndpointSlices('gossip');
  known.put(slice('large', hosts));
  known.put(slice('also', ['10.2.0.1']));
  assert.equal([...known.addresses()].length, SEEDS_MAX + 1);
  known.clear();
  for (let index = 0; index < SLICES_MAX + 10; index += 1) known.put(slice(`s${index}`, [`10.1.0.${index & 255}`]));
  assert.equal([...known.addresses()].length, SLICES_MAX);
  // One that is known still changes.
  known.put(slice('s0', []));
  assert.equal([...known.addresses()].length, SLICES_MAX - 1);
});

test('[G7] anything else is refused or has no addresses, and nothing throws', () => {
  const json = fc.jsonValue();
  const near = fc.record({
    metadata: fc.oneof(json, fc.record({ name: fc.oneof(json, fc.string()) })),
    addressType: fc.oneof(json, fc.constantFrom('IPv4', 'IPv6')),
    ports: fc.oneof(json, fc.array(fc.record({ name: fc.constantFrom('gossip', 1), port: json }))),
    endpoints: fc.oneof(
      json,
      fc.array(fc.oneof(json, fc.record({ addresses: fc.array(fc.oneof(json, fc.ipV4(), fc.ipV6())) }))),
    ),
  });
  fc.assert(
    fc.property(fc.oneof(json, near), (given) => {
      const known = new EndpointSlices('gossip');
      known.put(given);
      for (const { host, port } of known.addresses()) {
        assert.match(host, /^[\da-f.:]+$/i);
        assert.ok(Number.isInteger(port) && port > 0 && port < 65_536);
      }
      known.remove(given);
      assert.equal([...known.addresses()].length, 0);
    }),
    { numRuns: 2_000 },
  );
});
