import type { MessageStore, SealedBatch } from '../../storage/store.ts';
import { RAFT_RING_BYTES } from '../link.ts';
import type { OpenAllotment } from '../messages.ts';
import { newestIdSize, writeNewestId } from '../newest-ids.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { VoidMark } from './group.ts';
import type { PublishPath } from './publish-path.ts';
import type { RaftClient } from './raft-client.ts';
import type { EmbeddedShardStore } from './shard-store.ts';
import type { ActiveSubject, ActiveSubjects } from './subjects.ts';

const VERIFY_BYTES = RAFT_RING_BYTES / 16;
/** Reads of a database that are on their way together. */
const LOOKUPS_AT_ONCE = 64;

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
  for (const each of leftOpen.toSorted((a, b) => a.base - b.base)) {
    const { subject: name, hash, base, count, revoked: isRevoked } = each;
    const subject: ActiveSubject = subjects.get(name, 0, name.length, hash);
    const found = store.lookup(subject.ref, base);
    if (found !== 'void' && isRevoked) {
      publish.markLeftOver(markOf(subject, each));
      revoked += 1;
      continue;
    }
    if (found === 'absent') {
      publish.revokeLeftOver(markOf(subject, each));
      revoked += 1;
      continue;
    }
    const allotment = subject.allotted(base, count, each.openedAt);
    subject.resolved(allotment);
    if (found === 'data') requests.closeStored(subject, base);
    else requests.closeVoid(subject, base);
    stored += 1;
  }
  requests.send();
  return { stored, revoked };
}

/**
 * The same with a database. Nothing that is open was acknowledged or refused, so each may still become either; what the database has is
 * closed as stored: with a log that lacks its last entries it may have been acknowledged. A read may see what a standby does not have yet,
 * so the batch is appended again first, which is durable when it is answered. A commit of the process before that comes later than the look
 * meets the void mark, which is filed by the allotment as its batch is. What lies behind one that is missing is revoked with it (rule 5): a
 * database that writes a group row by row may have the later batch of a sender and not the earlier, which is sent again. One that is revoked by
 * now counts as missing: whoever revoked it may have ended before it did so with a batch behind it, which the database took meanwhile. One whose bytes are
 * damaged is as good as missing, and is told: it may have been acknowledged, see above. The revokes of a subject go from its end to its beginning:
 * should this process end with only some of them applied, the next one still finds the one that is missing, and what lies behind it.
 */
export async function resolveInDatabase(
  leftOpen: readonly OpenAllotment[],
  store: MessageStore,
  subjects: ActiveSubjects,
  publish: PublishPath,
  requests: AllotRequests,
  onDamage: (subject: ActiveSubject, id: number) => void,
): Promise<{ stored: number; revoked: number }> {
  const ordered = leftOpen
    .toSorted((a, b) => a.base - b.base)
    .map((each) => ({ ...each, owner: subjects.get(each.subject, 0, each.subject.length, each.hash) }));
  const found = new Map<OpenAllotment, SealedBatch>();
  for (let at = 0; at < ordered.length; at += LOOKUPS_AT_ONCE) {
    const some = ordered.slice(at, at + LOOKUPS_AT_ONCE).filter(({ revoked }) => !revoked);
    await Promise.all(
      some.map(async (each) => {
        const { base, count, openedAt: publishedAt, expiresMax, owner } = each;
        const { items } = await store.read(owner.ref, base, base + count - 1, 1);
        const item = items[0];
        if (item?.kind === 'damaged') onDamage(owner, Math.max(base, item.from));
        if (item?.kind !== 'data' || item.base !== base || item.to !== base + count) return;
        found.set(each, { subject: owner.ref, bytes: item.bytes, base, count, publishedAt, expiresMax, kind: 'data' });
      }),
    );
  }
  const broken = new Set<ActiveSubject>();
  for (const each of ordered) {
    if (broken.has(each.owner)) found.delete(each);
    else if (!found.has(each)) broken.add(each.owner);
  }
  if (found.size > 0) await store.append([...found.values()]);
  const missing: VoidMark[] = [];
  for (const each of ordered) {
    const { owner, base, count, openedAt } = each;
    if (found.has(each)) {
      owner.resolved(owner.allotted(base, count, openedAt));
      requests.closeStored(owner, base);
    } else if (each.revoked) publish.markLeftOver(markOf(owner, each));
    else missing.push(markOf(owner, each));
  }
  for (const mark of missing.toReversed()) publish.revokeLeftOver(mark);
  requests.send();
  return { stored: found.size, revoked: ordered.length - found.size };
}

function markOf(subject: ActiveSubject, { base, count, openedAt, expiresMax }: OpenAllotment): VoidMark {
  return { subject, allotment: subject.allotted(base, count, openedAt), publishedAt: openedAt, expiresMax };
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
    if (used + newestIdSize(name.length) > VERIFY_BYTES) {
      raft.verify(packed.subarray(0, used));
      used = 0;
    }
    used = writeNewestId(packed, used, name, hash, lastId);
    subjects += 1;
  });
  if (used > 0) raft.verify(packed.subarray(0, used));
  raft.verified();
  return subjects;
}
