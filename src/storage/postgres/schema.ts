/**
 * What the store keeps in PostgreSQL: one schema with the batches, the birth row, and a view for people. Each migration is applied once, in order,
 * under an advisory lock; a migration that was released never changes. docs/stores.md describes the result.
 */
import { StartError } from '../start-error.ts';
import { type Ask, codeOf, type PostgresConnection } from './connection.ts';
import { messagesOf, readableRecords } from './message-view.ts';

/** First half of the advisory lock's key of whoever changes tables; the second is a hash of the schema's name. */
export const LOCK_SPACE = 0x42524b52;

const MIGRATIONS: readonly ((schema: string) => string)[] = [
  (schema) => `
    CREATE TABLE ${schema}.batch (
      subject bytea NOT NULL,
      base int8 NOT NULL,
      slice int8 NOT NULL,
      count int8 NOT NULL,
      published_at int8 NOT NULL,
      expires_max int8 NOT NULL,
      kind int2 NOT NULL,
      bytes bytea STORAGE EXTERNAL NOT NULL,
      PRIMARY KEY (subject, base, slice)
    ) PARTITION BY RANGE (slice);
    CREATE TABLE ${schema}.birth (
      one boolean PRIMARY KEY DEFAULT true CHECK (one),
      cluster_id text NOT NULL,
      name text NOT NULL,
      settings text NOT NULL,
      born_at timestamptz NOT NULL DEFAULT now()
    );
    CREATE FUNCTION ${schema}.find_time(wanted bytea, since int8) RETURNS int8
    LANGUAGE plpgsql STABLE AS $body$
    DECLARE
      low int8; high int8; middle int8; found int8 := NULL; probe_base int8; probe_time int8;
    BEGIN
      SELECT base INTO low FROM ${schema}.batch WHERE subject = wanted ORDER BY base LIMIT 1;
      SELECT base INTO high FROM ${schema}.batch WHERE subject = wanted ORDER BY base DESC LIMIT 1;
      -- Times of messages never fall with rising ids; marks are passed over.
      WHILE low <= high LOOP
        middle := low + (high - low) / 2;
        SELECT base, published_at INTO probe_base, probe_time FROM ${schema}.batch
          WHERE subject = wanted AND base >= middle AND base <= high AND kind = 1 ORDER BY base LIMIT 1;
        IF probe_base IS NULL THEN
          high := middle - 1;
        ELSIF probe_time >= since THEN
          found := probe_base;
          high := middle - 1;
        ELSE
          low := probe_base + 1;
        END IF;
      END LOOP;
      RETURN found;
    END $body$;
    CREATE FUNCTION ${schema}.read_varint(data bytea, INOUT at int4, OUT value int8)
    LANGUAGE plpgsql IMMUTABLE AS $body$
    DECLARE byte int4; shift int4 := 0;
    BEGIN
      value := 0;
      LOOP
        byte := get_byte(data, at);
        at := at + 1;
        value := value | ((byte & 127)::int8 << shift);
        EXIT WHEN byte < 128;
        shift := shift + 7;
      END LOOP;
    END $body$;
    CREATE FUNCTION ${schema}.records(stored bytea)
    RETURNS TABLE (ordinal int4, body bytea, headers jsonb, expiration_seconds int8)
    LANGUAGE plpgsql IMMUTABLE AS $body$
    DECLARE
      -- The copy is plain memory: get_byte on a stored value would fetch all of it each time.
      data bytea := stored || ''::bytea;
      at int4; stop int4; record_end int4; part_end int4; length int8; tag int4; key text; value bytea;
    BEGIN
      at := 56 + get_byte(data, 52);
      stop := at + get_byte(data, 20) + (get_byte(data, 21) << 8) + (get_byte(data, 22) << 16) + (get_byte(data, 23) << 24);
      ordinal := 0;
      WHILE at < stop LOOP
        SELECT v.at, v.value INTO at, length FROM ${schema}.read_varint(data, at + 1) v;
        record_end := at + length;
        body := ''; headers := '[]'; expiration_seconds := 0;
        WHILE at < record_end LOOP
          tag := get_byte(data, at);
          SELECT v.at, v.value INTO at, length FROM ${schema}.read_varint(data, at + 1) v;
          IF tag = 10 THEN
            body := substring(data FROM at + 1 FOR length::int4);
            at := at + length;
          ELSIF tag = 42 THEN
            part_end := at + length;
            key := ''; value := '';
            WHILE at < part_end LOOP
              tag := get_byte(data, at);
              SELECT v.at, v.value INTO at, length FROM ${schema}.read_varint(data, at + 1) v;
              IF tag = 10 THEN key := convert_from(substring(data FROM at + 1 FOR length::int4), 'UTF8');
              ELSE value := substring(data FROM at + 1 FOR length::int4); END IF;
              at := at + length;
            END LOOP;
            headers := headers || jsonb_build_object('key', key, 'value', encode(value, 'base64'));
          ELSE
            expiration_seconds := length;
          END IF;
        END LOOP;
        RETURN NEXT;
        ordinal := ordinal + 1;
      END LOOP;
    END $body$;
    CREATE VIEW ${schema}.message AS
      SELECT convert_from(b.subject, 'UTF8') AS subject, b.base + r.ordinal AS id,
        to_timestamp(b.published_at / 1000.0) AS published_at,
        CASE WHEN r.expiration_seconds > 0 THEN to_timestamp(b.published_at / 1000.0 + r.expiration_seconds) END AS expires_at,
        r.body, r.headers
      FROM ${schema}.batch b CROSS JOIN LATERAL ${schema}.records(b.bytes) r
      WHERE b.kind = 1
        AND (r.expiration_seconds = 0 OR to_timestamp(b.published_at / 1000.0 + r.expiration_seconds) > now());
  `,
  // For PostgresStore.beyond: a start must not read the whole table.
  (schema) => `CREATE INDEX ON ${schema}.batch (published_at)`,
  (schema) => `
    CREATE TABLE ${schema}.incarnation (
      node text PRIMARY KEY,
      incarnation text NOT NULL,
      claimed_at timestamptz NOT NULL DEFAULT now()
    )`,
  readableRecords,
  messagesOf,
];

/** query_canceled: the server's limit of one statement was over. */
const TOO_LONG = '57014';

/** Brings the schema to this program's version. StartError STORE_UNUSABLE if a newer program wrote it, or somebody else is changing it. */
export async function migrate(connection: PostgresConnection, schema: string): Promise<void> {
  await connection.session('each', async (ask, askAtLength) => {
    await ask('BEGIN');
    await lockSchema(ask, schema);
    await ask(`CREATE SCHEMA IF NOT EXISTS ${schema}`);
    await ask(`CREATE TABLE IF NOT EXISTS ${schema}.migration (
      version int4 PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`);
    const [row] = await ask<{ version: number }>(
      `SELECT coalesce(max(version), 0)::int4 AS version FROM ${schema}.migration`,
    );
    const known = row?.version ?? 0;
    if (known > MIGRATIONS.length) {
      throw new StartError(
        'STORE_UNUSABLE',
        `schema ${schema} has version ${known}, this program knows ${MIGRATIONS.length}: start the newer program`,
      );
    }
    // An index on a large table takes minutes, and one that is cancelled would be cancelled at every start. Only the work has no limit: who waits for a
    // lock gives up, since others would queue behind it, and since the start would stand still without a word.
    await ask(`SET LOCAL lock_timeout = '${connection.statementMs}ms'`);
    await ask('SET LOCAL statement_timeout = 0');
    for (let version = known; version < MIGRATIONS.length; version++) {
      await askAtLength((MIGRATIONS[version] as (name: string) => string)(schema));
      await ask(`INSERT INTO ${schema}.migration (version) VALUES ($1)`, [version + 1]);
    }
    await ask('COMMIT');
  });
}

async function lockSchema(ask: Ask, schema: string): Promise<void> {
  try {
    await ask('SELECT pg_advisory_xact_lock($1, hashtext($2))', [LOCK_SPACE, schema]);
  } catch (error) {
    if (codeOf(error) !== TOO_LONG) throw error;
    const why = `somebody else has been changing schema ${schema} for longer than a statement may take: start again when it is done`;
    throw new StartError('STORE_UNUSABLE', why, { cause: error });
  }
}
