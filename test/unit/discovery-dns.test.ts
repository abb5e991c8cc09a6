import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { defaultConfig } from '../../src/config/load.ts';
import { DnsDiscovery, type DnsOptions, jittered } from '../../src/discovery/dns.ts';
import { openDiscovery } from '../../src/discovery/open-discovery.ts';
import { SEEDS_MAX } from '../../src/discovery/types.ts';
import { DnsServer, type Zone } from '../servers/dns.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { Heard } from './discovery-rig.ts';

const NAME = 'brokers.mq.svc';

async function server(t: TestContext, zone: Zone = {}): Promise<DnsServer> {
  const started = await DnsServer.start();
  started.zone = zone;
  t.after(() => started.close());
  return started;
}

function discover(t: TestContext, server: Pick<DnsServer, 'address'>, options: Partial<DnsOptions> = {}): Heard {
  const heard = new Heard();
  const discovery = new DnsDiscovery(
    {
      name: { host: NAME, port: 7946 },
      intervalMs: 10,
      servers: [server.address],
      resolvConf: null,
      random: () => 0.5,
      questionTimeoutMs: 100,
      graceMs: 10,
      ...options,
    },
    heard,
  );
  discovery.start();
  t.after(() => discovery.stop());
  return heard;
}

test('IPv4 and IPv6 addresses of a name get its port', async (t) => {
  const dns = await server(t, { hosts: { [NAME]: ['10.0.0.2', 'fd00::2', '10.0.0.1'] } });
  const heard = discover(t, dns, { name: { host: NAME, port: 9_000 } });
  await heard.hasSeeds('10.0.0.1:9000,10.0.0.2:9000,[fd00::2]:9000');
  assert.deepEqual(heard.problems, []);
});

test('SRV records come first, with ports and targets of their own', async (t) => {
  const dns = await server(t, {
    services: {
      [`_gossip._tcp.${NAME}`]: [
        { host: 'broker-0.brokers', port: 7001 },
        { host: 'broker-1.brokers', port: 7002, priority: 1 },
        { host: 'unknown', port: 7003 },
        { host: '', port: 0 },
        { host: 'broker-0.brokers', port: 0 },
      ],
    },
    hosts: { 'broker-0.brokers': ['10.0.0.1', 'fd00::1'], 'broker-1.brokers': ['10.0.0.2'], [NAME]: ['10.0.0.9'] },
  });
  const heard = discover(t, dns);
  await heard.hasSeeds('10.0.0.1:7001,10.0.0.2:7002,[fd00::1]:7001');
  assert.equal(
    dns.questions.some(({ name, type }) => name === NAME && type !== 'SRV'),
    false,
  );
});

test('a name that begins with "_" is asked for SRV as it is, and for nothing else', async (t) => {
  const name = '_serf._udp.brokers';
  const dns = await server(t, {
    services: { [name]: [{ host: 'a', port: 1 }] },
    hosts: { a: ['10.0.0.1'], [name]: ['10.0.0.9'] },
  });
  const heard = discover(t, dns, { name: { host: name, port: 7946 } });
  await heard.hasSeeds('10.0.0.1:1');
  assert.deepEqual([...new Set(dns.questions.map((question) => `${question.name} ${question.type}`))].toSorted(), [
    `${name} SRV`,
    'a A',
    'a AAAA',
  ]);
});

test('a name that begins with "_" and has no SRV record has no addresses, whatever else it has', async (t) => {
  const name = '_serf._udp.brokers';
  const dns = await server(t, { hosts: { [name]: ['10.0.0.9'] } });
  const heard = discover(t, dns, { name: { host: name, port: 7946 } });
  await heard.hasProblem(/has no addresses$/);
  assert.deepEqual(heard.seeds, []);
});

test('where nobody answers for the first name, the others of the search are not waited for', async (t) => {
  const dns = await server(t);
  dns.fault = 'silent';
  const resolvConf = join(temporaryFolder(t), 'resolv.conf');
  writeFileSync(resolvConf, 'search one.svc two.svc\n');
  const heard = discover(t, dns, { name: { host: 'brokers', port: 7946 }, resolvConf });
  await heard.hasProblem(/no answer \(ETIMEOUT\)$/);
  assert.deepEqual(
    dns.questions.filter(({ name }) => !name.endsWith('brokers.one.svc')),
    [],
  );
});

test('nodes that come and go are seen at the next question', async (t) => {
  const dns = await server(t, { hosts: { [NAME]: ['10.0.0.1'] } });
  const heard = discover(t, dns);
  await heard.hasSeeds('10.0.0.1:7946');
  dns.zone = { hosts: { [NAME]: ['10.0.0.1', '10.0.0.2'] } };
  await heard.hasSeeds('10.0.0.1:7946,10.0.0.2:7946');
  dns.zone = { hosts: { [NAME]: ['10.0.0.2'] } };
  await heard.hasSeeds('10.0.0.2:7946');
  assert.equal(heard.seeds.length, 3);
});

test('an answer that does not fit a datagram is fetched by TCP', async (t) => {
  const all = Array.from({ length: 200 }, (_, index) => `10.0.1.${index}`);
  const dns = await server(t, { hosts: { [NAME]: all } });
  const heard = discover(t, dns);
  await heard.hasSeeds(
    all
      .map((host) => `${host}:7946`)
      .toSorted()
      .join(),
  );
  assert.ok(dns.questions.some(({ protocol }) => protocol === 'tcp'));
});

test(`a name with more than ${SEEDS_MAX} addresses gives that many, and says so`, async (t) => {
  const all = Array.from({ length: SEEDS_MAX + 20 }, (_, index) => `10.1.${index >> 8}.${index & 255}`);
  const dns = await server(t, { hosts: { [NAME]: all } });
  const heard = discover(t, dns);
  await heard.hasProblem(/^discovery dns: more than 1000 addresses: the rest is left out$/);
  assert.equal(heard.last.split(',').length, SEEDS_MAX);
});

for (const [fault, code] of [
  ['silent', 'ETIMEOUT'],
  ['servfail', 'ESERVFAIL'],
  ['refused', 'EREFUSED'],
  ['garbage', '(EBADRESP|ETIMEOUT)'],
] as const) {
  test(`a DNS server that turns ${fault}: the last answer stays, one problem is told, and its end too`, async (t) => {
    const dns = await server(t, { hosts: { [NAME]: ['10.0.0.1'] } });
    const heard = discover(t, dns);
    await heard.hasSeeds('10.0.0.1:7946');
    dns.fault = fault;
    await heard.hasProblem(new RegExp(`^discovery dns: no answer \\(${code}\\)$`));
    const asked = dns.questions.length;
    await until(
      () => dns.questions.length > asked + 10,
      () => dns.questions.length,
    );
    assert.equal(heard.problems.length, 1);
    assert.equal(heard.seeds.length, 1);
    dns.fault = 'none';
    await until(
      () => heard.seeds.length === 2,
      () => heard.seeds,
    );
    assert.equal(heard.last, '10.0.0.1:7946');
  });
}

test('nobody at the address of the server is a problem with its cause', async (t) => {
  const [port = 0] = await freePorts(1);
  const heard = discover(t, { address: { host: '127.0.0.1', port } });
  await heard.hasProblem(/^discovery dns: no answer \((ECONNREFUSED|ETIMEOUT)\)$/);
});

test('the second server is asked where the first says nothing', async (t) => {
  const silent = await server(t);
  silent.fault = 'silent';
  const dns = await server(t, { hosts: { [NAME]: ['10.0.0.1'] } });
  const heard = discover(t, dns, { servers: [silent.address, dns.address] });
  await heard.hasSeeds('10.0.0.1:7946');
  assert.ok(silent.questions.length > 0);
});

for (const type of ['SRV', 'AAAA'] as const) {
  for (const fault of ['silent', 'servfail'] as const) {
    test(`addresses are found although questions for ${type} meet a ${fault} server`, async (t) => {
      const dns = await server(t, { hosts: { [NAME]: ['10.0.0.1'] } });
      dns.faults.set(type, fault);
      const heard = discover(t, dns);
      await heard.hasSeeds('10.0.0.1:7946');
      assert.deepEqual(heard.problems, []);
    });
  }
}

test('a name that has no addresses, or is not there, is a problem after some time', async (t) => {
  const dns = await server(t);
  const heard = discover(t, dns);
  await heard.hasProblem(/^discovery dns: brokers\.mq\.svc has no addresses$/);
  assert.equal(heard.problems.length, 1);
  dns.zone = { hosts: { [NAME]: ['10.0.0.1'] } };
  await heard.hasSeeds('10.0.0.1:7946');
});

test('nothing is asked and nothing is told after a stop, also one in the middle of a question', async (t) => {
  const dns = await server(t);
  dns.fault = 'silent';
  const heard = new Heard();
  const discovery = new DnsDiscovery(
    {
      name: { host: 'stopped', port: 7946 },
      intervalMs: 1,
      servers: [dns.address],
      resolvConf: null,
      random: () => 0,
      questionTimeoutMs: 100,
    },
    heard,
  );
  discovery.start();
  await until(
    () => dns.questions.length > 0,
    () => 'no question',
  );
  discovery.stop();
  const before = dns.questions.length;
  // Another one, asked later, has by then been given up after as many tries.
  await discover(t, dns).hasProblem(/no answer/);
  assert.equal(dns.questions.filter(({ name }) => name.endsWith('stopped')).length, before);
  assert.equal(heard.seeds.length + heard.problems.length, 0);
});

for (const [random, delayMs] of [
  [0, 800],
  [0.5, 1_000],
  [0.999_999, 1_200],
] as const) {
  test(`an interval of 1,000 ms is ${delayMs} ms where chance says ${random}`, () => {
    assert.equal(jittered(1_000, random), delayMs);
  });
}

test('short names are looked up in the search domains, and the one that was found is asked for first from then on', async (t) => {
  const dns = await server(t, { hosts: { [NAME]: ['10.0.0.1'] } });
  const resolvConf = join(temporaryFolder(t), 'resolv.conf');
  writeFileSync(resolvConf, 'search other.svc mq.svc svc\noptions ndots:5\n');
  const heard = discover(t, dns, { name: { host: 'brokers', port: 7946 }, resolvConf });
  await heard.hasSeeds('10.0.0.1:7946');
  const asked = dns.questions.map(({ name }) => name).filter((name) => !name.startsWith('_'));
  assert.deepEqual([...new Set(asked)], ['brokers.other.svc', NAME]);
  const before = dns.questions.length;
  await until(
    () => dns.questions.length > before + 10,
    () => dns.questions.length,
  );
  assert.ok(dns.questions.slice(before + 3).every(({ name }) => name.endsWith(NAME)));
});

test('through the configuration: --dns-servers are asked for --dns-name as it is', async (t) => {
  const dns = await server(t, { hosts: { 'broker.service.consul': ['10.0.0.1'] } });
  const flags = [
    '--discovery=dns',
    '--dns-name=broker.service.consul:8301',
    `--dns-servers=127.0.0.1:${dns.address.port}`,
  ];
  const { discovery: config } = defaultConfig(['--store=postgres', '--postgres-url=postgres://db/x', ...flags]);
  const heard = new Heard();
  const discovery = openDiscovery(config, heard);
  t.after(() => discovery?.stop());
  discovery?.start();
  await heard.hasSeeds('10.0.0.1:8301');
});
