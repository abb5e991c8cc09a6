/** Thread entry of `runBare`: a closed loop of groups. */
import { closeSync, fdatasync, openSync, rmSync, writev } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { parentPort, workerData } from 'node:worker_threads';
import { Client, types } from 'cassandra-driver';
import pgPromise from 'pg-promise';
import { byteaArray, int8Array } from '../../src/storage/postgres/binary-arrays.ts';
import { randomBody } from '../lib/frames.ts';
import type { BareTarget, BareTask, FromBare } from './bare.ts';

/** One row of a group. */
interface Row {
  readonly subject: Buffer;
  readonly base: number;
}

interface Sink {
  /** Resolves when all of the group is durable. */
  write(lane: number, rows: readonly Row[]): Promise<void>;
  close(): Promise<void>;
}

const task = workerData as BareTask;
const { shape, subjects, inFlight, warmupMs, durationMs } = task;
const blob = randomBody(shape.batchBytes);
const count = Math.max(1, Math.round(shape.messagesPerBatch));
const names = Array.from({ length: subjects }, (_, i) => Buffer.from(`bare.subject.${i}`));
const publishedAt = Date.now();

async function openPostgres({ url, schema }: Extract<BareTarget, { kind: 'postgres' }>): Promise<Sink> {
  const library = pgPromise({ noWarnings: true });
  const database = library({ connectionString: url, max: inFlight });
  const connected = await Promise.all(Array.from({ length: inFlight }, () => database.connect()));
  const query = {
    name: 'bare',
    text: `INSERT INTO ${schema}.batch (subject, base, slice, count, published_at, expires_max, kind, bytes)
      SELECT * FROM unnest($1::bytea[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::bytea[])
      ON CONFLICT (subject, base, slice) DO NOTHING`,
  };
  const write = async (lane: number, rows: readonly Row[]): Promise<void> => {
    const values = [
      byteaArray(rows, ({ subject }) => subject),
      int8Array(rows, ({ base }) => base),
      int8Array(rows, () => 0),
      int8Array(rows, () => count),
      int8Array(rows, () => publishedAt),
      int8Array(rows, () => 0),
      int8Array(rows, () => 1),
      byteaArray(rows, () => blob),
    ];
    // The driver's own client, without what pg-promise does around a query.
    await connected[lane]?.client.query({ ...query, values });
  };
  const close = async (): Promise<void> => {
    for (const { done } of connected) done();
    await database.$pool.end();
  };
  return { write, close };
}

async function openCassandra(target: Extract<BareTarget, { kind: 'cassandra' }>): Promise<Sink> {
  const { contactPoint, datacenter, credentials, keyspace } = target;
  const client = new Client({
    contactPoints: [contactPoint],
    localDataCenter: datacenter,
    ...(credentials === null ? {} : { credentials }),
    pooling: { coreConnectionsPerHost: { '0': 1, '1': 1, '2': 0 }, maxRequestsPerConnection: 2_048 },
    queryOptions: { consistency: types.consistencies.localQuorum, isIdempotent: true, captureStackTrace: false },
  });
  await client.connect();
  const text = `INSERT INTO ${keyspace}.batches (subject, bucket, base, count, published_at, expires_max, kind, size, bytes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?`;
  const long = (value: number): types.Long => types.Long.fromNumber(value);
  const insert = ({ subject, base }: Row): Promise<unknown> => {
    const bucket = long(Math.floor(base / 1_024));
    const fixed = [long(count), long(publishedAt), long(0), 1, blob.length, blob, long(publishedAt * 1_000), 0];
    return client.execute(text, [subject, bucket, long(base), ...fixed], { prepare: true });
  };
  return { write: async (_, rows) => void (await Promise.all(rows.map(insert))), close: () => client.shutdown() };
}

function openFile({ folder }: Extract<BareTarget, { kind: 'embedded' }>): Sink {
  const path = join(folder, 'bare-writer');
  const file = openSync(path, 'w');
  const [write, sync] = [promisify(writev), promisify(fdatasync)];
  let position = 0;
  return {
    write: async (_, rows) => {
      const at = position;
      position += rows.length * blob.length;
      await write(
        file,
        rows.map(() => blob),
        at,
      );
      await sync(file);
    },
    close: async () => {
      closeSync(file);
      rmSync(path);
    },
  };
}

function open(target: BareTarget): Sink | Promise<Sink> {
  switch (target.kind) {
    case 'postgres':
      return openPostgres(target);
    case 'cassandra':
      return openCassandra(target);
    case 'embedded':
      return openFile(target);
  }
}

async function measure(): Promise<FromBare> {
  const sink = await open(task.target);
  const began = performance.now();
  const from = began + warmupMs;
  const until = from + durationMs;
  let nextBase = task.firstBase;
  let nextSubject = 0;
  let groups = 0;
  let rowsWritten = 0;
  let owed = 0;
  const takeRows = (): Row[] => {
    // The average need not be whole.
    owed += shape.batches;
    const rows: Row[] = [];
    for (; owed >= 1; owed -= 1) {
      if (nextSubject === subjects) nextSubject = 0;
      if (nextSubject === 0) nextBase += count;
      rows.push({ subject: names[nextSubject++] as Buffer, base: nextBase });
    }
    return rows;
  };
  const lane = async (index: number): Promise<void> => {
    while (performance.now() < until) {
      const rows = takeRows();
      if (rows.length === 0) continue;
      const startedAt = performance.now();
      await sink.write(index, rows);
      const now = performance.now();
      if (startedAt < from || now > until) continue;
      groups += 1;
      rowsWritten += rows.length;
    }
  };
  await Promise.all(Array.from({ length: inFlight }, (_, index) => lane(index)));
  await sink.close();
  const seconds = durationMs / 1_000;
  const result = {
    groupsPerSecond: groups / seconds,
    messagesPerSecond: (rowsWritten * shape.messagesPerBatch) / seconds,
    nextBase: nextBase + count,
  };
  return { kind: 'measured', result };
}

const message = await measure().catch((error: unknown): FromBare => ({ kind: 'failed', why: String(error) }));
parentPort?.postMessage(message);
