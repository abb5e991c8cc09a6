/** Certificates and keys: names in them, what is refused of files, how new ones are taken, and what the port does with those who never finish. */
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2 } from 'node:http2';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import {
  alternativeNames,
  certificateNameOf,
  formatCertificateName,
  parseCertificateName,
} from '../../src/access/certificate-name.ts';
import { tlsOf } from '../../src/cli/tls.ts';
import { readMaterial, type TlsFiles } from '../../src/tls/material.ts';
import { TlsKeeper } from '../../src/tls/tls-keeper.ts';
import { CLIENT_AUTH, Issuer, type Pair, writePair } from '../support/issuer.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { DOOR, startServer } from './grpc-rig.ts';

test('the name in a certificate: cluster, kind and name, as it is written and in no other way', () => {
  const name = { cluster: 'eu-1', kind: 'node', name: 'broker-0.x' } as const;
  assert.equal(formatCertificateName(name), 'broker://eu-1/node/broker-0.x');
  assert.deepEqual(parseCertificateName('broker://eu-1/node/broker-0.x'), name);
  assert.deepEqual(parseCertificateName('broker://c/client/n')?.kind, 'client');
  const long = 'a'.repeat(64);
  for (const uri of [
    ...['', 'broker://c/node', 'broker://c/node/', 'broker:///node/n', 'broker://c/node/n/', 'broker://c/node/n?x'],
    ...['Broker://c/node/n', 'broker://c/admin/n', 'broker://c/node/n%2e', 'broker://c/node/-n', 'broker://c/node/a b'],
    ...[
      'https://c/node/n',
      ' broker://c/node/n',
      'broker://c/node/n\n',
      `broker://${long}/node/n`,
      'broker://c/node/é',
    ],
  ]) {
    assert.equal(parseCertificateName(uri), null, uri);
  }
});

test('the name among the alternative names of a certificate: one, and no text that only looks like one', () => {
  const node = { cluster: 'c', kind: 'node', name: 'n' };
  assert.deepEqual(certificateNameOf('DNS:localhost, URI:broker://c/node/n, IP Address:127.0.0.1'), node);
  assert.deepEqual(certificateNameOf('URI:spiffe://x/y, URI:broker://c/node/n'), node);
  for (const text of [
    undefined,
    '',
    'DNS:broker://c/node/n',
    'URI:broker://c/node/n, URI:broker://c/node/m',
    'URI:broker://c/node/n, URI:BROKER://c/node/n',
    // One name that is made to look like two.
    'DNS:"x, URI:broker://c/node/n"',
    'DNS:"x\\", URI:broker://c/node/n"',
    'URI:"broker://c/node/n, x"',
    'URI:broker://c/node/n, and what is no name',
  ]) {
    assert.equal(certificateNameOf(text), null, text);
  }
  assert.deepEqual(alternativeNames('DNS:a, URI:"b, \\"c"'), [
    { type: 'DNS', value: 'a' },
    { type: 'URI', value: 'b, "c' },
  ]);
});

test('a certificate that is made to be read as two names is read as one', async () => {
  const root = await Issuer.root('r');
  const { cert } = await root.issue('x', { names: ['a.example', 'https://x/, URI:broker://c/node/n'] });
  assert.equal(certificateNameOf(new X509Certificate(cert).subjectAltName), null);
});

interface Files extends TlsFiles {
  readonly folder: string;
}

function write(t: TestContext, { cert, key }: Pair, ca: string | null): Files {
  const folder = temporaryFolder(t);
  const paths = writePair(folder, 'node', { cert, key });
  if (ca !== null) writeFileSync(join(folder, 'ca.pem'), ca);
  return { folder, ...paths, ca: ca === null ? null : join(folder, 'ca.pem') };
}

test('files that cannot be used are refused with the file and why; nothing of a key is said', async (t) => {
  const root = await Issuer.root('root');
  const between = await root.intermediate('between');
  const leaf = await between.issue('node');
  const chain = leaf.cert + between.cert;
  const good = readMaterial(write(t, { ...leaf, cert: chain }, root.cert), Date.now());
  assert.deepEqual(good.warnings, []);
  assert.ok(good.expiresAtMs > Date.now() + 29 * 86_400_000);

  const other = await root.issue('other');
  const cases: readonly (readonly [Pair, string | null, RegExp])[] = [
    [{ ...leaf, key: other.key }, null, /tls\.key .*node\.key: is not the key of the first certificate/],
    [{ ...leaf, cert: between.cert + leaf.cert }, null, /is not the key of the first/],
    [{ ...leaf, cert: leaf.cert + root.cert }, null, /certificate 1 \(CN=node\) was not issued by the next one/],
    [await root.issue('node', { to: -0.5 }), null, /CN=node has expired on/],
    [await root.issue('node', { from: 1 }), null, /is not valid before/],
    [await root.issue('node', { names: [] }), null, /no alternative names \(SAN\)/],
    [await root.issue('node', { usages: [CLIENT_AUTH] }), null, /CN=node is not for servers/],
    [{ ...leaf, cert: 'nothing' }, null, /there is no certificate in it/],
    [{ ...leaf, key: 'nothing' }, null, /there is no private key in it/],
    [{ ...leaf, key: '-----BEGIN ENCRYPTED PRIVATE KEY-----' }, null, /is encrypted/],
    [leaf, 'nothing', /tls\.ca .*: there is no certificate in it/],
  ];
  for (const [pair, ca, message] of cases) {
    assert.throws(
      () => readMaterial(write(t, pair, ca), Date.now()),
      (error: Error) => message.test(error.message) && !/[A-Za-z0-9+]{24}/.test(error.message),
      String(message),
    );
  }
  const files = write(t, leaf, root.cert);
  assert.match(readMaterial(files, Date.now()).warnings.join(), /the chain is cut/);
  chmodSync(files.key, 0o644);
  assert.match(readMaterial(files, Date.now()).warnings.join(), /every user of the machine can read it/);
  rmSync(files.key);
  assert.throws(() => readMaterial(files, Date.now()), /tls\.key .*: cannot be read \(ENOENT\); put the file there/);
});

/** Lines by their message. */
class Lines {
  readonly messages: string[] = [];
  readonly info = (message: string): void => void this.messages.push(message);
  readonly warn = this.info;
  readonly error = this.info;

  count(start: string): number {
    return this.messages.filter((message) => message.startsWith(start)).length;
  }
}

test('changed files are taken by themselves; half of a change waits for the other half, and what stays wrong keeps the old one in force', async (t) => {
  const root = await Issuer.root('root');
  const [first, second, third] = await Promise.all(['a', 'b', 'c'].map((name) => root.issue(name)));
  const files = write(t, first as Pair, root.cert);
  const log = new Lines();
  const keeper = new TlsKeeper(files, log);
  t.after(() => keeper.stop());
  const taken: string[] = [];
  keeper.listen(({ cert }, isAuthorityNew) => taken.push(`${cert === second?.cert ? 'b' : 'c'} ${isAuthorityNew}`));

  // Looks are made here, one by one.
  t.mock.timers.enable({ apis: ['setInterval'] });
  keeper.start(1_000);
  const look = (): void => t.mock.timers.tick(1_000);
  look();
  assert.deepEqual([taken, log.messages], [[], []]);

  writeFileSync(files.cert, (second as Pair).cert);
  look();
  assert.deepEqual([taken, keeper.reloads, log.messages], [[], { success: 0, failure: 0 }, []]);
  writeFileSync(files.key, (second as Pair).key);
  look();
  assert.deepEqual([taken, keeper.reloads], [['b false'], { success: 1, failure: 0 }]);

  writeFileSync(files.cert, (third as Pair).cert);
  look();
  look();
  look();
  assert.deepEqual(
    [taken.length, keeper.reloads, log.count('new certificates cannot be used')],
    [1, { success: 1, failure: 1 }, 1],
  );
  assert.equal(keeper.material.cert, second?.cert);
  keeper.reload();
  assert.equal(keeper.reloads.failure, 2, 'somebody asked');
  writeFileSync(files.key, (third as Pair).key);
  writeFileSync(files.ca as string, root.cert + (await Issuer.root('new')).cert);
  look();
  assert.deepEqual(taken, ['b false', 'c true']);
  assert.throws(() => keeper.use({ ...files, cert: join(files.folder, 'none.pem') }), /cannot be read/);
  assert.equal(keeper.material.cert, third?.cert);
});

for (const [code, spoil] of [
  ['ELOOP', (path: string): void => symlinkSync(path, path)],
  ['ENOTDIR', (path: string): void => symlinkSync(`${process.execPath}/none`, path)],
  ['EISDIR', (path: string): void => symlinkSync('/', path)],
] as const) {
  test(`a file that cannot be looked at (${code}) is a failed change: the keeper goes on with what it has, and notices when it is back`, async (t) => {
    const root = await Issuer.root('root');
    const [first, second] = await Promise.all(['a', 'b'].map((name) => root.issue(name)));
    const files = write(t, first as Pair, root.cert);
    const problems: string[] = [];
    const log = new Lines();
    const error = (_: string, { problem }: { problem?: unknown } = {}): void => void problems.push(String(problem));
    const keeper = new TlsKeeper(files, { info: log.info, warn: log.warn, error });
    t.after(() => keeper.stop());
    t.mock.timers.enable({ apis: ['setInterval'] });
    keeper.start(1_000);

    renameSync(files.key, `${files.key}.away`);
    spoil(files.key);
    t.mock.timers.tick(2_000);
    assert.deepEqual([keeper.reloads, keeper.material.cert], [{ success: 0, failure: 1 }, first?.cert]);
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? '', new RegExp(`tls\\.key .*: cannot be read \\(${code}\\); put the file there`));

    rmSync(files.key);
    writeFileSync(files.cert, (second as Pair).cert);
    writeFileSync(files.key, (second as Pair).key);
    t.mock.timers.tick(1_000);
    assert.deepEqual([keeper.reloads, keeper.material.cert], [{ success: 1, failure: 1 }, second?.cert]);
  });
}

test('a certificate that ends within two weeks is told of, once a day', async (t) => {
  const root = await Issuer.root('root');
  const log = new Lines();
  const files = write(t, await root.issue('node', { to: 13 }), root.cert);
  const keeper = new TlsKeeper(files, log);
  t.after(() => keeper.stop());
  t.mock.timers.enable({ apis: ['setInterval', 'Date'], now: Date.now() });
  keeper.start(3_600_000);
  t.mock.timers.tick(3 * 3_600_000);
  assert.equal(log.count('a certificate expires soon'), 1);
  t.mock.timers.tick(25 * 3_600_000);
  assert.equal(log.count('a certificate expires soon'), 2);
  const longer = write(t, await root.issue('node', { to: 15 }), root.cert);
  const quiet = new Lines();
  new TlsKeeper(longer, quiet);
  assert.equal(quiet.count('a certificate'), 0);
});

/** A server with TLS, what a client connects with, and its files. */
async function serverWithTls(t: TestContext, connections: number) {
  const root = await Issuer.root('root');
  const files = write(t, await root.issue('node'), root.cert);
  const keeper = new TlsKeeper(files, new Lines());
  const tls = { keeper, minVersion: 'TLSv1.2', clientCertificates: 'optional' } as const;
  const said: string[] = [];
  const news = { warn: (kind: string) => void said.push(kind) };
  const server = await startServer(t, { limits: { ...DOOR, connections }, tls, news });
  const port = Number(server.address.split(':')[1]);
  const options = { host: '127.0.0.1', port, ca: root.cert, servername: 'localhost', ALPNProtocols: ['h2'] };
  return { server, port, options, root, files, keeper, said };
}

/** A session that has come as far as the settings of the server, or null if it was closed before. */
function session(options: { readonly port: number; readonly ca: string }, pair: Partial<Pair>) {
  return new Promise<ClientHttp2Session | null>((resolve) => {
    const opened = connectHttp2(`https://127.0.0.1:${options.port}`, {
      ca: options.ca,
      servername: 'localhost',
      ...pair,
    });
    opened.on('error', () => undefined);
    opened.once('remoteSettings', () => opened.ping((error) => resolve(error === null ? opened : null)));
    opened.once('close', () => resolve(null));
  });
}

test('a bad certificate is refused also where none is needed', async (t) => {
  const { options, root, said, server } = await serverWithTls(t, 10);
  const stranger = await Issuer.root('stranger');
  const anonymous = await session(options, {});
  const known = await session(options, await root.issue('client'));
  assert.ok(anonymous !== null && known !== null);
  for (const pair of [await stranger.issue('client'), await root.issue('client', { to: -0.5 })]) {
    assert.equal(await session(options, pair), null);
  }
  assert.deepEqual(said, ['tls_grpc_UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'tls_grpc_CERT_HAS_EXPIRED']);
  assert.equal(server.handshakeFailures?.get('bad_certificate'), 2);
  for (const one of [anonymous, known]) one.destroy();
});

test('connections end when the authority of their certificate is taken away; others stay, and an authority more ends nobody', async (t) => {
  const { options, root, files, keeper, said } = await serverWithTls(t, 10);
  const next = await Issuer.root('next');
  const between = await next.intermediate('between');
  const change = (...authorities: readonly Issuer[]): void => {
    writeFileSync(files.ca as string, authorities.map(({ cert }) => cert).join(''));
    keeper.reload();
  };
  change(root, next);
  const leaf = await between.issue('client');
  const [anonymous, stays, old, unsure] = await Promise.all([
    session(options, {}),
    session(options, await next.issue('client')),
    session(options, await root.issue('client')),
    session(options, { ...leaf, cert: leaf.cert + between.cert }),
  ]);
  assert.ok(anonymous !== null && stays !== null && old !== null && unsure !== null);
  change(root, next, await Issuer.root('third'));
  assert.deepEqual(said, []);
  // Of a chain nothing is kept: its client has to come again.
  const ended = Promise.all([once(old, 'close'), once(unsure, 'close')]);
  change(next);
  await ended;
  assert.deepEqual(said, ['certificate_ended', 'certificate_ended']);
  assert.deepEqual([anonymous.destroyed, stays.destroyed], [false, false]);
  const again = await session(options, { ...leaf, cert: leaf.cert + between.cert });
  for (const one of [anonymous, stays, again]) one?.destroy();
  assert.notEqual(again, null);
});

/** Passes on what the client says first, and the rest once it is released. */
function held(carrier: Socket) {
  const later: (() => void)[] = [];
  let passes = 1;
  let onHeld = (): void => undefined;
  const isHeld = new Promise<void>((resolve) => {
    onHeld = resolve;
  });
  const gate = new Duplex({
    read: () => undefined,
    write: (chunk: Buffer, _, done) => {
      const pass = (): void => void carrier.write(chunk, () => done());
      passes -= 1;
      if (passes >= 0) pass();
      else {
        later.push(pass);
        onHeld();
      }
    },
  });
  carrier.on('data', (chunk) => gate.push(chunk));
  carrier.on('error', () => undefined).on('close', () => gate.destroy());
  const release = (): void => {
    passes = Number.POSITIVE_INFINITY;
    for (const pass of later) pass();
  };
  return { gate, isHeld, release };
}

test('who is in the middle of the handshake when the authority is taken away does not come in by it', async (t) => {
  const { options, root, files, keeper } = await serverWithTls(t, 10);
  const next = await Issuer.root('next');
  writeFileSync(files.ca as string, root.cert + next.cert);
  keeper.reload();
  const carrier = connectTcp(options);
  const { gate, isHeld, release } = held(carrier);
  const socket = connectTls({ ...options, ...(await root.issue('client')), socket: gate });
  const opened = connectHttp2('https://localhost', { createConnection: () => socket }).on('error', () => undefined);
  const came = new Promise((resolve) => {
    opened.once('remoteSettings', () => resolve('it came in'));
    opened.once('close', () => resolve('it was closed'));
  });
  // The certificate of the client is in what is held back.
  await isHeld;
  writeFileSync(files.ca as string, next.cert);
  keeper.reload();
  release();
  assert.equal(await came, 'it was closed');
  opened.destroy();
  const other = await session(options, await next.issue('client'));
  assert.notEqual(other, null);
  other?.destroy();
});

test('a connection ends after the certificate of its client has', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval', 'Date'], now: Date.now() });
  const { options, root, said } = await serverWithTls(t, 10);
  const short = await session(options, await root.issue('client', { to: 1 }));
  const long = await session(options, await root.issue('client'));
  assert.ok(short !== null && long !== null);
  t.mock.timers.tick(23 * 3_600_000);
  assert.deepEqual(said, []);
  const ended = once(short, 'close');
  t.mock.timers.tick(2 * 3_600_000);
  await ended;
  assert.deepEqual([said, long.destroyed], [['certificate_ended'], false]);
  long.destroy();
});

/** A client of one address of this machine, at the end of its handshake; null: it was closed before. */
async function taken(
  options: { readonly host: string; readonly port: number },
  localAddress: string,
): Promise<TLSSocket | null> {
  const { host, port } = options;
  const carrier = connectTcp({ host, port, localAddress }).on('error', () => undefined);
  const socket = connectTls({ ...options, socket: carrier }).on('error', () => undefined);
  return await new Promise((resolve) => {
    socket.once('secureConnect', () => resolve(socket));
    socket.once('close', () => resolve(null));
  });
}

test('handshakes that never end count as connections, and the oldest of the host with the most makes room for others', async (t) => {
  const { server, port, options } = await serverWithTls(t, 4);
  const open: Socket[] = [];
  t.after(() => {
    for (const socket of open) socket.destroy();
  });
  const silent = async (localAddress: string): Promise<Socket> => {
    const socket = connectTcp({ host: '127.0.0.1', port, localAddress }).on('error', () => undefined);
    // Else its end is not seen.
    open.push(socket.resume());
    await once(socket, 'connect');
    return socket;
  };
  const slow = await silent('127.0.0.2');
  const held = [await silent('127.0.0.1'), await silent('127.0.0.1'), await silent('127.0.0.1')] as const;
  for (const [n, oldest] of held.slice(0, 2).entries()) {
    const gone = once(oldest, 'close');
    const good = await taken(options, '127.0.0.3');
    assert.ok(good !== null);
    open.push(good);
    await gone;
    assert.equal(server.connections.refused, n + 1);
  }
  assert.deepEqual([slow.destroyed, held[2].destroyed], [false, false]);
});

test('where all connections are past their handshake, the oldest that has made no call makes room', async (t) => {
  const { server, options } = await serverWithTls(t, 2);
  const first = await session(options, {});
  const second = await session(options, {});
  assert.ok(first !== null && second !== null);
  const gone = once(first, 'close');
  const third = await session(options, {});
  assert.notEqual(third, null);
  await gone;
  assert.deepEqual([second.destroyed, server.connections.refused], [false, 1]);
  for (const one of [second, third]) one?.destroy();
});

test('no session is resumed, whose certificate would not be looked at again', async (t) => {
  const { options } = await serverWithTls(t, 10);
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const before = connectTls({ ...options, maxVersion });
    const sessions: Buffer[] = [];
    before.on('session', (session) => sessions.push(session));
    await once(before, 'data');
    const session = sessions.at(-1) ?? before.getSession();
    assert.ok(session !== undefined, maxVersion);
    before.destroy();
    const again = connectTls({ ...options, maxVersion, session });
    await once(again, 'secureConnect');
    assert.equal(again.isSessionReused(), false, maxVersion);
    again.destroy();
  }
});

test('commands encrypt as flags say, else as the address says, else as variables say', (t) => {
  const folder = temporaryFolder(t);
  const ca = join(folder, 'ca.pem');
  writeFileSync(ca, 'pem');
  const at = ['127.0.0.1:8081'];
  assert.equal(tlsOf({}, {}, at), undefined);
  const nothing = { ca: undefined, cert: undefined, key: undefined, serverName: undefined };
  for (const environment of [{ BROKER_TLS: 'true' }, { BROKER_TLS: '1' }])
    assert.deepEqual(tlsOf(environment, {}, at), nothing);
  assert.deepEqual(tlsOf({}, { tls: true }, at), nothing);
  for (const address of ['https://h:1', 'grpcs://h:1']) assert.deepEqual(tlsOf({}, {}, [address]), nothing);
  const environment = { BROKER_TLS_CA: ca, BROKER_TLS_NAME: 'n' };
  assert.deepEqual(tlsOf(environment, {}, at), { ...nothing, ca: Buffer.from('pem'), serverName: 'n' });
  assert.equal(tlsOf(environment, { tls: false }, at), undefined);
  assert.equal(tlsOf(environment, {}, ['http://h:1']), undefined);
  assert.deepEqual(tlsOf({}, { tlsName: 'm' }, at), { ...nothing, serverName: 'm' });
  const wrong: readonly (readonly [Parameters<typeof tlsOf>[1], readonly string[], RegExp])[] = [
    [{ tlsCert: ca }, at, /--tls-cert and --tls-key must be given both/],
    [{ tls: false, tlsCa: ca }, at, /--no-tls does not go together/],
    [{ tls: true }, ['http://h:1'], /the address says http/],
    [{ tls: false }, ['https://h:1'], /the address says https/],
    [{}, ['https://h:1', 'http://g:1'], /all https/],
    [{ tlsCa: join(folder, 'none') }, at, /cannot be read \(ENOENT\)/],
  ];
  for (const [flags, addresses, message] of wrong) assert.throws(() => tlsOf({}, flags, addresses), message);
});
