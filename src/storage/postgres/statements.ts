import type { Statement } from './connection.ts';

/** Column `kind`, as in the batch format. */
export const KIND_DATA = 1;
export const KIND_VOID = 2;

/** Batches that one read answers at most. */
const READ_ROWS_MAX = 256;
/** Subjects that one answer names. */
export const NEWEST_SUBJECTS = 500;
/**
 * What one step of a trim deletes: so many batches, until they have so many bytes together. Each page of a large row is written, and a step that takes longer
 * than the server lets it is rolled back, now and whenever it is tried again.
 */
const TRIM_ROWS_MAX = 5_000;
const TRIM_BYTES = 16 * 1024 * 1024;

/** Prepared once on each connection, whatever the size of the group. Names are the connection's, so they carry no schema. */
export class Statements {
  readonly insert: Statement;
  /** For a group that has void marks: they replace data, and nothing replaces them. */
  readonly mark: Statement;
  /** How many of some batches have another one in their place. */
  readonly others: Statement;
  /** Commits a WAL record of its own, and so waits for the disk and the standbys up to there. */
  readonly barrier: Statement;
  /** Reads no table. */
  readonly probe: Statement;
  readonly read: Statement;
  readonly readBack: Statement;
  readonly findTime: Statement;
  readonly lastId: Statement;
  /** Two statements, so that each is answered by the index on published_at whatever the planner knows of the table. */
  readonly newestTime: Statement;
  readonly publishedAt: Statement;
  /** The subjects behind $1, by the primary key: as many index lookups as there are subjects, however many batches they have. */
  readonly newest: Statement;
  readonly lookup: Statement;
  readonly trim: Statement;
  readonly subjectStats: Statement;
  readonly stats: Statement;

  constructor(schema: string) {
    const batch = `${schema}.batch`;
    const insert = `INSERT INTO ${batch} AS stored (subject, base, slice, count, published_at, expires_max, kind, bytes)
      SELECT * FROM unnest($1::bytea[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::bytea[])
      ON CONFLICT (subject, base, slice)`;
    this.insert = { name: 'insert', text: `${insert} DO NOTHING` };
    this.mark = {
      name: 'mark',
      text: `${insert} DO UPDATE SET kind = excluded.kind, count = excluded.count, bytes = excluded.bytes
        WHERE excluded.kind = ${KIND_VOID} AND stored.kind = ${KIND_DATA}`,
    };
    this.others = {
      name: 'others',
      text: `SELECT count(*)::int4 AS others
        FROM unnest($1::bytea[], $2::int8[], $3::int8[], $4::bytea[]) AS ours (subject, base, slice, bytes)
        JOIN ${batch} AS stored USING (subject, base, slice)
        WHERE stored.kind = ${KIND_DATA} AND stored.bytes <> ours.bytes`,
    };
    this.barrier = { name: 'barrier', text: "SELECT pg_logical_emit_message(true, 'broker', '')" };
    this.probe = {
      name: 'probe',
      text: `SELECT pg_is_in_recovery() AS recovery, current_setting('transaction_read_only')::bool AS is_read_only,
        to_regclass('${batch}') IS NOT NULL AS is_there`,
    };
    this.read = { name: 'read', text: rangeRead(batch, 'ASC') };
    this.readBack = { name: 'read-back', text: rangeRead(batch, 'DESC') };
    this.findTime = { name: 'find-time', text: `SELECT ${schema}.find_time($1, $2) AS base` };
    this.lastId = {
      name: 'last-id',
      text: `SELECT base + count - 1 AS last FROM ${batch} WHERE subject = $1 ORDER BY base DESC LIMIT 1`,
    };
    this.newestTime = { name: 'newest-time', text: `SELECT max(published_at) AS time FROM ${batch}` };
    this.publishedAt = {
      name: 'published-at',
      text: `SELECT subject, base + count - 1 AS last FROM ${batch} WHERE published_at = $1::int8`,
    };
    const lowest = (behind: string): string =>
      `SELECT subject FROM ${batch} WHERE subject > ${behind} ORDER BY subject LIMIT 1`;
    this.newest = {
      name: 'newest',
      text: `WITH RECURSIVE named AS (
          (${lowest('$1::bytea')})
          UNION ALL SELECT (${lowest('named.subject')}) FROM named WHERE named.subject IS NOT NULL)
        SELECT subject, (SELECT base + count - 1 FROM ${batch} b WHERE b.subject = named.subject ORDER BY base DESC LIMIT 1) AS last
        FROM named WHERE subject IS NOT NULL LIMIT ${NEWEST_SUBJECTS}`,
    };
    this.lookup = { name: 'lookup', text: `SELECT kind FROM ${batch} WHERE subject = $1 AND base = $2` };
    this.trim = {
      name: 'trim',
      text: `DELETE FROM ${batch} WHERE subject = $1 AND base + count <= $2::int8 AND base IN (
        SELECT base FROM (SELECT base, sum(octet_length(bytes)) OVER (ORDER BY base) - octet_length(bytes) AS before
          FROM (SELECT base, bytes FROM ${batch} WHERE subject = $1 AND base < $2::int8 AND base + count <= $2::int8
            ORDER BY base LIMIT ${TRIM_ROWS_MAX}) AS oldest) AS counted
        WHERE before < ${TRIM_BYTES})`,
    };
    this.subjectStats = {
      name: 'subject-stats',
      text: `SELECT count(*) AS batches, coalesce(sum(octet_length(bytes)), 0) AS bytes FROM ${batch} WHERE subject = $1`,
    };
    this.stats = {
      name: 'stats',
      text: `SELECT count(*) AS batches, coalesce(sum(octet_length(bytes)), 0) AS bytes, count(DISTINCT subject) AS subjects FROM ${batch}`,
    };
  }
}

/**
 * Batches that intersect [$2, $3], in the order of their bases, until $4 bytes are reached. The inner query fetches no bytes: those of large rows
 * lie elsewhere and are read for what the outer one keeps.
 */
function rangeRead(batch: string, order: 'ASC' | 'DESC'): string {
  return `SELECT base, count, kind, bytes, found FROM (
      SELECT base, count, kind, bytes, count(*) OVER ()::int4 AS found, row_number() OVER (ORDER BY base ${order}) AS number,
        sum(octet_length(bytes)) OVER (ORDER BY base ${order}) - octet_length(bytes) AS before
      FROM (SELECT base, count, kind, bytes FROM ${batch}
        WHERE subject = $1 AND base + count > $2::int8 AND base <= $3::int8
          AND base >= coalesce((SELECT base FROM ${batch} WHERE subject = $1 AND base <= $2::int8 ORDER BY base DESC LIMIT 1), $2::int8)
        ORDER BY base ${order} LIMIT ${READ_ROWS_MAX + 1}) AS wanted
    ) AS counted WHERE before < $4::int8 AND number <= ${READ_ROWS_MAX} ORDER BY base ${order}`;
}
