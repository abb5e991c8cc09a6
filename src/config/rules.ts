/** Rules between keys. Each is checked once, after every key by itself is known to be valid. */
import { formatEndpoint } from './endpoint.ts';
import type { Config } from './schema.ts';
import { formatBytes, formatDuration } from './units.ts';

export interface Rule {
  /** The key that the message names first: the one to change. */
  readonly key: string;
  /** As the documentation states it. */
  readonly text: string;
  readonly holds: (config: Config) => boolean;
  /** The figures on the other side, for the message. */
  readonly against: (config: Config) => string;
}

/** Room that a record on a ring needs beside body and headers: subject, producer id, lengths, the record's own header. */
export const RING_RECORD_OVERHEAD_BYTES = 4_096;

export const RULES: readonly Rule[] = [
  {
    key: 'limits.body_bytes',
    text: 'limits.body_bytes must be at most half of limits.message_bytes',
    holds: ({ limits }) => limits.bodyBytes <= limits.messageBytes / 2,
    against: ({ limits }) => `limits.message_bytes is ${formatBytes(limits.messageBytes)}`,
  },
  {
    key: 'limits.headers_bytes',
    text: 'limits.headers_bytes must be at most a quarter of limits.message_bytes',
    holds: ({ limits }) => limits.headersBytes <= limits.messageBytes / 4,
    against: ({ limits }) => `limits.message_bytes is ${formatBytes(limits.messageBytes)}`,
  },
  {
    key: 'limits.in_flight_bytes',
    text: 'limits.in_flight_bytes must be at least limits.message_bytes',
    holds: ({ limits }) => limits.inFlightBytes >= limits.messageBytes,
    against: ({ limits }) => `limits.message_bytes is ${formatBytes(limits.messageBytes)}`,
  },
  {
    key: 'ring.bytes',
    text: 'ring.bytes must be at least 4 times limits.body_bytes',
    holds: ({ limits, ring }) => ring.bytes >= 4 * limits.bodyBytes,
    against: ({ limits }) => `limits.body_bytes is ${formatBytes(limits.bodyBytes)}`,
  },
  {
    key: 'ring.bytes',
    text: 'ring.bytes must be at least twice limits.body_bytes + limits.headers_bytes + 4KiB',
    holds: ({ limits, ring }) =>
      ring.bytes >= 2 * (limits.bodyBytes + limits.headersBytes + RING_RECORD_OVERHEAD_BYTES),
    against: ({ limits }) => `limits.headers_bytes is ${formatBytes(limits.headersBytes)}`,
  },
  {
    key: 'batch.bytes',
    text: 'batch.bytes must be at most a quarter of ring.bytes',
    holds: ({ batch, ring }) => batch.bytes <= ring.bytes / 4,
    against: ({ ring }) => `ring.bytes is ${formatBytes(ring.bytes)}`,
  },
  {
    key: 'publish.window_max',
    text: 'publish.window_max must be at least publish.window_min',
    holds: ({ publish }) => publish.windowMax >= publish.windowMin,
    against: ({ publish }) => `publish.window_min is ${formatBytes(publish.windowMin)}`,
  },
  {
    key: 'shards.count',
    text: 'shards.count must be at most shards.max',
    holds: ({ shards }) => shards.count <= shards.max,
    against: ({ shards }) => `shards.max is ${shards.max}`,
  },
  {
    key: 'segment.bytes',
    text: 'segment.bytes must be at least batch.bytes',
    holds: ({ segment, batch }) => segment.bytes >= batch.bytes,
    against: ({ batch }) => `batch.bytes is ${formatBytes(batch.bytes)}`,
  },
  {
    key: 'raft.election_timeout',
    text: 'raft.election_timeout must be at least 5 times raft.heartbeat',
    holds: ({ raft }) => raft.electionTimeoutMs >= 5 * raft.heartbeatMs,
    against: ({ raft }) => `raft.heartbeat is ${formatDuration(raft.heartbeatMs)}`,
  },
  {
    key: 'overload.interval',
    text: 'overload.interval must be at least overload.target',
    holds: ({ overload }) => overload.intervalMs >= overload.targetMs,
    against: ({ overload }) => `overload.target is ${formatDuration(overload.targetMs)}`,
  },
  {
    key: 'admin.listen',
    text: 'admin.listen and grpc.listen must differ',
    holds: ({ admin, grpc }) => admin.listen.port === 0 || formatEndpoint(admin.listen) !== formatEndpoint(grpc.listen),
    against: ({ grpc }) => `grpc.listen is ${formatEndpoint(grpc.listen)}`,
  },
  {
    key: 'store.kind',
    text: 'store.kind must be embedded or postgres: the shards of this version do not write to Cassandra yet',
    holds: ({ store }) => store.kind !== 'cassandra',
    against: ({ store }) => `store is ${store.kind}`,
  },
  {
    key: 'store.kind',
    text: 'store.kind postgres is not finished: it needs store.experimental',
    holds: ({ store }) => store.kind !== 'postgres' || store.experimental,
    against: () => 'store.experimental is false',
  },
  {
    key: 'postgres.url',
    text: 'postgres.url is needed with store postgres',
    holds: ({ store, postgres }) => store.kind !== 'postgres' || postgres.url !== null,
    against: () => 'it is not set',
  },
  {
    key: 'postgres.url',
    text: 'postgres.url must not say how to encrypt (ssl…) when postgres.tls does: the driver would take its word',
    holds: ({ postgres }) => postgres.tls === 'off' || postgres.url === null || !/[?&]ssl/i.test(postgres.url),
    against: ({ postgres }) => `postgres.tls is ${postgres.tls}`,
  },
];
