import type { types } from 'cassandra-driver';
import type { NewestVisitor } from '../store.ts';
import { patiently } from './beyond-heads.ts';

export interface NewestParts {
  /** Keys of partitions, `subject` and `bucket`, from a page state on. */
  readonly pages: (pageState: string | null) => Promise<types.ResultSet>;
  /** The last batch that begins in a partition; null if there is none any more. */
  readonly newestOf: (subject: Buffer, bucket: number) => Promise<Newest | null>;
  readonly visit: NewestVisitor;
  /** Partitions that are read at a time. */
  readonly atOnce: number;
}

interface Newest {
  readonly lastId: number;
  readonly publishedAt: number;
}

/**
 * The last id of every subject. Partitions come in the order of their tokens, those of one subject scattered, so all buckets of the subjects are held in memory: 8 bytes
 * for each partition. A partition whose rows have all gone is passed over for the next lower one. Answers the greatest `publishedAt` (times never fall with rising ids).
 */
export async function newestOfAll({ pages, newestOf, visit, atOnce }: NewestParts): Promise<number> {
  const buckets = new Map<string, number[]>();
  for (let pageState: string | null = null, isFirst = true; isFirst || pageState !== null; isFirst = false) {
    const from = pageState;
    const page: types.ResultSet = await patiently(() => pages(from));
    pageState = page.pageState ?? null;
    for (const row of page.rows) {
      const name = (row.get('subject') as Buffer).toString('latin1');
      const known = buckets.get(name);
      if (known === undefined) buckets.set(name, [Number(row.get('bucket'))]);
      else known.push(Number(row.get('bucket')));
    }
  }
  let newest = 0;
  const subjects = buckets.entries();
  const walk = async (): Promise<void> => {
    for (const [name, found] of subjects) {
      const subject = Buffer.from(name, 'latin1');
      for (const bucket of found.sort((a, b) => b - a)) {
        const last = await patiently(() => newestOf(subject, bucket));
        if (last === null) continue;
        newest = Math.max(newest, last.publishedAt);
        visit(subject, last.lastId);
        break;
      }
    }
  };
  await Promise.all(Array.from({ length: atOnce }, walk));
  return newest;
}
