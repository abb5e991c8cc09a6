/** Rules between keys. Each is checked once, after every key by itself is known to be valid. */
import { CONSOLE_RULES } from './console-rules.ts';
import { formatEndpoint } from './endpoint.ts';
import { LISTENER_RULES } from './listener-rules.ts';
import { MEMBERSHIP_RULES } from './membership-rules.ts';
import type { Config } from './schema.ts';
import { TLS_RULES } from './tls-rules.ts';
import { formatBytes, formatDuration } from './units.ts';

export interface Rule {
  /** The key that the message names first: the one to change. */
  readonly key: string;
  /** As the documentation states it. */
  readonly text: string;
  /** `isGiven`: whether a key is not left at its default. */
  readonly holds: (config: Config, isGiven: (key: string) => boolean) => boolean;
  /** The figures on the other side, for the message. */
  readonly against: (config: Config) => string;
}

export { advertisedBy } from './membership-rules.ts';

/** Room that a record on a ring needs beside body and headers: subject, producer id, lengths, the record's own header. */
export const RING_RECORD_OVERHEAD_BYTES = 4_096;

/** Fewer replicas than a quorum may have what is acknowledged. */
const WEAK_CONSISTENCY = /^(LOCAL_ONE|ONE|TWO|THREE)$/;

/** `max_mutation_size` of Cassandra is half of `commitlog_segment_size`, 32 MiB in its cassandra.yaml; a row has more than the body. */
const CASSANDRA_BODY_BYTES_MAX = 8 << 20;
/** A batch is sealed at a quarter of `batch.bytes`, and an empty message takes two bytes of it: half of what a reader looks back (SPAN_IDS). */
const CASSANDRA_BATCH_BYTES_MAX = 4 << 20;

type TlsSection = Pick<Config['postgres'], 'tls' | 'tlsCa' | 'tlsCert' | 'tlsKey'> & {
  readonly tlsName?: string | null;
};

/** A certificate that is given and not used would let somebody believe in an encryption that there is not. */
function tlsRules(
  section: 'postgres' | 'cassandra',
  of: (config: Config) => TlsSection,
  keys: readonly string[],
): Rule[] {
  const names = keys.map((key) => `${section}.${key}`);
  return [
    {
      key: `${section}.tls`,
      text: `${section}.tls must not be off with ${names.slice(0, -1).join(', ')} or ${names.at(-1)}`,
      holds: (config) => {
        const { tls, tlsCa, tlsCert, tlsKey, tlsName } = of(config);
        return tls !== 'off' || [tlsCa, tlsCert, tlsKey, tlsName ?? null].every((value) => value === null);
      },
      against: () => 'one of them is set',
    },
    {
      key: `${section}.tls_cert`,
      text: `${section}.tls_cert and ${section}.tls_key must be given both or neither`,
      holds: (config) => (of(config).tlsCert === null) === (of(config).tlsKey === null),
      against: (config) => `${section}.tls_key is ${of(config).tlsKey === null ? 'not set' : 'set'}`,
    },
  ];
}

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
  ...CONSOLE_RULES,
  ...MEMBERSHIP_RULES,
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
  {
    key: 'cassandra.contact_points',
    text: 'cassandra.contact_points is needed with store cassandra',
    holds: ({ store, cassandra }) => store.kind !== 'cassandra' || cassandra.contactPoints !== null,
    against: () => 'it is not set',
  },
  {
    key: 'cassandra.datacenter',
    text: 'cassandra.datacenter is needed with store cassandra',
    holds: ({ store, cassandra }) => store.kind !== 'cassandra' || cassandra.datacenter !== null,
    against: () => 'it is not set',
  },
  {
    key: 'cassandra.username',
    text: 'cassandra.username and cassandra.password must be given both or neither',
    holds: ({ store, cassandra }) =>
      store.kind !== 'cassandra' || (cassandra.username === null) === (cassandra.password === null),
    against: ({ cassandra }) => `cassandra.password is ${cassandra.password === null ? 'not set' : 'set'}`,
  },
  {
    key: 'cassandra.consistency',
    text: 'cassandra.consistency must be at least LOCAL_QUORUM, unless store.accept_weak_durability',
    holds: ({ store, cassandra }) =>
      store.kind !== 'cassandra' || store.acceptWeakDurability || !WEAK_CONSISTENCY.test(cassandra.consistency),
    against: () => 'that is false',
  },
  {
    key: 'limits.body_bytes',
    text: 'limits.body_bytes must be at most 8MiB with store cassandra, which refuses rows of half a segment of its commit log (16MiB as it ships)',
    holds: ({ store, limits }) => store.kind !== 'cassandra' || limits.bodyBytes <= CASSANDRA_BODY_BYTES_MAX,
    against: () => 'that is more',
  },
  {
    key: 'batch.bytes',
    text: 'batch.bytes must be at most 4MiB with store cassandra, in which a batch has no more than 2^20 messages',
    holds: ({ store, batch }) => store.kind !== 'cassandra' || batch.bytes <= CASSANDRA_BATCH_BYTES_MAX,
    against: () => 'that is more',
  },
  ...TLS_RULES,
  ...LISTENER_RULES,
  ...tlsRules('postgres', ({ postgres }) => postgres, ['tls_ca', 'tls_cert', 'tls_key']),
  ...tlsRules('cassandra', ({ cassandra }) => cassandra, ['tls_ca', 'tls_cert', 'tls_key', 'tls_name']),
];
