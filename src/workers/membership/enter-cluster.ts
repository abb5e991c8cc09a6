import type { Member } from '../../replica/types.ts';
import { PROTOCOL_VERSION } from '../../replica/types.ts';
import type { ReachedDatabase } from '../../storage/bind-store.ts';
import type { BirthRow } from '../../storage/birth.ts';
import { type ClusterMarker, readClusterMarker, writeClusterMarker } from '../../storage/cluster-marker.ts';
import { adoptCluster, type DataDirectory, type NodeIdentity } from '../../storage/data-directory.ts';
import type { Disk } from '../../storage/disk.ts';
import { StartError } from '../../storage/start-error.ts';
import { CHECK_GOSSIP, type JoinPort, joinCluster, WaitingNews } from './join-cluster.ts';
import { decideStart, type StartDecision } from './start-decision.ts';

export interface EnterOptions {
  readonly disk: Disk;
  readonly directory: Pick<DataDirectory, 'path' | 'raftPath' | 'node'>;
  readonly database: Pick<ReachedDatabase, 'findBirth' | 'claimBirth' | 'check' | 'place'>;
  readonly bootstrap: boolean;
  readonly seeds: Seeds;
  /** HOST:PORT as peers reach its ports; null: nobody could. */
  readonly advertised: { readonly raft: string; readonly grpc: string } | null;
  /** The data directory says that its messages are in such a database. */
  readonly isMarkedStore: boolean;
  readonly port: JoinPort;
  readonly signal: AbortSignal;
}

/** Whom a node without state may ask, and how many others it sees. What it returns changes while it waits, with gossip. */
export interface Seeds {
  /** There is, or will be, somebody to ask. */
  readonly hasSource: boolean;
  /** HOST:PORT of gRPC ports of members, or of nodes that may be by now. */
  list(clusterId: string): readonly string[];
  /** The configuration names it; else gossip has met it. */
  isTold(seed: string): boolean;
  /** bootstrap_expect; 0: not given. */
  readonly expect: number;
  /** Brokers of this cluster name without a cluster that are seen, this one included. */
  seen(): number;
}

/** What the node is when it has found its cluster. */
export interface Entered {
  readonly node: NodeIdentity;
  /** The birth row as it was read last. */
  readonly row: BirthRow | null;
  /** With a Raft port. */
  readonly isClustered: boolean;
  /** Of a node that was taken in and has no log: the members that it was told. */
  readonly joining: readonly Member[] | null;
}

/**
 * Finds out which cluster the node is one of, and makes it one: what start-decision.ts says, made durable step by step. StartError if it may not
 * start; the signal's reason if it is aborted while it waits.
 */
export async function enterCluster(options: EnterOptions): Promise<Entered> {
  const { disk, directory, database, isMarkedStore, port, signal } = options;
  const waiting = new WaitingNews(port);
  const root = directory.path;
  for (;;) {
    const row = await database.findBirth();
    if (row === null && isMarkedStore) {
      throw new StartError(
        'STORE_UNUSABLE',
        `${database.place} is empty, and the messages of this data directory are in another one: name that, or put it back`,
      );
    }
    const marker = readClusterMarker(disk, root);
    const decision = decide(options, marker, row);
    switch (decision.kind) {
      case 'refuse':
        throw new StartError(decision.code, decision.why);
      case 'wait':
        await waitFor(decision.for, options, waiting);
        signal.throwIfAborted();
        continue;
      case 'serve':
        if (decision.note !== '') port.tell(decision.note, {});
        if (decision.isClustered) needAddresses(options);
        if (decision.isClustered && marker === null) writeClusterMarker(disk, root, { state: 'member', members: [] });
        return { node: directory.node, row, isClustered: decision.isClustered, joining: null };
      case 'joined':
        needAddresses(options);
        return { node: directory.node, row, isClustered: true, joining: marker?.members ?? [] };
      case 'first': {
        const begun = await begin(options, marker, decision.isClustered);
        if (begun === null) continue;
        return begun;
      }
      case 'join':
        return await join(options, row, decision.clusterId, marker?.members ?? []);
    }
  }
}

async function waitFor(
  what: 'birth' | 'brokers',
  { seeds, database, signal }: EnterOptions,
  waiting: WaitingNews,
): Promise<void> {
  const { place } = database;
  if (what === 'birth') {
    const why = 'waiting for a cluster in the database: no node has begun one with --bootstrap yet';
    await waiting.again(why, { place }, 'whether the first node runs, with --bootstrap and the same database', signal);
  } else {
    const why = 'waiting until gossip sees as many brokers as --bootstrap-expect says';
    await waiting.again(why, { seen: seeds.seen(), expect: seeds.expect, place }, CHECK_GOSSIP, signal);
  }
}

/** The log has all that the marker was for. The members stay beside it: whom to ask if the log cannot be read one day (mend-log.ts). */
export function settleMembership(disk: Disk, root: string, members: readonly Member[]): void {
  const marker = readClusterMarker(disk, root);
  if (marker === null) return;
  const isKept = marker.state === 'member' && JSON.stringify(marker.members) === JSON.stringify(members);
  if (!isKept) writeClusterMarker(disk, root, { state: 'member', members });
}

function decide(options: EnterOptions, marker: ClusterMarker | null, row: BirthRow | null): StartDecision {
  const { disk, directory, bootstrap, seeds } = options;
  const { clusterId, clusterName, nodeId, instanceId } = directory.node;
  const hasLog = disk.size(directory.raftPath) >= 0 && disk.list(directory.raftPath).length > 0;
  const state = marker?.state ?? null;
  const facts = { marker: state, hasLog, clusterId, clusterName, nodeId, instanceId, bootstrap, row };
  const hasSeeds = seeds.hasSource || (marker?.state === 'joining' && marker.members.length > 0);
  const expect = seeds.expect === 0 ? 'off' : seeds.seen() >= seeds.expect ? 'met' : 'short';
  return decideStart({ ...facts, hasSeeds, expect });
}

/** Null if another node was faster. */
async function begin(
  options: EnterOptions,
  marker: ClusterMarker | null,
  isClustered: boolean,
): Promise<Entered | null> {
  const { disk, directory, database } = options;
  const { node, path } = directory;
  if (isClustered) {
    needAddresses(options);
    if (marker === null) writeClusterMarker(disk, path, { state: 'first', members: [] });
  }
  const claimed = await database.claimBirth({ clusterId: node.clusterId, name: node.clusterName });
  if (claimed.clusterId !== node.clusterId) return null;
  return { node, row: claimed, isClustered, joining: null };
}

/** `known`: of a member whose log was lost to damage. */
async function join(
  options: EnterOptions,
  row: BirthRow | null,
  clusterId: string,
  known: readonly Member[],
): Promise<Entered> {
  const { disk, directory, database, port, seeds, signal } = options;
  const { raft, grpc } = needAddresses(options);
  // A member that cannot share the database would only be in the way.
  database.check(clusterId, row);
  // In this order: with the cluster's id and no marker it would look like the node whose row it is.
  writeClusterMarker(disk, directory.path, { state: 'joining', members: known });
  const node = adoptCluster(disk, directory, clusterId);
  const member: Member = { node: node.nodeId, instance: node.instanceId, raft, grpc, protocol: PROTOCOL_VERSION };
  const members = await joinCluster(port, {
    seeds: () => [...new Set([...seeds.list(clusterId), ...known.map(({ grpc: address }) => address)])],
    isTold: (seed) => seeds.isTold(seed),
    ...{ clusterId, member, signal },
  });
  writeClusterMarker(disk, directory.path, { state: 'joined', members });
  return { node, row, isClustered: true, joining: members };
}

function needAddresses({ advertised }: EnterOptions): { readonly raft: string; readonly grpc: string } {
  if (advertised !== null) return advertised;
  throw new StartError(
    'ADVERTISE_NEEDED',
    'this node is one of a cluster, and listens where nobody can be told to connect (0.0.0.0, [::] or a port that the system chooses): set --raft-advertise and --grpc-advertise',
  );
}
