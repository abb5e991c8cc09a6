/** A thread of a broker process dies: a shard is replaced, without the Raft or the main thread the process ends. */
import assert from 'node:assert/strict';
import { readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { Metrics } from '../e2e/flow-rig.ts';
import { makeDataDirectory, startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';
import { onThisMachine } from '../support/yardstick.ts';
import { PROCESS_DEATHS, processDeaths } from './process-campaign.ts';
import { FaultRig, type LogLine, logLines, pause, until } from './rig.ts';
import { DEATHS, shardDeaths } from './shard-campaign.ts';
import { ONE_FILE_THREAD, Strace } from './strace.ts';

const LONG = process.env.BROKER_TEST_LONG === '1';
const DEATHS_EACH = LONG ? 10 : 2;
/** A replacement loads one thread of those that the start of the whole process has loaded. No machine is busy at each of them alone, so the quickest counts. */
const STARTS_MAX = 2;

describe('a shard thread dies under load', () => {
  const reasons = new Set<string>();

  // A single death may come at a moment when nothing is in hand.
  after(() => assert.deepEqual([...reasons], ['OUTCOME_UNKNOWN']));

  for (const death of LONG ? DEATHS : DEATHS.slice(0, 3)) {
    it(`[W1, W8, R25, R27] by ${death.name}: it is replaced, what it had in hand is OUTCOME_UNKNOWN, retries and subscribers go on without loss`, async (t) => {
      const result = await shardDeaths(death, DEATHS_EACH, 11);
      t.diagnostic(JSON.stringify({ ...result, violations: result.violations.length }));
      assert.deepEqual(result.violations, []);
      assert.ok(result.deaths >= DEATHS_EACH, `${result.deaths} deaths`);
      assert.ok(result.acked > 50, 'the load was no load');
      for (const reason of result.unknownReasons) reasons.add(reason);
      assert.equal(result.replacedMs.length, result.deaths);
      const quickest = Math.min(...result.replacedMs);
      assert.ok(
        quickest < (await onThisMachine(1_000)) || quickest < STARTS_MAX * result.startMs,
        `replaced after ${result.replacedMs} ms; the process was up in ${result.startMs} ms`,
      );
      // A thread that served on after its task had failed would write beside its successor.
      assert.equal(new Set(result.threads).size, result.threads.length, `threads ${result.threads}`);
    });
  }
});

describe('a shard thread dies while a write of it is in the kernel', () => {
  it('[R27] the replacement waits for the write, so that it cannot appear later among what was given up', {
    timeout: 300_000,
  }, async (t) => {
    if (!requireTool(t, 'strace')) return;
    using strace = new Strace();
    const dataDir = makeDataDirectory();
    t.after(() => rmSync(dataDir, { recursive: true, force: true }));
    const segment = join(dataDir, 'segments', 'lane-000', '00000001.seg');
    // Each round throws while this is not there.
    const alive = join(temporaryFolder(t), 'alive');
    writeFileSync(alive, '');
    await using rig = await FaultRig.start({
      dataDir,
      flags: ['--shards', '1'],
      // Of each thread the first write to the segment is slow: of the shard's the header, of the file thread's what is too large for the shard itself.
      under: strace.under('pwrite64:delay_enter=10000000:when=1', segment),
      env: { ...ONE_FILE_THREAD, BROKER_FAILPOINTS: `shard.round=throw!${alive}` },
    });
    const isOpen = async (count: number): Promise<boolean> =>
      (await Metrics.of(rig.broker)).sum('broker_raft_open_allotments') === count;
    const client = new BrokerClient(rig.broker.address, { timeoutMs: 60_000 });
    const first = await client.publish({ subject: 'late', body: Buffer.from('first') });
    await until(
      () => isOpen(0),
      () => 'the first one is not closed',
    );
    const large = Buffer.alloc(256 << 10, 'late');
    const late = client.publish({ subject: 'late', body: large }).catch((error: unknown) => error);
    await until(
      () => isOpen(1),
      () => 'it has no id',
    );
    // Answered in the round in which its write began, or in a later one.
    await client.fetch('late', first);
    rmSync(alive);
    const hasDied = (): boolean => rig.lines.some(({ message }) => message.startsWith('a shard thread died'));
    await until(hasDied, () => rig.broker.logs);
    // The replacement waits for the write.
    writeFileSync(alive, '');
    const error = await late;
    assert.ok(error instanceof CallError && error.reason === 'OUTCOME_UNKNOWN', String(error));
    const ups = (): LogLine[] => rig.lines.filter(({ message }) => message === 'shard is up');
    while (ups().length < 2) await pause(20);
    // Whole by then: it is stored, and stays so.
    assert.deepEqual((await client.fetch('late', first + 1)).body, large);
    await rig.broker.restart({ under: [], env: { BROKER_FAILPOINTS: '' } });
    await client.ready();
    assert.deepEqual((await client.fetch('late', first + 1)).body, large);
    client.close();
  });
});

describe('a shard thread dies while segments are let go of', () => {
  it('[S10] the segments that the others have forgotten are deleted all the same', { timeout: 240_000 }, async (t) => {
    const most = 16 << 20;
    const flags = ['--segment-bytes', '1MiB', '--log-format', 'json'];
    await using broker = await startBroker({ flags: [...flags, '--shards', '1'] });
    const client = new BrokerClient(broker.address);
    // With two shards it belongs to the second one, while its segments are of the first one's lane.
    const owners = new SlotTable(2);
    const subject = Array.from({ length: 64 }, (_, i) => `t.released.${i}`).find((name) => {
      const bytes = Buffer.from(name);
      return owners.ownerOf(slotOfHash(subjectHash(bytes, 0, bytes.length))) === 1;
    }) as string;
    const large = Buffer.alloc(256 << 10, 7);
    const total = 96;
    for (let i = 0; i < total; i += 8) {
      await Promise.all(Array.from({ length: 8 }, () => client.publish({ subject, body: large })));
    }
    const lane = join(broker.dataDir, 'segments', 'lane-000');
    const stored = (): number =>
      readdirSync(lane).reduce(
        (bytes, name) => bytes + (name.endsWith('.seg') ? statSync(join(lane, name)).size : 0),
        0,
      );
    assert.ok(stored() > most + (4 << 20), `only ${stored()} bytes`);
    await broker.restart({
      flags: [...flags, '--shards', '2', '--retention-max-bytes', String(most)],
      env: { BROKER_FAILPOINTS: 'shard.trimmed=throw@1' },
    });
    await client.ready();
    while (stored() > most) await pause(100);
    const died = logLines(broker.logs).filter(({ message }) => message.startsWith('a shard thread died'));
    t.diagnostic(`${died.length} deaths`);
    assert.equal(died.length, 1, 'the shard was to die on the way');
    assert.deepEqual((await client.fetch(subject, total)).body, large);
    client.close();
  });
});

describe('what the process cannot live without dies under load', () => {
  for (const death of LONG ? PROCESS_DEATHS : PROCESS_DEATHS.filter((_, index) => index % 2 === 0)) {
    it(`[W1] ${death.name}: the process ends within 1 s with its code and says why where it can, and nothing acknowledged is lost`, async (t) => {
      const { violations, dyingMs, acked } = await processDeaths(death, LONG ? DEATHS_EACH : 1, 12);
      t.diagnostic(`${dyingMs.map(Math.round)} ms from the last acknowledgement to the end`);
      assert.deepEqual(violations, []);
      assert.ok(acked > 10, 'the load was no load');
    });
  }
});
