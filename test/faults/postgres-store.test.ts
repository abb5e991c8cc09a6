/** What a store on PostgreSQL keeps of what it acknowledged, while its server is killed, stopped and cut off. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { PostgresStore } from '../../src/storage/postgres/postgres-store.ts';
import { type SealedBatch, StoreUncertain } from '../../src/storage/store.ts';
import { appendUntilKnown, readAll } from '../contract/message-store.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { Relay } from '../servers/relay.ts';
import { dataBatch, plain, subjectRef } from '../unit/batch-support.ts';

const ROUNDS = process.env.BROKER_TEST_LONG === '1' ? 200 : 20;

function options(url: string, timeoutMs = 5_000) {
  const schema = `t_${randomBytes(6).toString('hex')}`;
  return { url, schema, pool: 4, timeoutMs, tls: null, acceptWeakDurability: false };
}

function group(subjects: readonly ReturnType<typeof subjectRef>[], round: number): SealedBatch[] {
  return subjects.map((subject) => dataBatch(subject, [plain(`${round}`), plain(`${round}`)], { base: round * 2 + 1 }));
}

/** Every subject has each round once, in order. */
async function assertWhole(
  store: PostgresStore,
  subjects: readonly ReturnType<typeof subjectRef>[],
  rounds: number,
): Promise<void> {
  for (const subject of subjects) {
    const found = await readAll(store, subject);
    assert.deepEqual(
      found.map(({ from, bodies }) => [from, bodies?.join()]),
      Array.from({ length: rounds }, (_, round) => [round * 2 + 1, `${round},${round}`]),
    );
  }
}

/** Pids of the backends that are in a statement, as the server sees it. */
function backendsOf(server: PostgresServer): number[] {
  const listed = execFileSync('ps', ['--ppid', String(server.pid), '-o', 'pid=,args='], { encoding: 'utf8' });
  return listed
    .split('\n')
    .filter((line) => /INSERT|COMMIT|BIND|idle/.test(line) && line.includes('127.0.0.1'))
    .map((line) => Number.parseInt(line, 10));
}

test(`[S14] a backend killed with -9 in the middle of commits, ${ROUNDS} times: none lost, none twice`, async (t) => {
  const server = await PostgresServer.start(['restart_after_crash=on']);
  t.after(() => server.remove());
  const store = await PostgresStore.open(options(server.url));
  t.after(() => store.close());
  const subjects = Array.from({ length: 8 }, (_, i) => subjectRef(`killed.${i}`));
  let round = 0;
  let repeated = 0;
  for (let kills = 0; kills < ROUNDS; kills++) {
    const append = appendUntilKnown(store, group(subjects, round++));
    for (const pid of backendsOf(server).slice(0, 1)) process.kill(pid, 'SIGKILL');
    repeated += (await append) - 1;
    await appendUntilKnown(store, group(subjects, round++));
  }
  assert.ok(repeated > 0, 'the kills hit');
  await assertWhole(store, subjects, round);
});

test('[P3] the server stopped at once (pg_ctl stop -m immediate) and started again: what was acknowledged is there', async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const store = await PostgresStore.open(options(server.url));
  t.after(() => store.close());
  const subjects = [subjectRef('stopped.a'), subjectRef('stopped.b')];
  for (let round = 0; round < 40; round++) {
    const append = appendUntilKnown(store, group(subjects, round));
    if (round % 10 === 5) {
      await server.stop('SIGQUIT');
      await assert.rejects(store.append(group(subjects, 1_000)));
      await server.run();
    }
    await append;
  }
  await assertWhole(store, subjects, 40);
});

test('[S14] the reply lost after the commit: uncertain, and the repeated append finds what is there', async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const relay = await Relay.start('127.0.0.1', server.port);
  t.after(() => relay.close());
  const subjects = [subjectRef('cut.a'), subjectRef('cut.b')];
  const url = server.url.replace(String(server.port), String(relay.port));
  const store = await PostgresStore.open(options(url));
  t.after(() => store.close());
  await store.append(group(subjects, 0));
  for (let round = 1; round < ROUNDS; round++) {
    // The connections are made before, so that what is swallowed is the answer to the write.
    await store.lastId(subjects[0] as ReturnType<typeof subjectRef>);
    const answered = relay.dropReplies();
    const append = store.append(group(subjects, round));
    const uncertain = assert.rejects(append, StoreUncertain);
    await answered;
    relay.breakAll();
    await uncertain;
    relay.restore();
    await appendUntilKnown(store, group(subjects, round));
  }
  await assertWhole(store, subjects, ROUNDS);
});

test('[S15] the server halted (SIGSTOP): uncertain within the timeout, well again when it goes on', async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const store = await PostgresStore.open(options(server.url, 1_000));
  t.after(() => store.close());
  const subjects = [subjectRef('halted')];
  await store.append(group(subjects, 0));
  const halted = [server.pid, ...backendsOf(server)];
  for (const pid of halted) process.kill(pid, 'SIGSTOP');
  await assert.rejects(store.append(group(subjects, 1)), StoreUncertain);
  for (const pid of halted) process.kill(pid, 'SIGCONT');
  await appendUntilKnown(store, group(subjects, 1));
  await assertWhole(store, subjects, 2);
});

test('[S15] the server halted when a partition has to be made: given up after store.timeout, as without one', async (t) => {
  const server = await PostgresServer.start();
  t.after(() => server.remove());
  const chosen = options(server.url, 2_000);
  const store = await PostgresStore.open(chosen);
  const yardstick = await PostgresStore.open({ ...chosen, timeoutMs: 3_000 });
  t.after(() => Promise.all([store.close(), yardstick.close()]));
  const subject = subjectRef('halted');
  const batch = (base: number, seconds: number) =>
    dataBatch(subject, [plain('m', seconds)], { base, publishedAt: Date.now() });
  await store.append([batch(1, 0)]);
  await yardstick.append([batch(2, 0)]);
  const halted = [server.pid, ...backendsOf(server)];
  for (const pid of halted) process.kill(pid, 'SIGSTOP');
  const ended: string[] = [];
  const end = (name: string) => (): void => void ended.push(name);
  const made = assert.rejects(store.append([batch(3, 60)]), { reason: 'STORE_UNAVAILABLE' }).then(end('new partition'));
  const longer = assert.rejects(yardstick.append([batch(4, 0)]), StoreUncertain).then(end('half as long again'));
  await Promise.all([made, longer]);
  for (const pid of halted) process.kill(pid, 'SIGCONT');
  assert.deepEqual(ended, ['new partition', 'half as long again']);
  await appendUntilKnown(store, [batch(3, 60)]);
  assert.equal(await store.lookup(subject, 3), 'data');
});

test('[S14] settings that lose acknowledged rows are refused, unless they are accepted', async (t) => {
  for (const setting of ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off']) {
    const server = await PostgresServer.start([setting]);
    t.after(() => server.remove());
    await assert.rejects(PostgresStore.open(options(server.url)), { code: 'STORE_WEAK' });
    const store = await PostgresStore.open({ ...options(server.url), acceptWeakDurability: true });
    assert.equal(store.weaknesses.length, 1);
    await store.close();
  }
});
