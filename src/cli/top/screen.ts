/** A terminal that is drawn on as a whole: the alternate screen, and only lines that have changed. */
import type { Terminal } from '../output.ts';
import type { Line, Style } from './render.ts';

const ENTER = '\u001b[?1049h\u001b[?25l\u001b[?7l';
const LEAVE = '\u001b[?7h\u001b[?25h\u001b[?1049l';
/** Terminals that know it show all of a change at once; others skip it. */
const BEGIN = '\u001b[?2026h';
const END = '\u001b[?2026l';
const RESET = '\u001b[0m';

const STYLES: Readonly<Record<Style, string>> = {
  plain: '',
  title: '\u001b[1m',
  head: '\u001b[7m',
  warning: '\u001b[33m',
  bad: '\u001b[1;31m',
  dim: '\u001b[2m',
};

export class Screen {
  readonly #terminal: Terminal;
  readonly #hasColour: boolean;
  #shown: string[] = [];
  #isEntered = false;
  readonly #onExit = (): void => this.leave();

  constructor(terminal: Terminal, hasColour: boolean) {
    this.#terminal = terminal;
    this.#hasColour = hasColour;
  }

  enter(): void {
    this.#isEntered = true;
    // However the process ends, but by kill -9.
    process.on('exit', this.#onExit);
    this.#terminal.writeNow(ENTER);
  }

  /** Gives the terminal back as it was. */
  leave(): void {
    if (!this.#isEntered) return;
    this.#isEntered = false;
    process.off('exit', this.#onExit);
    this.#terminal.writeNow(`${RESET}${LEAVE}`);
  }

  /** The next draw writes every line. */
  forget(): void {
    this.#shown = [];
  }

  /** What has to be written for these lines to be there; '' if they are. */
  draw(lines: readonly Line[]): string {
    const isNew = this.#shown.length !== lines.length;
    const texts = lines.map(({ text, style }) => {
      const code = this.#hasColour ? STYLES[style] : '';
      return code === '' ? text : `${code}${text}${RESET}`;
    });
    const changed = texts.flatMap((text, i) =>
      isNew || text !== this.#shown[i] ? [`\u001b[${i + 1};1H\u001b[2K${text}`] : [],
    );
    this.#shown = texts;
    if (changed.length === 0) return '';
    return `${BEGIN}${isNew ? '\u001b[2J' : ''}${changed.join('')}${END}`;
  }
}
