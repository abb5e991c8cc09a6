/** Lists in the file, hints for misspelt names, and settings that contradict or do nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatEndpoint } from '../../src/config/endpoint.ts';
import { ConfigError, loadConfig } from '../../src/config/load.ts';

const POSTGRES = ['--store=postgres', '--postgres-url=postgres://db/x'];

function load(yaml: string, argv: readonly string[] = []) {
  return loadConfig({
    argv: ['--config=b.yaml', ...argv],
    environment: {},
    machine: { cores: 4 },
    readFile: () => yaml,
  });
}

function problemsOf(yaml: string, argv: readonly string[] = []): readonly string[] {
  try {
    load(yaml, argv);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return assert.fail('the configuration was taken');
}

for (const list of ['[a:1, "b:2"]', '"a:1, b:2"', 'a:1,b:2', '\n    - a:1\n    - b:2']) {
  test(`gossip.join: ${JSON.stringify(list)} is a list of two`, () => {
    const { config, rows } = load(`gossip:\n  join: ${list}\n`, POSTGRES);
    assert.deepEqual(config.gossip.join?.map(formatEndpoint), ['a:1', 'b:2']);
    assert.equal(rows.find(({ key }) => key === 'gossip.join')?.value, 'a:1,b:2');
  });
}

test('every key that takes several values takes a list', () => {
  const yaml = [
    'join: [a:1, "[::1]:2"]',
    'discovery: { kind: dns, dns_name: brokers, dns_servers: [10.0.0.53, 10.0.0.54] }',
    'cassandra: { contact_points: [c1, "c2:9043"] }',
  ].join('\n');
  const { config } = load(yaml, POSTGRES);
  assert.equal(config.join?.length, 2);
  assert.equal(config.discovery.dnsServers?.length, 2);
  assert.equal(config.cassandra.contactPoints, 'c1,c2:9043');
});

for (const yaml of [
  'join: []',
  'join: [a]',
  'join: [a:1, [b:2]]',
  'join: ["a:1,b:2", c:3]',
  'join: [{ a: 1 }]',
  'join: [~]',
  'data_dir: [a]',
  'shards: [1]',
  'cassandra: { keyspace: [a] }',
]) {
  test(`${yaml} is refused with the rule of its key`, () => {
    const problems = problemsOf(yaml);
    assert.equal(problems.length, 1);
    assert.match(problems[0] as string, /: must be |\): must be /);
  });
}

for (const [yaml, hint] of [
  ['gossip: { joinn: a }', 'gossip.joinn: did you mean gossip.join?'],
  ['gossip: { key_fiel: a }', 'gossip.key_fiel: did you mean gossip.key_file?'],
  ['postgres:\n  ur: x', 'postgres.ur: did you mean postgres.url?'],
  ['gosip: { join: a }', 'gosip: did you mean gossip?'],
  ['limits: { body: 1 }', 'limits.body: did you mean limits.body_bytes?'],
] as const) {
  test(`an unknown key gets a hint: ${JSON.stringify(yaml)}`, () => {
    const problems = problemsOf(yaml);
    assert.equal(problems.length, 1);
    assert.ok((problems[0] as string).endsWith(`unknown key ${hint}`), problems[0]);
  });
}

for (const [argv, hint] of [
  [['--gossip-key-fil', 'x'], '--gossip-key-file'],
  [['--postgres-rul-file', 'x'], '--postgres-url-file'],
] as const) {
  test(`${argv[0]} gets a hint`, () => {
    assert.match(problemsOf('', argv).join(), new RegExp(`did you mean ${hint}\\?$`));
  });
}

for (const [argv, against] of [
  [['--gossip-join=10.0.0.1'], 'gossip.join is set'],
  [['--discovery=dns', '--dns-name=brokers'], 'discovery is dns'],
  [['--bootstrap-expect=3'], 'bootstrap_expect is 3'],
] as const) {
  test(`--gossip false beside ${argv[0]} is refused: it would gossip all the same`, () => {
    const problems = problemsOf('', [...POSTGRES, '--gossip=false', ...argv]);
    assert.equal(problems.length, 1);
    assert.match(problems[0] as string, /^gossip\.enabled "false" \(--gossip\): gossip must not be false with /);
    assert.ok((problems[0] as string).endsWith(`, and ${against}`));
    assert.equal(load('', [...POSTGRES, ...argv]).config.gossip.enabled, false, 'left out, it is no contradiction');
  });
}

const KEY = 'MDEyMzQ1Njc4OWFiY2RlZg==';

for (const [yaml, warning] of [
  ['dns_name: brokers', 'discovery.dns_name (b.yaml:1): has no effect without discovery dns'],
  ['dns_servers: [10.0.0.53]', 'discovery.dns_servers (b.yaml:1): has no effect without discovery dns'],
  ['kubernetes_service: b', 'discovery.kubernetes_service (b.yaml:1): has no effect without discovery kubernetes'],
  [
    `gossip: { key: ${KEY} }`,
    'gossip.key (b.yaml:1): has no effect without gossip, gossip.join, discovery or bootstrap_expect',
  ],
] as const) {
  test(`what does nothing is taken with a warning: ${yaml}`, () => {
    assert.ok(load(yaml).warnings.includes(warning));
    const used = yaml.startsWith('kubernetes')
      ? ['--discovery=kubernetes']
      : ['--discovery=dns', ...(yaml.startsWith('dns_name') ? [] : ['--dns-name=b'])];
    assert.ok(!load(yaml, [...POSTGRES, ...used]).warnings.includes(warning), 'used, it is none');
  });
}
