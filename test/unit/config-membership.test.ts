import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, defaultConfig, loadConfig } from '../../src/config/load.ts';
import { hasGossip, hasPeers } from '../../src/config/membership-rules.ts';

const POSTGRES = ['--store=postgres', '--postgres-url=postgres://db/x'] as const;

function problemsOf(argv: readonly string[], environment: Record<string, string> = {}): readonly string[] {
  try {
    loadConfig({ argv, environment });
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return assert.fail('the configuration was taken');
}

test('by default a node neither gossips nor looks for others', () => {
  const config = defaultConfig();
  assert.deepEqual(config.gossip, {
    enabled: false,
    listen: { host: '127.0.0.1', port: 7946 },
    advertise: null,
    join: null,
    key: null,
    label: null,
    profile: 'lan',
  });
  assert.deepEqual(config.discovery, {
    kind: 'none',
    dnsName: null,
    dnsServers: null,
    intervalMs: 5_000,
    kubernetesService: null,
    kubernetesNamespace: null,
    kubernetesPortName: 'gossip',
    kubernetesConfig: null,
  });
  assert.equal(config.bootstrapExpect, 0);
  assert.equal(hasGossip(config), false);
  assert.equal(hasPeers(config), false);
});

test('seeds of gossip need no port: 7946 is what Serf listens on', () => {
  assert.deepEqual(
    defaultConfig([...POSTGRES, '--gossip-join=a.example, 10.0.0.2:9,[fd00::1],[fd00::2]:8']).gossip.join,
    [
      { host: 'a.example', port: 7946 },
      { host: '10.0.0.2', port: 9 },
      { host: 'fd00::1', port: 7946 },
      { host: 'fd00::2', port: 8 },
    ],
  );
});

const NAMES: readonly [string, string, number][] = [
  ['brokers.mq.svc.cluster.local', 'brokers.mq.svc.cluster.local', 7946],
  ['brokers:9000', 'brokers', 9000],
  ['_gossip._tcp.brokers', '_gossip._tcp.brokers', 7946],
];
for (const [given, host, port] of NAMES) {
  test(`--dns-name ${given} is the name ${host} and port ${port}`, () => {
    const { discovery } = defaultConfig([...POSTGRES, '--discovery=dns', `--dns-name=${given}`]);
    assert.deepEqual(discovery.dnsName, { host, port });
  });
}

const KEYS: readonly [string, boolean][] = [
  ['MDEyMzQ1Njc4OWFiY2RlZg==', true],
  ['MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3', true],
  ['MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=', true],
  // 16 bytes with bits left over, 15 bytes, 17 bytes, no padding, the alphabet of URLs, two lines.
  ['MDEyMzQ1Njc4OWFiY2RlZh==', false],
  ['MDEyMzQ1Njc4OWFiY2Rl', false],
  ['MDEyMzQ1Njc4OWFiY2RlZmc=', false],
  ['MDEyMzQ1Njc4OWFiY2RlZg', false],
  ['MDEyMzQ1Njc4-_FiY2RlZg==', false],
  ['MDEyMzQ1Njc4OWFiY2RlZg==\n', false],
];
for (const [key, isTaken] of KEYS) {
  test(`[G6] a gossip key of ${JSON.stringify(key)} is ${isTaken ? 'taken' : 'refused'}, and printed in neither case`, () => {
    if (isTaken) {
      const { config, rows } = loadConfig({ argv: ['--gossip', '--gossip-key', key], environment: {} });
      assert.equal(config.gossip.key, key);
      assert.ok([16, 24, 32].includes(Buffer.from(key, 'base64').length));
      assert.doesNotMatch(JSON.stringify(rows), /MDEy/);
      return;
    }
    const problems = problemsOf([], { BROKER_GOSSIP_KEY: key });
    assert.equal(problems.length, 1);
    assert.match(
      problems[0] as string,
      /^gossip\.key "\*+" \(BROKER_GOSSIP_KEY\): must be base64 of 16, 24 or 32 bytes/,
    );
  });
}

test('a secret that is given twice is not printed', () => {
  const problems = problemsOf(['--gossip-key=first', '--gossip-key=second', '--postgres-url=mysql://me:third@db/x']);
  assert.equal(problems.length, 3);
  assert.doesNotMatch(problems.join(), /first|second|third/);
});

for (const flag of [
  '--gossip-join=0.0.0.0',
  '--gossip-join=7946',
  '--gossip-join=::1',
  '--gossip-join=a:0',
  '--gossip-join=a,,b',
  `--gossip-join=${Array.from({ length: 17 }, (_, index) => `10.0.0.${index}`).join()}`,
  '--gossip-advertise=[::]:7946',
  '--gossip-advertise=10.0.0.1',
  `--gossip-label=${'x'.repeat(256)}`,
  '--gossip-label=a\tb',
  '--gossip-profile=far',
  '--dns-name=10.0.0.1',
  '--dns-name=[::1]:7946',
  '--dns-name=a b',
  '--dns-servers=dns.example',
  '--discovery-interval=1ms',
  '--discovery=consul',
  '--kubernetes-service=Brokers',
  '--kubernetes-namespace=a/b',
  '--kubernetes-port-name=',
  '--bootstrap-expect=10',
  '--bootstrap-expect=-1',
]) {
  test(`${flag.slice(0, 60)} is refused by name`, () => {
    const problems = problemsOf([...POSTGRES, flag]);
    assert.equal(problems.length, 1, problems.join('\n'));
  });
}

const WAYS: readonly [readonly string[], { readonly gossip: boolean; readonly peers: boolean }][] = [
  [['--gossip'], { gossip: true, peers: false }],
  [['--bootstrap'], { gossip: false, peers: true }],
  [['--join=a:1'], { gossip: false, peers: true }],
  [['--gossip-join=a'], { gossip: true, peers: true }],
  [['--bootstrap-expect=3'], { gossip: true, peers: true }],
  [['--discovery=dns', '--dns-name=a'], { gossip: true, peers: true }],
  [['--discovery=kubernetes', '--kubernetes-service=a'], { gossip: true, peers: true }],
];
for (const [flags, { gossip, peers }] of WAYS) {
  test(`${flags[0]} ${gossip ? 'turns gossip on' : 'needs no gossip'}, and ${peers ? 'means peers' : 'is no peer yet'}`, () => {
    const config = defaultConfig([...POSTGRES, ...flags]);
    assert.equal(hasGossip(config), gossip);
    assert.equal(hasPeers(config), peers);
  });
}

for (const [flags, { peers }] of WAYS) {
  test(`${flags[0]} with a certificate and no authority ${peers ? 'is refused, unless nodes are told to speak clear text' : 'is taken'}`, () => {
    const argv = [...POSTGRES, ...flags, '--tls-cert=c', '--tls-key=k'];
    defaultConfig([...argv, '--tls-ca=a']);
    defaultConfig([...argv, '--tls-peers=off']);
    if (!peers) return void defaultConfig(argv);
    const [problem = '', ...others] = problemsOf(argv);
    assert.deepEqual(others, []);
    assert.match(
      problem,
      /^tls\.ca .*needed with tls\.cert and bootstrap.*calls between nodes would time out.*set it on all/,
    );
    // Of one mistake one line tells.
    assert.equal(problemsOf([...argv, '--tls-peers=required']).length, 1);
  });
}

test('a lone node with its own files may be seen by gossip, on a port that the system chooses', () => {
  const config = defaultConfig(['--gossip', '--gossip-listen=127.0.0.1:0']);
  assert.equal(config.store.kind, 'embedded');
  assert.equal(hasGossip(config), true);
});

test('gossip on every interface is told where others reach it', () => {
  const config = defaultConfig([
    '--insecure',
    '--gossip',
    '--gossip-listen=0.0.0.0:7946',
    '--gossip-advertise=10.0.0.1:7946',
  ]);
  assert.deepEqual(config.gossip.advertise, { host: '10.0.0.1', port: 7946 });
});
