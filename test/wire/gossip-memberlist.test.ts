/** A node of hashicorp/memberlist (tools/memberlist) reads what we write, and we read what it answers. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createSocket, type Socket } from 'node:dgram';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import type { NodeState, PacketMessage, StreamMessage, Versions } from '../../src/gossip/types.ts';
import { encodeMessage } from '../../src/net/gossip/wire/messages.ts';
import { packPacket, readPacket } from '../../src/net/gossip/wire/packet.ts';
import type { EncryptVersion, Seal } from '../../src/net/gossip/wire/seal.ts';
import { StreamReader } from '../../src/net/gossip/wire/stream.ts';
import { packStream } from '../../src/net/gossip/wire/stream-writer.ts';
import { goProgram } from '../support/go-program.ts';
import { freePorts } from '../support/ports.ts';
import { requireTool } from '../support/tools.ts';
import { until } from '../support/until.ts';
import { ringOf } from './gossip-recordings.ts';

interface Told {
  readonly event: 'ready' | 'user' | 'state' | 'join' | 'leave' | 'update' | 'conflict' | 'failed';
  readonly node?: string;
  readonly addr?: string;
  readonly port?: number;
  readonly hex?: string;
  readonly join?: boolean;
}

interface Wrapping {
  readonly label: string;
  readonly key: Uint8Array | null;
  readonly version: EncryptVersion;
  readonly crc: boolean;
  readonly compress: boolean;
}

const VERSIONS: Versions = [1, 5, 2, 0, 0, 0];
const hexOf = (text: string): string => Buffer.from(text).toString('hex');
const bytesOf = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text));

/** The node, and our end of its conversations: a socket that it knows as the node `ours`. */
class Peer {
  readonly told: Told[] = [];
  readonly received: PacketMessage[] = [];
  readonly port: number;
  readonly ourPort: number;
  readonly #wrapping: Wrapping;
  readonly #child: ChildProcess;
  readonly #socket: Socket;

  constructor(ports: { readonly theirs: number; readonly ours: number }, wrapping: Wrapping) {
    this.port = ports.theirs;
    this.ourPort = ports.ours;
    this.#wrapping = wrapping;
    const flags = ['-name=theirs', `-port=${this.port}`, `-label=${wrapping.label}`, `-compress=${wrapping.compress}`];
    flags.push(`-key=${Buffer.from(wrapping.key ?? []).toString('hex')}`);
    this.#child = spawn(goProgram('memberlist'), flags, { stdio: ['pipe', 'pipe', 'inherit'] });
    const lines = createInterface({ input: this.#child.stdout as NonNullable<ChildProcess['stdout']> });
    lines.on('line', (line) => this.told.push(JSON.parse(line) as Told));
    this.#socket = createSocket('udp4', (packet) => {
      const read = readPacket(packet, this.#reader());
      assert.ok(read.kind === 'messages' && read.refusedCount === 0, JSON.stringify(read));
      this.received.push(...read.messages);
    });
    this.#socket.bind(this.ourPort, '127.0.0.1');
  }

  close(): void {
    this.#child.kill('SIGKILL');
    this.#socket.close();
  }

  send(...messages: readonly PacketMessage[]): void {
    const { label, crc, compress } = this.#wrapping;
    const packet = packPacket(messages.map(encodeMessage), { label, seal: this.#seal(), crc, compress });
    this.#socket.send(packet, this.port, '127.0.0.1');
  }

  /** Writes `message` to a connection and reads what is answered; null if nothing is. */
  ask(message: StreamMessage, key = this.#wrapping.key): Promise<StreamMessage | null> {
    const { label, compress } = this.#wrapping;
    const reader = new StreamReader({ ...this.#reader(), isAnswer: true });
    return new Promise((resolve, reject) => {
      const socket = connect(this.port, '127.0.0.1', () => {
        socket.end(packStream(message, { label, isAnswer: false, seal: this.#seal(key), compress }));
      });
      socket.on('data', (chunk) => reader.push(chunk as Buffer));
      socket.once('error', reject);
      socket.once('close', () => {
        const read = reader.end();
        if (read.kind === 'message') resolve(read.message);
        else if (read.kind === 'refused' && read.refusal === 'empty') resolve(null);
        else reject(new Error(JSON.stringify(read)));
      });
    });
  }

  async waitFor(wanted: Told): Promise<void> {
    const entries = Object.entries(wanted);
    const holds = (told: Told): boolean => entries.every(([key, value]) => told[key as keyof Told] === value);
    await until(
      () => this.told.some(holds),
      () => `no ${JSON.stringify(wanted)} in ${JSON.stringify(this.told)}`,
    );
  }

  async waitForMessage(what: string, holds: (message: PacketMessage) => boolean): Promise<void> {
    await until(
      () => this.received.some(holds),
      () => `no ${what} in ${JSON.stringify(this.received)}`,
    );
  }

  #seal(key = this.#wrapping.key): Seal | null {
    return key === null ? null : { key, version: this.#wrapping.version, nonce: randomBytes(12) };
  }

  #reader() {
    const { label, key } = this.#wrapping;
    return { label, keyring: key === null ? ringOf() : ringOf(key) };
  }
}

async function startPeer(t: TestContext, wrapping: Wrapping): Promise<Peer> {
  const [theirs, ours] = (await freePorts(2)) as [number, number];
  const peer = new Peer({ theirs, ours }, wrapping);
  t.after(() => peer.close());
  await peer.waitFor({ event: 'ready' });
  return peer;
}

const WRAPPINGS: readonly (readonly [string, Wrapping])[] = [
  ['in plain words', { label: '', key: null, version: 1, crc: false, compress: false }],
  [
    'with a label, a key, checksums and compression',
    { label: 'blue', key: new Uint8Array(32).fill(7), version: 1, crc: true, compress: true },
  ],
  ['encrypted as version 0', { label: '', key: new Uint8Array(16).fill(7), version: 0, crc: false, compress: false }],
];

for (const [what, wrapping] of WRAPPINGS) {
  test(`memberlist understands our packets ${what}, and we its answers`, async (t) => {
    if (!requireTool(t, 'go-1.26')) return;
    const peer = await startPeer(t, wrapping);
    const address = { host: '127.0.0.1', port: peer.ourPort };
    const meta = bytesOf('our meta '.repeat(20));
    peer.send(
      { kind: 'alive', incarnation: 300, node: 'ours', address, meta, versions: VERSIONS },
      { kind: 'ping', seq: 70_000, node: 'theirs', source: { address, node: 'ours' } },
      { kind: 'user', payload: bytesOf('to all '.repeat(20)) },
    );
    await peer.waitFor({
      event: 'join',
      node: 'ours',
      addr: '127.0.0.1',
      port: peer.ourPort,
      hex: hexOf('our meta '.repeat(20)),
    });
    await peer.waitFor({ event: 'user', hex: hexOf('to all '.repeat(20)) });
    await peer.waitForMessage('ack', (message) => message.kind === 'ack' && message.seq === 70_000);

    // It pings us, since it takes us for a node, and denies that it is suspect.
    await peer.waitForMessage('ping', (message) => message.kind === 'ping' && message.node === 'ours');
    peer.send({ kind: 'suspect', incarnation: 9, node: 'theirs', from: 'ours' });
    await peer.waitForMessage(
      'alive',
      (message) => message.kind === 'alive' && message.node === 'theirs' && message.incarnation > 9,
    );

    // It passes an indirect ping on to us, and our answer back.
    peer.send({
      kind: 'indirectPing',
      seq: 5,
      target: address,
      node: 'ours',
      nack: true,
      source: { address, node: 'ours' },
    });
    await peer.waitForMessage('nack', (message) => message.kind === 'nack' && message.seq === 5);

    peer.send({ kind: 'dead', incarnation: 301, node: 'ours', from: 'ours' });
    await peer.waitFor({ event: 'leave', node: 'ours' });
  });

  test(`memberlist understands our streams ${what}, and we its answers`, async (t) => {
    if (!requireTool(t, 'go-1.26')) return;
    const peer = await startPeer(t, wrapping);
    const node = (name: string, port: number, state: NodeState['state']): NodeState => ({
      node: name,
      address: { host: '127.0.0.1', port },
      meta: bytesOf(`meta of ${name}`),
      incarnation: 40_000,
      state,
      versions: VERSIONS,
    });
    // The lengths are beyond what a signed byte has.
    const others = Array.from({ length: 200 }, (_, i) => node(`left-${i}`, 1 + i, 'left'));
    const nodes = [node('ours', peer.ourPort, 'alive'), ...others];
    const userState = bytesOf('our state '.repeat(50));
    const answer = await peer.ask({ kind: 'pushPull', state: { join: true, nodes, userState } });
    assert.ok(answer?.kind === 'pushPull');
    assert.deepEqual(Buffer.from(answer.state.userState).toString(), 'state of theirs');
    assert.deepEqual(
      answer.state.nodes.map(({ node: name, address, state }) => [name, address.port, state]),
      [['theirs', peer.port, 'alive']],
    );
    await peer.waitFor({ event: 'state', hex: hexOf('our state '.repeat(50)), join: true });
    await peer.waitFor({ event: 'join', node: 'ours', port: peer.ourPort, hex: hexOf('meta of ours') });

    assert.deepEqual(await peer.ask({ kind: 'ping', seq: 300, node: 'theirs', source: null }), {
      kind: 'ack',
      seq: 300,
      payload: new Uint8Array(0),
    });
    assert.equal(await peer.ask({ kind: 'user', payload: bytesOf('reliably '.repeat(100)) }), null);
    await peer.waitFor({ event: 'user', hex: hexOf('reliably '.repeat(100)) });

    if (wrapping.key !== null) {
      const refused = await peer.ask({ kind: 'ping', seq: 1, node: '', source: null }, new Uint8Array(32).fill(99));
      assert.deepEqual(refused, { kind: 'error', message: 'no installed keys could decrypt the message' });
    }
  });
}
