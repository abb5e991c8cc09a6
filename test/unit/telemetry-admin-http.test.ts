import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { request as requestSecure } from 'node:https';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { AdminServer, type AdminSources } from '../../src/telemetry/admin-http.ts';
import type { OnMaterial } from '../../src/tls/tls-keeper.ts';
import { Issuer } from '../support/issuer.ts';
import { until } from '../support/until.ts';
import { onThisMachine } from '../support/yardstick.ts';

interface Answer {
  readonly status: number;
  readonly headers: Record<string, unknown>;
  readonly body: string;
}

const HEALTHY: AdminSources = {
  metrics: () => Promise.resolve('one 1\n'),
  metricsContentType: 'text/plain; version=0.0.4; charset=utf-8',
  alive: () => ({ ready: true, reasons: [] }),
  ready: () => ({ ready: true, reasons: [] }),
  onError: (error) => assert.fail(String(error)),
};

async function serve(
  t: TestContext,
  sources: Partial<AdminSources> = {},
): Promise<(method: string, path: string) => Promise<Answer>> {
  const server = new AdminServer({ ...HEALTHY, ...sources });
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  return async (method, path) => {
    const sent = request({ host: '127.0.0.1', port, method, path, agent: false }).end();
    const [response] = await once(sent, 'response');
    let body = '';
    for await (const chunk of response) body += String(chunk);
    return { status: response.statusCode, headers: response.headers, body };
  };
}

test('GET /metrics answers the text with its content type, HEAD its length only, a query string is ignored', async (t) => {
  const ask = await serve(t);
  const got = await ask('GET', '/metrics?x=1');
  assert.deepEqual([got.status, got.body, got.headers['content-type']], [200, 'one 1\n', HEALTHY.metricsContentType]);
  const head = await ask('HEAD', '/metrics');
  assert.deepEqual([head.status, head.body, head.headers['content-length']], [200, '', '6']);
});

test('who holds all connections without asking keeps no probe out, and the oldest of these goes; one that waits for its answer stays, and one that has just asked', async (t) => {
  const held: ((text: string) => void)[] = [];
  const metrics = (): Promise<string> => new Promise((resolve) => held.push(resolve));
  const server = new AdminServer({ ...HEALTHY, metrics }, { connections: 5 });
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  const open = async () => {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    return { socket, closed: new Promise((resolve) => socket.resume().on('close', resolve)) };
  };
  const scrapes = await open();
  const asks = await open();
  asks.socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
  await until(
    () => held.length === 1,
    () => 'nothing was asked',
  );
  const idle = [await open(), await open(), await open()];
  // Open for the longest time, and the last one that has asked.
  scrapes.socket.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
  await once(scrapes.socket, 'data');
  const probe = await open();
  probe.socket.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
  const [answer] = await once(probe.socket, 'data');
  assert.match(String(answer), /^HTTP\/1\.1 200 /);
  await idle[0]?.closed;
  assert.deepEqual(
    [scrapes, asks, ...idle.slice(1), probe].map(({ socket }) => socket.closed),
    [false, false, false, false, false],
  );
  const got = once(asks.socket, 'data');
  held[0]?.('one 1\n');
  assert.match(String((await got)[0]), /^HTTP\/1\.1 200 /);
});

test('requests that never come to their end, and pages that are being made, keep no probe from its answer', async (t) => {
  let made = 0;
  const metrics = (): Promise<string> => {
    made += 1;
    return new Promise(() => undefined);
  };
  const server = new AdminServer({ ...HEALTHY, metrics }, { connections: 8, answers: 2 });
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  const send = async (text: string): Promise<Socket> => {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    t.after(() => socket.destroy());
    await once(socket, 'connect');
    socket.write(text);
    return socket;
  };
  const probe = async (path: string): Promise<string> => {
    const socket = await send(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    const [answer] = await once(socket, 'data');
    return String(answer).slice(0, 12);
  };
  for (let n = 0; n < 8; n++) await send('GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n');
  assert.equal(await probe('/healthz'), 'HTTP/1.1 200', 'one that asks goes before those that have not asked yet');
  for (let n = 0; n < 2; n++) await send('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n');
  await until(
    () => made === 2,
    () => `${made} pages are being made`,
  );
  assert.equal(await probe('/metrics'), 'HTTP/1.1 503');
  assert.deepEqual([await probe('/healthz'), await probe('/readyz')], ['HTTP/1.1 200', 'HTTP/1.1 200']);
});

test('/healthz and /readyz answer 200 or 503 with the reasons', async (t) => {
  const state = { alive: true, ready: false };
  const ask = await serve(t, {
    alive: () => ({ ready: state.alive, reasons: state.alive ? [] : ['shard 1 is dead'] }),
    ready: () => ({ ready: state.ready, reasons: state.ready ? [] : ['no Raft quorum', 'starting'] }),
  });
  assert.deepEqual([(await ask('GET', '/healthz')).status, (await ask('GET', '/readyz')).status], [200, 503]);
  assert.deepEqual(JSON.parse((await ask('GET', '/readyz')).body), {
    status: 'unavailable',
    reasons: ['no Raft quorum', 'starting'],
  });
  state.alive = false;
  state.ready = true;
  assert.deepEqual([(await ask('GET', '/healthz')).status, (await ask('GET', '/readyz')).status], [503, 200]);
  assert.deepEqual(JSON.parse((await ask('GET', '/readyz')).body), { status: 'ok', reasons: [] });
});

test('other paths are 404 and other methods 405, both in JSON; a page that fails is 500 and reported, without its stack', async (t) => {
  const errors: unknown[] = [];
  const ask = await serve(t, {
    metrics: () => Promise.reject(new Error('secret')),
    onError: (error) => errors.push(error),
  });
  for (const path of ['/', '/metricsx', '/..%2f', '//']) {
    const got = await ask('GET', path);
    assert.deepEqual([got.status, got.headers['content-type']], [404, 'application/json'], path);
    assert.equal(typeof JSON.parse(got.body).error, 'string');
  }
  const post = await ask('POST', '/metrics');
  assert.deepEqual([post.status, post.headers.allow], [405, 'GET, HEAD']);
  JSON.parse(post.body);
  const failed = await ask('GET', '/metrics');
  assert.equal(failed.status, 500);
  assert.ok(!failed.body.includes('secret'));
  assert.equal(errors.length, 1);
});

test('headers over 8 KiB are refused', async (t) => {
  const server = new AdminServer(HEALTHY);
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  const long = connect(port, '127.0.0.1');
  long.write(`GET /metrics HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(9_000)}\r\n\r\n`);
  const [answer] = await once(long, 'data');
  assert.match(String(answer), /^HTTP\/1.1 431 /);
  long.destroy();
});

test('a port that is taken is an error that names it; close may be called twice and cuts who does not go', async (t) => {
  const server = new AdminServer(HEALTHY);
  const port = await server.listen('127.0.0.1', 0);
  await assert.rejects(new AdminServer(HEALTHY).listen('127.0.0.1', port), { code: 'EADDRINUSE' });
  const socket = connect(port, '127.0.0.1');
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  socket.write('GET /metrics HTTP/1.1\r\n');
  socket.on('error', () => socket.destroy());
  const started = performance.now();
  await server.close();
  await server.close();
  const closedMs = performance.now() - started;
  assert.ok(closedMs < (await onThisMachine(2_000)), `${closedMs} ms`);
});

test('with TLS: pages over HTTPS, clear text and half a handshake are cut off, new certificates are shown, and whoever holds all connections keeps no probe out', async (t) => {
  const root = await Issuer.root('root');
  const material = async () => ({
    ...(await root.issue('node')),
    ca: null,
    expiresAtMs: Number.POSITIVE_INFINITY,
    name: null,
    warnings: [],
  });
  const listeners: OnMaterial[] = [];
  const keeper = { material: await material(), listen: (listener: OnMaterial) => void listeners.push(listener) };
  const said: string[] = [];
  const news = { warn: (kind: string) => void said.push(kind) };
  const server = new AdminServer(HEALTHY, { connections: 2 }, { keeper, minVersion: 'TLSv1.2', news });
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  const options = { host: '127.0.0.1', port, ca: root.cert, servername: 'localhost', agent: false };
  const ask = async (): Promise<readonly [number | undefined, string]> => {
    const sent = requestSecure({ ...options, path: '/readyz' }).end();
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    response.resume();
    const { serialNumber } = (response.socket as TLSSocket).getPeerCertificate();
    await once(response, 'end');
    return [response.statusCode, serialNumber];
  };
  const [status, before] = await ask();
  assert.equal(status, 200);

  const clear = request({ host: '127.0.0.1', port, path: '/readyz', agent: false }).end();
  await once(clear, 'error');
  assert.deepEqual(said, ['tls_admin_clear_text']);

  const held: Socket[] = [];
  t.after(() => {
    for (const socket of held) socket.destroy();
  });
  for (let n = 0; n < 2; n++) {
    held.push(connect({ host: '127.0.0.1', port }));
    await once(held[n] as Socket, 'connect');
  }
  keeper.material = await material();
  for (const listener of listeners) listener(keeper.material, false);
  const [again, after] = await ask();
  assert.equal(again, 200);
  assert.notEqual(after, before);
});
