/** `broker debug bundle`: what is in the archive, and what is said when something cannot be had. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { CliError, EXIT } from '../../src/cli/failure.ts';
import { SubjectHasher } from '../../src/cli/hash-subjects.ts';
import { tarOf } from '../../src/cli/tar.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { broker, FakeBroker } from './cli-rig.ts';

const part = (name: string, text: string) => ({ name, content: Buffer.from(text) });

/** Files of an archive by their names, without the folder that all are in; unpacked by the system's own tar. */
function unpacked(t: TestContext, archive: string): Record<string, string> {
  const folder = temporaryFolder(t);
  execFileSync('tar', ['-xzf', archive, '-C', folder, '--strip-components=1']);
  const names = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).trimEnd().split('\n');
  const roots = new Set(names.map((name) => name.split('/')[0]));
  assert.equal(roots.size, 1, 'everything is in one folder');
  const inner = names.map((name) => name.slice(name.indexOf('/') + 1));
  return Object.fromEntries(inner.map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

async function bundle(t: TestContext, fake: FakeBroker, ...argv: string[]) {
  const file = join(temporaryFolder(t), 'b.tar.gz');
  const ended = await broker(['debug', 'bundle', '-f', file, '-o', 'json', ...argv], { fake });
  const files = ended.code === 0 ? unpacked(t, file) : {};
  return {
    ...ended,
    file,
    files,
    manifest: files['bundle.json'] === undefined ? null : JSON.parse(files['bundle.json']),
  };
}

test('parts of a file are put together, and what the node answers to other calls is beside them', async (t) => {
  const fake = new FakeBroker();
  fake.debugParts = [part('log.jsonl', '{"a"'), part('log.jsonl', ':1}\n'), part('profiles/main.cpuprofile', '{}')];
  fake.answers = { listShards: { shards: [] }, topSubjects: { subjects: [{ subject: 'a.b' }] } };
  const { code, files, file, out, err, manifest } = await bundle(t, fake, '--cpu-profile', '2s');
  assert.equal(code, 0);
  assert.equal(files['log.jsonl'], '{"a":1}\n');
  assert.equal(files['profiles/main.cpuprofile'], '{}');
  assert.match(files['status.json'] ?? '', /"nodeId": "n1"/);
  assert.match(files['members.json'] ?? '', /"clusterId": "c0ffee"/);
  assert.match(files['subjects.json'] ?? '', /a\.b/);
  assert.match(files['README.txt'] ?? '', /Messages are not in it/);
  assert.deepEqual(fake.asked.at(-1), { cpuProfileMs: 2_000 });
  assert.equal(statSync(file).mode & 0o777, 0o600, 'for its owner only');
  assert.deepEqual(
    manifest.missing.map(({ what }: { what: string }) => what),
    ['subscriptions.json', 'connections.json', 'tenants.json'],
  );
  assert.match(err, /broker: missing: tenants\.json: the method listTenants does not exist/);
  assert.equal(JSON.parse(out).missing, 3);
});

test('what a node says that it does not have is told', async (t) => {
  const fake = new FakeBroker();
  fake.debugParts = [part('threads.json.missing', 'the thread did not answer'), part('log.jsonl', '')];
  const { code, err, files } = await bundle(t, fake);
  assert.equal(code, 0);
  assert.match(err, /broker: missing: threads\.json: the thread did not answer/);
  assert.equal(files['log.jsonl'], '');
  assert.equal(files['threads.json.missing'], undefined);
});

for (const name of ['../../.profile', '/etc/x', 'a/../b', 'a//b', '', '.hidden', 'a\nb']) {
  test(`a node cannot name a file ${JSON.stringify(name)} of the bundle`, async (t) => {
    const fake = new FakeBroker();
    fake.debugParts = [part(name, 'x'), part('log.jsonl', 'y')];
    const { code, err, files } = await bundle(t, fake);
    assert.equal(code, 0);
    assert.match(err, /broker: missing: a file of the node: its name is not one of a bundle/);
    assert.equal(Object.values(files).filter((content) => content === 'x').length, 0);
  });
}

class DownBroker extends FakeBroker {
  override async status(): Promise<never> {
    throw new CliError(EXIT.unreachable, 'cannot connect to 127.0.0.1:8081', 'start a broker');
  }
}

test('a node that is down is an error that names --data-dir, and makes no file', async (t) => {
  const { code, err, file } = await bundle(t, new DownBroker());
  assert.equal(code, EXIT.unreachable);
  assert.match(err, /cannot connect.*\n {2}start a broker; with --data-dir FOLDER the bundle has what the files/);
  assert.throws(() => statSync(file), /ENOENT/);
});

test('of a node that is down the files are listed, and node.json is all that is read of them', async (t) => {
  const folder = temporaryFolder(t);
  mkdirSync(join(folder, 'segments', 'lane-000'), { recursive: true });
  writeFileSync(join(folder, 'node.json'), '{"nodeId":"n1"}');
  writeFileSync(join(folder, 'segments', 'lane-000', '1.seg'), 'a message');
  writeFileSync(join(folder, 'keyring.json'), '["key"]', { mode: 0o600 });
  const { code, files, err } = await bundle(t, new DownBroker(), '--data-dir', folder);
  assert.equal(code, 0);
  assert.match(err, /broker: missing: the node: cannot connect/);
  assert.equal(files['node.json'], '{"nodeId":"n1"}');
  const { files: listed, free_bytes } = JSON.parse(files['data-directory.json'] ?? '');
  assert.ok(free_bytes > 0);
  assert.deepEqual(
    listed.map(({ path, bytes, kind, mode }: Record<string, unknown>) => [
      path,
      kind,
      kind === 'file' ? bytes : 0,
      mode,
    ]),
    [
      ['keyring.json', 'file', 7, '600'],
      ['node.json', 'file', 15, '644'],
      ['segments', 'folder', 0, '755'],
      ['segments/lane-000', 'folder', 0, '755'],
      ['segments/lane-000/1.seg', 'file', 9, '644'],
    ],
  );
  assert.doesNotMatch(Object.values(files).join(''), /a message|\["key"\]/);
});

test('a bundle that is there already is not overwritten', async (t) => {
  const file = join(temporaryFolder(t), 'b.tar.gz');
  writeFileSync(file, 'mine');
  const { code, err } = await broker(['debug', 'bundle', '-f', file]);
  assert.equal(code, EXIT.failed);
  assert.match(err, /name another one with --file/);
  assert.equal(readFileSync(file, 'utf8'), 'mine');
});

for (const argv of [
  ['--cpu-profile', '31s'],
  ['--cpu-profile', 'x'],
  ['--data-dir', '/nowhere/at/all'],
]) {
  test(`debug bundle ${argv.join(' ')} is wrong usage`, async (t) => {
    assert.equal((await bundle(t, new FakeBroker(), ...argv)).code, EXIT.usage);
  });
}

test('--hash-subjects hides the names of subjects everywhere, each behind one name', async (t) => {
  const fake = new FakeBroker();
  const log = [
    { level: 'warn', subject: 'orders.eu', msg: 'x' },
    { level: 'warn', msg: 'x', error: 'subject orders.eu: damaged' },
    { level: 'info', pattern: 'orders.*', msg: 'y' },
    { level: 'info', key: 'quotas.rules', value: 'acme/orders.us.gone=1msg/s', msg: 'a setting was changed' },
  ];
  fake.debugParts = [
    part('log.jsonl', log.map((line) => `${JSON.stringify(line)}\n`).join('')),
    part('metrics.txt', 'broker_subject_messages{subject="orders.eu",shard="0"} 1\n'),
    part(
      'settings.json',
      JSON.stringify([
        { key: 'quotas.rules', value: 'orders.eu=5' },
        { key: 'shards', value: '1' },
      ]),
    ),
  ];
  fake.answers = {
    listShards: { shards: [{ hotSubjects: [{ subject: 'orders.eu' }] }] },
    topSubjects: { subjects: [{ subject: 'orders.us' }] },
    listSubscriptions: { subscriptions: [{ subject: 'orders.eu', pattern: 'orders.*', peer: '10.0.0.9:1' }] },
    listTenants: { quotas: [{ subjectPrefix: 'orders.' }] },
  };
  const { files, manifest } = await bundle(t, fake, '--hash-subjects');
  assert.equal(manifest.subjects_hashed, true);
  assert.doesNotMatch(Object.values(files).join('\n'), /orders|\beu\b|\bus\b|gone/);
  const hidden = JSON.parse(files['subscriptions.json'] ?? '').subscriptions[0];
  assert.match(hidden.subject, /^h[0-9a-f]{10}\.h[0-9a-f]{10}$/);
  assert.equal(hidden.pattern, `${hidden.subject.split('.')[0]}.*`, 'what belongs together still does');
  assert.equal(hidden.peer, '10.0.0.9:1');
  assert.ok(files['metrics.txt']?.includes(`subject="${hidden.subject}"`));
  const [first, second] = (files['log.jsonl'] ?? '').split('\n').map((line) => (line === '' ? {} : JSON.parse(line)));
  assert.deepEqual([first.subject, second.error], [hidden.subject, `subject ${hidden.subject}: damaged`]);
});

test('hashes of one bundle say nothing about those of another', () => {
  const [one, other] = [new SubjectHasher(), new SubjectHasher()];
  assert.equal(one.hash('a.b'), one.hash('a.b'));
  assert.notEqual(one.hash('a.b'), other.hash('a.b'));
});

test('names in what the audit says of the arguments of an action are hidden, and so are rules of quotas', () => {
  const audited = (given: object): string =>
    JSON.stringify({ audit: true, caller: 'token ops', arguments: JSON.stringify(given), outcome: 'ok' });
  const hasher = new SubjectHasher();
  const lines = [
    audited({ subject: 'hr.salaries', first: 5, tenant: 'acme' }),
    audited({ prefix: 'legal.', bytesPerSecond: 0 }),
    audited({ key: 'quotas.rules', value: 'acme/board=1msg/s' }),
    audited({ nodeId: 'n1', key: '32 bytes' }),
    JSON.stringify({ arguments: 'cut {"subject":' }),
  ];
  const [trim, verify, quotas, other, cut] = hasher
    .lines(lines.join('\n'))
    .split('\n')
    .map((line) => JSON.parse(line).arguments as string);
  assert.deepEqual(JSON.parse(trim ?? ''), { subject: hasher.hash('hr.salaries'), first: 5, tenant: 'acme' });
  assert.deepEqual(JSON.parse(verify ?? ''), { prefix: hasher.hash('legal.'), bytesPerSecond: 0 });
  assert.deepEqual(JSON.parse(quotas ?? ''), { key: 'quotas.rules', value: '(hidden)' });
  assert.deepEqual(JSON.parse(other ?? ''), { nodeId: 'n1', key: '32 bytes' });
  assert.equal(cut, 'cut {"subject":');
});

test('the archive is one that tar reads: names of all lengths, files of all sizes', (t) => {
  const sizes = [0, 1, 511, 512, 513, 100_000];
  const files = sizes.map((size, index) => ({
    name: `f/${index % 2 === 0 ? '' : `${'d'.repeat(60)}/${'e'.repeat(60)}/`}${size}`,
    content: Buffer.alloc(size, size % 251),
  }));
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'a.tar'), tarOf(files, Date.parse('2026-01-02T03:04:05Z')));
  execFileSync('tar', ['-xf', 'a.tar'], { cwd: folder });
  for (const { name, content } of files) {
    assert.deepEqual(readFileSync(join(folder, name)), content);
    assert.equal(statSync(join(folder, name)).mtime.toISOString(), '2026-01-02T03:04:05.000Z');
  }
  assert.throws(() => tarOf([{ name: 'x'.repeat(101), content: Buffer.alloc(0) }], 0), RangeError);
  assert.equal(gunzipSync(execFileSync('gzip', ['-c', join(folder, 'a.tar')])).length % 512, 0);
});
