/** `broker config check`: what is wrong with a configuration and what it names, without a start. */
import assert from 'node:assert/strict';
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../support/temporary.ts';
import { broker } from './cli-rig.ts';

const POSTGRES = ['--store=postgres', '--postgres-url=postgres://db/x'];

async function check(argv: readonly string[], environment: Readonly<Record<string, string>> = {}) {
  const { code, out } = await broker(['config', 'check', '-o', 'json', ...argv], { environment });
  return { code, ...(JSON.parse(out) as { valid: boolean; problems: string[]; warnings: string[] }) };
}

test('a right configuration is valid, and nothing is made or opened', async (t) => {
  const folder = join(temporaryFolder(t), 'not', 'yet');
  const { code, valid, problems, warnings } = await check(['--data-dir', folder]);
  assert.deepEqual([code, valid, problems, warnings], [0, true, [], []]);
  assert.ok(!existsSync(folder));
});

test('all that is wrong is told: as lines on stderr, or as one object; exit code 2', async () => {
  const argv = ['--shards=0', '--shrads=1'];
  const { code, valid, problems } = await check(argv);
  assert.deepEqual([code, valid, problems.length], [2, false, 2]);
  const people = await broker(['config', 'check', ...argv]);
  assert.deepEqual([people.code, people.out], [2, '']);
  assert.equal(people.err, problems.map((problem) => `broker: ${problem}\n`).join(''));
});

test('warnings are told and do not make it wrong', async (t) => {
  const argv = ['--data-dir', temporaryFolder(t), '--dns-name=brokers'];
  const { code, warnings } = await check(argv);
  assert.deepEqual([code, warnings], [0, ['discovery.dns_name (--dns-name): has no effect without discovery dns']]);
  for (const name of ['check', 'print']) {
    const people = await broker(['config', name, ...argv]);
    assert.deepEqual([people.code, people.err], [0, `broker: warning: ${warnings[0]}\n`]);
  }
});

test('files that are not there, or are none, are named', async (t) => {
  const folder = temporaryFolder(t);
  const certificate = join(folder, 'cert.pem');
  writeFileSync(certificate, 'x');
  const argv = ['--data-dir', folder, ...POSTGRES, '--postgres-tls=verify'];
  assert.deepEqual((await check([...argv, `--postgres-tls-ca=${certificate}`])).problems, []);
  assert.deepEqual((await check([...argv, `--postgres-tls-ca=${join(folder, 'no.pem')}`])).problems, [
    `postgres.tls_ca "${join(folder, 'no.pem')}" (--postgres-tls-ca): cannot be read: it does not exist`,
  ]);
  assert.deepEqual((await check([...argv, `--postgres-tls-ca=${folder}`])).problems, [
    `postgres.tls_ca "${folder}" (--postgres-tls-ca): cannot be read: it is a folder`,
  ]);
});

test('a data directory that is a file, or below one, is no data directory', async (t) => {
  const file = join(temporaryFolder(t), 'f');
  writeFileSync(file, '');
  assert.deepEqual((await check(['--data-dir', file])).problems, [
    `data_dir "${file}": cannot be written: it is no folder`,
  ]);
  const [below] = (await check(['--data-dir', join(file, 'data')])).problems;
  assert.equal(below, `data_dir "${join(file, 'data')}": "${file}" cannot be written: it is no folder`);
});

for (const [flags, problem] of [
  [
    ['--grpc-listen=0.0.0.0:8081', '--admin-listen=127.0.0.1:8081'],
    'admin.listen 127.0.0.1:8081: is taken by grpc.listen 0.0.0.0:8081',
  ],
  [
    ['--grpc-listen=[::]:8081', '--admin-listen=127.0.0.1:8081'],
    'admin.listen 127.0.0.1:8081: is taken by grpc.listen [::]:8081',
  ],
  [
    ['--grpc-listen=localhost:8081', '--admin-listen=127.0.0.1:8081'],
    'admin.listen 127.0.0.1:8081: is taken by grpc.listen localhost:8081',
  ],
  [
    ['--gossip', '--gossip-listen=127.0.0.1:8000', '--admin-listen=0.0.0.0:8000'],
    'gossip.listen 127.0.0.1:8000: is taken by admin.listen 0.0.0.0:8000',
  ],
] as const) {
  test(`ports that take each other's place: ${flags.join(' ')}`, async (t) => {
    const { code, problems } = await check(['--data-dir', temporaryFolder(t), '--insecure', ...flags]);
    assert.deepEqual([code, problems], [2, [problem]]);
  });
}

test('ports that do not: other addresses, any free port, and those that are not opened', async (t) => {
  const folder = temporaryFolder(t);
  for (const flags of [
    ['--grpc-listen=127.0.0.1:8081', '--admin-listen=127.0.0.2:8081'],
    ['--grpc-listen=0.0.0.0:0', '--admin-listen=127.0.0.1:0'],
    ['--raft-listen=0.0.0.0:8081', '--gossip-listen=0.0.0.0:8000'],
  ]) {
    assert.deepEqual((await check(['--data-dir', folder, '--insecure', ...flags])).problems, [], flags.join(' '));
  }
});

test('gossip that tells nobody where the node is gets a warning', async (t) => {
  const argv = ['--data-dir', temporaryFolder(t), '--gossip', '--insecure', '--grpc-listen=0.0.0.0:8081'];
  assert.match(
    (await check(argv)).warnings.join(),
    /^gossip tells nobody where to reach this node: set grpc\.advertise/,
  );
  assert.deepEqual((await check([...argv, '--grpc-advertise=10.0.0.1:8081'])).warnings, []);
});
