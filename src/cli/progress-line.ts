import type { Output } from './output.ts';

const SHOW_MS = 200;

/** One line that is written over again and again; on a terminal only. */
export class ProgressLine {
  readonly #notes: Output;
  #shownAt = Number.NEGATIVE_INFINITY;
  #isShown = false;

  constructor(notes: Output) {
    this.#notes = notes;
  }

  show(text: string): void {
    const now = performance.now();
    if (!this.#notes.isTerminal || now - this.#shownAt < SHOW_MS) return;
    this.#shownAt = now;
    this.#isShown = true;
    // A terminal that is gone is found by whatever is written next.
    void this.#notes.write(`\r\u001b[K${text}`).catch(() => 'gone');
  }

  async clear(): Promise<void> {
    if (this.#isShown) await this.#notes.write('\r\u001b[K');
    this.#isShown = false;
  }
}
