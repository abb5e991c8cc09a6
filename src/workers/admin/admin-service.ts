import { BrokerError } from '../../base/errors.ts';
import { nameOf } from '../../base/subject-space.ts';
import { VERSION } from '../../base/version.ts';
import type { Config } from '../../config/schema.ts';
import type { AdminPort } from '../../grpc/admin.ts';
import type {
  AdviseShardsResponse,
  ListShardsResponse,
  ListSubjectsRequest,
  ListSubjectsResponse,
  ShardsChange,
  StatusResponse,
  SubjectInfoRequest,
  SubjectInfoResponse,
  TrimSubjectRequest,
  TrimSubjectResponse,
} from '../../grpc/gen/broker/v1/admin.ts';
import type { Dispatcher } from '../front/dispatcher.ts';
import type { ClusterService } from '../membership/cluster-service.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { StoreHealth } from '../store/store-health.ts';
import type { ShardsAdmin } from './shards-admin.ts';
import { scopeOf, subjectMeant } from './viewed-subjects.ts';

const PAGE_SIZE_DEFAULT = 1_000;
const PAGE_SIZE_MAX = 10_000;
/** Of subjects.max and producers.max: from here on status warns. */
const USED_WARN = 0.8;

/** What the node as a process knows of itself. */
export interface NodeFacts {
  /** Whether traffic may be sent to it, and why not. */
  ready(): { readonly ready: boolean; readonly reasons: readonly string[] };
  /** Of the data directory. */
  diskRoom(): Promise<{ readonly freeBytes: number; readonly totalBytes: number }>;
  /** Of clients, that are open. */
  connections(): number;
  /** What else needs attention. */
  warnings(): readonly string[];
}

/** The admin service of one node: what its threads know, put together. */
export class AdminService implements AdminPort {
  readonly #dispatcher: Dispatcher;
  readonly #raft: RaftHandle;
  readonly #counters: readonly ShardCounters[];
  readonly #config: Config;
  readonly #nodeId: string;
  readonly #shards: ShardsAdmin;
  readonly #storeHealth: StoreHealth;
  readonly #cluster: Pick<ClusterService, 'standing'>;
  readonly #facts: NodeFacts;
  readonly #startedAt = performance.now();

  constructor(
    dispatcher: Dispatcher,
    raft: RaftHandle,
    counters: readonly ShardCounters[],
    config: Config,
    nodeId: string,
    shards: ShardsAdmin,
    storeHealth: StoreHealth,
    cluster: Pick<ClusterService, 'standing'>,
    facts: NodeFacts,
  ) {
    this.#facts = facts;
    this.#dispatcher = dispatcher;
    this.#raft = raft;
    this.#counters = counters;
    this.#config = config;
    this.#nodeId = nodeId;
    this.#shards = shards;
    this.#storeHealth = storeHealth;
    this.#cluster = cluster;
  }

  async status(): Promise<StatusResponse> {
    const raft = await this.#raft.status();
    if (raft === null) throw new BrokerError('NOT_READY');
    const [{ role, leader }, disk] = await Promise.all([this.#cluster.standing(), this.#facts.diskRoom()]);
    const { ready, reasons } = this.#facts.ready();
    const recent = this.#shards.recent();
    const { cluster, store, subjects, producers } = this.#config;
    const sum = (cell: Parameters<ShardCounters['get']>[0]): number =>
      this.#counters.reduce((total, counters) => total + counters.get(cell), 0);
    const damaged = sum('damaged_total');
    const warnings: string[] = [...this.#facts.warnings()];
    if (raft.subjects >= subjects.max * USED_WARN) {
      warnings.push(
        `${raft.subjects} of ${subjects.max} subjects are used, and a subject is never forgotten: raise subjects.max before new ones are refused`,
      );
    }
    if (raft.producers >= producers.max * USED_WARN) {
      warnings.push(
        `${raft.producers} of ${producers.max} producers are known: raise producers.max, or let clients use fewer producer ids`,
      );
    }
    if (leader === '') warnings.push('no leader is known: see `broker cluster status`');
    warnings.push(...this.#storeHealth.refusals().map((reason) => `new messages are refused: ${reason}`));
    warnings.push(
      ...this.#storeHealth.weaknesses.map(
        (weakness) => `acknowledged messages are replicated, not durable: ${weakness}`,
      ),
    );
    if (damaged > 0) warnings.push(`${damaged} reads met damaged or missing messages: see the log for their ids`);
    return {
      nodeId: this.#nodeId,
      cluster,
      version: VERSION,
      store: store.kind,
      durability: this.#dispatcher.producers.isWeak ? 'replicated' : 'durable',
      shards: this.#shards.count,
      uptimeMs: Math.round(performance.now() - this.#startedAt),
      subjects: raft.subjects,
      subjectsMax: subjects.max,
      producers: raft.producers,
      producersMax: producers.max,
      subscriptions: this.#dispatcher.seats.open,
      callsInFlight: this.#dispatcher.callsInFlight,
      bytesInFlight: this.#dispatcher.bytesInFlight,
      raftTerm: raft.term,
      raftApplied: raft.applied,
      raftSnapshot: raft.snapshotIndex,
      openAllotments: raft.openAllotments,
      storeBytes: sum('store_bytes'),
      storeSegments: sum('store_segments'),
      messagesPublished: sum('messages_total'),
      damaged,
      warnings,
      resize: this.#shards.running,
      role,
      leader,
      ready,
      notReady: [...reasons],
      messagesInPerSecond: recent.messagesIn,
      messagesOutPerSecond: recent.messagesOut,
      bytesInPerSecond: recent.bytesIn,
      bytesOutPerSecond: recent.bytesOut,
      mainUtilization: recent.mainUtilization,
      cpuUtilization: recent.cpuUtilization,
      publishP99Ms: recent.publishP99Ms,
      storeWriteP99Ms: recent.storeWriteP99Ms,
      diskFreeBytes: disk.freeBytes,
      diskBytes: disk.totalBytes,
      connections: this.#facts.connections(),
      clockMs: Date.now(),
    };
  }

  async listSubjects(request: ListSubjectsRequest, space: Uint8Array): Promise<ListSubjectsResponse> {
    const cursor = request.pageToken === '' ? 0 : Number(request.pageToken);
    if (!Number.isSafeInteger(cursor) || cursor < 0) throw new BrokerError('MALFORMED_MESSAGE', 'page_token');
    const limit = Math.min(PAGE_SIZE_MAX, request.pageSize === 0 ? PAGE_SIZE_DEFAULT : request.pageSize);
    const scope = scopeOf(space, request.tenant, request.prefix);
    const { rows, next } = await this.#raft.listSubjects(scope, cursor, limit);
    return {
      subjects: rows.map(({ subject: inner, first, head, settled }) => {
        const { tenant, subject } = nameOf(inner);
        return { name: subject, first, head, settled, tenant };
      }),
      nextPageToken: next < 0 ? '' : String(next),
    };
  }

  async subjectInfo(request: SubjectInfoRequest, space: Uint8Array): Promise<SubjectInfoResponse> {
    const inner = subjectMeant(space, request.tenant, request.subject);
    const { first, head, settled, batches, bytes, everExpires } = await this.#dispatcher.info(inner);
    const { tenant, subject: name } = nameOf(inner);
    return { subject: { name, first, head, settled, tenant }, batches, bytes, everExpires };
  }

  async trimSubject(request: TrimSubjectRequest, space: Uint8Array): Promise<TrimSubjectResponse> {
    const { first, subject, tenant } = request;
    if (!Number.isSafeInteger(first) || first < 1) throw new BrokerError('ID_INVALID');
    return { first: await this.#dispatcher.trim(subjectMeant(space, tenant, subject), first) };
  }

  listShards(): Promise<ListShardsResponse> {
    return this.#shards.list();
  }

  async resizeShards(shards: number): Promise<ShardsChange> {
    return this.#shards.resize(shards);
  }

  async moveSlot(slot: number, shard: number): Promise<ShardsChange> {
    return this.#shards.moveSlot(slot, shard);
  }

  adviseShards(): Promise<AdviseShardsResponse> {
    return this.#shards.advise();
  }
}
