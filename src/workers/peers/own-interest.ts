import {
  INTEREST_BYTES_MAX,
  INTEREST_NAME_OVERHEAD,
  INTEREST_SUBJECTS_MAX,
  type PeerInterest,
} from '../../grpc/peer-codec.ts';
import { INTEREST_MAX, keyOf } from './interest-set.ts';

/**
 * Bytes of the names that a node names to its peers; with more it wants everything. A link is given the whole at once, and twice if the peer shows itself
 * anew just then: more than UNSENT_BYTES_MAX (peer-link.ts) would end it, each time.
 */
const NAMES_BYTES_MAX = 3 << 20;

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
  readonly #bytesMax: number;
  readonly #now: () => number;
  /** Of the names in `#wanted`. */
  #bytes = 0;
  readonly #wanted = new Map<string, Wanted>();
  /** Without subscribers, until they have lingered, oldest first. */
  readonly #lingering = new Set<string>();
  /** What was not announced yet: true = wanted. */
  readonly #changes = new Map<string, boolean>();
  #everything = false;
  /** Everything, or named subjects again: what is announced is the whole. */
  #isWholeDue = false;
  #onChanged: (() => void) | null = null;

  constructor(subjectsMax = INTEREST_MAX, now = (): number => performance.now(), bytesMax = NAMES_BYTES_MAX) {
    this.#subjectsMax = subjectsMax;
    this.#bytesMax = bytesMax;
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
    this.#bytes += key.length;
    if (!this.#everything && !this.#isWithin(1)) this.#become(true);
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
      if (this.#wanted.delete(key)) this.#bytes -= key.length;
      this.#change(key, false);
    }
    if (this.#everything && this.#isWithin(1 / 2)) this.#become(false);
  }

  /** What has changed since it was last taken, to be sent in this order. */
  takeChanges(): PeerInterest[] {
    const isWhole = this.#isWholeDue;
    const changes = [...this.#changes];
    this.#isWholeDue = false;
    this.#changes.clear();
    if (isWhole) return this.whole();
    return inParts(changes, ([key]) => key).map((part) => {
      const named = (isWanted: boolean): Buffer[] =>
        part.flatMap(([key, isAdded]) => (isAdded === isWanted ? [Buffer.from(key, 'latin1')] : []));
      return { everything: false, first: false, last: false, added: named(true), removed: named(false) };
    });
  }

  /** All of it, for a peer that knows nothing. */
  whole(): PeerInterest[] {
    if (this.#everything) return [EVERYTHING];
    const parts = inParts([...this.#wanted.keys()], (key) => key);
    if (parts.length === 0) parts.push([]);
    return parts.map((part, i) => {
      const added = part.map((key) => Buffer.from(key, 'latin1'));
      return { everything: false, first: i === 0, last: i === parts.length - 1, added, removed: NO_SUBJECTS };
    });
  }

  /** What is wanted takes no more than `share` of what may be named. */
  #isWithin(share: number): boolean {
    return this.#wanted.size <= this.#subjectsMax * share && this.#bytes <= this.#bytesMax * share;
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

/** Neighbours together, so many as any peer takes in one message. `nameOf`: of an item; its bytes are its characters. */
function inParts<T>(items: readonly T[], nameOf: (item: T) => string): T[][] {
  const parts: T[][] = [];
  let part: T[] = [];
  let bytes = 0;
  for (const item of items) {
    const added = nameOf(item).length + INTEREST_NAME_OVERHEAD;
    if (part.length === INTEREST_SUBJECTS_MAX || (part.length > 0 && bytes + added > INTEREST_BYTES_MAX)) {
      parts.push(part);
      part = [];
      bytes = 0;
    }
    part.push(item);
    bytes += added;
  }
  if (part.length > 0) parts.push(part);
  return parts;
}
