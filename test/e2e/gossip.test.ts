/** Our gossip and real Serf agents in one cluster, and what strangers can do to it. */
import assert from 'node:assert/strict';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import type { OurPeer } from '../faults/gossip-peers.ts';
import { GossipRig } from '../faults/gossip-rig.ts';
import { Dice, ROUNDS, type Round, runRound } from '../faults/gossip-rounds.ts';
import { GossipNode } from '../servers/gossip.ts';
import { SerfAgent } from '../servers/serf.ts';
import { Forgery } from '../support/gossip-forgery.ts';
import { freePorts } from '../support/ports.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';

const SEED = 7;
const ASKED_MAX = 100_000;

async function rigFor(t: TestContext, isolated = false): Promise<GossipRig> {
  // Hooks run in the order in which they were set: nobody writes in the folder any more when it goes.
  const rigs: GossipRig[] = [];
  t.after(() => rigs[0]?.[Symbol.asyncDispose]());
  const rig = await GossipRig.start({ folder: temporaryFolder(t), isolated });
  rigs.push(rig);
  return rig;
}

function round(kind: string): Round {
  const found = ROUNDS.find((one) => one.kind === kind);
  assert.ok(found !== undefined, kind);
  return found;
}

test('our nodes and real agents, new and old, live in one encrypted cluster: tags, events, queries, keys, leaving', async (t) => {
  if (!requireTool(t, 'go')) return;
  const rig = await rigFor(t);
  const dice = new Dice(SEED);
  for (const kind of ['tags', 'join and leave', 'join and leave', 'restart']) await runRound(rig, round(kind), dice);
  // Each of them begins each of these once; keys are changed by one of ours and by one agent.
  for (const [index, peer] of rig.peers.entries()) {
    await runRound(rig, round('event'), new Dice(SEED + index, peer));
    await runRound(rig, round('query'), new Dice(SEED + index, peer));
  }
  for (const peer of rig.peers.slice(1, 3)) await runRound(rig, round('rotate'), new Dice(SEED, peer));
});

test('[G1] who is killed is called failed by all, and finds the others again from what it remembered', async (t) => {
  if (!requireTool(t, 'go')) return;
  const rig = await rigFor(t);
  const [, ours, agent] = rig.peers;
  assert.ok(ours !== undefined && agent !== undefined);
  await Promise.all([ours.kill(), agent.kill()]);
  rig.drop(ours);
  rig.drop(agent);
  await rig.seeAs(ours.node, 'failed');
  await rig.seeAs(agent.node, 'failed');
  rig.peers.push(ours, agent);
  // Neither is told where anybody is but the agent, by its flags.
  await Promise.all([ours.restart(), agent.restart()]);
  await rig.agree();
});

test('[G4] a node that starts again at another address is taken in, by those who call it alive and by those who call it failed', async (t) => {
  if (!requireTool(t, 'go')) return;
  const rig = await rigFor(t);
  const [, ours] = rig.peers as [OurPeer, OurPeer];
  const move = async (): Promise<void> => {
    await ours.process.restart({ listen: { host: '127.0.0.1', port: (await freePorts(1))[0] as number } });
    await rig.agree();
    // Its old self took leave of them. Without it they forget the name some time after it has failed, and then take it for new.
    for (const { kind, logs } of rig.peers) {
      if (kind === 'agent') assert.ok(logs.includes(`for left or failed node ${ours.node}`), logs);
    }
  };
  await move();
  await ours.kill();
  await rig.seeAs(ours.node, 'failed');
  await move();
});

test('[G5] a node that stands still for 5 s or is stopped for 6 s calls nobody failed, and is taken in again', async (t) => {
  if (!requireTool(t, 'go')) return;
  const rig = await rigFor(t);
  const [first] = rig.peers as [OurPeer, OurPeer];
  const failures = async (): Promise<number> => (await first.process.figures()).rules.failures;
  await runRound(rig, round('blocked'), new Dice(SEED, first));
  const agent = rig.peers.at(-1);
  assert.ok(agent !== undefined);
  const before = await failures();
  await runRound(rig, round('SIGSTOP'), new Dice(SEED, first));
  // What was stopped has judged nobody; others may have judged it.
  assert.equal(await failures(), before);
  await runRound(rig, round('SIGSTOP'), new Dice(SEED, agent));
});

test('with 20 % of all packets lost everybody is alive again when it is over', async (t) => {
  if (!requireTool(t, 'go') || !requireTool(t, 'namespaces')) return;
  const rig = await rigFor(t, true);
  await runRound(rig, round('20 % loss'), new Dice(SEED));
});

test('[G6] 100,000 packets that are forged, replayed, damaged or of another cluster change nothing [G7]', async (t) => {
  if (!requireTool(t, 'go')) return;
  const rig = await rigFor(t);
  const [ours, other] = rig.peers as [OurPeer, OurPeer];
  await ours.event('told', 'once');
  await until(
    () => rig.peers.every((peer) => peer.events().length === 1),
    () => 'the event has not arrived',
  );
  // Where a member was: what comes from there is read before what strangers say, so more of it is looked into.
  const gone = await rig.addOurs('gone');
  await rig.agree();
  await gone.kill();
  rig.drop(gone);
  await rig.seeAs('gone', 'failed');
  const sender = await udpAt(t, gone.address);
  const { serf } = await ours.process.figures();
  const forgery = new Forgery({
    key: Buffer.from(rig.key, 'base64'),
    targets: rig.peers.map(({ node, address }) => ({ node, address: addressOf(address) })),
    prng: new Prng(SEED),
    oldEvent: { time: serf.eventTime - 1, name: 'told', payload: 'once' },
  });
  const before = { view: await ours.process.members(), rules: (await ours.process.figures()).rules };
  const rssBefore = (await ours.process.usage()).rss;
  const packets = 100_000;
  let rssMost = 0;
  await flood(
    { sender, to: addressOf(ours.address), packets, packet: (number) => forgery.packet(number) },
    async () => {
      const { transport } = await ours.process.figures();
      rssMost = Math.max(rssMost, (await ours.process.usage()).rss);
      return transport.packetsIn;
    },
  );
  const { rules, transport } = await ours.process.figures();
  assert.deepEqual(await ours.process.members(), before.view);
  const changes = ['suspicions', 'failures', 'refutations', 'conflicts', 'membersRefused'] as const;
  for (const name of changes) assert.equal(rules[name], before.rules[name], name);
  for (const peer of rig.peers) assert.equal(peer.events().length, 1);
  // Nothing is said of the budget of strangers: a busy machine floods too slowly for it (its test is in gossip-ports).
  const { noKey, notEncrypted, otherLabel, malformed, unknownType, truncated } = transport.drops;
  const drops = JSON.stringify(transport.drops);
  for (const count of [noKey, notEncrypted, otherLabel, malformed + unknownType + truncated]) {
    assert.ok(count > 500, drops);
  }
  assert.ok(rssMost - rssBefore < 128 * 1024 * 1024, `${rssMost - rssBefore} bytes more than ${rssBefore}`);
  await rig.agree();
  // Whoever has the key can say anything; what it says of those who live is refuted.
  const lie = { kind: 'dead', incarnation: 1_000, node: ours.node, from: other.node } as const;
  await send(sender, forgery.seal([lie], Buffer.from(rig.key, 'base64')), addressOf(ours.address));
  await send(sender, forgery.seal([lie], Buffer.from(rig.key, 'base64')), addressOf(other.address));
  await until(
    async () => (await ours.process.figures()).rules.refutations > rules.refutations,
    () => 'no refutation',
  );
  await rig.agree();
});

test('[G7] streams that say nothing, or nonsense, keep nobody out', async (t) => {
  const ours = await nodeFor(t, { node: 'a', keys: [SerfAgent.keygen()] });
  const at = addressOf(ours.address);
  const prng = new Prng(SEED);
  const ends: Promise<unknown>[] = [];
  for (let i = 0; i < 300; i++) {
    const socket = createConnection(at).on('error', () => undefined);
    t.after(() => socket.destroy());
    socket.resume();
    await once(socket, 'connect');
    if (i % 3 === 0) continue;
    ends.push(once(socket, 'close'));
    socket.write(Uint8Array.from({ length: 1 + prng.nextBelow(5_000) }, () => prng.nextBelow(256)));
    if (i % 3 === 1) socket.end();
  }
  await Promise.all(ends);
  const { transport } = await ours.figures();
  assert.ok(transport.streams.malformed > 50 && transport.streams.crowded > 10, JSON.stringify(transport.streams));
  assert.deepEqual(
    (await ours.members()).map(({ node }) => node),
    ['a'],
  );
});

test('[G2] nodes of another label, key or cluster do not meet, and the log says why', async (t) => {
  const [key, otherKey] = [SerfAgent.keygen(), SerfAgent.keygen()];
  const base = { keys: [key], label: 'one', cluster: 'shop' };
  const ours = await nodeFor(t, { node: 'a', ...base });
  const strangers = [
    { node: 'b', ...base, label: 'two' },
    { node: 'c', ...base, keys: [otherKey] },
    { node: 'd', ...base, cluster: 'bank' },
    { node: 'e', ...base, keys: [] },
  ];
  for (const options of strangers) {
    const stranger = await nodeFor(t, options);
    void stranger.join(ours.address).catch(() => undefined);
    await until(
      () => stranger.logs.includes('no gossip seed has answered yet'),
      () => stranger.logs,
    );
    assert.deepEqual(
      (await stranger.members()).map(({ node }) => node),
      [options.node],
    );
  }
  assert.deepEqual(
    (await ours.members()).map(({ node }) => node),
    ['a'],
  );
  for (const reason of ['otherLabel', 'noKey', 'notEncrypted', 'is of cluster']) {
    // They ask again and again, and the log leaves out what comes too often.
    await until(
      () => ours.logs.includes(reason),
      () => `the log says nothing of ${reason}\n${ours.logs}`,
      60_000,
    );
  }
  const friend = await nodeFor(t, { node: 'f', ...base });
  await friend.join(ours.address);
  await until(
    async () => (await ours.status('f')) === 'alive',
    () => ours.logs,
  );
});

test('[G2] of two nodes with one name the first keeps it', async (t) => {
  const [a, b] = [await nodeFor(t, { node: 'a' }), await nodeFor(t, { node: 'b' })];
  await b.join(a.address);
  const double = await nodeFor(t, { node: 'b' });
  await double.join(a.address);
  await until(
    () => double.logs.includes('it gossips no more'),
    () => double.logs,
  );
  const seen = (await a.members()).find(({ node }) => node === 'b');
  assert.deepEqual([seen?.status, seen?.address.port], ['alive', addressOf(b.address).port]);
  assert.equal(await b.status('a'), 'alive');
});

test('[G2] a node that has lost its name tries again, and has it once the other one is gone, with its tags and seeds', async (t) => {
  const [a, former] = [await nodeFor(t, { node: 'a' }), await nodeFor(t, { node: 'b' })];
  await former.join(a.address);
  const dataDirectory = temporaryFolder(t);
  const [port = 0] = await freePorts(1);
  const b = await nodeFor(t, { node: 'b', dataDirectory, nameRetryMs: 6_000, listen: { host: '127.0.0.1', port } });
  await b.join(a.address);
  await until(
    () => b.logs.includes('it gossips no more'),
    () => b.logs,
  );
  assert.equal(await b.call({ do: 'tags', tags: { colour: 'blue' } }), null);
  assert.equal(await former.status('a'), 'alive');
  // It told nobody that it ends.
  await former.kill();
  await until(
    async () => {
      const seen = (await a.members()).find(({ node }) => node === 'b');
      return seen?.status === 'alive' && seen.address.port === port && seen.tags.colour === 'blue';
    },
    () => `${a.logs}\n${b.logs}`,
    60_000,
  );
  assert.equal(await b.status('a'), 'alive');
});

test('[G4] a node that is ready has written down where it is', async (t) => {
  const dataDirectory = temporaryFolder(t);
  const node = await nodeFor(t, { node: 'a', dataDirectory });
  assert.ok(readFileSync(join(dataDirectory, 'gossip', 'snapshot'), 'utf8').includes(`# self: ${node.address} 1\n`));
});

test('IPv6 and IPv4 live together where both are listened to', async (t) => {
  const six = await nodeFor(t, {
    node: 'six',
    listen: { host: '::', port: 0 },
    advertise: { host: '127.0.0.1', port: 0 },
  });
  const four = await nodeFor(t, { node: 'four' });
  const only6 = await nodeFor(t, { node: 'only6', listen: { host: '::1', port: 0 } });
  await four.join(`127.0.0.1:${addressOf(six.address).port}`);
  await only6.join(`[::1]:${addressOf(six.address).port}`);
  await until(
    async () => (await six.members()).filter(({ status }) => status === 'alive').length === 3,
    async () => JSON.stringify(await six.members()),
  );
  const seen = new Map((await six.members()).map(({ node, address }) => [node, address.host]));
  assert.deepEqual([seen.get('six'), seen.get('four'), seen.get('only6')], ['127.0.0.1', '127.0.0.1', '::1']);
});

test('what gossip does is in the metrics', async (t) => {
  const [a, b] = [await nodeFor(t, { node: 'a' }), await nodeFor(t, { node: 'b' })];
  await b.join(a.address);
  const text = async (): Promise<string> => (await a.call({ do: 'metrics' })) as string;
  await until(
    async () => /broker_gossip_probes_total [1-9]/.test(await text()),
    () => 'no probes',
  );
  const metrics = await text();
  assert.match(metrics, /broker_gossip_members\{status="alive"\} 2\n/);
  assert.match(metrics, /broker_gossip_members\{status="failed"\} 0\n/);
  assert.match(metrics, /broker_gossip_packets_in_total [1-9]/);
  assert.match(metrics, /broker_gossip_drops_total\{reason="noKey"\} 0\n/);
});

interface Flood {
  readonly sender: Socket;
  readonly to: { readonly host: string; readonly port: number };
  readonly packets: number;
  readonly packet: (number: number) => Uint8Array;
}

/** As fast as they are read: `received` says how many were. */
async function flood({ sender, to, packets, packet }: Flood, received: () => Promise<number>): Promise<void> {
  const first = await received();
  const inFlight = 150;
  for (let sent = 0; sent < packets; ) {
    for (let i = 0; i < inFlight && sent < packets; i++, sent++) sender.send(packet(sent), to.port, to.host);
    // Asking takes its time to be answered: no pause is needed in between.
    for (let asked = 0; (await received()) - first < sent * 0.98; asked += 1) {
      assert.ok(asked < ASKED_MAX, `${sent} packets are not read`);
    }
  }
}

function send(sender: Socket, packet: Uint8Array, to: { readonly host: string; readonly port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    sender.send(packet, to.port, to.host, (error) => (error === null ? resolve() : reject(error)));
  });
}

async function nodeFor(t: TestContext, options: Parameters<typeof GossipNode.start>[0]): Promise<GossipNode> {
  const node = await GossipNode.start(options);
  t.after(() => node.kill());
  return node;
}

async function udpAt(t: TestContext, address: string): Promise<Socket> {
  const { host, port } = addressOf(address);
  const socket = createSocket('udp4');
  t.after(() => socket.close());
  socket.bind(port, host);
  await once(socket, 'listening');
  return socket;
}

function addressOf(address: string): { host: string; port: number } {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at), port: Number(address.slice(at + 1)) };
}
