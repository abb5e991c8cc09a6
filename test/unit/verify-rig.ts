/** A verification of a real store against a log that the test writes down. */

import { slotOfHash, subjectHash } from '../../src/base/subject.ts';
import { subjectScope } from '../../src/base/subject-space.ts';
import { Pace } from '../../src/verify/pace.ts';
import { Tally } from '../../src/verify/tally.ts';
import type { Finding, LogView, Progress, SubjectReport } from '../../src/verify/types.ts';
import { OPEN_MS_MAX } from '../../src/verify/types.ts';
import { type VerifiedStore, Verifier } from '../../src/verify/verifier.ts';

export interface Stands {
  readonly first?: number;
  readonly settled: number;
  readonly head?: number;
  readonly everExpires?: boolean;
  readonly openSince?: number;
  readonly voidFrom?: number;
  readonly voidTo?: number;
}

export function report(name: string, stands: Stands): SubjectReport {
  const { first = 1, settled, head = settled, everExpires = false, openSince = 0, voidFrom = 0, voidTo = 0 } = stands;
  return {
    subject: Uint8Array.from(Buffer.from(name)),
    first,
    head,
    settled,
    everExpires,
    openSince,
    voidFrom,
    voidTo,
  };
}

function slotOf(name: string): number {
  const bytes = Buffer.from(name);
  return slotOfHash(subjectHash(bytes, 0, bytes.length));
}

/** In the order of slots, as the log lists them, some at a time. `later`: what it says when it is asked again. */
export function logOf(
  subjects: Readonly<Record<string, Stands>>,
  later: Readonly<Record<string, Stands>> = {},
): LogView & { pages: number } {
  const names = Object.keys(subjects).sort((a, b) => slotOf(a) - slotOf(b));
  return {
    pages: 0,
    async page({ prefix }, cursor) {
      this.pages += 1;
      const some = names.slice(cursor, cursor + 2).filter((name) => name.startsWith(Buffer.from(prefix).toString()));
      const next = cursor + 2 < names.length ? cursor + 2 : -1;
      return { reports: some.map((name) => report(name, subjects[name] as Stands)), next };
    },
    async now(asked) {
      return asked.map((bytes) => {
        const name = Buffer.from(bytes).toString();
        const stands = later[name] ?? subjects[name];
        return stands === undefined ? null : report(name, stands);
      });
    },
  };
}

export interface Verified {
  readonly findings: Finding[];
  readonly last: Progress;
}

export async function verified(
  log: LogView,
  open: (tally: Tally, pace: Pace) => VerifiedStore,
  options: { readonly prefix?: string; readonly stoppedAt?: number | null; readonly openMsMax?: number } = {},
): Promise<Verified> {
  const findings: Finding[] = [];
  const tally = new Tally((progress) => findings.push(...progress.findings));
  const { prefix = '', stoppedAt = null, openMsMax = OPEN_MS_MAX } = options;
  const scope = subjectScope('', prefix);
  const task = { segmentsPath: null, database: null, scope, bytesPerSecond: 0, stoppedAt, openMsMax };
  await new Verifier(task, log, open(tally, new Pace(0)), tally).run();
  const last = tally.take();
  return { findings: [...findings, ...last.findings], last };
}

/** `kind subject first-last`, as people are shown it. */
export function shown(findings: readonly Finding[]): string[] {
  return findings.map(({ kind, subject, firstId, lastId }) => `${kind} ${subject} ${firstId}-${lastId}`).sort();
}
