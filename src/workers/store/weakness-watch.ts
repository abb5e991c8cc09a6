import type { LogLine } from '../messages.ts';

/** How often the settings of the database are looked at, in ms. */
const LOOK_MS = 10_000;

export interface WeaknessWatchParts {
  readonly database: { currentWeaknesses(): Promise<readonly string[]> };
  readonly log: (line: LogLine) => void;
  /** What loses acknowledged messages from now on; empty: nothing does. */
  readonly onChanged: (weaknesses: readonly string[]) => void;
}

/**
 * Settings that lose acknowledged messages and were changed while the broker runs, by somebody or by a fail-over to a server that has others. A start
 * would be refused; a broker that serves says what its acknowledgements are worth and goes on, since to end it would take more from its users.
 */
export class WeaknessWatch {
  readonly #parts: WeaknessWatchParts;
  #known: readonly string[];
  #timer: NodeJS.Timeout | null = null;
  #isLooking = false;

  /** `known`: those of the start, which it has told. */
  constructor(parts: WeaknessWatchParts, known: readonly string[]) {
    this.#parts = parts;
    this.#known = known;
  }

  start(): void {
    this.#timer ??= setInterval(() => void this.look(), LOOK_MS);
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Also when the database is back: it may be another server. */
  async look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      const found = await this.#parts.database.currentWeaknesses();
      if (this.#timer !== null) this.#judged(found);
    } catch (error) {
      // What does not answer acknowledges nothing; that it is away is told by whoever needs it.
      const message = 'the settings of the database were not answered';
      this.#parts.log({ kind: 'log', level: 'debug', message, fields: { error: String(error) } });
    }
    this.#isLooking = false;
  }

  #judged(found: readonly string[]): void {
    const { log, onChanged } = this.#parts;
    const added = found.filter((weakness) => !this.#known.includes(weakness));
    const gone = this.#known.filter((weakness) => !found.includes(weakness));
    this.#known = found;
    if (added.length === 0 && gone.length === 0) return;
    for (const weakness of added) {
      const message = 'the settings of the database have changed: acknowledged messages are replicated, not durable';
      log({ kind: 'log', level: 'warn', message, fields: { reason: 'STORE_WEAK', weakness } });
    }
    for (const weakness of gone) {
      log({ kind: 'log', level: 'info', message: 'a weakness of the database is gone', fields: { weakness } });
    }
    onChanged(found);
  }
}
