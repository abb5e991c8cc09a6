/** What a start looks for in the partitions of Cassandra: in pages, of which one is held at a time. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { types } from 'cassandra-driver';
import { BrokerError } from '../../src/base/errors.ts';
import { Prng } from '../../src/base/prng.ts';
import { beyondHeads } from '../../src/storage/cassandra/beyond-heads.ts';
import { BUCKET_IDS, bucketOf } from '../../src/storage/cassandra/schema.ts';

interface Batch {
  readonly subject: string;
  readonly base: number;
  readonly count: number;
}

/** Partitions of these batches in any order, `rowsMax` a page; fails as often as it is told. */
class Table {
  readonly pagesAsked: (string | null)[] = [];
  rowsRead = 0;
  failures = 0;
  readonly #last = new Map<string, number>();
  readonly #keys: string[];
  readonly #rowsMax: number;

  constructor(batches: readonly Batch[], prng: Prng, rowsMax: number) {
    for (const { subject, base, count } of batches) {
      const key = `${subject} ${bucketOf(base)}`;
      this.#last.set(key, Math.max(this.#last.get(key) ?? 0, base + count - 1));
    }
    this.#keys = [...this.#last.keys()];
    for (let i = this.#keys.length - 1; i > 0; i--) {
      const other = prng.nextBelow(i + 1);
      [this.#keys[i], this.#keys[other]] = [this.#keys[other] as string, this.#keys[i] as string];
    }
    this.#rowsMax = rowsMax;
  }

  find(heads: ReadonlyMap<string, number>, onPage: (rows: number) => void = () => undefined) {
    const name = (subject: Uint8Array): string => Buffer.from(subject).toString();
    return beyondHeads({
      pages: (from) => this.#page(from),
      newestOf: async (subject, bucket) => {
        this.rowsRead += 1;
        return this.#last.get(`${name(subject)} ${bucket}`) ?? 0;
      },
      heads: async (subjects) => {
        assert.ok(subjects.length <= this.#rowsMax, 'more than a page is asked about');
        return subjects.map((subject) => heads.get(name(subject)) ?? 0);
      },
      onPage,
      atOnce: 3,
    });
  }

  async #page(from: string | null): Promise<types.ResultSet> {
    if (this.failures > 0) {
      this.failures -= 1;
      throw new BrokerError('STORE_UNAVAILABLE');
    }
    this.pagesAsked.push(from);
    const start = Number(from ?? 0);
    const end = start + this.#rowsMax;
    const rows = this.#keys.slice(start, end).map((key) => {
      const [subject, bucket] = key.split(' ') as [string, string];
      return { get: (column: string) => (column === 'subject' ? Buffer.from(subject) : Number(bucket)) };
    });
    return { rows, pageState: end < this.#keys.length ? String(end) : undefined } as unknown as types.ResultSet;
  }
}

test('whatever the log lacks, a batch of it is found; a log that lacks nothing costs one row of each subject', async () => {
  const prng = new Prng(11);
  for (let round = 0; round < 200; round++) {
    const given: Batch[] = [];
    const heads = new Map<string, number>();
    for (let i = 0; i < 40; i++) {
      const subject = `s${prng.nextBelow(5)}`;
      const base = (heads.get(subject) ?? 0) + 1;
      const count = 1 + prng.nextBelow(2 * BUCKET_IDS);
      heads.set(subject, base + count - 1);
      given.push({ subject, base, count });
    }
    const table = new Table(given, prng, 1 + prng.nextBelow(9));
    let rows = 0;
    assert.equal(
      await table.find(heads, (more) => {
        rows += more;
      }),
      null,
    );
    assert.equal(rows, new Set(given.map(({ subject, base }) => `${subject} ${bucketOf(base)}`)).size);
    assert.ok(table.rowsRead <= heads.size, `${table.rowsRead} rows of ${heads.size} subjects`);
    const older = new Map<string, number>();
    const known = prng.nextBelow(given.length);
    for (const { subject, base, count } of given.slice(0, known)) older.set(subject, base + count - 1);
    const found = await table.find(older);
    assert.ok(found !== null, `nothing beyond the first ${known}`);
    assert.equal(found.head, older.get(Buffer.from(found.subject).toString()) ?? 0);
    assert.ok(found.lastId > found.head);
  }
});

test('a page that is not answered is asked for again, and only so often', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const batches = Array.from({ length: 9 }, (_, i) => ({ subject: `s${i}`, base: 1, count: 1 }));
  const heads = new Map(batches.map(({ subject }) => [subject, 1]));
  const passed = async (found: Promise<unknown>): Promise<unknown> => {
    let isOver = false;
    const over = found.finally(() => {
      isOver = true;
    });
    over.catch(() => 'judged by the caller');
    while (!isOver) {
      await new Promise((resolve) => setImmediate(resolve));
      t.mock.timers.tick(10_000);
    }
    return over;
  };
  const table = new Table(batches, new Prng(1), 3);
  table.failures = 4;
  assert.equal(await passed(table.find(heads)), null);
  assert.deepEqual(table.pagesAsked, [null, '3', '6'], 'the scan began anew');
  table.failures = 5;
  await assert.rejects(passed(table.find(heads)), BrokerError);
});
