import { isPlanted } from '../../src/base/planted.ts';
import type { Prng } from '../../src/base/prng.ts';

/** What the shared store has under a key (subject, base). */
export interface StoredRow {
  readonly kind: 'data' | 'mark';
  readonly subject: string;
  readonly base: number;
  readonly count: number;
  /** Numbers of the publishes in it, in order; empty for a mark. */
  readonly publishes: readonly number[];
}

export type WriteOutcome =
  /** Durable. */
  | 'done'
  /** It may be there, or come to be there. */
  | 'uncertain';

interface Due {
  readonly at: number;
  readonly run: () => void;
}

const WRITE_STEPS = 12;
/** Now and then a write lingers in the network, or in a writer that was stopped, and takes effect long after its sender gave up. */
const LATE_STEPS = 600;

/**
 * A database as design section 9 describes it: a write under a key that is there changes nothing, but a void mark beats data, whichever comes first. Writes
 * take long, are lost before or after they took effect, and may take effect very late.
 */
export class SimStore {
  readonly rows = new Map<string, StoredRow>();
  readonly #prng: Prng;
  readonly #now: () => number;
  readonly #troublePercent: number;
  readonly #due: Due[] = [];
  #isHealing = false;

  constructor(prng: Prng, now: () => number, troublePercent: number) {
    this.#prng = prng;
    this.#now = now;
    this.#troublePercent = troublePercent;
  }

  /** No new trouble; what lingers still comes. */
  heal(): void {
    this.#isHealing = true;
  }

  get isIdle(): boolean {
    return this.#due.length === 0;
  }

  write(rows: readonly StoredRow[], onAnswer: (outcome: WriteOutcome) => void): void {
    const at = this.#now() + 1 + this.#prng.nextBelow(WRITE_STEPS);
    const answerAt = at + 1 + this.#prng.nextBelow(WRITE_STEPS);
    const isTroubled = !this.#isHealing && this.#prng.nextBelow(100) < this.#troublePercent;
    const trouble = isTroubled ? this.#prng.nextBelow(3) : -1;
    // 0: never arrives. 1: takes effect, the answer is lost. 2: takes effect when nobody expects it any more.
    if (trouble !== 0) {
      const effectAt = trouble === 2 ? at + this.#prng.nextBelow(LATE_STEPS) : at;
      for (const row of rows) {
        this.#due.push({ at: effectAt, run: () => this.#put(row) });
      }
    }
    this.#due.push({ at: answerAt, run: () => onAnswer(trouble < 0 ? 'done' : 'uncertain') });
  }

  read(subject: string, base: number): StoredRow | undefined {
    return this.rows.get(`${subject}/${base}`);
  }

  step(): void {
    const now = this.#now();
    for (let i = 0; i < this.#due.length; ) {
      const due = this.#due[i] as Due;
      if (due.at > now) {
        i += 1;
        continue;
      }
      this.#due.splice(i, 1);
      due.run();
    }
  }

  #put(row: StoredRow): void {
    const key = `${row.subject}/${row.base}`;
    const before = this.rows.get(key);
    if (before === undefined || isPlanted('S12-upsert') || (before.kind === 'data' && row.kind === 'mark')) {
      this.rows.set(key, row);
    }
  }
}
