/** What a broker does between SIGTERM and its end, while something is still on its way to the disk. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { type ClientHttp2Stream, connect } from 'node:http2';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import { connectWithClient } from '../../src/cli/client-connection.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { BrokerProcess, startBroker } from '../support/broker.ts';
import { BrokerClient, CallError } from '../support/client.ts';
import { Gate } from '../support/gate.ts';
import { PublishStream } from '../support/publish-stream.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { readFields } from '../support/wire.ts';
import { logLines, within } from './rig.ts';

const SUBJECT = 't.drain';
const body = Buffer.from('x');

async function until(holds: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = performance.now() + 20_000;
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function metric(broker: BrokerProcess, name: string): Promise<number> {
  const text = await (await fetch(`http://${broker.adminAddress}/metrics`)).text();
  return Number(new RegExp(`^${name}(?:\\{[^}]*\\})? (\\d+)`, 'm').exec(text)?.[1]);
}

const [SERVING, NOT_SERVING] = [1, 2];

/** The answer of grpc.health.v1 for the whole server. */
function serving(monitor: grpc.Client): Promise<number | undefined> {
  const same = (bytes: Buffer): Buffer => bytes;
  return new Promise((resolve, reject) => {
    monitor.makeUnaryRequest('/grpc.health.v1.Health/Check', same, same, Buffer.alloc(0), (error, answer) => {
      if (error !== null) reject(error);
      else resolve(readFields(answer ?? Buffer.alloc(0))[0]?.value);
    });
  });
}

async function reasonOf(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => 'done',
    (error: unknown) =>
      error instanceof CallError ? `${error.statusName} ${error.reason} ${error.outcome}` : `${error}`,
  );
}

/** A publish that cannot be stored before a file exists, and SIGTERM behind it. */
async function stoppedInFlight(gate: string, flags: readonly string[] = []) {
  const broker = await BrokerProcess.create({
    flags: ['--shards', '1', ...flags],
    env: { BROKER_FAILPOINTS: `segment.write=wait:${gate}@2` },
  });
  await broker.restart();
  const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
  // The first write is the header of the segment.
  const publishing = client.publish({ subject: SUBJECT, body });
  publishing.catch(() => undefined);
  await until(async () => (await metric(broker, 'broker_calls_in_flight')) === 1, 'the call is in flight');
  const monitor = new grpc.Client(broker.address, grpc.credentials.createInsecure());
  assert.equal(await serving(monitor), SERVING);
  process.kill(broker.pid, 'SIGTERM');
  await until(
    async () => (await fetch(`http://${broker.adminAddress}/readyz`)).status === 503,
    'it is not ready any more',
  );
  return { broker, client, monitor, publishing };
}

describe('SIGTERM', () => {
  it('while a message is on its way: not ready, not serving, new calls get SHUTTING_DOWN, and the message is acknowledged before the end', async (t) => {
    const gate = join(temporaryFolder(t), 'gate');
    const { broker, client, monitor, publishing } = await stoppedInFlight(gate);
    await using _ = broker;
    const ready = await fetch(`http://${broker.adminAddress}/readyz`);
    assert.deepEqual((await ready.json()) as unknown, { status: 'unavailable', reasons: ['shutting down'] });
    assert.equal((await fetch(`http://${broker.adminAddress}/healthz`)).status, 200);
    assert.equal(await serving(monitor), NOT_SERVING);
    for (const call of [
      client.publish({ subject: SUBJECT, body }),
      client.fetch(SUBJECT, 1),
      client.incIdx(SUBJECT),
      client.broadcast({ subject: SUBJECT, body }),
    ]) {
      assert.equal(await reasonOf(call), 'UNAVAILABLE SHUTTING_DOWN none');
    }
    const ended = Promise.withResolvers<CallError | null>();
    client.subscribe(SUBJECT, { at: 'new' }, { onMessage: () => undefined, onEnd: ended.resolve });
    assert.equal((await ended.promise)?.reason, 'SHUTTING_DOWN');
    assert.equal(broker.running, true, 'it waits for the message');
    writeFileSync(gate, '');
    assert.equal(await publishing, 1);
    assert.deepEqual(await within(broker.exited, 40_000), { code: 0, signal: null }, broker.logs);
    await broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    const again = new BrokerClient(broker.address);
    assert.ok((await again.fetch(SUBJECT, 1)).body.equals(body));
    for (const one of [monitor, client, again]) one.close();
  });

  it('while a batch of a publish stream is on its way: the batch has its result, then the stream ends with SHUTTING_DOWN', async (t) => {
    const gate = join(temporaryFolder(t), 'gate');
    const env = { BROKER_FAILPOINTS: `segment.write=wait:${gate}@2` };
    await using broker = await BrokerProcess.create({ flags: ['--shards', '1'], env });
    await broker.restart();
    using stream = await PublishStream.open(broker.address, 'p');
    const hasEnded = (): boolean => stream.status !== undefined;
    stream.send({ subject: SUBJECT, sequence: 1, bodies: ['a', 'b'] });
    await until(async () => (await metric(broker, 'broker_publish_stream_in_flight_bytes')) > 0, 'it is in flight');
    process.kill(broker.pid, 'SIGTERM');
    await until(
      async () => (await fetch(`http://${broker.adminAddress}/readyz`)).status === 503,
      'it is not ready any more',
    );
    // As long as the process does anything at all: ten looks of its drain.
    for (let turn = 0; turn < 10; turn++) await metric(broker, 'broker_calls_in_flight');
    assert.equal(hasEnded(), false, 'it waits for the batch');
    writeFileSync(gate, '');
    await stream.until(hasEnded);
    assert.equal(stream.status?.reason, 'SHUTTING_DOWN');
    const { firstId, lastId, error } = stream.results.get(1) ?? {};
    assert.deepEqual({ firstId, lastId, error }, { firstId: 1, lastId: 2, error: undefined });
    assert.deepEqual(await within(broker.exited, 40_000), { code: 0, signal: null }, broker.logs);
  });

  it('while the mark of an answered increment is on its way: the shard ends when the store has it and the log knows', async (t) => {
    const gate = join(temporaryFolder(t), 'gate');
    const env = { BROKER_FAILPOINTS: `segment.write=wait:${gate}@2` };
    const flags = ['--shards', '1', '--log-format', 'json'];
    await using broker = await BrokerProcess.create({ flags, env });
    await broker.restart();
    const client = new BrokerClient(broker.address);
    // Answered when it is allotted; nothing of it is in flight for the main thread from here on.
    assert.equal(await client.incIdx(SUBJECT), 1);
    assert.equal(await metric(broker, 'broker_calls_in_flight'), 0);
    process.kill(broker.pid, 'SIGTERM');
    await until(
      async () => logLines(broker.logs).some(({ message }) => message === 'stopping'),
      'it takes notice of the signal',
    );
    writeFileSync(gate, '');
    assert.deepEqual(await within(broker.exited, 40_000), { code: 0, signal: null }, broker.logs);
    await broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    const lines = broker.logs.split('\n').filter((line) => line.includes('"shard is up"'));
    assert.equal(lines.length, 2);
    const { closed, revoked } = JSON.parse(lines[1] ?? '') as Record<string, unknown>;
    assert.deepEqual({ closed, revoked }, { closed: 0, revoked: 0 }, 'something was left open');
    client.close();
  });

  it('while slots change their shard: calls that are held back for them get SHUTTING_DOWN, and never had an effect', async (t) => {
    const gate = new Gate(t);
    await using broker = await BrokerProcess.create({
      flags: ['--shards', '2', '--shutdown-drain', '1s'],
      env: { BROKER_FAILPOINTS: gate.each('move.export') },
    });
    await broker.restart();
    const client = new BrokerClient(broker.address, { timeoutMs: 60_000 });
    assert.equal(await client.publish({ subject: SUBJECT, body }), 1);
    const slot = slotOfHash(subjectHash(Buffer.from(SUBJECT), 0, SUBJECT.length));
    const interrupt = new AbortController().signal;
    const admin = connectWithClient({ addresses: [broker.address], timeoutMs: 60_000, interrupt });
    await admin.moveSlot(slot, 1 - new SlotTable(2).ownerOf(slot));
    await until(async () => (await metric(broker, 'broker_slots_held')) === 1, 'the slot is held');
    const held = [client.publish({ subject: SUBJECT, body }), client.fetch(SUBJECT, 1), client.incIdx(SUBJECT)];
    const answers = Promise.all(held.map(reasonOf));
    await until(async () => (await metric(broker, 'broker_calls_in_flight')) === held.length, 'the calls are held');
    process.kill(broker.pid, 'SIGTERM');
    // While the move, and with it the broker, cannot end.
    assert.deepEqual(
      await answers,
      held.map(() => 'UNAVAILABLE SHUTTING_DOWN none'),
    );
    assert.equal(broker.running, true);
    gate.open();
    assert.deepEqual(await within(broker.exited, 40_000), { code: 0, signal: null }, broker.logs);
    await broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    assert.equal(await client.publish({ subject: SUBJECT, body }), 2, 'a call that was refused has taken an id');
    client.close();
    await admin.close();
  });

  it('while clients only watch its health, keep reflection open or never end a request: does not wait for them as for work', async (t) => {
    await using broker = await startBroker({ flags: ['--shards', '1', '--shutdown-drain', '1h'] });
    const session = connect(`http://${broker.address}`);
    t.after(() => session.destroy());
    // The broker cuts what is still open.
    session.on('error', () => undefined);
    const open = (path: string, frame: Buffer): ClientHttp2Stream => {
      const headers = { ':method': 'POST', ':path': path, 'content-type': 'application/grpc', te: 'trailers' };
      const stream = session.request(headers);
      stream.on('error', () => undefined);
      stream.write(frame);
      return stream;
    };
    const empty = Buffer.alloc(5);
    const watch = open('/grpc.health.v1.Health/Watch', empty);
    watch.end();
    // A list of services, and a message that promises ten bytes and has one.
    const reflection = open(
      '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo',
      Buffer.from([0, 0, 0, 0, 2, 0x3a, 0]),
    );
    open('/broker.Broker/Publish', Buffer.from([0, 0, 0, 0, 10, 1]));
    await Promise.all([watch, reflection].map((stream) => once(stream, 'data')));
    process.kill(broker.pid, 'SIGTERM');
    // Of an hour: that it ends at all says that it did not wait for them.
    assert.deepEqual(await within(broker.exited, 40_000), { code: 0, signal: null }, broker.logs);
  });

  it('while a message never gets to the disk: ends after shutdown.drain all the same, says what did not stop, and the call has an unknown outcome', async (t) => {
    const gate = join(temporaryFolder(t), 'never');
    const { broker, client, monitor, publishing } = await stoppedInFlight(gate, ['--shutdown-drain', '1s']);
    await using _ = broker;
    // 1 s, and what each part may take to stop.
    const exit = await within(broker.exited, 40_000);
    assert.deepEqual(exit, { code: 0, signal: null }, broker.logs);
    assert.match(await reasonOf(publishing), / unknown$/);
    const said = logLines(broker.logs).map(({ message }) => message);
    assert.ok(said.includes('something did not stop in time'), said.join());
    await broker.restart({ env: { BROKER_FAILPOINTS: '' } });
    const again = new BrokerClient(broker.address);
    const id = await again.publish({ subject: SUBJECT, body });
    assert.ok((await again.fetch(SUBJECT, id)).body.equals(body));
    for (const one of [monitor, client, again]) one.close();
  });
});
