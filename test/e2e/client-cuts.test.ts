/** The client behind a network that cuts every connection again and again, in the middle of whatever is on its way. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { connect } from '../../src/client/index.ts';
import { startBroker } from '../support/broker.ts';

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Passes bytes on to `target` until it is told to cut. */
async function startProxy(t: TestContext, target: string) {
  const [host = '', port = ''] = target.split(':');
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    // Both ends of a cut see it as an error: that is what they are here for.
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
  };
  const server = createServer((near) => {
    const far = connectSocket(Number(port), host);
    keep(near);
    keep(far);
    near.pipe(far).pipe(near);
    near.on('close', () => far.destroy());
    far.on('close', () => near.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = (): number => {
    const { size } = sockets;
    for (const socket of sockets) socket.destroy();
    return size;
  };
  t.after(() => {
    cut();
    server.close();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, cut };
}

test('[R25, P6] over 100 cut connections every message is stored once and comes once, in order', async (t) => {
  await using broker = await startBroker();
  const proxy = await startProxy(t, broker.address);
  await using client = connect(proxy.address);
  const publisher = client.publisher({ batchBytes: 1_024, linger: 1 });
  const SUBJECTS = ['x.a', 'x.b', 'x.c'];
  const subscriptions = [
    client.subscribe('x.*', { start: 'earliest', heartbeatMs: 100 }),
    client.subscribe(SUBJECTS, { start: 'earliest' }),
    client.subscribe('x.a', { start: 'earliest', broadcasts: true }),
  ];
  const isOver = { value: false };
  let published = 0;
  const ids: Promise<number>[] = [];
  const publishing = (async () => {
    while (!isOver.value) {
      await publisher.ready();
      for (const subject of SUBJECTS) ids.push(publisher.publish(subject, String(published)));
      published += 1;
      // A turn of the event loop, and a bound of what is on its way.
      await Promise.race([ids.at(-200), pause(5)]);
    }
  })();
  const seen = subscriptions.map(() => new Map<string, number>());
  const reading = subscriptions.map(async (subscription, index) => {
    const heads = seen[index] as Map<string, number>;
    for await (const { subject, id, text } of subscription) {
      assert.equal(id, (heads.get(subject) ?? 0) + 1, `subscription ${index}: ${subject}`);
      assert.equal(text, String(id - 1), `subscription ${index}: ${subject}`);
      heads.set(subject, id);
      if (isOver.value && [...heads.values()].every((head) => head === published)) {
        if (heads.size === (index === 2 ? 1 : SUBJECTS.length)) break;
      }
    }
  });
  let before = subscriptions.map(() => 0);
  for (let cuts = 0; cuts < 100; cuts += 1) {
    // Each cut falls on streams that work, of the publisher and of all readers, a different time after they have begun to.
    const { streams, stored } = publisher.stats;
    while (cuts > 0 && publisher.stats.streams === streams) await pause(2);
    while (publisher.stats.stored === stored) await pause(2);
    while (subscriptions.some((subscription, index) => subscription.streams === before[index])) await pause(2);
    await pause((cuts % 7) * 5);
    before = subscriptions.map((subscription) => subscription.streams);
    proxy.cut();
  }
  isOver.value = true;
  await publishing;
  // The last messages tell the readers that all have come.
  for (const subject of SUBJECTS) ids.push(publisher.publish(subject, String(published)));
  published += 1;
  for (const [number, id] of (await Promise.all(ids)).entries()) {
    assert.equal(id, Math.floor(number / SUBJECTS.length) + 1);
  }
  await Promise.all(reading);
  await publisher.close();
  assert.ok(publisher.stats.streams > 90, `${publisher.stats.streams} streams`);
  assert.ok(subscriptions.every((subscription) => subscription.streams >= 100));
});
