/** Trim, retention and restarts of a real broker process. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, it, type TestContext } from 'node:test';
import { httpStatus, LAUNCHER, startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { freePorts } from '../support/ports.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { Metrics, pause, range, until } from './flow-rig.ts';

const body = (text: string): Buffer => Buffer.from(text);

async function reasonOf(call: Promise<unknown>): Promise<string | null> {
  return call.then(
    () => null,
    (error: unknown) => (error instanceof CallError ? error.reason : String(error)),
  );
}

/** Runs a client command of the CLI against the broker; parsed JSON lines. */
function cli(address: string, ...args: string[]): Record<string, unknown>[] {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    [LAUNCHER, ...args, '--address', address, '-o', 'json'],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, stderr);
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('trim', () => {
  it('gives up ids for ever: below first they are ID_TRIMMED, also after a restart, and subscribers start at first', async () => {
    await using broker = await startBroker();
    const client = new BrokerClient(broker.address);
    for (let i = 1; i <= 10; i++) await client.publish({ subject: 't.trim', body: body(`m${i}`) });
    cli(broker.address, 'subjects', 'trim', 't.trim', '--before', '6');
    const check = async (): Promise<void> => {
      assert.equal(await reasonOf(client.fetch('t.trim', 5)), 'ID_TRIMMED');
      assert.equal((await client.fetch('t.trim', 6)).body.toString(), 'm6');
      const ids: number[] = [];
      await new Promise<void>((resolve) => {
        const subscription = client.subscribe(
          't.trim',
          { at: 'earliest' },
          {
            onMessage(message) {
              ids.push(message.id);
              if (ids.length < 5) return;
              subscription.cancel();
              resolve();
            },
          },
        );
      });
      assert.deepEqual(ids, [6, 7, 8, 9, 10]);
    };
    await check();
    await broker.restart();
    await client.ready();
    await check();
    const [info] = cli(broker.address, 'subjects', 'info', 't.trim');
    assert.equal(info?.first, 6);
    assert.equal(info?.head, 10);
    client.close();
  });

  it('in the midst of a batch: the ids before it are given up, those behind it are there, also after a restart', async () => {
    await using broker = await startBroker();
    const client = new BrokerClient(broker.address);
    {
      using stream = await PublishStream.open(broker.address, '');
      stream.send({ subject: 't.middle', sequence: 1, bodies: range(1, 10).map(String) });
      await stream.settled(1);
    }
    const answers = async (): Promise<(string | null)[]> => [
      await reasonOf(client.fetch('t.middle', 3)),
      (await client.fetch('t.middle', 6)).body.toString(),
      await reasonOf(client.fetch('t.middle', 5)),
    ];
    cli(broker.address, 'subjects', 'trim', 't.middle', '--before', '6');
    assert.deepEqual(await answers(), ['ID_TRIMMED', '6', 'ID_TRIMMED']);
    await broker.restart();
    await client.ready();
    // The first one asked for is one that is there: nothing has been heard of the subject yet.
    assert.equal((await client.fetch('t.middle', 10)).body.toString(), '10');
    assert.deepEqual(await answers(), ['ID_TRIMMED', '6', 'ID_TRIMMED']);
    client.close();
  });
});

describe('retention', () => {
  it('[S10] drops whole segments over max_bytes, trims what was in them, and keeps the rest', {
    timeout: 240_000,
  }, async () => {
    await using broker = await startBroker({ flags: ['--segment-bytes', '1MiB', '--retention-max-bytes', '16MiB'] });
    const client = new BrokerClient(broker.address);
    const large = Buffer.alloc(64 << 10, 7);
    const total = 400;
    for (let i = 0; i < total; i += 20) {
      await Promise.all(Array.from({ length: 20 }, () => client.publish({ subject: 't.retained', body: large })));
    }
    const lane = join(broker.dataDir, 'segments', 'lane-000');
    const stored = (): number =>
      readdirSync(lane).reduce(
        (bytes, name) => bytes + (name.endsWith('.seg') ? statSync(join(lane, name)).size : 0),
        0,
      );
    const most = 17 << 20;
    // Retention is judged every 5 s, on a slow disk while it is still published too.
    const isJudged = (await reasonOf(client.fetch('t.retained', 1))) === 'ID_TRIMMED';
    assert(stored() > most || isJudged, `only ${stored()} bytes`);
    const deadline = Date.now() + 60_000;
    while (stored() > most && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 100));
    assert(stored() <= most, `${stored()} bytes are left`);
    assert.equal(await reasonOf(client.fetch('t.retained', 1)), 'ID_TRIMMED');
    assert((await client.fetch('t.retained', total)).body.equals(large));
    assert.equal(await client.publish({ subject: 't.retained', body: body('next') }), total + 1);
    client.close();
  });
});

describe('ports of 0', () => {
  it('are told in the log as those that the system chose: both answer', async (t) => {
    const args = ['--data-dir', join(temporaryFolder(t), 'data'), '--log-format', 'json'];
    const ports = ['--grpc-listen', '127.0.0.1:0', '--admin-listen', '127.0.0.1:0'];
    const broker = spawn(process.execPath, [LAUNCHER, 'serve', ...args, ...ports], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    });
    t.after(() => broker.kill('SIGKILL'));
    let told: Record<string, unknown> = {};
    for await (const line of createInterface(broker.stdout as NodeJS.ReadableStream)) {
      told = JSON.parse(line) as Record<string, unknown>;
      if (told.msg === 'ready') break;
    }
    const { grpc, admin } = told as { readonly grpc: string; readonly admin: string };
    assert.equal(await httpStatus(admin, '/readyz'), 200);
    const client = new BrokerClient(grpc);
    assert.equal(await client.publish({ subject: 't.ports', body: body('x') }), 1);
    client.close();
  });
});

describe('shutdown', () => {
  it('SIGTERM answers what is in flight, ends subscriptions with SHUTTING_DOWN and exits 0; a start finds everything', async () => {
    await using broker = await startBroker();
    const client = new BrokerClient(broker.address);
    const ended = Promise.withResolvers<CallError | null>();
    const live = Promise.withResolvers<void>();
    client.subscribe(
      't.stop',
      { at: 'new' },
      { onMessage: () => undefined, onLive: () => live.resolve(), onEnd: ended.resolve },
    );
    await live.promise;
    const publishes = Array.from({ length: 200 }, (_, i) => client.publish({ subject: 't.stop', body: body(`m${i}`) }));
    const results = Promise.allSettled(publishes);
    await publishes[0];
    const exit = await broker.stop();
    assert.equal(exit.code, 0);
    assert.equal((await ended.promise)?.reason, 'SHUTTING_DOWN');
    const acked = (await results).filter((result) => result.status === 'fulfilled').map(({ value }) => value);
    assert(acked.length > 0);
    await broker.restart();
    await client.ready();
    for (const id of acked) assert.equal((await client.fetch('t.stop', id)).id, id);
    client.close();
  });
});

describe('npm start', () => {
  it('passes SIGTERM on: the broker stops in good order and stays behind nobody', { timeout: 240_000 }, async (t) => {
    const [grpc, admin] = await freePorts(2);
    const address = (port: number | undefined): string => `127.0.0.1:${port}`;
    const npm = spawn(
      'npm',
      [
        ...['start', '--', '--data-dir', join(temporaryFolder(t), 'data')],
        ...['--grpc-listen', address(grpc), '--admin-listen', address(admin)],
      ],
      { cwd: dirname(dirname(LAUNCHER)), stdio: ['ignore', 'pipe', 'inherit'] },
    );
    // What npm leaves behind has its output still open.
    const closed = once(npm, 'close');
    let output = '';
    let pid = 0;
    for await (const text of npm.stdout.setEncoding('utf8')) {
      output += text;
      const ready = /"pid":(\d+).*"msg":"ready"/.exec(output);
      if (ready === null || pid > 0) continue;
      pid = Number(ready[1]);
      npm.kill('SIGTERM');
      // Were it left behind, this loop would not end by itself.
      setTimeout(() => isAlive(pid) && process.kill(pid, 'SIGKILL'), 20_000).unref();
    }
    await closed;
    assert.match(output, /"msg":"stopped"\}\n$/);
    assert.equal(isAlive(pid), false);
  });

  for (const [what, isImpatient] of [
    ['once is one signal, although the terminal and npm both send it: what is in flight is answered', false],
    ['again, later, ends the broker at once', true],
  ] as const) {
    it(`and Ctrl-C ${what}`, { timeout: 240_000 }, async (t) => {
      const gate = new Gate(t);
      gate.open();
      const broker = await startWithNpm(t, { BROKER_FAILPOINTS: gate.each('segment.sync') });
      const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
      gate.shut();
      const publishing = client.publish({ subject: 't.interrupted', body: body('in flight') });
      const outcome = publishing.catch((error: CallError) => error.outcome);
      await until(
        async () => (await Metrics.of(broker)).sum('broker_calls_in_flight') === 1,
        () => 'the call is not in flight',
      );
      broker.interrupt();
      await until(
        async () => (await httpStatus(broker.adminAddress, '/readyz')) === 503,
        () => 'it takes no notice of the signal',
      );
      await pause(SAME_SIGNAL_MS);
      assert.ok(isAlive(broker.pid), 'one Ctrl-C was taken for two');
      if (isImpatient) broker.interrupt();
      else gate.open();
      assert.equal(await outcome, isImpatient ? 'unknown' : 1);
      assert.equal(await broker.closed, 0);
      assert.equal(isAlive(broker.pid), false);
      // The last lines may overtake the one that is being written (LogSink).
      const ends = broker.output().match(/"msg":"(stopping at once|stopped)"/g);
      assert.deepEqual(ends, [`"msg":"${isImpatient ? 'stopping at once' : 'stopped'}"`]);
      client.close();
    });
  }
});

/** What comes within this of a signal is taken for the same one. */
const SAME_SIGNAL_MS = 600;

/** A broker that `npm start` has made ready, in a process group of its own, as a shell gives it to a command. */
async function startWithNpm(t: TestContext, env: Readonly<Record<string, string>>) {
  const [address, adminAddress] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`) as [string, string];
  const dataDir = join(temporaryFolder(t), 'data');
  const flags = ['--data-dir', dataDir, '--grpc-listen', address, '--admin-listen', adminAddress, '--shards', '1'];
  const npm = spawn('npm', ['start', '--', ...flags, '--shutdown-drain', '1h'], {
    cwd: dirname(dirname(LAUNCHER)),
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  // What npm leaves behind has its output still open.
  const closed = once(npm, 'close').then(([code]) => code as number | null);
  let output = '';
  const ready = Promise.withResolvers<number>();
  npm.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
    const found = /"pid":(\d+).*"msg":"ready"/.exec(output);
    if (found !== null) ready.resolve(Number(found[1]));
  });
  void closed.then(() => ready.reject(new Error(output)));
  const pid = await ready.promise;
  t.after(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  const interrupt = (): void => void process.kill(-(npm.pid as number), 'SIGINT');
  return { address, adminAddress, pid, closed, interrupt, output: () => output };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, 'ESRCH');
    return false;
  }
}

describe('recovery', () => {
  it('[S16] reads a log far larger than the memory that it takes', { timeout: 240_000 }, async () => {
    // One segment without a sidecar, since the broker is killed: a start has to read all of it.
    await using broker = await startBroker({ flags: ['--segment-bytes', '1GiB'] });
    const peak = (): number =>
      Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${broker.pid}/status`, 'utf8'))?.[1]) / 1024;
    await broker.restart();
    const empty = peak();
    const client = new BrokerClient(broker.address);
    const large = Buffer.alloc(1 << 20, 7);
    const total = 240;
    for (let i = 0; i < total; i += 2) {
      await Promise.all(Array.from({ length: 2 }, () => client.publish({ subject: 't.recover', body: large })));
    }
    await broker.restart();
    const grown = peak() - empty;
    assert(
      grown < total / 2,
      `recovery of ${total} MiB took ${Math.round(grown)} MiB more memory than that of nothing`,
    );
    await client.ready();
    assert((await client.fetch('t.recover', total)).body.equals(large));
    client.close();
  });
});
