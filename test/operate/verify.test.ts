/** `broker verify` against real brokers: at work, stopped, and with files and rows that were changed behind their backs. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { globSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { type BrokerProcess, LAUNCHER, startBroker } from '../support/broker.ts';
import { until } from '../support/until.ts';

const server = await PostgresServer.start();
after(() => server.remove());

interface Ended {
  readonly code: number | null;
  readonly findings: string[];
  readonly summary: Readonly<Record<string, number>>;
  readonly err: string;
}

function launch(flags: readonly string[]): { readonly child: ChildProcess; readonly ended: Promise<Ended> } {
  const child = spawn(process.execPath, [LAUNCHER, 'verify', '-o', 'json', ...flags], {
    env: { ...process.env, UV_THREADPOOL_SIZE: '8' },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const [out, err] = [[] as string[], [] as string[]];
  child.stdout?.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const ended = once(child, 'close').then(([code]): Ended => {
    const rows = out
      .join('')
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line));
    const findings = rows.filter(({ kind }) => kind !== undefined);
    return {
      code,
      findings: findings.map((row) => `${row.kind} ${row.subject} ${row.first_id}-${row.last_id}`).sort(),
      summary: rows.find(({ kind }) => kind === undefined) ?? {},
      err: [...findings.map(({ detail }) => `${detail}\n`), ...err].join(''),
    };
  });
  return { child, ended };
}

const verify = (...flags: string[]): Promise<Ended> => launch(flags).ended;
const live = (broker: BrokerProcess, ...flags: string[]) => verify('--address', broker.address, ...flags);

async function withClient<T>(broker: BrokerProcess, work: (client: Client) => Promise<T>): Promise<T> {
  const client = connect(broker.address);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** Subjects with everything that a subject may have: voids, expiry, ids that were trimmed. */
async function fill(broker: BrokerProcess): Promise<void> {
  await withClient(broker, async (client) => {
    for (let i = 1; i <= 5; i++) await client.publish('orders', `order-number-${i}`);
    for (let i = 0; i < 3; i++) {
      await client.publish('voids', `before ${i}`);
      await client.incrementId('voids');
    }
    await client.publish('expiring', 'short', { expirationSeconds: 1 });
    await client.publish('expiring', 'long', { expirationSeconds: 86_400 });
    for (let i = 0; i < 4; i++) await client.publish('trimmed', `t${i}`);
    await client.trim('trimmed', 3);
  });
}

/** Everything in a folder: names, sizes, times, content. */
function contentOf(folder: string): string[] {
  return globSync('**/*', { cwd: folder })
    .filter((path) => statSync(join(folder, path)).isFile())
    .sort()
    .map((path) => {
      const { size, mtimeMs } = statSync(join(folder, path));
      return `${path} ${size} ${mtimeMs} ${createHash('sha256')
        .update(readFileSync(join(folder, path)))
        .digest('hex')}`;
    });
}

function flip(folder: string, needle: string): void {
  for (const name of globSync('segments/*/*.seg', { cwd: folder })) {
    const path = join(folder, name);
    const bytes = readFileSync(path);
    const at = bytes.indexOf(needle);
    if (at < 0) continue;
    bytes[at] = (bytes[at] as number) ^ 1;
    writeFileSync(path, bytes);
    return;
  }
  assert.fail(`no segment has ${needle}`);
}

describe('verify', () => {
  it('a broker with the embedded store: clean while it runs and when it has stopped; a byte that is flipped is found in both', async () => {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    await fill(broker);
    const first = await live(broker);
    assert.deepEqual([first.code, first.findings], [0, []], first.err);
    assert.deepEqual([first.summary.subjects, first.summary.voids], [4, 3]);
    const some = await live(broker, '--prefix', 'or');
    assert.deepEqual([some.summary.subjects, some.summary.messages], [1, 5]);

    const locked = await verify('--data-dir', broker.dataDir);
    assert.equal(locked.code, 4);
    assert.match(locked.err, /in use by another process/);
    await broker.stop();
    const before = contentOf(broker.dataDir);
    const stopped = await verify('--data-dir', broker.dataDir);
    assert.deepEqual([stopped.code, stopped.findings], [0, []], stopped.err);
    assert.deepEqual(contentOf(broker.dataDir), before);

    flip(broker.dataDir, 'order-number-4');
    const damaged = contentOf(broker.dataDir);
    const offline = await verify('--data-dir', broker.dataDir);
    assert.deepEqual([offline.code, offline.findings], [1, ['damaged orders 4-4']], offline.err);
    assert.deepEqual(contentOf(broker.dataDir), damaged);
    await broker.restart();
    const online = await live(broker);
    assert.deepEqual([online.code, online.findings], [1, ['damaged orders 4-4']]);
    assert.match(online.err, /1 finding\b/);
  });

  it('a broker that was killed: what was on its way is no finding, and the look changes nothing', async () => {
    await using broker = await startBroker({ flags: ['--shards', '2'] });
    await withClient(broker, async (client) => {
      const sent = Array.from({ length: 300 }, (_, i) =>
        client.publish(`s.${i % 7}`, 'x'.repeat(2_000)).catch(() => 0),
      );
      await sent[100];
      await broker.kill();
      await Promise.all(sent);
    });
    // What a start would make again at once: the log is opened without its reserve.
    rmSync(join(broker.dataDir, 'raft', 'reserve'));
    const before = contentOf(broker.dataDir);
    const { code, findings, err } = await verify('--data-dir', broker.dataDir);
    assert.deepEqual([code, findings], [0, []], err);
    assert.deepEqual(contentOf(broker.dataDir), before);
  });

  it('one at a time; it ends with its client, and with the broker, and begins anew after a restart', async () => {
    await using broker = await startBroker();
    await withClient(broker, async (client) => {
      for (let i = 0; i < 8; i++) await client.publish('large', Buffer.alloc(500_000, i));
    });
    const logged = (message: string) => broker.logs.split(`"msg":"${message}"`).length - 1;
    const wait = (message: string, times: number) =>
      until(
        () => logged(message) >= times,
        () => `${message}: ${logged(message)} times\n${broker.logs}`,
      );
    const slow = launch(['--address', broker.address, '--limit-rate', '100KiB']);
    await wait('verifying the store', 1);
    const second = await live(broker);
    assert.equal(second.code, 4);
    assert.match(second.err, /VERIFY_RUNNING/);
    slow.child.kill('SIGINT');
    assert.equal((await slow.ended).code, 130);
    await wait('a verification was ended by its client', 1);

    // Ended by its client it is in nobody's way, although its thread is still at work for a moment.
    await withClient(broker, async (client) => {
      const cut = new AbortController();
      const slowly = client.verify({ bytesPerSecond: 100 * 1024 }, { signal: cut.signal });
      await slowly.next();
      cut.abort();
      await assert.rejects(slowly.next());
      let isDone = false;
      for await (const { done } of client.verify()) isDone = done;
      assert.ok(isDone);
    });

    const killed = launch(['--address', broker.address, '--limit-rate', '100KiB']);
    await wait('verifying the store', 4);
    killed.child.kill('SIGKILL');
    await killed.ended;
    await wait('a verification was ended by its client', 3);
    assert.equal((await live(broker)).code, 0);

    const last = launch(['--address', broker.address, '--limit-rate', '100KiB']);
    await wait('verifying the store', 6);
    assert.deepEqual(await broker.stop(), { code: 0, signal: null });
    const { code, err } = await last.ended;
    assert.equal(code, 4);
    assert.match(err, /SHUTTING_DOWN/);
    await broker.restart();
    assert.equal((await live(broker)).code, 0);
  });

  it('beside load, trims, changes of the shards and retention: no false findings', async () => {
    const flags = ['--shards', '2', '--segment-bytes', '1MiB', '--retention-max-bytes', '16MiB'];
    await using broker = await startBroker({ flags, logLinesMax: 4_000 });
    const load = { isOver: false, sent: 0 };
    const client = connect(broker.address);
    const publish = async (n: number): Promise<void> => {
      for (let i = 0; !load.isOver; i++) {
        const subject = `load.${(n * 7 + i) % 40}`;
        if (i % 50 === 49) await client.incrementId(subject);
        else await client.publish(subject, 'm'.repeat(20_000), i % 3 === 0 ? { expirationSeconds: 2 } : {});
        if (i % 97 === 96) await client.trim(subject, (await client.subject(subject)).settled);
        load.sent += 1;
      }
    };
    const resize = async (): Promise<void> => {
      for (let shards = 1; !load.isOver; shards = (shards % 3) + 1) {
        await client.resizeShards(shards);
        while ((await client.shards()).change?.running === true) await sleep(20);
      }
    };
    const work = [...Array.from({ length: 12 }, (_, n) => publish(n)), resize()];
    try {
      let rounds = 0;
      const isDropped = (): boolean => broker.logs.includes('dropped a segment');
      // Whatever the machine takes for it: until retention has deleted something meanwhile, twice over.
      for (let behind = 0; behind < 3; behind += isDropped() ? 1 : 0) {
        const { code, findings, err } = await live(broker, ...(rounds % 2 === 0 ? [] : ['--limit-rate', '4MiB']));
        assert.deepEqual([code, findings], [0, []], err);
        rounds += 1;
      }
      assert.ok(load.sent > 0);
    } finally {
      load.isOver = true;
      await Promise.all(work);
      await client.close();
    }
    await broker.stop();
    const { code, findings, err } = await verify('--data-dir', broker.dataDir);
    assert.deepEqual([code, findings], [0, []], err);
  });
});

describe('verify with PostgreSQL', () => {
  it('by connections of its own: clean beside load, and by ids what was changed in the table', async () => {
    const flags = server.brokerFlags();
    const schema = flags.at(-1) as string;
    await using broker = await startBroker({ flags: [...flags, '--shards', '2'] });
    await fill(broker);
    const client = connect(broker.address);
    const load = { isOver: false };
    const publish = async (n: number): Promise<void> => {
      for (let i = 0; !load.isOver; i++) {
        const subject = `load.${n}`;
        await client.publish(subject, 'm'.repeat(500));
        if (i % 40 === 39) await client.trim(subject, i - 20);
      }
    };
    const work = Array.from({ length: 8 }, (_, n) => publish(n));
    try {
      for (let round = 0; round < 4; round++) {
        const { code, findings, err } = await live(broker);
        assert.deepEqual([code, findings], [0, []], err);
      }
    } finally {
      load.isOver = true;
      await Promise.all(work);
      await client.close();
    }
    const orders = Buffer.from('orders');
    await server.sql(`DELETE FROM ${schema}.batch WHERE subject = $1 AND base = 2`, [orders]);
    await server.sql(
      `UPDATE ${schema}.batch SET bytes = set_byte(bytes, 70, get_byte(bytes, 70) # 4) WHERE subject = $1 AND base = 4`,
      [orders],
    );
    await server.sql(`UPDATE ${schema}.batch SET base = base + 100 WHERE subject = $1 AND base = 5`, [orders]);
    const { code, findings } = await live(broker, '--prefix', 'orders');
    assert.deepEqual(
      [code, findings],
      [1, ['beyond-head orders 105-105', 'damaged orders 4-4', 'missing orders 2-2', 'missing orders 5-5']],
    );
    const offline = await verify('--data-dir', broker.dataDir);
    assert.equal(offline.code, 4);
    await broker.stop();
    const refused = await verify('--data-dir', broker.dataDir);
    assert.equal(refused.code, 4);
    assert.match(refused.err, /are in postgres/);
  });
});
