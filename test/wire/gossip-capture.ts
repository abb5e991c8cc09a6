/**
 * Records what real agents say to each other, for test/wire/golden/gossip: each is told to others by the address of a relay of ours, which passes everything on
 * and keeps it. Packets and streams are of one kind each (as our own reader names them); of each kind the first few are kept. To make them again:
 *
 *   node bin/node24.mjs test/wire/gossip-capture.ts --new SERF --old SERF --memberlist NODE [--only CLUSTER]
 *
 * The cluster serf-bound-to-all wants an IPv4 address of a private network that is not the loopback's, if need be in a namespace:
 *
 *   unshare -n sh -c 'ip link set lo up; ip link add v0 type bridge; ip addr add 10.9.8.7/24 dev v0; ip link set v0 up; ip route add default via 10.9.8.1; exec node ...'
 *
 * --new: github.com/hashicorp/serf/cmd/serf v0.11.0; --old: Debian's serf 0.9.4; --memberlist: tools/memberlist, built. All three are then the same but for
 * times, coordinates, nonces and ports.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { writeFileSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Keyring } from '../../src/net/gossip/wire/keyring.ts';
import { readPacket } from '../../src/net/gossip/wire/packet.ts';
import { type StreamRead, StreamReader } from '../../src/net/gossip/wire/stream.ts';
import { freePorts } from '../support/ports.ts';
import { ROOT } from '../support/source-tree.ts';
import { pause, until } from '../support/until.ts';

const KEPT_OF_A_KIND = 2;

interface Agent {
  readonly name: string;
  readonly program: 'new' | 'old' | 'memberlist';
  readonly flags?: readonly string[];
  /** Bound to all addresses, and so not behind a relay. */
  readonly isBoundToAll?: boolean;
}

interface Cluster {
  readonly name: string;
  readonly agents: readonly Agent[];
  /** In hexadecimal; '' for none. */
  readonly key: string;
  readonly label: string;
  /** Cuts, stops and leaves too, and not only what goes on when all is well. */
  readonly hasFailures: boolean;
}

const THREE = ['a', 'b', 'c'] as const;
const KEY_32 = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f';
const CLUSTERS: readonly Cluster[] = [
  { name: 'serf-new', agents: THREE.map((name) => ({ name, program: 'new' })), key: '', label: '', hasFailures: true },
  { name: 'serf-old', agents: THREE.map((name) => ({ name, program: 'old' })), key: '', label: '', hasFailures: true },
  {
    name: 'serf-encrypted',
    agents: [
      { name: 'a', program: 'new' },
      { name: 'b', program: 'old' },
      { name: 'c', program: 'new' },
    ],
    key: KEY_32,
    label: '',
    hasFailures: false,
  },
  {
    name: 'serf-bound-to-all',
    agents: [
      { name: 'a', program: 'new' },
      { name: 'b', program: 'new', isBoundToAll: true },
    ],
    key: '',
    label: '',
    hasFailures: false,
  },
  {
    name: 'memberlist-compressed',
    agents: ['a', 'b'].map((name) => ({ name, program: 'memberlist', flags: ['-compress'] })),
    key: '',
    label: '',
    hasFailures: false,
  },
  {
    name: 'memberlist-label',
    agents: ['a', 'b'].map((name) => ({ name, program: 'memberlist', flags: ['-compress'] })),
    key: KEY_32.slice(0, 32),
    label: 'blue',
    hasFailures: false,
  },
  {
    name: 'memberlist-protocol-1',
    agents: ['a', 'b'].map((name) => ({ name, program: 'memberlist', flags: ['-protocol=1'] })),
    key: KEY_32.slice(0, 48),
    label: '',
    hasFailures: false,
  },
];

interface Recorded {
  readonly from: string;
  readonly kind: string;
  readonly hex: string;
}

class Recording {
  readonly #cluster: Cluster;
  readonly #keyring = new Keyring();
  readonly #kept = new Map<string, Recorded[]>();
  readonly seen = new Set<string>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
    if (cluster.key !== '') assert.equal(this.#keyring.add(Buffer.from(cluster.key, 'hex')), null);
  }

  packet(from: string, bytes: Uint8Array): void {
    const read = readPacket(bytes, { label: this.#cluster.label, keyring: this.#keyring });
    const kinds =
      read.kind === 'refused' ? [`refused: ${read.refusal}`] : read.messages.map((message) => message.kind).toSorted();
    for (const kind of kinds) this.seen.add(kind);
    this.#keep('packet', from, [...new Set(kinds)].join(' '), bytes);
  }

  stream(from: string, side: 'request' | 'answer', bytes: Uint8Array): void {
    const isAnswer = side === 'answer';
    const reader = new StreamReader({ label: this.#cluster.label, keyring: this.#keyring, isAnswer });
    const read: StreamRead = reader.push(bytes);
    const kind =
      read.kind === 'message' ? read.message.kind : `refused: ${reader.end().kind} ${JSON.stringify(reader.end())}`;
    this.seen.add(`stream ${kind}`);
    this.#keep(side, from, kind, bytes);
  }

  #keep(way: string, from: string, kind: string, bytes: Uint8Array): void {
    const key = `${way} ${kind}`;
    const kept = this.#kept.get(key) ?? [];
    this.#kept.set(key, kept);
    if (kept.length < KEPT_OF_A_KIND) kept.push({ from, kind: key, hex: Buffer.from(bytes).toString('hex') });
  }

  save(): void {
    const { name, key, label } = this.#cluster;
    const recorded = [...this.#kept.values()].flat().toSorted((a, b) => (a.kind < b.kind ? -1 : 1));
    const path = join(ROOT, 'test', 'wire', 'golden', 'gossip', `${name}.json`);
    writeFileSync(path, `${JSON.stringify({ key, label, recorded }, null, 2)}\n`);
    process.stdout.write(`${name}: ${[...this.#kept.keys()].join(', ')}\n`);
  }
}

/** What others are told is an agent's address. */
class Relay {
  readonly port: number;
  readonly #agentPort: number;
  readonly #socket: Socket;
  readonly #server: Server;
  /** Whose packets are dropped: their port. */
  cut: number | null = null;

  constructor(
    ports: { readonly port: number; readonly agentPort: number },
    from: (port: number) => string,
    recording: Recording,
  ) {
    this.port = ports.port;
    this.#agentPort = ports.agentPort;
    let asker = 0;
    this.#socket = createSocket('udp4', (bytes, { port }) => {
      // What an agent sends here itself answers the last one whose packet it got from here.
      if (port === this.#agentPort) {
        this.#socket.send(bytes, asker, '127.0.0.1');
        return;
      }
      recording.packet(from(port), bytes);
      if (port === this.cut) return;
      asker = port;
      this.#socket.send(bytes, this.#agentPort, '127.0.0.1');
    });
    this.#socket.bind(this.port, '127.0.0.1');
    this.#server = createServer((asking) => {
      const answering = connect(this.#agentPort, '127.0.0.1');
      const [asked, answered]: [Buffer[], Buffer[]] = [[], []];
      asking.on('data', (bytes) => asked.push(bytes as Buffer));
      answering.on('data', (bytes) => answered.push(bytes as Buffer));
      asking.pipe(answering).pipe(asking);
      asking.on('error', () => answering.destroy());
      answering.on('error', () => asking.destroy());
      answering.on('close', () => {
        if (asked.length > 0) recording.stream('who opened it', 'request', Buffer.concat(asked));
        if (answered.length > 0) recording.stream(from(this.#agentPort), 'answer', Buffer.concat(answered));
      });
    }).listen(this.port, '127.0.0.1');
  }

  close(): void {
    this.#socket.close();
    this.#server.close();
  }
}

const { values } = parseArgs({
  options: {
    new: { type: 'string', default: 'serf' },
    old: { type: 'string', default: 'serf' },
    memberlist: { type: 'string', default: 'memberlist-node' },
    only: { type: 'string' },
  },
});

async function record(cluster: Cluster): Promise<void> {
  const recording = new Recording(cluster);
  const count = cluster.agents.length;
  const ports = await freePorts(count * 3);
  const own = ports.slice(0, count);
  const relayed = ports.slice(count, count * 2);
  const rpc = ports.slice(count * 2);
  const nameOf = (port: number): string => {
    const agent = cluster.agents[own.indexOf(port)];
    return agent === undefined ? 'unknown' : `${agent.name}, ${agent.program}`;
  };
  const relays = cluster.agents.map(
    (_, i) => new Relay({ port: relayed[i] as number, agentPort: own[i] as number }, nameOf, recording),
  );
  const children: ChildProcess[] = [];
  try {
    for (const [i, agent] of cluster.agents.entries()) {
      children.push(
        start(cluster, agent, { own: own[i], relayed: relayed[i], rpc: rpc[i], seed: i > 0 ? relayed[0] : null }),
      );
      // One after another, as the seed has to be there.
      await until(
        () => i === 0 || recording.seen.has('stream pushPull'),
        () => 'a push/pull',
        20_000,
      );
      await pause(1_500);
    }
    // Protocol 1 has no ports: such an agent finds the other's push/pull only, since here all have one address.
    const needsAck =
      !cluster.name.endsWith('protocol-1') && cluster.agents.every((agent) => agent.isBoundToAll !== true);
    await until(
      () => recording.seen.has('ack') || !needsAck,
      () => 'an ack',
      20_000,
    );
    const isSerf = cluster.agents[0]?.program !== 'memberlist';
    if (isSerf)
      await run(cluster.agents[0] as Agent, [
        'event',
        `-rpc-addr=127.0.0.1:${rpc[0]}`,
        'deploy',
        'payload '.repeat(20),
      ]);
    if (isSerf)
      await run(cluster.agents[0] as Agent, ['query', `-rpc-addr=127.0.0.1:${rpc[0]}`, '-timeout=1s', 'ask', 'hi']);
    await until(
      () => recording.seen.has('user') || !isSerf,
      () => 'a user message',
      20_000,
    );
    if (cluster.hasFailures) {
      (relays[2] as Relay).cut = own[0] as number;
      await until(
        () => recording.seen.has('indirectPing'),
        () => 'an indirect ping',
        30_000,
      );
      (relays[2] as Relay).cut = null;
      children[2]?.kill('SIGSTOP');
      await until(
        () => recording.seen.has('suspect') && recording.seen.has('dead'),
        () => 'a dead',
        60_000,
      );
      children[2]?.kill('SIGCONT');
      await pause(5_000);
      await run(cluster.agents[1] as Agent, ['leave', `-rpc-addr=127.0.0.1:${rpc[1]}`]);
      await pause(3_000);
    }
  } finally {
    for (const child of children) child.kill('SIGKILL');
    await pause(500);
    for (const relay of relays) relay.close();
    recording.save();
  }
}

interface Ports {
  readonly own: number | undefined;
  readonly relayed: number | undefined;
  readonly rpc: number | undefined;
  readonly seed: number | null | undefined;
}

function start(cluster: Cluster, agent: Agent, { own, relayed, rpc, seed }: Ports): ChildProcess {
  const flags: string[] = [];
  if (agent.program === 'memberlist') {
    flags.push(`-name=${agent.name}`, `-port=${own}`, `-advertise-port=${relayed}`, `-label=${cluster.label}`);
    flags.push(`-key=${cluster.key}`, `-messages=one,${'two '.repeat(60)}`);
    if (seed !== null) flags.push(`-join=127.0.0.1:${seed}`);
  } else {
    flags.push('agent', `-node=${agent.name}`, `-rpc-addr=127.0.0.1:${rpc}`, '-profile=local', '-tag', 'role=broker');
    if (agent.isBoundToAll === true) flags.push(`-bind=0.0.0.0:${own}`);
    else flags.push(`-bind=127.0.0.1:${own}`, `-advertise=127.0.0.1:${relayed}`);
    if (cluster.key !== '') flags.push(`-encrypt=${Buffer.from(cluster.key, 'hex').toString('base64')}`);
    if (seed !== null) flags.push(`-retry-join=127.0.0.1:${seed}`);
  }
  return spawn(values[agent.program], [...flags, ...(agent.flags ?? [])], { stdio: ['pipe', 'inherit', 'inherit'] });
}

function run(agent: Agent, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(values[agent.program], args, { stdio: 'inherit' });
    child.once('error', reject);
    child.once('exit', () => resolve());
  });
}

for (const cluster of CLUSTERS) {
  if (values.only === undefined || values.only === cluster.name) await record(cluster);
}
