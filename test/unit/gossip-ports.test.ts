/** The sockets of gossip: what comes in and goes out, and what strangers may hold. */
import assert from 'node:assert/strict';
import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { createConnection, createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import type { Address, StreamMessage } from '../../src/gossip/types.ts';
import { addressKey, normalHost, ownAddress, resolveHost } from '../../src/net/gossip/hosts.ts';
import { PacketBudget } from '../../src/net/gossip/packet-budget.ts';
import { PacketPort } from '../../src/net/gossip/packet-port.ts';
import { RandomBytes } from '../../src/net/gossip/random.ts';
import { type StreamCaps, type StreamCodec, StreamPort } from '../../src/net/gossip/stream-port.ts';
import type { StreamRead } from '../../src/net/gossip/wire/stream.ts';
import { until } from '../support/until.ts';

const quiet = { info: () => undefined, warn: () => undefined };

test('IPv4-mapped addresses are IPv4, IPv6 addresses have one spelling, names stay', () => {
  assert.equal(normalHost('::ffff:10.0.0.1'), '10.0.0.1');
  assert.equal(normalHost('::FFFF:0a00:0001'), '10.0.0.1');
  assert.equal(normalHost('2001:DB8:0:0::0001'), '2001:db8::1');
  assert.equal(normalHost('fe80::1%eth0'), 'fe80::1%eth0');
  assert.equal(normalHost('127.0.0.1'), '127.0.0.1');
  assert.equal(normalHost('seed.example'), 'seed.example');
  assert.equal(normalHost('no:address'), 'no:address');
});

test('addresses need no DNS, and this machine has one', async () => {
  assert.deepEqual(await resolveHost('::ffff:192.0.2.7'), ['192.0.2.7']);
  assert.ok((await resolveHost('localhost')).length > 0);
  await assert.rejects(resolveHost('no-such-name.invalid'));
  assert.match(ownAddress('0.0.0.0'), /^\d+\.\d+\.\d+\.\d+$/);
});

test('random bytes do not repeat and random numbers keep below their bound', () => {
  const random = new RandomBytes();
  const nonces = new Set(Array.from({ length: 2_000 }, () => Buffer.from(random.take(12)).toString('hex')));
  assert.equal(nonces.size, 2_000);
  const kept = random.take(12);
  const before = Buffer.from(kept).toString('hex');
  for (let i = 0; i < 1_000; i++) random.take(12);
  assert.equal(Buffer.from(kept).toString('hex'), before);
  const counts = [0, 0, 0];
  for (let i = 0; i < 9_000; i++) counts[random.below(3)] = (counts[random.below(3)] ?? 0) + 1;
  assert.ok(counts.every((count) => count > 2_000));
  assert.equal(random.below(1), 0);
});

test('[G5] a flood of strangers uses up the room of strangers only; a pause of the thread fills it again', () => {
  const budget = new PacketBudget(0);
  let taken = 0;
  for (let i = 0; i < 10_000; i++) if (budget.take('stranger', i / 10)) taken += 1;
  assert.ok(taken >= 1_000 && taken <= 1_600, `took ${taken} of 10,000 in a second`);
  for (let i = 0; i < 1_000; i++) assert.ok(budget.take('member', 1_000));
  while (budget.take('stranger', 1_000)) taken += 1;
  assert.ok(taken <= 1_600);
  for (let i = 0; i < 500; i++) assert.ok(budget.take('stranger', 6_000));
});

for (const host of ['127.0.0.1', '::']) {
  test(`[G7] packets come and go with IPv4 at ${host}, and none goes to a port that there is not`, async (t) => {
    const heard: { bytes: string; from: Address }[] = [];
    const port = await openPackets(t, host, (bytes, from) =>
      heard.push({ bytes: Buffer.from(bytes).toString(), from }),
    );
    const other = await udp(t);
    other.send('hello', port.port, '127.0.0.1');
    await until(
      () => heard.length > 0,
      () => 'nothing came',
    );
    assert.deepEqual(heard[0], { bytes: 'hello', from: { host: '127.0.0.1', port: other.address().port } });
    const answer = once(other, 'message');
    port.send((heard[0] as { from: Address }).from, Buffer.from('welcome'));
    assert.equal(String((await answer)[0]), 'welcome');
    assert.deepEqual({ ...port.counters }, { packetsIn: 1, bytesIn: 5, packetsOut: 1, bytesOut: 7, unsent: 0 });
    // A packet can say that it is from port 0, and a ping without a source is answered there.
    port.send({ host: '127.0.0.1', port: 0 }, Buffer.from('lost'));
    assert.equal(port.counters.unsent, 1);
    if (host === '127.0.0.1') {
      port.send({ host: '::1', port: 1 }, Buffer.from('lost'));
      assert.equal(port.counters.unsent, 2);
    }
  });
}

test('a port that is taken is an error, for packets and for streams', async (t) => {
  const port = await openPackets(t, '127.0.0.1', () => undefined);
  await assert.rejects(
    PacketPort.open({ host: '127.0.0.1', port: port.port, onPacket: () => undefined, log: quiet }),
    /EADDRINUSE/,
  );
  const streams = await openStreams(t, () => null);
  await assert.rejects(
    StreamPort.open({ host: '127.0.0.1', port: streams.port, codec, onMessage: () => null, log: quiet }),
    /EADDRINUSE/,
  );
});

test('one message and one answer a stream, and nothing is left of it', async (t) => {
  const asked: { message: StreamMessage; from: string }[] = [];
  const port = await openStreams(t, (message, from) => {
    asked.push({ message, from: from.host });
    return { kind: 'ack', seq: 7, payload: new Uint8Array() };
  });
  const ping: StreamMessage = { kind: 'ping', seq: 7, node: 'b', source: null };
  const answer = await port.exchange({ host: '127.0.0.1', port: port.port }, ping);
  assert.equal(answer.kind, 'ack');
  assert.deepEqual(asked, [{ message: ping, from: '127.0.0.1' }]);
  await until(
    () => port.open === 0,
    () => `${port.open} streams are open`,
  );
});

test('a message that comes byte by byte is read', async (t) => {
  const port = await openStreams(t, () => ({ kind: 'error', message: 'read' }));
  const socket = await dial(t, port.port);
  for (const byte of codec.encode({ kind: 'error', message: 'slow' }, false)) socket.write(Uint8Array.of(byte));
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  assert.match(bytes.toString(), /"read"/);
});

test('[G7] bytes that make no sense are answered with the reason, and the stream ends', async (t) => {
  const port = await openStreams(t, () => assert.fail('not a message'));
  const socket = await dial(t, port.port);
  socket.write('nonsense\n');
  const [bytes] = (await once(socket, 'data')) as [Buffer];
  assert.match(bytes.toString(), /"kind":"error"/);
  await once(socket, 'close');
  assert.equal(port.counters.malformed, 1);
  await until(
    () => port.open === 0,
    () => 'the stream stays open',
  );
});

test('an answer that is no answer, or none at all, is an error with its reason', async (t) => {
  const port = await openStreams(t, (message) => (message.kind === 'ping' ? null : { kind: 'error', message: 'no' }));
  const to = { host: '127.0.0.1', port: port.port };
  await assert.rejects(port.exchange(to, { kind: 'ping', seq: 1, node: '', source: null }), /closed the stream/);
  const silent = createServer(() => undefined);
  t.after(() => silent.close());
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  const { port: silentPort } = silent.address() as { port: number };
  const ended: Socket[] = [];
  silent.on('connection', (socket) => socket.on('close', () => ended.push(socket)).resume());
  await assert.rejects(
    port.exchange({ host: '127.0.0.1', port: silentPort }, { kind: 'error', message: '' }, 50),
    /no answer within 50 ms/,
  );
  await until(
    () => ended.length === 1 && port.open === 0,
    () => 'the stream stays open',
  );
  await assert.rejects(port.exchange({ host: '127.0.0.1', port: 1 }, { kind: 'error', message: '' }), /ECONNREFUSED/);
});

test('[G7] streams that say nothing make room for others, those of the same address first', async (t) => {
  const port = await openStreams(t, () => ({ kind: 'error', message: 'answered' }), {
    acceptedMax: 3,
    perAddressMax: 2,
  });
  const hosts = ['127.0.0.1', '127.0.0.2', '127.0.0.2', '127.0.0.2', '127.0.0.3'];
  const sockets: Socket[] = [];
  for (const localAddress of hosts) {
    sockets.push(await dial(t, port.port, localAddress));
    await until(
      () => port.counters.accepted === sockets.length,
      () => 'not accepted',
    );
  }
  // 127.0.0.2 had one too many; then all together had one too many, and that of 127.0.0.1 was the oldest.
  await until(
    () => sockets.map(({ destroyed }) => destroyed).join() === 'true,true,false,false,false',
    () => sockets.map(({ destroyed }) => destroyed).join(),
  );
  assert.equal(port.counters.crowded, 2);
  assert.equal(port.open, 3);
});

test('[G7] streams cannot hold more bytes than all of them may, and not for longer than they may', async (t) => {
  const port = await openStreams(t, () => null, { heldBytesMax: 1_000, streamMs: 300 });
  const [one, two] = [await dial(t, port.port), await dial(t, port.port)];
  one.write('x'.repeat(600));
  await until(
    () => port.counters.bytesIn === 600,
    () => port.counters.bytesIn,
  );
  two.write('x'.repeat(600));
  await once(two, 'close');
  assert.equal(port.counters.crowded, 1);
  await once(one, 'close');
  assert.equal(port.counters.late, 1);
  assert.ok(port.open <= 1);
});

/** Lines of JSON: what streams carry is not what is tested here. */
const codec: StreamCodec = {
  encode: (message) => Buffer.from(`${JSON.stringify(message)}\n`),
  reader: () => {
    let text = '';
    const read = (): StreamRead => {
      if (!text.endsWith('\n')) return { kind: 'more' };
      if (!text.startsWith('{')) return { kind: 'refused', refusal: 'malformed' };
      return { kind: 'message', message: JSON.parse(text) as StreamMessage, refusedNodes: 0 };
    };
    return {
      get heldBytes() {
        return text.length;
      },
      push: (chunk) => {
        text += Buffer.from(chunk).toString();
        return read();
      },
      end: () => ({ kind: 'refused', refusal: text === '' ? 'empty' : 'truncated' }),
    };
  },
};

async function openStreams(
  t: TestContext,
  onMessage: (message: StreamMessage, from: Address) => StreamMessage | null,
  caps: Partial<StreamCaps> = {},
): Promise<StreamPort> {
  const port = await StreamPort.open({ host: '0.0.0.0', port: 0, codec, onMessage, log: quiet, caps });
  t.after(() => port.close());
  return port;
}

async function openPackets(
  t: TestContext,
  host: string,
  onPacket: (bytes: Uint8Array, from: Address) => void,
): Promise<PacketPort> {
  const port = await PacketPort.open({ host, port: 0, onPacket, log: quiet });
  t.after(() => port.close());
  assert.equal(addressKey({ host, port: port.port }), `${host} ${port.port}`);
  return port;
}

async function udp(t: TestContext): Promise<UdpSocket> {
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return socket;
}

async function dial(t: TestContext, port: number, localAddress?: string): Promise<Socket> {
  const socket = createConnection({ host: '127.0.0.1', port, ...(localAddress === undefined ? {} : { localAddress }) });
  t.after(() => socket.destroy());
  socket.on('error', () => undefined).resume();
  await once(socket, 'connect');
  return socket;
}
