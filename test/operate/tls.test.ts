/** TLS of a real broker: who is refused and what is said of it, certificates that change under load, and the way that the documentation shows. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2, type SecureClientSessionOptions } from 'node:http2';
import { get } from 'node:https';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { connect } from '../../src/client/index.ts';
import { BrokerProcess, LAUNCHER, startBroker } from '../support/broker.ts';
import { CLIENT_AUTH, Issuer, type Pair, SERVER_AUTH, writePair } from '../support/issuer.ts';
import { largest } from '../support/largest.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const FLAGS = ['--shards', '1', '--admin-tls=false'];

function tlsFlags(files: { readonly cert: string; readonly key: string; readonly ca: string }): string[] {
  return [...FLAGS, '--tls-cert', files.cert, '--tls-key', files.key, '--tls-ca', files.ca];
}

function file(folder: string, name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

/** How a health check ends: `answered`, or why there was no answer. */
function ask(address: string, options: SecureClientSessionOptions, scheme = 'https'): Promise<string> {
  return new Promise((resolve) => {
    const session = connectHttp2(`${scheme}://${address}`, { servername: 'localhost', ...options });
    const end = (how: string): void => {
      session.destroy();
      resolve(how);
    };
    session.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    session.once('close', () => end('closed'));
    const stream = session.request({
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    stream.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    stream.once('response', () => end('answered'));
    stream.end(Buffer.alloc(5));
  });
}

/** What openssl says to a handshake with such options. */
async function openssl(address: string, options: readonly string[]): Promise<string> {
  const child = spawn('openssl', ['s_client', '-connect', address, '-alpn', 'h2', ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const said: string[] = [];
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => said.push(text));
  await once(child, 'close');
  return said.join('');
}

interface Refused {
  readonly what: string;
  readonly attempt: () => Promise<unknown>;
  /** In the log of the broker. */
  readonly said: RegExp;
}

test('[F12] whoever is not to come in is refused, and the log says who and why', async (t) => {
  const folder = temporaryFolder(t);
  const [root, stranger] = await Promise.all([Issuer.root('ours'), Issuer.root('theirs')]);
  const between = await root.intermediate('between');
  const node = writePair(folder, 'node', await root.issue('node'));
  const ca = file(folder, 'ca.pem', root.cert);
  await using broker = await startBroker({ flags: [...tlsFlags({ ...node, ca }), '--tls-client-certs', 'required'] });
  const { address } = broker;
  const silent = createConnection({ host: '127.0.0.1', port: Number(address.split(':')[1]) });
  t.after(() => silent.destroy());
  silent.on('error', () => undefined);

  const good = await between.issue('client', { usages: [CLIENT_AUTH] });
  const show = ({ cert, key }: Pair): SecureClientSessionOptions => ({ ca: root.cert, cert, key });
  assert.equal(await ask(address, show({ ...good, cert: good.cert + between.cert })), 'answered');

  const by = async (options: SecureClientSessionOptions, scheme?: string): Promise<void> => {
    assert.notEqual(await ask(address, options, scheme), 'answered');
  };
  const issued = async (issuer: Issuer, wanted = {}) => show(await issuer.issue('client', wanted));
  const old = ['-cipher', 'ALL:@SECLEVEL=0'];
  const cases: readonly Refused[] = [
    { what: 'no TLS', attempt: () => by({}, 'http'), said: /speaks clear text/ },
    {
      what: 'TLS 1.1',
      attempt: async () => assert.match(await openssl(address, ['-tls1_1', ...old]), /alert protocol version/),
      said: /no version of TLS from tls\.min_version on/,
    },
    {
      what: 'a cipher without authenticated encryption',
      attempt: async () =>
        assert.match(
          await openssl(address, ['-tls1_2', '-cipher', 'ECDHE-ECDSA-AES128-SHA256']),
          /alert handshake failure/,
        ),
      said: /no cipher suite with forward secrecy/,
    },
    { what: 'no certificate', attempt: () => by({ ca: root.cert }), said: /shows no certificate/ },
    {
      what: 'an expired one',
      attempt: async () => by(await issued(root, { from: -9, to: -1 })),
      said: /certificate of the client has expired/,
    },
    {
      what: 'one of tomorrow',
      attempt: async () => by(await issued(root, { from: 1 })),
      said: /is not valid yet/,
    },
    {
      what: 'one of another authority',
      attempt: async () => {
        const other = await stranger.issue('client');
        await by(show({ ...other, cert: other.cert + stranger.cert }));
      },
      said: /SELF_SIGNED_CERT_IN_CHAIN/,
    },
    {
      what: 'one that signed itself',
      attempt: async () => by(show(await Issuer.selfSigned('client'))),
      said: /signed its certificate itself/,
    },
    {
      what: 'one for servers alone',
      attempt: async () => by(await issued(root, { usages: [SERVER_AUTH] })),
      said: /not one for clients/,
    },
    { what: 'a chain that is cut', attempt: () => by(show(good)), said: /not in tls\.ca, or its chain is cut/ },
  ];
  for (const { what, attempt, said } of cases) {
    await attempt();
    await until(
      () => said.test(broker.logs),
      () => `${what}: ${said} is not in the log\n${broker.logs}`,
    );
  }
  await until(
    () => /did not end the handshake in time/.test(broker.logs),
    () => broker.logs,
  );
  const peers = [...broker.logs.matchAll(/"peer":"127\.0\.0\.1:(\d+)","reason"/g)];
  assert.equal(peers.length, cases.length + 1, broker.logs);

  await using client = connect(address, { tls: { ca: root.cert, ...good, serverName: 'elsewhere' }, failFast: true });
  await assert.rejects(client.status(), /certificate of the broker is not for elsewhere/);
  await using honest = connect(address, {
    tls: { ca: root.cert, key: good.key, cert: good.cert + between.cert },
    failFast: true,
  });
  assert.equal((await honest.status()).ready, true);
});

test('with optional certificates whoever shows none comes in, and a bad one is refused; TLS on a port in clear text is told of', async (t) => {
  const folder = temporaryFolder(t);
  const [root, stranger] = await Promise.all([Issuer.root('ours'), Issuer.root('theirs')]);
  const node = writePair(folder, 'node', await root.issue('node'));
  await using broker = await startBroker({ flags: tlsFlags({ ...node, ca: file(folder, 'ca.pem', root.cert) }) });
  assert.equal(await ask(broker.address, { ca: root.cert }), 'answered');
  assert.notEqual(await ask(broker.address, { ca: root.cert, ...(await stranger.issue('client')) }), 'answered');
  await until(
    () => /"detail":"UNABLE_TO_VERIFY_LEAF_SIGNATURE"/.test(broker.logs),
    () => broker.logs,
  );
  await using clear = await startBroker({ flags: ['--shards', '1'] });
  assert.notEqual(await ask(clear.address, {}), 'answered');
  await until(
    () => /"reason":"the port speaks clear text/.test(clear.logs),
    () => clear.logs,
  );
});

/** Serial number of what the broker shows to a new connection. */
async function serialOf(address: string, options: { readonly ca: string } & Pair): Promise<string> {
  const [host, port] = address.split(':') as [string, string];
  const socket = connectTls({ ...options, host, port: Number(port), servername: 'localhost', ALPNProtocols: ['h2'] });
  await once(socket, 'secureConnect');
  const { serialNumber } = socket.getPeerCertificate();
  socket.destroy();
  return serialNumber;
}

/** A folder as Kubernetes mounts a secret: `..data` leads to one version of all files, and is exchanged at once. */
class Secret {
  readonly #folder: string;
  #version = 0;

  constructor(folder: string) {
    this.#folder = folder;
  }

  path(name: string): string {
    return join(this.#folder, '..data', name);
  }

  put(files: Readonly<Record<string, string>>): void {
    this.#version += 1;
    const version = `..${this.#version}`;
    mkdirSync(join(this.#folder, version));
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(this.#folder, version, name), text, { mode: 0o600 });
    }
    symlinkSync(version, join(this.#folder, '..next'));
    renameSync(join(this.#folder, '..next'), join(this.#folder, '..data'));
  }
}

test('certificates change under load: new connections see the new one, open ones go on, a bad file changes nothing, and whose authority is gone is out', async (t) => {
  const secret = new Secret(temporaryFolder(t));
  const [first, second] = await Promise.all([Issuer.root('first'), Issuer.root('second')]);
  const files = async (issuer: Issuer, ca: string) => {
    const { cert, key } = await issuer.issue('node');
    return { 'tls.crt': cert, 'tls.key': key, 'ca.crt': ca };
  };
  secret.put(await files(first, first.cert));
  const paths = { cert: secret.path('tls.crt'), key: secret.path('tls.key'), ca: secret.path('ca.crt') };
  await using broker = await startBroker({ flags: [...tlsFlags(paths), '--tls-client-certs', 'required'] });
  const both = first.cert + second.cert;
  await using client = connect(broker.address, { tls: { ca: both, ...(await first.issue('client')) } });
  await using publisher = client.publisher();

  let isOver = false;
  let sent = 0;
  const acked = new Set<number>();
  const load = (async () => {
    while (!isOver) {
      const batch = Array.from({ length: 50 }, (_, n) => publisher.publish('load', `message ${sent + n}`));
      sent += batch.length;
      for (const id of await Promise.all(batch)) acked.add(id);
    }
  })();
  const reloads = async (result: string): Promise<number> => {
    const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
    return Number(new RegExp(`broker_tls_reload_total\\{result="${result}"\\} (\\d+)`).exec(text)?.[1]);
  };
  const eventually = (holds: () => Promise<boolean>) => until(holds, () => broker.logs);

  const mine = { ca: both, ...(await first.issue('probe')) };
  const serial = async () => serialOf(broker.address, mine);
  await eventually(async () => acked.size > 0);
  const { streams } = publisher.stats;
  const before = await serial();
  secret.put(await files(first, first.cert));
  await eventually(async () => (await serial()) !== before);
  assert.equal(await reloads('success'), 1);
  const renewed = await serial();

  // A key that belongs to another certificate.
  const { key } = await second.issue('other');
  secret.put({ ...(await files(first, first.cert)), 'tls.key': key });
  await eventually(async () => (await reloads('failure')) === 1);
  assert.match(broker.logs, /is not the key of the first certificate/);
  assert.equal(await serial(), renewed);

  // The way of a new authority: beside the old one, certificates, alone.
  secret.put(await files(first, both));
  process.kill(broker.pid, 'SIGHUP');
  await eventually(async () => (await reloads('success')) === 2);
  assert.equal((await client.connections()).connections.length > 0, true);
  await eventually(async () => acked.size >= 2_000);
  isOver = true;
  await load;
  assert.equal(publisher.stats.streams, streams, 'a connection ended while its client was still good');
  assert.deepEqual([acked.size, largest(acked)], [sent, sent], 'an id twice, or none');
  // The last ones are closed a moment after they are acknowledged.
  await eventually(async () => (await client.subject('load')).settled === sent);

  secret.put(await files(second, second.cert));
  await eventually(async () => /a connection is ended/.test(broker.logs));
  await assert.rejects(client.publish('load', 'too late'));
  assert.notEqual(await ask(broker.address, mine), 'answered');
  await using next = connect(broker.address, { tls: { ca: second.cert, ...(await second.issue('client')) } });
  assert.equal((await next.subject('load')).settled, sent);
});

/** Output of a command that is given its certificates by the variables that `broker certs init` names. */
async function run(argv: readonly string[], env: Readonly<Record<string, string>>, cwd: string): Promise<string> {
  const child = spawn(process.execPath, [LAUNCHER, ...argv], {
    cwd,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [out, err] = [[] as string[], [] as string[]];
  child.stdout.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const [code] = await once(child, 'close');
  assert.equal(code, 0, err.join(''));
  return out.join('');
}

function ready(address: string, ca: Buffer): Promise<string> {
  return new Promise((resolve) => {
    get(`https://${address}/readyz`, { ca, agent: false }, (response) => {
      response.setEncoding('utf8').on('data', (text: string) => resolve(`${response.statusCode} ${text}`));
    }).on('error', (error) => resolve(String(error)));
  });
}

test('broker certs makes what a broker and its commands need: publish, fetch, subscribe and top with certificates of both sides, probes over HTTPS', async (t) => {
  const folder = temporaryFolder(t);
  await run(['certs', 'init', 'certs'], {}, folder);
  const at = (name: string): string => join(folder, 'certs', name);
  const [grpc, admin] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`) as [string, string];
  await using broker = await BrokerProcess.create({ addresses: { grpc, admin }, dataDir: join(folder, 'data') });
  const files = ['--tls-cert', at('node-1.pem'), '--tls-key', at('node-1.key'), '--tls-ca', at('ca.pem')];
  broker.launch({ flags: ['--shards', '1', '--node-id', 'node-1', ...files, '--tls-client-certs', 'required'] });
  const ca = readFileSync(at('ca.pem'));
  let answer = '';
  await until(
    async () => {
      answer = await ready(admin, ca);
      return answer.startsWith('200');
    },
    () => `${answer}\n${broker.logs}`,
  );
  const env = {
    BROKER_ADDRESS: grpc,
    BROKER_TLS_CA: at('ca.pem'),
    BROKER_TLS_CERT: at('client.pem'),
    BROKER_TLS_KEY: at('client.key'),
  };
  assert.equal(await run(['publish', 'greetings', 'hello'], env, folder), '1\n');
  const [fetched, subscribed, top, checked] = await Promise.all([
    run(['fetch', 'greetings', '1'], env, folder),
    run(['subscribe', 'greetings', '--from', '1', '--count', '1'], env, folder),
    run(['top', '--once', '--pane', 'connections'], env, folder),
    run(['check', '--only', 'reachable,ready'], env, folder),
  ]);
  assert.match(fetched, /hello/);
  assert.match(subscribed, /hello/);
  assert.match(top, /127\.0\.0\.1:\d+/);
  assert.match(checked, /ok/i);
});
