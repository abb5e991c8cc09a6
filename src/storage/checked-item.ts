import { BatchKind } from '../batch/batch-format.ts';
import type { BatchView } from '../batch/batch-view.ts';
import type { StoredItem, SubjectRef } from './store.ts';

/** A row of a database as its columns describe it. */
export interface StoredRow {
  readonly base: number;
  readonly count: number;
  readonly isMark: boolean;
  readonly bytes: Buffer;
}

/** The row as an item, if its bytes are the batch that its key names and every checksum holds; else as damage. */
export function checkedItem(view: BatchView, subject: SubjectRef, row: StoredRow): StoredItem {
  const { base, count, bytes } = row;
  const to = base + count;
  if (row.isMark) return { kind: 'void', from: base, to };
  const isWhole =
    view.wrap(bytes, 0) === null &&
    view.kind === BatchKind.DATA &&
    view.base === base &&
    view.count === count &&
    view.subjectIs(subject.bytes) &&
    view.verifyBody();
  return isWhole ? { kind: 'data', from: base, to, base, bytes } : { kind: 'damaged', from: base, to };
}
