import { nameOf } from '../base/subject-space.ts';
import type { IdRange, IdWalk } from './id-walk.ts';
import type { Finding, FindingKind, SubjectReport } from './types.ts';

/**
 * What of a walk is a finding, by what the log says *after* the store was read: what was trimmed meanwhile, also by retention, may be gone, and
 * where messages expire a hole is what is left of them (design section 7, rule 7).
 */
export function findingsOf(walk: IdWalk, now: SubjectReport): Finding[] {
  const name = nameOf(now.subject);
  const make = (kind: FindingKind, { from, to }: IdRange, detail: string): Finding => ({
    ...name,
    firstId: from,
    lastId: to - 1,
    kind,
    detail,
  });
  const isKept = ({ to }: IdRange): boolean => to > now.first;
  const missing = now.everExpires ? [] : missingOf(walk, now);
  return [
    ...missing.map((range) =>
      make('missing', { ...range, from: Math.max(range.from, now.first) }, 'the store has neither batch nor void mark'),
    ),
    ...walk.damaged.filter(isKept).map((range) => make('damaged', range, 'the batch fails its checksums')),
    ...walk.twice.filter(isKept).map((range) => make('twice', range, 'two batches have these ids')),
  ];
}

/** Ids that are missing and may have expired: where messages expire, the log does not know which of them did. */
export function maybeExpiredOf(walk: IdWalk, now: SubjectReport): number {
  if (!now.everExpires) return 0;
  return missingOf(walk, now).reduce((sum, { from, to }) => sum + to - Math.max(from, now.first), 0);
}

function missingOf(walk: IdWalk, now: SubjectReport): IdRange[] {
  return walk.missing.flatMap((range) => withoutVoids(range, now)).filter(({ to }) => to > now.first);
}

/** `cluster recover` leaves ids out without writing marks. */
function withoutVoids({ from, to }: IdRange, { voidFrom, voidTo }: SubjectReport): IdRange[] {
  if (voidTo < from || voidFrom >= to) return [{ from, to }];
  const rest = [
    { from, to: voidFrom },
    { from: voidTo + 1, to },
  ];
  return rest.filter((range) => range.from < range.to);
}

/** The oldest id without a verdict is older than it should be. */
export function isOverdue({ openSince }: SubjectReport, clockMs: number, openMsMax: number): boolean {
  return openSince > 0 && clockMs - openSince > openMsMax;
}

export function overdueOf(now: SubjectReport, clockMs: number): Finding {
  const seconds = Math.round((clockMs - now.openSince) / 1_000);
  return {
    ...nameOf(now.subject),
    firstId: now.settled + 1,
    lastId: now.head,
    kind: 'not-settled',
    detail: `given ${seconds} s ago, and neither stored nor void yet`,
  };
}
