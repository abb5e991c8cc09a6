/** Rules between keys. Each is checked once, after every key by itself is known to be valid. */
import { type Endpoint, formatEndpoint, isAnyAddress } from './endpoint.ts';
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

/** Fewer replicas than a quorum may have what is acknowledged. */
const WEAK_CONSISTENCY = /^(LOCAL_ONE|ONE|TWO|THREE)$/;

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

/** It will have peers, by what it was told; what its data directory says is found out at the start. */
function hasPeers({ bootstrap, join }: Config): boolean {
  return bootstrap || join !== null;
}

/** Whether peers can be told where to connect: also after the next start, so that the system may not choose the port. */
function isAdvertisable({ listen, advertise }: { listen: Endpoint; advertise: Endpoint | null }): boolean {
  return advertise !== null || (listen.port > 0 && !isAnyAddress(listen));
}

/** HOST:PORT as peers reach the node's ports; null if nobody could. */
export function advertisedBy({ raft, grpc }: Pick<Config, 'raft' | 'grpc'>): { raft: string; grpc: string } | null {
  if (!isAdvertisable(raft) || !isAdvertisable(grpc)) return null;
  return { raft: formatEndpoint(raft.advertise ?? raft.listen), grpc: formatEndpoint(grpc.advertise ?? grpc.listen) };
}

function advertiseRule(section: 'grpc' | 'raft'): Rule {
  return {
    key: `${section}.advertise`,
    text: `${section}.advertise is needed with bootstrap or join where ${section}.listen is 0.0.0.0 or [::], or its port is 0`,
    holds: (config) => !hasPeers(config) || isAdvertisable(config[section]),
    against: (config) => `${section}.listen is ${formatEndpoint(config[section].listen)}`,
  };
}

/** The messages of an embedded store are on the disk of one node: another one could not read them. */
function sharedStoreRule(key: 'bootstrap' | 'join'): Rule {
  return {
    key,
    text: `${key} needs a store that all nodes share (postgres or cassandra): embedded keeps the messages on the disk of one node`,
    holds: (config) =>
      config.store.kind !== 'embedded' || (key === 'bootstrap' ? !config.bootstrap : config.join === null),
    against: ({ store }) => `store is ${store.kind}`,
  };
}

function differentPorts(section: 'grpc' | 'admin'): Rule {
  return {
    key: 'raft.listen',
    text: `raft.listen and ${section}.listen must differ with bootstrap or join`,
    holds: (config) =>
      !hasPeers(config) ||
      config.raft.listen.port === 0 ||
      formatEndpoint(config.raft.listen) !== formatEndpoint(config[section].listen),
    against: (config) => `${section}.listen is ${formatEndpoint(config[section].listen)}`,
  };
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
  sharedStoreRule('bootstrap'),
  sharedStoreRule('join'),
  advertiseRule('grpc'),
  advertiseRule('raft'),
  differentPorts('grpc'),
  differentPorts('admin'),
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
  ...tlsRules('postgres', ({ postgres }) => postgres, ['tls_ca', 'tls_cert', 'tls_key']),
  ...tlsRules('cassandra', ({ cassandra }) => cassandra, ['tls_ca', 'tls_cert', 'tls_key', 'tls_name']),
];
