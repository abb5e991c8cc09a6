import { INTEREST_SUBJECTS_MAX, type PeerInterest } from '../../grpc/peer-codec.ts';
import { INTEREST_MAX, keyOf } from './interest-set.ts';

/** How long a subject stays wanted behind its last subscriber, in ms: who connects again causes no message to anybody. */
export const LINGER_MS = 5_000;

const NO_SUBJECTS: readonly Uint8Array[] = [];
const EVERYTHING: PeerInterest = {
  everything: true,
  first: true,
  last: true,
  added: NO_SUBJECTS,
  removed: NO_SUBJECTS,
};

interface Wanted {
  /** Groups of subscriptions: one for each encoding. */
  groups: number;
  /** When the last one ended, ms of performance.now(). */
  endedAt: number;
}

/** The subjects that this node has subscribers of, for its peers. Costs nothing until `activate`. */
export class OwnInterest {
  readonly #subjectsMax: number;
  readonly #now: () => number;
  readonly #wanted = new Map<string, Wanted>();
  /** Without subscribers, until they have lingered, oldest first. */
  readonly #lingering = new Set<string>();
  /** What was not announced yet: true = wanted. */
  readonly #changes = new Map<string, boolean>();
  #everything = false;
  /** Everything, or named subjects again: what is announced is the whole. */
  #isWholeDue = false;
  #onChanged: (() => void) | null = null;

  constructor(subjectsMax = INTEREST_MAX, now = (): number => performance.now()) {
    this.#subjectsMax = subjectsMax;
    this.#now = now;
  }

  /** Before the first subscriber. `onChanged`: `takeChanges` has something; called once until it is taken. */
  activate(onChanged: () => void): void {
    this.#onChanged = onChanged;
  }

  get size(): number {
    return this.#wanted.size;
  }

  wants(subject: string): boolean {
    return this.#wanted.has(subject);
  }

  /** A group of subscriptions has begun. */
  began(subject: Uint8Array): void {
    if (this.#onChanged === null) return;
    const key = keyOf(subject);
    const wanted = this.#wanted.get(key);
    if (wanted !== undefined) {
      wanted.groups += 1;
      this.#lingering.delete(key);
      return;
    }
    this.#wanted.set(key, { groups: 1, endedAt: 0 });
    if (!this.#everything && this.#wanted.size > this.#subjectsMax) this.#become(true);
    else this.#change(key, true);
  }

  ended(subject: Uint8Array): void {
    if (this.#onChanged === null) return;
    const key = keyOf(subject);
    const wanted = this.#wanted.get(key);
    if (wanted === undefined) return;
    wanted.groups -= 1;
    if (wanted.groups > 0) return;
    wanted.endedAt = this.#now();
    this.#lingering.add(key);
  }

  /** Forgets what has lingered long enough; about once a second. */
  sweep(): void {
    const before = this.#now() - LINGER_MS;
    for (const key of this.#lingering) {
      if ((this.#wanted.get(key)?.endedAt ?? 0) > before) break;
      this.#lingering.delete(key);
      this.#wanted.delete(key);
      this.#change(key, false);
    }
    if (this.#everything && this.#wanted.size <= this.#subjectsMax / 2) this.#become(false);
  }

  /** What has changed since it was last taken, to be sent in this order. */
  takeChanges(): PeerInterest[] {
    const isWhole = this.#isWholeDue;
    const changes = [...this.#changes];
    this.#isWholeDue = false;
    this.#changes.clear();
    if (isWhole) return this.whole();
    const parts: PeerInterest[] = [];
    for (let i = 0; i < changes.length; i += INTEREST_SUBJECTS_MAX) {
      const part = changes.slice(i, i + INTEREST_SUBJECTS_MAX);
      const named = (isWanted: boolean): Buffer[] =>
        part.flatMap(([key, isAdded]) => (isAdded === isWanted ? [Buffer.from(key, 'latin1')] : []));
      parts.push({ everything: false, first: false, last: false, added: named(true), removed: named(false) });
    }
    return parts;
  }

  /** All of it, for a peer that knows nothing. */
  whole(): PeerInterest[] {
    if (this.#everything) return [EVERYTHING];
    const names = [...this.#wanted.keys()].map((key) => Buffer.from(key, 'latin1'));
    const parts: PeerInterest[] = [];
    for (let i = 0; i === 0 || i < names.length; i += INTEREST_SUBJECTS_MAX) {
      const end = i + INTEREST_SUBJECTS_MAX;
      const added = names.slice(i, end);
      parts.push({ everything: false, first: i === 0, last: end >= names.length, added, removed: NO_SUBJECTS });
    }
    return parts;
  }

  #become(everything: boolean): void {
    this.#everything = everything;
    this.#changes.clear();
    const wasDue = this.#isWholeDue;
    this.#isWholeDue = true;
    if (!wasDue) this.#onChanged?.();
  }

  #change(key: string, isWanted: boolean): void {
    if (this.#everything || this.#isWholeDue) return;
    const isFirst = this.#changes.size === 0;
    // What was not announced needs no taking back.
    if (this.#changes.get(key) === !isWanted) this.#changes.delete(key);
    else this.#changes.set(key, isWanted);
    if (isFirst && this.#changes.size > 0) this.#onChanged?.();
  }
}
