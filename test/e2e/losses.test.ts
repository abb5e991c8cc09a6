/** Files of messages that are gone or damaged, when a broker starts or while it runs: told at once, never silently skipped, and the rest is served. */
import assert from 'node:assert/strict';
import { closeSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { type BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { until } from './flow-rig.ts';

async function outcomes(client: BrokerClient, subject: string, until: number): Promise<string[]> {
  const found: string[] = [];
  for (let id = 1; id <= until; id++) {
    found.push(
      await client.fetch(subject, id).then(
        ({ body }) => `${body.length} bytes`,
        (error: unknown) => (error instanceof CallError ? String(error.reason) : String(error)),
      ),
    );
  }
  return found;
}

async function damagedOf(broker: BrokerProcess): Promise<number> {
  const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
  const rows = text.split('\n').filter((row) => row.startsWith('broker_shard_damaged_total{'));
  return rows.reduce((sum, row) => sum + Number(row.split(' ').at(-1)), 0);
}

/** Parsed log lines with this message. */
function linesOf(broker: BrokerProcess, message: string): Record<string, unknown>[] {
  return broker.logs
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ msg }) => msg === message);
}

const lane = (broker: BrokerProcess): string => join(broker.dataDir, 'segments', 'lane-000');

/** Changes a byte in the body that consists of this one, where it lies in the file; returns the whole file. */
function damage(path: string, filling: number): Buffer {
  const bytes = readFileSync(path);
  const at = bytes.indexOf(Buffer.alloc(100, filling)) + 50;
  bytes.writeUInt8(0, at);
  const file = openSync(path, 'r+');
  writeSync(file, bytes, at, 1, at);
  closeSync(file);
  return bytes;
}

describe('a start', () => {
  it('[S11] without the newest segments: tells the subjects that it lost, counts them, answers DATA_LOSS, and gives no id twice', async () => {
    await using broker = await startBroker({ flags: ['--segment-bytes', '1MiB'] });
    const client = new BrokerClient(broker.address);
    const large = Buffer.alloc(600 << 10, 7);
    // One segment each.
    for (const subject of ['t.kept', 't.end', 't.end', 't.whole']) await client.publish({ subject, body: large });
    await client.publish({ subject: 't.expires', body: large, expirationSeconds: 3_600 });
    await broker.stop();
    for (const segment of ['00000003', '00000004', '00000005']) {
      for (const suffix of ['seg', 'idx']) rmSync(join(lane(broker), `${segment}.${suffix}`));
    }
    await broker.restart();
    await client.ready();
    const told = linesOf(broker, 'a stored message is missing or damaged');
    assert.deepEqual(told.map(({ subject, id, reason }) => `${subject} ${id} ${reason}`).sort(), [
      't.end 2 DATA_LOSS',
      't.whole 1 DATA_LOSS',
    ]);
    assert.deepEqual(
      linesOf(broker, 'the store lacks messages that it had').map(({ subjects }) => subjects),
      [2],
    );
    assert.equal(await damagedOf(broker), 2);
    assert.deepEqual(await outcomes(client, 't.kept', 1), ['614400 bytes']);
    assert.deepEqual(await outcomes(client, 't.end', 2), ['614400 bytes', 'DATA_LOSS']);
    assert.deepEqual(await outcomes(client, 't.whole', 1), ['DATA_LOSS']);
    assert.deepEqual(await outcomes(client, 't.expires', 1), ['ID_EXPIRED']);
    assert.equal(await damagedOf(broker), 4, 'reads that come there are counted too');
    assert.equal(await client.publish({ subject: 't.whole', body: Buffer.from('next') }), 2);
    assert.equal(await client.publish({ subject: 't.end', body: Buffer.from('next') }), 3);
    client.close();
  });

  it('[S5] with a damaged segment that has to be read: tells it, deletes nothing, answers DATA_LOSS for what was hit, and serves the rest', async () => {
    await using broker = await startBroker();
    const client = new BrokerClient(broker.address);
    for (let id = 1; id <= 5; id++) await client.publish({ subject: 't.hit', body: Buffer.alloc(10_000, id) });
    await broker.kill();
    const path = join(lane(broker), '00000001.seg');
    const bytes = damage(path, 3);
    await broker.restart();
    await client.ready();
    assert.deepEqual(
      linesOf(broker, 'a segment is damaged; what is readable in it is served').map(({ segment }) => segment),
      [path],
    );
    const all = '10000 bytes';
    assert.deepEqual(await outcomes(client, 't.hit', 5), [all, all, 'DATA_LOSS', all, all]);
    assert.equal(await damagedOf(broker), 1);
    assert.ok(readFileSync(path).equals(bytes));
    assert.equal(await client.publish({ subject: 't.hit', body: Buffer.from('next') }), 6);
    client.close();
  });
});

describe('a thread that takes the place of one that died', () => {
  it('[S5] tells the damage that it meets in the segment that it closes', async () => {
    const env = { BROKER_FAILPOINTS: 'shard.before-append=throw@6' };
    await using broker = await startBroker({ flags: ['--shards', '1'], env });
    const client = new BrokerClient(broker.address);
    for (let id = 1; id <= 5; id++) await client.publish({ subject: 't.hit', body: Buffer.alloc(10_000, id) });
    const path = join(lane(broker), '00000001.seg');
    damage(path, 3);
    // Its group is the sixth.
    const last = client.publish({ subject: 't.hit', body: Buffer.from('x') });
    await assert.rejects(last, { reason: 'OUTCOME_UNKNOWN' });
    await until(
      async () => linesOf(broker, 'shard is up').length === 2,
      () => broker.logs,
    );
    // The line is the shard's own; the main thread sends it calls a moment later.
    await until(
      async () => !(await outcomes(client, 't.hit', 1)).includes('NOT_READY'),
      () => broker.logs,
    );
    assert.deepEqual(
      linesOf(broker, 'a segment is damaged; what is readable in it is served').map(({ segment }) => segment),
      [path],
    );
    const all = '10000 bytes';
    assert.deepEqual(await outcomes(client, 't.hit', 5), [all, all, 'DATA_LOSS', all, all]);
    client.close();
  });
});

describe('a broker at work', () => {
  it('[S5] reads a file that was damaged under it: DATA_LOSS for what was hit and nothing else, told by name, and it goes on', async () => {
    await using broker = await startBroker({
      flags: ['--shards', '1', '--segment-bytes', '1MiB', '--store-cache-bytes', '1MiB'],
    });
    const client = new BrokerClient(broker.address);
    for (let id = 1; id <= 5; id++) await client.publish({ subject: 't.hit', body: Buffer.alloc(10_000, id) });
    // Five segments more: what was hit is in no cache.
    for (let id = 1; id <= 20; id++) await client.publish({ subject: 't.more', body: Buffer.alloc(256 << 10, 7) });
    const path = join(lane(broker), '00000001.seg');
    const bytes = damage(path, 3);
    const all = '10000 bytes';
    const expected = [all, all, 'DATA_LOSS', all, all];
    assert.deepEqual(await outcomes(client, 't.hit', 5), expected);
    assert.equal(await damagedOf(broker), 1);
    const told = linesOf(broker, 'a stored message is missing or damaged');
    assert.deepEqual(
      told.map(({ subject, id, reason }) => `${subject} ${id} ${reason}`),
      ['t.hit 3 DATA_LOSS'],
    );
    assert.equal(await client.publish({ subject: 't.hit', body: Buffer.alloc(10_000, 6) }), 6);
    assert.deepEqual(await outcomes(client, 't.hit', 6), [...expected, all]);
    await broker.kill();
    await broker.restart();
    await client.ready();
    assert.deepEqual(await outcomes(client, 't.hit', 6), [...expected, all]);
    assert.ok(readFileSync(path).equals(bytes));
    client.close();
  });
});
