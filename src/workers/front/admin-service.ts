import { BrokerError } from '../../base/errors.ts';
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
  SubjectInfoResponse,
  TrimSubjectResponse,
} from '../../grpc/gen/broker/v1/admin.ts';
import type { RaftHandle } from '../raft/raft-handle.ts';
import type { ShardCounters } from '../shard/shard-counters.ts';
import type { ClusterService } from './cluster-service.ts';
import type { Dispatcher } from './dispatcher.ts';
import type { ShardsAdmin } from './shards-admin.ts';
import type { StoreHealth } from './store-health.ts';

const PAGE_SIZE_DEFAULT = 1_000;
const PAGE_SIZE_MAX = 10_000;
/** Of subjects.max: from here on status warns, because subjects are for life. */
const SUBJECTS_WARN = 0.8;

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
  ) {
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
    const { role, leader } = await this.#cluster.standing();
    const { cluster, store, subjects, producers } = this.#config;
    const sum = (cell: Parameters<ShardCounters['get']>[0]): number =>
      this.#counters.reduce((total, counters) => total + counters.get(cell), 0);
    const damaged = sum('damaged_total');
    const warnings: string[] = [];
    if (raft.subjects >= subjects.max * SUBJECTS_WARN) {
      warnings.push(
        `${raft.subjects} of ${subjects.max} subjects are used (subjects.max); a subject is never forgotten`,
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
    };
  }

  async listSubjects(request: ListSubjectsRequest): Promise<ListSubjectsResponse> {
    const cursor = request.pageToken === '' ? 0 : Number(request.pageToken);
    if (!Number.isSafeInteger(cursor) || cursor < 0) throw new BrokerError('MALFORMED_MESSAGE', 'page_token');
    const limit = Math.min(PAGE_SIZE_MAX, request.pageSize === 0 ? PAGE_SIZE_DEFAULT : request.pageSize);
    const { rows, next } = await this.#raft.listSubjects(Buffer.from(request.prefix), cursor, limit);
    return {
      subjects: rows.map(({ subject, first, head, settled }) => ({ name: nameOf(subject), first, head, settled })),
      nextPageToken: next < 0 ? '' : String(next),
    };
  }

  async subjectInfo(subject: string): Promise<SubjectInfoResponse> {
    const { first, head, settled, batches, bytes, everExpires } = await this.#dispatcher.info(Buffer.from(subject));
    return { subject: { name: subject, first, head, settled }, batches, bytes, everExpires };
  }

  async trimSubject(subject: string, first: number): Promise<TrimSubjectResponse> {
    if (!Number.isSafeInteger(first) || first < 1) throw new BrokerError('ID_INVALID');
    return { first: await this.#dispatcher.trim(Buffer.from(subject), first) };
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

function nameOf(subject: Uint8Array): string {
  return Buffer.from(subject).toString();
}
