/** What programs import as `broker`: docs/client.md. */

export type { Outcome } from '../base/errors.ts';
export type { CallOptions, CallStats } from './calls.ts';
export {
  ADDRESS_DEFAULT,
  Client,
  type ClusterChange,
  type ClusterMember,
  type ClusterMembers,
  type ConnectOptions,
  connect,
  type NodeStatus,
  type PublishOptions,
  type SubjectInfo,
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
