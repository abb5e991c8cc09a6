/** What `broker debug bundle` shows of the log. Only lines that are written come here, so it costs nothing per message. */

const LINES_MAX = 2_000;
const CHARACTERS_MAX = 2 * 1024 * 1024;
/** Longer lines are cut. */
const LINE_CHARACTERS_MAX = 16 * 1024;

/** The newest lines, bounded by number and by size. */
export class RecentLines {
  /** A ring: the oldest is at `#first`. */
  readonly #lines: string[] = [];
  #first = 0;
  #characters = 0;

  add(line: string): void {
    const kept = line.length > LINE_CHARACTERS_MAX ? `${line.slice(0, LINE_CHARACTERS_MAX)}…\n` : line;
    this.#characters += kept.length;
    this.#lines.push(kept);
    while (this.#lines.length - this.#first > LINES_MAX || this.#characters > CHARACTERS_MAX) this.#dropOldest();
    // Moving the rest now and then is cheaper than with every line.
    if (this.#first < LINES_MAX) return;
    this.#lines.splice(0, this.#first);
    this.#first = 0;
  }

  /** Oldest first; each ends with a line break. */
  text(): string {
    return this.#lines.slice(this.#first).join('');
  }

  #dropOldest(): void {
    this.#characters -= (this.#lines[this.#first] as string).length;
    this.#lines[this.#first] = '';
    this.#first += 1;
  }
}
