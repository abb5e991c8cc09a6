/** Members of a cluster as the Raft port sees them, on loopback, and strangers who know its protocol. */
import { createConnection, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import type { NetworkCaps } from '../../src/net/caps.ts';
import { GreetingCodec, GreetingReader } from '../../src/net/hello.ts';
import { PeerNetwork } from '../../src/net/peer-network.ts';
import type { PeerTls } from '../../src/net/peer-tls.ts';
import type { Hello, Peer, Refusal, SnapshotReceiver } from '../../src/net/types.ts';
import { type Message, makeMessage } from '../../src/raft/messages.ts';
import { type PeerFrame, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from '../../src/replica/types.ts';
import { until } from '../support/until.ts';

export const HOST = '127.0.0.1';

/** Quick to notice and to try again, but with patience for a machine that others use too. */
const CAPS: Partial<NetworkCaps> = { aliveEveryMs: 50, silenceMs: 5_000, backoffMsMin: 10, backoffMsMax: 100 };

export interface TestMemberOptions {
  readonly caps?: Partial<NetworkCaps>;
  readonly instance?: string;
  readonly port?: number;
  readonly tls?: PeerTls;
}

export class TestMember {
  readonly node: string;
  readonly instance: string;
  readonly network: PeerNetwork;
  readonly frames: { readonly from: string; readonly frame: PeerFrame }[] = [];
  readonly unreachable: string[] = [];
  readonly refusals: { readonly node: string; readonly refusal: Refusal }[] = [];
  readonly log: { readonly message: string; readonly fields: Readonly<Record<string, unknown>> }[] = [];
  readonly hellos: Hello[] = [];
  admit: (hello: Hello) => Refusal | null = () => null;
  beginSnapshot: (from: string, message: Message) => SnapshotReceiver | null = () => null;
  port = 0;

  constructor(node: string, { caps, instance, port, tls }: TestMemberOptions) {
    this.node = node;
    this.instance = instance ?? `instance-of-${node}`;
    this.network = new PeerNetwork({
      clusterId: 'the-cluster',
      node,
      instance: this.instance,
      listen: { host: HOST, port: port ?? 0 },
      caps: { ...CAPS, ...caps },
      tls: tls ?? null,
      log: {
        info: (message, fields = {}) => void this.log.push({ message, fields }),
        warn: (message, fields = {}) => void this.log.push({ message, fields }),
      },
      events: {
        admit: (hello) => {
          this.hellos.push(hello);
          return this.admit(hello);
        },
        onFrame: (from, frame) => void this.frames.push({ from, frame }),
        onUnreachable: (peer) => void this.unreachable.push(peer),
        onRefused: (peer, refusal) => void this.refusals.push({ node: peer, refusal }),
        beginSnapshot: (from, message) => this.beginSnapshot(from, message),
      },
    });
  }

  get address(): string {
    return `${HOST}:${this.port}`;
  }

  /** Their instances are left open. */
  peers(...others: readonly Pick<Peer, 'node' | 'address'>[]): void {
    this.network.setPeers(others.map(({ node, address }) => ({ node, address })));
  }

  /** Numbers of the `clock` frames that came from a node. */
  clocksFrom(node: string): number[] {
    return this.frames.flatMap(({ from, frame }) => (from === node && frame.kind === 'clock' ? [frame.wallMs] : []));
  }

  reasons(): string[] {
    return this.log.map(({ fields }) => String(fields.reason ?? ''));
  }

  connected(node: string): Promise<void> {
    return until(
      () => this.network.isConnected(node),
      () => `${this.node} has no connection to ${node}: ${JSON.stringify(this.log)}`,
    );
  }

  logged(pattern: RegExp): Promise<void> {
    return until(
      () => this.reasons().some((reason) => pattern.test(reason)),
      () => `${pattern} is not in ${JSON.stringify(this.log)}`,
    );
  }

  sendClock(to: string, wallMs: number): boolean {
    return this.network.send(to, { kind: 'clock', wallMs });
  }
}

export async function member(t: TestContext, node: string, options: TestMemberOptions = {}): Promise<TestMember> {
  const made = new TestMember(node, options);
  t.after(() => made.network.close());
  made.port = await made.network.listen();
  return made;
}

/** Two that are connected in both directions. */
export async function pair(t: TestContext, options: TestMemberOptions = {}): Promise<[TestMember, TestMember]> {
  const [a, b] = await Promise.all([member(t, 'a', options), member(t, 'b', options)]);
  a.peers(b);
  b.peers(a);
  await Promise.all([a.connected('b'), b.connected('a')]);
  return [a, b];
}

/** Sends until one of the frames comes out: the connection works from end to end. */
export async function frameArrives(from: TestMember, to: TestMember): Promise<void> {
  const before = to.frames.length;
  await until(
    () => {
      from.sendClock(to.node, 1);
      return to.frames.length > before;
    },
    () => `no frame of ${from.node} comes to ${to.node}: ${JSON.stringify(from.log)}`,
  );
}

export function snapshotMessage(from: string, to: string): Message {
  const config = { voters: [from, to], learners: [] };
  return makeMessage({ type: 'snapshot', from, to, term: 3, snapshot: { index: 9, term: 3, config, ref: 'ref' } });
}

/** A stranger's connection, and what came back on it. */
export class Stranger {
  readonly socket: Socket;
  received: Buffer = Buffer.alloc(0);
  isClosed = false;

  /** `from`: an address of loopback other than the usual one. */
  constructor(t: TestContext, port: number, from: string = HOST) {
    this.socket = createConnection({ host: HOST, port, localAddress: from });
    this.socket.on('data', (bytes) => {
      this.received = Buffer.concat([this.received, bytes]);
    });
    this.socket.on('error', () => this.socket.destroy());
    this.socket.on('close', () => {
      this.isClosed = true;
    });
    t.after(() => this.socket.destroy());
  }

  write(bytes: Buffer): this {
    this.socket.write(bytes);
    return this;
  }

  hello(fields: Partial<Hello> & Pick<Hello, 'node' | 'targetNode'>): this {
    const versions = { versionMin: PROTOCOL_VERSION_MIN, versionMax: PROTOCOL_VERSION };
    const rest = { clusterId: 'the-cluster', instance: `instance-of-${fields.node}`, targetInstance: '' };
    return this.write(new GreetingCodec().encodeHello({ ...versions, ...rest, purpose: 'frames', ...fields }));
  }

  closed(): Promise<void> {
    return until(
      () => this.isClosed,
      () => 'the connection of a stranger is open still',
    );
  }

  /** What the acceptor answered to the hello: its version, or the code of its refusal. */
  async answer(): Promise<number | string> {
    await until(
      () => new GreetingReader().push(this.received) !== null,
      () => `no answer: ${this.received.toString('hex')}`,
    );
    const greeting = new GreetingReader().push(this.received);
    const answer = new GreetingCodec().decodeAnswer(greeting?.body ?? Buffer.of());
    return 'version' in answer ? answer.version : answer.refusal.code;
  }
}
