/** Brokers on file systems of their own that fill up and get space again. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { AdminClient } from '../../src/grpc/gen/broker/v1/admin.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { PublishStream, sendRound } from '../support/publish-stream.ts';
import { SmallDisk } from '../support/small-disk.ts';
import { requireTool } from '../support/tools.ts';
import { changeTo, connect } from './resize-campaign.ts';
import { FaultRig, pause, until } from './rig.ts';

const MIB = 1 << 20;
const ROUNDS = process.env.BROKER_TEST_LONG === '1' ? 3 : 1;
const FLAGS = [
  '--shards',
  '1',
  '--store-low-space-bytes',
  '16MiB',
  '--segment-bytes',
  '1MiB',
  '--raft-snapshot-bytes',
  '1MiB',
];
const LARGE = 512 * 1024;
/** Of 256 trims, over 64 KiB of log, each: four times what the log allocates ahead. */
const TRIM_ROUNDS_MAX = 16;

/** Publishes large messages one after the other until the broker refuses one; returns that refusal. */
async function publishUntilRefused(rig: FaultRig, client: BrokerClient): Promise<CallError> {
  for (let number = 0; number < 1_000; number++) {
    const payload = Buffer.alloc(LARGE, `${rig.history.judge().counts.submissions} `);
    const attempt = rig.history.beginAttempt(rig.history.submit({ subject: 'full.large', payload, lane: 'large' }));
    try {
      const id = await client.publish({ subject: 'full.large', body: payload });
      rig.history.endAttempt(attempt, { outcome: 'ok', id });
    } catch (error) {
      assert.ok(error instanceof CallError);
      rig.history.endAttempt(attempt, { outcome: error.outcome, detail: error.message });
      return error;
    }
  }
  throw new Error('the disk does not fill up');
}

/**
 * Trims of a long name, until the log has used up what it has allocated ahead. A full store refuses all that would take ids, and so lets
 * nothing reach the log; a trim needs no space in the store and is always taken.
 */
async function fillLog(address: string, isEnough: () => boolean): Promise<void> {
  const admin = new AdminClient(address, credentials.createInsecure());
  const request = { subject: `full.${'x'.repeat(240)}`, first: 1, tenant: '' };
  const trim = (): Promise<void> => new Promise((resolve) => admin.trimSubject(request, () => resolve()));
  try {
    for (let i = 0; i < TRIM_ROUNDS_MAX && !isEnough(); i++) await Promise.all(Array.from({ length: 256 }, trim));
    // The line about it takes its way through the log of the process.
    for (let i = 0; i < 600 && !isEnough(); i++) await pause(50);
  } finally {
    admin.close();
  }
}

/** What the node says of itself: `/readyz`, `/healthz`, and the warnings of its status. */
async function healthOf({
  adminAddress,
  address,
}: FaultRig['broker']): Promise<Record<'ready' | 'alive' | 'warnings', string>> {
  const page = async (path: string): Promise<string> => {
    const response = await fetch(`http://${adminAddress}${path}`);
    return `${response.status} ${((await response.json()) as { reasons: string[] }).reasons}`;
  };
  const admin = new AdminClient(address, credentials.createInsecure());
  const warnings = await new Promise<string[]>((resolve, reject) => {
    admin.status({}, (error, answer) => (error === null ? resolve(answer.warnings) : reject(error)));
  });
  admin.close();
  return { ready: await page('/readyz'), alive: await page('/healthz'), warnings: String(warnings) };
}

/** Subjects that reach every shard: each looks at the disk for itself. */
const AGAIN = Array.from({ length: 64 }, (_, i) => `full.again-${i}`);

/** How many of the shards' subjects take a message. */
async function taken(client: BrokerClient): Promise<number> {
  const body = Buffer.from('x');
  const ids = await Promise.all(AGAIN.map((subject) => client.publish({ subject, body }).catch(() => 0)));
  return ids.filter((id) => id > 0).length;
}

/** A shard looks at its disk once a second: what is small still fits until then. */
const LOOKED_MS = 1_500;

async function refusesAll(rig: FaultRig, client: BrokerClient): Promise<void> {
  let since = performance.now();
  await until(
    async () => {
      if ((await taken(client)) > 0) since = performance.now();
      return performance.now() - since > LOOKED_MS;
    },
    () => `it takes messages below the mark\n${rig.broker.logs}`,
  );
}

function takesAgain(rig: FaultRig, client: BrokerClient): Promise<void> {
  return until(
    async () => (await taken(client)) === AGAIN.length,
    () => `with space again it takes no message\n${rig.broker.logs}`,
  );
}

describe('the disk fills up', () => {
  it('[S8] at the low-space mark publishes get STORE_FULL with a delay, reads go on, with space again all goes on, and nothing is lost', async (t) => {
    if (!requireTool(t, 'tmpfs')) return;
    using disk = new SmallDisk(64 * MIB);
    disk.fillUpTo(28 * MIB);
    await using rig = await FaultRig.start({ dataDir: join(disk.path, 'data'), flags: FLAGS });
    const client = new BrokerClient(rig.broker.address);
    const pid = rig.broker.pid;
    const refusal = await publishUntilRefused(rig, client);
    assert.equal(`${refusal.statusName} ${refusal.reason} ${refusal.outcome}`, 'RESOURCE_EXHAUSTED STORE_FULL none');
    assert.ok((refusal.retryAfterMs ?? 0) > 0, 'no RetryInfo');
    disk.fillUpTo(16 * MIB - 1);
    await refusesAll(rig, client);
    rig.startLoad();
    await until(
      () => [...rig.load.refusals.values()].some((count) => count > 50),
      () => `refused: ${[...rig.load.refusals]}`,
    );
    const refused = [...rig.load.refusals];
    assert.equal((await client.fetch('full.large', 1)).body.length, LARGE);
    await rig.load.stop();
    assert.equal(rig.load.lastAckedSentAt, 0, 'acknowledged below the mark');
    const [[why, count]] = refused as [[string, number]];
    assert.ok(why === 'RESOURCE_EXHAUSTED STORE_FULL' && count > 50 && refused.length === 1, JSON.stringify(refused));
    const full = await healthOf(rig.broker);
    assert.match(full.ready, /^503 STORE_FULL: /);
    assert.equal(full.alive, '200 ');
    assert.match(full.warnings, /^new messages are refused: STORE_FULL: /);
    disk.free();
    // A node that is not ready gets nothing to publish: it has to find out by itself.
    await until(
      async () => (await healthOf(rig.broker)).ready === '200 ',
      () => 'with space again it does not become ready',
    );
    assert.equal((await healthOf(rig.broker)).warnings, '');
    await takesAgain(rig, client);
    rig.startLoad();
    await rig.loaded(40);
    await rig.load.stop();
    assert.equal(rig.broker.pid, pid, 'the process has lived on');
    client.close();
    await rig.broker.restart();
    const { voids } = await rig.assertKept(30);
    // A refusal that took an id would take space as well, for a log entry and a void mark, until there is none.
    const unasked = voids - rig.load.incremented;
    t.diagnostic(`${count} refusals, ${unasked} void ids that nobody asked for`);
    assert.ok(unasked < 10, `${unasked} void ids after ${count} refusals`);
  });

  it('[S8] a publish stream: batches come back with STORE_FULL, those behind them with PREDECESSOR_FAILED, and sent again they are stored in order, once', async (t) => {
    if (!requireTool(t, 'tmpfs')) return;
    using disk = new SmallDisk(64 * MIB);
    disk.fillUpTo(24 * MIB);
    await using rig = await FaultRig.start({ dataDir: join(disk.path, 'data'), flags: FLAGS });
    using stream = await PublishStream.open(rig.broker.address, 'p');
    const batches = Array.from({ length: 120 }, (_, i) => ({
      subject: `full.${i % 2}`,
      sequence: i + 1,
      bodies: [Buffer.alloc(4 * 1024, i + 1)],
    }));
    const left = new Map(batches.map((batch) => [batch.sequence, batch]));
    const ids = new Map<number, number>();
    const reasons = new Set<string>();
    // Fills up under the stream, with a stream that is refused again and again, until there is space.
    const client = new BrokerClient(rig.broker.address);
    const refusal = await publishUntilRefused(rig, client);
    assert.equal(refusal.reason, 'STORE_FULL');
    disk.fillUpTo(16 * MIB - 1);
    await refusesAll(rig, client);
    for (let round = 0; round < 3; round++) await sendRound({ stream, left, ids, reasons });
    assert.equal(ids.size, 0, 'stored below the mark');
    assert.deepEqual([...reasons].sort(), ['PREDECESSOR_FAILED', 'STORE_FULL']);
    disk.free();
    for (let round = 0; round < 600 && left.size > 0; round++) {
      await sendRound({ stream, left, ids, reasons });
      await pause(50);
    }
    assert.equal(left.size, 0);
    for (const { subject, sequence, bodies } of batches) {
      const id = ids.get(sequence) ?? 0;
      assert.deepEqual((await client.fetch(subject, id)).body, bodies[0]);
      assert.ok(sequence <= 2 || id > (ids.get(sequence - 2) ?? 0), `batch ${sequence} has id ${id}`);
    }
    client.close();
  });

  it('[S8, R27] the number of shards changes while the store is full: nothing is lost or overtaken, and with space again all goes on', async (t) => {
    if (!requireTool(t, 'tmpfs')) return;
    using disk = new SmallDisk(64 * MIB);
    disk.fillUpTo(24 * MIB);
    await using rig = await FaultRig.start({ dataDir: join(disk.path, 'data'), flags: FLAGS });
    const admin = connect(rig.broker.address);
    const client = new BrokerClient(rig.broker.address);
    using stream = await PublishStream.open(rig.broker.address, 'p');
    const SUBJECTS = 16;
    const batches = Array.from({ length: 160 }, (_, i) => ({
      subject: `full.moving-${i % SUBJECTS}`,
      sequence: i + 1,
      bodies: [Buffer.alloc(200, i + 1)],
    }));
    const retrying = {
      stream,
      left: new Map(batches.map((batch) => [batch.sequence, batch])),
      ids: new Map<number, number>(),
      reasons: new Set<string>(),
    };
    assert.equal((await publishUntilRefused(rig, client)).reason, 'STORE_FULL');
    disk.fillUpTo(16 * MIB - 1);
    await refusesAll(rig, client);
    // What the shards remember of refused batches goes along with the slots.
    for (const count of [3, 2]) {
      await sendRound(retrying);
      assert.equal((await changeTo(admin, count)).error, '');
      assert.equal((await client.fetch('full.large', 1)).body.length, LARGE);
    }
    await sendRound(retrying);
    assert.equal(retrying.ids.size, 0, 'stored below the mark');
    assert.deepEqual([...retrying.reasons].sort(), ['PREDECESSOR_FAILED', 'STORE_FULL']);
    disk.free();
    const change = changeTo(admin, 4);
    for (let round = 0; round < 600 && retrying.left.size > 0; round++) {
      await sendRound(retrying);
      await pause(50);
    }
    assert.equal((await change).error, '');
    assert.equal(retrying.left.size, 0);
    for (const { subject, sequence, bodies } of batches) {
      const id = retrying.ids.get(sequence) ?? 0;
      assert.deepEqual((await client.fetch(subject, id)).body, bodies[0]);
      const before = retrying.ids.get(sequence - SUBJECTS) ?? 0;
      assert.ok(id > before, `batch ${sequence} has id ${id}, the one before ${before}`);
    }
    await admin.close();
    client.close();
    await rig.broker.restart();
    await rig.assertKept(1);
  });

  it('[S8] another program takes the last byte under load: what does not fit is refused, the process lives, and with space again all goes on', async (t) => {
    if (!requireTool(t, 'tmpfs')) return;
    using disk = new SmallDisk(160 * MIB);
    await using rig = await FaultRig.start({ dataDir: join(disk.path, 'data'), flags: FLAGS });
    const client = new BrokerClient(rig.broker.address);
    const pid = rig.broker.pid;
    for (let round = 1; round <= ROUNDS; round++) {
      rig.startLoad();
      await rig.loaded(40);
      disk.fillUpTo(0);
      const refusal = await publishUntilRefused(rig, client);
      assert.equal(`${refusal.reason} ${refusal.outcome}`, 'STORE_FULL none');
      // Void marks of what was refused have no room either: no more ids may be taken meanwhile, or they would fill the memory.
      const subject = `full.ids-${round}`;
      const press = async (): Promise<number> => {
        let taken = 0;
        const end = performance.now() + 1_000;
        const worker = async (): Promise<void> => {
          while (performance.now() < end)
            await client.incIdx(subject).then(
              () => void taken++,
              () => pause(1),
            );
        };
        await Promise.all(Array.from({ length: 8 }, worker));
        return taken;
      };
      // The first ones use up what is left in the last page of the segment, or was freed since.
      let given = await press();
      for (let i = 0; i < 5 && given > 0; i++) {
        disk.fillUpTo(0);
        given = await press();
      }
      assert.equal(given, 0, 'the store takes nothing, and ids are given all the time');
      assert.match((await healthOf(rig.broker)).ready, /^503 STORE_FULL: /);
      const used = (): number =>
        rig.lines.filter(({ message }) => message.includes('the Raft log uses its reserve')).length;
      await fillLog(rig.broker.address, () => used() === round);
      assert.equal(rig.broker.running, true, rig.broker.logs);
      await rig.load.stop();
      assert.equal(used(), round, 'the log needed no reserve: the disk was not full');
      disk.free();
      await takesAgain(rig, client);
      const isBack = (): boolean =>
        rig.lines.filter(({ message }) => message.includes('its reserve back')).length === round;
      await until(isBack, () => 'the reserve did not come back');
    }
    assert.equal(rig.broker.pid, pid, 'the process has lived on');
    client.close();
    await rig.broker.restart();
    await rig.assertKept(30);
  });
});
