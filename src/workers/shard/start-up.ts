import { BatchView } from '../../batch/batch-view.ts';
import type { MessageStore } from '../../storage/store.ts';
import { RAFT_RING_BYTES } from '../link.ts';
import type { OpenAllotment } from '../messages.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { PublishPath } from './publish-path.ts';
import type { RaftClient } from './raft-client.ts';
import type { EmbeddedShardStore } from './shard-store.ts';
import type { ActiveSubject, ActiveSubjects } from './subjects.ts';

const VERIFY_BYTES = RAFT_RING_BYTES / 16;
/** f64 id, u32 hash, u32 length. */
const VERIFY_HEADER = 16;

/**
 * What was open when the process, or this shard's former thread, ended is looked up in the segments, which are fdatasynced by now (design
 * section 7, rule 4): a batch that is whole is closed as stored, a void mark as void, anything else is revoked. Base order per subject
 * keeps the order of ids that become readable.
 */
export function resolveLeftOpen(
  leftOpen: readonly OpenAllotment[],
  store: EmbeddedShardStore,
  subjects: ActiveSubjects,
  publish: PublishPath,
  requests: AllotRequests,
): { stored: number; revoked: number } {
  let stored = 0;
  let revoked = 0;
  const ordered = [...leftOpen].sort((a, b) => a.base - b.base);
  for (const { subject: name, hash, base, count, revoked: isRevoked } of ordered) {
    const subject: ActiveSubject = subjects.get(name, 0, name.length, hash);
    const found = store.lookup(subject.ref, base);
    if (found !== 'void' && isRevoked) {
      publish.markLeftOver(subject, base, count);
      revoked += 1;
      continue;
    }
    if (found === 'absent') {
      publish.revokeLeftOver(subject, base, count);
      revoked += 1;
      continue;
    }
    const allotment = subject.allotted(base, count, 0);
    subject.resolved(allotment);
    if (found === 'data') requests.closeStored(subject, base);
    else requests.closeVoid(subject, base);
    stored += 1;
  }
  requests.send();
  return { stored, revoked };
}

/**
 * The same with a database. What was open is revoked, by the start of this process or here for a thread that died: nothing of it was acknowledged.
 * A mark has to lie where its batch does, so the store is asked for the batch.
 */
export async function voidLeftOpen(
  leftOpen: readonly OpenAllotment[],
  store: MessageStore,
  subjects: ActiveSubjects,
  publish: PublishPath,
): Promise<{ stored: number; revoked: number }> {
  const view = new BatchView();
  const ordered = [...leftOpen].sort((a, b) => a.base - b.base);
  for (const { subject: name, hash, base, count, revoked } of ordered) {
    const subject: ActiveSubject = subjects.get(name, 0, name.length, hash);
    const { items } = await store.read(subject.ref, base, base + count - 1, 1);
    const item = items[0];
    let publishedAt = 0;
    let expiresMax = 0;
    if (item?.kind === 'data') {
      view.wrap(item.bytes, 0);
      ({ publishedAt, expiresMax } = view);
    }
    if (revoked) publish.markLeftOver(subject, base, count, publishedAt, expiresMax);
    else publish.revokeLeftOver(subject, base, count, publishedAt, expiresMax);
  }
  return { stored: 0, revoked: ordered.length };
}

/** Sends the newest id of every stored subject to the Raft thread, which halts the node if its log knows less, and tells what the store lacks. */
export function verifyHeads(
  store: Pick<EmbeddedShardStore, 'heads'>,
  raft: Pick<RaftClient, 'verify' | 'verified'>,
): number {
  const packed = Buffer.alloc(VERIFY_BYTES);
  let used = 0;
  let subjects = 0;
  store.heads((name: Uint8Array, hash: number, lastId: number) => {
    const size = VERIFY_HEADER + ((name.length + 7) & ~7);
    if (used + size > VERIFY_BYTES) {
      raft.verify(packed.subarray(0, used));
      used = 0;
    }
    packed.writeDoubleLE(lastId, used);
    packed.writeUInt32LE(hash, used + 8);
    packed.writeUInt32LE(name.length, used + 12);
    packed.set(name, used + VERIFY_HEADER);
    used += size;
    subjects += 1;
  });
  if (used > 0) raft.verify(packed.subarray(0, used));
  raft.verified();
  return subjects;
}
