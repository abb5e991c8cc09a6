import type { ScanLimits } from '../../grpc/codec.ts';
import type { ConsumerLimits } from './consumers.ts';
import type { ProducerStreamLimits } from './producer-streams.ts';
import type { SubscriptionLimits } from './subscriptions.ts';

/** Everything that bounds what the main thread takes in and gives out. */
export interface DispatcherLimits extends SubscriptionLimits, ProducerStreamLimits, ConsumerLimits {
  /** subscribe.unsent_bytes */
  readonly unsentBytesMax: number;
  /** limits.subscriptions */
  readonly subscriptionsMax: number;
  /** shards.max */
  readonly shardsMax: number;
  /** ring.bytes */
  readonly ringBytes: number;
  /** limits.in_flight_calls */
  readonly callsMax: number;
  /** limits.in_flight_bytes */
  readonly bytesMax: number;
  /** limits.receive_timeout in ms. */
  readonly receiveTimeoutMs: number;
  readonly scan: ScanLimits;
}
