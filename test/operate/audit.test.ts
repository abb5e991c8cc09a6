/** What a real broker writes down of refusals and of what operators do. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Client } from '../../src/client/index.ts';
import { hashOf, tokenOf } from '../support/access-pairs.ts';
import { parseExposition } from '../support/exposition.ts';
import { SmallDisk } from '../support/small-disk.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';
import { AccessRig, outcomeOf } from './access-rig.ts';

type Line = Readonly<Record<string, unknown>>;

const ACCESS = `tokens:
  - {name: ops, hash: "${hashOf('ops')}", observe: true, admin: true}
  - {name: shop, hash: "${hashOf('shop')}", allow: {publish: [mine], subscribe: [mine], fetch: [mine]}}
`;

function linesOf(path: string): Line[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  // Without those that a full disk has cut.
  return lines.filter((line) => line.endsWith('}')).map((line) => JSON.parse(line) as Line);
}

async function start(t: TestContext, flags: readonly string[] = [], folder = temporaryFolder(t)) {
  const file = join(folder, 'audit.log');
  const rig = await AccessRig.start(ACCESS, ['--access-audit-file', file, ...flags]);
  t.after(() => rig.dispose());
  const found = async (count: number, is: (line: Line) => boolean): Promise<Line[]> => {
    await until(
      () => linesOf(file).filter(is).length >= count,
      () => readFileSync(file, 'utf8'),
    );
    return linesOf(file).filter(is);
  };
  return { rig, file, found };
}

test('a change of a setting is written down without the secret that was to be set', async (t) => {
  const { rig, file, found } = await start(t);
  const tries: readonly (readonly [string, string])[] = [
    ['gossip.key', 'Y2FuYXJ5LWdvc3NpcC1rZQ=='],
    ['cassandra.password', 'canary-1'],
    ['cassandra.pasword', 'canary-2'],
    ['postgres.url', 'postgres://me:canary/3@db:5432/x'],
    ['tracing.headers', 'authorization=Bearer canary-4'],
    ['tracing.endpoint', 'http://canary-5@collector:4318'],
  ];
  for (const [key, value] of tries) assert.notEqual(await outcomeOf(rig.as('ops').changeSetting(key, value)), 'ok');
  const lines = await found(tries.length, ({ method }) => method === 'ChangeSetting');
  assert.deepEqual(
    lines.map(({ arguments: given }) => JSON.parse(String(given)).key),
    tries.map(([key]) => key),
  );
  for (const text of [readFileSync(file, 'utf8'), rig.broker.logs]) assert.doesNotMatch(text, /canary|Y2FuYXJ5/);
});

test('what operators do is in the log whatever its level is, which they can change', async (t) => {
  const { rig, found } = await start(t);
  await rig.as('ops').changeSetting('log.level', 'error');
  assert.equal(await outcomeOf(rig.as('ops').trim('mine', 1)), 'SUBJECT_NOT_FOUND');
  await found(2, ({ msg }) => msg === 'an operator has acted');
  await until(
    () => /"level":"info".*"audit":true.*TrimSubject/.test(rig.broker.logs),
    () => rig.broker.logs,
  );
  assert.match(rig.broker.logs, /"level":"info".*"audit":true.*ChangeSetting/);
});

const DENIED: readonly (readonly [string, (client: Client, subject: string) => Promise<unknown>])[] = [
  ['Publish', (client, subject) => client.publish(subject, 'x')],
  ['PublishStream', (client, subject) => client.publisher().publish(subject, 'x')],
  ['Broadcast', (client, subject) => client.broadcast(subject, 'x')],
  ['IncIdx', (client, subject) => client.incrementId(subject)],
  ['Fetch', (client, subject) => client.fetch(subject, 1)],
  ['Consume', (client, subject) => client.subscribe(subject).started],
  ['Subscribe', (client, subject) => client.subscribe(subject, { broadcasts: true }).started],
  ['SubjectInfo', (client, subject) => client.subject(subject)],
];

test('a subject that is denied is written down with who wanted it and from where, whatever the method', async (t) => {
  const { rig, found } = await start(t);
  for (const [method, call] of DENIED) {
    // One line for each caller and address in ten seconds, so each method has a caller.
    rig.write(`${ACCESS}  - {name: ${method}, hash: "${hashOf(method)}", allow: {publish: [mine]}}\n`);
    const client = rig.as(method);
    await until(
      async () => (await outcomeOf(client.publish('mine', 'x'))) === 'ok',
      () => rig.broker.logs,
    );
    assert.equal(await outcomeOf(call(client, `denied.${method}`)), 'PERMISSION_DENIED', method);
    const [line = {}] = await found(1, ({ subject }) => subject === `denied.${method}`);
    assert.deepEqual([line.caller, line.reason], [`token ${method}`, 'PERMISSION_DENIED']);
    assert.match(String(line.peer), /^127\.0\.0\.1:\d+$/, method);
  }
});

/** What an operator does so that the audit has a long line of it. */
const actOften = async (client: Client, times: number): Promise<void> => {
  const subject = 'x'.repeat(250);
  const actions = Array.from({ length: times }, () => outcomeOf(client.trim(subject, 1)));
  assert.deepEqual([...new Set(await Promise.all(actions))], ['SUBJECT_NOT_FOUND']);
};

const BYTES_MAX = 64 << 10;

test('the audit file and the one before it stay under access.audit_max_bytes, and what was done last is there', async (t) => {
  const { rig, file, found } = await start(t, ['--access-audit-max-bytes', '64KiB']);
  for (let i = 0; i < 4; i++) await actOften(rig.as('ops'), 100);
  await outcomeOf(rig.as('ops').trim('last', 1));
  await found(1, ({ arguments: given }) => String(given).includes('"last"'));
  for (const one of [file, `${file}.1`]) {
    assert.ok(statSync(one).size <= BYTES_MAX, one);
    assert.equal(statSync(one).mode & 0o777, 0o600);
  }
  assert.ok(linesOf(`${file}.1`).length > 100);
});

test('a full disk under the audit file stops nobody: it is told of, counted, and the file goes on when there is space', async (t) => {
  if (!requireTool(t, 'tmpfs')) return;
  const disk = new SmallDisk(256 << 10);
  const { rig, file, found } = await start(t, [], disk.path);
  t.after(() => disk[Symbol.dispose]());
  await actOften(rig.as('ops'), 10);
  disk.fillUpTo(0);
  await actOften(rig.as('ops'), 100);
  const lacking = async (): Promise<number> => {
    const headers = { authorization: `Bearer ${tokenOf('ops')}` };
    const response = await fetch(`http://${rig.broker.adminAddress}/metrics`, { headers });
    const { samples } = parseExposition(await response.text());
    return samples.find(({ name }) => name === 'broker_access_audit_lines_missing_total')?.value ?? Number.NaN;
  };
  await until(
    async () => (await lacking()) > 0 && rig.broker.logs.includes('the audit file cannot be written'),
    () => rig.broker.logs.slice(-2_000),
  );
  // The log has them all.
  await until(
    () => rig.broker.logs.split('TrimSubject').length === 111,
    () => rig.broker.logs.split('TrimSubject').length,
  );
  disk.free();
  const missing = await lacking();
  process.kill(rig.broker.pid, 'SIGHUP');
  await until(
    () => rig.broker.logs.includes('the configuration is read again'),
    () => rig.broker.logs.slice(-2_000),
  );
  await actOften(rig.as('ops'), 1);
  const [gap] = await found(1, ({ msg }) => String(msg).startsWith('lines are missing here'));
  assert.equal(gap?.missing, missing);
  await until(
    () => rig.broker.logs.includes('the audit file is written again'),
    () => rig.broker.logs.slice(-2_000),
  );
  const written = linesOf(file).filter(({ method }) => method === 'TrimSubject').length;
  assert.ok(written >= 111 - missing && written < 111, `${written} lines, ${missing} missing`);
});
