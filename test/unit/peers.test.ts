/** Streams between the main threads of nodes, over real gRPC servers in one process. The shards are the test's. */

import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { Anonymous } from '../../src/access/caller.ts';
import type { DeliveryStream } from '../../src/grpc/delivery-stream.ts';
import {
  encodeBatch,
  encodeBroadcast,
  encodeHello,
  encodeInterest,
  encodeProof,
  type PeerHello,
  PeerReader,
} from '../../src/grpc/peer-codec.ts';
import type { GrpcServer } from '../../src/grpc/server.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { OverloadGuard } from '../../src/workers/front/admission.ts';
import { Dispatcher } from '../../src/workers/front/dispatcher.ts';
import { PEER_BATCH_HEADER, PEERS_HEADER, Start, ToShard } from '../../src/workers/link.ts';
import { EXCHANGE_PATH, PeerLink, type PeerTarget } from '../../src/workers/peers/peer-link.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { PeerBatches } from '../../src/workers/shard/peer-batches.ts';
import { SlotTable } from '../../src/workers/slots/slot-table.ts';
import { freePorts } from '../support/ports.ts';
import { encodePublish } from '../support/wire.ts';
import { dataBatch, plain, subjectRef } from './batch-support.ts';
import { FRONT_LIMITS } from './front-rig.ts';
import { eventually, startServer } from './grpc-rig.ts';

const CLUSTER = 'cluster-1';
const SUBJECT = subjectRef('peers.test');
const RING_BYTES = 1 << 16;
const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

class Sink {
  readonly frames: Buffer[] = [];
  readonly unsentBytes = 0;
  readonly isFull = false;
  readonly #cancel: (() => void)[] = [];
  readonly onCancelled = (listener: () => void): void => void this.#cancel.push(listener);
  readonly onDrained = (): void => undefined;
  open(): void {
    // Its client is not looked at.
  }
  write(frames: Buffer, onSent: () => void): boolean {
    this.frames.push(frames);
    onSent();
    return true;
  }
  leave(): void {
    for (const listener of this.#cancel) listener();
  }
}

/** A node without its shard and Raft threads. */
class Node {
  readonly target: PeerTarget;
  readonly dispatcher: Dispatcher;
  readonly shard: PeerBatches;
  readonly #control: RingConsumer;
  readonly #payload: RingConsumer;
  /** What the shard was told of what others want. */
  readonly wanted = new Set<string>();
  /** Bases of batches that came from others. */
  readonly came: number[] = [];
  readonly #main: MainPort;
  #server: GrpcServer | null = null;

  constructor(name: string, port: number) {
    this.target = { node: name, instance: `instance-${name}`, grpc: `127.0.0.1:${port}` };
    const rings = {
      mainControl: createRing(1 << 16),
      mainPayload: createRing(RING_BYTES),
      toMainControl: createRing(1 << 16),
      toMainPayload: createRing(1 << 20),
      toRaft: createRing(1 << 12),
      fromRaft: createRing(1 << 12),
    };
    this.dispatcher = new Dispatcher(
      { ...FRONT_LIMITS, ringBytes: RING_BYTES, bytesMax: 1 << 24, unsentBytesMax: 1 << 24 },
      new OverloadGuard({ targetMs: 1_000, intervalMs: 1_000 }),
      new SlotTable(1),
    );
    this.dispatcher.attach({ shard: 0, rings, doorbell: createDoorbell() });
    this.dispatcher.admit();
    this.#main = new MainPort(rings.toMainControl, rings.toMainPayload, createDoorbell());
    this.shard = new PeerBatches(this.#main, null, { peerBatch: () => undefined, peerBatchCame: () => undefined });
    this.#control = new RingConsumer(rings.mainControl);
    this.#payload = new RingConsumer(rings.mainPayload);
  }

  get peers() {
    return this.dispatcher.peers;
  }

  /** `members`: as this node knows them. */
  start(t: TestContext, members: () => readonly PeerTarget[], messageBytesMax = 4 << 20): void {
    const { node, instance } = this.target;
    const known = (): Promise<readonly PeerTarget[]> => Promise.resolve(members());
    const incarnation = Date.now();
    const options = { clusterId: CLUSTER, node, instance, incarnation, messageBytesMax, members: known, log };
    this.peers.start(options);
    t.after(() => this.peers.stop());
  }

  async serve(t: TestContext): Promise<void> {
    const peers = (call: ServerDuplexStream<Buffer, Buffer>): void => this.peers.accept(call);
    const [host, port] = this.target.grpc.split(':') as [string, string];
    this.#server = await startServer(
      t,
      { engine: this.dispatcher, peers, receiving: this.dispatcher.receiving },
      {
        host,
        port: Number(port),
      },
    );
  }

  async hangUp(): Promise<void> {
    await this.#server?.drain(0);
  }

  subscribe(): Sink {
    const sink = new Sink();
    const start = { kind: Start.NEW, value: 0 };
    const { subscriptions } = this.dispatcher;
    const id = this.dispatcher.seats.open + 1;
    subscriptions.open(Buffer.from(SUBJECT.bytes), SUBJECT.hash, 0, start, sink as unknown as DeliveryStream);
    subscriptions.started(id, 1);
    return sink;
  }

  /** The shard has stored a batch. */
  stored(base: number, text = 'm'): void {
    const { bytes, count } = dataBatch(SUBJECT, [plain(text)], { base, publishedAt: 5 });
    this.shard.resolved(SUBJECT, { base, count, publishedAt: 5 }, bytes);
    this.work();
  }

  /** One round of both threads. */
  work(): void {
    this.dispatcher.doWork();
    this.#control.drain((type, offset, length) => {
      if (type !== ToShard.PEERS) return;
      const { view, buffer } = this.#control;
      const subject = buffer.subarray(offset + PEERS_HEADER, offset + length);
      const isWanted = view.getUint32(offset + 4, true) === 1;
      this.shard.want(subject, view.getUint32(offset, true), isWanted);
      if (isWanted) this.wanted.add(subject.toString());
      else this.wanted.delete(subject.toString());
    }, 1_000);
    this.#payload.drain((type, offset, length) => {
      assert.equal(type, ToShard.PEER_BATCH);
      const { view, buffer } = this.#payload;
      const subjectEnd = offset + PEER_BATCH_HEADER + view.getUint32(offset + 24, true);
      assert.equal(buffer.toString('utf8', offset + PEER_BATCH_HEADER, subjectEnd), 'peers.test');
      const base = view.getFloat64(offset, true);
      assert.deepEqual(
        Buffer.from(buffer.subarray(subjectEnd, offset + length)).subarray(24, 32),
        Buffer.from(BigUint64Array.of(BigInt(base)).buffer),
      );
      this.came.push(base);
    }, 1_000);
  }
}

async function nodesOf(...names: readonly string[]): Promise<Node[]> {
  const ports = await freePorts(names.length);
  return names.map((name, i) => new Node(name, ports[i] as number));
}

/** Nodes that know each other, and all streams between them are open. */
async function cluster(t: TestContext, ...names: readonly string[]): Promise<Node[]> {
  return await clusterOf(t, 4 << 20, names);
}

/** The same, with limits.message_bytes. */
async function clusterOf(t: TestContext, messageBytesMax: number, names: readonly string[]): Promise<Node[]> {
  const nodes = await nodesOf(...names);
  const members = nodes.map(({ target }) => target);
  for (const node of nodes) await node.serve(t);
  for (const node of nodes) node.start(t, () => members, messageBytesMax);
  await eventually(t, () => nodes.every(({ peers }) => peers.open + peers.heard === 2 * (names.length - 1)));
  return nodes;
}

async function until(t: TestContext, nodes: readonly Node[], isTrue: () => boolean): Promise<void> {
  await eventually(t, () => {
    for (const node of nodes) node.work();
    return isTrue();
  });
}

const broadcastTo = (node: Node, body: string): void =>
  node.dispatcher.broadcast(
    encodePublish({ subject: 'peers.test', body: Buffer.from(body) }),
    Infinity,
    (error) => assert.equal(error, null),
    new Anonymous('default'),
    null,
  );

describe('nodes of a cluster', () => {
  it('each give a broadcast to their live subscribers, once', { timeout: 20_000 }, async (t) => {
    const nodes = await cluster(t, 'a', 'b', 'c');
    const sinks = nodes.map((node) => node.subscribe());
    const [a, b, c] = nodes as [Node, Node, Node];
    for (let i = 0; i < 10; i++) broadcastTo(a, `from a ${i}`);
    broadcastTo(b, 'from b');
    await until(t, nodes, () => sinks.every(({ frames }) => frames.length >= 11));
    // What a receiver passed on would be on its way now, and be there before what is sent next.
    broadcastTo(c, 'last');
    await until(t, nodes, () => sinks.every(({ frames }) => String(frames.at(-1)).includes('last')));
    for (const { frames } of sinks) assert.equal(frames.length, 12);
    assert.deepEqual(
      nodes.map(({ peers }) => [peers.broadcastsSent, peers.broadcastsReceived, peers.unsent]),
      [
        [20, 2, 0],
        [2, 11, 0],
        [2, 11, 0],
      ],
    );
  });

  it('send stored batches to those that have subscribers, until some seconds behind the last', {
    timeout: 30_000,
  }, async (t) => {
    const nodes = await cluster(t, 'a', 'b', 'c');
    const [a, b, c] = nodes as [Node, Node, Node];
    a.stored(1);
    const sink = b.subscribe();
    await until(t, nodes, () => a.wanted.has('peers.test') && c.wanted.has('peers.test'));
    for (let base = 2; base < 50; base++) a.stored(base);
    await until(t, nodes, () => b.came.length >= 48);
    c.stored(50);
    await until(t, nodes, () => b.came.length >= 49);
    assert.deepEqual(
      b.came,
      Array.from({ length: 49 }, (_, i) => i + 2),
    );
    assert.deepEqual([a.came, c.came], [[], []]);
    assert.equal(a.peers.batchesSent, 48);
    sink.leave();
    await until(t, nodes, () => !a.wanted.has('peers.test') && !c.wanted.has('peers.test'));
    a.stored(51);
    assert.equal(a.peers.batchesSent, 48);
  });

  it('find each other again when one was away, and tell it everything anew', { timeout: 30_000 }, async (t) => {
    const nodes = await cluster(t, 'a', 'b');
    const [a, b] = nodes as [Node, Node];
    b.subscribe();
    await until(t, nodes, () => a.wanted.has('peers.test'));
    await b.hangUp();
    await until(t, nodes, () => a.peers.open === 0);
    a.stored(1);
    assert.equal(a.peers.unsent, 1, 'what cannot be sent is counted');
    await b.serve(t);
    await until(t, nodes, () => a.peers.open === 1 && b.peers.open === 1);
    a.stored(2);
    await until(t, nodes, () => b.came.length > 0);
    assert.deepEqual(b.came, [2]);
    // The other direction, too.
    await a.hangUp();
    await until(t, nodes, () => b.peers.open === 0);
    await a.serve(t);
    await until(t, nodes, () => b.peers.open === 1);
    a.subscribe();
    await until(t, nodes, () => b.wanted.has('peers.test'));
    b.stored(3);
    await until(t, nodes, () => a.came.length > 0);
  });

  it('announce many subjects in messages that the others take, however small these may be', {
    timeout: 20_000,
  }, async (t) => {
    const nodes = await clusterOf(t, 64 << 10, ['a', 'b']);
    const [a, b] = nodes as [Node, Node];
    const names = Array.from({ length: 1_000 }, (_, i) => `${i}.${'n'.repeat(200)}`);
    for (const name of names) a.peers.own.began(Buffer.from(name));
    await until(t, nodes, () => b.wanted.size === names.length);
    // All of it, to one that has been away.
    await b.hangUp();
    await until(t, nodes, () => a.peers.open === 0);
    await b.serve(t);
    b.wanted.clear();
    await until(t, nodes, () => a.peers.open === 1 && a.peers.heard === 1);
    broadcastTo(a, 'x');
    await eventually(t, () => b.peers.broadcastsReceived === 1);
  });

  it('want everything of the others when the names of what they want would be too long to be sent', {
    timeout: 20_000,
  }, async (t) => {
    const nodes = await cluster(t, 'a', 'b');
    const [a, b] = nodes as [Node, Node];
    for (let i = 0; i < 40_000; i++) a.peers.own.began(Buffer.from(`${i}.${'n'.repeat(240)}`));
    await until(t, nodes, () => b.wanted.has(''));
    b.stored(1);
    assert.equal(b.peers.batchesSent, 1);
    assert.equal(a.peers.open, 1);
  });

  it('have nothing to do with one that is no member any more', { timeout: 20_000 }, async (t) => {
    const nodes = await nodesOf('a', 'b');
    const [a, b] = nodes as [Node, Node];
    let members = [a.target, b.target];
    for (const node of nodes) await node.serve(t);
    a.start(t, () => members);
    b.start(t, () => [a.target, b.target]);
    b.subscribe();
    await until(t, nodes, () => a.wanted.has('peers.test') && b.peers.open === 1);
    members = [a.target];
    await until(t, nodes, () => b.peers.open === 0 && !a.wanted.has('peers.test'));
    assert.equal(a.peers.open, 0);
  });
});

/** A call to a node, and what comes of it. */
function callOf(t: TestContext, node: Node) {
  const client = new Client(node.target.grpc, credentials.createInsecure());
  t.after(() => client.close());
  const identity = (bytes: Buffer): Buffer => bytes;
  const call = client.makeBidiStreamRequest(EXCHANGE_PATH, identity, identity);
  const ended = new Promise<ServiceError>((resolve) => call.once('error', resolve));
  call.on('data', () => undefined);
  return { call, ended };
}

describe('a caller of the service of peers', () => {
  const hello = (changed: Partial<PeerHello> = {}): PeerHello => ({
    clusterId: CLUSTER,
    nodeId: 'b',
    instanceId: 'instance-b',
    incarnation: 1,
    version: 1,
    messageBytesMax: 1 << 20,
    challenge: 'f00d',
    ...changed,
  });
  const whole = (name: string): Buffer =>
    encodeInterest({ everything: false, first: true, last: true, added: [Buffer.from(name)], removed: [] });
  const { bytes } = dataBatch(SUBJECT, [plain('m'.repeat(900))], { base: 1 });
  const source = Buffer.concat([SUBJECT.bytes, bytes]);
  const head = { base: 1, count: 1, publishedAt: 5 };
  const batch = encodeBatch(head, source, 0, SUBJECT.bytes.length, source.length);

  /** Node a, whose other member is a server of the test; and what a has told that one in its calls. */
  async function withOther(t: TestContext) {
    const [a, b] = (await nodesOf('a', 'b')) as [Node, Node];
    const challenges: string[] = [];
    const proofs: string[] = [];
    const reader = new PeerReader();
    const ignore = (): void => undefined;
    const parts = {
      hello: ({ challenge }: PeerHello) => void challenges.push(challenge),
      proof: (challenge: string) => void proofs.push(challenge),
      interest: ignore,
      batch: ignore,
      broadcast: ignore,
    };
    const peers = (call: ServerDuplexStream<Buffer, Buffer>): void => {
      call.on('data', (message: Buffer) => reader.read(message, parts));
      call.on('error', ignore);
      call.write(encodeHello(hello({ challenge: '' })));
    };
    const [host, port] = b.target.grpc.split(':') as [string, string];
    await startServer(t, { peers }, { host, port: Number(port) });
    await a.serve(t);
    a.start(t, () => [a.target, b.target]);
    await eventually(t, () => a.peers.open === 1);
    const proof = encodeProof(challenges[0] as string);
    return { node: a, proof, proofs };
  }

  const refused: readonly { readonly what: string; readonly first: Buffer; readonly says: RegExp }[] = [
    { what: 'of another cluster', first: encodeHello(hello({ clusterId: 'x' })), says: /cluster x/ },
    { what: 'that is no member', first: encodeHello(hello({ nodeId: 'c' })), says: /node c/ },
    { what: 'under the name of the node itself', first: encodeHello(hello({ nodeId: 'a' })), says: /node a/ },
    {
      what: 'with a new disk under an old name [R23]',
      first: encodeHello(hello({ instanceId: 'y' })),
      says: /instance/,
    },
    { what: 'that does not say hello', first: encodeBroadcast(Buffer.from('x')), says: /not said hello/ },
    { what: 'that says it twice', first: Buffer.concat([encodeHello(hello()), encodeHello(hello())]), says: /already/ },
    { what: 'that sends noise', first: Buffer.from('ffffffffffffffffffff', 'hex'), says: /not a valid protobuf/ },
  ];
  for (const { what, first, says } of refused) {
    it(`${what} is refused with the reason`, { timeout: 10_000 }, async (t) => {
      const { node } = await withOther(t);
      const { call, ended } = callOf(t, node);
      call.write(first);
      assert.match((await ended).details, says);
    });
  }

  it("[F12] that knows all names, but is not at the address of the member, is not listened to, and takes nobody's place", {
    timeout: 10_000,
  }, async (t) => {
    const { node, proof, proofs } = await withOther(t);
    const sink = node.subscribe();
    const true_ = callOf(t, node);
    true_.call.write(Buffer.concat([encodeHello(hello()), proof, whole('s')]));
    await until(t, [node], () => node.wanted.has('s'));
    const false_ = callOf(t, node);
    const cast = encodeBroadcast(encodePublish({ subject: 'peers.test', body: Buffer.from('forged') }));
    const forged = Buffer.concat([encodeProof('f00d'), whole('x'), batch, cast]);
    false_.call.write(Buffer.concat([encodeHello(hello({ challenge: 'face' })), forged]));
    // Answered to where the member is, so the caller learns nothing from it.
    await eventually(t, () => proofs.includes('face'));
    false_.call.write(forged);
    true_.call.write(whole('t'));
    await until(t, [node], () => node.wanted.has('t'));
    node.work();
    assert.deepEqual([...node.wanted], ['t']);
    assert.deepEqual([node.peers.batchesReceived, node.peers.broadcastsReceived], [0, 0]);
    assert.deepEqual([node.came, sink.frames], [[], []]);
  });

  it('is ended by the next call of the same node, which begins anew', { timeout: 10_000 }, async (t) => {
    const { node, proof } = await withOther(t);
    const former = callOf(t, node);
    former.call.write(Buffer.concat([encodeHello(hello()), proof, whole('s')]));
    await until(t, [node], () => node.wanted.has('s'));
    callOf(t, node).call.write(Buffer.concat([encodeHello(hello({ incarnation: 2 })), proof]));
    assert.match((await former.ended).details, /newer call/);
    await until(t, [node], () => !node.wanted.has('s'));
  });

  it('fills no ring with batches that nobody wants, nor more than half of one with others', {
    timeout: 20_000,
  }, async (t) => {
    const { node, proof } = await withOther(t);
    const { call } = callOf(t, node);
    call.write(Buffer.concat([encodeHello(hello()), proof, batch]));
    await eventually(t, () => node.peers.batchesReceived === 1);
    assert.equal(node.peers.batchesIgnored, 1);
    node.subscribe();
    for (let i = 0; i < 100; i++) call.write(batch);
    await eventually(t, () => node.peers.batchesReceived === 101);
    node.work();
    assert(node.came.length > 10 && node.came.length * bytes.length <= RING_BYTES / 2, `${node.came.length} came`);
    assert.equal(node.peers.batchesIgnored, 101 - node.came.length);
  });
});

describe('what is sent to a peer', () => {
  const target = { node: 'b', instance: 'instance-b', grpc: '' };
  const hello: PeerHello = {
    clusterId: CLUSTER,
    nodeId: 'a',
    instanceId: 'instance-a',
    incarnation: 1,
    version: 1,
    messageBytesMax: 1 << 20,
    challenge: '',
  };
  const answer = (instanceId: string): Buffer => encodeHello({ ...hello, nodeId: 'b', instanceId });

  /** A link to a server that does with its call what the test wants. */
  async function linkTo(t: TestContext, peers: (call: ServerDuplexStream<Buffer, Buffer>) => void, unsentMax: number) {
    const server = await startServer(t, { peers });
    const link = new PeerLink({ ...target, grpc: server.address }, { hello, log, opened: () => undefined }, unsentMax);
    t.after(() => link.stop());
    link.start();
    return link;
  }

  it('is made anew where the peer has to show itself again, and only if it was', { timeout: 20_000 }, async (t) => {
    let calls = 0;
    const link = await linkTo(
      t,
      (call) => {
        calls += 1;
        call.on('data', () => call.write(answer('instance-b'))).on('error', () => undefined);
      },
      1 << 20,
    );
    await eventually(t, () => link.isOpen);
    link.dialAnew('its authority is gone');
    assert.equal(link.isOpen, false);
    // It waits already.
    link.dialAnew('its authority is gone');
    await eventually(t, () => link.isOpen);
    assert.equal(calls, 2);
  });

  it('[W6] is bounded while the peer does not read, and dropped beyond that', { timeout: 20_000 }, async (t) => {
    const held: { call: ServerDuplexStream<Buffer, Buffer> | null } = { call: null };
    const link = await linkTo(
      t,
      (call) => {
        held.call = call;
        call.once('data', () => {
          call.write(answer('instance-b'));
          call.pause();
        });
      },
      1 << 20,
    );
    await eventually(t, () => link.isOpen);
    const part = Buffer.alloc(100_000);
    let sent = 0;
    while (sent < 1_000 && link.trySend(part)) {
      sent += 1;
      if (sent % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
      assert(link.unsentBytes <= 1 << 20);
    }
    assert(sent < 1_000, 'nothing was dropped');
    assert(!link.trySend(part));
    const taken: number[] = [];
    held.call?.on('data', (message: Buffer) => void taken.push(message.length));
    held.call?.resume();
    await eventually(t, () => link.unsentBytes === 0);
    assert(link.isOpen, 'the call was given up');
    assert(link.trySend(part));
    await eventually(t, () => taken.reduce((sum, length) => sum + length, 0) === (sent + 1) * part.length);
  });

  it('goes to nobody else who answers at its address', { timeout: 20_000 }, async (t) => {
    let calls = 0;
    const link = await linkTo(
      t,
      (call) => {
        calls += 1;
        call.once('data', () => call.write(answer(calls < 3 ? 'instance-x' : 'instance-b')));
        call.on('error', () => undefined);
      },
      1 << 20,
    );
    assert(!link.trySend(Buffer.from('x')));
    await eventually(t, () => link.isOpen);
    assert.equal(calls, 3);
  });

  it('is never longer than what the peer takes', { timeout: 20_000 }, async (t) => {
    const link = await linkTo(t, (call) => call.once('data', () => call.write(answer('instance-b'))), 1 << 24);
    await eventually(t, () => link.isOpen);
    assert(!link.trySend(Buffer.alloc((1 << 20) + 1)));
    assert(link.trySend(Buffer.alloc(1 << 20)));
    await eventually(t, () => link.unsentBytes === 0);
  });
});
