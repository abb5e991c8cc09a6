/**
 * Secrets are planted in every setting that takes one, and then looked for in all that the broker says of itself: to its log, to its clients,
 * on its pages, in what the commands print, in the bundle.
 */
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { Metadata } from '@grpc/grpc-js';
import { run } from '../../src/cli/run.ts';
import { variableOf } from '../../src/config/names.ts';
import { allKeys } from '../../src/config/schema.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { freePorts } from '../support/ports.ts';
import { ROOT } from '../support/source-tree.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { encodePublish } from '../support/wire.ts';
import { Sink } from '../unit/cli-rig.ts';

const server = await PostgresServer.start();
after(() => server.remove());

/** With characters that URLs write in another way. */
const PASSWORD = 'canary/Pg 7f3a?';
const GOSSIP_KEY = Buffer.from('canary-Gossip-9c');
const CASSANDRA = 'canary-Ca"55\\e1';

const TRACING = 'canary-Tr-4d81';

/** What must be found nowhere. Each spelling by itself, so that a failure says which. */
const CANARIES: readonly string[] = [
  PASSWORD,
  encodeURIComponent(PASSWORD),
  JSON.stringify(PASSWORD).slice(1, -1),
  Buffer.from(PASSWORD).toString('base64'),
  GOSSIP_KEY.toString('latin1'),
  GOSSIP_KEY.toString('base64'),
  GOSSIP_KEY.toString('base64').slice(0, -2),
  GOSSIP_KEY.toString('hex'),
  CASSANDRA,
  JSON.stringify(CASSANDRA).slice(1, -1),
  TRACING,
  'canary',
];

function urlOf(change: Partial<Pick<URL, 'username' | 'hostname' | 'port'>> = {}): string {
  const url = Object.assign(new URL(server.url), { username: 'planted', password: encodeURIComponent(PASSWORD) });
  return String(Object.assign(url, change));
}

/** A value for each setting that is a secret. A new one needs a line here. */
const PLANTED: Readonly<Record<string, string>> = {
  'postgres.url': urlOf(),
  'gossip.key': GOSSIP_KEY.toString('base64'),
  'cassandra.password': CASSANDRA,
  'tracing.headers': `authorization=Bearer ${TRACING}`,
};

function planted(change: Readonly<Record<string, string>> = {}): Record<string, string> {
  const secrets = allKeys().filter(({ field }) => field.isSecret === true);
  const values = { ...PLANTED, ...change };
  return Object.fromEntries(
    secrets.map(({ key, name }) => [variableOf(name), values[key] ?? assert.fail(`${key} has no line in PLANTED`)]),
  );
}

/** All that was seen, and from where. */
class Seen {
  readonly #texts = new Map<string, string>();

  add(from: string, text: string): void {
    assert.notEqual(text, '', `nothing was seen of ${from}`);
    this.#texts.set(from, (this.#texts.get(from) ?? '') + text);
  }

  text(from: string): string {
    return this.#texts.get(from) ?? assert.fail(`nothing was seen of ${from}`);
  }

  hasNoCanary(canaries = CANARIES): void {
    for (const [from, text] of this.#texts) {
      for (const canary of canaries) {
        const at = text.indexOf(canary);
        assert.ok(at < 0, `${from} shows "${canary}": …${text.slice(Math.max(0, at - 100), at + 100)}…`);
      }
    }
  }
}

/** Those of the console's API as its source lists them, so that a new one is looked at too. */
const API = [...readFileSync(join(ROOT, 'src/console/api.ts'), 'utf8').matchAll(/\['([a-z]+)', \(sources/g)].map(
  ([, name]) => name,
);
const PAGES: readonly string[] = [
  ...['/metrics', '/healthz', '/readyz', '/', '/nothing', '/config', '/debug', '/api/v1/session'],
  ...API.map((name) => `/api/v1/${name}${/^(subject|messages)$/.test(name ?? '') ? '?subject=c.a' : ''}`),
];

const never = (): never => assert.fail('not in this test');

/** What a command writes to stdout and stderr. */
async function command(argv: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<string> {
  const [stdout, stderr] = [new Sink(), new Sink()];
  const recovery = { recover: never, restore: never, backup: never, verify: never };
  await run(argv, { environment, stdout, stderr, serve: never, copyStore: never, recovery });
  return stdout.text + stderr.text;
}

function page(address: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const call = request(`http://${address}${path}`, { agent: false }, (response) => {
      let text = `${response.statusCode} ${JSON.stringify(response.headers)}\n`;
      response.setEncoding('utf8').on('data', (some: string) => {
        text += some;
      });
      response.on('end', () => resolve(text));
    });
    call.on('error', reject);
    call.end();
  });
}

const messageOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'it was taken',
    (error: unknown) => String(error),
  );

test('[F15] no secret in any log, page, metric, answer, command or bundle of a broker that has one in every setting', async (t) => {
  await server.sql(`CREATE ROLE planted LOGIN SUPERUSER PASSWORD '${PASSWORD}'`);
  const env = planted();
  // Nobody takes the spans there, and what the exporter says of that is in the log.
  const [gossip, collector] = await freePorts(2);
  const flags = [
    ...[
      '--store=postgres',
      '--postgres-schema=t_canaries',
      '--cassandra-username=me',
      '--shards=1',
      '--store-timeout=5s',
    ],
    ...[`--tracing-endpoint=http://127.0.0.1:${collector}`, '--tracing-ratio=1'],
    ...['--gossip', `--gossip-listen=127.0.0.1:${gossip}`, '--log-level=debug', '--log-format=json'],
  ];
  const seen = new Seen();
  await using broker = await BrokerProcess.create({ flags, env, logLinesMax: 10_000 });
  await broker.restart();
  const client = new BrokerClient(broker.address);
  t.after(() => client.close());
  assert.equal(await client.publish({ subject: 'c.a', body: Buffer.from('x') }), 1);
  const at = ['--address', broker.address];

  const look = async (): Promise<void> => {
    for (const path of PAGES) {
      seen.add(`page ${path}`, await page(broker.adminAddress, path));
    }
    for (const argv of [
      ['config', 'show'],
      ['config', 'show', '-o', 'json'],
      ['config', 'set', 'gossip.key', 'AAAAAAAAAAAAAAAAAAAAAA=='],
      ['status', '-o', 'json'],
      ['cluster', 'status'],
      ['cluster', 'keys', 'list'],
      ['shards', 'list'],
      ['quotas', 'list'],
      ['top', '--once', '-o', 'json'],
      ['check', '-o', 'json'],
    ]) {
      seen.add(`broker ${argv.join(' ')}`, await command([...argv, ...at]));
    }
  };
  await look();
  assert.ok(API.length >= 10, 'the API of the console was not found');
  assert.match(seen.text('page /api/v1/settings'), /^200 [\s\S]*planted:\*\*\*@/);
  assert.match(seen.text('broker config show'), /postgres:\/\/planted:\*\*\*@127\.0\.0\.1/);
  const settings = seen
    .text('broker config show -o json')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  for (const key of Object.keys(PLANTED)) assert.match(settings.find((row) => row.key === key).value, /\*\*\*/, key);

  const file = join(temporaryFolder(t), 'bundle.tar.gz');
  const bundle = await command([
    'debug',
    'bundle',
    '-f',
    file,
    '--cpu-profile',
    '500ms',
    '--data-dir',
    broker.dataDir,
    ...at,
  ]);
  seen.add('debug bundle', bundle);
  const archive = gunzipSync(readFileSync(file)).toString('latin1');
  assert.match(archive, /settings\.json[\s\S]*log\.jsonl[\s\S]*metrics\.txt/);
  seen.add('the bundle', archive);

  // A database that is gone, and one that comes back without taking the password any more.
  await server.stop();
  seen.add('a refused publish', await messageOf(client.publish({ subject: 'c.b', body: Buffer.from('x') })));
  seen.add('a refused fetch', await messageOf(client.fetch('c.zz', 1)));
  await until(
    () => broker.logs.includes('ECONNREFUSED'),
    () => broker.logs,
  );
  await look();
  await server.run();
  await server.sql("ALTER ROLE planted PASSWORD 'another'");
  await server.endSessions();
  await until(
    () => broker.logs.includes('password authentication failed'),
    () => broker.logs,
  );
  seen.add('a refused publish', await messageOf(client.publish({ subject: 'c.c', body: Buffer.from('x') })));
  await look();
  process.kill(broker.pid, 'SIGHUP');
  await until(
    () => broker.logs.includes('the configuration is read again'),
    () => broker.logs,
  );
  await broker.stop();
  seen.add('the log', broker.logs);
  seen.hasNoCanary();
});

test('[F15] no token and no message in any log, audit line, page, metric, answer or bundle of a broker that asks who calls', async (t) => {
  const [token, wrong, body] = ['canary-token-51d2', 'canary-wrong-77', 'canary-body'];
  const part = Buffer.from('{"alg":"ES256","canary":1}').toString('base64url');
  const jwt = `${part}.${Buffer.from('{"iss":"a","aud":"b"}').toString('base64url')}.canary`;
  const folder = temporaryFolder(t);
  const file = join(folder, 'access.yaml');
  const hash = createHash('sha256').update(token).digest('hex');
  const row = `hash: "sha256:${hash}", observe: true, admin: true, allow: {publish: [c.a], fetch: [">"]}`;
  writeFileSync(
    file,
    `tokens:\n  - {name: me, ${row}}\njwt:\n  - {name: they, issuer: a, audience: b, keys: key.pem}\n`,
  );
  const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  writeFileSync(join(folder, 'key.pem'), publicKey.export({ format: 'pem', type: 'spki' }));
  const audit = join(folder, 'audit.log');
  const flags = ['--access-file', file, '--access-audit-file', audit, '--log-level=debug', '--log-format=json'];
  await using broker = await BrokerProcess.create({ flags: [...flags, '--shards=1'], logLinesMax: 10_000 });
  await broker.restart();
  const seen = new Seen();
  for (const [what, shown] of [
    ['right', token],
    ['wrong', wrong],
    ['forged', jwt],
    ['malformed', `${wrong} ${token}`],
  ] as const) {
    const metadata = new Metadata();
    metadata.set('authorization', `Bearer ${shown}`);
    const client = new BrokerClient(broker.address);
    for (const subject of ['c.a', 'c.b']) {
      const request = encodePublish({ subject, body: Buffer.from(body) });
      seen.add(`${what} ${subject}`, await messageOf(client.call('Publish', request, 10_000, metadata)));
    }
    client.close();
    for (const path of ['/metrics', '/api/v1/overview']) {
      const response = await fetch(`http://${broker.adminAddress}${path}`, {
        headers: { authorization: `Bearer ${shown}` },
      });
      seen.add(`${what} ${path}`, `${response.status} ${await response.text()}`);
    }
  }
  const bundle = join(folder, 'bundle.tar.gz');
  const environment = { BROKER_TOKEN: token, BROKER_ADDRESS: broker.address };
  seen.add('commands', await command(['debug', 'bundle', '-f', bundle], environment));
  for (const argv of [['config', 'show'], ['subjects', 'trim', 'c.a', '--before', '2'], ['status'], ['top', '--once']])
    seen.add('commands', await command(argv, environment));
  seen.add('commands', await command(['status'], { ...environment, BROKER_TOKEN: wrong }));
  seen.add('the bundle', gunzipSync(readFileSync(bundle)).toString('latin1'));
  // A new file that has a token where its hash belongs.
  writeFileSync(file, `tokens:\n  - {name: me, hash: "${wrong}"}\n  - ${wrong}: [\n`);
  await until(
    () => broker.logs.includes('access file has problems'),
    () => broker.logs,
  );
  await broker.stop();
  seen.add('the log', broker.logs);
  seen.add('the audit file', readFileSync(audit, 'utf8'));
  assert.match(
    seen.text('the audit file'),
    /TrimSubject[\s\S]*CREDENTIALS_INVALID|CREDENTIALS_INVALID[\s\S]*TrimSubject/,
  );
  seen.hasNoCanary(['canary', part, Buffer.from(token).toString('base64')]);
});

test('[F15] no secret in what a start says that fails', async (t) => {
  const seen = new Seen();
  const start = async (what: string, flags: readonly string[], change: Readonly<Record<string, string>> = {}) => {
    const broker = await BrokerProcess.create({
      flags: ['--log-level=debug', '--log-format=json', '--cassandra-username=me', ...flags],
      env: planted(change),
      logLinesMax: 10_000,
    });
    t.after(() => broker.dispose());
    await assert.rejects(broker.restart(), (error: Error) => {
      seen.add(what, error.message);
      return true;
    });
  };
  const postgres = ['--store=postgres', '--gossip', '--gossip-listen=127.0.0.1:0'];
  const [nobody] = await freePorts(1);
  await start('a wrong password', postgres, { 'postgres.url': urlOf({ username: 'postgres' }) });
  await start('no server', postgres, { 'postgres.url': urlOf({ port: String(nobody) }) });
  await start('no such host', postgres, { 'postgres.url': urlOf({ hostname: 'no-such.invalid' }) });
  await start('no encryption', [...postgres, '--postgres-tls=encrypt']);
  await start('a URL that is none', postgres, { 'postgres.url': `postgres://me:${CASSANDRA}@127.0.0.1:port/x` });
  const cassandra = [
    '--store=cassandra',
    `--cassandra-contact-points=127.0.0.1:${nobody}`,
    '--cassandra-datacenter=dc1',
  ];
  await start('no Cassandra', [...cassandra, '--store-timeout=1s']);
  seen.hasNoCanary();
});

test('[F15] no secret in what the commands say of a configuration, right or wrong, wherever it comes from', async (t) => {
  const seen = new Seen();
  const folder = temporaryFolder(t);
  const env = planted();
  const file = join(folder, 'broker.yaml');
  writeFileSync(
    file,
    `postgres: { url: ${JSON.stringify(PLANTED['postgres.url'])} }\ncassandra: { password: ${JSON.stringify(CASSANDRA)}, username: me }\n`,
    { mode: 0o644 },
  );
  const secret = join(folder, 'key');
  writeFileSync(secret, `${PLANTED['gossip.key']}\n`, { mode: 0o644 });
  const flags = Object.entries(PLANTED).flatMap(([key, value]) => [`--${key.replaceAll(/[._]/g, '-')}`, value]);
  const misspelt = flags.map((flag) => flag.replace(/^--(.*)$/, '--$1x'));
  const all = ['--tracing-endpoint=http://127.0.0.1:4318', '--cassandra-username=me', '--gossip', '--data-dir', folder];
  for (const [what, argv, variables] of [
    ['variables', all, env],
    ['flags', [...all, ...flags], {}],
    ['file', [...all, '--config', file, '--gossip-key-file', secret], {}],
    ['misspelt flags', [...all, ...misspelt], {}],
    ['misspelt variables', all, Object.fromEntries(Object.entries(env).map(([name, value]) => [`${name}X`, value]))],
    ['values alone', [...all, ...Object.values(PLANTED)], {}],
    [
      'broken rules',
      [
        '--postgres-tls=verify',
        '--postgres-url',
        `${urlOf()}?sslmode=disable`,
        '--cassandra-password',
        CASSANDRA,
        '--store=cassandra',
      ],
      {},
    ],
  ] as const) {
    for (const name of [
      ['config', 'print'],
      ['config', 'print', '--origins', '-o', 'json'],
      ['config', 'check'],
      ['config', 'check', '-o', 'json'],
    ]) {
      seen.add(`broker ${name.join(' ')}, ${what}`, await command([...name, ...argv], variables));
    }
  }
  assert.match(seen.text('broker config print, variables'), /\*\*\*/);
  assert.match(seen.text('broker config check, flags'), /ps/);
  seen.hasNoCanary();
});
