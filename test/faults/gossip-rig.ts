/** A cluster of our nodes and real agents, encrypted, for rounds of faults: on loopback, or in a network of its own where packets can be lost. */
import { mkdtempSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { GossipNode } from '../servers/gossip.ts';
import { installedSerf, newestSerf, SerfAgent, type SerfProgram } from '../servers/serf.ts';
import { ClusterNetwork } from '../support/network.ts';
import { freePorts } from '../support/ports.ts';
import { until } from '../support/until.ts';
import { AgentPeer, OurPeer, type Peer, type Seen } from './gossip-peers.ts';

/** A member that is gone is called failed after 7 to 20 s with the timing for one machine; slow machines take longer. */
const AGREE_MS = 60_000;
const PORT_IN_NETWORK = 12_001;

export interface RigOptions {
  /** Empty, and removed by the caller. */
  readonly folder: string;
  /** In a network of its own: needs what requireTool calls `namespaces`. */
  readonly isolated: boolean;
}

export class GossipRig implements AsyncDisposable {
  readonly peers: Peer[] = [];
  readonly network: ClusterNetwork | null;
  readonly programs: readonly SerfProgram[];
  readonly #folder: string;
  #key = SerfAgent.keygen();
  #made = 0;
  #isDisposed = false;

  private constructor(folder: string, network: ClusterNetwork | null, programs: readonly SerfProgram[]) {
    this.#folder = folder;
    this.network = network;
    this.programs = programs;
  }

  /** Two of ours, the newest agent, and the installed one where there is one; all of them know each other. */
  static async start({ folder, isolated }: RigOptions): Promise<GossipRig> {
    const installed = installedSerf();
    const programs = [await newestSerf(), ...(installed === null ? [] : [installed])];
    // One place is for who comes and goes.
    const network = isolated ? await ClusterNetwork.create(3 + programs.length) : null;
    const rig = new GossipRig(folder, network, programs);
    try {
      await rig.addOurs('ours-1');
      await rig.addOurs('ours-2');
      for (const [index, program] of programs.entries()) await rig.addAgent(`agent-${index + 1}`, program);
      await rig.agree();
    } catch (error) {
      await rig[Symbol.asyncDispose]();
      throw error;
    }
    return rig;
  }

  /** The key that all of them encrypt with. */
  get key(): string {
    return this.#key;
  }

  set key(key: string) {
    this.#key = key;
  }

  get logs(): string {
    return this.peers.map((peer) => `--- ${peer.node}\n${peer.logs.split('\n').slice(-60).join('\n')}`).join('\n');
  }

  async addOurs(node: string): Promise<OurPeer> {
    const { host, port, under } = await this.#place();
    const dataDirectory = mkdtempSync(join(this.#folder, `${node}-`));
    const process = await GossipNode.start({
      node,
      listen: { host, port },
      keys: [this.#key],
      tags: { role: 'broker', id: node },
      answers: { whoami: node },
      dataDirectory,
      under,
    });
    const configured = [this.#key];
    const peer = new OurPeer(process, {
      keys: () => keysIn(dataDirectory) ?? configured,
      remembered: () => rememberedIn(dataDirectory),
    });
    const seed = this.peers[0]?.address;
    this.peers.push(peer);
    if (seed !== undefined) await process.join(seed);
    return peer;
  }

  async addAgent(node: string, program: SerfProgram): Promise<AgentPeer> {
    const { host, port, under } = await this.#place();
    const process = await SerfAgent.start(program, this.#folder, {
      node,
      bind: `${host}:${port}`,
      keys: [this.#key],
      tags: { role: 'watcher' },
      answers: { whoami: node },
      join: this.peers.map(({ address }) => address),
      under,
    });
    const peer = new AgentPeer(process);
    this.peers.push(peer);
    return peer;
  }

  drop(peer: Peer): void {
    this.peers.splice(this.peers.indexOf(peer), 1);
  }

  /** Every node sees every other one alive, at the address that it has, and would find it again. */
  async agree(): Promise<void> {
    await this.see('all see all', async () => {
      for (const peer of this.peers) {
        const view = await peer.view();
        for (const { node, address } of this.peers) {
          const seen = view.get(node);
          if (seen?.status !== 'alive' || seen.address !== address) {
            return `${peer.node} sees ${node} as ${words(seen)}`;
          }
          if (peer.remembered()?.includes(address) === false) return `${peer.node} has not written down ${node}`;
        }
      }
      return null;
    });
  }

  /** All others see it so. */
  async seeAs(node: string, status: string): Promise<void> {
    await this.see(`${node} is ${status}`, async () => {
      for (const peer of this.peers.filter((one) => one.node !== node)) {
        const seen = (await peer.view()).get(node);
        if (seen?.status !== status) return `${peer.node} sees ${node} as ${words(seen)}`;
      }
      return null;
    });
  }

  /** Waits until `look` finds nothing wrong; fails with what it found last. */
  async see(what: string, look: () => Promise<string | null>): Promise<void> {
    const last: { words: string | null } = { words: null };
    await until(
      async () => {
        last.words = await look();
        return last.words === null;
      },
      () => `${what}: ${last.words}\n${this.logs}`,
      AGREE_MS,
    );
  }

  /** Again does no harm. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    for (const peer of this.peers) await peer.kill();
    await this.network?.[Symbol.asyncDispose]();
  }

  async #place(): Promise<{ host: string; port: number; under: readonly string[] }> {
    this.#made += 1;
    if (this.network === null) return { host: '127.0.0.1', port: (await freePorts(1))[0] as number, under: [] };
    // The first who is not there; ports differ, so that nobody is taken for who was there before.
    const hosts = this.peers.map(({ address }) => address.split(':')[0]);
    let place = 0;
    while (hosts.includes(this.network.host(place))) place += 1;
    return { host: this.network.host(place), port: PORT_IN_NETWORK + this.#made, under: this.network.under(place) };
  }
}

function words(seen: Seen | undefined): string {
  return seen === undefined ? 'nobody' : `${seen.status} at ${seen.address}`;
}

function rememberedIn(dataDirectory: string): string[] {
  const lines = readFileSync(join(dataDirectory, 'gossip', 'snapshot'), 'utf8').split('\n');
  return lines.flatMap((line) => /^alive: \S+ (\S+)$/.exec(line)?.[1] ?? []);
}

function keysIn(dataDirectory: string): string[] | null {
  try {
    return JSON.parse(readFileSync(join(dataDirectory, 'gossip', 'keyring.json'), 'utf8')) as string[];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
