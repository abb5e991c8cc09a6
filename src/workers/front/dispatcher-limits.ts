import type { Config } from '../../config/schema.ts';
import type { ScanLimits } from '../../grpc/codec.ts';
import type { ConsumerLimits } from './consumers.ts';
import type { ProducerStreamLimits } from './producer-streams.ts';
import type { SubscriptionLimits } from './subscriptions.ts';

/**
 * What batches of publish streams may wait at a database, in ms. Such a group passes two entries of the log and a commit, and waits for the
 * groups before it in each: with less than about five of these steps windows shrink until the database is idle most of the time.
 */
const DATABASE_TARGET_MIN_MS = 50;
/** What a publish stream may have in flight before anything is known of it: some milliseconds of what a stream can carry. */
const WINDOW_START_BYTES = 1 << 20;

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
  /** limits.request_timeout in ms. */
  readonly requestTimeoutMs: number;
  readonly scan: ScanLimits;
}

/** `recordOverheadBytes`: what a message may need in a ring beside its body and headers. */
export function dispatcherLimits(config: Config, recordOverheadBytes: number): DispatcherLimits {
  const { limits, subscribe, shards, batch, publish, store } = config;
  return {
    shardsMax: shards.max,
    ringBytes: config.ring.bytes,
    callsMax: limits.inFlightCalls,
    bytesMax: limits.inFlightBytes,
    receiveTimeoutMs: limits.receiveTimeoutMs,
    requestTimeoutMs: limits.requestTimeoutMs,
    subscriptionsMax: limits.subscriptions,
    consumerSubjectsMax: limits.consumerSubjects,
    bufferBytes: subscribe.bufferBytes,
    unsentBytesMax: subscribe.unsentBytes,
    stallTimeoutMs: subscribe.stallTimeoutMs,
    producerStreamsMax: limits.producerStreams,
    // A batch is as large as a group may be, and one message always fits.
    sectionBytesMax: Math.max(batch.bytes, limits.bodyBytes + limits.headersBytes + recordOverheadBytes / 2),
    window: {
      bytesMin: publish.windowMin,
      bytesStart: Math.max(publish.windowMin, Math.min(publish.windowMax, WINDOW_START_BYTES)),
      bytesMax: publish.windowMax,
      targetMs:
        store.kind === 'embedded' ? publish.targetDelayMs : Math.max(DATABASE_TARGET_MIN_MS, publish.targetDelayMs),
    },
    scan: { bodyBytes: limits.bodyBytes, headersBytes: limits.headersBytes, headersCount: limits.headersCount },
  };
}
