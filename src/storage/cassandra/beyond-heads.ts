import type { types } from 'cassandra-driver';
import { BrokerError } from '../../base/errors.ts';
import type { BeyondHead, Heads } from '../store.ts';
import { bucketOf } from './schema.ts';

/** What is not answered is asked for again, or the scan of a large table would have to begin anew for one slow server. */
const TRIES_MAX = 5;
const RETRY_MS = 500;

export interface BeyondHeadsParts {
  /** Keys of partitions, `subject` and `bucket`, from a page state on. */
  readonly pages: (pageState: string | null) => Promise<types.ResultSet>;
  /** Last id of the last batch that begins in a partition; 0 if there is none any more. */
  readonly newestOf: (subject: Buffer, bucket: number) => Promise<number>;
  readonly heads: Heads;
  readonly onPage: (rows: number) => void;
  /** Partitions that are read at a time. */
  readonly atOnce: number;
}

interface Partition {
  readonly subject: Buffer;
  readonly bucket: number;
}

/**
 * Something behind the heads, found page by page in bounded memory. Partitions come in the order of their tokens, those of one subject scattered. What
 * a log has not given begins behind its head, so only the partition of the head and those above are read: one for each subject, if the log is right.
 */
export async function beyondHeads(parts: BeyondHeadsParts): Promise<BeyondHead | null> {
  const { pages, heads, newestOf, onPage, atOnce } = parts;
  for (let pageState: string | null = null, isFirst = true; isFirst || pageState !== null; isFirst = false) {
    const from = pageState;
    const page: types.ResultSet = await patiently(() => pages(from));
    pageState = page.pageState ?? null;
    const partitions = page.rows.map((row) => ({
      subject: row.get('subject') as Buffer,
      bucket: Number(row.get('bucket')),
    }));
    onPage(partitions.length);
    const given = await heads(partitions.map(({ subject }) => subject));
    const open = partitions.flatMap((partition, i) => {
      const head = given[i] as number;
      return partition.bucket >= bucketOf(head) ? [{ ...partition, head }] : [];
    });
    for (let at = 0; at < open.length; at += atOnce) {
      const found = await Promise.all(
        open.slice(at, at + atOnce).map(async ({ subject, bucket, head }: Partition & { readonly head: number }) => {
          const lastId = await patiently(() => newestOf(subject, bucket));
          return lastId > head ? { subject, lastId, head } : null;
        }),
      );
      const first = found.find((each) => each !== null);
      if (first !== undefined) return first;
    }
  }
  return null;
}

/** Asks again a few times while the store does not answer. */
export async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      const isWorthIt = error instanceof BrokerError && error.reason === 'STORE_UNAVAILABLE' && tries < TRIES_MAX;
      if (!isWorthIt) throw error;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS * tries));
    }
  }
}
