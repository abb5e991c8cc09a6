import type { AllotMachine } from '../../allot/allot-machine.ts';
import type { StoredAllotment } from '../messages.ts';

/** Few enough to look them up one after another, enough that a database which lacks the end of the log lacks some of them. */
const KEPT_MAX = 256;

/** The batches that a log has closed as stored last, as it is replayed: a database that does not have them is an older copy than the log. */
export class LastStored {
  readonly #ring: StoredAllotment[] = [];
  #next = 0;

  /** The subject is names[start, end), `base` that of its allotment. */
  add(names: Uint8Array, start: number, end: number, hash: number, base: number): void {
    this.#ring[this.#next] = { subject: names.slice(start, end), hash, base };
    this.#next = (this.#next + 1) % KEPT_MAX;
  }

  /** Those that are neither trimmed nor of a subject in which something expires. */
  mustBeThere(machine: AllotMachine): StoredAllotment[] {
    return this.#ring.filter(({ subject, hash, base }) => {
      const number = machine.find(subject, 0, subject.length, hash);
      return !machine.everExpires(number) && base >= machine.first(number);
    });
  }
}
