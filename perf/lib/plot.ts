/** Line plots as SVG text: no library, nothing to load, so that a report is one file that opens anywhere. Pure. */

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Plot {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly xScale?: Scale;
  readonly yScale?: Scale;
  readonly series: readonly Series[];
}

/** `quantile`: x is 1 / (1 - q) on a logarithmic axis, labelled as percentiles. */
type Scale = 'linear' | 'log' | 'quantile';

interface Axis {
  readonly scale: Scale;
  readonly low: number;
  readonly high: number;
}

const WIDTH = 640;
const HEIGHT = 320;
const LEFT = 64;
const RIGHT = 16;
const TOP = 34;
const BOTTOM = 46;
/** Told apart by people who see no red or green (Okabe and Ito). */
const COLOURS = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#d55e00', '#56b4e9', '#555555'];
const TICKS = 5;

export function renderPlot(plot: Plot): string {
  const drawn = plot.series.map(({ name, points }) => ({
    name,
    points: points.filter(([x, y]) => isDrawable(x, plot.xScale) && isDrawable(y, plot.yScale)),
  }));
  const all = drawn.flatMap(({ points }) => points);
  if (all.length === 0) return '';
  const x = axisOf(
    all.map((point) => point[0]),
    plot.xScale ?? 'linear',
  );
  const y = axisOf(
    all.map((point) => point[1]),
    plot.yScale ?? 'linear',
  );
  const left = (value: number): number => LEFT + place(x, value) * (WIDTH - LEFT - RIGHT);
  const top = (value: number): number => HEIGHT - BOTTOM - place(y, value) * (HEIGHT - TOP - BOTTOM);
  const grid = [
    ...ticksOf(y).map(
      (tick) =>
        `<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${fixed(top(tick))}" y2="${fixed(top(tick))}"/>` +
        `<text x="${LEFT - 6}" y="${fixed(top(tick) + 4)}" text-anchor="end">${label(y, tick)}</text>`,
    ),
    ...ticksOf(x).map(
      (tick) =>
        `<line class="grid" y1="${TOP}" y2="${HEIGHT - BOTTOM}" x1="${fixed(left(tick))}" x2="${fixed(left(tick))}"/>` +
        `<text x="${fixed(left(tick))}" y="${HEIGHT - BOTTOM + 16}" text-anchor="middle">${label(x, tick)}</text>`,
    ),
  ];
  const lines = drawn.map(({ name, points }, index) => {
    const colour = COLOURS[index % COLOURS.length] as string;
    const path = points.map(([px, py]) => `${fixed(left(px))},${fixed(top(py))}`).join(' ');
    const marks =
      points.length <= 24
        ? points
            .map(([px, py]) => `<circle cx="${fixed(left(px))}" cy="${fixed(top(py))}" r="2.5" fill="${colour}"/>`)
            .join('')
        : '';
    return `<g><title>${escapeHtml(name)}</title><polyline points="${path}" fill="none" stroke="${colour}" stroke-width="1.6"/>${marks}</g>`;
  });
  return [
    `<figure><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(plot.title)}">`,
    `<text class="title" x="${LEFT}" y="18">${escapeHtml(plot.title)}</text>`,
    ...grid,
    `<text x="${(LEFT + WIDTH - RIGHT) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${escapeHtml(plot.xLabel)}</text>`,
    `<text transform="translate(12 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">${escapeHtml(plot.yLabel)}</text>`,
    ...lines,
    '</svg><figcaption>',
    ...drawn.map(
      ({ name }, index) =>
        `<span><i style="background:${COLOURS[index % COLOURS.length]}"></i>${escapeHtml(name)}</span>`,
    ),
    '</figcaption></figure>',
  ].join('\n');
}

export function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}

function isDrawable(value: number, scale: Scale | undefined): boolean {
  return Number.isFinite(value) && (scale === undefined || scale === 'linear' || value > 0);
}

/** Linear axes begin at 0 and end at a round number; logarithmic ones run from power to power. */
function axisOf(values: readonly number[], scale: Scale): Axis {
  const highest = values.reduce((most, value) => Math.max(most, value), 0);
  const lowest = values.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
  if (scale === 'linear') {
    const step = roundStep((highest || 1) / TICKS);
    return { scale, low: 0, high: Math.ceil((highest || 1) / step) * step };
  }
  if (scale === 'quantile') return { scale, low: Math.max(1, lowest), high: Math.max(10, highest) };
  const low = 10 ** Math.floor(Math.log10(lowest));
  return { scale, low, high: Math.max(low * 10, 10 ** Math.ceil(Math.log10(highest))) };
}

function place({ scale, low, high }: Axis, value: number): number {
  if (scale === 'linear') return (value - low) / (high - low);
  return Math.log(value / low) / Math.log(high / low);
}

function ticksOf({ scale, low, high }: Axis): number[] {
  const ticks: number[] = [];
  if (scale === 'linear') {
    const step = roundStep((high - low) / TICKS);
    for (let count = 0; low + count * step <= high * 1.0001; count++) ticks.push(low + count * step);
    return ticks;
  }
  const first = scale === 'quantile' ? 1 : low;
  for (let tick = first; tick <= high * 1.0001; tick *= 10) if (tick >= low) ticks.push(tick);
  return ticks;
}

function roundStep(raw: number): number {
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * ([1, 2, 2.5, 5, 10].find((step) => step * power >= raw * 0.9999) ?? 10);
}

function label({ scale }: Axis, tick: number): string {
  if (scale === 'quantile') return tick === 1 ? '0 %' : `${Number((100 * (1 - 1 / tick)).toPrecision(8))} %`;
  if (tick >= 1e6) return `${Number((tick / 1e6).toPrecision(4))}M`;
  if (tick >= 1e3) return `${Number((tick / 1e3).toPrecision(4))}k`;
  return String(Number(tick.toPrecision(4)));
}

function fixed(value: number): string {
  return value.toFixed(1);
}
