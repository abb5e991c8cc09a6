/** Three real nodes that go from clear text to TLS, and then live with it: kills, new certificates, strangers. */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { type Client, type ClusterMembers, connect } from '../../src/client/index.ts';
import { PostgresServer } from '../servers/postgres.ts';
import { BrokerProcess, makeDataDirectory } from '../support/broker.ts';
import { type Certificate, CertificateAuthority, pem } from '../support/certificates.ts';
import { freePorts } from '../support/ports.ts';
import { pause, until } from '../support/until.ts';

/** Longest wait for a start, a leader or an answer: this machine does other things too. */
const PATIENCE_MS = 60_000;
/** Enough that something is under way whenever a node goes, and little enough that all of it is read again. */
const LOAD_EVERY_MS = 20;
/** Connections at a time, and for how long, of a flood. */
const FLOOD_WIDTH = 100;
const FLOOD_MS = 2_000;
const NAMES = ['n1', 'n2', 'n3'] as const;

const folder = makeDataDirectory('broker-cluster-tls-');
const server = await PostgresServer.start();
const storeFlags = server.brokerFlags();
after(async () => {
  await server.remove();
  rmSync(folder, { recursive: true });
});

/** Nodes that are told by a file what they are, so that each start may find another one. */
class Node {
  readonly name: string;
  readonly process: BrokerProcess;
  readonly #raft: string;
  readonly #config: string;
  readonly certificate: Certificate;
  /** Those of every start: behind the first one they need not say how it finds its cluster. */
  readonly flags: readonly string[];

  private constructor(name: string, raft: string, process: BrokerProcess, flags: readonly string[]) {
    this.name = name;
    this.flags = flags;
    this.process = process;
    this.#raft = raft;
    this.#config = join(folder, `${name}.json`);
    this.certificate = { cert: join(folder, `${name}.crt`), key: join(folder, `${name}.key`) };
  }

  static async create(name: string, seed: string | null): Promise<Node> {
    const [port] = await freePorts(1);
    const entrance = seed === null ? ['--bootstrap'] : ['--join', seed];
    const own = ['--node-id', name, '--cluster', 'c', '--shards', '1', '--config', join(folder, `${name}.json`)];
    const flags = [...storeFlags, ...own];
    const process = await BrokerProcess.create({ flags: [...flags, ...entrance], readyTimeoutMs: PATIENCE_MS });
    return new Node(name, `127.0.0.1:${port}`, process, flags);
  }

  configure(tls: Readonly<Record<string, string>>): void {
    writeFileSync(
      this.#config,
      JSON.stringify({ raft: { listen: this.#raft, election_timeout: '2s' }, admin: { tls: false }, tls }),
    );
  }

  /** For its next start. */
  speak(peers: 'optional' | 'required'): void {
    this.configure({ ...this.certificate, ca: join(folder, 'trusted.crt'), peers });
  }

  issue(ca: CertificateAuthority): void {
    const names = `URI:broker://c/node/${this.name},DNS:localhost,IP:127.0.0.1`;
    const made = ca.issue(`${this.name}-of-${ca.name}`, names);
    writeFileSync(this.certificate.cert, pem(made.cert));
    writeFileSync(this.certificate.key, pem(made.key));
  }

  async restart(): Promise<void> {
    if (this.process.running) await this.process.stop();
    await this.process.restart();
  }
}

/** Publishes one message after another, and remembers what was acknowledged. */
class Load {
  readonly acknowledged = new Map<number, string>();
  #isOver = false;
  readonly #over: Promise<void>;
  #sent = 0;

  constructor(client: Client, label: string) {
    this.#over = this.#run(client, label);
  }

  async #run(client: Client, label: string): Promise<void> {
    while (!this.#isOver) {
      const text = `${label} ${this.#sent++}`;
      const id = await client.publish('load', text).catch(() => null);
      if (id !== null) this.acknowledged.set(id, text);
      await pause(LOAD_EVERY_MS);
    }
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#over;
  }
}

describe('three nodes and TLS between them', { timeout: 400_000 }, () => {
  const nodes: Node[] = [];
  const clients: Client[] = [];
  const loads: Load[] = [];
  const ca = new CertificateAuthority(folder, 'ca');

  after(async () => {
    await Promise.all(loads.map((load) => load.stop()));
    await Promise.all(clients.map((client) => client.close().catch(() => undefined)));
    await Promise.all(nodes.map(({ process }) => process.dispose()));
  });

  function open(authority: CertificateAuthority | null): Client {
    const client = connect(
      nodes.map(({ process }) => process.address),
      { timeoutMs: PATIENCE_MS, ...(authority === null ? {} : { tls: { ca: pem(authority.cert) } }) },
    );
    clients.push(client);
    return client;
  }

  function begin(client: Client, label: string): Load {
    const load = new Load(client, label);
    loads.push(load);
    return load;
  }

  async function whole(client: Client): Promise<ClusterMembers> {
    let last: ClusterMembers | null = null;
    await until(
      async () => {
        last = await client.members({ timeoutMs: 2_000 }).catch(() => last);
        const voters = last?.members.filter(({ role }) => role === 'voter') ?? [];
        return voters.length === 3 && last?.toleratesNow === 1;
      },
      () => JSON.stringify(last) + nodes.map(({ process }) => process.logs).join('\n'),
      PATIENCE_MS,
    );
    return last ?? assert.fail();
  }

  async function nothingIsLost(client: Client): Promise<void> {
    for (const { acknowledged } of loads) {
      assert.ok(acknowledged.size > 0);
      await Promise.all(
        [...acknowledged].map(async ([id, text]) => assert.equal((await client.fetch('load', id)).text, text)),
      );
    }
  }

  before(async () => {
    writeFileSync(join(folder, 'trusted.crt'), pem(ca.cert));
    for (const name of NAMES) {
      const node = await Node.create(name, nodes[0]?.process.address ?? null);
      nodes.push(node);
      node.issue(ca);
      node.configure({});
    }
    await Promise.all(nodes.map((node) => node.restart()));
  });

  it('go from clear text to TLS one after another under load, and lose nothing', async () => {
    const clear = open(null);
    await whole(clear);
    const first = begin(clear, 'clear');
    for (const node of nodes) {
      node.speak('optional');
      await node.restart();
      await whole(clear);
    }
    // Both ways are open: here clients change.
    const secure = open(ca);
    begin(secure, 'secure');
    await first.stop();
    for (const node of nodes) {
      node.speak('required');
      await node.restart();
      await whole(secure);
    }
    await assert.rejects(connect(nodes[0]?.process.address ?? '', { timeoutMs: 500 }).status());
    await nothingIsLost(secure);
  });

  it('keep their leader while strangers flood its Raft port with handshakes', async () => {
    const client = clients.at(-1) ?? assert.fail();
    const { leader, term, members } = await whole(client);
    const [host = '', port = ''] = members.find(({ nodeId }) => nodeId === leader)?.raftAddress.split(':') ?? [];
    let begun = 0;
    const flood = Array.from({ length: FLOOD_WIDTH }, async () => {
      for (const until = performance.now() + FLOOD_MS; performance.now() < until; begun++) {
        const carrier = createConnection({ host, port: Number(port), localAddress: '127.0.0.2' });
        const socket = connectTls({ socket: carrier, rejectUnauthorized: false });
        for (const one of [carrier, socket]) one.on('error', () => socket.destroy());
        const timer = setTimeout(() => socket.destroy(), 200);
        await new Promise<void>((resolve) => void socket.once('close', () => resolve()));
        clearTimeout(timer);
      }
    });
    const id = await client.publish('flooded', 'came through');
    await Promise.all(flood);
    assert.ok(begun > 0);
    const after = await whole(client);
    assert.deepEqual([after.leader, after.term], [leader, term]);
    assert.equal((await client.fetch('flooded', id)).text, 'came through');
  });

  it('elect another leader when one is killed', async () => {
    const client = clients.at(-1) ?? assert.fail();
    const { leader } = await whole(client);
    const killed = nodes.find(({ name }) => name === leader) ?? assert.fail();
    await killed.process.kill();
    const id = await client.publish('killed', 'still there');
    assert.equal((await client.fetch('killed', id)).text, 'still there');
    await killed.process.restart();
    await whole(client);
    await nothingIsLost(client);
  });

  it('change their authority and certificates without a stop', async () => {
    const next = new CertificateAuthority(folder, 'next');
    const told = (words: string, count: number): Promise<void> =>
      until(
        () => nodes.every(({ process }) => process.logs.split(words).length > count),
        () => nodes.map(({ process }) => process.logs).join('\n'),
      );
    writeFileSync(join(folder, 'trusted.crt'), pem(ca.cert) + pem(next.cert));
    await told('new certificates are in force', 1);
    for (const node of nodes) node.issue(next);
    await told('new certificates are in force', 2);
    writeFileSync(join(folder, 'trusted.crt'), pem(next.cert));
    await told('new certificates are in force', 3);
    // Nothing goes on that came by the old one: between the Raft ports, and of what nodes call.
    await told('whose certificate is not good any more', 0);
    await told('an authority was taken out of tls.ca', 0);
    const client = open(next);
    const id = await client.publish('changed', 'by the new ones');
    // A node that starts anew finds only the new ones, and takes only those.
    const last = nodes.at(-1) ?? assert.fail();
    await last.restart();
    await whole(client);
    assert.equal((await client.fetch('changed', id)).text, 'by the new ones');
    await nothingIsLost(client);
  });

  it('refuse to start without their authority, also where only the data directory says that they have peers', async () => {
    const node = nodes.at(-1) ?? assert.fail();
    await node.process.stop();
    node.configure({ ...node.certificate });
    await assert.rejects(
      node.process.restart({ flags: node.flags }),
      /TLS_UNUSABLE.*one of a cluster.*set tls\.ca to the authority/,
    );
    node.speak('required');
    await node.process.restart({ flags: node.flags });
    await whole(clients.at(-1) ?? assert.fail());
  });
});
