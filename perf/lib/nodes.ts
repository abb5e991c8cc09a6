/** Three brokers that are one cluster, on one database. */
import { type Client, type ClusterMembers, connect } from '../../src/client/index.ts';
import { freePorts } from '../../test/support/ports.ts';
import { scrape } from './metrics.ts';
import { type BrokerTarget, type BrokerTargetOptions, startBrokerTarget } from './targets.ts';

/** For a leader, and for the votes of those that joined, in ms: the machine does other things too. */
const PATIENCE_MS = 60_000;
const NAMES = ['n1', 'n2', 'n3'] as const;

export interface Node extends BrokerTarget {
  readonly nodeId: string;
}

export class Cluster {
  readonly nodes: readonly Node[];

  private constructor(nodes: readonly Node[]) {
    this.nodes = nodes;
  }

  /** `flags`: of the store, and what every node is to have. */
  static async start(options: BrokerTargetOptions): Promise<Cluster> {
    const nodes: Node[] = [];
    try {
      for (const nodeId of NAMES) {
        const [port] = await freePorts(1);
        const how = nodes.length === 0 ? ['--bootstrap'] : ['--join', nodes.map(({ address }) => address).join()];
        const own = ['--node-id', nodeId, '--raft-listen', `127.0.0.1:${port}`, ...how];
        const target = await startBrokerTarget({ ...options, flags: [...options.flags, ...own] });
        nodes.push({ ...target, nodeId });
      }
      const cluster = new Cluster(nodes);
      await cluster.untilWhole();
      return cluster;
    } catch (error) {
      await Promise.allSettled(nodes.map((node) => node.stop()));
      throw error;
    }
  }

  get addresses(): readonly string[] {
    return this.nodes.map(({ address }) => address);
  }

  /** As one that runs sees them, once that is so. */
  async membersUntil(holds: (found: ClusterMembers) => boolean, among = this.nodes): Promise<ClusterMembers> {
    const clients = among.map(({ address }) => connect(address, { retries: false, failFast: true }));
    try {
      let last: unknown = null;
      for (const end = performance.now() + PATIENCE_MS; performance.now() < end; ) {
        for (const client of clients) {
          const found = await client.members({ timeoutMs: 1_000 }).catch((error: unknown) => {
            last = error;
            return null;
          });
          if (found !== null && holds(found)) return found;
          last = found ?? last;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      throw new Error(`the cluster does not come so far: ${JSON.stringify(last)}`);
    } finally {
      await Promise.all(clients.map((client: Client) => client.close()));
    }
  }

  /** None is told to begin, and each where all of them gossip; they start at the same time. Resolves when all run. */
  static async startByGossip(options: BrokerTargetOptions): Promise<Cluster> {
    const ports = await freePorts(2 * NAMES.length);
    const gossipOf = (node: number): string => `127.0.0.1:${ports[node]}`;
    const everybody = NAMES.map((_, node) => gossipOf(node)).join();
    const starts = NAMES.map(async (nodeId, node) => {
      const raft = `127.0.0.1:${ports[NAMES.length + node]}`;
      const own = ['--node-id', nodeId, '--raft-listen', raft, '--gossip-listen', gossipOf(node)];
      const how = ['--gossip-join', everybody, '--bootstrap-expect', String(NAMES.length)];
      return { ...(await startBrokerTarget({ ...options, flags: [...options.flags, ...own, ...how] })), nodeId };
    });
    const ends = await Promise.allSettled(starts);
    const nodes = ends.flatMap((end) => (end.status === 'fulfilled' ? [end.value] : []));
    const failed = ends.find((end) => end.status === 'rejected');
    if (failed === undefined) return new Cluster(nodes);
    await Promise.allSettled(nodes.map((node) => node.stop()));
    throw failed.reason;
  }

  /** Every node votes and is heard. */
  async untilWhole(): Promise<void> {
    const isWhole = ({ members, toleratesNow }: ClusterMembers): boolean =>
      members.filter(({ role }) => role === 'voter').length === NAMES.length && toleratesNow === 1;
    for (const node of this.nodes) await this.membersUntil(isWhole, [node]);
  }

  async leader(among = this.nodes): Promise<Node> {
    const { leader } = await this.membersUntil((found) => among.some(({ nodeId }) => nodeId === found.leader), among);
    return this.nodes.find(({ nodeId }) => nodeId === leader) as Node;
  }

  /** To whichever other voter has most of the log. */
  async transfer(leader: Node): Promise<void> {
    const client = connect(leader.address, { retries: false });
    try {
      await client.transferLeader();
    } finally {
      await client.close();
    }
  }

  /** The highest that any node knows. */
  async term(): Promise<number> {
    const terms = await Promise.all(this.nodes.map(({ broker }) => scrape(broker.adminAddress, ['broker_raft_term'])));
    return Math.max(...terms.flat());
  }

  async stop(): Promise<void> {
    await Promise.allSettled(this.nodes.map((node) => node.stop()));
  }
}
