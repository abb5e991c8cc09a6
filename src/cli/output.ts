/** Writing results: tables for people, one JSON object a line for programs. Knows that the reader of a pipe may leave early. */
import type { Writable } from 'node:stream';
import { CliError, EXIT } from './failure.ts';

export type Format = 'table' | 'json';

/** A terminal that a command draws on. */
export interface Terminal {
  readonly columns: number;
  readonly rows: number;
  /** At once, as far as the system takes it: also while the process ends. */
  writeNow(text: string): void;
  /** Returns what takes the listener off again. */
  onResize(listener: () => void): () => void;
}

type TerminalStream = Writable & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number };

/** What a terminal is taken for that does not say. */
const COLUMNS_DEFAULT = 80;
const ROWS_DEFAULT = 24;

/** One row of a result; the order of its keys is the order of the columns. */
export type Row = Readonly<Record<string, string | number | boolean | null>>;

/** The reader of our output has gone (`broker subscribe x | head -1`): there is nobody left to do anything for. */
export class OutputClosed extends Error {
  override name = 'OutputClosed';
}

export class Output {
  readonly #stream: TerminalStream;
  readonly isTerminal: boolean;
  #error: Error | null = null;

  constructor(stream: TerminalStream) {
    this.#stream = stream;
    this.isTerminal = stream.isTTY === true;
    stream.on('error', (error: NodeJS.ErrnoException) => {
      this.#error =
        error.code === 'EPIPE'
          ? new OutputClosed('the output was closed', { cause: error })
          : new CliError(EXIT.failed, `the output could not be written: ${error.message}`, '', { cause: error });
    });
  }

  /** Null: it is none. */
  get terminal(): Terminal | null {
    const stream = this.#stream;
    if (!this.isTerminal) return null;
    return {
      get columns() {
        return stream.columns || COLUMNS_DEFAULT;
      },
      get rows() {
        return stream.rows || ROWS_DEFAULT;
      },
      writeNow: (text) => void stream.write(text),
      onResize: (listener) => {
        stream.on('resize', listener);
        return () => void stream.off('resize', listener);
      },
    };
  }

  /** Resolves when the stream can take more. Rejects with OutputClosed, or with a CliError that says what else went wrong with the output. */
  async write(chunk: string | Uint8Array): Promise<void> {
    if (this.#error !== null) throw this.#error;
    // Waiting for the callback keeps at most one chunk in memory, and finds a closed pipe at the first write after it.
    await new Promise<void>((resolve) => this.#stream.write(chunk, () => resolve()));
    if (this.#error !== null) throw this.#error;
  }

  async line(text: string): Promise<void> {
    await this.write(`${text}\n`);
  }

  async json(value: unknown): Promise<void> {
    await this.line(JSON.stringify(value));
  }

  /** A list: an aligned table, or one JSON object a line. `columns` gives the headings, also of an empty table. */
  async rows(rows: readonly Row[], columns: readonly string[], format: Format): Promise<void> {
    if (format === 'json') for (const row of rows) await this.json(row);
    else await this.line(formatTable(rows, columns));
  }

  /** One thing with properties: `name  value` lines, or one JSON object. */
  async record(row: Row, format: Format): Promise<void> {
    if (format === 'json') return await this.json(row);
    const width = Math.max(...Object.keys(row).map((name) => name.length));
    const lines = Object.entries(row).map(([name, value]) => `${name.padEnd(width)}  ${cell(value)}`);
    await this.line(lines.join('\n'));
  }
}

/** Rows that are aligned with each other, and held in memory until they are written. */
const PIECE_ROWS = 256;

/**
 * A table of any length, written piece by piece: columns are as wide as the widest cell so far, so those of a later piece may be wider. No rows, no
 * table.
 */
export class LongTable {
  readonly #output: Output;
  readonly #columns: readonly string[];
  readonly #layout: TableLayout;
  #rows: Row[] = [];
  #isBegun = false;

  constructor(output: Output, columns: readonly string[]) {
    this.#output = output;
    this.#columns = columns;
    this.#layout = new TableLayout(columns);
  }

  /** True if the row filled a piece: write it. */
  add(row: Row): boolean {
    this.#rows.push(row);
    return this.#rows.length >= PIECE_ROWS;
  }

  /** Writes what was gathered. May be called again before it resolves. */
  async write(): Promise<void> {
    const rows = this.#rows;
    if (rows.length === 0) return;
    this.#rows = [];
    const lines = this.#layout.lines(rows);
    if (!this.#isBegun) lines.unshift(this.#layout.align(this.#columns.map((column) => column.toUpperCase())));
    this.#isBegun = true;
    await this.#output.line(lines.join('\n'));
  }
}

/** Numbers stand to the right, all else to the left; no borders, so that a table can be cut up with the usual tools. */
export function formatTable(rows: readonly Row[], columns: readonly string[]): string {
  const layout = new TableLayout(columns);
  const lines = layout.lines(rows);
  return [layout.align(columns.map((column) => column.toUpperCase())), ...lines].join('\n');
}

/** Widths of columns, which only grow; and which of them have numbers, which the first rows say. */
class TableLayout {
  readonly #columns: readonly string[];
  readonly #widths: number[];
  #isNumeric: readonly boolean[] | null = null;

  constructor(columns: readonly string[]) {
    this.#columns = columns;
    this.#widths = columns.map(({ length }) => length);
  }

  lines(rows: readonly Row[]): string[] {
    if (rows.length === 0) return [];
    this.#isNumeric ??= this.#columns.map((column) => rows.every((row) => typeof row[column] === 'number'));
    const cells = rows.map((row) => this.#columns.map((column) => cell(row[column] ?? null)));
    for (const line of cells) {
      for (const [i, { length }] of line.entries()) this.#widths[i] = Math.max(this.#widths[i] ?? 0, length);
    }
    return cells.map((line) => this.align(line));
  }

  align(texts: readonly string[]): string {
    const isNumeric = this.#isNumeric ?? [];
    return texts
      .map((text, i) =>
        isNumeric[i] === true ? text.padStart(this.#widths[i] ?? 0) : text.padEnd(this.#widths[i] ?? 0),
      )
      .join('  ')
      .trimEnd();
  }
}

function cell(value: Row[string]): string {
  if (value === null) return '-';
  return typeof value === 'number' ? value.toLocaleString('en-US') : String(value);
}
