/** What comes through Envoy to a broker, and what does not: long streams, browsers, paths, connections. */
import assert from 'node:assert/strict';
import { connect as connectHttp2 } from 'node:http2';
import { after, test } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { connectionManager, find, type Node } from '../servers/envoy.ts';
import { startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { succeeded } from '../support/commands.ts';
import { until } from '../support/until.ts';
import { decodeMessage, decodeNumber, encodePublish, encodeSubscribe } from '../support/wire.ts';
import { Caller, setMethodBuckets, startEnvoy, tokens } from './envoy-rig.ts';

const UNIMPLEMENTED = 12;
const ORIGIN = 'https://broker.example.com';

const broker = await startBroker();
after(() => broker.dispose());

function start(t: Parameters<typeof startEnvoy>[0], change?: (config: Node) => void, concurrency = 1) {
  const options = { file: 'envoy/one-node.yaml', brokers: [broker.address], concurrency } as const;
  return startEnvoy(t, change === undefined ? options : { ...options, change });
}

test('the client works through Envoy: calls, publishers, subscriptions of both kinds, health', async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  await using client = connect(envoy.address, { timeoutMs: 30_000 });
  await using live = client.subscribe('front.live', { broadcasts: true });
  await live.started;
  assert.equal(await client.publish('front.live', 'one'), 1);
  await client.broadcast('front.live', 'shout');
  assert.equal((await client.fetch('front.live', 1)).text, 'one');
  const heard: string[] = [];
  for await (const message of live) {
    heard.push(message.text);
    if (heard.length === 2) break;
  }
  assert.deepEqual(heard.sort(), ['one', 'shout']);

  await using publisher = client.publisher();
  const ids = await Promise.all(Array.from({ length: 500 }, (_, n) => publisher.publish('front.many', `${n}`)));
  assert.deepEqual(
    ids,
    Array.from({ length: 500 }, (_, n) => n + 1),
  );
  await using many = client.subscribe('front.many', { start: 'earliest' });
  let next = 1;
  for await (const { id, text } of many) {
    assert.deepEqual([id, text], [next, `${next - 1}`]);
    if (next++ === 500) break;
  }
  assert.equal((await succeeded(['health', 'broker.Broker', '--address', envoy.address])).status, 'SERVING');
});

test('Envoy asks for a new connection when one is old; the streams on it go on', async (t) => {
  const envoy = await start(t, (config) => {
    const manager = connectionManager(config);
    manager.drain_timeout = '0.2s';
    const options = find(manager, 'common_http_protocol_options');
    assert.equal(options.max_connection_duration, '3600s');
    options.max_connection_duration = '1s';
  });
  if (envoy === null) return;
  const client = new BrokerClient(envoy.address);
  t.after(() => client.close());
  const ids: number[] = [];
  const ends: unknown[] = [];
  client.subscribe(
    'old',
    { at: 'earliest' },
    { onMessage: ({ id }) => ids.push(id), onEnd: (error) => ends.push(error) },
  );
  await client.publish({ subject: 'old', body: Buffer.from('m') });
  await until(
    () => ids.length === 1,
    () => ids,
  );
  // Calls go to another connection, the stream stays where it is.
  await envoy.waitForStat('http.grpc.downstream_cx_max_duration_reached', (count) => count >= 1);
  let published = 1;
  await until(
    async () => {
      await client.publish({ subject: 'old', body: Buffer.from('m') });
      published += 1;
      return (await envoy.stat('http.grpc.downstream_cx_total')) > 1;
    },
    () => 'no new connection',
  );
  await until(
    () => ids.length === published,
    () => `${ids.length} of ${published}`,
  );
  assert.deepEqual(ends, []);
});

test('a stream ends at the deadline that the client set, and not before it', async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  const session = connectHttp2(`http://${envoy.address}`);
  t.after(() => session.destroy());
  // A client that leaves it to the server: it says when, and waits.
  const begun = performance.now();
  const stream = session.request({
    ':method': 'POST',
    ':path': '/broker.Broker/Subscribe',
    'content-type': 'application/grpc',
    te: 'trailers',
    'grpc-timeout': '1500m',
  });
  stream.end(framed(encodeSubscribe('deadline', { at: 'new' })));
  stream.resume();
  const status = await new Promise<unknown>((resolve) => {
    stream.on('trailers', (headers) => resolve(headers['grpc-status']));
    stream.on('response', (headers) => headers['grpc-status'] !== undefined && resolve(headers['grpc-status']));
    // Headers have come already: what is left is to reset it.
    stream.on('error', () => resolve('reset'));
    stream.on('close', () => resolve('reset'));
  });
  assert.ok(status === '4' || status === 'reset', String(status));
  assert.ok(performance.now() - begun >= 1_400, 'too soon');
});

test('many streams take several connections to the broker, and connections are shared out among threads', async (t) => {
  const envoy = await start(t, undefined, 2);
  if (envoy === null) return;
  const callers = [];
  for (let n = 0; n < 8; n += 1) {
    const caller = new Caller(t, envoy.address);
    assert.equal((await caller.publish('spread')).code, 0);
    callers.push(caller);
  }
  const shares = await envoy.stats(/^listener\.127\.0\.0\.1_\d+\.worker_\d\.downstream_cx_active$/);
  const port = envoy.address.split(':')[1];
  const own = [...shares].filter(([name]) => name.includes(`_${port}.`)).map(([, count]) => count);
  assert.deepEqual(own, [4, 4]);

  const client = new BrokerClient(envoy.address);
  t.after(() => client.close());
  let live = 0;
  const before = await envoy.stat('cluster.brokers.upstream_cx_active');
  for (let n = 0; n < 250; n += 1) {
    client.subscribe(`spread.${n}`, { at: 'new' }, { onMessage: () => undefined, onLive: () => (live += 1) });
  }
  await until(
    () => live === 250,
    () => `${live} live`,
  );
  assert.ok((await envoy.stat('cluster.brokers.upstream_cx_active')) >= before + 2);
});

test('what changes a node or the cluster, and what only nodes say to each other, has no way through Envoy', async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const begun = await envoy.stat('cluster.brokers.upstream_rq_total');
  for (const path of [
    '/broker.v1.Admin/Status',
    '/broker.v1.Admin/ResizeShards',
    '/broker.v1.Admin/TrimSubject',
    '/broker.v1.Cluster/Remove',
    '/broker.v1.Peer/Exchange',
    '/broker.Broker/Publish/',
    '/broker.Broker/publish',
    '/',
  ]) {
    assert.equal((await caller.call(path, Buffer.alloc(0))).code, UNIMPLEMENTED, path);
  }
  assert.equal(
    (await caller.call('/broker.v1.Admin/SubjectInfo', Buffer.alloc(0))).code,
    3,
    'INVALID_ARGUMENT: it came through',
  );
  assert.equal(await envoy.stat('cluster.brokers.upstream_rq_total'), begun + 1);
  // Nor has what is no gRPC at all.
  const plain = await fetch(`http://${envoy.address}/broker.Broker/Publish`, { method: 'POST', body: 'x' });
  assert.equal(plain.status, 404);
});

test('scrapers see figures and readiness, and nothing else of the admin pages', async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  const status = async (path: string, method = 'GET'): Promise<number> => {
    const answer = await fetch(`http://${envoy.statsAddress}${path}`, { method });
    await answer.arrayBuffer();
    return answer.status;
  };
  assert.equal(await status('/ready'), 200);
  const page = await (await fetch(`http://${envoy.statsAddress}/stats/prometheus`)).text();
  assert.match(page, /^envoy_cluster_membership_healthy\{envoy_cluster_name="brokers"\} 1$/m);
  for (const path of [
    '/',
    '/config_dump',
    '/stats',
    '/runtime',
    '/stats/prometheus/..%2f..%2fconfig_dump',
    '/ready/../clusters',
  ]) {
    assert.ok([400, 404].includes(await status(path)), path);
  }
  for (const path of ['/quitquitquit', '/runtime_modify?limit.global.enabled=0', '/ready', '/drain_listeners']) {
    assert.equal(await status(path, 'POST'), 404, path);
  }
  assert.equal(await status('/ready'), 200);
});

test('a call with too many headers is refused by itself', async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  const many = Object.fromEntries(Array.from({ length: 80 }, (_, n) => [`x-h-${n}`, 'v']));
  assert.notEqual((await caller.publish('headers', many)).code, 0);
  assert.equal((await caller.publish('headers', { 'x-h': 'v' })).id, 1);
});

test("a client cannot give Envoy orders: timeouts and repeats are those of the file, not those of the client's headers", async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  const caller = new Caller(t, envoy.address);
  for (let n = 1; n <= 5; n += 1) {
    assert.equal((await caller.publish('orders', { 'x-envoy-upstream-rq-timeout-ms': '1' })).id, n);
  }
});

/** A frame of gRPC. */
function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Frames of a whole gRPC-Web body: messages, and the text of the trailers. */
function unframed(body: Buffer): { messages: Buffer[]; trailers: string } {
  const messages: Buffer[] = [];
  let trailers = '';
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32BE(at + 1);
    const content = body.subarray(at + 5, at + 5 + length);
    if (body[at] === 0x80) trailers += content.toString('latin1');
    else messages.push(content);
    at += 5 + length;
  }
  return { messages, trailers };
}

/** As a browser does it: over HTTP/1.1, with an origin. */
function postWeb(address: string, method: string, message: Uint8Array, kind: 'binary' | 'text', origin = ORIGIN) {
  const bytes = framed(message);
  const type = kind === 'text' ? 'application/grpc-web-text' : 'application/grpc-web+proto';
  return fetch(`http://${address}/broker.Broker/${method}`, {
    method: 'POST',
    headers: { 'content-type': type, accept: type, 'x-grpc-web': '1', origin },
    body: kind === 'text' ? bytes.toString('base64') : new Uint8Array(bytes),
  });
}

/** In text every piece that was sent is base64 of its own, with its own padding. */
function fromText(text: string): Buffer {
  return Buffer.concat((text.match(/[^=]+=*/g) ?? []).map((piece) => Buffer.from(piece, 'base64')));
}

for (const kind of ['binary', 'text'] as const) {
  test(`a gRPC-Web call passes (${kind}), its refusal is one that a browser can read, and a stream comes as it is published`, async (t) => {
    const limited = { '/broker.Broker/Publish': tokens(2) };
    const envoy = await start(t, (config) => setMethodBuckets(config, limited));
    if (envoy === null) return;
    const subject = `web.${kind}`;
    const read = async (answer: Response): Promise<Buffer> =>
      kind === 'text' ? fromText(await answer.text()) : Buffer.from(await answer.arrayBuffer());
    for (const id of [1, 2]) {
      const answer = await postWeb(envoy.address, 'Publish', encodePublish({ subject, body: Buffer.from('m') }), kind);
      assert.equal(answer.status, 200);
      assert.equal(answer.headers.get('access-control-allow-origin'), ORIGIN);
      const { messages, trailers } = unframed(await read(answer));
      assert.deepEqual(
        messages.map((message) => decodeNumber(message)),
        [id],
      );
      assert.match(trailers, /^grpc-status: ?0\r\n/m);
    }
    const refused = await postWeb(envoy.address, 'Publish', encodePublish({ subject, body: Buffer.from('m') }), kind);
    const body = await read(refused);
    const said = refused.headers.get('grpc-status') ?? /grpc-status: ?(\d+)/.exec(unframed(body).trailers)?.[1];
    assert.equal(said, '8');
    assert.ok(Number(refused.headers.get('retry-after')) > 0);
    assert.match(refused.headers.get('access-control-expose-headers') ?? '', /retry-after/);

    const stream = await postWeb(envoy.address, 'Subscribe', encodeSubscribe(subject, { at: 'earliest' }), kind);
    const reader = (stream.body as ReadableStream<Uint8Array>).getReader();
    let bytes: Buffer = Buffer.alloc(0);
    let text = '';
    const ids: number[] = [];
    while (ids.length < 2) {
      const { value, done } = await reader.read();
      assert.equal(done, false);
      if (kind === 'text') {
        text += Buffer.from(value as Uint8Array).toString('latin1');
        bytes = fromText(text);
      } else bytes = Buffer.concat([bytes, value as Uint8Array]);
      ids.splice(0, ids.length, ...unframed(bytes).messages.map((message) => decodeMessage(message).id));
    }
    assert.deepEqual(ids, [1, 2]);
    await reader.cancel();
  });
}

test('pages of other origins are not told that they may call', async (t) => {
  const envoy = await start(t);
  if (envoy === null) return;
  const preflight = async (origin: string) => {
    const answer = await fetch(`http://${envoy.address}/broker.Broker/Publish`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'content-type,x-grpc-web,x-tenant',
      },
    });
    await answer.arrayBuffer();
    return answer.headers;
  };
  const allowed = await preflight(ORIGIN);
  assert.equal(allowed.get('access-control-allow-origin'), ORIGIN);
  assert.equal(allowed.get('access-control-allow-methods'), 'POST');
  assert.match(allowed.get('access-control-allow-headers') ?? '', /x-tenant/);
  assert.equal(allowed.get('access-control-allow-credentials'), null);
  for (const origin of ['https://evil.example', `${ORIGIN}.evil.example`, 'http://broker.example.com', 'null']) {
    assert.equal((await preflight(origin)).get('access-control-allow-origin'), null, origin);
    const call = await postWeb(envoy.address, 'Fetch', Buffer.alloc(0), 'binary', origin);
    await call.arrayBuffer();
    assert.equal(call.headers.get('access-control-allow-origin'), null, origin);
  }
});
