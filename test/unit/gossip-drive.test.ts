/** What drives the rules of gossip: seeds that do not answer, keys that change, a thread that stood still. */
import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import type { Address, PacketMessage } from '../../src/gossip/types.ts';
import { Keyring } from '../../src/net/gossip/wire/keyring.ts';
import { encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import { packPacket } from '../../src/net/gossip/wire/packet.ts';
import { NodeDisk } from '../../src/storage/disk.ts';
import { GossipAgent } from '../../src/workers/gossip/gossip-agent.ts';
import { KeptKeyring } from '../../src/workers/gossip/kept-keyring.ts';
import { KeyringFile } from '../../src/workers/gossip/keyring-file.ts';
import { MovedAddress, nextLife } from '../../src/workers/gossip/moved-address.ts';
import { type SeedPort, Seeds } from '../../src/workers/gossip/seeds.ts';
import { TickTimer } from '../../src/workers/gossip/tick-timer.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

class FakeSeeds implements SeedPort {
  readonly own = { host: '127.0.0.1', port: 1 };
  readonly log = quiet;
  readonly asked: string[] = [];
  done = 0;
  pending = 0;
  alone = true;
  /** host:port of those that are met. */
  met: readonly string[] = [];
  isMet({ host, port }: Address): boolean {
    return this.met.includes(`${host}:${port}`);
  }
  join(addresses: readonly Address[]): void {
    this.asked.push(...addresses.map(({ host, port }) => `${host}:${port}`));
    this.pending += addresses.length;
  }
  joinsDone(): number {
    return this.done;
  }
  joinsPending(): number {
    return this.pending;
  }
  isAlone(): boolean {
    return this.alone;
  }
  random(): number {
    return 0;
  }
}

test('seeds are asked again until one answers, this node itself and names that are not there left out', async (t) => {
  const port = new FakeSeeds();
  const seeds = new Seeds(port);
  t.after(() => seeds.stop());
  const isJoined = { now: false };
  void seeds.add(['127.0.0.1:1', '127.0.0.1:2', 'no-such-name.invalid:3', 'not an endpoint']).then(() => {
    isJoined.now = true;
  });
  await until(
    () => port.asked.length === 1,
    () => port.asked,
  );
  port.pending = 0;
  seeds.settle();
  await until(
    () => port.asked.length === 2,
    () => port.asked,
  );
  assert.deepEqual([port.asked, isJoined.now], [['127.0.0.1:2', '127.0.0.1:2'], false]);
  port.done = 1;
  seeds.settle();
  await until(
    () => isJoined.now,
    () => 'not joined',
  );
});

test('what discovery finds takes the place of what it had found, and leaves what the configuration names', async (t) => {
  const port = new FakeSeeds();
  const seeds = new Seeds(port);
  t.after(() => seeds.stop());
  const asked = async (count: number): Promise<readonly string[]> => {
    await until(
      () => port.asked.length >= count,
      () => port.asked,
    );
    port.pending = 0;
    return port.asked.splice(0);
  };
  void seeds.add(['127.0.0.1:2']);
  void seeds.found(['127.0.0.1:3', '127.0.0.1:4']);
  assert.deepEqual([...(await asked(3))].sort(), ['127.0.0.1:2', '127.0.0.1:3', '127.0.0.1:4']);
  seeds.settle();
  void seeds.found(['127.0.0.1:5']);
  assert.deepEqual([...(await asked(2))].sort(), ['127.0.0.1:2', '127.0.0.1:5']);
});

test('[G6] a node that is alone keeps its name, whatever a packet says of it', async (t) => {
  const warnings: string[] = [];
  const agent = new GossipAgent({
    ...{ node: 'n1', listen: { host: '127.0.0.1', port: 0 }, advertise: null, keys: [], label: '', profile: 'local' },
    ...{ tags: {}, clusterName: 'c', dataDirectory: null, log: { ...quiet, warn: (text) => warnings.push(text) } },
  });
  await agent.start();
  t.after(() => agent.stop());
  const address = { host: '127.0.0.1', port: 9 };
  const forged: PacketMessage = {
    ...{ kind: 'alive', node: 'n1', address, incarnation: 9, meta: new Uint8Array(0), versions: [1, 5, 2, 2, 5, 5] },
  };
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  const packet = packPacket([encodeMessage(forged)], { label: '', seal: null, crc: false, compress: false });
  socket.send(packet, agent.address?.port ?? 0, '127.0.0.1');
  await until(
    () => warnings.some((text) => text.startsWith('nobody says whose the name')),
    () => warnings,
  );
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(agent.view().length, 1);
});

test('[G5] whoever is told slowly of what is new is told seldom: a flood of news leaves the thread to others', async (t) => {
  const slowMs = 20;
  const pauses: number[] = [];
  let endedAt = Number.NEGATIVE_INFINITY;
  const agent = new GossipAgent({
    ...{ node: 'n1', listen: { host: '127.0.0.1', port: 0 }, advertise: null, keys: [], label: '', profile: 'local' },
    ...{ tags: {}, clusterName: 'c', dataDirectory: null, log: quiet },
    onChange: () => {
      const now = performance.now();
      pauses.push(now - endedAt);
      while (performance.now() - now < slowMs);
      endedAt = performance.now();
    },
  });
  await agent.start();
  t.after(() => agent.stop());
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  const [meta, versions] = [new Uint8Array(0), [1, 5, 2, 2, 5, 5] as const];
  let count = 0;
  await until(
    () => {
      count += 1;
      const address = { host: '127.0.0.2', port: count };
      const message = { kind: 'alive', node: `x${count}`, address, incarnation: 1, meta, versions } as const;
      const packet = packPacket([encodeMessage(message)], { label: '', seal: null, crc: false, compress: false });
      socket.send(packet, agent.address?.port ?? 0, '127.0.0.1');
      return pauses.length > 3;
    },
    () => pauses,
  );
  // A timer may be a millisecond early.
  assert.ok(Math.min(...pauses) >= 10 * slowMs - 2, `${pauses}`);
});

test('seeds that are not met are asked now and then also by who is not alone: islands of nodes come together again', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const port = new FakeSeeds();
  const seeds = new Seeds(port);
  t.after(() => seeds.stop());
  const asked = async (): Promise<readonly string[]> => {
    t.mock.timers.tick(10_000);
    for (let i = 0; i < 10; i += 1) await new Promise((resolve) => setImmediate(resolve));
    return port.asked.splice(0);
  };
  void seeds.add(['127.0.0.1:2', '127.0.0.1:3']);
  assert.deepEqual([...(await asked())].sort(), ['127.0.0.1:2', '127.0.0.1:3']);
  port.done = 1;
  port.pending = 0;
  port.alone = false;
  port.met = ['127.0.0.1:2'];
  seeds.settle();
  assert.deepEqual(await asked(), ['127.0.0.1:3']);
  port.met = ['127.0.0.1:2', '127.0.0.1:3'];
  assert.deepEqual(await asked(), []);
  port.met = ['127.0.0.1:3'];
  assert.deepEqual(await asked(), ['127.0.0.1:2']);
});

test('stopping ends the wait for seeds', async () => {
  const seeds = new Seeds(new FakeSeeds());
  const joined = seeds.add(['127.0.0.1:2']);
  seeds.stop();
  await joined;
  await seeds.add(['127.0.0.1:2']);
});

test('a key is in the file before the answer says that it is there', (t) => {
  const keyring = new Keyring();
  const [first, second] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
  keyring.add(first);
  const file = new KeyringFile(new NodeDisk(), temporaryFolder(t));
  const kept = new KeptKeyring(keyring, file, quiet, () => 5);
  const said: (string | null)[] = [];
  const change = (operation: 'install-key' | 'use-key' | 'remove-key', key: Uint8Array): void =>
    kept.change(operation, key, (failure) => {
      said.push(failure);
      if (failure === null) {
        assert.deepEqual(JSON.parse(readFileSync(file.path, 'utf8')), kept.list().keys);
      }
    });
  change('use-key', second);
  change('remove-key', first);
  change('install-key', Buffer.alloc(5));
  assert.equal(existsSync(file.path), false);
  change('install-key', second);
  change('use-key', second);
  change('remove-key', first);
  assert.deepEqual(
    said.map((failure) => failure !== null),
    [true, true, true, false, false, false],
  );
  assert.deepEqual(kept.list(), { keys: [second.toString('base64')], primaryKey: second.toString('base64') });
});

test('a key that cannot be written down is not taken', (t) => {
  const keyring = new Keyring();
  keyring.add(Buffer.alloc(32, 1));
  const file = new KeyringFile(new NodeDisk(), `${temporaryFolder(t)}/no-such-folder`);
  const said: (string | null)[] = [];
  new KeptKeyring(keyring, file, quiet, () => 5).change('install-key', Buffer.alloc(32, 2), (why) => said.push(why));
  assert.match(said[0] ?? '', /ENOENT/);
  assert.equal(keyring.keys.length, 1);
});

test('[G4] a node that moved takes leave of everybody at its old address before it is at the new one', async (t) => {
  const sent: [number, PacketMessage][] = [];
  const past = { address: { host: '10.0.0.1', port: 1 }, incarnation: 3 };
  const self = { node: 'a', past, versions: [1, 5, 2, 2, 5, 5] as const, meta: Uint8Array.of(1) };
  const moved = new MovedAddress(self, {
    send: (to, message) => sent.push([to.port, message]),
    now: () => performance.now(),
  });
  t.after(() => moved.stop());
  assert.deepEqual([moved.isOld(past.address), moved.isOld({ host: '10.0.0.1', port: 2 })], [true, false]);
  const targets = [7, 8].map((port) => ({ host: '10.0.0.9', port }));
  const isDone = { now: false };
  moved.farewell(targets, () => {
    isDone.now = true;
  });
  moved.farewell(targets, () => assert.fail('they were told already'));
  await until(
    () => isDone.now,
    () => sent,
  );
  assert.deepEqual(
    sent.map(([port, message]) => [port, message.kind]),
    [
      [7, 'alive'],
      [8, 'alive'],
      [7, 'dead'],
      [8, 'dead'],
    ],
  );
  const [[, alive], , [, dead]] = sent as [(typeof sent)[0], (typeof sent)[0], (typeof sent)[0]];
  assert.ok(alive.kind === 'alive' && dead.kind === 'dead');
  assert.deepEqual([alive.address, dead.from], [past.address, 'a']);
  assert.ok(alive.incarnation > past.incarnation && dead.incarnation === alive.incarnation);
  assert.ok(nextLife(past) > dead.incarnation);
  assert.deepEqual([nextLife(null), nextLife({ ...past, incarnation: 2 ** 32 - 1 })], [1, 1]);
});

test('[G5] a thread that stood still reads all that waits in its socket before it judges', async (t) => {
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  // The packets of a few turns.
  const packets = 150;
  let received = 0;
  socket.on('message', () => {
    received += 1;
  });
  const ticks: number[] = [];
  let at = performance.now() + 5;
  const timer = new TickTimer({
    nextAt: () => at,
    packetsIn: () => received,
    tick: () => {
      ticks.push(received);
      at = Number.POSITIVE_INFINITY;
      timer.stop();
    },
  });
  t.after(() => timer.stop());
  timer.arm();
  for (let i = 0; i < packets; i++) socket.send('x', socket.address().port, '127.0.0.1');
  for (const end = at + 300; performance.now() < end; );
  await until(
    () => ticks.length === 1,
    () => ticks,
  );
  assert.deepEqual(ticks, [packets]);
});
