/** What the parts of the contract of a store share. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { BatchView } from '../../src/batch/batch-view.ts';
import type { MessageStore, ReadResult, SealedBatch, StoredItem, SubjectRef } from '../../src/storage/store.ts';
import { type Message, plain } from '../unit/batch-support.ts';

export interface StoreUnderTest {
  readonly store: MessageStore;
  /** A store of its own on the same data, as another node has; absent where only one process may write. */
  readonly another?: () => Promise<MessageStore>;
  /** Closes the store, changes a byte of a batch that it has, and opens it again. */
  damage(batch: SealedBatch, offset: number): Promise<MessageStore>;
  /** Closes the store and opens it again on the same data. */
  reopen(): Promise<MessageStore>;
}

/** Opens an empty store, which the test gives back when it ends. */
export type OpenStore = (t: TestContext) => Promise<StoreUnderTest>;

/** Declares a test of one store. */
export type StoreTest = (title: string, body: (under: StoreUnderTest, t: TestContext) => Promise<void>) => void;

/** Log time of batches whose time does not matter. */
export const TIME = 1_700_000_000_000;
/** Every id that a batch may have. */
export const ALL: number = Number.MAX_SAFE_INTEGER - 1;

export interface Shown {
  readonly kind: StoredItem['kind'];
  readonly from: number;
  readonly to: number;
  /** Bodies of the batch's messages, as text of their bytes. */
  readonly bodies?: readonly string[];
}

/** Items of an answer in a form that can be compared; checks every batch on the way. */
export function shown(subject: SubjectRef, items: readonly StoredItem[]): Shown[] {
  return items.map((item) => {
    const { kind, from, to } = item;
    if (item.kind !== 'data') return { kind, from, to };
    const view = new BatchView();
    assert.equal(view.wrap(item.bytes, 0), null);
    assert.ok(view.verifyBody());
    assert.deepEqual(Buffer.from(view.subject()), Buffer.from(subject.bytes));
    assert.deepEqual([view.base, view.base + view.count], [from, to]);
    const bodies: string[] = [];
    while (view.next()) bodies.push(Buffer.from(view.bytes.subarray(view.bodyStart, view.bodyEnd)).toString('latin1'));
    return { kind, from, to, bodies };
  });
}

/** Everything from `from` on, read as a subscriber does: answer by answer. */
export async function readAll(store: MessageStore, subject: SubjectRef, from = 1, maxBytes = 4096): Promise<Shown[]> {
  const all: Shown[] = [];
  let next = from;
  for (;;) {
    const answer: ReadResult = await store.read(subject, next, ALL, maxBytes);
    all.push(...shown(subject, answer.items));
    if (answer.next > ALL) return all;
    assert.ok(answer.next > next, 'a read moves on');
    next = answer.next;
  }
}

export function texts(prefix: string, count: number): Message[] {
  return Array.from({ length: count }, (_, i) => plain(`${prefix}-${i}`));
}
