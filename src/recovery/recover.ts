/** `broker cluster recover`: new Raft state for messages that a store still has, in which no id of before is given again (docs/adr/0013-recover.md). */
import { randomBytes, randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import type { AllotMachine } from '../allot/allot-machine.ts';
import { failpoint } from '../base/failpoint.ts';
import type { Config } from '../config/schema.ts';
import { markStore, storeKindOf } from '../storage/bind-store.ts';
import { readClusterMarker, writeClusterMarker } from '../storage/cluster-marker.ts';
import {
  LAYOUT_VERSION,
  type NodeIdentity,
  openRecoveringDirectory,
  type RecoveringDirectory,
  replaceNode,
} from '../storage/data-directory.ts';
import { type Disk, NodeDisk } from '../storage/disk.ts';
import { type RecoveryMarker, removeMarker, writeMarker } from '../storage/recovery-marker.ts';
import { StartError } from '../storage/start-error.ts';
import { writeBirthState } from '../workers/raft/birth-state.ts';
import { allotLimits } from '../workers/raft/raft-settings.ts';
import { readLog } from '../workers/raft/read-log.ts';
import { KnownHeads, RECOVERY_GAP } from './known-heads.ts';
import { checkInterrupt, Refusal } from './refusal.ts';
import { openStoreSide, type StoreSide } from './store-side.ts';
import type { RecoverRequest, RecoverySummary } from './types.ts';

/** Where the new Raft state is made before it takes its place. */
const NEW_RAFT = 'raft.new';
/** How often progress is told, in subjects. */
const PROGRESS_SUBJECTS = 1_000;

/** What a directory and its former owner look like to a recovery, however it came by them. */
export interface Case {
  readonly kind: RecoveryMarker['kind'];
  readonly disk: Disk;
  readonly directory: RecoveringDirectory;
  readonly request: Pick<RecoverRequest, 'config' | 'apply' | 'floor' | 'interrupt' | 'onProgress'>;
  /** Who the directory belongs to now, or what a backup says; null: nobody knows. */
  readonly before: Pick<NodeIdentity, 'clusterId' | 'clusterName' | 'nodeId'> | null;
  /** The Raft state of the directory, which is put aside; null if there is none. */
  readonly discarded: RecoveryMarker['discarded'];
  /** State machine of before, from wherever; asked for once. */
  readonly olderState: () => { readonly machine: AllotMachine | null; readonly warnings: readonly string[] };
  /** Right behind the marker: what else has to be in the directory. */
  readonly prepare: () => Promise<void>;
}

export async function recover(request: RecoverRequest): Promise<RecoverySummary> {
  const { config } = request;
  const disk = new NodeDisk();
  if (!request.apply && disk.size(config.dataDir) < 0 && config.store.kind === 'embedded') {
    throw new Refusal(`there is no ${config.dataDir}`, 'name the data directory that has the segments: --data-dir DIR');
  }
  const isNew = disk.size(config.dataDir) < 0;
  const directory = openRecoveringDirectory(disk, config.dataDir);
  try {
    const { marker, node } = directory;
    if (marker !== null && marker.kind !== 'recover') {
      throw new Refusal(
        `\`broker restore\` was cut off in ${directory.path}`,
        'run that again, or begin with an empty data directory',
      );
    }
    checkStore(disk, directory, config);
    const discarded = marker === null ? discardedOf(disk, directory) : marker.discarded;
    if (marker === null && discarded !== null && !request.discardState)
      throw hasState(disk, directory, discarded.instanceId, config);
    return await runCase({
      kind: 'recover',
      disk,
      directory,
      request,
      before: marker === null ? node : null,
      discarded,
      olderState: () => olderState(disk, directory, discarded, config),
      prepare: () => Promise.resolve(),
    });
  } finally {
    directory.close();
    // A plan leaves nothing behind.
    if (isNew && !request.apply) rmSync(directory.path, { recursive: true });
  }
}

/** The steps of every recovery. Each may be repeated, and a run that was cut off is repeated from the first one. */
export async function runCase(what: Case): Promise<RecoverySummary> {
  const { disk, directory, request } = what;
  const { config, apply, interrupt, onProgress } = request;
  const store = await openStoreSide(config, directory.segmentsPath);
  try {
    const birth = await store.birth();
    const nodes = await store.nodes();
    const marker = directory.marker ?? firstMarker(what, birth?.clusterId ?? what.before?.clusterId ?? null);
    checkIdentity(what.before ?? marker.node, config, what.kind);
    if (birth !== null && what.before !== null && birth.clusterId !== what.before.clusterId)
      throw otherCluster(what, birth.clusterId);
    if (apply) {
      checkInterrupt(interrupt);
      if (directory.marker === null) writeMarker(disk, directory.path, marker);
      failpoint('recover.marked');
      await what.prepare();
      failpoint('recover.prepared');
      if (birth !== null) await store.giveTo(marker.node.clusterId, marker.replaces ?? birth.clusterId);
      failpoint('recover.given');
      onProgress({ step: 'ending the processes of before', done: nodes.length });
      await store.endOthers(marker.node.clusterId);
      failpoint('recover.fenced');
    }
    const { heads, newest } = await readHeads(store, onProgress, interrupt);
    const older = what.olderState();
    if (older.machine !== null) heads.addLog(older.machine);
    const logTime = Math.max(newest, older.machine?.time ?? 0, Date.now());
    if (apply) {
      const machine = heads.build(allotLimits(config), marker.node.nodeId, logTime, request.floor);
      await putInPlace(disk, directory, marker, machine, config);
      // Another recovery may have taken the database meanwhile; then this directory must not begin to serve.
      if (birth !== null) await store.giveTo(marker.node.clusterId, marker.node.clusterId);
      removeMarker(disk, directory.path);
      failpoint('recover.done');
    }
    return {
      store: config.store.kind,
      done: apply,
      nodeId: marker.node.nodeId,
      clusterName: marker.node.clusterName,
      clusterBefore: marker.replaces,
      cluster: apply ? marker.node.clusterId : null,
      nodesFenced: nodes.length,
      subjects: heads.subjects,
      subjectsOfLog: heads.subjectsOfLog,
      // The segments of a backup are looked at when they are in their place.
      idsBeyondStore: apply || what.kind === 'recover' || birth !== null ? heads.idsBeyondStore : null,
      largestHead: heads.largestHead,
      largestSubject: heads.largestSubject.subject,
      largestTenant: heads.largestSubject.tenant,
      gap: RECOVERY_GAP,
      floor: heads.floor(request.floor),
      logTime,
      producersForgotten: older.machine?.counts().producers ?? null,
      discarded: marker.discarded === null ? null : join(directory.path, marker.discarded.name),
      warnings: [...older.warnings, ...clockWarnings(newest)],
    };
  } finally {
    await store.close();
  }
}

async function readHeads(
  store: StoreSide,
  onProgress: RecoverRequest['onProgress'],
  interrupt: AbortSignal,
): Promise<{ readonly heads: KnownHeads; readonly newest: number }> {
  const heads = new KnownHeads();
  let done = 0;
  const step = 'reading the newest ids of the store';
  const newest = await store.newest((subject, lastId) => {
    heads.addStored(subject, lastId);
    done += 1;
    if (done % PROGRESS_SUBJECTS === 0) {
      onProgress({ step, done });
      checkInterrupt(interrupt);
    }
  });
  onProgress({ step, done });
  return { heads, newest };
}

/** In this order: a start finds RECOVERY until all of it is durable. */
async function putInPlace(
  disk: Disk,
  directory: RecoveringDirectory,
  marker: RecoveryMarker,
  machine: AllotMachine,
  config: Config,
): Promise<void> {
  const { path, raftPath } = directory;
  const made = join(path, NEW_RAFT);
  rmSync(made, { recursive: true, force: true });
  await writeBirthState(disk, made, marker.node, machine);
  failpoint('recover.built');
  const aside = marker.discarded === null ? null : join(path, marker.discarded.name);
  if (aside !== null && disk.size(aside) < 0 && disk.size(raftPath) >= 0) disk.rename(raftPath, aside);
  failpoint('recover.aside');
  // What is still there was made by a run before, or is empty; nobody has served from it.
  rmSync(raftPath, { recursive: true, force: true });
  disk.rename(made, raftPath);
  failpoint('recover.placed');
  replaceNode(disk, path, marker.node);
  failpoint('recover.named');
  markStore(disk, path, config.store.kind);
  // One that was a member, or about to become one, is the first of a new cluster: it asks nobody to be taken in.
  if (readClusterMarker(disk, path) !== null) writeClusterMarker(disk, path, { state: 'member', members: [] });
  failpoint('recover.bound');
}

function firstMarker({ kind, request, before, discarded }: Case, replaces: string | null): RecoveryMarker {
  const { config } = request;
  const named = kind === 'restore' ? (config.nodeId ?? before?.nodeId) : (before?.nodeId ?? config.nodeId);
  const node: NodeIdentity = {
    version: LAYOUT_VERSION,
    clusterId: randomUUID(),
    clusterName: config.cluster,
    nodeId: named ?? randomUUID().slice(0, 8),
    instanceId: randomBytes(16).toString('hex'),
    createdAt: new Date().toISOString(),
  };
  return { version: 1, kind, node, replaces, discarded };
}

/** A backup may be put back under another node id. */
function checkIdentity(
  { nodeId, clusterName }: Pick<NodeIdentity, 'nodeId' | 'clusterName'>,
  config: Config,
  kind: RecoveryMarker['kind'],
): void {
  const whose = kind === 'restore' ? 'the backup' : 'the data directory';
  const differs = (what: string, found: string, wanted: string): Refusal =>
    new Refusal(
      `${whose} belongs to ${what} "${found}", the configuration says "${wanted}"`,
      'correct the one that is wrong',
    );
  if (kind === 'recover' && config.nodeId !== null && config.nodeId !== nodeId)
    throw differs('node', nodeId, config.nodeId);
  if (config.cluster !== clusterName) throw differs('cluster', clusterName, config.cluster);
}

function otherCluster({ kind, before }: Case, found: string): Refusal {
  const what = kind === 'restore' ? 'the backup' : 'the data directory';
  return new Refusal(
    `the database belongs to cluster ${found}, ${what} to ${before?.clusterId}: they are not of one cluster, or it was recovered since`,
    kind === 'restore'
      ? 'put back the dump of the database that belongs to the backup'
      : 'name the database of that cluster, or an empty data directory',
  );
}

/** StartError or Refusal if the directory keeps its messages elsewhere. */
function checkStore(disk: Disk, directory: RecoveringDirectory, config: Config): void {
  const { kind } = config.store;
  const { path } = directory;
  const isMarked = disk.size(join(path, 'STORE')) >= 0;
  const found = isMarked || kind !== 'embedded' ? storeKindOf(disk, path) : null;
  const hasSegments = disk.size(directory.segmentsPath) >= 0 && disk.list(directory.segmentsPath).length > 0;
  // The first start marks the directory before it makes a log.
  const isEmbedded = directory.marker === null && (hasSegments || found === 'embedded');
  const isOther = isMarked ? found !== kind : kind !== 'embedded' && isEmbedded;
  if (!isOther) return;
  throw new StartError(
    'DATA_DIRECTORY_MISMATCH',
    `${path} belongs to a broker that keeps its messages ${isMarked ? `in a database (${found})` : 'in its own segments (embedded)'}, and the configuration says store ${kind}`,
  );
}

function discardedOf(disk: Disk, { path, raftPath, node }: RecoveringDirectory): RecoveryMarker['discarded'] {
  if (disk.size(raftPath) < 0 || disk.list(raftPath).length === 0) return null;
  if (node === null)
    throw new Refusal(
      `${path} has Raft state, but no node.json says whose`,
      'move its folder raft away, and run the command again',
    );
  let number = 1;
  while (disk.size(join(path, `raft.discarded-${number}`)) >= 0) number += 1;
  return { name: `raft.discarded-${number}`, instanceId: node.instanceId };
}

function olderState(
  disk: Disk,
  { path, raftPath }: RecoveringDirectory,
  discarded: RecoveryMarker['discarded'],
  config: Config,
): { machine: AllotMachine | null; warnings: string[] } {
  if (discarded === null) return { machine: null, warnings: [] };
  const aside = join(path, discarded.name);
  const place = disk.size(aside) >= 0 ? aside : raftPath;
  try {
    return { machine: readLog(disk, place, discarded.instanceId, allotLimits(config), 'any member'), warnings: [] };
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    const warning = `the log that is discarded cannot be read (${error.message}): its heads do not count; --floor names an id that no subject may be given again`;
    return { machine: null, warnings: [warning] };
  }
}

function hasState(disk: Disk, directory: RecoveringDirectory, instanceId: string, config: Config): Refusal {
  const { machine, warnings } = olderState(disk, directory, { name: 'raft', instanceId }, config);
  const lost =
    machine === null
      ? 'it cannot be read'
      : `it knows ${machine.counts().subjects} subjects and ${machine.counts().producers} producers, up to ${new Date(machine.time).toISOString()}`;
  return new Refusal(
    `${directory.path} has Raft state: ${lost}. A broker that can start on it needs no recovery${warnings.length > 0 ? '' : ', and loses nothing'}`,
    'if most members of its cluster are gone for ever, or a start refuses it: add --discard-state (its heads are taken over, its producers are forgotten)',
  );
}

function clockWarnings(newest: number): string[] {
  if (newest <= Date.now()) return [];
  return [
    `the newest message is of ${new Date(newest).toISOString()}, which is still to come: the clock of this machine or of the one before is wrong`,
  ];
}
