/**
 * What the store keeps in Cassandra. Batches lie in partitions of 1,024 ids; a directory of spans (1,024 partitions each) says where a subject has
 * any, so that a search for the next or the last batch never walks an unbounded range of empty partitions.
 */
import type { Client } from 'cassandra-driver';
import { StartError } from '../start-error.ts';
import { type Consistency, levelOf } from './consistency.ts';

/** Ids of a partition; fixed for a keyspace, for it is part of every key. */
export const BUCKET_IDS = 1_024;
/** Partitions of a span. */
export const SPAN_BUCKETS = 1_024;
export const SPAN_IDS: number = BUCKET_IDS * SPAN_BUCKETS;

const VERSION = 1;

export interface CreateOptions {
  readonly keyspace: string;
  readonly datacenter: string;
  /** For a keyspace that does not exist: copies in the data centre, or a CQL map such as `{'class': 'NetworkTopologyStrategy', 'dc1': 3}`. */
  readonly replication: string;
}

export function bucketOf(id: number): number {
  return Math.floor(id / BUCKET_IDS);
}

export function spanOfBucket(bucket: number): number {
  return Math.floor(bucket / SPAN_BUCKETS);
}

/** Creates what is missing. All statements are idempotent; nodes that start together wait for each other's in Cassandra. */
export async function createSchema(client: Client, options: CreateOptions): Promise<void> {
  const { keyspace } = options;
  const found = await client.execute(
    'SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?',
    [keyspace],
    {
      prepare: true,
    },
  );
  if (found.rowLength === 0) {
    await client.execute(
      `CREATE KEYSPACE IF NOT EXISTS ${keyspace} WITH replication = ${replicationMap(options)} AND durable_writes = true`,
    );
  }
  const tables = await client.execute(
    'SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?',
    [keyspace],
    {
      prepare: true,
    },
  );
  const names = new Set(tables.rows.map((row) => String(row.get('table_name'))));
  for (const [name, text] of TABLES) {
    if (!names.has(name)) await client.execute(`CREATE TABLE IF NOT EXISTS ${keyspace}.${name} ${text}`);
  }
  if (names.has('spans')) await addEnds(client, keyspace);
}

/** Earlier programs had no such column, and their entries no end: those stay until they are trimmed. */
async function addEnds(client: Client, keyspace: string): Promise<void> {
  const found = await client.execute(
    "SELECT column_name FROM system_schema.columns WHERE keyspace_name = ? AND table_name = 'spans' AND column_name = 'ends'",
    [keyspace],
    {
      prepare: true,
    },
  );
  if (found.rowLength === 0) await client.execute(`ALTER TABLE ${keyspace}.spans ADD IF NOT EXISTS ends bigint`);
}

function replicationMap({ datacenter, replication }: CreateOptions): string {
  if (!/^\d+$/.test(replication)) return replication;
  return `{'class': 'NetworkTopologyStrategy', '${datacenter.replaceAll("'", "''")}': ${replication}}`;
}

const TABLES: readonly (readonly [string, string])[] = [
  [
    'batches',
    `(subject blob, bucket bigint, base bigint, count bigint, published_at bigint, expires_max bigint, kind int, size int, bytes blob,
      PRIMARY KEY ((subject, bucket), base))
     WITH compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'HOURS', 'compaction_window_size': 6}
     AND read_repair = 'BLOCKING'`,
  ],
  ['spans', "(subject blob, span bigint, ends bigint, PRIMARY KEY (subject, span)) WITH read_repair = 'BLOCKING'"],
  [
    'birth',
    "(one int PRIMARY KEY, version int, cluster_id text, name text, settings text) WITH read_repair = 'BLOCKING'",
  ],
  ['incarnation', "(node text PRIMARY KEY, incarnation text) WITH read_repair = 'BLOCKING'"],
];

export interface DurabilityOptions {
  readonly keyspace: string;
  readonly datacenter: string;
  readonly consistency: Consistency;
}

/** What the keyspace and its nodes would lose of what they acknowledged, one sentence each. StartError if reads could miss a durable write. */
export async function checkDurability(client: Client, options: DurabilityOptions): Promise<string[]> {
  const { keyspace, consistency } = options;
  const weaknesses: string[] = [];
  if (levelOf(consistency).isWeak) {
    weaknesses.push(`at cassandra.consistency ${consistency} a message may be on less than a quorum of its replicas`);
  }
  weaknesses.push(...(await keyspaceWeaknesses(client, options)));
  const tables = await client.execute(
    'SELECT table_name, read_repair FROM system_schema.tables WHERE keyspace_name = ?',
    [keyspace],
    {
      prepare: true,
    },
  );
  for (const row of tables.rows) {
    if (!TABLES.some(([name]) => name === row.get('table_name')) || row.get('read_repair') === 'BLOCKING') continue;
    throw new StartError(
      'STORE_UNUSABLE',
      `table ${keyspace}.${row.get('table_name')} has read_repair ${row.get('read_repair')}: a read could see what a later one does not; set it to BLOCKING`,
    );
  }
  return [...weaknesses, ...(await commitlogWeaknesses(client, options.datacenter))];
}

async function keyspaceWeaknesses(client: Client, { keyspace, datacenter }: DurabilityOptions): Promise<string[]> {
  const found = await client.execute(
    'SELECT durable_writes, replication FROM system_schema.keyspaces WHERE keyspace_name = ?',
    [keyspace],
    {
      prepare: true,
    },
  );
  const row = found.first();
  const replication = (row?.get('replication') ?? {}) as Readonly<Record<string, string>>;
  const isByDatacenter = replication.class?.endsWith('NetworkTopologyStrategy') === true;
  if (isByDatacenter && !(Number(replication[datacenter]?.split('/', 1)[0]) > 0)) {
    throw new StartError(
      'STORE_UNUSABLE',
      `keyspace ${keyspace} has no replicas in cassandra.datacenter ${datacenter}: it is replicated as ${JSON.stringify(replication)}`,
    );
  }
  return row?.get('durable_writes') === true ? [] : [`keyspace ${keyspace} has durable_writes off`];
}

/** Of the nodes that are up in the data centre whose answers count; the driver reaches no others. */
async function commitlogWeaknesses(client: Client, datacenter: string): Promise<string[]> {
  const weaknesses: string[] = [];
  for (const host of client.hosts.values()) {
    if (!host.isUp() || host.datacenter !== datacenter) continue;
    const settings = await client.execute("SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'", [], {
      host,
    });
    const sync = String(settings.first()?.get('value'));
    if (sync !== 'batch' && sync !== 'group') {
      weaknesses.push(`commitlog_sync of ${host.address} is ${sync}: it acknowledges before it writes to disk`);
    }
  }
  return weaknesses;
}

/** The layout's version lies in the birth row's table, under a key of its own. */
export async function checkVersion(client: Client, keyspace: string): Promise<void> {
  await client.execute(`INSERT INTO ${keyspace}.birth (one, version) VALUES (0, ${VERSION}) IF NOT EXISTS`);
  const found = await client.execute(`SELECT version FROM ${keyspace}.birth WHERE one = 0`);
  const version = Number(found.first()?.get('version'));
  if (version !== VERSION) {
    throw new StartError('STORE_UNUSABLE', `keyspace ${keyspace} has layout ${version}, this program knows ${VERSION}`);
  }
}
