import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { AdminServer, type AdminSources } from '../../src/telemetry/admin-http.ts';
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

test('headers over 8 KiB are refused, and the 65th connection is dropped', async (t) => {
  const server = new AdminServer(HEALTHY);
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  const long = connect(port, '127.0.0.1');
  long.write(`GET /metrics HTTP/1.1\r\nHost: a\r\nX: ${'a'.repeat(9_000)}\r\n\r\n`);
  const [answer] = await once(long, 'data');
  assert.match(String(answer), /^HTTP\/1.1 431 /);
  long.destroy();
  const sockets = Array.from({ length: 64 }, () => connect(port, '127.0.0.1'));
  t.after(() => sockets.map((socket) => socket.destroy()));
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  const last = connect(port, '127.0.0.1');
  let answered = '';
  last.on('data', (chunk) => {
    answered += String(chunk);
    last.destroy();
  });
  last.on('error', () => last.destroy());
  last.write('GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n');
  await new Promise((resolve) => last.on('close', resolve));
  assert.equal(answered, '');
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
