import type { AllotMachine } from '../../allot/allot-machine.ts';
import { rowOfSubject, slotOfSubject } from '../../allot/allot-state.ts';
import { AllotVerdict } from '../../allot/verdicts.ts';
import { subjectHash } from '../../base/subject.ts';
import { ALL_SUBJECTS } from '../../base/subject-space.ts';
import { verifyNewestIds } from '../newest-ids.ts';

const SUBJECTS_A_PAGE = 10_000;

/** `id` is the first one that is concerned; the name, names[start, end), is valid during the call. */
export type HeadVisitor = (names: Uint8Array, start: number, end: number, hash: number, id: number) => void;

/**
 * Holds the newest ids of the store against what the log has given, subject by subject, at a start (design section 9). A store that has more
 * than its log is a log of another time, and the node halts. A log that has settled more than the store has is a loss of messages: it is told.
 */
export class HeadCheck {
  readonly #machine: AllotMachine;
  /** By slot and row: 1 = the store reaches to the last settled id. */
  readonly #reaching = new Map<number, Uint8Array>();
  /** Newest stored ids of the subjects where it does not. */
  readonly #behind = new Map<number, number>();

  constructor(machine: AllotMachine) {
    this.#machine = machine;
  }

  /** Takes a record of newest ids, packed as ToRaft.VERIFY says. `onTrimmed` hears of each subject that has lost its first ids: the store keeps them until their segment goes, and they must not come back with a restart. */
  take(packed: Uint8Array, onTrimmed: HeadVisitor): void {
    verifyNewestIds(this.#machine, packed, (subject, start, end, hash, stored) => {
      if (stored >= this.#machine.settled(subject)) this.#reaches(subject);
      else this.#behind.set(subject, stored);
      const first = this.#machine.first(subject);
      if (first > 1) onTrimmed(packed, start, end, hash, first);
    });
  }

  /**
   * Visits the subjects of the slots that `owns` accepts whose newest settled messages are not in the store. Everything that these slots have in the
   * store was taken before; that is forgotten afterwards. Where messages expire, missing ones are taken for expired.
   */
  missing(owns: (slot: number) => boolean, visit: HeadVisitor): void {
    const machine = this.#machine;
    for (let cursor = 0; cursor >= 0; ) {
      cursor = machine.listSubjects(cursor, ALL_SUBJECTS, SUBJECTS_A_PAGE, (subject, names, start, end) => {
        const slot = slotOfSubject(subject);
        if (!owns(slot) || this.#reaching.get(slot)?.[rowOfSubject(subject)] === 1) return;
        const settled = machine.settled(subject);
        const id = Math.max(machine.first(subject), (this.#behind.get(subject) ?? 0) + 1);
        this.#behind.delete(subject);
        // A void range, which `cluster recover` leaves, has no marks in the store.
        if (id > settled || machine.everExpires(subject) || machine.verdictOf(subject, settled) === AllotVerdict.VOID)
          return;
        visit(names, start, end, subjectHash(names, start, end), id);
      });
    }
    for (const slot of this.#reaching.keys()) if (owns(slot)) this.#reaching.delete(slot);
  }

  #reaches(subject: number): void {
    const slot = slotOfSubject(subject);
    const row = rowOfSubject(subject);
    let rows = this.#reaching.get(slot);
    if (rows === undefined || row >= rows.length) {
      const grown = new Uint8Array(Math.max(64, 2 * row));
      if (rows !== undefined) grown.set(rows);
      rows = grown;
      this.#reaching.set(slot, rows);
    }
    rows[row] = 1;
  }
}
