import { BrokerError } from '../../base/errors.ts';
import type { Config } from '../../config/schema.ts';
import { callPeer } from '../../grpc/cluster-client.ts';
import { CLEAR_TEXT } from '../../grpc/peer-credentials.ts';
import { type ClaimedDatabase, reachDatabase, storeKindOf } from '../../storage/bind-store.ts';
import { readClusterMarker } from '../../storage/cluster-marker.ts';
import type { DataDirectory, NodeIdentity } from '../../storage/data-directory.ts';
import type { Disk } from '../../storage/disk.ts';
import type { DatabaseOptions } from '../../storage/open-database.ts';
import { StartError } from '../../storage/start-error.ts';
import type { Log } from '../../telemetry/log.ts';
import type { MetricsRegistry } from '../../telemetry/metrics.ts';
import type { ClusterThreadData } from '../messages.ts';
import type { Peers } from '../peers/peers.ts';
import type { RaftHandle, RaftHandleEvents } from '../raft/raft-handle.ts';
import { joinPort } from './ask-seed.ts';
import { ClusterService } from './cluster-service.ts';
import { type Entered, enterCluster, settleMembership } from './enter-cluster.ts';
import { handOver } from './hand-over.ts';
import { LeaderWatch } from './leader-watch.ts';
import { Lookout } from './lookout.ts';
import { mendLog } from './mend-log.ts';
import { finderOf, openGossip } from './open-gossip.ts';
import type { Discovery, DiscoveryEvents, PeerFinder } from './peer-finder.ts';
import type { PeerSecurity } from './peer-security.ts';

/** A transfer of the lead takes some round trips; without one the others elect, which takes little longer. In ms. */
const HAND_OVER_MS = 3_000;
/** To tell the others by gossip that this node leaves takes some gossip intervals. In ms. */
const LEAVE_MS = 2_000;
/** How often the members that the data directory keeps are compared with the log's, in ms. */
const LOOK_MS = 500;

/** It was told to stop while it waited for others, which may take for ever. */
export class StartStopped extends Error {
  override name = 'StartStopped';
}

export interface MembershipOptions {
  readonly config: Pick<Config, 'bootstrap' | 'bootstrapExpect' | 'gossip' | 'raft' | 'shutdown'>;
  /** HOST:PORT of members that a node without state may ask (`join`). */
  readonly seeds: readonly string[];
  /** Gossip runs. */
  readonly gossips: boolean;
  /** Gossip is told of others, by gossip.join or discovery: there will be somebody to ask. */
  readonly seeks: boolean;
  /** Null: discovery is off. */
  readonly openDiscovery: (events: DiscoveryEvents) => Discovery | null;
  /** Whoever wants to be taken in has to show that it may. */
  readonly joinsNeedProof: boolean;
  /** HOST:PORT as peers reach this node's ports; null: nobody could. */
  readonly advertised: { readonly raft: string; readonly grpc: string } | null;
  readonly log: Log;
  /** Aborted with StartStopped when the process is told to stop. */
  readonly stopping: AbortSignal;
  /** No leader has been known for an election timeout, or there is one again. */
  readonly onLeaderless: (isLeaderless: boolean) => void;
}

/** The main thread's part in a cluster: enters it, keeps an eye on who leads, answers for its members, leaves the lead to others. */
export class Membership {
  readonly #options: MembershipOptions;
  readonly #leaders: LeaderWatch;
  #cluster: ClusterThreadData | null = null;
  #finder: PeerFinder | null = null;
  /** Writes down who the members are by now; null: the node has no peers, or the start has not come to it. */
  #lookout: Lookout | null = null;
  #isMended = false;
  #security: PeerSecurity | null = null;

  constructor(options: MembershipOptions) {
    this.#options = options;
    const { config, log, onLeaderless } = options;
    this.#leaders = new LeaderWatch({
      patienceMs: config.raft.electionTimeoutMs,
      onLost: () => {
        log.warn('no leader is known: calls are refused until there is one', { reason: 'NOT_READY' });
        onLeaderless(true);
      },
      onFound: () => {
        log.info('a leader is known again: calls are taken');
        onLeaderless(false);
      },
    });
  }

  /** For the Raft thread; null: the node has no peers. */
  get cluster(): ClusterThreadData | null {
    return this.#cluster;
  }

  /** Why the node is not ready as far as its cluster goes; empty if it is. */
  get problems(): readonly string[] {
    return this.#leaders.isLost ? ['no leader is known'] : [];
  }

  /** Begins to gossip, if it is configured, with its figures in `metrics`. StartError PORT_UNAVAILABLE. */
  async meet(
    directory: Pick<DataDirectory, 'path' | 'node'>,
    metrics: MetricsRegistry | null,
    security: PeerSecurity,
  ): Promise<void> {
    this.#security = security;
    this.#finder = finderOf(this.#options, directory.node);
    if (this.#options.gossips)
      await this.#orStopped(openGossip(this.#finder, this.#options, { ...directory, metrics }));
  }

  /** Which cluster the node is one of; the database is that cluster's from then on. StartError, or StartStopped. */
  async enter(
    disk: Disk,
    database: DatabaseOptions,
    directory: DataDirectory,
  ): Promise<{ readonly node: NodeIdentity; readonly claimed: ClaimedDatabase }> {
    const { config, advertised, log, stopping } = this.#options;
    const finder = this.#finder ?? finderOf(this.#options, directory.node);
    const reaching = reachDatabase(database);
    const reached = await this.#orStopped(reaching).catch((error: unknown) => {
      // It may be reached later: nobody wants it any more.
      if (this.#options.stopping.aborted) reaching.then((late) => late.close()).catch(() => undefined);
      throw error;
    });
    let entered: Entered;
    try {
      entered = await enterCluster({
        disk,
        directory,
        database: reached,
        bootstrap: config.bootstrap,
        seeds: finder,
        advertised,
        isMarkedStore: storeKindOf(disk, directory.path) !== null,
        port: joinPort(
          (message, fields) => log.info(message, fields),
          (signal) => finder.news(signal),
          () => finder.keys()[0] ?? null,
          this.#security?.credentials,
        ),
        signal: stopping,
      });
    } catch (error) {
      await reached.close();
      throw error;
    }
    const { node, row } = entered;
    const claimed = await reached.use(node, row);
    log.info("the database is this cluster's", { cluster: node.clusterId });
    this.#cluster = this.#threadData(entered);
    finder.entered(node.clusterId, node.instanceId);
    return { node, claimed };
  }

  /** From now on the Raft thread hears where members say they are, and it and `peers` of other certificates. */
  follow(raft: RaftHandle, peers: Pick<Peers, 'dialAnew'>): void {
    if (this.#cluster === null) return;
    this.#finder?.follow(raft);
    this.#security?.follow(raft, peers);
  }

  /** What is wrong with the log of this member, for `mend`; null: nothing, or the node is alone. StartError if it was mended a moment ago. */
  async damageOf(raft: RaftHandle): Promise<string | null> {
    if (this.#cluster === null) return null;
    const damage = await this.#orStopped(raft.opened);
    if (damage !== null && this.#isMended) throw new StartError('RAFT_LOG_DAMAGED', damage);
    return damage;
  }

  /**
   * The log of this member is damaged: it becomes another instance of itself, without a log, that is about to join (mend-log.ts). `enter` comes
   * next. StartError RAFT_LOG_DAMAGED if the others cannot help; nothing was touched then.
   */
  async mend(disk: Disk, directory: DataDirectory, node: NodeIdentity, damage: string): Promise<DataDirectory> {
    const { log, stopping, advertised, config } = this.#options;
    const { electionTimeoutMs: electionMs } = config.raft;
    const known = readClusterMarker(disk, directory.path)?.members.filter((one) => one.node !== node.nodeId) ?? [];
    const addresses = known.map(({ grpc }) => grpc);
    const seeds = (): string[] =>
      [...new Set([...(this.#finder?.list(node.clusterId) ?? []), ...addresses])].filter(
        (seed) => seed !== advertised?.grpc,
      );
    const tell = (message: string, fields: Readonly<Record<string, string>>): void => log.error(message, fields);
    this.#isMended = true;
    const security = this.#security?.credentials ?? CLEAR_TEXT;
    const others = { seeds, known, security, electionMs, signal: stopping };
    const fresh = await mendLog({ disk, directory, node, damage, ...others, tell });
    return { ...directory, node: fresh };
  }

  /** The log has all that the data directory kept of the way into the cluster; whom it knows is kept beside it from now on. */
  async settle(disk: Disk, path: string, raft: RaftHandle): Promise<void> {
    if (this.#cluster === null) return;
    const { log } = this.#options;
    const look = async (): Promise<void> => {
      const members = (await raft.cluster())?.members ?? [];
      const rows = members.map(({ node, instance, raft: address, grpc, protocol }) => {
        return { node, instance, raft: address, grpc, protocol };
      });
      if (rows.length > 0) settleMembership(disk, path, rows);
    };
    await look();
    // Nothing hangs on it now: what a full disk does not take is written at a later look.
    this.#lookout = new Lookout(() =>
      look().catch((error: unknown) => log.warn('the members could not be written down', { error: String(error) })),
    );
    this.#lookout.start(LOOK_MS);
  }

  /** Rejects with StartStopped if the wait is for others, and is ended. That for this node itself goes on. */
  async unlessStopped<T>(work: Promise<T>): Promise<T> {
    return this.#cluster === null ? await work : await this.#orStopped(work);
  }

  async #orStopped<T>(work: Promise<T>): Promise<T> {
    const { stopping } = this.#options;
    stopping.throwIfAborted();
    let onAbort: () => void = () => undefined;
    const stopped = new Promise<never>((_, reject) => {
      onAbort = () => reject(stopping.reason);
      stopping.addEventListener('abort', onAbort);
    });
    try {
      return await Promise.race([work, stopped]);
    } finally {
      stopping.removeEventListener('abort', onAbort);
    }
  }

  /** What the Raft thread tells unasked. */
  get events(): Pick<RaftHandleEvents, 'onLeader' | 'onListening'> {
    const { log } = this.#options;
    return {
      onLeader: (leader, grpc) => {
        if (this.#cluster !== null) log.info(leader === '' ? 'no leader is known' : 'a node leads', { leader, grpc });
        this.#leaders.changed(leader);
      },
      onListening: (port) => log.info('the Raft port is open', { port }),
    };
  }

  /** The node serves: from now on it is told when nobody leads. */
  watch(): void {
    if (this.#cluster !== null) this.#leaders.start();
  }

  /** Before the node stops: nobody shall have to wait for an election. Takes no longer than shutdown.drain. */
  async leave(raft: RaftHandle | null): Promise<void> {
    this.#leaders.stop();
    const { drainMs } = this.#options.config.shutdown;
    const begun = performance.now();
    const leftOf = (ms: number): number => Math.max(0, begun + Math.min(ms, drainMs) - performance.now());
    // One time for both questions: a Raft thread that leaves the first without an answer has none for the second.
    await this.#lookout?.last(leftOf(HAND_OVER_MS));
    const left = this.#finder?.leave(Math.min(LEAVE_MS, leftOf(drainMs)));
    await this.#handOver(raft, leftOf(HAND_OVER_MS));
    await left;
  }

  /** Gossip ends; of a start that is given up the others are told too. */
  async stop(): Promise<void> {
    await this.#finder?.leave(LEAVE_MS);
    await this.#finder?.stop();
  }

  async #handOver(raft: RaftHandle | null, withinMs: number): Promise<void> {
    if (this.#cluster === null || raft === null) return;
    const { log } = this.#options;
    const result = await handOver(raft, withinMs);
    if (result?.reason === null) log.info('another node leads now');
    else if (result !== null) log.warn('the lead could not be handed over', { ...result });
  }

  service(raft: RaftHandle, node: NodeIdentity, grpcAddress: () => string): ClusterService {
    const { clusterId, clusterName, nodeId, instanceId } = node;
    const security = this.#security?.credentials ?? CLEAR_TEXT;
    return new ClusterService({
      ...{ raft, clusterId, clusterName, nodeId, instanceId, grpcAddress },
      isClustered: this.#cluster !== null,
      votersWanted: this.#options.config.raft.voters,
      call: (address, method, request, options) => callPeer(address, method, request, { ...options, security }),
      gossip: () => this.#finder?.view() ?? null,
      keys: () => this.#finder?.keys() ?? [],
      joinsNeedProof: this.#options.joinsNeedProof,
      changeKeys: async (request) => {
        if (this.#finder === null) throw new BrokerError('GOSSIP_OFF');
        return await this.#finder.changeKeys(request);
      },
      now: Date.now,
    });
  }

  #threadData({ node, isClustered, joining }: Entered): ClusterThreadData | null {
    const { config, advertised } = this.#options;
    // enter-cluster.ts has refused a node of a cluster that has none.
    if (!isClustered || advertised === null) return null;
    return {
      clusterId: node.clusterId,
      listen: config.raft.listen,
      raftAdvertise: advertised.raft,
      grpcAdvertise: advertised.grpc,
      votersMax: config.raft.voters,
      joining,
      tls: this.#security?.raft ?? null,
    };
  }
}
