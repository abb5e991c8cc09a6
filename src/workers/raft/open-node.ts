import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { AllotMachine } from '../../allot/allot-machine.ts';
import { assert, defined } from '../../base/assert.ts';
import { formatEndpoint } from '../../base/endpoint.ts';
import { MemoryRaftStorage } from '../../raft/memory-storage.ts';
import { ENTRY_CONFIG, ENTRY_NORMAL, type Entry } from '../../raft/messages.ts';
import { type Member, PROTOCOL_VERSION } from '../../replica/types.ts';
import { NodeDisk } from '../../storage/disk.ts';
import { RaftWal } from '../../storage/raft-wal/raft-wal.ts';
import type { StoredSnapshot, WalEntry } from '../../storage/raft-wal/types.ts';
import type { RaftThreadData } from '../messages.ts';
import { PeerLinks } from './peer-links.ts';
import { line, RaftNode, type RaftNodeEvents } from './raft-node.ts';
import { decodeSnapshotMeta, encodeSnapshotMeta } from './snapshot-meta.ts';

const BIRTH_CHUNK_BYTES = 64 * 1024;

/** `links`: null without peers. */
export interface OpenedNode {
  readonly node: RaftNode;
  readonly links: PeerLinks | null;
}

/** Opens the log of this node and recovers what it says. With peers its Raft port is open, and it takes part. Throws StartError or WalError. */
export async function openRaftNode(data: RaftThreadData, events: RaftNodeEvents): Promise<OpenedNode> {
  const disk = new NodeDisk();
  const limits = {
    subjectsMax: data.subjectsMax,
    producersMax: data.producersMax,
    openPerNodeMax: data.openPerNodeMax,
  };
  const {
    wal,
    state,
    report: found,
  } = RaftWal.open(disk, join(data.dataDirectory, 'raft'), { instanceId: data.instanceId });
  if (found.cut !== null) {
    events.report(
      line('warn', 'cut a torn end off the Raft log', { path: found.cut.path, position: found.cut.position }),
    );
  }
  for (const path of [...found.quarantined, ...found.damagedSnapshots]) {
    events.report(line('error', 'moved a damaged file to quarantine', { path }));
  }
  const storage = new MemoryRaftStorage();
  const links =
    data.cluster === null ? null : new PeerLinks(data.cluster, data.nodeName, data.instanceId, events.report);
  const own = await ownRow(data, links, events);
  let machine = new AllotMachine(limits);
  let members: readonly Member[] = [];
  const isJoining = state.snapshot === null && data.cluster?.joining != null;
  if (!isJoining) {
    const birth = MemoryRaftStorage.bootstrap([data.nodeName]);
    const snapshot = state.snapshot ?? (await writeBirth(wal, birth, machine, own));
    const { index, term, meta, path } = snapshot;
    const decoded = decodeSnapshotMeta(meta);
    storage.applySnapshot({ index, term, config: decoded.config, ref: path });
    members = decoded.members;
    machine = AllotMachine.restore(defined(wal.readSnapshot(), 'the recovered snapshot is gone').chunks(), limits);
    storage.append(state.entries.map(asEntry));
    storage.setHardState(state.hardState.term > 0 ? state.hardState : birth.hardState());
  } else {
    // A first start that ended before it got its snapshot may have voted, or written entries.
    storage.append(state.entries.map(asEntry));
    storage.setHardState(state.hardState);
  }
  const node = new RaftNode({
    data,
    events,
    storage,
    wal,
    machine,
    members,
    limits,
    incarnation: randomBytes(8),
    links,
    own,
    replayed: state.entries,
  });
  node.open();
  return { node, links };
}

/** Opens the Raft port, if there is to be one: what this node is for others has its number in it. */
async function ownRow(data: RaftThreadData, links: PeerLinks | null, events: RaftNodeEvents): Promise<Member> {
  const { nodeName: node, instanceId: instance, cluster } = data;
  if (links === null || cluster === null) return { node, instance, raft: '', grpc: '', protocol: PROTOCOL_VERSION };
  const port = await links.listen();
  events.onListening(port);
  const raft = cluster.raftAdvertise ?? formatEndpoint({ host: cluster.listen.host, port });
  return { node, instance, raft, grpc: cluster.grpcAdvertise, protocol: PROTOCOL_VERSION };
}

/** The first members are in a snapshot, not in the log (MemoryRaftStorage.bootstrap): it is on disk before anything else is. */
async function writeBirth(
  wal: RaftWal,
  birth: MemoryRaftStorage,
  machine: AllotMachine,
  own: Member,
): Promise<StoredSnapshot> {
  const snapshot = birth.snapshot();
  assert(snapshot !== null, 'a founding member has a snapshot');
  const { index, term, config } = snapshot;
  const file = wal.beginSnapshot({
    index,
    term,
    meta: encodeSnapshotMeta({ config, members: own.raft === '' ? [] : [own] }),
  });
  const state = machine.beginSnapshot();
  for (let chunk = state.nextChunk(BIRTH_CHUNK_BYTES); chunk !== null; chunk = state.nextChunk(BIRTH_CHUNK_BYTES)) {
    file.write(chunk);
  }
  return await file.finish('installed');
}

function asEntry({ term, index, type, data }: WalEntry): Entry {
  assert(type === ENTRY_NORMAL || type === ENTRY_CONFIG, () => `log entry ${index} has unknown type ${type}`);
  return { term, index, type, data };
}
