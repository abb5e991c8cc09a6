/** The console's API on a real broker, by plain HTTP: what it tells, and whom it lets change something. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, describe, it } from 'node:test';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { pause, until } from '../support/until.ts';

interface Answer {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly text: string;
  /** Of many shapes, which the assertions tell. */
  readonly json: ReturnType<JSON['parse']>;
}

function ask(
  broker: BrokerProcess,
  path: string,
  {
    method = 'GET',
    headers = {},
    body = '',
  }: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const [host, port] = broker.adminAddress.split(':');
    const call = request({ host, port, path, method, agent: false, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => {
        const json = response.headers['content-type'] === 'application/json' ? JSON.parse(text) : null;
        resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json });
      });
    });
    call.on('error', reject);
    call.end(body);
  });
}

const get = async (broker: BrokerProcess, path: string): Promise<Answer['json']> => {
  const { status, json } = await ask(broker, `/api/v1/${path}`);
  assert.equal(status, 200, `${path}: ${JSON.stringify(json)}`);
  return json;
};

const PASSWORD = 'canary-of-postgres';
const KEY = 'Y2FuYXJ5LW9mLWdvc3NpcC0hISEhISEhISEhISEhISE=';

describe('the API of the console', () => {
  let broker: BrokerProcess;
  let client: BrokerClient;
  const times: number[] = [];

  before(async () => {
    broker = await startBroker({
      flags: ['--shards', '2'],
      env: { BROKER_POSTGRES_URL: `postgres://user:${PASSWORD}@localhost/db`, BROKER_GOSSIP_KEY: KEY },
    });
    client = new BrokerClient(broker.address);
    for (let i = 1; i <= 3; i += 1) await client.publish({ subject: 'a.b', body: Buffer.from(`m${i}`) });
    await client.incIdx('a.b');
    const headers = [{ key: 'k', value: Buffer.from([0, 255]) }];
    await client.publish({ subject: 'a.b', body: Buffer.from('{"x":1}'), headers, expirationSeconds: 3_600 });
    for (let i = 0; i < 120; i += 1) await client.publish({ subject: `many.${i}`, body: Buffer.alloc(0) });
    for (const id of [1, 2, 3, 5]) times.push((await client.fetch('a.b', id)).publishedAt);
  });

  after(async () => {
    client.close();
    await broker.dispose();
  });

  it('shows messages by id and by time, with the verdict on ids that have none', async () => {
    const all = await get(broker, 'messages?subject=a.b');
    assert.deepEqual(all.subject, { name: 'a.b', first: 1, head: 5, settled: 5, tenant: '' });
    assert.deepEqual(
      all.messages.map((one: Answer['json']) => [
        one.id,
        one.absent?.reason ?? Buffer.from(one.body, 'base64').toString(),
      ]),
      [
        [1, 'm1'],
        [2, 'm2'],
        [3, 'm3'],
        [4, 'ID_VOID'],
        [5, '{"x":1}'],
      ],
    );
    const [last] = (await get(broker, 'messages?subject=a.b&id=5&limit=1')).messages;
    assert.deepEqual(
      [last.publishedAt, last.expirationSeconds, last.headers],
      [times[3], 3_600, [{ key: 'k', value: 'AP8=', valueBytes: 2 }]],
    );
    for (const [index, id] of [1, 2, 3, 5].entries()) {
      const { from } = await get(broker, `messages?subject=a.b&time=${times[index]}`);
      assert.equal(times[[1, 2, 3, 5].indexOf(from)], times[index], `the first id with the time of id ${id}`);
    }
    assert.deepEqual((await get(broker, `messages?subject=a.b&time=${Date.now() + 60_000}`)).messages, []);
    const [beyond] = (await get(broker, 'messages?subject=a.b&id=6&limit=1')).messages;
    assert.equal(beyond.absent.reason, 'ID_NOT_FOUND');
    await client.publish({ subject: 'short', body: Buffer.from('x'), expirationSeconds: 1 });
    await until(
      async () =>
        (await get(broker, 'messages?subject=short&id=1&limit=1')).messages[0].absent?.reason === 'ID_EXPIRED',
      () => 'it does not expire',
    );
  });

  it('pages through subjects, finds them by prefix, and tells what nodes, shards and the whole do', async () => {
    const names: string[] = [];
    for (let page = '', more = true; more; ) {
      const { subjects, next } = await get(broker, `subjects?prefix=many.&page=${page}`);
      assert.ok(subjects.length <= 100);
      names.push(...subjects.map(({ name }: { name: string }) => name));
      page = next;
      more = next !== '';
    }
    assert.equal(new Set(names).size, 120);
    assert.deepEqual((await get(broker, 'subjects?prefix=a.')).subjects, [
      { name: 'a.b', first: 1, head: 5, settled: 5, tenant: '' },
    ]);
    const { node, status, delivered, shards } = await get(broker, 'overview');
    assert.deepEqual([node, delivered, shards.length], [status.nodeId, 0, 2]);
    assert.ok(status.messagesPublished >= 124);
    const nodes = await get(broker, 'nodes');
    assert.deepEqual([nodes.status.role, nodes.cluster.members.length], ['alone', nodes.cluster.members.length]);
    const detail = await get(broker, 'shards');
    assert.deepEqual([detail.shards.length, detail.advice.shards, detail.change.running], [2, 2, false]);
  });

  it('tells who subscribes and how far behind, who is connected, tenants, and settings with their origin', async () => {
    const gate = Promise.withResolvers<void>();
    const subscription = client.subscribe(
      'a.b',
      { at: 'earliest' },
      { onMessage: ({ id }) => id === 5 && gate.resolve() },
    );
    await gate.promise;
    const { subscriptions, total } = await get(broker, 'subscriptions?order=subject&prefix=a.');
    assert.deepEqual([total, subscriptions.length, subscriptions[0].subject, subscriptions[0].sent], [1, 1, 'a.b', 5]);
    assert.deepEqual((await get(broker, 'subscriptions?prefix=b')).subscriptions, []);
    const { connections } = await get(broker, 'connections');
    assert.equal(connections[0].subscriptions, 1);
    subscription.cancel();
    const { tenants } = await get(broker, 'tenants');
    assert.ok(Array.isArray(tenants));
    const { settings } = await get(broker, 'settings');
    const shown = (key: string) => settings.find((one: { key: string }) => one.key === key);
    assert.deepEqual([shown('shards.count').value, shown('shards.count').origin], ['2', 'flag']);
    assert.doesNotMatch(shown('gossip.key').value, /[A-Za-z0-9]/);
    assert.deepEqual((await get(broker, 'session')).without, []);
  });

  it('answers bad questions with what is wrong and what to do', async () => {
    const bad: readonly (readonly [string, number])[] = [
      ['messages?subject=none.such', 400],
      ['messages?subject=a.b&id=0', 400],
      ['messages?subject=a.b&id=9007199254740993', 400],
      ['messages?subject=a.b&id=1&time=1', 400],
      ['messages?subject=a.b&id=1&id=2', 400],
      ['messages?subject=a.b&limit=51', 400],
      ['messages?subject=a.b&limit=1e1', 400],
      ['messages?subject=', 400],
      ['messages', 400],
      ['messages?subject=a..b', 400],
      [`messages?subject=${'a'.repeat(256)}`, 400],
      ['subjects?page=x', 400],
      ['subjects?prefx=a', 400],
      ['overview?x=1', 400],
      ['subscriptions?order=none', 400],
      ['none', 404],
      ['', 404],
      ['__proto__', 404],
      ['shards/resize', 405],
    ];
    for (const [path, expected] of bad) {
      const { status, json } = await ask(broker, `/api/v1/${path}`);
      assert.equal(status, expected, `${path}: ${JSON.stringify(json)}`);
      assert.ok(json.error.length > 5, path);
      if (expected === 400) assert.ok(json.next.length > 3, path);
    }
    for (const method of ['PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE']) {
      assert.equal((await ask(broker, '/api/v1/overview', { method })).status, 405, method);
    }
    const posted = await ask(broker, '/api/v1/overview', { method: 'POST' });
    assert.deepEqual([posted.status, posted.headers.allow], [405, 'GET, HEAD']);
    const unknown = await ask(broker, '/api/v1/messages?subject=none.such');
    assert.equal(unknown.json.reason, 'SUBJECT_NOT_FOUND');
  });

  it('is read-only without --console-write: no token, and no way around it', async () => {
    const session = await get(broker, 'session');
    assert.deepEqual([session.mayWrite, session.token], [false, '']);
    const origin = `http://${broker.adminAddress}`;
    const headers = { Origin: origin, 'Content-Type': 'application/json', 'X-Broker-Console': '' };
    for (const [path, body] of [
      ['shards/resize', '{"shards":3}'],
      ['advice/apply', '{"recommended":1}'],
    ] as const) {
      const { status, json } = await ask(broker, `/api/v1/${path}`, { method: 'POST', headers, body });
      assert.equal(status, 403);
      assert.match(json.next, /--console-write/);
    }
    assert.equal((await get(broker, 'shards')).shards.length, 2);
  });

  it('has no secret of the configuration in any page', async () => {
    const { text: html } = await ask(broker, '/');
    const files = [...html.matchAll(/(?:src|href)="(\/console[^"]*)"/g)].map(([, path]) => path as string);
    assert.ok(files.length >= 4);
    const answers = [
      'session',
      'overview',
      'nodes',
      'shards',
      'subjects',
      'settings',
      'tenants',
      'connections',
      'none',
    ];
    const paths = ['/', '/metrics', '/none', ...files, ...answers.map((name) => `/api/v1/${name}`)];
    for (const path of paths) {
      const { text } = await ask(broker, path);
      assert.ok(text.length > 0 && !text.includes(PASSWORD) && !text.includes(KEY), path);
    }
  });

  it('costs less than 1 % of a core for a console that asks once a second', async (t) => {
    const cpuMs = (): number => {
      const fields = readFileSync(`/proc/${broker.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
      return (Number(fields[11]) + Number(fields[12])) * 10;
    };
    for (const path of [
      'overview',
      'shards',
      'nodes',
      'subjects',
      'messages?subject=a.b',
      'subscriptions',
      'settings',
    ]) {
      for (let i = 0; i < 20; i += 1) await get(broker, path);
      const rounds = 200;
      const before = cpuMs();
      for (let i = 0; i < rounds; i += 1) await get(broker, path);
      const each = (cpuMs() - before) / rounds;
      t.diagnostic(`${path}: ${each.toFixed(2)} ms of processor time, ${(each / 10).toFixed(2)} % of a core at 1 Hz`);
      // Processor time, which other programs do not add to; a slower processor than ours may take twice as long.
      assert.ok(each < 10, `${path} takes ${each} ms`);
    }
  });
});

describe('the console with --console-write', () => {
  let broker: BrokerProcess;
  let token = '';
  const origin = (): string => `http://${broker.adminAddress}`;
  const good = (): Record<string, string> => ({
    Origin: origin(),
    'Content-Type': 'application/json',
    'X-Broker-Console': token,
  });
  const resize = (headers: Record<string, string>, body = '{"shards":1}'): Promise<Answer> =>
    ask(broker, '/api/v1/shards/resize', { method: 'POST', headers, body });

  before(async () => {
    broker = await startBroker({ flags: ['--shards', '2', '--console-write'] });
    token = (await get(broker, 'session')).token;
  });

  after(() => broker.dispose());

  it('refuses changes that do not come from its own page, one guard at a time', async () => {
    const { Origin: _, ...noOrigin } = good();
    const { 'X-Broker-Console': __, ...noToken } = good();
    const refused: readonly (readonly [string, Record<string, string>, number])[] = [
      ['another origin', { ...good(), Origin: 'http://evil.example' }, 403],
      ['no origin', noOrigin, 403],
      ['an opaque origin', { ...good(), Origin: 'null' }, 403],
      ['a form', { ...good(), 'Content-Type': 'text/plain' }, 415],
      ['a form that begins right', { ...good(), 'Content-Type': 'application/jsonp' }, 415],
      ['no token', noToken, 403],
      ['another token', { ...good(), 'X-Broker-Console': 'a'.repeat(token.length) }, 403],
      ['half a token', { ...good(), 'X-Broker-Console': token.slice(1) }, 403],
      ['another site', { ...good(), 'Sec-Fetch-Site': 'cross-site' }, 403],
      ['a bent name', { ...good(), Host: 'evil.example', Origin: 'http://evil.example' }, 421],
    ];
    for (const [what, headers, status] of refused) {
      const answer = await resize(headers);
      assert.equal(answer.status, status, `${what}: ${answer.text}`);
      assert.ok(answer.json.next.length > 3, what);
    }
    for (const body of [
      '',
      '{',
      '[]',
      '{"shards":"1"}',
      '{"shards":1.5}',
      '{"shards":0}',
      '{"shards":1,"x":1}',
      'null',
    ]) {
      assert.equal((await resize(good(), body)).status, 400, body);
    }
    assert.equal((await resize(good(), `{"shards":${' '.repeat(20_000)}1}`)).status, 413);
    assert.equal((await get(broker, 'shards')).shards.length, 2, 'something was changed');
  });

  it('changes the number of shards, refuses advice that is another one by now, and says so in the log', async () => {
    const tooMany = await resize(good(), '{"shards":64}');
    assert.deepEqual([tooMany.status, tooMany.json.reason], [400, 'SHARDS_INVALID']);
    const { advice } = await get(broker, 'shards');
    const apply = (recommended: number): Promise<Answer> =>
      ask(broker, '/api/v1/advice/apply', { method: 'POST', headers: good(), body: JSON.stringify({ recommended }) });
    assert.equal((await apply(advice.recommended + 1)).status, 409);
    const answer = await resize({ ...good(), 'Content-Type': 'application/json; charset=utf-8' }, '{"shards":3}');
    assert.equal(answer.status, 200, answer.text);
    const settled = async (count: number): Promise<void> =>
      await until(
        async () => {
          const { shards, change } = await get(broker, 'shards');
          return shards.length === count && !change.running;
        },
        () => 'the change does not end',
      );
    await settled(3);
    let advised = 0;
    // The advice comes from a load that is measured each second.
    for (let tries = 0; ; tries += 1) {
      const { recommended } = (await get(broker, 'shards')).advice;
      const { status, text } = await apply(recommended);
      if (status === 200) {
        await settled(recommended);
        advised = recommended;
        break;
      }
      assert.ok(status === 409 && tries < 5, text);
      await pause(200);
    }
    const audited = (shards: number): RegExp =>
      new RegExp(
        `"audit":true,.*"method":"ResizeShards","arguments":"{.*shards.*:${shards},.*console.*}","outcome":"ok"`,
      );
    assert.match(broker.logs, audited(3));
    assert.match(broker.logs, audited(advised));
  });
});

describe('the console switched off', () => {
  it('leaves the pages for machines only', async () => {
    await using broker = await startBroker({ flags: ['--console-enabled', 'false'] });
    const { status, json } = await ask(broker, '/');
    assert.deepEqual([status, json.pages], [404, ['/metrics', '/healthz', '/readyz']]);
    assert.equal((await ask(broker, '/api/v1/overview')).status, 404);
    assert.equal((await ask(broker, '/readyz')).status, 200);
  });
});
