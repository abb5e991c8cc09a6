/** When a figure says more about the generator than about the server. Pure. */

/** A generator thread that is busier than this has no time left to send or to read. */
const BUSY_MAX = 0.95;
/** An open loop that sends later than this was not open: p99, in ms. */
const LAG_MAX_MS = 5;

export interface GeneratorLoad {
  readonly generatorBusy: number;
  /** None of who only reads. */
  readonly sendLag?: { readonly count: number; readonly p99Ms: number };
}

export function generatorWarnings(sides: Readonly<Record<string, readonly GeneratorLoad[]>>): string[] {
  return Object.entries(sides).flatMap(([name, results]) => {
    const busiest = results.reduce((most, { generatorBusy }) => Math.max(most, generatorBusy), 0);
    const lag = results.reduce(
      (most, { sendLag }) => (sendLag === undefined || sendLag.count === 0 ? most : Math.max(most, sendLag.p99Ms)),
      0,
    );
    return [
      ...(busiest > BUSY_MAX
        ? [
            `THE GENERATOR WAS THE BOTTLENECK against ${name}: its thread was busy ${(busiest * 100).toFixed(0)} % of the time; the server can do more (--threads)`,
          ]
        : []),
      ...(lag > LAG_MAX_MS
        ? [
            `THE RATE WAS NOT KEPT against ${name}: p99 of what was due waited ${lag.toFixed(1)} ms before it could be sent, ${
              busiest > BUSY_MAX ? 'because the generator had no time' : 'because the window or all slots were full'
            }; latencies count from when it was due`,
          ]
        : []),
    ];
  });
}
