/** Who may do what, through a real broker. */
import assert from 'node:assert/strict';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { after, before, describe, it, type TestContext } from 'node:test';
import { exportJWK, SignJWT } from 'jose';
import type { Client } from '../../src/client/index.ts';
import { ConsumeRequest } from '../../src/grpc/gen/broker/v1/consumer.ts';
import { SubscribeRequest } from '../../src/grpc/gen/broker.ts';
import { hashOf, PAIRS, pairsFile, tokenOf } from '../support/access-pairs.ts';
import { PLENTY } from '../support/consume-stream.ts';
import { parseExposition } from '../support/exposition.ts';
import { CONSUME_PATH, RawStream } from '../support/raw-stream.ts';
import { until } from '../support/until.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { AccessRig, outcomeOf } from './access-rig.ts';

const OPERATOR = `
  - {name: operator, hash: HASH, observe: true, admin: true, allow: {publish: [">"], subscribe: [">"], fetch: [">"]}}
  - {name: watcher, hash: WATCHER, observe: true}
`
  .replace('HASH', hashOf('operator'))
  .replace('WATCHER', hashOf('watcher'));

/** What a reader has got, until it ends. */
function collect(client: Client, subjects: string | string[]) {
  const subscription = client.subscribe(subjects, { start: 'earliest' });
  const seen: string[] = [];
  const ended = (async (): Promise<string> => {
    try {
      for await (const { subject } of subscription) seen.push(subject);
      return 'ok';
    } catch (error) {
      return (error as { reason?: string | null }).reason ?? String(error);
    }
  })();
  return { subscription, seen, ended };
}

describe('permissions', () => {
  let rig: AccessRig;
  let operator: Client;

  before(async () => {
    rig = await AccessRig.start(pairsFile() + OPERATOR);
    operator = rig.as('operator');
  });
  after(() => rig.dispose());

  it(`[F13] ${PAIRS.length} pairs of callers and subjects are allowed and refused as the table says, whatever the method`, async () => {
    const subjects = [...new Set(PAIRS.map(([, , subject]) => subject))].filter((one) => !/(^|\.)[*>](\.|$)/.test(one));
    for (const subject of subjects) await operator.publish(subject, 'x');
    for (const [who, verb, subject, isAllowed] of PAIRS) {
      const client = rig.as(who);
      const wanted = isAllowed ? 'ok' : 'PERMISSION_DENIED';
      const what = `${who} ${verb} ${subject}`;
      if (verb === 'fetch') assert.equal(await outcomeOf(client.fetch(subject, 1)), wanted, what);
      else if (verb === 'publish') {
        assert.equal(await outcomeOf(client.publish(subject, 'x')), wanted, what);
        assert.equal(await outcomeOf(client.broadcast(subject, 'x')), wanted, `${what}: Broadcast`);
        assert.equal(await outcomeOf(client.incrementId(subject)), wanted, `${what}: IncIdx`);
        await using publisher = client.publisher();
        assert.equal(await outcomeOf(publisher.publish(subject, 'x')), wanted, `${what}: PublishStream`);
      } else {
        const { subscription, ended } = collect(client, subject);
        assert.equal(isAllowed ? await outcomeOf(subscription.started) : await ended, wanted, what);
        await subscription.close();
      }
      await client.close();
    }
  });

  it('[F13] a pattern brings what is allowed and nothing that is denied, also of what is born later', async () => {
    await operator.publish('orders.secret', 'x');
    const { subscription, seen } = collect(rig.as('guarded'), '>');
    await subscription.started;
    await operator.publish('orders.secret', 'y');
    await operator.publish('orders.private.born', 'y');
    await operator.publish('zzz.born', 'y');
    await until(
      () => seen.includes('zzz.born'),
      () => seen.join(' '),
    );
    const stored: string[] = [];
    for await (const { subject } of operator.subjects()) stored.push(subject);
    const allowed = stored.filter((one) => one !== 'orders.secret' && !/^[^.]+\.private\../.test(one)).sort();
    await until(
      () => new Set(seen).size >= allowed.length,
      () => `${[...new Set(seen)].sort()} / ${allowed}`,
    );
    assert.deepEqual([...new Set(seen)].sort(), allowed);
    await subscription.close();
  });

  it('a denied batch of a stream is refused in its order, and the stream goes on', async () => {
    await using publisher = rig.as('rest').publisher();
    const outcomes = ['orders.a', 'hr.a', 'orders.a', 'hr.b', 'orders.b'].map((to) =>
      outcomeOf(publisher.publish(to, 'x')),
    );
    assert.deepEqual(await Promise.all(outcomes), ['ok', 'PERMISSION_DENIED', 'ok', 'PERMISSION_DENIED', 'ok']);
    assert.equal(publisher.stats.streams, 1);
  });

  it('nothing tells whether a subject exists', async () => {
    const client = rig.as('plain');
    const refusal = async (subject: string): Promise<string> =>
      await client.fetch(subject, 1).then(
        () => 'ok',
        (error: Error) => error.message,
      );
    assert.equal(await refusal('hr.eu.private'), await refusal('no.such.subject.ever'));
    assert.equal(await outcomeOf(client.subject('hr.eu.private')), 'PERMISSION_DENIED');
    assert.equal(await outcomeOf(client.subject('no.such.subject.ever')), 'PERMISSION_DENIED');
    assert.equal((await client.subject('orders.eu')).subject, 'orders.eu');
  });

  it('who shows nothing, or what nobody has, may do nothing but ask for health', async () => {
    const stranger = rig.withToken('no-such-token');
    assert.equal(await outcomeOf(stranger.publish('orders.eu', 'x')), 'CREDENTIALS_INVALID');
    assert.equal(await outcomeOf(stranger.status()), 'CREDENTIALS_INVALID');
    assert.equal(await stranger.health(), 'SERVING');
    assert.equal(await outcomeOf(rig.as('plain').status()), 'PERMISSION_DENIED');
    assert.equal(await outcomeOf(rig.as('watcher').status()), 'ok');
    assert.equal(await outcomeOf(rig.as('watcher').trim('orders.eu', 1)), 'PERMISSION_DENIED');
    assert.equal(await outcomeOf(rig.as('watcher').fetch('orders.eu', 1)), 'PERMISSION_DENIED');
  });
});

describe('what is taken back', { timeout: 300_000 }, () => {
  let rig: AccessRig;
  const row = (name: string, more = ''): string =>
    `  - {name: ${name}, hash: "${hashOf(name)}", roles: [all]${more}}\n`;
  const role = (lists: string): string => `roles: {all: {${lists}, observe: true, admin: true}}\ntokens:\n`;
  const ALL = role('allow: {publish: [">"], subscribe: [">"], fetch: [">"]}');

  before(async () => {
    rig = await AccessRig.start(ALL + row('stays'));
  });
  after(() => rig.dispose());

  /** One stream of each kind, open and idle. */
  async function openAll(t: TestContext, client: Client) {
    const publisher = client.publisher();
    await publisher.publish('idle.a', 'x');
    const consumed = collect(client, ['idle.a', 'idle.>']);
    const subscribed = (async (): Promise<string> => {
      const subscription = client.subscribe('idle.a', { broadcasts: true });
      plain.resolve(subscription.started);
      try {
        for await (const _ of subscription);
        return 'ok';
      } catch (error) {
        return (error as { reason?: string }).reason ?? String(error);
      }
    })();
    const operating = (async (): Promise<string> => {
      try {
        for await (const _ of client.debugInfo(10_000));
        return 'ok';
      } catch (error) {
        return (error as { reason?: string }).reason ?? String(error);
      }
    })();
    await consumed.subscription.started;
    await plain.promise;
    t.after(() => client.close().catch(() => undefined));
    const published = (async (): Promise<string> => {
      // Nothing is sent on it: that it has ended is told by the next publish.
      await Promise.all([consumed.ended, subscribed, operating]);
      return await outcomeOf(publisher.publish('idle.a', 'x'));
    })();
    return [published, consumed.ended, subscribed, operating];
  }
  let plain = Promise.withResolvers<unknown>();

  /** Each ends with one of these reasons within a second of `change`, and what stays goes on. */
  async function expectEnd(
    t: TestContext,
    name: string,
    more: string,
    change: () => number,
    reason: string,
  ): Promise<void> {
    plain = Promise.withResolvers();
    rig.write(ALL + row('stays') + row(name, more));
    const client = rig.as(name);
    await until(
      async () => (await outcomeOf(client.publish('idle.a', 'x'))) === 'ok',
      () => rig.broker.logs,
    );
    const other = rig.as('stays');
    const stays = collect(other, 'idle.>');
    await stays.subscription.started;
    await using publisher = other.publisher();
    await publisher.publish('idle.stays', 'x');
    const ends = await openAll(t, client);
    const at = change();
    const late = ends.map(async (end) => {
      const found = await end;
      return { found, ms: Date.now() - at };
    });
    const found = await Promise.all(late);
    const limit = await onThisMachine(1_000);
    assert.deepEqual(
      found.map((one) => one.found),
      ends.map(() => reason),
    );
    for (const { ms } of found) assert.ok(ms <= limit, `${ms} ms of ${limit}`);
    await publisher.publish('idle.after', 'x');
    await until(
      () => stays.seen.includes('idle.after'),
      () => stays.seen.join(' '),
    );
    assert.equal(publisher.stats.streams, 1);
    assert.equal(stays.subscription.streams, 1);
    await stays.subscription.close();
  }

  it('[F14] a token that is taken out of the file ends its streams, idle ones too, within a second', async (t) => {
    const change = (): number => {
      rig.write(ALL + row('stays'));
      return Date.now();
    };
    await expectEnd(t, 'removed', '', change, 'CREDENTIALS_INVALID');
  });

  it('[F14] a token whose time is over ends its streams within a second', async (t) => {
    const end = Date.now() + 10_000;
    await expectEnd(t, 'expires', `, expires: "${new Date(end).toISOString()}"`, () => end, 'CREDENTIALS_EXPIRED');
  });

  it('[F14] a role that gives less ends the streams that it gave, within a second', async (t) => {
    const change = (): number => {
      const less = `  - {name: demoted, hash: "${hashOf('demoted')}", allow: {publish: [other], subscribe: [other]}}\n`;
      rig.write(ALL + row('stays') + less);
      return Date.now();
    };
    await expectEnd(t, 'demoted', '', change, 'PERMISSION_DENIED');
  });

  it('[F14] a subscriber that reads nothing is cut off as well, within a second, whichever call it is', async () => {
    const silent = (name: string, more: string): string => `  - {name: ${name}, hash: "${hashOf(name)}", ${more}}\n`;
    const stays = rig.as('stays');
    for (let i = 0; i < 8; i++) await stays.publish('silent.a', Buffer.alloc(200_000));
    const open = (name: string, path: string, request: Uint8Array) => {
      const stream = new RawStream(rig.broker.address, path, { authorization: `Bearer ${tokenOf(name)}` });
      const first = new Promise<void>((resolve) => {
        stream.onMessage = () => {
          stream.pause();
          resolve();
        };
      });
      void stream.send(request);
      if (path !== CONSUME_PATH) stream.halfClose();
      return { stream, first };
    };
    const start = { subject: 'silent.a', earliest: true };
    const opening = { subjects: [start], resumeToken: Buffer.alloc(0), heartbeatMs: 0 };
    const subscribe = SubscribeRequest.encode(start).finish();
    const consume = ConsumeRequest.encode({ open: opening, credit: PLENTY }).finish();
    for (const [name, less] of [
      ['narrowed', 'allow: {subscribe: [other]}'],
      ['over', 'expires: "2020-01-01T00:00:00Z"'],
    ] as const) {
      rig.write(`${ALL}${row('stays')}${silent(name, 'allow: {subscribe: ["silent.>"]}')}`);
      await until(
        async () => (await outcomeOf(rig.as(name).publish('silent.a', 'x'))) === 'PERMISSION_DENIED',
        () => rig.broker.logs,
      );
      const silents = [open(name, '/broker.Broker/Subscribe', subscribe), open(name, CONSUME_PATH, consume)];
      await Promise.all(silents.map(({ first }) => first));
      rig.write(`${ALL}${row('stays')}${silent(name, less)}`);
      const at = Date.now();
      const limit = await onThisMachine(1_000);
      for (const { stream } of silents) {
        const { status, message } = await stream.ended;
        assert.deepEqual([status, message], [null, 'reset with code 8']);
        assert.ok(Date.now() - at <= limit, `${Date.now() - at} ms of ${limit}`);
        stream[Symbol.dispose]();
      }
    }
  });

  it('a role that gives more ends nothing, and patterns find what it adds', async () => {
    const some = 'allow: {publish: ["grow.>"], subscribe: ["grow.a"]}';
    rig.write(`${ALL}${row('stays')}  - {name: grows, hash: "${hashOf('grows')}", ${some}}\n`);
    const stays = rig.as('stays');
    await stays.publish('grow.a', 'x');
    await stays.publish('grow.b', 'x');
    const client = rig.as('grows');
    await until(
      async () => (await outcomeOf(client.publish('grow.a', 'x'))) === 'ok',
      () => rig.broker.logs,
    );
    const { subscription, seen } = collect(client, 'grow.*');
    await subscription.started;
    await until(
      () => seen.includes('grow.a'),
      () => seen.join(' '),
    );
    assert.equal(seen.includes('grow.b'), false);
    const more = 'allow: {publish: ["grow.>"], subscribe: ["grow.>"]}';
    rig.write(`${ALL}${row('stays')}  - {name: grows, hash: "${hashOf('grows')}", ${more}}\n`);
    await until(
      () => seen.includes('grow.b'),
      () => seen.join(' '),
    );
    assert.equal(subscription.streams, 1);
    await subscription.close();
  });

  it('a file with a problem changes nothing and is told of', async () => {
    const client = rig.as('stays');
    rig.write(`${ALL}${row('stays')}  - {name: other, hash: nonsense}\n`);
    await until(
      () => rig.broker.logs.includes('access file has problems'),
      () => rig.broker.logs,
    );
    assert.match(rig.broker.logs, /\.yaml:4: tokens\.1\.hash: must be sha256/);
    assert.equal(await outcomeOf(client.publish('idle.a', 'x')), 'ok');
    rig.write(ALL + row('stays'));
  });

  it('a file that cannot even be looked at changes nothing, is told of, and is noticed when it is back', async () => {
    const client = rig.as('stays');
    const back = rig.as('back');
    rmSync(rig.file);
    symlinkSync(rig.file, rig.file);
    await until(
      () => rig.broker.logs.includes('ELOOP'),
      () => rig.broker.logs,
    );
    assert.equal(await outcomeOf(client.publish('idle.a', 'x')), 'ok');
    assert.equal(await outcomeOf(back.publish('idle.a', 'x')), 'CREDENTIALS_INVALID');
    rig.write(ALL + row('stays') + row('back'));
    await until(
      async () => (await outcomeOf(back.publish('idle.a', 'x'))) === 'ok',
      () => rig.broker.logs,
    );
  });

  it('a client whose token is a function goes on with the next token', async () => {
    rig.write(ALL + row('stays') + row('first'));
    const probe = rig.as('first');
    await until(
      async () => (await outcomeOf(probe.publish('idle.a', 'x'))) === 'ok',
      () => rig.broker.logs,
    );
    const asked: string[] = [];
    const client = rig.withToken(() => {
      const name = asked.length === 0 ? 'first' : 'second';
      asked.push(name);
      return tokenOf(name);
    });
    const { subscription, seen } = collect(client, 'renew.*');
    await subscription.started;
    // Tokens that were asked for a moment ago are not asked for again.
    await new Promise((resolve) => setTimeout(resolve, 2_100));
    rig.write(ALL + row('stays') + row('second'));
    await until(
      () => subscription.streams >= 2,
      () => asked.join(' '),
    );
    await until(
      async () => (await outcomeOf(rig.as('stays').publish('renew.a', 'x'))) === 'ok' && seen.length > 0,
      () => seen.join(' '),
    );
    assert.deepEqual(asked, ['first', 'second']);
    await subscription.close();
  });
});

describe('around it', () => {
  let rig: AccessRig;
  let keysFile: string;
  let auditFile: string;
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const origin = (): string => `http://${rig.broker.adminAddress}`;

  before(async () => {
    auditFile = `${process.env.BROKER_TEST_DIR ?? '/var/tmp'}/broker-audit-${randomBytes(6).toString('hex')}.log`;
    keysFile = `${auditFile}.jwks`;
    writeFileSync(keysFile, JSON.stringify({ keys: [{ ...(await exportJWK(keys.publicKey)), kid: 'one' }] }));
    const jwt = `jwt:\n  - {name: login, issuer: "https://login.example", audience: broker, keys: ${keysFile}, allow: {publish: ["orders.>"]}}\n`;
    rig = await AccessRig.start(`${pairsFile()}${OPERATOR}${jwt}`, [
      '--access-audit-file',
      auditFile,
      '--console-write',
    ]);
  });
  after(async () => {
    await rig.dispose();
    for (const file of [auditFile, keysFile]) rmSync(file, { force: true });
  });

  const sign = (claims: Readonly<Record<string, unknown>> = {}, key = keys.privateKey): Promise<string> =>
    new SignJWT({
      iss: 'https://login.example',
      aud: 'broker',
      sub: 'alice',
      exp: Math.floor(Date.now() / 1_000) + 60,
      ...claims,
    })
      .setProtectedHeader({ alg: 'ES256', kid: 'one' })
      .sign(key);

  it('a JWT is taken, ends its streams when it does, and goes with its key', async () => {
    const end = Math.floor(Date.now() / 1_000) + 8;
    const client = rig.withToken(await sign({ exp: end }));
    const publisher = client.publisher();
    await publisher.publish('orders.eu', 'x');
    assert.equal(await outcomeOf(client.publish('hr.eu', 'x')), 'PERMISSION_DENIED');
    await until(
      async () => (await outcomeOf(publisher.publish('orders.eu', 'x'))) === 'CREDENTIALS_EXPIRED',
      () => 'it goes on',
    );
    assert.ok(Date.now() - end * 1_000 <= (await onThisMachine(1_000)));
    const other = rig.withToken(await sign());
    assert.equal(await outcomeOf(other.publish('orders.eu', 'x')), 'ok');
    const next = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    writeFileSync(keysFile, JSON.stringify({ keys: [{ ...(await exportJWK(next.publicKey)), kid: 'one' }] }));
    await until(
      async () => (await outcomeOf(other.publish('orders.eu', 'x'))) === 'CREDENTIALS_INVALID',
      () => 'it goes on',
    );
    assert.equal(await outcomeOf(rig.withToken(await sign({}, next.privateKey)).publish('orders.eu', 'x')), 'ok');
  });

  it('a file of keys that was missing when the access file came to name it is noticed when it is there', async () => {
    const late = `${keysFile}.late`;
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const was = readFileSync(rig.file, 'utf8');
    rig.write(was.replaceAll(keysFile, late));
    await until(
      () => rig.broker.logs.includes(`${late}: cannot be read`),
      () => rig.broker.logs,
    );
    const client = rig.withToken(await sign({}, privateKey));
    assert.equal(await outcomeOf(client.publish('orders.eu', 'x')), 'CREDENTIALS_INVALID');
    writeFileSync(late, JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: 'one' }] }));
    const other = rig.withToken(await sign({ jti: 'late' }, privateKey));
    await until(
      async () => (await outcomeOf(other.publish('orders.eu', 'x'))) === 'ok',
      () => rig.broker.logs,
    );
    rig.write(was);
    await until(
      async () => (await outcomeOf(other.publish('orders.eu', 'x'))) === 'CREDENTIALS_INVALID',
      () => rig.broker.logs,
    );
    rmSync(late);
  });

  it('a flood of forged tokens is verified only so often, and holds up nobody', async () => {
    const forger = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const token = await sign({}, forger.privateKey);
    let turn = 0;
    // The same signature over other heads: each is a token that nobody has seen.
    const client = rig.withToken(() => `${token}${'A'.repeat(4 * (turn++ % 3))}`);
    const heads = Array.from({ length: 600 }, (_, i) => sign({ jti: String(i) }, forger.privateKey));
    const forged = await Promise.all(heads);
    const { Client: GrpcClient, credentials, Metadata } = await import('@grpc/grpc-js');
    const raw = new GrpcClient(rig.broker.address, credentials.createInsecure());
    const began = performance.now();
    const codes = await Promise.all(
      forged.map(
        (one) =>
          new Promise<string>((resolve) => {
            const metadata = new Metadata();
            metadata.set('authorization', `Bearer ${one}`);
            const bytes = (buffer: Buffer): Buffer => buffer;
            raw.makeUnaryRequest('/broker.Broker/Publish', bytes, bytes, Buffer.alloc(0), metadata, (error) =>
              resolve(error?.details ?? 'ok'),
            );
          }),
      ),
    );
    raw.close();
    await client.close();
    const throttled = codes.filter((details) => details.startsWith('more tokens')).length;
    // 100 of a connection at once, and 50 more a second.
    const most = 100 + Math.ceil((performance.now() - began) / 20);
    assert.ok(codes.length - throttled <= most, `${throttled} of ${codes.length}, ${most} may be verified`);
    assert.ok(throttled > 0);
    assert.equal(codes.includes('ok'), false);
    // Another connection has an allowance of its own.
    assert.equal(await outcomeOf(rig.as('rest').publish('orders.eu', 'x')), 'ok');
  });

  it('metrics need observe, health does not', async () => {
    const get = async (path: string, who?: string): Promise<number> => {
      const headers: Record<string, string> = who === undefined ? {} : { authorization: `Bearer ${tokenOf(who)}` };
      const response = await fetch(`${origin()}${path}`, { headers });
      await response.arrayBuffer();
      return response.status;
    };
    assert.deepEqual(await Promise.all([get('/healthz'), get('/readyz')]), [200, 200]);
    assert.deepEqual(
      [await get('/metrics'), await get('/metrics', 'plain'), await get('/metrics', 'nobody')],
      [401, 403, 401],
    );
    assert.equal(await get('/metrics', 'watcher'), 200);
    const refused = async (): Promise<number> => {
      const response = await fetch(`${origin()}/metrics`, {
        headers: { authorization: `Bearer ${tokenOf('watcher')}` },
      });
      const { samples } = parseExposition(await response.text());
      const found = samples.filter(
        ({ name, labels }) => name === 'broker_access_refused_total' && labels.reason === 'PERMISSION_DENIED',
      );
      return found[0]?.value ?? Number.NaN;
    };
    const was = await refused();
    await outcomeOf(rig.as('plain').publish('hr.eu', 'x'));
    assert.equal(await refused(), was + 1);
  });

  it('the console shows itself to who has logged in, messages to who may fetch them, and changes to who administers', async () => {
    const call = async (
      path: string,
      { cookie = '', body, token = '' }: { cookie?: string; body?: object; token?: string } = {},
    ) => {
      const response = await fetch(`${origin()}/api/v1/${path}`, {
        method: body === undefined ? 'GET' : 'POST',
        headers: {
          cookie,
          ...(body === undefined
            ? {}
            : { 'content-type': 'application/json', origin: origin(), 'x-broker-console': token }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      return {
        status: response.status,
        said: (await response.json()) as Record<string, unknown>,
        set: response.headers.get('set-cookie') ?? '',
        retryAfter: Number(response.headers.get('retry-after')),
      };
    };
    const logIn = async (who: string): Promise<string> => {
      const { set, status } = await call('login', { body: { token: tokenOf(who) } });
      assert.equal(status, 200);
      assert.match(set, /^broker=[\w-]{43}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/);
      return set.split(';', 1)[0] as string;
    };
    assert.equal((await call('overview')).status, 401);
    assert.deepEqual((await call('session')).said.needsLogin, true);
    assert.equal((await call('login', { body: { token: tokenOf('plain') } })).status, 403);
    assert.equal((await call('login', { body: { token: 'nonsense' } })).status, 401);
    const watcher = await logIn('watcher');
    assert.equal((await call('overview', { cookie: watcher })).status, 200);
    assert.equal((await call('messages?subject=orders.eu', { cookie: watcher })).status, 403);
    const { said } = await call('session', { cookie: watcher });
    assert.deepEqual([said.caller, said.mayWrite, said.token], ['token watcher', false, '']);
    assert.equal((await call('shards/resize', { cookie: watcher, body: { shards: 2 } })).status, 403);
    const operator = await logIn('operator');
    assert.equal((await call('messages?subject=orders.eu', { cookie: operator })).status, 200);
    const session = await call('session', { cookie: operator });
    assert.equal(
      (await call('shards/resize', { cookie: operator, body: { shards: 2 }, token: String(session.said.token) }))
        .status,
      200,
    );
    assert.equal((await call('logout', { cookie: operator, body: {} })).status, 200);
    assert.equal((await call('overview', { cookie: operator })).status, 401);
    // Whoever tries many is not listened to for a while.
    const tries = await Promise.all(
      Array.from({ length: 30 }, (_, i) => call('login', { body: { token: `wrong-${i}` } })),
    );
    const held = tries.filter(({ status }) => status === 429);
    assert.ok(held.length > 0);
    for (const { retryAfter } of held) assert.ok(retryAfter >= 1 && retryAfter <= 3, `${retryAfter}`);
    // It keeps nobody out who comes from the same address with a token that is known.
    await logIn('operator');
    const scrape = async (token: string): Promise<Response> => {
      const response = await fetch(`${origin()}/metrics`, { headers: { authorization: `Bearer ${token}` } });
      await response.arrayBuffer();
      return response;
    };
    assert.equal((await scrape(tokenOf('watcher'))).status, 200);
    const guesses = await Promise.all(Array.from({ length: 25 }, (_, i) => scrape(`wrong-too-${i}`)));
    assert.ok(guesses.some(({ status, headers }) => status === 429 && headers.get('retry-after') !== null));
  });

  it('refusals and what operators do are written down, without tokens', async () => {
    await rig.as('operator').trim('orders.eu', 1);
    const client = rig.as('star');
    for (let i = 0; i < 5; i++) await outcomeOf(client.publish('denied.here', 'payload-canary'));
    const lines = (): Record<string, unknown>[] =>
      readFileSync(auditFile, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Record<string, unknown>);
    await until(
      () => lines().some(({ method }) => method === 'TrimSubject'),
      () => lines().length,
    );
    const acted = lines().find(({ method }) => method === 'TrimSubject') ?? {};
    assert.deepEqual(
      [acted.caller, acted.outcome, acted.arguments],
      ['token operator', 'ok', '{"subject":"orders.eu","first":1}'],
    );
    assert.match(String(acted.peer), /^127\.0\.0\.1:\d+$/);
    assert.ok(lines().some(({ method, caller }) => method === 'ResizeShards' && caller === 'token operator'));
    const denied = lines().filter(({ subject }) => subject === 'denied.here');
    assert.equal(denied.length, 1, 'of the same caller and reason one line');
    assert.deepEqual(
      [denied[0]?.caller, denied[0]?.reason, denied[0]?.verb],
      ['token star', 'PERMISSION_DENIED', 'publish'],
    );
    for (const text of [readFileSync(auditFile, 'utf8'), rig.broker.logs])
      assert.doesNotMatch(text, /token-of-|eyJ|payload-canary/);
    assert.match(rig.broker.logs, /"audit":true/);
  });
});
