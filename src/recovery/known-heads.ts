import { AllotMachine } from '../allot/allot-machine.ts';
import type { AllotLimits } from '../allot/allot-state.ts';
import {
  closeSize,
  FLOOR_BYTES,
  recoveredSize,
  writeFloor,
  writeOrigin,
  writeRecovered,
  writeTrim,
} from '../allot/commands.ts';
import { NO_SINK } from '../allot/verdicts.ts';
import { assert } from '../base/assert.ts';
import { subjectHash } from '../base/subject.ts';
import { ALL_SUBJECTS, nameOf, type SubjectName } from '../base/subject-space.ts';
import { SubjectTable } from '../base/subject-table.ts';

/**
 * Ids that every subject leaves out when it is recovered (design section 10): what was given and left no trace in the store, such as a batch that was on its way when the
 * log was lost.
 */
export const RECOVERY_GAP: number = 2 ** 20;
/** Commands of one entry. */
const ENTRY_BYTES = 1 << 20;
/** A subject's two commands. */
const COMMANDS_BYTES_MAX = recoveredSize(255) + closeSize(255);

/** What is known of the ids that were given, from the store and from older Raft state; and the state of a cluster that gives none of them again. */
export class KnownHeads {
  readonly #names = new SubjectTable();
  /** By row: the last id in the store, the last id that a log has given, and the first id that it had not trimmed. */
  readonly #stored: number[] = [];
  readonly #given: number[] = [];
  readonly #first: number[] = [];
  #floorOfLog = 0;
  #largest = { head: 0, row: -1 };
  subjectsOfLog = 0;

  get subjects(): number {
    return this.#names.size;
  }

  /** The largest id that is known of any subject; 0 if there is no subject. */
  get largestHead(): number {
    return this.#largest.head;
  }

  get largestSubject(): SubjectName {
    return nameOf(this.#largest.row < 0 ? new Uint8Array(0) : this.#names.nameAt(this.#largest.row));
  }

  /** Ids that a log gave and the store does not reach to. */
  get idsBeyondStore(): number {
    return this.#given.reduce((sum, given, row) => sum + Math.max(0, given - (this.#stored[row] as number)), 0);
  }

  /** `subject` is copied. */
  addStored(subject: Uint8Array, lastId: number): void {
    const row = this.#rowOf(subject);
    this.#stored[row] = Math.max(this.#stored[row] as number, lastId);
    this.#noteLargest(row, lastId);
  }

  /** All subjects of older Raft state. */
  addLog(machine: AllotMachine): void {
    this.#floorOfLog = Math.max(this.#floorOfLog, machine.floor);
    for (let cursor = 0; cursor >= 0; ) {
      cursor = machine.listSubjects(cursor, ALL_SUBJECTS, 1_000, (subject, names, start, end) => {
        const row = this.#rowOf(names.subarray(start, end));
        this.#given[row] = Math.max(this.#given[row] as number, machine.head(subject));
        this.#first[row] = Math.max(this.#first[row] as number, machine.first(subject));
        this.#noteLargest(row, machine.head(subject));
        this.subjectsOfLog += 1;
      });
    }
  }

  /** Where subjects that are not known begin: as far as the largest new head, and never below a floor of before. */
  floor(wanted: number): number {
    const largest = this.#names.size === 0 ? 0 : this.#largest.head + RECOVERY_GAP;
    return Math.max(largest, wanted, this.#floorOfLog === 0 ? 0 : this.#floorOfLog + RECOVERY_GAP);
  }

  /** The new head of a subject. `wanted`: an id that an operator names. */
  #headOf(row: number, wanted: number): number {
    const known = Math.max(this.#stored[row] as number, this.#given[row] as number);
    return Math.max(known + RECOVERY_GAP, wanted);
  }

  /** The state of the new cluster. `node` proposes it, `time` is its log time in epoch ms, `wanted` see `floor`. */
  build(limits: AllotLimits, node: string, time: number, wanted: number): AllotMachine {
    const machine = new AllotMachine(limits);
    const name = Buffer.from(node);
    const bytes = Buffer.alloc(ENTRY_BYTES);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const begin = (): number => writeOrigin(view, bytes, 0, name, 0, 0);
    let index = 0;
    let at = begin();
    const apply = (): void => {
      index += 1;
      machine.apply(index, time, bytes.subarray(0, at), NO_SINK);
      at = begin();
    };
    for (let row = 0; row < this.#names.size; row++) {
      if (at + COMMANDS_BYTES_MAX + FLOOR_BYTES > ENTRY_BYTES) apply();
      const subject = this.#names.nameAt(row);
      const hash = this.#names.hashAt(row);
      at = writeRecovered(view, bytes, at, subject, hash, this.#stored[row] as number, this.#headOf(row, wanted));
      const first = this.#first[row] as number;
      if (first > 1) at = writeTrim(view, bytes, at, subject, hash, first);
    }
    // Behind all subjects: one that is new begins at the floor.
    at = writeFloor(view, at, this.floor(wanted));
    apply();
    assert(machine.counts().subjects === this.#names.size, 'a subject was not recovered');
    return machine;
  }

  #rowOf(subject: Uint8Array): number {
    const hash = subjectHash(subject, 0, subject.length);
    const found = this.#names.find(subject, 0, subject.length, hash);
    if (found >= 0) return found;
    this.#stored.push(0);
    this.#given.push(0);
    this.#first.push(1);
    return this.#names.insert(subject, 0, subject.length, hash);
  }

  #noteLargest(row: number, head: number): void {
    if (head > this.#largest.head) this.#largest = { head, row };
  }
}
