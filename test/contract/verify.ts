/** A database held against a log: what is changed behind the broker's back is found, by its kind and ids, and nothing else is. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { DatabaseStore, SealedBatch } from '../../src/storage/store.ts';
import { databaseStore } from '../../src/verify/stores.ts';
import { dataBatch, plain, subjectRef, voidBatch } from '../unit/batch-support.ts';
import { logOf, type Stands, shown, verified } from '../unit/verify-rig.ts';

export interface TamperedStore {
  readonly store: DatabaseStore;
  remove(batch: SealedBatch): Promise<void>;
  changeByte(batch: SealedBatch, offset: number): Promise<void>;
}

const LOG: Readonly<Record<string, Stands>> = { orders: { settled: 12 }, 'orders.eu': { settled: 2 } };

export function verifySuite(name: string, open: (t: TestContext) => Promise<TamperedStore>): void {
  const messages = (count: number) => Array.from({ length: count }, (_, i) => plain(`message ${i}`));

  test(`${name}: verify finds a row that is gone, bytes that are not as they were, ids twice and ids that were never given`, async (t) => {
    const { store, remove, changeByte } = await open(t);
    const orders = subjectRef('orders');
    const batches = [
      dataBatch(orders, messages(3), { base: 1 }),
      voidBatch(orders, 4, 2),
      dataBatch(orders, messages(3), { base: 6 }),
      dataBatch(orders, messages(2), { base: 9 }),
      dataBatch(orders, messages(2), { base: 11 }),
      dataBatch(subjectRef('orders.eu'), messages(2), { base: 1 }),
    ] as const;
    await store.append(batches);
    const look = (log = logOf(LOG), prefix = '') =>
      verified(log, (tally, pace) => databaseStore(store, tally, pace), { prefix });
    const { findings, last } = await look();
    assert.deepEqual(findings, []);
    assert.deepEqual([last.subjectsDone, last.batches, last.messages, last.voids], [2, 5, 12, 2]);
    assert.ok(last.bytes > 0);

    // In the records, and in the header.
    await changeByte(batches[0], batches[0].bytes.length - 9);
    await changeByte(batches[5], 24);
    assert.deepEqual(shown((await look()).findings), ['damaged orders 1-3', 'damaged orders.eu 1-2']);
    await remove(batches[2]);
    await remove(batches[1]);
    assert.deepEqual(shown((await look()).findings), [
      'damaged orders 1-3',
      'damaged orders.eu 1-2',
      'missing orders 4-8',
    ]);
    await store.append([
      dataBatch(orders, messages(2), { base: 10 }),
      dataBatch(orders, messages(2), { base: 15 }),
      dataBatch(subjectRef('unknown'), messages(1), { base: 7 }),
    ]);
    const expected = [
      'beyond-head orders 15-16',
      'beyond-head unknown 7-7',
      'damaged orders 1-3',
      'damaged orders.eu 1-2',
      'missing orders 4-8',
      'twice orders 10-10',
      'twice orders 11-11',
    ];
    assert.deepEqual(shown((await look()).findings), expected);
    assert.deepEqual(shown((await look(logOf(LOG), 'orders.')).findings), ['damaged orders.eu 1-2']);
    // What the log has given up, or given, by the time that it is asked again.
    const later = { orders: { first: 9, settled: 12, head: 20 }, unknown: { settled: 0, head: 7 } };
    assert.deepEqual(shown((await look(logOf(LOG, later))).findings), [
      'damaged orders.eu 1-2',
      'twice orders 10-10',
      'twice orders 11-11',
    ]);
  });

  test(`${name}: verify of a subject of more batches and spans than one read answers`, async (t) => {
    const { store, remove } = await open(t);
    const subject = subjectRef('long');
    const batches = Array.from({ length: 700 }, (_, i) => dataBatch(subject, messages(5), { base: 1 + i * 5 }));
    for (let at = 0; at < batches.length; at += 100) await store.append(batches.slice(at, at + 100));
    const look = () =>
      verified(logOf({ long: { settled: 3_500 } }), (tally, pace) => databaseStore(store, tally, pace));
    const { findings, last } = await look();
    assert.deepEqual(findings, []);
    assert.deepEqual([last.batches, last.messages], [700, 3_500]);
    for (const gone of [0, 256, 699]) await remove(batches[gone] as SealedBatch);
    assert.deepEqual(shown((await look()).findings), [
      'missing long 1-5',
      'missing long 1281-1285',
      'missing long 3496-3500',
    ]);
  });
}
