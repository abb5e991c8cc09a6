/** What the state machine says of subjects, for whoever holds the store against it. */

import type { AllotMachine } from '../../allot/allot-machine.ts';
import type { SubjectReport } from '../../allot/queries.ts';
import { subjectHash } from '../../base/subject.ts';
import type { SubjectScope } from '../../base/subject-space.ts';
import type { ReportPage } from '../messages.ts';

/** `cursor`: 0 to begin, then `next` of the page before. In the order of slots, and in each as subjects were born: the same for ever. */
export function reportPage(
  machine: AllotMachine,
  { cursor, scope, limit }: { readonly cursor: number; readonly scope: SubjectScope; readonly limit: number },
): ReportPage {
  const reports: SubjectReport[] = [];
  const next = machine.listSubjects(cursor, scope, limit, (subject) => void reports.push(machine.reportOf(subject)));
  return { reports, next };
}

export function reportsOf(machine: AllotMachine, subjects: readonly Uint8Array[]): (SubjectReport | null)[] {
  return subjects.map((name) => {
    const subject = machine.find(name, 0, name.length, subjectHash(name, 0, name.length));
    return subject < 0 ? null : machine.reportOf(subject);
  });
}
