import type { SealedBatch } from './store.ts';

function compareKeys(left: SealedBatch, right: SealedBatch): number {
  return Buffer.compare(left.subject.bytes, right.subject.bytes) || left.base - right.base;
}

/**
 * The group in key order, each key once, a mark before the data of its key. Key order, so that two groups that meet never wait for each
 * other; once, because one statement may not change a row twice.
 */
export function onePerKey(group: readonly SealedBatch[]): SealedBatch[] {
  const sorted = [...group].sort(compareKeys);
  const kept: SealedBatch[] = [];
  for (const batch of sorted) {
    const last = kept.at(-1);
    if (last === undefined || compareKeys(last, batch) !== 0) kept.push(batch);
    else if (batch.kind === 'void') kept[kept.length - 1] = batch;
  }
  return kept;
}
