/** Who is let in at the admin port, and who is not: by raw bytes, as an attacker would write them. */
import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import {
  type AdminLimits,
  type AdminPages,
  type AdminRequest,
  AdminServer,
  json,
} from '../../src/telemetry/admin-http.ts';

interface Rig {
  readonly port: number;
  /** What has come through all guards. */
  readonly let: AdminRequest[];
  /** Sends raw bytes and reads until the server closes. */
  readonly raw: (bytes: string | Buffer) => Promise<string>;
  /** The status of a request with these header lines. */
  readonly status: (request: string, ...headers: string[]) => Promise<number>;
}

async function serve(
  t: TestContext,
  limits: Partial<AdminLimits> = {},
  answer?: AdminPages['answer'],
  metrics: () => Promise<string> = () => Promise.resolve('one 1\n'),
): Promise<Rig> {
  const through: AdminRequest[] = [];
  const pages: AdminPages = {
    hosts: ['broker.example.com'],
    answer: async (request) => {
      through.push(request);
      return answer === undefined ? json(200, 'page') : await answer(request);
    },
  };
  const sources = {
    metrics,
    metricsContentType: 'text/plain',
    alive: () => ({ ready: true, reasons: [] }),
    ready: () => ({ ready: true, reasons: [] }),
    onError: (error: unknown) => assert.fail(String(error)),
    pages,
  };
  const server = new AdminServer(sources, limits);
  const port = await server.listen('127.0.0.1', 0);
  t.after(() => server.close());
  const raw = async (bytes: string | Buffer): Promise<string> => {
    const socket = connect(port, '127.0.0.1');
    t.after(() => socket.destroy());
    socket.write(bytes);
    return await readAll(socket);
  };
  const status = async (request: string, ...headers: string[]): Promise<number> => {
    const text = await raw([request, ...headers, 'Connection: close', '', ''].join('\r\n'));
    return statusOf(text);
  };
  return { port, let: through, raw, status };
}

async function readAll(socket: Socket): Promise<string> {
  let text = '';
  socket.on('data', (chunk) => {
    text += String(chunk);
  });
  // What is reset behind the answer has been answered.
  socket.on('error', () => socket.destroy());
  // `once` of node:events would reject with that error.
  await new Promise((resolve) => socket.on('close', resolve));
  return text;
}

function statusOf(text: string): number {
  return Number(/^HTTP\/1\.1 (\d{3}) /.exec(text)?.[1] ?? 0);
}

test('names that the node knows and addresses are served; any other Host is 421, as one that DNS was bent to would be', async (t) => {
  const { status, port, let: through } = await serve(t);
  const known = ['localhost', 'LocalHost', 'localhost.', '127.0.0.1', '10.1.2.3', '[::1]', 'broker.example.com'];
  for (const host of known) {
    assert.equal(await status('GET / HTTP/1.1', `Host: ${host}`), 200, host);
    assert.equal(await status('GET /api/v1/overview HTTP/1.1', `Host: ${host}:${port}`), 200, host);
  }
  const passed = through.length;
  const unknown = [
    ...[
      'evil.example',
      'localhost.evil.example',
      'xlocalhost',
      '127.0.0.1.nip.io',
      '0x7f.1',
      '2130706433',
      '[::1',
      '::1',
    ],
    ...[
      'localhost:80:80',
      'user@localhost',
      'localhost/',
      '[evil.example]',
      '[dead.beef]',
      'broker.example.com.evil.example',
      '',
    ],
  ];
  for (const host of unknown) {
    assert.equal(await status('GET / HTTP/1.1', `Host: ${host}`), 421, host);
    assert.equal(await status('GET /api/v1/overview HTTP/1.1', `Host: ${host}`), 421, host);
    assert.equal(await status('POST /api/v1/shards/resize HTTP/1.1', `Host: ${host}`, 'Content-Length: 0'), 421, host);
  }
  assert.equal(through.length, passed, 'a refused request came through');
});

test('probes and scrapers may use any name', async (t) => {
  const { status } = await serve(t);
  for (const path of ['/metrics', '/healthz', '/readyz']) {
    assert.equal(await status(`GET ${path} HTTP/1.1`, 'Host: broker-0.broker.default.svc'), 200, path);
  }
});

test('no Host, two of them, or a target that is a whole address are not served', async (t) => {
  const { status, raw, let: through } = await serve(t);
  assert.equal(await status('GET / HTTP/1.1'), 400);
  assert.equal(statusOf(await raw('GET / HTTP/1.0\r\n\r\n')), 421);
  assert.equal(await status('GET / HTTP/1.1', 'Host: localhost', 'Host: evil.example'), 400);
  assert.equal(through.length, 0);
  // The name in the target would count for others (RFC 9112, section 3.2.2); here it is a path that does not exist.
  await status('GET http://evil.example/ HTTP/1.1', 'Host: localhost');
  assert.notEqual(through[0]?.path, '/');
});

test('what a page of another origin or site asks for is refused, whatever it asks for; a link to the entrance is not', async (t) => {
  const { status, let: through } = await serve(t);
  const host = 'Host: localhost:8000';
  for (const origin of ['http://localhost:8000', 'https://localhost:8000']) {
    assert.equal(await status('GET /api/v1/overview HTTP/1.1', host, `Origin: ${origin}`), 200, origin);
  }
  for (const site of ['same-origin', 'none']) {
    assert.equal(await status('GET /api/v1/overview HTTP/1.1', host, `Sec-Fetch-Site: ${site}`), 200, site);
  }
  const link = ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Dest: document'];
  assert.equal(await status('GET / HTTP/1.1', host, ...link), 200);
  const passed = through.length;
  for (const origin of [
    ...[
      'http://evil.example',
      'http://localhost:8001',
      'http://localhost',
      'null',
      'http://localhost:8000.evil.example',
    ],
    ...['ftp://localhost:8000', 'http://127.0.0.1:8000', 'localhost:8000', ''],
  ]) {
    assert.equal(await status('GET /api/v1/overview HTTP/1.1', host, `Origin: ${origin}`), 403, origin);
    assert.equal(await status('POST /x HTTP/1.1', host, `Origin: ${origin}`, 'Content-Length: 0'), 403, origin);
  }
  assert.equal(await status('GET /api/v1/overview HTTP/1.1', host, ...link), 403);
  assert.equal(await status('POST / HTTP/1.1', host, ...link, 'Content-Length: 0'), 403);
  const frame = ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Mode: navigate', 'Sec-Fetch-Dest: iframe'];
  assert.equal(await status('GET / HTTP/1.1', host, ...frame), 403);
  for (const site of ['cross-site', 'same-site', 'other']) {
    assert.equal(await status('GET /console/x/main.js HTTP/1.1', host, `Sec-Fetch-Site: ${site}`), 403, site);
  }
  assert.equal(through.length, passed, 'a refused request came through');
});

test('a body is read where one belongs, up to 16 KiB, announced or in chunks; more is 413, and so is any with a GET', async (t) => {
  const { raw, status, let: through } = await serve(t, { bodyBytes: 1_000 });
  const host = 'Host: localhost';
  const post = (length: number): string =>
    `POST /x HTTP/1.1\r\n${host}\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`;
  assert.equal(statusOf(await raw(post(1_000) + 'a'.repeat(1_000))), 200);
  assert.equal(through[0]?.body.toString(), 'a'.repeat(1_000));
  // Refused by the announcement: nothing of it is sent.
  assert.equal(statusOf(await raw(post(1_001))), 413);
  assert.equal(statusOf(await raw(post(10_000_000_000))), 413);
  const chunk = `1f4\r\n${'b'.repeat(500)}\r\n`;
  const chunked = `POST /x HTTP/1.1\r\n${host}\r\nTransfer-Encoding: chunked\r\n\r\n`;
  assert.equal(statusOf(await raw(`${chunked}${chunk}${chunk}${chunk}`)), 413);
  for (const path of ['/', '/metrics']) {
    assert.equal(await status(`GET ${path} HTTP/1.1`, host, 'Content-Length: 5'), 413, path);
  }
  assert.equal(through.length, 1);
});

test('whoever sends slowly is cut off, in the headers as in the body', async (t) => {
  const slow = { headersTimeoutMs: 60_000, requestTimeoutMs: 60_000, checkIntervalMs: 50 };
  const inHeaders = await serve(t, { ...slow, headersTimeoutMs: 300 });
  const inBody = await serve(t, { ...slow, headersTimeoutMs: 300, requestTimeoutMs: 400 });
  const slowly = async ({ port }: Rig, begin: string, drop: string): Promise<string> => {
    const socket = connect(port, '127.0.0.1');
    const timer = setInterval(() => socket.write(drop), 50);
    t.after(() => clearInterval(timer));
    socket.write(begin);
    // A drop that crosses the answer resets the connection, and may take the answer with it.
    const text = await readAll(socket);
    clearInterval(timer);
    return text;
  };
  const isCutOff = (text: string): boolean => text === '' || statusOf(text) === 408;
  const headers = await slowly(inHeaders, 'GET / HTTP/1.1\r\nHost: localhost\r\nX-', 'a');
  assert.ok(isCutOff(headers), headers);
  const body = await slowly(inBody, 'POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n', 'a');
  assert.ok(isCutOff(body), body);
  assert.equal(inHeaders.let.length + inBody.let.length, 0);
});

test('bytes that are no HTTP are answered once and cut off; what stands behind a bad request is not read', async (t) => {
  const { raw, let: through } = await serve(t);
  const good = 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n';
  const bad = [
    Buffer.from([0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3, 3]),
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'GET / HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n',
    'GET / HTTP/1.1\nHost: localhost\n\n',
    `GET /${'a'.repeat(20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n`,
    'CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n',
  ];
  for (const bytes of bad) {
    const text = await raw(Buffer.concat([Buffer.from(bytes), Buffer.from(good)]));
    assert.ok([0, 400, 431].includes(statusOf(text)), `${bytes.toString().slice(0, 40)}: ${text.slice(0, 40)}`);
    assert.equal(text.match(/HTTP\/1\.1 200/g), null, `${bytes.toString().slice(0, 40)}`);
  }
  assert.equal(through.length, 0);
  const pipelined = await raw(`${good}${good}GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  assert.equal(pipelined.match(/HTTP\/1\.1 200/g)?.length, 3);
});

test('no connection makes work for more than the limit at one time: a flood is answered 503 and cut off', async (t) => {
  let making = 0;
  let most = 0;
  const held: (() => void)[] = [];
  const metrics = async (): Promise<string> => {
    making += 1;
    most = Math.max(most, making);
    await new Promise<void>((resolve) => held.push(resolve));
    making -= 1;
    return 'one 1\n';
  };
  const { port } = await serve(t, { answers: 4 }, undefined, metrics);
  const socket = connect(port, '127.0.0.1');
  const all = readAll(socket);
  socket.write('GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(20));
  while (held.length < 4) await new Promise((resolve) => setImmediate(resolve));
  // The refusal waits behind the answers of the same connection.
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  for (const release of held) release();
  const text = await all;
  assert.equal(most, 4);
  assert.equal(text.match(/HTTP\/1\.1 200/g)?.length, 4);
  assert.equal(text.match(/HTTP\/1\.1 503/g)?.length, 1);
  assert.match(text, /Retry-After: 1/);
});

test('every answer forbids other sites to embed, run or guess it', async (t) => {
  const { raw } = await serve(t);
  for (const path of ['/', '/metrics', '/healthz', '/nothing']) {
    const text = await raw(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
    for (const header of [
      "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
      'X-Content-Type-Options: nosniff',
      'X-Frame-Options: DENY',
      'Referrer-Policy: no-referrer',
      'Cross-Origin-Resource-Policy: same-origin',
      'Cross-Origin-Opener-Policy: same-origin',
      'Cache-Control: no-store',
    ]) {
      assert.ok(text.includes(`\r\n${header}\r\n`), `${path}: ${header}`);
    }
  }
});
