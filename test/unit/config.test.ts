import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { hostNames } from '../../src/config/console-rules.ts';
import { configurationJsonSchema, configurationMarkdown } from '../../src/config/document.ts';
import { failpointSpec, isForeignVariable } from '../../src/config/environment.ts';
import { ConfigError, type ConfigInput, defaultConfig, loadConfig } from '../../src/config/load.ts';
import { editDistance, flagOf, nearest, variableOf } from '../../src/config/names.ts';
import { RULES } from '../../src/config/rules.ts';
import { allKeys } from '../../src/config/schema.ts';
import { fileNameOf } from '../../src/config/sources.ts';
import { ROOT } from '../support/source-tree.ts';

const MACHINE = { cores: 8 };

function load(input: Partial<ConfigInput> & { yaml?: string } = {}) {
  const { yaml, ...rest } = input;
  const file = yaml === undefined ? [] : ['--config', 'broker.yaml'];
  return loadConfig({
    environment: {},
    machine: MACHINE,
    readFile: () => yaml ?? assert.fail('no file may be read'),
    ...rest,
    argv: [...file, ...(input.argv ?? [])],
  });
}

function problemsOf(input: Parameters<typeof load>[0]): readonly string[] {
  try {
    load(input);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return assert.fail('the configuration was taken');
}

test('defaults need nothing and are numbers of ms and bytes', () => {
  const { config } = load();
  assert.equal(config.dataDir, './data');
  assert.equal(config.nodeId, null);
  assert.equal(config.shards.count, 7);
  assert.deepEqual(config.grpc.listen, { host: '127.0.0.1', port: 8081 });
  assert.equal(config.limits.bodyBytes, 1_048_576);
  assert.equal(config.batch.lingerMs, 1);
  assert.equal(config.retention.maxAgeMs, 0);
  assert.equal(config.acceptClock, false);
});

for (const [cores, shards] of [
  [1, 1],
  [2, 1],
  [4, 3],
  [256, 64],
] as const) {
  test(`${cores} cores make ${shards} shards`, () => {
    assert.equal(load({ machine: { cores } }).config.shards.count, shards);
  });
}

test('the configuration is frozen to the last level', () => {
  const { config } = load({ argv: ['--insecure', '--grpc-listen', '0.0.0.0:9'] });
  for (const value of [config, config.limits, config.grpc, config.grpc.listen, config.admin.listen]) {
    assert.ok(Object.isFrozen(value));
  }
});

test('flag beats variable beats file beats default, and each says where it comes from', () => {
  const yaml = 'shards: 2\nbatch:\n  linger: 2ms\n  bytes: 8KiB\ngroups: { in_flight: 3 }\n';
  const environment = { BROKER_SHARDS: '3', BROKER_BATCH_LINGER: '3ms' };
  const { config, rows } = load({ yaml, environment, argv: ['--shards', '4'] });
  assert.equal(config.shards.count, 4);
  assert.equal(config.batch.lingerMs, 3);
  assert.equal(config.batch.bytes, 8192);
  const origin = (key: string) => rows.find((row) => row.key === key)?.origin;
  assert.deepEqual(origin('shards.count'), { source: 'flag', place: '--shards' });
  assert.deepEqual(origin('batch.linger'), { source: 'env', place: 'BROKER_BATCH_LINGER' });
  assert.deepEqual(origin('batch.bytes'), { source: 'file', place: 'broker.yaml:4' });
  assert.deepEqual(origin('groups.in_flight'), { source: 'file', place: 'broker.yaml:5' });
  assert.deepEqual(origin('ring.bytes'), { source: 'default', place: '' });
});

test('the file may be named by BROKER_CONFIG, and --config is stronger', () => {
  const read: string[] = [];
  const readFile = (path: string): string => {
    read.push(path);
    return '';
  };
  load({ environment: { BROKER_CONFIG: 'a.yaml' }, readFile });
  load({ environment: { BROKER_CONFIG: 'a.yaml' }, argv: ['--config=b.yaml'], readFile });
  assert.deepEqual(read, ['a.yaml', 'b.yaml']);
});

test('every key can be set as flag, variable and in the file, with the value that its default is written as', () => {
  for (const key of allKeys()) {
    if (key.field.default === null) continue;
    const given = typeof key.field.default === 'function' ? '8' : key.field.format(key.field.default);
    const yaml = key.key.includes('.') ? `${key.key.replace('.', ': {')}: "${given}"}` : `${key.key}: "${given}"`;
    const expected = load({ argv: [flagOf(key.name), given] });
    assert.deepEqual(load({ argv: [`${flagOf(key.name)}=${given}`] }).config, expected.config, key.key);
    assert.deepEqual(load({ environment: { [variableOf(key.name)]: given } }).config, expected.config, key.key);
    assert.deepEqual(load({ yaml }).config, expected.config, key.key);
  }
});

test('no variable of a key is one that Kubernetes makes for services', () => {
  const made = allKeys().map((key) => variableOf(key.name));
  assert.deepEqual(
    made.filter((variable) => isForeignVariable(variable)),
    [],
  );
});

test('no two keys share a flag or a variable', () => {
  const all = allKeys().flatMap(({ name, field }) => (field.isSecret === true ? [name, fileNameOf(name)] : [name]));
  const names = all.flatMap((name) => [flagOf(name), variableOf(name)]);
  assert.equal(new Set(names).size, names.length);
});

test('a key with a short name is the same in both spellings in the file', () => {
  assert.equal(load({ yaml: 'shards: 5' }).config.shards.count, 5);
  assert.equal(load({ yaml: 'shards: { count: 5 }' }).config.shards.count, 5);
  assert.equal(load({ yaml: 'store: embedded' }).config.store.kind, 'embedded');
});

test('a true-or-false flag needs no value', () => {
  assert.equal(load({ argv: ['--accept-clock'] }).config.acceptClock, true);
  assert.equal(load({ argv: ['--accept-clock', '--shards', '2'] }).config.acceptClock, true);
  assert.equal(load({ argv: ['--accept-clock', 'false'] }).config.acceptClock, false);
  assert.equal(load({ argv: ['--accept-clock=false'] }).config.acceptClock, false);
});

const REFUSED: readonly [string, Parameters<typeof load>[0], RegExp][] = [
  ['unknown flag', { argv: ['--shrads', '2'] }, /^unknown flag --shrads: did you mean --shards\?$/],
  [
    'key of the file as a flag',
    { argv: ['--batch_linger=2ms'] },
    /^unknown flag --batch_linger: did you mean --batch-linger\?$/,
  ],
  [
    'flag without a name near it',
    { argv: ['--frobnicate'] },
    /^unknown flag --frobnicate: `broker config print` lists all keys$/,
  ],
  ['flag without value', { argv: ['--data-dir'] }, /^--data-dir needs a value$/],
  ['flag followed by a flag', { argv: ['--data-dir', '--accept-clock'] }, /^--data-dir needs a value$/],
  ['flag twice', { argv: ['--shards', '2', '--shards=3'] }, /^--shards "3": given twice$/],
  ['stray argument', { argv: ['here'] }, /^unexpected argument "here"/],
  [
    'unknown variable',
    { environment: { BROKER_DATADIR: 'x' } },
    /^unknown variable BROKER_DATADIR: did you mean BROKER_DATA_DIR\?$/,
  ],
  [
    'variable with the long name of a key that has a short one',
    { environment: { BROKER_SHARDS_COUNT: '3' } },
    /^unknown variable BROKER_SHARDS_COUNT: did you mean BROKER_SHARDS\?$/,
  ],
  [
    'flag with nearly the long name of a key that has a short one',
    { argv: ['--shard-count', '3'] },
    /^unknown flag --shard-count: did you mean --shards\?$/,
  ],
  [
    'duration without unit that would be too short in ms',
    { argv: ['--retention-max-age', '5'] },
    /^retention\.max_age "5" .*; did you mean 5s or 5m\?$/,
  ],
  [
    'failpoints that cannot be read',
    { environment: { BROKER_FAILPOINTS: 'a=eio,garbage' } },
    /^BROKER_FAILPOINTS "a=eio,garbage": must be site=action\[@N\], and more such behind commas$/,
  ],
  [
    'unknown key in the file',
    { yaml: 'limits:\n  body: 3' },
    /^broker\.yaml:2: unknown key limits\.body: did you mean limits\.body_bytes\?$/,
  ],
  [
    'unknown section in the file',
    { yaml: 'a: 1\n'.replace('a', 'limit') },
    /^broker\.yaml:1: unknown key limit: did you mean limits\?$/,
  ],
  ['value where a section belongs', { yaml: 'limits: 3' }, /^broker\.yaml:1: limits is a group of keys/],
  ['list where a value belongs', { yaml: 'data_dir: [a]' }, /^broker\.yaml:1: data_dir: must be the path of a folder$/],
  ['nothing where a value belongs', { yaml: 'data_dir:' }, /^broker\.yaml:1: data_dir: must be the path of a folder$/],
  ['key twice in the file', { yaml: 'shards: 1\nshards: 2' }, /^broker\.yaml:2: not valid YAML: .*unique/],
  [
    'both spellings in the file',
    { yaml: 'shards: 1\nshards.count: 2' },
    /^broker\.yaml:2: shards\.count 2: already set at broker\.yaml:1$/,
  ],
  ['file that is not YAML', { yaml: 'a: [' }, /^broker\.yaml:1: not valid YAML: /],
  ['file that is no mapping', { yaml: '- a' }, /^broker\.yaml: must be a mapping/],
  [
    'duration without unit',
    { argv: ['--batch-linger', '5'] },
    /^batch\.linger "5" \(--batch-linger\): must be a duration from .*; did you mean 5ms\?$/,
  ],
  ['duration with a word', { argv: ['--raft-heartbeat', '5 sec'] }, /did you mean 5s\?$/],
  ['decimal unit', { argv: ['--limits-body-bytes', '1MB'] }, /^limits\.body_bytes "1MB" .*did you mean 1MiB\?$/],
  [
    'duration out of range',
    { argv: ['--batch-linger', '2s'] },
    /^batch\.linger "2s" \(--batch-linger\): must be a duration from 1ms to 1s/,
  ],
  ['fraction of a millisecond', { argv: ['--batch-linger', '1.5ms'] }, /^batch\.linger "1\.5ms"/],
  [
    'number too small',
    { argv: ['--shards', '0'] },
    /^shards\.count "0" \(--shards\): must be a whole number from 1 to 64$/,
  ],
  [
    'number too large',
    { yaml: 'shards: 65' },
    /^shards\.count 65 \(broker\.yaml:1\): must be a whole number from 1 to 64$/,
  ],
  [
    'a log that a start could not hold in memory',
    { argv: ['--raft-snapshot-bytes', '2GiB'] },
    /^raft\.snapshot_bytes "2GiB" \(--raft-snapshot-bytes\): must be .* to 1GiB/,
  ],
  [
    'no snapshots',
    { argv: ['--raft-snapshot-entries', '0'] },
    /^raft\.snapshot_entries "0" \(--raft-snapshot-entries\): must be a whole number from 100 to/,
  ],
  ['fraction', { yaml: 'shards: 1.5' }, /must be a whole number/],
  ['number with separators', { argv: ['--subjects-max', '1,000'] }, /did you mean 1000\?$/],
  ['not a power of two', { argv: ['--ring-bytes', '5MiB'] }, /^ring\.bytes "5MiB" .*power of two/],
  [
    'other store',
    { argv: ['--store', 'postgress'] },
    /^store\.kind "postgress" \(--store\): must be one of embedded, postgres, cassandra; did you mean postgres\?$/,
  ],
  ['misspelt choice', { argv: ['--log-level', 'wran'] }, /did you mean warn\?$/],
  ['port alone', { argv: ['--grpc-listen', '8081'] }, /did you mean 127\.0\.0\.1:8081\?$/],
  ['bare IPv6', { argv: ['--grpc-listen', '::1:8081'] }, /^grpc\.listen "::1:8081" .*must be HOST:PORT/],
  ['truth as a word', { argv: ['--accept-clock=yes'] }, /must be true or false; did you mean true\?$/],
  ['empty path', { yaml: 'data_dir: ""' }, /must be the path of a folder/],
  ['long value', { argv: ['--node-id', 'x'.repeat(500)] }, /^node_id "x{79}… /],
  ['value with a line break', { argv: ['--node-id', 'a\nb'] }, /^node_id "a\\nb" /],
];

for (const [name, input, expected] of REFUSED) {
  test(`refused with one line that names key, value and rule: ${name}`, () => {
    const problems = problemsOf(input);
    assert.equal(problems.length, 1, problems.join('\n'));
    assert.match(problems[0] as string, expected);
    assert.doesNotMatch(problems[0] as string, /\n/);
  });
}

test('every problem is told at once', () => {
  const problems = problemsOf({ yaml: 'shrads: 1', environment: { BROKER_X: '1' }, argv: ['--nope', '--shards', 'x'] });
  assert.equal(problems.length, 4);
});

test('a weaker setting is checked too, although a stronger one replaces it', () => {
  assert.equal(problemsOf({ yaml: 'shards: 0', argv: ['--shards', '2'] }).length, 1);
});

test('a file that cannot be read is named', () => {
  const problems = problemsOf({
    argv: ['--config', '/nowhere'],
    readFile: () => {
      throw new Error('ENOENT');
    },
  });
  assert.deepEqual(problems, ['config file "/nowhere": cannot be read: ENOENT']);
});

for (const variable of [
  'BROKER_SERVICE_HOST',
  'BROKER_SERVICE_PORT_GRPC',
  'BROKER_PORT',
  'BROKER_PORT_8081_TCP_ADDR',
  'BROKER_HEADLESS_PORT_8081_TCP',
  'BROKER_ADDRESS',
  'BROKER_TLS',
  'BROKER_TLS_NAME',
  'BROKER_TEST_DIR',
  'PATH',
]) {
  test(`${variable} is no setting and no mistake`, () => {
    assert.deepEqual(load({ environment: { [variable]: 'x' } }).config, load().config);
  });
}

test('an empty variable counts as not set', () => {
  assert.equal(
    load({ environment: { BROKER_SHARDS: '', BROKER_NONSENSE: '', BROKER_CONFIG: '' } }).config.shards.count,
    7,
  );
});

const CASSANDRA = [
  '--store=cassandra',
  '--cassandra-contact-points=10.0.0.1,[fd00::1]:9043,db.example:9042',
  '--cassandra-datacenter=dc1',
] as const;

test('store cassandra is taken with its hosts and data centre, and with a weak consistency only if told so', () => {
  assert.equal(load({ argv: CASSANDRA }).config.cassandra.consistency, 'LOCAL_QUORUM');
  const weak = [...CASSANDRA, '--cassandra-consistency=ONE', '--store-accept-weak-durability'];
  assert.equal(load({ argv: weak }).config.cassandra.consistency, 'ONE');
});

for (const replication of ['3', "{'class': 'NetworkTopologyStrategy', 'dc1': 3, 'dc2': '3/1'}"]) {
  test(`replication ${replication} is taken`, () => {
    assert.equal(load({ argv: ['--cassandra-replication', replication] }).config.cassandra.replication, replication);
  });
}

for (const [flag, value] of [
  ['replication', '0'],
  ['replication', "{'class': 'SimpleStrategy'} AND durable_writes = false"],
  ['replication', "{'class': 'SimpleStrategy', 'x': ''}}; DROP KEYSPACE system; --'}"],
  ['contact-points', 'a,,b'],
  ['contact-points', '::1'],
  ['contact-points', 'host:port'],
  ['keyspace', 'Upper'],
] as const) {
  test(`--cassandra-${flag} ${value} is refused`, () => {
    assert.match(problemsOf({ argv: [`--cassandra-${flag}`, value] }).join(), /^cassandra\./);
  });
}

const POSTGRES = ['--store=postgres', '--postgres-url=postgres://db/x'] as const;

test('a node of a cluster is told where it listens, where others reach it, and whom it joins', () => {
  const { config } = load({
    argv: [
      ...POSTGRES,
      '--bootstrap',
      '--join=10.0.0.1:8081, [fd00::1]:9',
      '--insecure',
      '--grpc-listen=0.0.0.0:0',
      '--grpc-advertise=10.0.0.3:8081',
      '--raft-listen=[::]:12000',
      '--raft-advertise=node3.example:12000',
    ],
  });
  assert.equal(config.bootstrap, true);
  assert.deepEqual(config.join, [
    { host: '10.0.0.1', port: 8081 },
    { host: 'fd00::1', port: 9 },
  ]);
  assert.deepEqual(config.grpc.advertise, { host: '10.0.0.3', port: 8081 });
  assert.deepEqual(config.raft.advertise, { host: 'node3.example', port: 12_000 });
  assert.equal(load().config.join, null);
  assert.equal(load().config.grpc.advertise, null);
  assert.equal(load().config.raft.voters, 3);
});

test('a node without peers may listen on every interface, and on ports that the system chooses', () => {
  assert.equal(
    load({ argv: ['--insecure', '--grpc-listen=0.0.0.0:0', '--raft-listen=0.0.0.0:0'] }).config.bootstrap,
    false,
  );
});

for (const [flag, value] of [
  ['--grpc-advertise', '0.0.0.0:8081'],
  ['--raft-advertise', '[::]:12000'],
  ['--raft-advertise', '10.0.0.1:0'],
  ['--join', '10.0.0.1'],
  ['--join', '10.0.0.1:8081,,10.0.0.2:8081'],
  ['--join', '0.0.0.0:8081'],
  ['--join', Array.from({ length: 17 }, (_, i) => `10.0.0.${i}:1`).join()],
  ['--raft-voters', '2'],
  ['--raft-voters', '9'],
] as const) {
  test(`${flag} ${value} is refused`, () => {
    assert.equal(problemsOf({ argv: [...POSTGRES, `${flag}=${value}`] }).length, 1);
  });
}

const BROKEN_RULES: readonly (readonly string[])[] = [
  ['--limits-body-bytes=1MiB', '--limits-message-bytes=1MiB', '--limits-in-flight-bytes=2MiB'],
  ['--limits-headers-bytes=1MiB', '--limits-message-bytes=2MiB'],
  ['--limits-in-flight-bytes=2MiB'],
  ['--ring-bytes=2MiB', '--batch-bytes=4KiB'],
  ['--ring-bytes=64KiB', '--limits-body-bytes=16KiB', '--batch-bytes=4KiB'],
  ['--batch-bytes=2MiB'],
  ['--publish-window-max=32KiB'],
  ['--shards=9', '--shards-max=8'],
  ['--segment-bytes=1MiB', '--batch-bytes=2MiB', '--ring-bytes=8MiB'],
  ['--raft-heartbeat=250ms'],
  ['--overload-target=2s'],
  ['--admin-listen=127.0.0.1:8081'],
  ['--console-write', '--insecure', '--admin-listen=0.0.0.0:8000'],
  ['--console-write', '--console-enabled=false'],
  ['--bootstrap'],
  ['--bootstrap-expect=3'],
  ['--join=10.0.0.1:8081'],
  ['--gossip-join=10.0.0.1'],
  ['--discovery=dns', '--dns-name=brokers'],
  [...POSTGRES, '--bootstrap', '--bootstrap-expect=3'],
  [...POSTGRES, '--gossip=false', '--gossip-join=10.0.0.1'],
  [...POSTGRES, '--bootstrap', '--insecure', '--grpc-listen=0.0.0.0:8081'],
  [...POSTGRES, '--gossip-join=10.0.0.1', '--raft-listen=127.0.0.1:0'],
  ['--gossip', '--insecure', '--gossip-listen=[::]:7946'],
  [...POSTGRES, '--bootstrap', '--raft-listen=127.0.0.1:8081'],
  [...POSTGRES, '--discovery=dns', '--dns-name=brokers', '--raft-listen=127.0.0.1:8000'],
  ['--gossip', '--gossip-listen=127.0.0.1:12000'],
  ['--gossip', '--gossip-listen=127.0.0.1:8081'],
  [...POSTGRES, '--bootstrap-expect=3', '--gossip-listen=127.0.0.1:8000'],
  [...POSTGRES, '--discovery=dns'],
  [...POSTGRES, '--discovery=kubernetes'],
  ['--store=postgres'],
  ['--postgres-tls=verify', '--postgres-url=postgres://localhost/x?sslmode=disable'],
  ['--store=cassandra', '--cassandra-datacenter=dc1'],
  ['--store=cassandra', '--cassandra-contact-points=localhost'],
  [...CASSANDRA, '--cassandra-password=s3cret'],
  [...CASSANDRA, '--cassandra-consistency=ONE'],
  [...CASSANDRA, '--limits-body-bytes=9MiB', '--limits-message-bytes=16MiB', '--ring-bytes=64MiB'],
  [...CASSANDRA, '--batch-bytes=8MiB', '--ring-bytes=32MiB'],
  ['--tls-cert=node.pem'],
  ['--tls-ca=ca.pem'],
  [...POSTGRES, '--bootstrap', '--tls-cert=node.pem', '--tls-key=node.key'],
  ['--tls-cert=node.pem', '--tls-key=node.key', '--tls-client-certs=required'],
  ['--tls-peers=required'],
  [...POSTGRES, '--bootstrap', '--tls-cert=c', '--tls-key=k', '--tls-ca=a', '--tls-client-certs=off'],
  ['--admin-tls'],
  ['--grpc-listen=0.0.0.0:8081'],
  ['--postgres-tls-ca=ca.pem'],
  ['--postgres-tls=verify', '--postgres-tls-cert=cert.pem'],
  ['--cassandra-tls-name=db'],
  ['--cassandra-tls=verify', '--cassandra-tls-key=key.pem'],
];

test('passwords are never printed', () => {
  const login = ['--cassandra-username=me', '--cassandra-password=s3cret'];
  const argv = ['--postgres-url=postgres://me:s3cret@db:5432/x?password=s3cret', ...login];
  const printed = JSON.stringify(load({ argv }).rows);
  assert.doesNotMatch(printed, /s3cret/);
  assert.match(printed, /postgres:\/\/me:\*+@db:5432\/x/);
});

for (const [index, rule] of RULES.entries()) {
  test(`refused: ${rule.text} is broken`, () => {
    const problems = problemsOf({ argv: BROKEN_RULES[index] as string[] });
    assert.ok(
      problems.some((problem) => problem.startsWith(`${rule.key} `) && problem.includes(rule.text)),
      problems.join('\n'),
    );
  });
}

test('the console writes on loopback only, however it is written, and is called by the names that the node was given', () => {
  for (const host of ['127.0.0.1', '127.8.9.10', '[::1]', 'localhost', 'LOCALHOST']) {
    assert.equal(load({ argv: ['--console-write', `--admin-listen=${host}:8000`] }).config.console.write, true, host);
  }
  for (const host of [
    '0.0.0.0',
    '[::]',
    '10.0.0.1',
    '128.0.0.1',
    'localhost.example.com',
    '127.0.0.1.example.com',
    'broker',
  ]) {
    assert.equal(
      problemsOf({ argv: ['--console-write', '--insecure', `--admin-listen=${host}:8000`] }).length,
      1,
      host,
    );
  }
  const yaml =
    'insecure: true\nconsole:\n  hosts: [broker.example.com, proxy]\ngrpc:\n  listen: 0.0.0.0:8081\n  advertise: node-1:8081\n';
  assert.deepEqual(hostNames(load({ yaml }).config).sort(), [
    '0.0.0.0',
    '127.0.0.1',
    'broker.example.com',
    'node-1',
    'proxy',
  ]);
});

test('two listeners may both ask for any free port', () => {
  assert.equal(defaultConfig(['--admin-listen=127.0.0.1:0', '--grpc-listen=127.0.0.1:0']).admin.listen.port, 0);
});

test('docs/configuration.md and its JSON schema are what `npm run generate` writes', () => {
  assert.equal(readFileSync(join(ROOT, 'docs/configuration.md'), 'utf8'), configurationMarkdown());
  assert.equal(readFileSync(join(ROOT, 'docs/configuration.schema.json'), 'utf8'), configurationJsonSchema());
});

test('the example in docs/configuration.md, and examples/broker.yaml, can be started with', () => {
  const readSecret = (path: string) =>
    path.endsWith('url') ? 'postgres://broker:secret@db/broker' : 'A'.repeat(43).concat('=');
  const example = /```yaml\n([\s\S]*?)```/.exec(configurationMarkdown())?.[1] ?? assert.fail('no example');
  for (const yaml of [example, readFileSync(join(ROOT, 'examples/broker.yaml'), 'utf8')]) load({ yaml, readSecret });
});

test('every key is documented in whole sentences', () => {
  for (const { key, field } of allKeys()) assert.match(field.doc, /^[A-Z`].*\.$/s, key);
});

test('arbitrary flags, variables and files are taken or refused by name, never a crash', () => {
  const word = fc.oneof(fc.string(), fc.constantFrom(...allKeys().flatMap((key) => [flagOf(key.name), key.key])));
  fc.assert(
    fc.property(fc.array(word, { maxLength: 6 }), fc.dictionary(word, word), word, (argv, variables, yaml) => {
      const environment = Object.fromEntries(
        Object.entries(variables).map(([name, value]) => [`BROKER_${name}`, value]),
      );
      try {
        load({ argv, environment, readFile: () => yaml });
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error));
        for (const problem of error.problems) assert.doesNotMatch(problem, /\n/);
      }
    }),
    { numRuns: 300 },
  );
});

test('edit distance counts insertions, deletions, replacements and swaps', () => {
  for (const [left, right, distance] of [
    ['', 'ab', 2],
    ['shards', 'shards', 0],
    ['shrads', 'shards', 1],
    ['shard', 'shards', 1],
    ['kitten', 'sitting', 3],
  ] as const) {
    assert.equal(editDistance(left, right), distance);
    assert.equal(editDistance(right, left), distance);
  }
  assert.equal(nearest('zzzzzz', ['shards']), null);
});

test('the failpoints of a process come from BROKER_FAILPOINTS', () => {
  assert.deepEqual(load({ environment: { BROKER_FAILPOINTS: 'a=kill@2' } }).config, load().config);
  assert.equal(failpointSpec({ BROKER_FAILPOINTS: 'a=kill@2' }), 'a=kill@2');
  assert.equal(failpointSpec({}), '');
});
