import assert from 'node:assert/strict';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect, createServer as createTlsServer } from 'node:tls';
import { GreetingCodec } from '../../src/net/hello.ts';
import { type PeerMaterial, PeerTls } from '../../src/net/peer-tls.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from '../../src/replica/types.ts';
import { type Certificate, CertificateAuthority, pem } from '../support/certificates.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';
import { frameArrives, HOST, member, Stranger, type TestMember } from './raft-port-rig.ts';

const EXPIRED = [new Date('2020-01-01'), new Date('2020-01-02')] as const;

/** With an authority, which tests always have. */
type Material = PeerMaterial & { readonly ca: string };

class Authority extends CertificateAuthority {
  material({ cert, key }: Certificate): Material {
    return { cert: pem(cert), key: pem(key), ca: pem(this.cert) };
  }

  node(node: string, cluster = 'c'): Material {
    return this.material(this.issue(`${cluster}-${node}`, `URI:broker://${cluster}/node/${node}`));
  }
}

function authority(t: TestContext, name = 'ca'): Authority {
  return new Authority(temporaryFolder(t), name);
}

function tlsOf(material: PeerMaterial, isOptional = false): PeerTls {
  return new PeerTls({ cluster: 'c', isOptional, material });
}

async function securePair(t: TestContext, ca: Authority): Promise<[TestMember, TestMember]> {
  const [a, b] = await Promise.all([
    member(t, 'a', { tls: tlsOf(ca.node('a')) }),
    member(t, 'b', { tls: tlsOf(ca.node('b')) }),
  ]);
  a.peers(b);
  b.peers(a);
  await Promise.all([a.connected('b'), b.connected('a')]);
  return [a, b];
}

/** Says hello by TLS as node `node`, whatever its certificate says. Resolves when the connection is over. */
function dialed(t: TestContext, to: TestMember, options: ConnectionOptions, node: string): Promise<void> {
  return new Promise((resolve) => {
    const socket: Socket = connect({ host: HOST, port: to.port, rejectUnauthorized: false, ...options }, () => {
      const versions = { versionMin: PROTOCOL_VERSION_MIN, versionMax: PROTOCOL_VERSION };
      const rest = { clusterId: 'the-cluster', instance: `instance-of-${node}`, targetInstance: '' };
      const hello = { ...versions, ...rest, node, targetNode: to.node, purpose: 'frames' as const };
      socket.write(new GreetingCodec().encodeHello(hello));
    });
    socket.on('error', () => socket.destroy()).on('close', () => resolve());
    socket.resume();
    t.after(() => socket.destroy());
  });
}

test('two nodes with certificates of their own speak TLS 1.3', async (t) => {
  const [a, b] = await securePair(t, authority(t));
  await frameArrives(a, b);
  await frameArrives(b, a);
});

test('[F12] the Raft port takes nobody by the chain alone: each is refused, counted, and logged with address and reason', async (t) => {
  const ca = authority(t);
  const other = authority(t, 'other');
  const [a, b] = await securePair(t, ca);
  const client = ca.material(ca.issue('client', 'URI:broker://c/client/x'));
  const old = ca.material(ca.issueFor('old', 'URI:broker://c/node/x', EXPIRED));
  const two = ca.material(ca.issue('two', 'URI:broker://c/node/x,URI:broker://c/node/y'));
  const dns = ca.material(ca.issue('dns', 'DNS:x'));
  const good = ca.node('x');
  const matrix: [string, ConnectionOptions, RegExp][] = [
    ['no certificate', { ca: good.ca }, /it shows no certificate/],
    ['expired', { ...old }, /its certificate has expired: Jan {2}2 00:00:00 2020/],
    ['wrong authority', { ...other.node('x') }, /tls.ca does not vouch for its certificate: .*/],
    ['a certificate of a client', { ...client }, /not for a node, .*broker:\/\/c\/client\/x/],
    ['two names', { ...two }, /not for a node/],
    ['no name of a broker', { ...dns }, /not for a node, .*DNS:x/],
    ['another cluster', { ...ca.node('x', 'd') }, /is for cluster d, this is c/],
    ['another node', { ...ca.node('y') }, /WRONG_CERTIFICATE: the dialer is node x, and its certificate is for y/],
    ['TLS 1.2', { ...good, maxVersion: 'TLSv1.2' }, /the TLS handshake failed: unsupported protocol/],
  ];
  for (const [what, options, reason] of matrix) {
    const before = b.network.counters.untrusted;
    await dialed(t, b, options, 'x');
    await until(
      () => b.network.counters.untrusted === before + 1,
      () => `${what}: ${JSON.stringify(b.log)}`,
    );
    assert.ok(!b.hellos.some(({ node }) => node === 'x'), what);
    // The log lets one of a kind through in a second: those that share a kind are told apart by the others.
    if (!['two names', 'no name of a broker'].includes(what)) await b.logged(reason);
  }
  const before = b.network.counters.untrusted;
  await new Stranger(t, b.port).hello({ node: 'x', targetNode: 'b' }).closed();
  await b.logged(/it speaks clear text, and this node TLS only/);
  assert.equal(b.network.counters.untrusted, before + 1);
  const refusals = b.log.filter(({ message }) => message === 'refused a connection to the Raft port');
  for (const { fields } of refusals) assert.match(String(fields.remote), /^127\.0\.0\.1:\d+$/);
  // The right one would have been taken: what is refused above is refused for what is wrong with it.
  const x = await member(t, 'x', { tls: tlsOf(good) });
  x.peers(b);
  await x.connected('b');
  await frameArrives(a, b);
  assert.deepEqual([a.unreachable, b.unreachable], [[], []]);
});

test('[F12] a node speaks with nobody but the node that it dialed', async (t) => {
  const ca = authority(t);
  const other = authority(t, 'other');
  const old = ca.material(ca.issueFor('old', 'URI:broker://c/node/b', EXPIRED));
  const matrix: [string, PeerMaterial, RegExp][] = [
    ['wrong authority', other.node('b'), /unable to verify|self.signed|signature/],
    ['expired', old, /expired/],
    ['a client', ca.material(ca.issue('client', 'URI:broker://c/client/b')), /not for a node/],
    ['another cluster', ca.node('b', 'd'), /is for cluster d, this is c/],
    ['another node', ca.node('z'), /is for node z, this one wanted b/],
  ];
  for (const [what, material, reason] of matrix) {
    const a = await member(t, 'a', { tls: tlsOf(ca.node('a')) });
    const b = await member(t, 'b', { tls: tlsOf(material) });
    a.peers(b);
    await a.logged(reason);
    assert.equal(a.network.isConnected('b'), false, what);
    assert.deepEqual(b.hellos, [], what);
    await Promise.all([a.network.close(), b.network.close()]);
  }
});

test('new certificates are used by the next connection, and those that are open go on', async (t) => {
  const ca = authority(t);
  const next = authority(t, 'next');
  const both = { ca: pem(ca.cert) + pem(next.cert) };
  const [tlsA, tlsB] = [tlsOf({ ...ca.node('a'), ...both }), tlsOf({ ...ca.node('b'), ...both })];
  const [a, b] = await Promise.all([member(t, 'a', { tls: tlsA }), member(t, 'b', { tls: tlsB })]);
  a.peers(b);
  await a.connected('b');
  const [newA, newB] = [next.node('a'), next.node('b')];
  tlsA.set({ ...newA, ...both });
  tlsB.set({ ...newB, ...both });
  await frameArrives(a, b);
  assert.deepEqual(a.unreachable, []);
  tlsA.set(newA);
  tlsB.set(newB);
  // The authority from before is gone: only the new certificates are taken now.
  b.peers(a);
  await b.connected('a');
  const stale = await member(t, 'x', { tls: tlsOf({ ...ca.node('x'), ...both }) });
  stale.peers(b);
  await b.logged(/tls.ca does not vouch/);
});

test('a connection is cut on both sides once a certificate of it has expired', async (t) => {
  const ca = authority(t);
  const times = [new Date(Date.now() - 60_000), new Date(Date.now() + 10_000)] as const;
  const short = ca.material(ca.issueFor('short', 'URI:broker://c/node/a', times));
  const a = await member(t, 'a', { tls: tlsOf(short) });
  const b = await member(t, 'b', { tls: tlsOf(ca.node('b')) });
  a.peers(b);
  b.peers(a);
  await Promise.all([a.connected('b'), b.connected('a')]);
  await until(
    () => b.unreachable.length > 0 && a.unreachable.length > 0,
    () => 'they are connected still',
  );
  await b.logged(/the peer's certificate has expired/);
  await b.logged(/^its certificate has expired$/);
});

test('[F12] a connection is cut on both sides once the authority of the other is taken away; another one more, and other authorities, end nothing', async (t) => {
  const [ca, next] = [authority(t), authority(t, 'next')];
  const both = pem(ca.cert) + pem(next.cert);
  const [ofA, ofB] = [
    { ...ca.node('a'), ca: both },
    { ...next.node('b'), ca: both },
  ];
  const [tlsA, tlsB] = [tlsOf({ ...ofA, ca: both }), tlsOf({ ...ofB, ca: both })];
  const [a, b] = await Promise.all([member(t, 'a', { tls: tlsA }), member(t, 'b', { tls: tlsB })]);
  a.peers(b);
  b.peers(a);
  await Promise.all([a.connected('b'), b.connected('a')]);
  // A knows itself: of the authority of its own certificate nothing hangs here.
  tlsA.set({ ...ofA, ca: pem(next.cert) });
  const third = authority(t, 'third');
  tlsA.set({ ...ofA, ca: pem(next.cert) + pem(third.cert) });
  await frameArrives(a, b);
  await frameArrives(b, a);
  assert.deepEqual([a.unreachable, b.unreachable], [[], []]);
  tlsB.set({ ...ofB, ca: pem(next.cert) });
  // What b dialed, and what a did.
  await b.logged(/the peer's certificate is not good any more: its authority is not in tls\.ca/);
  await b.logged(/^its authority is not in tls\.ca any more$/);
  await b.logged(/tls\.ca does not vouch for its certificate|self.signed|unable to/i);
  tlsA.set({ ...next.node('a') });
  await frameArrives(a, b);
  await frameArrives(b, a);
});

test('[F12] who is in the handshake when an authority is taken away has to come again', async (t) => {
  const [ca, next] = [authority(t), authority(t, 'next')];
  const material = { ...next.node('b'), ca: pem(ca.cert) + pem(next.cert) };
  const tls = tlsOf(material);
  const b = await member(t, 'b', { tls });
  const stranger = new Stranger(t, b.port).write(Buffer.of(0x16));
  await until(
    () => tls.standing > 0,
    () => 'no handshake has begun',
  );
  tls.set({ ...material, ca: pem(next.cert) });
  await stranger.closed();
  await b.logged(/its authority is not in tls\.ca any more/);
});

test('while TLS is optional clear text is taken and spoken with a peer that knows nothing else, and left as soon as it knows more', async (t) => {
  const ca = authority(t);
  const a = await member(t, 'a', { tls: tlsOf(ca.node('a'), true) });
  const before = await member(t, 'b');
  a.peers(before);
  before.peers(a);
  await Promise.all([a.connected('b'), before.connected('a')]);
  await frameArrives(a, before);
  await frameArrives(before, a);
  const { port } = before;
  await before.network.close();
  const after = await member(t, 'b', { port, tls: tlsOf(ca.node('b')) });
  after.peers(a);
  await Promise.all([a.connected('b'), after.connected('a')]);
  await frameArrives(a, after);
  await frameArrives(after, a);
});

test('while TLS is optional a peer with a bad certificate is not spoken to in clear text', async (t) => {
  const [ca, other] = [authority(t), authority(t, 'other')];
  const begins: (number | undefined)[] = [];
  const { cert, key } = other.node('b');
  const server = createTlsServer({ cert, key });
  server.on('tlsClientError', () => undefined);
  const port = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.once('readable', () => {
      const first = socket.read(1) as Buffer | null;
      begins.push(first?.[0]);
      if (first !== null) socket.unshift(first);
      server.emit('connection', socket);
    });
  });
  await new Promise<void>((resolve) => port.listen(0, HOST, resolve));
  t.after(() => port.close());
  const a = await member(t, 'a', { tls: tlsOf(ca.node('a'), true) });
  a.peers({ node: 'b', address: `${HOST}:${(port.address() as AddressInfo).port}` });
  await until(
    () => begins.length >= 4,
    () => JSON.stringify(begins),
  );
  const HANDSHAKE = 0x16;
  assert.deepEqual(new Set(begins), new Set([HANDSHAKE]));
});

test('a flood of handshakes gets its share of the thread, and keeps no peer at another address out', async (t) => {
  const ca = authority(t);
  const [a, b] = await securePair(t, ca);
  // What a client sends first, recorded: a flood costs whoever sends it next to nothing.
  const first = await firstBytesOf(t);
  const flood: Stranger[] = [];
  const began = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    for (let i = 0; i < 20; i++) flood.push(new Stranger(t, b.port, '127.0.0.2').write(first));
    sent += 20;
    assert.ok(a.sendClock('b', sent), 'the good peers are disturbed');
  }, 10);
  t.after(() => clearInterval(timer));
  await until(
    () => b.network.counters.unspoken > 100,
    () => `${b.network.counters.unspoken} of ${sent}`,
  );
  const x = await member(t, 'x', { tls: tlsOf(ca.node('x')) });
  x.peers(b);
  await x.connected('b');
  clearInterval(timer);
  const seconds = (performance.now() - began) / 1_000;
  const answered = flood.filter(({ received }) => received.length > 0).length;
  // 8 at once and 50 a second; those of the good peers are among them.
  assert.ok(answered <= 8 + 50 * seconds, `${answered} of ${sent} in ${seconds} s`);
  assert.ok(sent > 2 * answered, `${answered} of ${sent}: no flood`);
  assert.deepEqual([a.unreachable, b.unreachable], [[], []]);
});

/** The first flight of a TLS client. */
function firstBytesOf(t: TestContext): Promise<Buffer> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.once('data', resolve));
    t.after(() => server.close());
    server.listen(0, HOST, () => {
      const { port } = server.address() as AddressInfo;
      const client = connect({ host: HOST, port });
      client.on('error', () => client.destroy());
      t.after(() => client.destroy());
    });
  });
}
