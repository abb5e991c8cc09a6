/** broker.v1.Producer/PublishStream on a real broker. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BrokerProcess } from '../support/broker.ts';
import { BrokerClient } from '../support/client.ts';
import { PublishStream } from '../support/publish-stream.ts';

async function start(flags: readonly string[] = []): Promise<BrokerProcess> {
  const broker = await BrokerProcess.create({ flags: ['--shards', '2', ...flags] });
  await broker.restart();
  return broker;
}

describe('PublishStream', () => {
  it('batches get id ranges, are acknowledged in order, and can be fetched by their ids', async () => {
    await using broker = await start();
    using stream = await PublishStream.open(broker.address, 'p');
    assert.deepEqual(
      [stream.opened?.lastSequence, stream.opened?.durability, stream.opened?.batchesInFlightMax],
      [0, 1, 1024],
    );
    stream.send(
      { subject: 's.a', sequence: 1, bodies: ['one', 'two', 'three'] },
      { subject: 's.b', sequence: 2, bodies: [Buffer.alloc(3, 0xff)] },
    );
    stream.send({ subject: 's.a', sequence: 3, bodies: ['four'] });
    assert.deepEqual(await stream.outcomes(1, 2, 3), ['1..3', '1..1', '4..4']);
    assert.equal(stream.acknowledged, 3);
    const client = new BrokerClient(broker.address);
    assert.equal((await client.fetch('s.a', 2)).body.toString(), 'two');
    assert.equal((await client.fetch('s.a', 4)).body.toString(), 'four');
    assert.deepEqual((await client.fetch('s.b', 1)).body, Buffer.alloc(3, 0xff));
    client.close();
    stream.halfClose();
    await stream.until(() => stream.status !== undefined);
    assert.equal(stream.status, null);
  });

  it('[R25] what is sent again, on the same or another stream and after a restart, gets its first ids and is stored once', async () => {
    await using broker = await start();
    const first = await PublishStream.open(broker.address, 'p');
    first.send({ subject: 's', sequence: 1, bodies: ['a', 'b'] }, { subject: 's', sequence: 2, bodies: ['c'] });
    assert.deepEqual(await first.outcomes(1, 2), ['1..2', '3..3']);
    first.cancel();
    await broker.kill();
    await broker.restart();
    using second = await PublishStream.open(broker.address, 'p', 2);
    assert.equal(second.opened?.lastSequence, 2);
    second.send({ subject: 's', sequence: 2, bodies: ['c'] }, { subject: 's', sequence: 3, bodies: ['d'] });
    assert.deepEqual(await second.outcomes(2, 3), ['3..3', '4..4']);
  });
});
