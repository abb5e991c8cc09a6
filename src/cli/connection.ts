/** What the commands ask of a broker. client-connection.ts answers with the client. Every method fails with a CliError. */
import type {
  ClusterChange,
  ClusterMember,
  ClusterMembers,
  GossipKeys,
  HealthStatus,
  InspectMethod,
  Message,
  NodeSetting,
  NodeStatus,
  OpenConnections,
  OpenSubscriptions,
  PublishOptions,
  Start,
  SubjectInfo,
  SubscriptionsRequest,
  Tenants,
  TopSubjects,
  Verification,
} from '../client/index.ts';

export type { InspectMethod } from '../client/index.ts';

export interface PublishInput {
  readonly subject: string;
  readonly body: Uint8Array;
  readonly options: Pick<PublishOptions, 'headers' | 'expirationSeconds' | 'producer'>;
}

export interface ShardRow {
  readonly shard: number;
  readonly slots: number;
  readonly serving: boolean;
  /** Shares of the last seconds, 0 to 1. */
  readonly utilization: number;
  readonly storeBusy: number;
  readonly messagesPerSecond: number;
  readonly bytesPerSecond: number;
  readonly queueWaitMs: number;
  readonly storeWriteMs: number;
  readonly groupMessages: number;
  readonly hotSubjects: readonly { readonly tenant: string; readonly subject: string; readonly share: number }[];
}

/** A change of the shards: under way, or the last one. */
export interface ShardsChange {
  readonly running: boolean;
  readonly what: string;
  readonly slotsMoved: number;
  readonly slotsTotal: number;
  readonly pauseMsMax: number;
  readonly durationMs: number;
  /** Why it ended early; '' if it did not. */
  readonly error: string;
}

export interface ShardsAdvice {
  readonly shards: number;
  readonly recommended: number;
  readonly reason: string;
  readonly effect: string;
  readonly [figure: string]: string | number;
}

/** `fingerprint`: of use and remove, in place of the key. */
export interface GossipKeyChange {
  readonly action: 'list' | 'install' | 'use' | 'remove';
  readonly key?: Buffer;
  readonly fingerprint?: string;
}

export interface Connection {
  /** Resolves with the id once the message is durable. */
  publish(input: PublishInput): Promise<number>;
  fetch(subject: string, id: number): Promise<Message>;
  /** Ends without an error at an interrupt. */
  subscribe(subjects: readonly string[], start: Start, broadcasts: boolean): AsyncIterable<Message>;
  status(): Promise<NodeStatus>;
  /** '': the whole server. */
  health(service: string): Promise<HealthStatus>;
  /** Page by page, in the broker's order. */
  listSubjects(prefix: string): AsyncIterable<SubjectInfo>;
  subjectInfo(subject: string): Promise<SubjectInfo>;
  /** Gives up all ids below `first`. */
  trim(subject: string, first: number): Promise<SubjectInfo>;
  listShards(): Promise<{ readonly shards: readonly ShardRow[]; readonly change: ShardsChange }>;
  /** Resolves when the change has begun. */
  resizeShards(shards: number): Promise<ShardsChange>;
  moveSlot(slot: number, shard: number): Promise<ShardsChange>;
  adviseShards(): Promise<{ readonly advice: ShardsAdvice; readonly shards: readonly ShardRow[] }>;
  settings(): Promise<readonly NodeSetting[]>;
  /** It is in force when this resolves. */
  changeSetting(key: string, value: string): Promise<NodeSetting>;
  /** The node's answer as it is. */
  inspect(method: InspectMethod): Promise<object>;
  /** Files of a bundle, in parts. */
  debugInfo(cpuProfileMs: number): AsyncIterable<{ readonly name: string; readonly content: Uint8Array }>;
  subscriptions(request: SubscriptionsRequest): Promise<OpenSubscriptions>;
  connections(limit: number): Promise<OpenConnections>;
  topSubjects(limit: number): Promise<TopSubjects>;
  tenants(limit: number): Promise<Tenants>;
  members(): Promise<ClusterMembers>;
  addMember(
    member: Pick<ClusterMember, 'nodeId' | 'instanceId' | 'raftAddress' | 'grpcAddress'>,
  ): Promise<ClusterChange>;
  /** `instanceId`: '' for whichever it is. */
  removeMember(nodeId: string, instanceId: string, force: boolean): Promise<ClusterChange>;
  promoteMember(nodeId: string): Promise<ClusterChange>;
  /** '': the voter that has most of the log. */
  transferLeader(nodeId: string): Promise<ClusterChange>;
  gossipKeys(change: GossipKeyChange): Promise<GossipKeys>;
  /** Ends with an answer that is `done`. `bytesPerSecond`: 0: as fast as it goes. */
  verify(prefix: string, bytesPerSecond: number): AsyncIterable<Verification>;
  close(): Promise<void>;
}
