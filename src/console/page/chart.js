import { make, say } from './dom.js';
import { size } from './text.js';
import UPlot from './uplot.js';

/** Five minutes of a point a second. */
const POINTS = 300;
/** A longer time without a point is a gap: the page was hidden, or nobody answered. */
const GAP_S = 4;
/** Shown at least. */
const SPAN_S = 60;
const HEIGHT = 180;

/** The last minutes of several figures, kept while other pages are shown. */
export class History {
  constructor() {
    /** @type {number[]} seconds since 1970 */
    this.times = [];
    /** @type {Map<string, (number | null)[]>} */
    this.figures = new Map();
  }

  /** @param {number} ms since 1970 @param {Record<string, number | null>} figures */
  add(ms, figures) {
    const at = ms / 1_000;
    const last = this.times.at(-1);
    if (last !== undefined && at <= last) return;
    if (last !== undefined && at - last > GAP_S) this.#point(last + 0.001, {});
    this.#point(at, figures);
    while (this.times.length > POINTS) {
      this.times.shift();
      for (const values of this.figures.values()) values.shift();
    }
  }

  /** @param {number} at @param {Record<string, number | null>} figures */
  #point(at, figures) {
    for (const name of Object.keys(figures)) {
      if (!this.figures.has(name))
        this.figures.set(
          name,
          this.times.map(() => null),
        );
    }
    this.times.push(at);
    for (const [name, values] of this.figures) values.push(figures[name] ?? null);
  }

  /** @param {string} name */
  get(name) {
    return this.figures.get(name) ?? this.times.map(() => null);
  }
}

/** Steps of an axis of bytes. */
const BYTE_STEPS = Array.from({ length: 45 }, (_, power) => 2 ** power);

/** Colours of the page, which follow its scheme. @param {string} name */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A live chart of some figures of a history. */
export class Chart {
  /**
   * @param {string} title
   * @param {History} history
   * @param {(value: number) => string} format
   * @param {number | null} top of the scale; null: as the figures are
   */
  constructor(title, history, format, top) {
    this.history = history;
    this.format = format;
    this.top = top;
    /** @type {{ name: string, title: string }[]} */
    this.series = [];
    /** @type {UPlot | null} */
    this.plot = null;
    this.legend = make('p', { class: 'legend' });
    this.canvas = make('div', { class: 'plot', role: 'img', 'aria-label': title });
    this.title = title;
    this.element = make('figure', { class: 'chart' }, make('figcaption', {}, title), this.legend, this.canvas);
    this.resizes = new ResizeObserver(() => this.#fit());
    this.resizes.observe(this.canvas);
    this.scheme = matchMedia('(prefers-color-scheme: dark)');
    this.onScheme = () => this.#draw();
    this.scheme.addEventListener('change', this.onScheme);
  }

  /** @param {{ name: string, title: string }[]} series */
  update(series) {
    const isSame = series.map(({ name }) => name).join() === this.series.map(({ name }) => name).join();
    this.series = series;
    if (!isSame || this.plot === null) this.#draw();
    else this.plot.setData(this.#data());
    const latest = series.map(({ name, title }) => {
      const value = this.history.get(name).at(-1) ?? null;
      return `${title} ${value === null ? '–' : this.format(value)}`;
    });
    this.#tell(latest);
  }

  close() {
    this.resizes.disconnect();
    this.scheme.removeEventListener('change', this.onScheme);
    this.plot?.destroy();
    this.plot = null;
  }

  /** @param {string[]} latest */
  #tell(latest) {
    if (this.legend.children.length !== latest.length) {
      this.legend.replaceChildren(...latest.map((_, index) => make('span', { class: `series-${index % 6}` }, '')));
    }
    for (const [index, text] of latest.entries()) say(/** @type {Element} */ (this.legend.children[index]), text);
    this.canvas.setAttribute('aria-label', `${this.title}: ${latest.join(', ')}`);
  }

  /** @returns {UPlot.AlignedData} */
  #data() {
    const { times } = this.history;
    const figures = this.series.map(({ name }) => this.history.get(name));
    if (times.length !== 1) return /** @type {UPlot.AlignedData} */ ([times, ...figures]);
    // Of a single point the library would make a scale of a day.
    const [at = 0] = times;
    return /** @type {UPlot.AlignedData} */ ([[at - SPAN_S, at], ...figures.map(([value]) => [null, value])]);
  }

  #fit() {
    const width = Math.floor(this.canvas.clientWidth);
    if (width > 0 && this.plot !== null && this.plot.width !== width) this.plot.setSize({ width, height: HEIGHT });
    else if (width > 0 && this.plot === null) this.#draw();
  }

  #draw() {
    this.plot?.destroy();
    this.plot = null;
    const width = Math.floor(this.canvas.clientWidth);
    if (width === 0) return;
    const axis = {
      stroke: colour('--muted'),
      grid: { stroke: colour('--line'), width: 1 },
      ticks: { show: false },
      font: '11px system-ui, sans-serif',
    };
    const { format, top } = this;
    /** @type {UPlot.Options} */
    const options = {
      width,
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: {
        x: { time: true, range: (_, min, max) => [Math.min(min, max - SPAN_S), max] },
        y: { range: (_, __, max) => [0, top ?? Math.max(1, max * 1.1)] },
      },
      axes: [
        {
          ...axis,
          space: 70,
          size: 28,
          values: (_, splits) => splits.map((at) => new Date(at * 1_000).toLocaleTimeString('en-GB')),
        },
        {
          ...axis,
          size: 60,
          ...(format === size ? { incrs: BYTE_STEPS } : {}),
          values: (_, splits) => splits.map((value) => format(value)),
        },
      ],
      series: [
        {},
        ...this.series.map((_, index) => ({
          stroke: colour(`--series-${index % 6}`),
          width: 1.5,
          points: { show: false },
          fill: this.series.length === 1 ? colour('--series-fill') : 'transparent',
        })),
      ],
    };
    this.plot = new UPlot(options, this.#data(), this.canvas);
  }
}
