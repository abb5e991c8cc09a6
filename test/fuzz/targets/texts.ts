/** Configuration, patterns, and what discovery is told. */
import { isIP } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { formatEndpoint, parseEndpoint } from '../../../src/base/endpoint.ts';
import { subjectFault } from '../../../src/base/subject.ts';
import { ConfigError, loadConfig } from '../../../src/config/load.ts';
import { formatQuotaRules, parseQuotaRules, QUOTA_RULES_MAX } from '../../../src/config/quota-rules.ts';
import { EndpointSlices } from '../../../src/discovery/endpoint-slices.ts';
import { nameCandidates, parseSearchRules } from '../../../src/discovery/name-candidates.ts';
import { hasWildcard, Pattern } from '../../../src/subscribe/pattern.ts';
import { accepts, expect, type FuzzTarget } from '../target.ts';

const MIB = 1 << 20;
const YAML = `cluster: orders
node_id: orders-1
data_dir: /var/lib/broker
shards: 2
store: postgres
postgres:
  url: postgres://broker:secret@db:5432/broker
  pool: 8
grpc: { listen: "0.0.0.0:8081", advertise: "orders-1.example:8081" }
gossip:
  join: [10.0.0.1:7946, "[::1]:7946"]
  key_file: /run/secrets/gossip-key
bootstrap_expect: 3
limits:
  body_bytes: 512KiB
quotas:
  rules: "acme=100msg/s 1MiB/s, *=unlimited"
log: {level: info, format: json}
`;

const config: FuzzTarget = {
  name: 'config-yaml',
  shortRuns: 150,
  about: 'a whole configuration file to its verdict; what is accepted is accepted again, the same',
  memoryBytes: 8 * MIB,
  lengthMax: 2_048,
  wordsOf: ['src/config/schema', 'src/config/membership-schema', 'src/config/quota-schema', 'src/config/names'],
  dictionary: [
    ': ',
    '\n  ',
    '&a ',
    '*a',
    '<<: ',
    '[',
    ']',
    '{',
    '}',
    '!!',
    '|\n',
    '>-\n',
    '---\n',
    '? ',
    '"',
    "'",
    '#',
    '__proto__',
    'constructor',
    '!!binary ',
    '0x',
    '.inf',
    '1e999',
    '~',
    '\t',
    '\u2028',
    '\ufeff',
    '%YAML 1.2\n',
  ],
  seeds: () =>
    [
      YAML,
      'shards: 1\n',
      '',
      'a: &x [1, 2]\nb: *x\n',
      'quotas:\n  rules: |\n    acme=10msg/s\n    acme/orders=1KiB/s\nlimits: {}\n',
      // Aliases of aliases: 9 lines that stand for a million.
      [
        'a: &a [x, x, x, x, x, x, x, x]',
        ...['b', 'c', 'd', 'e', 'f', 'g'].map(
          (name, i) => `${name}: &${name} [${Array(8).fill(`*${'abcdefg'[i]}`).join(', ')}]`,
        ),
      ].join('\n'),
      'log:\n  level: debug\nmetrics: {}\nstore: embedded\n',
    ].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const text = bytes.toString('utf8');
    const load = () =>
      loadConfig({
        argv: ['--config', 'broker.yaml'],
        environment: {},
        machine: { cores: 2 },
        readFile: () => text,
        readSecret: () => 'c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTIzNDU2Nzg=',
        isReadableByAll: () => false,
      });
    return accepts(
      (error) => {
        if (!(error instanceof ConfigError)) return false;
        expect(
          error.message.length > 0 && !error.message.includes('undefined'),
          'a refusal says nothing',
          () => error.message,
        );
        return true;
      },
      () => {
        const loaded = load();
        expect(Object.isFrozen(loaded.config), 'a configuration that may change');
        expect(isDeepStrictEqual(loaded.reload().config, loaded.config), 'another configuration the second time');
      },
    );
  },
};

const quotas: FuzzTarget = {
  name: 'quota-rules',
  about: 'the rules of quotas; what is accepted is written and read the same',
  memoryBytes: MIB,
  lengthMax: 1_024,
  dictionary: [
    'msg/s',
    '/s',
    'KiB',
    'MiB/s',
    'unlimited',
    '*',
    '/',
    '=',
    ', ',
    ';',
    '\n',
    '%2C',
    '%',
    '%e2%82%ac',
    '0.001',
  ],
  seeds: () =>
    ['acme=100msg/s 1MiB/s, acme/orders=10msg/s; *=unlimited', '*/a.=5KiB/s', 'a/%2Cx=1.5msg/s', ''].map((text) =>
      Buffer.from(text),
    ),
  run: (bytes) => {
    const rules = parseQuotaRules(bytes.toString('utf8'));
    if (typeof rules === 'string') return false;
    expect(rules.length <= QUOTA_RULES_MAX, 'more rules than the most');
    const again = parseQuotaRules(formatQuotaRules(rules));
    expect(isDeepStrictEqual(again, rules), 'read otherwise the second time', () => [rules, again]);
    return rules.length > 0;
  },
};

const SLICE = {
  metadata: { name: 'broker-abc' },
  addressType: 'IPv4',
  ports: [{ name: 'gossip', port: 7_946 }],
  endpoints: [{ addresses: ['10.0.0.1', '10.0.0.9'] }, { addresses: ['10.0.0.2'] }],
};

const slices: FuzzTarget = {
  name: 'endpoint-slices',
  about: 'EndpointSlices of Kubernetes, as JSON',
  memoryBytes: MIB,
  dictionary: [
    'null',
    'true',
    '[]',
    '{}',
    '""',
    '-1',
    '1e400',
    '"__proto__":',
    '"IPv6"',
    '"::1"',
    '"addresses":',
    '65536',
  ],
  seeds: () =>
    [SLICE, { ...SLICE, addressType: 'IPv6', endpoints: [{ addresses: ['fd00::1'] }] }, []].map((value) =>
      Buffer.from(JSON.stringify(value)),
    ),
  run: (bytes) => {
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString('utf8'));
    } catch {
      return false;
    }
    const found = new EndpointSlices('gossip');
    const isSlice = found.put(value);
    for (const { host, port } of found.addresses()) {
      expect(
        isIP(host) !== 0 && Number.isInteger(port) && port > 0 && port <= 65_535,
        'an address that is none',
        () => [host, port],
      );
    }
    expect(found.remove(value) === isSlice && [...found.addresses()].length === 0, 'it is not gone');
    return isSlice;
  },
};

const resolver: FuzzTarget = {
  name: 'resolv-conf',
  about: 'the search rules of resolv.conf, and the names that follow from them',
  memoryBytes: MIB,
  dictionary: ['search ', 'domain ', 'options ', 'ndots:', '\n', '.', 'svc.cluster.local', '# '],
  seeds: () => [
    Buffer.from('nameserver 10.0.0.10\nsearch broker.svc.cluster.local svc.cluster.local\noptions ndots:5\n'),
  ],
  run: (bytes) => {
    const rules = parseSearchRules(bytes.toString('utf8'));
    expect(
      rules.search.length <= 32 && rules.ndots >= 0 && rules.ndots <= 15,
      'rules beyond their limits',
      () => rules,
    );
    for (const name of ['brokers', 'brokers.example.org.']) {
      const names = nameCandidates(name, rules);
      const isRight = names.includes(name) && names.length <= 33 && names.every(({ length }) => length <= 253);
      expect(isRight, 'names that nobody can ask for', () => names);
    }
    return rules.search.length > 0;
  },
};

const endpoint: FuzzTarget = {
  name: 'endpoint',
  about: 'HOST:PORT; what is accepted is written and read the same',
  memoryBytes: MIB,
  lengthMax: 600,
  dictionary: ['[::1]', ':65535', ':65536', '.', '-', '::ffff:10.0.0.1', '%eth0'],
  seeds: () =>
    ['10.0.0.1:7946', '[::1]:8081', 'orders-1.example:0', `${'a.'.repeat(100)}b:1`].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const text = bytes.toString('utf8');
    const found = parseEndpoint(text);
    if (found === null) return false;
    const { host, port } = found;
    expect(port >= 0 && port <= 65_535 && host.length > 0 && !/[[\]\s]/.test(host), 'no endpoint', () => text);
    expect(
      isDeepStrictEqual(parseEndpoint(formatEndpoint(found)), found),
      'read otherwise the second time',
      () => text,
    );
    return true;
  },
};

const pattern: FuzzTarget = {
  name: 'subject-pattern',
  about: 'patterns over subjects, against an expression made of the same tokens',
  memoryBytes: MIB,
  lengthMax: 300,
  dictionary: ['*', '>', '.', '.*.', '.>', 'a.b'],
  seeds: () => ['a.*.c', 'orders.>', '*', '>', 'a*.b>.*'].map((text) => Buffer.from(text)),
  run: (bytes) => {
    const found = Pattern.parse(Uint8Array.from(bytes));
    if (typeof found === 'string') return false;
    const text = bytes.toString('utf8');
    expect(hasWildcard(bytes) && bytes.subarray(0, found.prefix.length).equals(found.prefix), 'no pattern', () => text);
    const tokens = text
      .split('.')
      .map((token) => (token === '*' ? '[^.]+' : token === '>' ? '.+' : RegExp.escape(token)));
    const expression = new RegExp(`^${tokens.join('\\.')}$`, 's');
    for (const subject of ['a', 'a.b', 'a.b.c', 'orders.eu.1', text.replaceAll('*', 'x').replaceAll('>', 'y.z')]) {
      const name = Buffer.from(subject);
      if (subjectFault(name, 0, name.length) !== null) continue;
      expect(found.matches(name) === expression.test(subject), 'an expression says otherwise', () => [text, subject]);
    }
    return true;
  },
};

export const TEXT_TARGETS: readonly FuzzTarget[] = [config, quotas, slices, resolver, endpoint, pattern];
