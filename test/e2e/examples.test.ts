/** Every example is run as its page says, against a real broker; and the package is built and used as a program would that has installed it. */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { startBroker } from '../support/broker.ts';
import { ROOT } from '../support/source-tree.ts';

/** Kept between runs: installing gRPC for Python takes a while. */
const CACHE = join(ROOT, '.cache');

const broker = await startBroker();
after(() => broker.dispose());

async function run(program: string, args: readonly string[], options: { cwd?: string; env?: object } = {}) {
  const env = { ...process.env, BROKER_ADDRESS: broker.address, ...options.env };
  const { stdout } = await promisify(execFile)(program, args, { cwd: options.cwd ?? ROOT, env, timeout: 300_000 });
  return stdout;
}

const EXAMPLES: readonly (readonly [string, RegExp])[] = [
  ['publish', /^orders\.eu 1\n$/],
  ['publisher', /^100000 messages in \d+ batches\n$/],
  ['subscribe', /^sensor\.1 1 measurement 1\nsensor\.1 2 measurement 11\n(.*\n){7}sensor\.1 10 measurement 91\n$/],
  ['fetch', /^1 measurement 1 \d{4}-.*Z\nID_NOT_FOUND\n$/],
  ['idempotent', /^try 1: id 1\ntry 2: id 1\ntry 3: id 1\n$/],
];

for (const [name, expected] of EXAMPLES) {
  test(`the example ${name} does what it says`, async () => {
    assert.match(await run(process.execPath, ['examples/run.ts', name]), expected);
  });
}

test('the example in Python, with stock gRPC, does what it says', async (t) => {
  const python = preparePython(t);
  if (python === null) return;
  const generated = mkdtempSync(join(CACHE, 'python-gen-'));
  t.after(() => rmSync(generated, { recursive: true, force: true }));
  const files = ['broker.proto', 'broker/v1/record.proto', 'broker/v1/producer.proto'].map((file) => `proto/${file}`);
  const outputs = [`--python_out=${generated}`, `--grpc_python_out=${generated}`];
  await run(python, ['-m', 'grpc_tools.protoc', '-Iproto', ...outputs, ...files]);
  const env = { PYTHONPATH: generated };
  const output = await run(python, ['examples/python/publish_and_subscribe.py'], { env });
  assert.equal(output, "stored 1 to 2 behind the first\n['one', 'two', 'three']\nINVALID_ARGUMENT\n");
});

/** The interpreter of an environment that has gRPC; null if it cannot be had here: then the test is skipped. */
function preparePython(t: TestContext): string | null {
  const folder = join(CACHE, 'python');
  const python = join(folder, 'bin', 'python');
  const works = (): boolean => spawnSync(python, ['-c', 'import grpc, grpc_tools'], { stdio: 'ignore' }).status === 0;
  if (existsSync(python) && works()) return python;
  mkdirSync(CACHE, { recursive: true });
  const steps: readonly (readonly [string, ...string[]])[] = [
    ['python3', '-m', 'venv', '--clear', folder],
    [python, '-m', 'pip', 'install', '--quiet', '--requirement', 'examples/python/requirements.txt'],
  ];
  for (const [program, ...args] of steps) {
    const { status, error } = spawnSync(program, args, { cwd: ROOT, stdio: 'ignore', timeout: 240_000 });
    if (status === 0 && error === undefined) continue;
    t.skip(`needs python3 with venv and pip (Debian: python3-venv) and a package index: "${args.join(' ')}" failed`);
    return null;
  }
  return python;
}

test('the package, built, is imported by its name, with its types', async (t) => {
  mkdirSync(CACHE, { recursive: true });
  // Inside the clone, so that the packages that it depends on are found above it.
  const folder = mkdtempSync(join(CACHE, 'installed-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const installed = join(folder, 'node_modules', 'broker');
  mkdirSync(installed, { recursive: true });
  cpSync(join(ROOT, 'package.json'), join(installed, 'package.json'));
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', join(installed, 'dist')]);
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
  writeFileSync(
    join(folder, 'main.ts'),
    [
      "import { type Client, connect } from 'broker';",
      'const client: Client = connect(process.env.BROKER_ADDRESS);',
      "const id: number = await client.publish('installed', 'hello');",
      'const { text, publishedAt } = await client.fetch("installed", id);',
      'console.log(id, text, publishedAt > 0);',
      'await client.close();',
    ].join('\n'),
  );
  const options = ['--ignoreConfig', '--strict', '--module', 'nodenext', '--target', 'es2024', '--types', 'node'];
  await run(process.execPath, [tsc, ...options, 'main.ts'], { cwd: folder });
  assert.equal(await run(process.execPath, ['main.js'], { cwd: folder }), '1 hello true\n');
  // A wrong use must not pass, or the types were not there at all.
  writeFileSync(
    join(folder, 'wrong.ts'),
    "import { connect } from 'broker';\nconst text: string = connect().publish('a', 1);\n",
  );
  await assert.rejects(
    run(process.execPath, [tsc, ...options, '--noEmit', 'wrong.ts'], { cwd: folder }),
    (error: { stdout: string }) => /wrong\.ts.*TS2322|wrong\.ts.*TS2345/.test(error.stdout),
  );
});

test('bench publishes, receives and fetches what it says', async () => {
  const bench = async (...args: string[]): Promise<Record<string, number>> =>
    JSON.parse(await run(process.execPath, ['bin/broker.mjs', 'bench', ...args, '-o', 'json'])) as Record<
      string,
      number
    >;
  const published = await bench('publish', '--msgs', '5001', '--size', '64', '--clients', '2', '--batch', '100');
  assert.equal(published.messages, 5_001);
  assert.ok((published.latencyMsP99 ?? 0) > 0 && (published.messagesPerSecond ?? 0) > 0);
  const received = await bench('subscribe', '--msgs', '5001', '--clients', '2');
  assert.equal(received.messages, 10_002);
  const fetched = await bench('fetch', '--msgs', '200', '--clients', '4');
  assert.equal(fetched.messages, 200);
  const slow = await bench('fetch', '--msgs', '100', '--clients', '4', '--throughput', '500');
  assert.equal(slow.messages, 100);
  assert.ok((slow.seconds ?? 0) >= 0.19, `${slow.seconds} s`);
  const paced = await bench('publish', '--msgs', '300', '--throughput', '1000', '--batch', '10', '--multisubject');
  assert.equal(paced.messages, 300);
  assert.ok((paced.seconds ?? 0) >= 0.28, `${paced.seconds} s`);
});
