/** The image, built from the Dockerfile as it stands by an engine of our own, and run as operators run it. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { httpStatus } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { succeeded } from '../support/commands.ts';
import { freePorts } from '../support/ports.ts';
import { ROOT } from '../support/source-tree.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';
import { BROKERS, ComposeProject } from './compose.ts';
import { Container, type ContainerOptions, HARDENED } from './container.ts';
import { ImageRig } from './image-rig.ts';

/** 132 MB of Node with its libraries, 48 MB of packages, 8 MB of our own; room for a patch release of Node. */
const IMAGE_BYTES_MAX = 200_000_000;
const MEMORY_BYTES = 256 << 20;
/** What is given to a stop: more than shutdown.drain, which is 20 s. */
const STOP_SECONDS = 30;

const rig = ImageRig.isPossible ? await ImageRig.build() : null;
after(async () => await rig?.stop());

/** Null: it is skipped. */
function useRig(t: TestContext): ImageRig | null {
  if (!requireTool(t, 'containers')) return null;
  assert.ok(rig !== null, 'the image was not built');
  return rig;
}

/** A broker on ports of 127.0.0.1 that nobody else has, probed every second; removed with the test. */
async function makeBroker(t: TestContext, { engine, image }: ImageRig, options: Partial<ContainerOptions> = {}) {
  const [grpc, admin, raft] = (await freePorts(3)).map((port) => `127.0.0.1:${port}`) as [string, string, string];
  const env = { BROKER_GRPC_LISTEN: grpc, BROKER_ADMIN_LISTEN: admin, BROKER_RAFT_LISTEN: raft, ...options.env };
  const flags = [...HARDENED, '--network', 'host', '--health-interval', '1s', ...(options.flags ?? [])];
  const container = await Container.create(engine, { image, ...options, flags, env });
  t.after(() => container.remove());
  return { container, grpc, admin };
}

async function makeVolume(t: TestContext, { engine }: ImageRig): Promise<readonly string[]> {
  const volume = await engine.ask(['volume', 'create']);
  t.after(() => engine.run(['volume', 'rm', '-f', volume]));
  return ['--volume', `${volume}:/data`];
}

test('the image says how it is run: user, command, signal, ports, volume, probe, version', async (t) => {
  const used = useRig(t);
  if (used === null) return;
  const { Config, Size } = (await used.engine.inspect(used.image)) as {
    Size: number;
    Config: Record<string, unknown> & { Labels: Record<string, string>; ExposedPorts: object; Healthcheck: object };
  };
  t.diagnostic(`${(Size / 1e6).toFixed(1)} MB, built in ${(used.buildMs / 1e3).toFixed(0)} s`);
  assert.ok(Size < IMAGE_BYTES_MAX, `${Size} bytes`);
  assert.deepEqual(
    [Config.User, Config.Entrypoint, Config.Cmd, Config.StopSignal, Config.WorkingDir],
    ['10001:10001', ['broker'], ['serve'], 'SIGTERM', '/data'],
  );
  assert.deepEqual(Object.keys(Config.ExposedPorts).sort(), [
    '12000/tcp',
    '7946/tcp',
    '7946/udp',
    '8000/tcp',
    '8081/tcp',
  ]);
  assert.deepEqual(Config.Volumes, { '/data': {} });
  assert.deepEqual(Config.Healthcheck, {
    Test: ['CMD', 'broker', 'health'],
    Interval: 10e9,
    Timeout: 5e9,
    StartPeriod: 60e9,
    Retries: 3,
  });
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  assert.equal(Config.Labels['org.opencontainers.image.version'], version);
});

test('the image has no shell, no package manager, no source, and of the packages only what runs', async (t) => {
  const used = useRig(t);
  if (used === null) return;
  const files = await used.files();
  const paths = files.map(({ path }) => path);
  assert.deepEqual(
    paths.filter((path) => /(^|\/)(sh|bash|dash|npm|npx|apt|dpkg|busybox)$/.test(path)),
    [],
  );
  const folders = new Set(paths.filter((path) => path.startsWith('app/')).map((path) => path.split('/')[1]));
  assert.deepEqual([...folders].filter(Boolean).sort(), [
    'LICENSE',
    'bin',
    'dist',
    'node_modules',
    'package.json',
    'proto',
  ]);
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean; optional?: boolean }>;
  };
  const installed = paths.flatMap((path) => /^app\/(node_modules\/.+)\/package\.json$/.exec(path)?.[1] ?? []);
  const unwanted = installed.filter((path) => packages[path]?.dev === true || packages[path]?.optional === true);
  assert.ok(installed.includes('node_modules/@grpc/grpc-js'), 'no package was found');
  assert.deepEqual(unwanted, []);
  assert.deepEqual(paths.filter((path) => /\/node_modules\/.*\.(ts|map)$/.test(path)).slice(0, 5), []);
  // Only these can be written to where the root file system can.
  const owned = files.filter(({ owner }) => owner !== '0/0').map(({ path }) => path);
  assert.deepEqual(owned, ['data/']);
});

test('runs without a right and with nothing to write to but /data, is healthy, takes a message and gives it back', async (t) => {
  const used = useRig(t);
  if (used === null) return;
  const { container, grpc, admin } = await makeBroker(t, used, { flags: await makeVolume(t, used) });
  await container.start();
  await container.healthy();
  assert.equal((await succeeded(['health', 'broker.Broker', '--address', grpc])).status, 'SERVING');
  assert.equal(await httpStatus(admin, '/readyz'), 200);
  // The page, which is not there unless all of its files are.
  assert.equal(await httpStatus(admin, '/'), 200);

  const publish = ['publish', 'orders.eu', 'two apples', '--address', grpc, '-o', 'json'];
  const published = await used.engine.ask(['run', '--rm', '--network', 'host', ...HARDENED, used.image, ...publish]);
  assert.equal(JSON.parse(published).id, 1);
  assert.equal((await succeeded(['fetch', 'orders.eu', '1', '--address', grpc])).body, 'two apples');

  const status = String(await container.evaluate('fs.readFileSync("/proc/1/status", "utf8")'));
  assert.match(status, /^Uid:\t10001\t10001\t10001\t10001$/m);
  assert.match(status, /^Gid:\t10001\t10001\t10001\t10001$/m);
  assert.match(status, /^CapEff:\t0+$/m);
  assert.match(status, /^NoNewPrivs:\t1$/m);
  const command = String(await container.evaluate('fs.readFileSync("/proc/1/cmdline", "utf8")'));
  assert.deepEqual(command.split('\0').slice(0, -1), ['/usr/local/bin/node', '/usr/local/bin/broker', 'serve']);
  for (const path of ['/x', '/app/x', '/tmp/x']) {
    const { code, err } = await container.exec(['node', '-e', `fs.writeFileSync(${JSON.stringify(path)}, '')`]);
    assert.deepEqual([code, /EROFS/.test(err)], [1, true], path);
  }
});

test('what Node may take for objects follows the memory of the container, with room for what is not an object', async (t) => {
  const used = useRig(t);
  if (used === null) return;
  const { container } = await makeBroker(t, used);
  await container.start();
  const limit = Number(await container.evaluate('v8.getHeapStatistics().heap_size_limit'));
  t.diagnostic(`${(limit / (1 << 20)).toFixed(0)} MiB of 256`);
  assert.ok(limit > MEMORY_BYTES * 0.3 && limit < MEMORY_BYTES * 0.65, `${limit} bytes`);
});

test('a stop under load ends in time; a kill loses nothing that was acknowledged', async (t) => {
  const used = useRig(t);
  if (used === null) return;
  const { container, grpc } = await makeBroker(t, used, { flags: await makeVolume(t, used) });
  const client = new BrokerClient(grpc);
  t.after(() => client.close());
  const acknowledged = new Map<number, string>();
  const ends = [() => container.stop(STOP_SECONDS), () => container.kill()];
  for (const [round, end] of ends.entries()) {
    await container.start();
    await container.healthy();
    const before = acknowledged.size;
    const load = { isOver: false };
    const publishers = Array.from({ length: 20 }, async (_, publisher) => {
      for (let n = 0; !load.isOver; n += 1) {
        const body = `${round} ${publisher} ${n}`;
        try {
          acknowledged.set(await client.publish({ subject: 's', body: Buffer.from(body) }), body);
        } catch (error) {
          if (!(error instanceof CallError)) throw error;
          return;
        }
      }
    });
    await until(
      () => acknowledged.size > before + 500,
      () => 'too little was published',
    );
    const begun = performance.now();
    const state = await end();
    const ms = performance.now() - begun;
    load.isOver = true;
    await Promise.all(publishers);
    assert.equal(state.OOMKilled, false);
    if (round > 0) continue;
    assert.equal(state.ExitCode, 0, await container.logs());
    assert.ok(ms < STOP_SECONDS * 1_000, `${ms} ms`);
  }
  await container.start();
  await container.healthy();
  for (const [id, body] of acknowledged) assert.equal((await client.fetch('s', id)).body.toString(), body);
  t.diagnostic(`${acknowledged.size} messages`);
});

test('a signal that comes before the broker listens to signals ends process 1 all the same', async (t) => {
  const used = useRig(t);
  if (used === null) return;
  // It sends itself the signal when the server is about to be loaded.
  const early = `import { registerHooks } from 'node:module';
    registerHooks({ resolve(name, context, next) {
      if (name.endsWith('/dist/main.js')) process.kill(process.pid, 'SIGTERM');
      return next(name, context);
    } });`;
  const env = { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(early)}` };
  const { container } = await makeBroker(t, used, { env });
  await container.start();
  assert.equal((await container.ended()).ExitCode, 0);
});

test('the compose file: three brokers and PostgreSQL become one cluster, go on without one of them, and take it back', async (t) => {
  const used = useRig(t);
  if (used === null || !requireTool(t, 'docker-compose')) return;
  const { engine, image, folder } = used;
  const project = await ComposeProject.create(engine, image, folder);
  t.after(() => project.run('down', '--volumes', '--timeout', '1'));
  await project.run('up', '--detach', '--no-build');
  for (const name of BROKERS) await (await project.container(name)).healthy();
  const tolerated = async () => (await project.ask('broker-1', 'cluster', 'status')).tolerates_now;
  await until(
    async () => (await tolerated()) === 1,
    () => 'the cluster does not tolerate the loss of a node',
  );
  assert.equal((await project.ask('broker-1', 'publish', 's', 'one')).id, 1);
  assert.equal((await project.ask('broker-3', 'fetch', 's', '1')).body, 'one');

  await project.run('stop', 'broker-1');
  const stopped = await project.container('broker-1');
  assert.equal((await stopped.state()).ExitCode, 0, await stopped.logs());
  assert.equal((await project.ask('broker-2', 'publish', 's', 'two')).id, 2);
  await project.run('start', 'broker-1');
  await stopped.healthy();
  assert.equal((await project.ask('broker-1', 'fetch', 's', '2')).body, 'two');

  const { HostConfig, Config } = (await engine.inspect(stopped.id)) as Record<string, Record<string, unknown>>;
  assert.deepEqual(
    [HostConfig?.ReadonlyRootfs, HostConfig?.CapDrop, HostConfig?.SecurityOpt, Config?.StopTimeout],
    [true, ['ALL'], ['no-new-privileges:true'], 30],
  );
  assert.deepEqual(HostConfig?.RestartPolicy, { Name: 'unless-stopped', MaximumRetryCount: 0 });
});
