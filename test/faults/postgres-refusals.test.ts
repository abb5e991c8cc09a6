/** PostgreSQL that is there and takes no messages: full, read-only, locked, or with other credentials. Refused with a delay, ready again by itself, nothing lost. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { PostgresServer } from '../servers/postgres.ts';
import { Relay } from '../servers/relay.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { SmallDisk } from '../support/small-disk.ts';
import { requireTool } from '../support/tools.ts';
import { FaultRig, pause } from './rig.ts';

const MIB = 1 << 20;
const LARGE_BYTES = 256 * 1024;
const WAIT_MS_MAX = 30_000;

const server = await PostgresServer.start();
after(() => server.remove());

async function until(rig: FaultRig, what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = performance.now() + WAIT_MS_MAX; performance.now() < end; await pause(10)) {
    assert.ok(rig.broker.running, rig.broker.logs);
    if (await holds()) return;
  }
  assert.fail(`not ${what} in ${WAIT_MS_MAX} ms\n${JSON.stringify([...rig.load.refusals])}\n${rig.broker.logs}`);
}

async function readiness({ broker }: FaultRig): Promise<string> {
  const response = await fetch(`http://${broker.adminAddress}/readyz`);
  return `${response.status} ${((await response.json()) as { reasons: string[] }).reasons}`;
}

/** A publish that is refused; null while it is taken. */
async function tryPublish(rig: FaultRig, client: BrokerClient, bytes = 64): Promise<CallError | null> {
  const payload = Buffer.alloc(bytes, `probe ${rig.history.judge().counts.submissions} `);
  const attempt = rig.history.beginAttempt(rig.history.submit({ subject: 'refused.probe', payload, lane: 'probe' }));
  try {
    rig.history.endAttempt(attempt, {
      outcome: 'ok',
      id: await client.publish({ subject: 'refused.probe', body: payload }),
    });
    return null;
  } catch (error) {
    assert.ok(error instanceof CallError);
    rig.history.endAttempt(attempt, { outcome: error.outcome, detail: error.message });
    return error;
  }
}

interface Refusal {
  readonly hinder: () => Promise<void>;
  readonly relieve: () => Promise<void>;
  /** `STATUS REASON outcome` of what is refused meanwhile. */
  readonly refusedAs: string;
  /** Bytes of the messages that are tried. */
  readonly bytes?: number;
  /** What the database has can be read meanwhile. */
  readonly isReadable: boolean;
}

/** Load, refusals with a delay, not ready; then by itself ready again in the same process, and everything that was acknowledged is there. */
async function refuseAndRecover(rig: FaultRig, refusal: Refusal): Promise<void> {
  const client = new BrokerClient(rig.broker.address);
  const pid = rig.broker.pid;
  rig.startLoad({ witness: true });
  await until(rig, 'acknowledged', () => rig.load.lastAckedSentAt > 0);
  assert.equal(await tryPublish(rig, client), null);
  await refusal.hinder();
  let refused: CallError | null = null;
  await until(rig, 'refused', async () => {
    refused = await tryPublish(rig, client, refusal.bytes);
    return refused !== null;
  });
  const { statusName, reason, outcome, retryAfterMs } = refused as unknown as CallError;
  assert.equal(`${statusName} ${reason} ${outcome}`, refusal.refusedAs);
  assert.ok((retryAfterMs ?? 0) > 0, 'no RetryInfo');
  const unready = new RegExp(`^503 ${reason}: `);
  await until(rig, 'unready', async () => unready.test(await readiness(rig)));
  if (refusal.isReadable) assert.equal((await client.fetch('refused.probe', 1)).body.length, 64);
  await rig.load.stop();
  await refusal.relieve();
  // Nobody publishes: it has to find out by itself.
  await until(rig, 'ready', async () => (await readiness(rig)) === '200 ');
  await until(rig, 'taken', async () => (await tryPublish(rig, client, refusal.bytes)) === null);
  assert.equal(rig.broker.pid, pid);
  client.close();
  await rig.catchUp();
  await rig.broker.restart();
  await rig.assertKept(20);
}

function startRig(flags = server.brokerFlags()): Promise<FaultRig> {
  return FaultRig.start({ flags: [...flags, '--store-timeout', '5s', '--shards', '1'] });
}

test('[S8] its disk is full: STORE_FULL with a delay, reads go on; with space again all goes on, and nothing is lost', async (t) => {
  if (!requireTool(t, 'tmpfs')) return;
  using disk = new SmallDisk(48 * MIB);
  chmodSync(disk.path, 0o755);
  const location = join(disk.path, 'tables');
  mkdirSync(location);
  execFileSync('chown', ['--reference', server.data, location]);
  await server.sql(`CREATE TABLESPACE small LOCATION '${location}'`);
  await server.sql('CREATE DATABASE full_one TABLESPACE small');
  const url = new URL(server.url);
  url.pathname = '/full_one';
  {
    await using rig = await startRig(server.brokerFlags(String(url)));
    await refuseAndRecover(rig, {
      hinder: async () => disk.fillUpTo(0),
      relieve: async () => disk.free(),
      refusedAs: 'RESOURCE_EXHAUSTED STORE_FULL none',
      bytes: LARGE_BYTES,
      isReadable: true,
    });
  }
  await server.sql('DROP DATABASE full_one WITH (FORCE)');
  await server.sql('DROP TABLESPACE small');
});

test('it is made read-only: STORE_UNAVAILABLE with a delay, reads go on; writable again all goes on, and nothing is lost', async () => {
  await using rig = await startRig();
  await refuseAndRecover(rig, {
    hinder: () => server.configure({ default_transaction_read_only: 'on' }),
    relieve: () => server.configure({ default_transaction_read_only: null }),
    refusedAs: 'UNAVAILABLE STORE_UNAVAILABLE none',
    isReadable: true,
  });
});

test('the password of its role is changed and its sessions are ended: STORE_UNAVAILABLE with a delay; changed back all goes on, and nothing is lost', async () => {
  await server.sql("CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'hush-before'");
  const url = new URL(server.url);
  [url.username, url.password] = ['rotated', 'hush-before'];
  await using rig = await startRig(server.brokerFlags(String(url)));
  await refuseAndRecover(rig, {
    hinder: async () => {
      await server.sql("ALTER ROLE rotated PASSWORD 'hush-after'");
      assert.ok((await server.endSessions()) > 0);
    },
    relieve: async () => {
      await server.sql("ALTER ROLE rotated PASSWORD 'hush-before'");
    },
    refusedAs: 'UNAVAILABLE STORE_UNAVAILABLE none',
    isReadable: false,
  });
  assert.doesNotMatch(rig.broker.logs, /hush/);
});

test('its table is locked for longer than store.timeout: statements are ended, STORE_UNAVAILABLE with a delay; unlocked all goes on, and nothing is lost', async () => {
  const flags = server.brokerFlags();
  const schema = flags.at(-1) as string;
  await using rig = await startRig(flags);
  let unlock = (): void => undefined;
  let locked: Promise<unknown> = Promise.resolve();
  await refuseAndRecover(rig, {
    hinder: () =>
      new Promise((resolve) => {
        locked = server.locking(`${schema}.batch`, () => {
          resolve();
          return new Promise<void>((release) => {
            unlock = release;
          });
        });
      }),
    relieve: async () => {
      unlock();
      await locked;
    },
    refusedAs: 'UNAVAILABLE STORE_UNAVAILABLE none',
    isReadable: false,
  });
});

test('[S12, S14] its synchronous standby is silent, then takes over: refused until it takes writes, then all goes on there, and nothing is lost', async (t) => {
  const primary = await PostgresServer.start();
  t.after(() => primary.remove());
  const relay = await Relay.start('127.0.0.1', primary.port);
  t.after(() => relay.close());
  const standby = await primary.standby('second');
  t.after(() => standby.remove());
  await primary.configure({ synchronous_standby_names: 'second' });
  await using rig = await startRig(primary.brokerFlags(relay.through(primary.url)));
  const client = new BrokerClient(rig.broker.address);
  await refuseAndRecover(rig, {
    async hinder() {
      const backends = standby.backends();
      for (const pid of backends) process.kill(pid, 'SIGSTOP');
      // Commits are made on the primary, and wait. Somebody who ends that wait makes the primary answer that all is well, with a warning.
      let isOver = false;
      let ended = 0;
      const ending = (async () => {
        for (; !isOver; await pause(20)) {
          const waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
          ended += (await primary.sql(`SELECT pg_cancel_backend(pid) ${waiting}`)).length;
        }
      })();
      try {
        await until(rig, 'refused', async () => (await tryPublish(rig, client)) !== null);
      } finally {
        isOver = true;
        await ending;
      }
      assert.ok(ended > 0, 'nobody waited for the standby');
      await primary.stop('SIGQUIT');
      for (const pid of backends) process.kill(pid, 'SIGCONT');
      relay.retarget('127.0.0.1', standby.port);
    },
    async relieve() {
      await standby.sql('SELECT pg_promote()');
      // It would wait for a standby of its own.
      await standby.configure({ synchronous_standby_names: null });
    },
    refusedAs: 'UNAVAILABLE STORE_UNAVAILABLE none',
    isReadable: true,
  });
  client.close();
});
