/** What a source has told so far: passes on what is new of it, and only so much. */
import { type Endpoint, formatEndpoint } from '../base/endpoint.ts';
import { type DiscoveryEvents, SEEDS_MAX } from './types.ts';

/** Different problems that are told between two successes. */
export const PROBLEMS_MAX = 16;
/** A problem can quote a server. */
export const PROBLEM_LENGTH_MAX = 400;
/** How long nothing may be found before that is a problem: nodes that start together are not known at once. */
export const NOTHING_GRACE_MS = 10_000;

export class Findings {
  readonly #events: DiscoveryEvents;
  readonly #source: string;
  readonly #graceMs: number;
  readonly #told = new Set<string>();
  /** The seeds told last, in one text. */
  #known = '';
  #isCutShort = false;
  #grace: NodeJS.Timeout | null = null;
  #isClosed = false;

  /** `source`: what problems begin with, such as `discovery dns`. */
  constructor(events: DiscoveryEvents, source: string, graceMs = NOTHING_GRACE_MS) {
    this.#events = events;
    this.#source = source;
    this.#graceMs = graceMs;
  }

  /**
   * The source has answered, with these; `nothing`: the problem if there are none for some time. `isWell`: what was wrong no longer is.
   */
  found(addresses: Iterable<Endpoint>, nothing: string, isWell = true): void {
    if (this.#isClosed) return;
    const { seeds, isCutShort } = seedsOf(addresses);
    if (seeds.size === 0) {
      this.#waitForMore(nothing);
      return;
    }
    this.#endGrace();
    const known = [...seeds.keys()].join();
    const isNews = known !== this.#known || (isWell && this.#told.size > 0);
    const isFirstCut = isCutShort && !this.#isCutShort;
    if (isWell) this.#told.clear();
    this.#known = known;
    this.#isCutShort = isCutShort;
    if (isNews) this.#events.onSeeds([...seeds.values()]);
    // Not among those told: seeds are found all the same, so nothing is found again.
    if (isFirstCut) this.#tell(`more than ${SEEDS_MAX} addresses: the rest is left out`);
  }

  problem(reason: string): void {
    if (this.#isClosed) return;
    if (this.#told.size >= PROBLEMS_MAX || this.#told.has(reason)) return;
    this.#told.add(reason);
    this.#tell(reason);
  }

  close(): void {
    this.#isClosed = true;
    this.#endGrace();
  }

  #tell(reason: string): void {
    const line = `${this.#source}: ${reason}`.replace(/\p{Cc}+/gu, ' ');
    this.#events.onProblem(line.length > PROBLEM_LENGTH_MAX ? `${line.slice(0, PROBLEM_LENGTH_MAX - 1)}…` : line);
  }

  #waitForMore(nothing: string): void {
    this.#grace ??= setTimeout(() => this.problem(nothing), this.#graceMs).unref();
  }

  #endGrace(): void {
    if (this.#grace !== null) clearTimeout(this.#grace);
    this.#grace = null;
  }
}

/** Each once and sorted, so that the same set reads the same in whatever order it came. */
function seedsOf(addresses: Iterable<Endpoint>): { seeds: Map<string, Endpoint>; isCutShort: boolean } {
  const found = new Map<string, Endpoint>();
  for (const address of addresses) found.set(formatEndpoint(address), address);
  const sorted = [...found].sort(([left], [right]) => (left < right ? -1 : 1));
  return { seeds: new Map(sorted.slice(0, SEEDS_MAX)), isCutShort: sorted.length > SEEDS_MAX };
}
