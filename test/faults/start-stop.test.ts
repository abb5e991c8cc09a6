/** Starts that must be refused, and stops under load, of real broker processes. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { cpSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { Metrics } from '../e2e/flow-rig.ts';
import { BrokerProcess, BrokerStartError, httpStatus, type RestartOptions, startBroker } from '../support/broker.ts';
import { BrokerClient, type CallError } from '../support/client.ts';
import { fullPipe } from '../support/full-pipe.ts';
import { Gate } from '../support/gate.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { FaultRig, type LogLine, logLines, pause, until, within } from './rig.ts';

/** Only ends a wait for a process that stays. */
const EXIT_MS_MAX = 40_000;
const SAME_SIGNAL_MS = 600;

/** Starts it and expects that it ends by itself with exit code 1; returns the last error of its log. */
async function refusedStart(broker: BrokerProcess, options: RestartOptions = {}): Promise<LogLine> {
  const failure = await broker.restart(options).then(
    () => null,
    (error: unknown) => error,
  );
  assert.ok(failure instanceof BrokerStartError, 'it has started');
  assert.deepEqual(failure.exit, { code: 1, signal: null }, failure.message);
  const last = logLines(broker.logs).findLast(({ level }) => level === 'error');
  assert.ok(last !== undefined, broker.logs);
  return last;
}

/** Every file below a folder with its content. */
function contents(folder: string): Map<string, string> {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' }).sort();
  const files = names.filter((name) => statSync(join(folder, name)).isFile());
  return new Map(files.map((name) => [name, readFileSync(join(folder, name)).toString('latin1')]));
}

/** Of every thread of a process, by proc(5): `T` is stopped; one in a system call that cannot be interrupted is `D` until that ends. */
function threadStates(pid: number): string[] {
  const stats = readdirSync(`/proc/${pid}/task`).map((task) => readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8'));
  return stats.map((stat) => stat.slice(stat.lastIndexOf(')') + 2)[0] ?? '?');
}

describe('a second broker on a data directory', () => {
  it('[R31] ends with DATA_DIRECTORY_LOCKED and exit code 1 and changes nothing; kill -9 of the first frees the directory at once', async () => {
    await using rig = await FaultRig.start();
    rig.startLoad();
    await rig.loaded(40);
    await rig.load.stop();
    // The first broker may write at any time, even without work: it is held still, and keeps its lock meanwhile.
    process.kill(rig.broker.pid, 'SIGSTOP');
    await until(
      () => threadStates(rig.broker.pid).every((state) => state === 'T'),
      () => `a stopped process runs on: ${threadStates(rig.broker.pid).join(' ')}`,
    );
    const before = contents(rig.broker.dataDir);
    await using second = await BrokerProcess.create({ dataDir: rig.broker.dataDir, flags: ['--log-format', 'json'] });
    const { reason, message } = await refusedStart(second);
    assert.equal(reason, 'DATA_DIRECTORY_LOCKED');
    assert.match(message, /in use by another process/);
    const after = contents(rig.broker.dataDir);
    const changed = [...after.keys(), ...before.keys()].filter((name) => after.get(name) !== before.get(name));
    assert.deepEqual(changed, []);
    process.kill(rig.broker.pid, 'SIGCONT');
    assert.equal(rig.broker.running, true);
    await rig.broker.kill();
    await second.restart();
    await second.kill();
    await rig.broker.restart();
    await rig.assertKept(20);
  });
});

describe('a start that is refused', () => {
  it('by a data directory that is or lies below a file: DATA_DIRECTORY_UNUSABLE, one line and exit code 1', async (t) => {
    const file = join(temporaryFolder(t), 'file');
    writeFileSync(file, '');
    for (const dataDir of [file, join(file, 'below')]) {
      await using broker = await BrokerProcess.create({ dataDir, flags: ['--log-format', 'json'] });
      const { reason, message } = await refusedStart(broker);
      assert.equal(reason, 'DATA_DIRECTORY_UNUSABLE');
      assert.ok(message.startsWith(`cannot use the data directory ${dataDir} (ENOTDIR): `), message);
      assert.equal(broker.logs.split('\n').length, 1, broker.logs);
    }
  });

  it('by a Raft log from an older copy than the segments: STORE_AHEAD_OF_LOG and exit code 1; with the right log it starts, and nothing is lost', async (t) => {
    const copies = temporaryFolder(t);
    await using rig = await FaultRig.start();
    const raft = join(rig.broker.dataDir, 'raft');
    rig.startLoad();
    await rig.loaded(40);
    await rig.broker.kill();
    await rig.load.stop();
    cpSync(raft, join(copies, 'older'), { recursive: true });
    await rig.broker.restart();
    rig.startLoad();
    await rig.loaded(40);
    await rig.broker.kill();
    await rig.load.stop();
    cpSync(raft, join(copies, 'newer'), { recursive: true });
    rmSync(raft, { recursive: true });
    cpSync(join(copies, 'older'), raft, { recursive: true });
    const { reason, error } = await refusedStart(rig.broker);
    assert.equal(reason, 'STORE_AHEAD_OF_LOG');
    assert.match(error, /the store has id \d+ of subject "[^"]+", but the log has given ids up to \d+ only/);
    rmSync(raft, { recursive: true });
    cpSync(join(copies, 'newer'), raft, { recursive: true });
    await rig.broker.restart();
    await rig.assertKept(20);
  });

  it('[S2, W1] by EIO while torn ends of segments are cut: exit code 1, and no process that stays; the next start finds everything', async () => {
    await using rig = await FaultRig.start();
    rig.startLoad();
    await rig.loaded(40);
    await rig.broker.kill();
    await rig.load.stop();
    const { message, error } = await refusedStart(rig.broker, { env: { BROKER_FAILPOINTS: 'segment-seal.sync=eio' } });
    assert.equal(message, 'the broker could not start');
    assert.match(error, /cannot fdatasync .*\.seg: EIO/);
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    await rig.assertKept(10);
  });

  it('by a clock more than 24 h ahead of the log: CLOCK_AHEAD and exit code 1, unless it is accepted', async () => {
    await using rig = await FaultRig.start();
    rig.startLoad();
    await rig.loaded(20);
    await rig.broker.kill();
    await rig.load.stop();
    // Nothing but the clock of the process is moved: the code under test reads Date.now() alone.
    const source = `const now = Date.now; Date.now = () => now() + ${25 * 60 * 60 * 1000};`;
    const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(source)}` };
    const { reason, error } = await refusedStart(rig.broker, { env });
    assert.equal(reason, 'CLOCK_AHEAD');
    assert.match(error, /--accept-clock/);
    // As it was: with the right clock it starts and publishes with the right times.
    await rig.broker.restart();
    await rig.assertKept(5);
    await rig.broker.restart({ env, flags: ['--accept-clock', '--log-format', 'json'] });
  });
});

describe('a start that fails once ports are open', () => {
  it('by a broken assertion about the gRPC port: it is told as what it is, with exit code 1, and no process stays', async () => {
    // As a release of Node or grpc-js that takes no notice of our windows would make it.
    const source = `import http2 from 'node:http2'; import { syncBuiltinESMExports } from 'node:module';
      const create = http2.createServer;
      http2.createServer = (options, ...rest) =>
        create({ ...options, settings: { ...options.settings, initialWindowSize: 65_535 } }, ...rest);
      syncBuiltinESMExports();`;
    const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(source)}` };
    await using broker = await BrokerProcess.create({ flags: ['--shards', '1', '--log-format', 'json'], env });
    const { reason, error } = await refusedStart(broker);
    assert.equal(reason, 'start_failed');
    assert.match(error, /^AssertionError: grpc-js has changed: the HTTP\/2 windows have no effect/);
  });

  it('by a gRPC port that is taken, with a Raft thread that does not end: PORT_UNAVAILABLE, exit code 1, and no process stays', async (t) => {
    const gate = new Gate(t);
    const flags = ['--shards', '1', '--log-format', 'json'];
    await using broker = await BrokerProcess.create({ flags, env: { BROKER_FAILPOINTS: gate.each('raft.close') } });
    const [host, port] = broker.address.split(':');
    const taken = createServer().listen(Number(port), host);
    t.after(() => taken.close());
    await once(taken, 'listening');
    const { message } = await refusedStart(broker);
    assert.equal(message, 'something did not stop in time');
    const refusal = logLines(broker.logs).find(({ reason }) => reason === 'PORT_UNAVAILABLE');
    assert.match(refusal?.message ?? '', /^grpc\.listen: cannot listen on /);
  });
});

describe('SIGTERM under load', () => {
  it('answers what is in flight and exits with 0; every message that was acknowledged is there after a start', async () => {
    await using rig = await FaultRig.start();
    for (let round = 0; round < 2; round++) {
      rig.startLoad();
      await rig.loaded(40);
      const { code, signal } = await rig.broker.stop();
      assert.deepEqual({ code, signal }, { code: 0, signal: null }, rig.broker.logs);
      await rig.load.stop();
      assert.equal(rig.lines.at(-1)?.message, 'stopped');
      await rig.broker.restart();
    }
    await rig.assertKept(30);
  });

  it('a second one, later, ends a broker that is still draining at once', async (t) => {
    const gate = new Gate(t);
    gate.open();
    await using rig = await FaultRig.start({
      flags: ['--shards', '1', '--shutdown-drain', '1h'],
      env: { BROKER_FAILPOINTS: gate.each('segment.sync') },
    });
    rig.startLoad();
    await rig.loaded(1);
    await rig.load.stop();
    // A call whose sync does not end: the drain, which has an hour, cannot be over before the second signal.
    gate.shut();
    const client = new BrokerClient(rig.broker.address, { timeoutMs: 600_000 });
    const call = client.publish({ subject: 'held', body: Buffer.from('x') }).catch((error: CallError) => error.outcome);
    await until(
      async () => (await Metrics.of(rig.broker)).sum('broker_calls_in_flight') === 1,
      () => 'the call is not in flight',
    );
    process.kill(rig.broker.pid, 'SIGTERM');
    await until(
      async () => (await httpStatus(rig.broker.adminAddress, '/readyz')) === 503,
      () => 'it takes no notice of the signal',
    );
    // A terminal sends the same signal to a whole group: what comes right behind the first is the same one.
    await pause(SAME_SIGNAL_MS);
    assert.equal(rig.broker.running, true, 'it was over already');
    process.kill(rig.broker.pid, 'SIGTERM');
    assert.notEqual(await within(rig.broker.exited, EXIT_MS_MAX), null, 'it still runs');
    assert.equal(await call, 'unknown');
    client.close();
    await rig.broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    await rig.assertKept(1);
  });

  it('ends a broker whose log goes into a full pipe that nobody reads, with 0', async (t) => {
    const pipe = fullPipe(t);
    const under = ['sh', '-c', 'log=$0; exec "$@" > "$log"', pipe.path];
    await using broker = await startBroker({ flags: ['--shards', '1'], under });
    process.kill(broker.pid, 'SIGTERM');
    assert.deepEqual(await within(broker.exited, EXIT_MS_MAX), { code: 0, signal: null });
  });

  it('[W1] a Raft thread that dies on the way down is no good end: exit code 70, and no process that stays', async () => {
    await using rig = await FaultRig.start({ env: { BROKER_FAILPOINTS: 'raft.close=throw' } });
    process.kill(rig.broker.pid, 'SIGTERM');
    assert.deepEqual(await within(rig.broker.exited, EXIT_MS_MAX), { code: 70, signal: null }, rig.broker.logs);
  });
});
