import { types } from 'cassandra-driver';
import type { SubjectRef } from '../store.ts';
import { blobOf } from './blob.ts';
import { SPAN_BUCKETS, spanOfBucket } from './schema.ts';

/** Partitions that one statement asks about. */
const PROBE_BUCKETS = 64;

export type Select = (text: string, values: readonly unknown[]) => Promise<types.ResultSet>;

/** Finds partitions of a subject that have a batch, by the directory of spans and then by asking many partitions in one statement. */
export class BucketSearch {
  readonly #select: Select;
  readonly #text: { readonly probe: string; readonly spansUp: string; readonly spansDown: string };

  constructor(keyspace: string, select: Select) {
    this.#select = select;
    this.#text = {
      probe: `SELECT bucket FROM ${keyspace}.batches WHERE subject = ? AND bucket IN ? PER PARTITION LIMIT 1`,
      spansUp: `SELECT span FROM ${keyspace}.spans WHERE subject = ? AND span >= ? AND span <= ? ORDER BY span ASC`,
      spansDown: `SELECT span FROM ${keyspace}.spans WHERE subject = ? AND span >= ? AND span <= ? ORDER BY span DESC`,
    };
  }

  /** The lowest partition in [from, until] with a batch, or null. */
  async next(subject: SubjectRef, from: number, until: number): Promise<number | null> {
    for (const span of await this.#spans(this.#text.spansUp, subject, from, until)) {
      const low = Math.max(from, span * SPAN_BUCKETS);
      const high = Math.min(until, (span + 1) * SPAN_BUCKETS - 1);
      for (let start = low; start <= high; start += PROBE_BUCKETS) {
        const found = await this.#probe(subject, start, Math.min(high, start + PROBE_BUCKETS - 1));
        if (found.length > 0) return Math.min(...found);
      }
    }
    return null;
  }

  /** The highest partition in [downTo, from] with a batch, or null. */
  async last(subject: SubjectRef, from: number, downTo: number): Promise<number | null> {
    const top = Math.floor(from);
    if (top < downTo) return null;
    for (const span of await this.#spans(this.#text.spansDown, subject, downTo, top)) {
      const low = Math.max(downTo, span * SPAN_BUCKETS);
      const high = Math.min(top, (span + 1) * SPAN_BUCKETS - 1);
      for (let end = high; end >= low; end -= PROBE_BUCKETS) {
        const found = await this.#probe(subject, Math.max(low, end - PROBE_BUCKETS + 1), end);
        if (found.length > 0) return Math.max(...found);
      }
    }
    return null;
  }

  async #spans(text: string, subject: SubjectRef, from: number, until: number): Promise<number[]> {
    const values = [blobOf(subject), spanOfBucket(from), spanOfBucket(until)];
    const { rows } = await this.#select(
      text,
      values.map((value) => (typeof value === 'number' ? types.Long.fromNumber(value) : value)),
    );
    return rows.map((row) => Number(row.get('span')));
  }

  async #probe(subject: SubjectRef, from: number, until: number): Promise<number[]> {
    const buckets = Array.from({ length: until - from + 1 }, (_, i) => types.Long.fromNumber(from + i));
    const { rows } = await this.#select(this.#text.probe, [blobOf(subject), buckets]);
    return rows.map((row) => Number(row.get('bucket')));
  }
}
