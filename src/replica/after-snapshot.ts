import type { AllotMachine } from '../allot/allot-machine.ts';
import type { AllotmentInfo } from '../allot/queries.ts';
import { AllotVerdict } from '../allot/verdicts.ts';
import { subjectHash } from '../base/subject.ts';
import { ALL_SUBJECTS } from '../base/subject-space.ts';

const SUBJECTS_A_PAGE = 10_000;
/** No node has this number, and an allotment has one of a node. */
const NOBODY = -1;

/**
 * What the entries between two states would have told the shards, when a snapshot of the leader stands in their place: nobody hears those entries any more.
 * Answers to this node's own runs are not among it: if the snapshot has such runs, all shards are replaced (`Replica.installed`, `onAnswersLost`).
 */

/** Subjects that `after` has and `before` had not, by their numbers in `after`. */
export function bornSince(before: AllotMachine, after: AllotMachine, visit: (subject: number) => void): void {
  for (let cursor = 0; cursor >= 0; ) {
    cursor = after.listSubjects(cursor, ALL_SUBJECTS, SUBJECTS_A_PAGE, (subject, names, start, end) => {
      if (before.find(names, start, end, subjectHash(names, start, end)) < 0) visit(subject);
    });
  }
}

/**
 * Allotments that were open and have been revoked since. A shard that does not hear of it lets what comes behind such a batch overtake it, and its producer is
 * told that the later sequence is stored and the earlier is not (promise 5; seed 6998 of the cluster simulation). Told is what `after` still knows; the rest is
 * settled, and the store says how. `node`: this one's name, whose own allotments nobody else can have closed as stored; null if runs of its own are in the snapshot,
 * which may have closed some.
 */
export function revokedSince(
  before: AllotMachine,
  after: AllotMachine,
  node: Uint8Array | null,
  visit: (allotment: AllotmentInfo) => void,
): void {
  const own = node === null ? NOBODY : before.nodeNumber(node);
  for (const name of before.nodeNames()) {
    before.openAllotmentsOf(name, (allotment) => {
      const { subject, hash, base } = allotment;
      const number = after.find(subject, 0, subject.length, hash);
      const verdict = number < 0 ? AllotVerdict.UNKNOWN : after.verdictOf(number, base);
      const isRevoked = verdict === AllotVerdict.REVOKED || verdict === AllotVerdict.VOID;
      if (isRevoked || (allotment.node === own && verdict === AllotVerdict.SETTLED)) visit(allotment);
      return true;
    });
  }
}
