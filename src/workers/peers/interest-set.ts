import type { PeerInterest } from '../../grpc/peer-codec.ts';

/** Subjects that a node names to its peers; with more it wants everything. About 150 bytes each, at each peer. */
export const INTEREST_MAX = 65_536;

/** What changes for whoever gathers what all peers want. Subjects are keys: their bytes as latin1. */
export interface InterestEvents {
  began(subject: string): void;
  ended(subject: string): void;
  /** It wants all subjects, or only those that it named. */
  everything(isOn: boolean): void;
}

/** What one peer wants, as it has told. Bounded whatever it tells: who names too many subjects gets everything. */
export class InterestSet {
  readonly #events: InterestEvents;
  readonly #subjectsMax: number;
  readonly #subjects = new Set<string>();
  /** While the whole set comes in parts: what has come of it. */
  #coming: Set<string> | null = null;
  #everything = false;

  constructor(events: InterestEvents, subjectsMax = INTEREST_MAX) {
    this.#events = events;
    this.#subjectsMax = subjectsMax;
  }

  get size(): number {
    return this.#subjects.size;
  }

  wants(subject: string): boolean {
    return this.#everything || this.#subjects.has(subject);
  }

  apply({ everything, first, last, added, removed }: PeerInterest): void {
    if (everything) {
      this.#becomeEverything();
      return;
    }
    if (first) this.#coming = new Set();
    for (const name of added) this.#add(keyOf(name));
    for (const name of removed) this.#remove(keyOf(name));
    if (last) this.#complete();
  }

  /** It is gone, or another process by now. */
  clear(): void {
    this.#coming = null;
    for (const subject of this.#subjects) this.#remove(subject);
    this.#setEverything(false);
  }

  #add(subject: string): void {
    this.#coming?.add(subject);
    if (this.#subjects.has(subject)) return;
    // Until it sends a whole set again.
    if (this.#subjects.size >= this.#subjectsMax) this.#becomeEverything();
    if (this.#everything && this.#coming === null) return;
    this.#subjects.add(subject);
    this.#events.began(subject);
  }

  #remove(subject: string): void {
    this.#coming?.delete(subject);
    if (this.#subjects.delete(subject)) this.#events.ended(subject);
  }

  #complete(): void {
    const whole = this.#coming;
    if (whole === null) return;
    this.#coming = null;
    for (const subject of this.#subjects) if (!whole.has(subject)) this.#remove(subject);
    this.#setEverything(false);
  }

  #becomeEverything(): void {
    this.#coming = null;
    for (const subject of this.#subjects) this.#remove(subject);
    this.#setEverything(true);
  }

  #setEverything(isOn: boolean): void {
    if (this.#everything === isOn) return;
    this.#everything = isOn;
    this.#events.everything(isOn);
  }
}

/** A subject as a key of maps. */
export function keyOf({ buffer, byteOffset, length }: Uint8Array): string {
  return Buffer.from(buffer as ArrayBuffer, byteOffset, length).toString('latin1');
}
