/** Several broker processes that are one cluster, on one database: started, found out about, killed, stopped and cut off. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { type ChangeResponse, ClusterClient, type MembersResponse } from '../../src/grpc/gen/broker/v1/cluster.ts';
import { BrokerProcess, makeDataDirectory } from './broker.ts';
import { CallError } from './client.ts';
import type { ClusterNetwork } from './network.ts';
import { freePorts } from './ports.ts';
import { pause } from './until.ts';

const MEMBERS_TIMEOUT_MS = 1_000;
const TRANSFER_TIMEOUT_MS = 10_000;
const LEADER_TIMEOUT_MS = 60_000;
const LOOK_MS = 20;

export interface ClusterOptions {
  readonly nodes: number;
  /** Of the database that they share, such as PostgresServer.brokerFlags gives. */
  readonly storeFlags: readonly string[];
  readonly flags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** They find each other by gossip alone: none is told to begin, and each only where all of them gossip. */
  readonly gossips?: boolean;
  /** Without one they are on free ports of 127.0.0.1. */
  readonly network?: ClusterNetwork | null;
  /** What each node runs on, by its index, where that is not the same for all. */
  readonly machines?: readonly Machine[];
}

/** What one node runs on. */
export interface Machine {
  /** Default: a folder in the cluster's. */
  readonly dataDir?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** See BrokerOptions. */
  readonly under?: readonly string[];
}

type CallArguments<Response> = [
  metadata: grpc.Metadata,
  options: Partial<grpc.CallOptions>,
  callback: (error: grpc.ServiceError | null, response: Response) => void,
];

export class ClusterNode {
  readonly index: number;
  readonly id: string;
  readonly broker: BrokerProcess;
  isPaused = false;

  constructor(index: number, id: string, broker: BrokerProcess) {
    this.index = index;
    this.id = id;
    this.broker = broker;
  }

  get address(): string {
    return this.broker.address;
  }

  /** It runs and can answer. */
  get isLive(): boolean {
    return this.broker.running && !this.isPaused;
  }

  kill(): Promise<void> {
    return this.broker.kill();
  }

  /** SIGSTOP: nothing of it runs until `resume`. */
  pause(): void {
    this.isPaused = true;
    process.kill(this.broker.pid, 'SIGSTOP');
  }

  resume(): void {
    this.isPaused = false;
    process.kill(this.broker.pid, 'SIGCONT');
  }

  /** SIGTERM, and a start that is ready again. */
  async restart(): Promise<void> {
    await this.broker.stop();
    await this.broker.restart();
  }

  /** What it knows of the cluster. Rejects with CallError. */
  members(timeoutMs = MEMBERS_TIMEOUT_MS): Promise<MembersResponse> {
    return this.#ask(timeoutMs, (client, ...rest) => client.members({}, ...rest));
  }

  /** Hands the lead to another voter, whichever is furthest. Rejects with CallError. */
  transferLeader(timeoutMs = TRANSFER_TIMEOUT_MS): Promise<ChangeResponse> {
    return this.#ask(timeoutMs, (client, ...rest) => client.transferLeader({ nodeId: '' }, ...rest));
  }

  #ask<Response>(timeoutMs: number, call: (client: ClusterClient, ...rest: CallArguments<Response>) => void) {
    const client = new ClusterClient(this.address, grpc.credentials.createInsecure(), {
      'grpc.use_local_subchannel_pool': 1,
      'grpc.enable_http_proxy': 0,
    });
    const { promise, resolve, reject } = Promise.withResolvers<Response>();
    call(client, new grpc.Metadata(), { deadline: Date.now() + timeoutMs }, (error, response) => {
      client.close();
      if (error !== null) reject(new CallError(error));
      else resolve(response);
    });
    return promise;
  }
}

export class Cluster implements AsyncDisposable {
  readonly nodes: readonly ClusterNode[];
  readonly folder: string;
  #isKept = false;

  private constructor(nodes: readonly ClusterNode[], folder: string) {
    this.nodes = nodes;
    this.folder = folder;
  }

  /** Its nodes do not run yet. */
  static async create(options: ClusterOptions): Promise<Cluster> {
    const folder = makeDataDirectory('broker-cluster-');
    return new Cluster(await createNodes(options, folder), folder);
  }

  /** Resolves when all are voters and ready. A cluster of one is a lone node. */
  static async start(options: ClusterOptions): Promise<Cluster> {
    const cluster = await Cluster.create(options);
    try {
      const [first, ...others] = cluster.nodes as [ClusterNode, ...ClusterNode[]];
      if (options.gossips !== true) await first.broker.restart();
      else others.unshift(first);
      await Promise.all(others.map(({ broker }) => broker.restart()));
      if (cluster.nodes.length > 1) await cluster.untilVoters();
    } catch (error) {
      const kept = cluster.keep();
      await cluster[Symbol.asyncDispose]();
      throw new Error(`the cluster did not start, logs in ${kept}`, { cause: error });
    }
    return cluster;
  }

  get addresses(): string[] {
    return this.nodes.map(({ address }) => address);
  }

  /** Whom the live nodes take for the leader now, or null: none, or they do not agree. */
  async leader(): Promise<ClusterNode | null> {
    const live = this.nodes.filter(({ isLive }) => isLive);
    if (this.nodes.length === 1) return live[0] ?? null;
    const answers = await Promise.all(live.map((node) => node.members().catch(asMissing)));
    const known = answers.filter((answer) => answer !== null);
    const term = Math.max(0, ...known.map((answer) => answer.term));
    const names = new Set(known.filter((answer) => answer.term === term).map(({ leader }) => leader));
    const [name] = names;
    return names.size === 1 ? (this.nodes.find(({ id, isLive }) => id === name && isLive) ?? null) : null;
  }

  /** Waits for one. */
  async untilLeader(timeoutMs = LEADER_TIMEOUT_MS): Promise<ClusterNode> {
    for (const began = performance.now(); performance.now() - began < timeoutMs; ) {
      const leader = await this.leader();
      if (leader !== null) return leader;
      await pause(LOOK_MS);
    }
    throw new Error(`no leader within ${timeoutMs} ms; logs in ${this.keep()}`);
  }

  /** Until all are voters, and every one of them says so. */
  async untilVoters(): Promise<void> {
    for (const began = performance.now(); performance.now() - began < LEADER_TIMEOUT_MS; ) {
      const answers = await Promise.all(this.nodes.map((node) => node.members().catch(asMissing)));
      const isWhole = (answer: MembersResponse | null): boolean =>
        answer?.leader !== '' && answer?.members.filter(({ role }) => role === 'voter').length === this.nodes.length;
      if (answers.every(isWhole)) return;
      await pause(LOOK_MS);
    }
    throw new Error(`not all were voters within ${LEADER_TIMEOUT_MS} ms`);
  }

  /** kill -9 of all at once; whoever was paused too. */
  async killAll(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.kill()));
    for (const node of this.nodes) node.isPaused = false;
  }

  /** Starts those that do not run; resolves when all are ready. */
  async startAll(): Promise<void> {
    await Promise.all(this.nodes.filter(({ broker }) => !broker.running).map(({ broker }) => broker.restart()));
  }

  /** Writes the logs into the cluster's folder, which stays; its path. */
  keep(): string {
    this.#isKept = true;
    for (const { id, broker } of this.nodes) writeFileSync(join(this.folder, `${id}.log`), broker.logs);
    return this.folder;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.killAll();
    if (!this.#isKept) rmSync(this.folder, { recursive: true, force: true });
  }
}

async function createNodes(options: ClusterOptions, folder: string): Promise<ClusterNode[]> {
  const { nodes: count, network = null, gossips = false } = options;
  const ports = await freePorts(4 * count);
  const addressOf = (index: number, port: number): string => `${network?.host(index) ?? '127.0.0.1'}:${ports[port]}`;
  return Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const id = `n${index + 1}`;
      const machine = options.machines?.[index] ?? {};
      const dataDir = machine.dataDir ?? join(folder, id);
      mkdirSync(dataDir, { recursive: true });
      const [grpc, admin, raft] = [0, 1, 2].map((offset) => addressOf(index, 3 * index + offset)) as [
        string,
        string,
        string,
      ];
      const gossipOf = (node: number): string => addressOf(node, 3 * count + node);
      const everybody = Array.from({ length: count }, (_each, node) => gossipOf(node)).join();
      const byGossip = ['--gossip-listen', gossipOf(index), '--gossip-join', everybody];
      const told = index === 0 ? ['--bootstrap'] : ['--join', addressOf(0, 0)];
      const entrance = gossips ? [...byGossip, '--bootstrap-expect', String(count)] : told;
      const flags = [
        ...['--node-id', id],
        ...(count > 1 ? ['--raft-listen', raft, ...entrance] : []),
        // Its addresses are not those of loopback, and nobody else is in it.
        ...(network === null ? [] : ['--insecure']),
        ...options.storeFlags,
        ...['--log-format', 'json'],
        ...(options.flags ?? []),
      ];
      const broker = await BrokerProcess.create({
        dataDir,
        flags,
        addresses: { grpc, admin },
        logLinesMax: 4_000,
        readyTimeoutMs: 180_000,
        env: { ...options.env, ...machine.env },
        under: [...(network?.under(index) ?? []), ...(machine.under ?? [])],
      });
      return new ClusterNode(index, id, broker);
    }),
  );
}

/** A node that cannot say. */
function asMissing(error: unknown): null {
  if (error instanceof CallError) return null;
  throw error;
}
