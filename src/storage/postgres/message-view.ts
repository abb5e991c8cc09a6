/** Migrations of what shows messages to people who ask in SQL. */

/**
 * A key may hold U+0000, which no text of PostgreSQL does: such a key is shown in the server's `escape` format, a\000b, instead of failing every
 * query that meets it. Values are base64 in one line.
 */
export function readableRecords(schema: string): string {
  return `
    CREATE OR REPLACE FUNCTION ${schema}.records(stored bytea)
    RETURNS TABLE (ordinal int4, body bytea, headers jsonb, expiration_seconds int8)
    LANGUAGE plpgsql IMMUTABLE AS $body$
    DECLARE
      -- The copy is plain memory: get_byte on a stored value would fetch all of it each time.
      data bytea := stored || ''::bytea;
      at int4; stop int4; record_end int4; part_end int4; length int8; tag int4; key bytea; value bytea; name text;
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
              IF tag = 10 THEN key := substring(data FROM at + 1 FOR length::int4);
              ELSE value := substring(data FROM at + 1 FOR length::int4); END IF;
              at := at + length;
            END LOOP;
            IF position('\\x00'::bytea IN key) > 0 THEN name := encode(key, 'escape');
            ELSE name := convert_from(key, 'UTF8'); END IF;
            headers := headers || jsonb_build_object('key', name, 'value', translate(encode(value, 'base64'), E'\\n', ''));
          ELSE
            expiration_seconds := length;
          END IF;
        END LOOP;
        RETURN NEXT;
        ordinal := ordinal + 1;
      END LOOP;
    END $body$`;
}

/**
 * Messages of one subject from one id to another, in order. The view has to decode every batch before it can compare subjects and ids; this finds the
 * batches by their key. One plain statement, which the planner puts into the query that asks: a LIMIT there ends the reading.
 */
export function messagesOf(schema: string): string {
  return `
    CREATE OR REPLACE FUNCTION ${schema}.messages_of(subject text, first_id int8, last_id int8 DEFAULT 9007199254740991)
    RETURNS SETOF ${schema}.message
    LANGUAGE sql STABLE AS $body$
      SELECT $1 AS subject, b.base + r.ordinal AS id, to_timestamp(b.published_at / 1000.0) AS published_at,
        CASE WHEN r.expiration_seconds > 0 THEN to_timestamp(b.published_at / 1000.0 + r.expiration_seconds) END AS expires_at,
        r.body, r.headers
      FROM ${schema}.batch b CROSS JOIN LATERAL ${schema}.records(b.bytes) r
      WHERE b.subject = convert_to($1, 'UTF8') AND b.kind = 1 AND b.base <= $3
        -- The batch that begins at or before the first id may reach up to it.
        AND b.base >= coalesce((SELECT c.base FROM ${schema}.batch c WHERE c.subject = convert_to($1, 'UTF8') AND c.base <= $2
          ORDER BY c.base DESC LIMIT 1), $2)
        AND b.base + r.ordinal BETWEEN $2 AND $3
        AND (r.expiration_seconds = 0 OR to_timestamp(b.published_at / 1000.0 + r.expiration_seconds) > now())
      ORDER BY b.base, r.ordinal
    $body$`;
}
