/** What programs import as `broker`: docs/clients.md. */

export type { Outcome } from '../base/errors.ts';
export type { AdviseShardsResponse, ListShardsResponse, ShardsChange } from '../grpc/gen/broker/v1/admin.ts';
export { readAddress, tlsWanted } from './addresses.ts';
export type { CallOptions, CallStats } from './calls.ts';
export {
  ADDRESS_DEFAULT,
  Client,
  type ClusterChange,
  type ClusterMember,
  type ClusterMembers,
  type ConnectOptions,
  connect,
  type GossipKeys,
  type HealthStatus,
  type InspectMethod,
  type NodeSetting,
  type NodeStatus,
  type OpenConnections,
  type OpenSubscriptions,
  type PublishOptions,
  type SubjectInfo,
  type SubscriptionsRequest,
  type TenantOptions,
  type Tenants,
  type TopSubjects,
  type Verification,
} from './client.ts';
export type { Start } from './codec.ts';
export {
  ClientError,
  type ClientErrorFields,
  ConnectionError,
  RefusedError,
  TimeoutError,
  UsageError,
} from './errors.ts';
export type { Body, Header, HeadersInput, Message, MessageBatch } from './message.ts';
export type { MessageOptions, PublishedRange, Publisher, PublisherOptions, PublisherStats } from './publisher.ts';
export type { SubscribeOptions } from './subscribe-options.ts';
export type { SubjectPosition, Subscription } from './subscription.ts';
export type { TlsOptions } from './tls.ts';
export type { TokenSource } from './token.ts';
export { traceContext } from './tracing.ts';
