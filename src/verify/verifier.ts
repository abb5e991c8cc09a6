import { SLOT_COUNT, slotOfHash, subjectHash } from '../base/subject.ts';
import { isInScope, nameOf } from '../base/subject-space.ts';
import type { NewestVisitor, SubjectRef } from '../storage/store.ts';
import { type IdRange, IdWalk } from './id-walk.ts';
import { findingsOf, isOverdue, maybeExpiredOf, overdueOf } from './judge.ts';
import type { Tally } from './tally.ts';
import type { LogView, SubjectReport, VerifyTask } from './types.ts';

/** Subjects that the log is asked for at a time. */
const PAGE_SUBJECTS = 500;
/** A question of a whole page would keep the Raft thread for milliseconds; questions behind a read index share it. */
const ASK_SUBJECTS = 500;

/** Where the batches are. */
export interface VerifiedStore {
  /** Subjects that are walked at a time. */
  readonly atOnce: number;
  /** What has to be done before subjects are walked; everything that the log had settled before is seen. */
  begin(): Promise<void>;
  /** Before subjects of `slot` are walked, which come in the order of slots. The end of the slots that may follow. */
  ensure(slot: number): number;
  walk(subject: SubjectRef, first: number, settled: number, walk: IdWalk): Promise<void>;
  /** The last id of every subject that has something stored: of those slots, or of all, whatever `isByslots` says. */
  newest(visit: NewestVisitor): Promise<void>;
  /** It knows the newest ids of the slots that are available only. */
  readonly isBySlots: boolean;
  beyond(subject: SubjectRef, head: number): Promise<readonly IdRange[]>;
}

/**
 * Holds a store against the log. The fixed point: up to where each subject was settled at the beginning. All of that is in the store for ever, unless it was
 * trimmed or expired, so what is not there is judged by what the log says afterwards.
 */
export class Verifier {
  readonly #task: VerifyTask;
  readonly #log: LogView;
  readonly #store: VerifiedStore;
  readonly #tally: Tally;
  /** By slot, in the order of the log's listing: 8 bytes a subject. */
  readonly #settled: number[][] = Array.from({ length: SLOT_COUNT }, () => []);

  constructor(task: VerifyTask, log: LogView, store: VerifiedStore, tally: Tally) {
    this.#task = task;
    this.#log = log;
    this.#store = store;
    this.#tally = tally;
  }

  async run(): Promise<void> {
    this.#tally.step = 'listing subjects';
    for await (const reports of this.#pages()) this.#fix(reports);
    await this.#store.begin();
    this.#tally.step = 'comparing ids';
    await this.#walkAll();
    this.#tally.step = 'looking beyond the heads';
    if (!this.#store.isBySlots) await this.#lookBeyond();
  }

  async *#pages(): AsyncGenerator<readonly SubjectReport[]> {
    for (let cursor = 0; cursor >= 0; ) {
      const { reports, next } = await this.#log.page(this.#task.scope, cursor, PAGE_SUBJECTS);
      yield reports;
      this.#tally.maybeTell();
      cursor = next;
    }
  }

  #fix(reports: readonly SubjectReport[]): void {
    this.#tally.subjectsTotal += reports.length;
    for (const { subject, settled } of reports) this.#settled[slotOf(subject)]?.push(settled);
  }

  async #walkAll(): Promise<void> {
    const seen = new Uint32Array(SLOT_COUNT);
    let slotsEnd = this.#store.ensure(0);
    for await (const reports of this.#pages()) {
      for (let at = 0; at < reports.length; ) {
        const slot = slotOf((reports[at] as SubjectReport).subject);
        while (slot >= slotsEnd) slotsEnd = await this.#nextSlots(slotsEnd);
        let end = at;
        while (end < reports.length && slotOf((reports[end] as SubjectReport).subject) < slotsEnd) end += 1;
        await this.#walkSome(reports.slice(at, end), seen);
        at = end;
      }
    }
    while (slotsEnd < SLOT_COUNT) slotsEnd = await this.#nextSlots(slotsEnd);
    if (this.#store.isBySlots) await this.#lookBeyond();
  }

  async #nextSlots(from: number): Promise<number> {
    if (this.#store.isBySlots) await this.#lookBeyond();
    return this.#store.ensure(from);
  }

  async #walkSome(reports: readonly SubjectReport[], seen: Uint32Array): Promise<void> {
    const suspects: { readonly subject: Uint8Array; readonly walk: IdWalk }[] = [];
    const jobs = reports.map((report) => {
      const slot = slotOf(report.subject);
      const row = seen[slot] as number;
      seen[slot] = row + 1;
      // One that was born since has nothing that was settled then.
      return { report, settled: this.#settled[slot]?.[row] ?? 0 };
    });
    const work = jobs.values();
    const walkOn = async (): Promise<void> => {
      for (const { report, settled } of work) {
        const walk = new IdWalk(report.first, settled);
        if (report.first <= settled) await this.#store.walk(refOf(report.subject), report.first, settled, walk);
        walk.end();
        countVoids(walk, report);
        this.#tally.walked(walk);
        const isLate = isOverdue(report, this.#clock, this.#task.openMsMax);
        if (!walk.isClean || isLate) suspects.push({ subject: report.subject, walk });
      }
    };
    await Promise.all(Array.from({ length: this.#store.atOnce }, walkOn));
    if (suspects.length > 0) await this.#judge(suspects);
  }

  /** What looks wrong is held against the log as it is by now. */
  async #judge(suspects: readonly { readonly subject: Uint8Array; readonly walk: IdWalk }[]): Promise<void> {
    const reports = await this.#log.now(suspects.map(({ subject }) => subject));
    for (const [i, { walk }] of suspects.entries()) {
      const now = reports[i] ?? null;
      if (now === null) continue;
      for (const finding of findingsOf(walk, now)) this.#tally.add(finding);
      this.#tally.maybeExpired += maybeExpiredOf(walk, now);
      if (isOverdue(now, this.#clock, this.#task.openMsMax)) this.#tally.add(overdueOf(now, this.#clock));
    }
  }

  get #clock(): number {
    return this.#task.stoppedAt ?? Date.now();
  }

  /** Ids are given before anything is stored under them: what is stored and was not given, as the log says afterwards, is of another log. */
  async #lookBeyond(): Promise<void> {
    let some: { readonly subject: Uint8Array; readonly lastId: number }[] = [];
    const asked: Promise<void>[] = [];
    let failure: unknown = null;
    const ask = (): void => {
      const question = this.#askBeyond(some);
      some = [];
      // Met at the end.
      question.catch((error: unknown) => {
        failure ??= error;
      });
      asked.push(question);
    };
    await this.#store.newest((name, lastId) => {
      if (!isInScope(name, 0, name.length, this.#task.scope)) return;
      some.push({ subject: Uint8Array.from(name), lastId });
      if (some.length >= ASK_SUBJECTS) ask();
    });
    if (some.length > 0) ask();
    await Promise.allSettled(asked);
    if (failure !== null) throw failure;
  }

  async #askBeyond(some: readonly { readonly subject: Uint8Array; readonly lastId: number }[]): Promise<void> {
    const reports = await this.#log.now(some.map(({ subject }) => subject));
    for (const [i, { subject, lastId }] of some.entries()) {
      const head = reports[i]?.head ?? 0;
      if (lastId <= head) continue;
      for (const { from, to } of await this.#store.beyond(refOf(subject), head)) {
        this.#tally.add({
          ...nameOf(subject),
          firstId: Math.max(from, head + 1),
          lastId: to - 1,
          kind: 'beyond-head',
          detail: reports[i] === null ? 'the log does not know the subject' : `the log has given ids up to ${head}`,
        });
      }
    }
    this.#tally.maybeTell();
  }
}

function slotOf(subject: Uint8Array): number {
  return slotOfHash(subjectHash(subject, 0, subject.length));
}

function refOf(subject: Uint8Array): SubjectRef {
  return { bytes: subject, hash: subjectHash(subject, 0, subject.length) };
}

/** Those of `cluster recover` have no marks. */
function countVoids(walk: IdWalk, { voidFrom, voidTo }: SubjectReport): void {
  for (const { from, to } of walk.missing) {
    walk.voids += Math.max(0, Math.min(to, voidTo + 1) - Math.max(from, voidFrom));
  }
}
