/** Writing results: tables for people, one JSON object a line for programs. Knows that the reader of a pipe may leave early. */
import type { Writable } from 'node:stream';

export type Format = 'table' | 'json';

/** One row of a result; the order of its keys is the order of the columns. */
export type Row = Readonly<Record<string, string | number | boolean | null>>;

/** The reader of our output has gone (`broker subscribe x | head -1`): there is nobody left to do anything for. */
export class OutputClosed extends Error {
  override name = 'OutputClosed';
}

export class Output {
  readonly #stream: Writable;
  readonly isTerminal: boolean;
  #error: Error | null = null;

  constructor(stream: Writable & { readonly isTTY?: boolean }) {
    this.#stream = stream;
    this.isTerminal = stream.isTTY === true;
    stream.on('error', (error: NodeJS.ErrnoException) => {
      this.#error = error.code === 'EPIPE' ? new OutputClosed('the output was closed', { cause: error }) : error;
    });
  }

  /** Resolves when the stream can take more. Rejects with OutputClosed, or with what else went wrong with the output. */
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

/** Numbers stand to the right, all else to the left; no borders, so that a table can be cut up with the usual tools. */
export function formatTable(rows: readonly Row[], columns: readonly string[]): string {
  const cells = rows.map((row) => columns.map((column) => cell(row[column] ?? null)));
  const widths = columns.map((column, index) =>
    Math.max(column.length, ...cells.map((line) => (line[index] ?? '').length)),
  );
  const isNumeric = columns.map((column) => rows.length > 0 && rows.every((row) => typeof row[column] === 'number'));
  const align = (texts: readonly string[]): string =>
    texts
      .map((text, index) => (isNumeric[index] ? text.padStart(widths[index] ?? 0) : text.padEnd(widths[index] ?? 0)))
      .join('  ')
      .trimEnd();
  return [align(columns.map((column) => column.toUpperCase())), ...cells.map(align)].join('\n');
}

function cell(value: Row[string]): string {
  if (value === null) return '-';
  return typeof value === 'number' ? value.toLocaleString('en-US') : String(value);
}
