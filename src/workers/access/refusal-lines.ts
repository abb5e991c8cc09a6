import { SpaceSaving } from '../../base/space-saving.ts';
import { subjectHash } from '../../base/subject.ts';

/** How long refusals are gathered, in ms. */
const WINDOW_MS = 10_000;
/** In one window, those who are told of one by one of a group: an attacker has many addresses of one network, or one token on many machines. */
const OF_GROUP_MAX = 8;
/** Of the others, who are only counted: as many are known apart, and so many are named. */
const DIFFERENT_MAX = 4_096;
const BUSY_KEPT = 64;
const BUSY_NAMED = 5;

export interface Refused {
  readonly reason: string;
  /** Whom the refusals are counted for. */
  readonly who: string;
  /** Who else `who` may be: the network of an address, the name of an identity. */
  readonly group: string;
}

/** What came in a window behind what was told of at once. */
export interface Sums<Entry> {
  /** Of those who were told of: how often they were refused again. */
  readonly again: readonly { readonly entry: Entry; readonly times: number }[];
  /** Null: everybody was told of. */
  readonly others: {
    readonly refusals: number;
    /** At least so many were they. */
    readonly different: number;
    readonly reasons: string;
    readonly busiest: string;
  } | null;
}

interface Told<Entry> {
  readonly entry: Entry;
  again: number;
}

/**
 * Which refusals get a line of their own: the first of each who is refused for a reason, in each window, as long as there are not too many of them, or
 * of their group. All others are counted, and the sums told when the window ends, so that each refusal is in exactly one line. Memory and lines are
 * bounded however many there are.
 */
export class RefusalLines<Entry> {
  readonly #linesMax: number;
  readonly #told = new Map<string, Told<Entry>>();
  readonly #groups = new Map<string, number>();
  readonly #different = new Set<string>();
  readonly #reasons = new Map<string, number>();
  #busy = new SpaceSaving<string>(BUSY_KEPT);
  #refusals = 0;
  #endsAt = Number.NEGATIVE_INFINITY;

  /** `linesMax`: told of one by one in a window. */
  constructor(linesMax: number) {
    this.#linesMax = linesMax;
  }

  /** Whether it is told of at once, as what `entry` makes; else it is counted. The window before has to be closed. */
  isTold({ reason, who, group }: Refused, now: number, entry: () => Entry): boolean {
    if (this.#told.size === 0) this.#endsAt = now + WINDOW_MS;
    const key = `${reason} ${who}`;
    const told = this.#told.get(key);
    if (told !== undefined) {
      told.again += 1;
      return false;
    }
    const ofGroup = this.#groups.get(group) ?? 0;
    if (this.#told.size >= this.#linesMax || ofGroup >= OF_GROUP_MAX) {
      this.#count(reason, who);
      return false;
    }
    this.#told.set(key, { entry: entry(), again: 0 });
    this.#groups.set(group, ofGroup + 1);
    return true;
  }

  /** The sums of a window that has ended, or, with `isOver`, of one that is ended now. Null: there is none. */
  close(now: number, isOver = false): Sums<Entry> | null {
    if (this.#told.size === 0 || (now < this.#endsAt && !isOver)) return null;
    const again = [...this.#told.values()].filter((told) => told.again > 0);
    const sums = { again: again.map(({ entry, again: times }) => ({ entry, times })), others: this.#others() };
    this.#told.clear();
    this.#groups.clear();
    this.#different.clear();
    this.#reasons.clear();
    this.#busy = new SpaceSaving(BUSY_KEPT);
    this.#refusals = 0;
    return sums;
  }

  #count(reason: string, who: string): void {
    this.#refusals += 1;
    this.#reasons.set(reason, (this.#reasons.get(reason) ?? 0) + 1);
    if (this.#different.size < DIFFERENT_MAX) this.#different.add(who);
    const bytes = Buffer.from(who);
    this.#busy.add(subjectHash(bytes, 0, bytes.length), who, 1);
  }

  #others(): Sums<Entry>['others'] {
    if (this.#refusals === 0) return null;
    // The error is what others had before it: of a flood in which everybody comes once nobody is busy.
    const certain = this.#busy.top(BUSY_KEPT).map(({ label, count, error }) => [label, count - error] as const);
    const busiest = certain.sort(([, left], [, right]) => right - left).slice(0, BUSY_NAMED);
    return {
      refusals: this.#refusals,
      different: this.#different.size,
      reasons: inWords([...this.#reasons]),
      busiest: inWords(busiest),
    };
  }
}

function inWords(counts: readonly (readonly [string, number])[]): string {
  return counts.map(([name, count]) => `${name} ${count}`).join(', ');
}

/** The network of an address, as far as one attacker may have all of it: 256 addresses of IPv4, a /48 of IPv6. */
export function networkOf(host: string): string {
  if (!host.startsWith('[')) return host.replace(/\.\d+$/, '.*');
  const [front = '', back] = host.slice(1, -1).split('::');
  const groups = front === '' ? [] : front.split(':');
  // What is left out between two colons is zeros.
  const three = back === undefined ? groups : [...groups, '0', '0', '0'];
  return `[${three.slice(0, 3).join(':')}::]`;
}
