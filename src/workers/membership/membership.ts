import type { Config } from '../../config/schema.ts';
import { callPeer } from '../../grpc/cluster-client.ts';
import { type ClaimedDatabase, reachDatabase, storeKindOf } from '../../storage/bind-store.ts';
import type { DataDirectory, NodeIdentity } from '../../storage/data-directory.ts';
import type { Disk } from '../../storage/disk.ts';
import type { DatabaseOptions } from '../../storage/open-database.ts';
import type { Log } from '../../telemetry/log.ts';
import { ClusterService } from '../front/cluster-service.ts';
import type { ClusterThreadData } from '../messages.ts';
import type { RaftHandle, RaftHandleEvents } from '../raft/raft-handle.ts';
import { joinPort } from './ask-seed.ts';
import { type Entered, enterCluster, settleMembership } from './enter-cluster.ts';
import { handOver } from './hand-over.ts';
import { LeaderWatch } from './leader-watch.ts';

/** A transfer of the lead takes some round trips; without one the others elect, which takes little longer. In ms. */
const HAND_OVER_MS = 3_000;

/** It was told to stop while it waited for others, which may take for ever. */
export class StartStopped extends Error {
  override name = 'StartStopped';
}

export interface MembershipOptions {
  readonly config: Pick<Config, 'bootstrap' | 'raft' | 'shutdown'>;
  /** HOST:PORT of members that a node without state may ask. */
  readonly seeds: readonly string[];
  /** HOST:PORT as peers reach this node's ports; null: nobody could. */
  readonly advertised: { readonly raft: string; readonly grpc: string } | null;
  readonly log: Pick<Log, 'info' | 'warn'>;
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

  /** Which cluster the node is one of; the database is that cluster's from then on. StartError, or StartStopped. */
  async enter(
    disk: Disk,
    database: DatabaseOptions,
    directory: DataDirectory,
  ): Promise<{ readonly node: NodeIdentity; readonly claimed: ClaimedDatabase }> {
    const { config, seeds, advertised, log, stopping } = this.#options;
    const reached = await reachDatabase(database);
    let entered: Entered;
    try {
      entered = await enterCluster({
        disk,
        directory,
        database: reached,
        bootstrap: config.bootstrap,
        seeds,
        advertised,
        isMarkedStore: storeKindOf(disk, directory.path) !== null,
        port: joinPort((message, fields) => log.info(message, fields)),
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
    return { node, claimed };
  }

  /** The log has all that the data directory kept of the way into the cluster. */
  settle(disk: Disk, path: string): void {
    if (this.#cluster !== null) settleMembership(disk, path);
  }

  /** Rejects with StartStopped if the wait is for others, and is ended. That for this node itself goes on. */
  async unlessStopped<T>(work: Promise<T>): Promise<T> {
    const { stopping } = this.#options;
    if (this.#cluster === null) return await work;
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

  /** Before the node stops: nobody shall have to wait for an election. */
  async leave(raft: RaftHandle | null): Promise<void> {
    this.#leaders.stop();
    if (this.#cluster === null || raft === null) return;
    const { config, log } = this.#options;
    const result = await handOver(raft, Math.min(HAND_OVER_MS, config.shutdown.drainMs));
    if (result?.reason === null) log.info('another node leads now');
    else if (result !== null) log.warn('the lead could not be handed over', { ...result });
  }

  service(raft: RaftHandle, node: NodeIdentity, grpcAddress: () => string): ClusterService {
    const { clusterId, clusterName, nodeId, instanceId } = node;
    return new ClusterService({
      ...{ raft, clusterId, clusterName, nodeId, instanceId, grpcAddress },
      isClustered: this.#cluster !== null,
      votersWanted: this.#options.config.raft.voters,
      call: callPeer,
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
    };
  }
}
