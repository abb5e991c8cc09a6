/** What a node says of itself for a bundle, also when a part of it hangs. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { Redactor } from '../../src/base/redactor.ts';
import { DebugInfo, type DebugInfoOptions } from '../../src/workers/admin/debug-info.ts';
import { temporaryFolder } from '../support/temporary.ts';

const SECRET = 'a-secret-of-9c';

async function filesOf(debug: DebugInfo, cpuProfileMs = 0, signal = new AbortController().signal) {
  const files: Record<string, string> = {};
  for await (const { name, content } of debug.parts({ cpuProfileMs }, signal)) {
    assert.ok(content.length <= 256 * 1024, 'larger than a part');
    files[name] = (files[name] ?? '') + content.toString('utf8');
  }
  return files;
}

function debugInfo(options: Partial<DebugInfoOptions> = {}): DebugInfo {
  return new DebugInfo({
    log: { text: () => '' },
    redactor: new Redactor([SECRET]),
    metrics: async () => '# nothing\n',
    settings: () => [],
    threads: () => [],
    ...options,
  });
}

async function worker(t: TestContext, code: string): Promise<Worker> {
  const thread = new Worker(`require('node:worker_threads').parentPort.postMessage(1); ${code}`, { eval: true });
  t.after(() => thread.terminate());
  await once(thread, 'message');
  return thread;
}

test('every file is made of small parts, an empty one is there too, and no secret is in any', async () => {
  const long = 'x'.repeat(600_000);
  const files = await filesOf(
    debugInfo({
      metrics: async () => `${long}${SECRET}`,
      settings: () => [{ value: SECRET }],
    }),
  );
  assert.deepEqual(Object.keys(files), ['process.json', 'settings.json', 'log.jsonl', 'metrics.txt', 'threads.json']);
  assert.equal(files['log.jsonl'], '');
  assert.equal(files['metrics.txt'], `${long}***`);
  assert.deepEqual(JSON.parse(files['settings.json'] ?? ''), [{ value: '***' }]);
});

test('a file that cannot be made is said to be missing, with the reason, and the others are there', async () => {
  const files = await filesOf(
    debugInfo({ metrics: () => Promise.reject(new Error(`no metrics: postgres://me:${SECRET}@db`)) }),
  );
  assert.equal(files['metrics.txt.missing'], 'no metrics: postgres://me:***@db');
  assert.equal(JSON.parse(files['threads.json'] ?? '')[0].thread, 'main');
});

test('a thread that hangs is said to hang, by its load, heap and profile; the others are as they are', async (t) => {
  // V8 interrupts loops, and waits for shared memory; a call of the system it cannot.
  const released = { pipe: '' };
  t.after(() => closeSync(openSync(released.pipe, constants.O_RDWR | constants.O_NONBLOCK)));
  const pipe = join(temporaryFolder(t), 'pipe');
  execFileSync('mkfifo', [pipe]);
  released.pipe = pipe;
  const hung = await worker(t, `require('node:fs').readFileSync(${JSON.stringify(pipe)});`);
  const well = await worker(t, 'setInterval(() => undefined, 10);');
  const threads = () => [
    { name: 'hung', worker: hung },
    { name: 'well', worker: well },
  ];
  const files = await filesOf(debugInfo({ threads }), 50);
  const [, first, second] = JSON.parse(files['threads.json'] ?? '');
  assert.match(first.heap, /did not answer within/);
  assert.ok(second.heap.used_heap_size > 0 && second.cpu_microseconds.user >= 0);
  assert.match(files['profiles/hung.cpuprofile.missing'] ?? '', /did not answer within/);
  assert.ok(JSON.parse(files['profiles/well.cpuprofile'] ?? '').nodes.length > 0);
  assert.ok(JSON.parse(files['profiles/main.cpuprofile'] ?? '').nodes.length > 0);
});

// Not ended it takes 30 s.
test('a profile that nobody waits for any more ends at once', { timeout: 25_000 }, async (t) => {
  const gone = new AbortController();
  const thread = await worker(t, 'setInterval(() => undefined, 10);');
  const debug = debugInfo({ threads: () => [{ name: 'well', worker: thread }] });
  const names: string[] = [];
  for await (const { name } of debug.parts({ cpuProfileMs: 30_000 }, gone.signal)) {
    names.push(name);
    if (name === 'threads.json') gone.abort();
  }
  assert.ok(names.includes('profiles/well.cpuprofile'));
  assert.ok(Object.keys(await filesOf(debug, 10)).includes('profiles/main.cpuprofile'), 'the next one is recorded');
});
