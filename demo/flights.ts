/** Real flight records of the npm package vega-datasets (data of the U.S. Bureau of Transportation Statistics), as lines and subjects. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Line {
  /** Position in the input, from 0: travels as a header, since many records are equal to others. */
  readonly number: number;
  readonly subject: string;
  /** The record as one line of JSON. */
  readonly text: string;
}

interface FlightWithRoute {
  readonly origin: string;
}

interface FlightWithDistance {
  readonly distance: number;
}

/**
 * Up to `most` records: the 20,000 whose airports are known go to `flights.from.<origin>`, the 200,000 of which only the distance is known
 * to `flights.miles.<hundreds>`.
 */
export function flightLines(most: number): Line[] {
  const lines: Line[] = [];
  for (const flight of read<FlightWithRoute>('flights-20k.json', most)) {
    lines.push({ number: lines.length, subject: `flights.from.${flight.origin}`, text: JSON.stringify(flight) });
  }
  for (const flight of read<FlightWithDistance>('flights-200k.json', most - lines.length)) {
    const hundreds = Math.floor(flight.distance / 100) * 100;
    lines.push({ number: lines.length, subject: `flights.miles.${hundreds}`, text: JSON.stringify(flight) });
  }
  return lines;
}

function read<T>(file: string, most: number): T[] {
  // The package exports its code only; the data lies beside it.
  const path = fileURLToPath(new URL(`../data/${file}`, import.meta.resolve('vega-datasets')));
  return (JSON.parse(readFileSync(path, 'utf8')) as T[]).slice(0, Math.max(0, most));
}
