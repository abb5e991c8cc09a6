import { fill, make, say } from './dom.js';

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} title
 * @property {(row: Row) => string} text what is shown; a cell is made anew only when it changes
 * @property {(row: Row) => Node} [node] instead of the text alone
 * @property {boolean} [isNumber]
 * @property {boolean} [isHead] names the row
 */

/**
 * A table that changes in place: rows keep their elements, so that focus and selection stay where they are while figures change.
 * @template Row
 */
export class Table {
  /** @param {string} caption @param {Column<Row>[]} columns @param {(row: Row) => string | number} keyOf @param {string} none shown without rows */
  constructor(caption, columns, keyOf, none) {
    this.columns = columns;
    this.keyOf = keyOf;
    /** @type {Map<string | number, { element: HTMLTableRowElement, cells: HTMLElement[], texts: string[] }>} */
    this.rows = new Map();
    this.body = make('tbody', {});
    const heads = columns.map(({ title, isNumber }) =>
      make('th', { scope: 'col', class: isNumber === true ? 'number' : '' }, title),
    );
    this.none = make('p', { class: 'none', hidden: true }, none);
    this.table = make(
      'table',
      {},
      make('caption', { class: 'unseen-caption' }, caption),
      make('thead', {}, make('tr', {}, ...heads)),
      this.body,
    );
    this.element = make('div', { class: 'table' }, this.table, this.none);
  }

  /** @param {Row[]} rows in the order in which they are shown; one key must not come twice */
  update(rows) {
    const keys = new Set(rows.map((row) => this.keyOf(row)));
    for (const [key, { element }] of this.rows) {
      if (keys.has(key)) continue;
      element.remove();
      this.rows.delete(key);
    }
    const focused = document.activeElement;
    rows.forEach((row, index) => {
      const { element } = this.#row(row);
      const there = this.body.children[index] ?? null;
      if (there !== element) this.body.insertBefore(element, there);
    });
    // A row that was moved has lost the focus that it had.
    if (focused instanceof HTMLElement && focused !== document.activeElement && this.body.contains(focused))
      focused.focus();
    this.none.hidden = rows.length > 0;
    this.table.hidden = rows.length === 0;
  }

  /** @param {Row} row */
  #row(row) {
    const key = this.keyOf(row);
    let found = this.rows.get(key);
    if (found === undefined) {
      const cells = this.columns.map(({ title, isNumber, isHead }) =>
        isHead === true
          ? make('th', { scope: 'row', 'data-title': title })
          : make('td', { class: isNumber === true ? 'number' : '', 'data-title': title }),
      );
      found = { element: make('tr', {}, ...cells), cells, texts: [] };
      this.rows.set(key, found);
    }
    const { cells, texts } = found;
    this.columns.forEach((column, index) => {
      const text = column.text(row);
      if (texts[index] === text) return;
      texts[index] = text;
      const cell = /** @type {HTMLElement} */ (cells[index]);
      if (column.node === undefined) say(cell, text);
      else fill(cell, column.node(row));
    });
    return found;
  }
}
