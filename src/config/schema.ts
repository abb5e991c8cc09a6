/**
 * Every key of the configuration: the only list. Flags, variables, the YAML file, `broker config print`, docs/configuration.md and its
 * JSON schema, and the type `Config` are all made from it.
 */
import { NAME, NAME_RULE } from '../base/node-name.ts';
import { ACCESS } from './access-schema.ts';
import { CONSOLE } from './console-schema.ts';
import {
  boolean,
  bytes,
  choice,
  duration,
  endpoint,
  endpoints,
  type Field,
  integer,
  optionalEndpoint,
  optionalText,
  secretText,
  text,
} from './field.ts';
import { BOOTSTRAP_EXPECT, DISCOVERY, GOSSIP } from './membership-schema.ts';
import { METRICS } from './metrics-schema.ts';
import { QUOTAS } from './quota-schema.ts';
import { ADMIN_TLS, TLS } from './tls-schema.ts';
import { TRACING } from './tracing-schema.ts';
import { URL_DISGUISE } from './url-disguise.ts';

/** Where messages can be. */
export const STORE_KINDS = ['embedded', 'postgres', 'cassandra'] as const;
/** Hosts by name, IPv4 address or IPv6 address in brackets, each with a port or without. */
const CONTACT_POINTS = /^(\[[0-9A-Fa-f:.]+\]|[^\s,:[\]]+)(:\d{1,5})?(,(\[[0-9A-Fa-f:.]+\]|[^\s,:[\]]+)(:\d{1,5})?)*$/;
/** Names and values in quotes, numbers also without: nothing that could end the statement it becomes a part of. */
const REPLICATION = /^([1-9]\d?|\{ *'class' *: *'[A-Za-z.]+'( *, *'[^'\\]+' *: *('[\w/]+'|\d+))* *\})$/;

const FILE_PATTERN = /^[^\0]+$/;
const FILE_RULE = 'the path of a file';

export const SCHEMA = {
  data_dir: text({
    pattern: /^[^\0]+$/,
    rule: 'the path of a folder',
    default: './data',
    doc: 'Folder of everything that this node keeps: Raft log, segments, node id. It is created if absent, and locked while a broker runs on it. A relative path starts at the working directory.',
  }),
  node_id: optionalText({
    pattern: NAME,
    rule: NAME_RULE,
    unset: 'random, kept in the data directory',
    doc: 'Name of this node in its cluster. A data directory keeps the name it was made with; another one is refused.',
  }),
  cluster: text({
    pattern: NAME,
    rule: NAME_RULE,
    default: 'broker',
    doc: 'Name of the cluster. Nodes of different names never join each other.',
  }),
  bootstrap: boolean({
    default: false,
    doc: 'Begin a cluster: the first node of several is started with it, once. It is born by a row in the database that all its nodes share, so at most one node can begin it; a node that has state already, or finds the row, begins nothing and says so. Together with `join` on every node, whichever comes first begins and the others join it.',
  }),
  bootstrap_expect: BOOTSTRAP_EXPECT,
  join: endpoints({
    unset: 'none',
    doc: 'Members, by their gRPC addresses, of the cluster that a node without state joins; one that answers is enough. It waits until there is such a cluster. A node that has joined needs it no more.',
  }),
  accept_clock: boolean({
    default: false,
    doc: 'Start although the clock is more than 24 h ahead of the last log time. Log time never falls, so after a start with a wrong clock messages carry wrong times until the clock has caught up.',
  }),
  insecure: boolean({
    default: false,
    doc: 'Let ports listen beyond this machine although strangers can read or use them: gRPC and admin without TLS and authentication, gRPC of a cluster whose nodes show neither certificates nor a key, Raft without TLS, gossip without a key. Without it such a start is refused. For development, and where something in front of the broker does all of that; the log says so at the start and once an hour.',
  }),
  shards: {
    count: integer({
      shortName: 'shards',
      min: 1,
      max: 64,
      default: (machine) => Math.min(64, Math.max(1, machine.cores - 1)),
      defaultText: 'cores - 1, at least 1',
      doc: 'Shard threads at the start. Each owns a part of the subjects; nothing stored depends on the number, and `broker shards resize` changes it while the broker runs. Turn it up while shards are busy and cores are idle (`broker shards advise` says when); each costs about 20 MiB beside its caches and rings.',
    }),
    max: integer({
      min: 1,
      max: 64,
      default: (machine) => Math.min(64, Math.max(8, machine.cores * 2)),
      defaultText: 'twice the cores, 8 to 64',
      doc: 'Most shard threads that `broker shards resize` may make. A number that is not used costs nothing.',
    }),
    auto: boolean({
      default: false,
      doc: 'Follow the advice of `broker shards advise` by itself, once it has been the same for `shards.auto_after`. Off, it is only given when asked for.',
    }),
    auto_after: duration({
      min: '100ms',
      max: '1d',
      default: '30s',
      doc: 'With `shards.auto`: how long more shards must have been advised before they are made; fewer, ten times as long. There is at most one change in twice this time. Turn it up if the load comes in waves that are not worth a change.',
    }),
  },
  grpc: {
    listen: endpoint({
      default: '127.0.0.1:8081',
      doc: 'Where clients connect: in clear text, or with `tls.cert` by TLS alone. It listens on loopback unless told otherwise.',
    }),
    advertise: optionalEndpoint({
      unset: 'where it listens',
      doc: 'Where clients and other nodes reach `grpc.listen`. Needed in a cluster if that is 0.0.0.0 or [::].',
    }),
    max_connection_age: duration({
      min: '1s',
      max: '365d',
      zero: 'off',
      default: '0',
      doc: 'A connection that is older is asked to reconnect, which spreads clients over nodes again after one was added. Streams on it end with UNAVAILABLE; 10m to 1h suits most.',
    }),
  },
  admin: {
    listen: endpoint({
      default: '127.0.0.1:8000',
      doc: 'Address of the HTTP server for /metrics, /healthz, /readyz and the web console. It tells names of subjects and, with the console, messages to whoever can reach it; with `access.file` to those whose token has `observe` (/healthz and /readyz stay open).',
    }),
    tls: ADMIN_TLS,
  },
  tls: TLS,
  console: CONSOLE,
  access: ACCESS,
  store: {
    kind: choice({
      shortName: 'store',
      values: STORE_KINDS,
      default: 'embedded',
      doc: 'Where messages are durable. `embedded` is the log of this node itself, in its data directory; `postgres` and `cassandra` are databases that you run. docs/stores.md says which one when.',
    }),
    timeout: duration({
      min: '100ms',
      max: '5m',
      default: '10s',
      doc: 'How long a database may take for one request. A write that was not answered by then is repeated or given up; its calls are answered UNAVAILABLE or OUTCOME_UNKNOWN. `embedded` has no use for it.',
    }),
    accept_weak_durability: boolean({
      default: false,
      doc: 'Start although the settings of the database lose acknowledged messages in a power cut. Acknowledgements, log and status then say `replicated` instead of `durable`.',
    }),
    low_space_bytes: bytes({
      min: '16MiB',
      max: '1TiB',
      default: '256MiB',
      doc: 'With less free space than this on the disk of the data directory new messages are refused (STORE_FULL) and reads go on. It must be enough for one snapshot and the closing of what is in flight.',
    }),
    cache_bytes: bytes({
      min: '1MiB',
      max: '64GiB',
      default: '32MiB',
      doc: 'Recently written batches kept in memory, all shards together; with a database also those that `Fetch` has read. Turn it up if `Fetch` and subscribers a little behind often read from disk.',
    }),
  },
  postgres: {
    url: secretText({
      pattern: /^postgres(ql)?:\/\/.+$/,
      rule: 'a URL such as postgres://user:password@host:5432/database',
      unset: 'needed with store postgres',
      disguise: URL_DISGUISE,
      doc: 'The PostgreSQL server, which has to be a primary. The password is never printed.',
    }),
    schema: text({
      pattern: /^[a-z_][a-z0-9_]{0,39}$/,
      rule: '1 to 40 lower case letters, digits or "_", not beginning with a digit',
      default: 'broker',
      doc: 'Schema of the tables, created if absent. Clusters that share a database need one each.',
    }),
    pool: integer({
      min: 2,
      max: 200,
      default: 8,
      doc: 'Connections of each shard at most, and of the main thread: the server has to allow this many times the shards and one. Half of them, at most 4, are kept for writes, one for each group of batches that is written at a time; the others serve reads and trims.',
    }),
    tls: choice({
      values: ['off', 'verify', 'encrypt'],
      default: 'off',
      doc: '`verify` checks the certificate and name of the server, `encrypt` only encrypts, which does not protect from somebody in between.',
    }),
    tls_ca: optionalText({
      pattern: FILE_PATTERN,
      rule: FILE_RULE,
      isFile: true,
      unset: 'those that Node knows',
      doc: 'Certificate authorities (PEM) that vouch for the server.',
    }),
    tls_cert: optionalText({
      pattern: FILE_PATTERN,
      rule: FILE_RULE,
      isFile: true,
      unset: 'none',
      doc: 'Certificate (PEM) with which the broker shows who it is.',
    }),
    tls_key: optionalText({
      pattern: FILE_PATTERN,
      rule: FILE_RULE,
      isFile: true,
      unset: 'none',
      doc: 'Private key (PEM) of `postgres.tls_cert`.',
    }),
  },
  cassandra: {
    contact_points: optionalText({
      pattern: CONTACT_POINTS,
      rule: 'HOST or HOST:PORT, several with commas between, IPv6 addresses in brackets',
      isList: true,
      unset: 'needed with store cassandra',
      doc: 'Nodes of Cassandra from which the others are learned. Name two or three, so that a start does not depend on one; without a port it is 9042.',
    }),
    datacenter: optionalText({
      pattern: /^\S+$/,
      rule: 'the name of a data centre',
      unset: 'needed with store cassandra',
      doc: 'The one data centre that every node of the broker writes to and reads from: a quorum there is what makes a write visible. The keyspace keeps the name, and another one is refused.',
    }),
    keyspace: text({
      pattern: /^[a-z][a-z0-9_]{0,47}$/,
      rule: '1 to 48 lower case letters, digits or "_", beginning with a letter',
      default: 'broker',
      doc: 'Keyspace of the tables, created if absent.',
    }),
    replication: text({
      pattern: REPLICATION,
      rule: "a number from 1 to 99, or a map of CQL such as {'class': 'NetworkTopologyStrategy', 'dc1': 3}",
      default: '1',
      doc: 'Replication of a keyspace that the broker creates; an existing one stays as it is. A number is that of the copies in `cassandra.datacenter`: 3 is what survives the loss of a node. For more data centres write the map.',
    }),
    consistency: choice({
      values: ['LOCAL_QUORUM', 'QUORUM', 'EACH_QUORUM', 'ALL', 'THREE', 'TWO', 'ONE', 'LOCAL_ONE'],
      default: 'LOCAL_QUORUM',
      doc: 'Of writes. Reads are at one that meets it: LOCAL_QUORUM, or QUORUM for QUORUM. What is weaker than LOCAL_QUORUM needs `store.accept_weak_durability`, and its reads ask every replica (ALL), so that nothing acknowledged is overlooked. Before a change to a stronger one run `nodetool repair`.',
    }),
    in_flight: integer({
      min: 1,
      max: 2_048,
      default: 128,
      doc: 'Writes of one shard on their way at a time; of reads, half as many. Turn it up if the round trip is long and the servers are idle; down if they time out.',
    }),
    username: optionalText({
      pattern: /^.+$/,
      rule: 'a name',
      unset: 'no login',
      doc: 'Login, together with `cassandra.password`.',
    }),
    password: secretText({
      pattern: /^.+$/,
      rule: 'a password',
      unset: 'no login',
      doc: 'Never printed. Give it as a variable or in a file that only the broker can read: flags are seen by every user of the machine.',
    }),
    tls: choice({
      values: ['off', 'verify', 'encrypt'],
      default: 'off',
      doc: '`verify` checks the certificate and name of the server, `encrypt` only encrypts, which does not protect from somebody in between.',
    }),
    tls_ca: optionalText({
      pattern: FILE_PATTERN,
      rule: FILE_RULE,
      isFile: true,
      unset: 'those that Node knows',
      doc: 'Certificate authorities (PEM) that vouch for the servers.',
    }),
    tls_cert: optionalText({
      pattern: FILE_PATTERN,
      rule: FILE_RULE,
      isFile: true,
      unset: 'none',
      doc: 'Certificate (PEM) with which the broker shows who it is.',
    }),
    tls_key: optionalText({
      pattern: FILE_PATTERN,
      rule: FILE_RULE,
      isFile: true,
      unset: 'none',
      doc: 'Private key (PEM) of `cassandra.tls_cert`.',
    }),
    tls_name: optionalText({
      pattern: /^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$/,
      rule: 'the name of a host',
      unset: 'the address of each server',
      doc: 'Name that the certificate of every server must carry. Servers learn of each other by address, so without it their certificates need their addresses.',
    }),
  },
  segment: {
    bytes: bytes({
      min: '1MiB',
      max: '2GiB',
      default: '128MiB',
      doc: 'A segment file is closed at this size. Retention drops whole segments: smaller ones give space back sooner and make more files.',
    }),
  },
  retention: {
    max_age: duration({
      min: '1s',
      max: '36500d',
      zero: 'off',
      default: '0',
      doc: 'A segment whose newest message is older is dropped, once it is full (`segment.bytes`): the one being written stays. Deletion is by log time and wall clock, whichever is later.',
    }),
    max_bytes: bytes({
      min: '16MiB',
      max: '1024TiB',
      zero: 'off',
      default: '0',
      doc: 'The oldest segments are dropped while all together are larger.',
    }),
  },
  limits: {
    body_bytes: bytes({
      min: '1KiB',
      max: '64MiB',
      default: '1MiB',
      doc: 'Largest body of a message. At most half of `limits.message_bytes` and a quarter of `ring.bytes`.',
    }),
    headers_bytes: bytes({
      min: '0B',
      max: '1MiB',
      default: '64KiB',
      doc: 'Largest sum of the encoded headers of a message: keys, values and about 4 bytes for each.',
    }),
    headers_count: integer({ min: 0, max: 1_000, default: 64, doc: 'Most headers of a message.' }),
    message_bytes: bytes({
      min: '64KiB',
      max: '256MiB',
      default: '4MiB',
      doc: 'Largest gRPC message, received or sent. gRPC clients have their own limit, of 4 MiB unless set, so turn both up together.',
    }),
    in_flight_bytes: bytes({
      min: '1MiB',
      max: '16GiB',
      default: '64MiB',
      doc: 'Requests that were taken in and not answered yet, all together. Beyond it new ones get RESOURCE_EXHAUSTED. Answers of `Fetch` that clients do not read have the same bound, and so has what is kept of requests that have not come to their end.',
    }),
    receive_timeout: duration({
      min: '1s',
      max: '1h',
      default: '30s',
      doc: 'A request of which nothing more comes for this long, although its end is missing, is ended with REQUEST_STALLED. Turn it up if clients on bad lines send large messages.',
    }),
    request_timeout: duration({
      min: '1s',
      max: '1d',
      default: '5m',
      doc: 'A request, or a message of a stream, that is not complete this long after it began is ended with REQUEST_STALLED, however steadily a little of it comes.',
    }),
    in_flight_calls: integer({
      min: 1,
      max: 1_000_000,
      default: 20_000,
      doc: 'Calls that were taken in and not answered yet, subscriptions aside. About the calls per second that you expect times the latency that you accept.',
    }),
    streams_per_connection: integer({
      min: 1,
      max: 100_000,
      default: 1_000,
      doc: 'Concurrent calls and streams of one HTTP/2 connection; clients wait with more, floods are cut off.',
    }),
    streams: integer({
      min: 1,
      max: 100_000_000,
      default: 150_000,
      doc: 'Open calls and streams, all connections together, each of some KiB. Beyond it the connections with the most are cut off. More than `limits.subscriptions`, `limits.producer_streams` and `limits.in_flight_calls` together.',
    }),
    connections: integer({
      min: 1,
      max: 1_000_000,
      default: 10_000,
      doc: 'Open client connections. Beyond it the oldest on which there was no call yet is closed, or the new one if there is none. Needs as many file descriptors.',
    }),
    connections_per_address: integer({
      min: 1,
      max: 1_000_000,
      default: 5_000,
      doc: 'Open client connections from one address, so that one machine cannot take all of `limits.connections`. A proxy or NAT in front is one address: turn it up to what comes through it.',
    }),
    handshake_timeout: duration({
      min: '1s',
      max: '10m',
      default: '10s',
      doc: 'A connection whose client has not begun to speak HTTP/2 after this long is closed. Clients do so at once.',
    }),
    empty_bytes: bytes({
      min: '16KiB',
      max: '1GiB',
      default: '256KiB',
      doc: 'What a client may send on one connection in a second beside messages and the heads of calls: pings, settings, window updates beyond those that answers need. One that sends more for 4 s, or all of it at once, is cut off, and the log names it.',
    }),
    producer_streams: integer({
      min: 1,
      max: 1_000_000,
      default: 10_000,
      doc: 'Open publish streams. Each costs some KiB, and what its window allows while it sends.',
    }),
    consumer_subjects: integer({
      min: 1,
      max: 10_000_000,
      default: 10_000,
      doc: 'Subjects of one consume stream, those that its patterns find included. Each also counts as a subscription.',
    }),
    subscriptions: integer({
      min: 1,
      max: 10_000_000,
      default: 100_000,
      doc: 'Open subscriptions. Each costs a few KiB, and up to `subscribe.buffer_bytes` while its client reads too slowly; all together are bounded by `subscribe.unsent_bytes`.',
    }),
  },
  publish: {
    target_delay: duration({
      min: '1ms',
      max: '10s',
      default: '20ms',
      doc: 'Wait of the batches of publish streams, beyond what a batch takes when nothing is in front of it, at which windows stop growing. Turn it up for throughput, down for latency. With a database it is 50ms at least.',
    }),
    window_min: bytes({
      min: '1KiB',
      max: '64MiB',
      default: '64KiB',
      doc: 'What a publish stream may always have in flight, however long its batches wait; or, if that is more, twice what it was carried at its best of late in the time that a batch takes and publish.target_delay.',
    }),
    window_max: bytes({
      min: '1KiB',
      max: '1GiB',
      default: '8MiB',
      doc: 'What one publish stream may have in flight at the most. It begins with 1MiB, or this if it is less.',
    }),
  },
  subjects: {
    max: integer({
      min: 1,
      max: 100_000_000,
      default: 1_000_000,
      doc: 'Subjects that may ever exist: a subject is never forgotten, since its ids must not begin again. Each costs under 400 bytes of memory.',
    }),
  },
  producers: {
    max: integer({
      min: 1,
      max: 10_000_000,
      default: 100_000,
      doc: 'Producer ids that are remembered at one time, each for 24 h after its last publish. Each costs up to 20 KiB if it uses its whole window of 1,024 sequences.',
    }),
  },
  batch: {
    linger: duration({
      min: '1ms',
      max: '1s',
      zero: 'never wait',
      default: '1ms',
      doc: 'Longest wait of a message for others to share its write. Only waited while earlier groups are on their way. Turn it up for fewer, larger writes; down for latency.',
    }),
    bytes: bytes({
      min: '4KiB',
      max: '16MiB',
      default: '1MiB',
      doc: 'A group of batches that has reached this size is written without waiting. At most a quarter of `ring.bytes`.',
    }),
  },
  groups: {
    in_flight: integer({
      min: 1,
      max: 16,
      default: 2,
      doc: 'Groups of one shard that may be on their way to the store: one being written (to PostgreSQL several), the others being given ids or closed in the log. More than 2 only helps a store with a long round trip; Cassandra gets 4 at least, PostgreSQL 3 and as many as it is given at a time (`postgres.pool`).',
    }),
  },
  ring: {
    bytes: bytes({
      min: '64KiB',
      max: '256MiB',
      powerOfTwo: true,
      default: '4MiB',
      doc: 'Size of the payload ring between two threads. At least 4 times `limits.body_bytes`. Turn it up if `broker_shard_queue_bytes` comes near it, and calls get QUEUE_FULL, in bursts that the shards then work off.',
    }),
  },
  overload: {
    target: duration({
      min: '1ms',
      max: '1m',
      default: '500ms',
      doc: 'Wait in a queue that is acceptable for ever. If even the shortest wait of an interval was longer, new requests are refused (OVERLOADED) until the queue has drained. Set it below the deadlines of the clients.',
    }),
    interval: duration({
      min: '10ms',
      max: '10m',
      default: '1s',
      doc: 'How long a burst may last before it counts as overload. At least `overload.target`.',
    }),
  },
  raft: {
    listen: endpoint({
      default: '127.0.0.1:12000',
      doc: 'Where the other nodes of a cluster connect. It is opened only by a node that was started with `bootstrap` or `join` at some time. With `tls.cert` and `tls.ca` nodes speak TLS on it and each shows whose it is (`tls.peers`); else it is clear text, and whoever reaches it is believed to be a node: beyond loopback that takes `insecure`, and a network that you trust.',
    }),
    advertise: optionalEndpoint({
      unset: 'where it listens',
      doc: 'Where the other nodes reach `raft.listen`. Needed in a cluster if that is 0.0.0.0 or [::].',
    }),
    voters: integer({
      min: 1,
      max: 7,
      odd: true,
      default: 3,
      doc: 'Nodes that vote: those that join become voters while there are fewer, the rest serve clients without a vote. 3 survive the loss of one of them, 5 of two, 7 of three; each makes every write wait for one more disk. Give all nodes the same number.',
    }),
    heartbeat: duration({
      min: '10ms',
      max: '10s',
      default: '100ms',
      doc: 'Time between two heartbeats of the leader. About the round trip between nodes, or more.',
    }),
    election_timeout: duration({
      min: '100ms',
      max: '1m',
      default: '1s',
      doc: 'A follower that hears nothing for between one and two times this calls an election. At least 5 heartbeats. Down: faster failover; up: fewer false elections on busy machines.',
    }),
    snapshot_entries: integer({
      min: 100,
      max: 10_000_000,
      default: 100_000,
      doc: 'A snapshot is taken, and the log before it dropped, after this many entries or `raft.snapshot_bytes`, whichever comes first; it cannot be turned off. Down: faster start, less disk; up: fewer snapshots.',
    }),
    snapshot_bytes: bytes({
      min: '1MiB',
      max: '1GiB',
      default: '64MiB',
      doc: 'A snapshot is taken after this much log or `raft.snapshot_entries`, whichever comes first. A start holds the log behind the snapshot in memory.',
    }),
  },
  gossip: GOSSIP,
  discovery: DISCOVERY,
  quotas: QUOTAS,
  subscribe: {
    buffer_bytes: bytes({
      min: '16KiB',
      max: '256MiB',
      default: '1MiB',
      doc: 'What may wait to be sent on one subscription. A subscriber that has more waiting is taken off the live tail and fed from the store until it has caught up; it loses nothing. A consume stream that reads the store may have twice as much waiting.',
    }),
    unsent_bytes: bytes({
      min: '1MiB',
      max: '64GiB',
      default: '256MiB',
      doc: 'What may wait to be sent on all subscriptions and consume streams together; memory that several share counts once. Beyond it each is given more, 128KiB or one message, only when it has sent what it had, and reads from the store what it missed.',
    }),
    stall_timeout: duration({
      min: '1s',
      max: '24h',
      default: '60s',
      doc: 'A subscription whose client takes nothing for this long, although messages wait, is ended with SUBSCRIBER_STALLED.',
    }),
  },
  shutdown: {
    drain: duration({
      min: '1s',
      max: '1h',
      zero: 'do not wait',
      default: '20s',
      doc: 'After SIGTERM: longest wait for calls in flight to be answered. Keep it below what the supervisor waits before it kills (30 s in Kubernetes, 90 s in systemd).',
    }),
  },
  metrics: METRICS,
  tracing: TRACING,
  log: {
    level: choice({
      values: ['debug', 'info', 'warn', 'error'],
      live: true,
      default: 'info',
      doc: 'Least severe log lines that are written.',
    }),
    format: choice({
      values: ['auto', 'json', 'pretty'],
      default: 'auto',
      doc: 'One JSON object a line, or coloured text for people. `auto` is pretty on a terminal and JSON elsewhere.',
    }),
  },
} as const satisfies SchemaTree;

export interface SchemaTree {
  readonly [name: string]: AnyField | SchemaTree;
}

export type AnyField = Field<unknown, string>;

/** `body_bytes` -> `bodyBytes`. */
type Camel<Name> = Name extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<Camel<Tail>>}` : Name;

type Property<Name, Node> =
  Node extends Field<infer _, infer Suffix> ? `${Camel<Name> & string}${Suffix}` : Camel<Name> & string;

type Compiled<Tree> = {
  readonly [Name in keyof Tree as Property<Name, Tree[Name]>]: Tree[Name] extends Field<infer Value, infer _>
    ? Value
    : Compiled<Tree[Name]>;
};

/** The whole configuration, checked and frozen. Sizes are numbers of bytes, durations numbers of ms (and end in `Ms`). */
export type Config = Compiled<typeof SCHEMA>;

export type StoreKind = Config['store']['kind'];

export interface Key {
  /** Such as `limits.body_bytes`. */
  readonly key: string;
  /** What flag, variable and short form in the file are made from: the short name, else the key. */
  readonly name: string;
  /** Where the value is in `Config`, such as ['limits', 'bodyBytes']. */
  readonly path: readonly string[];
  readonly field: AnyField;
}

/** All keys in the order of the schema. */
export function allKeys(): readonly Key[] {
  return [...keysOf(SCHEMA, [])];
}

function* keysOf(tree: SchemaTree, above: readonly string[]): Generator<Key> {
  for (const [name, node] of Object.entries(tree)) {
    if (isField(node)) {
      const key = [...above, name].join('.');
      const path = [...above, `${name}${node.suffix}`].map(camel);
      yield { key, name: node.shortName ?? key, path, field: node };
    } else {
      yield* keysOf(node, [...above, name]);
    }
  }
}

export function isField(node: AnyField | SchemaTree): node is AnyField {
  return node.kind === 'field';
}

function camel(name: string): string {
  return name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
}
