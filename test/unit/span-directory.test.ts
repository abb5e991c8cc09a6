/** How long the directory of a subject lives in Cassandra, against a server that keeps of one cell what has the greatest timestamp, for its time to live. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Prng } from '../../src/base/prng.ts';
import { SpanDirectory } from '../../src/storage/cassandra/span-directory.ts';
import type { Now } from '../../src/storage/cassandra/write-rules.ts';
import { subjectRef } from './batch-support.ts';

const HOUR = 3_600;
const DAY = 24 * HOUR;
const START = 1_700_000_000;

/** The row of one span. Seconds of the server's clock. */
class Row {
  #marker = false;
  #cell = { timestamp: 0, ends: 0 };
  writes = 0;

  /** Until when it is there. */
  get ends(): number {
    return this.#marker ? Number.POSITIVE_INFINITY : this.#cell.ends;
  }

  write({ text, values }: { readonly text: string; readonly values: readonly unknown[] }, now: number): void {
    this.writes += 1;
    if (text.startsWith('INSERT')) {
      this.#marker = true;
      return;
    }
    const [life, timestamp] = values.map(Number) as [number, number];
    if (timestamp > this.#cell.timestamp) this.#cell = { timestamp, ends: now + life };
  }
}

const subject = subjectRef('s');

/** Log time is that of the same clock. */
function at(seconds: number): Now {
  return { clockMs: seconds * 1000, earliestMs: seconds * 1000 };
}

test('an entry lives as long as every batch it leads to, whatever their lives, over restarts and with clocks that are corrected by a day', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const prng = new Prng(seed);
    const lives = [30, 660, HOUR, 5 * HOUR, DAY, 9 * DAY, 100 * DAY].slice(0, 1 + prng.nextBelow(7));
    const row = new Row();
    let directory = new SpanDirectory('k');
    let now = START;
    let needed = 0;
    let ahead = 0;
    for (let i = 0; i < 400; i++) {
      now += prng.nextBelow(prng.chance(1, 20) ? 3 * DAY : HOUR);
      if (prng.chance(1, 30)) ahead = prng.nextBelow(DAY);
      if (prng.chance(1, 40)) directory = new SpanDirectory('k');
      const ttl = lives[prng.nextBelow(lives.length)] as number;
      const entry = directory.missing(subject, 7, ttl, at(now + ahead));
      if (entry !== null) {
        row.write(entry, now);
        directory.written(entry);
      }
      needed = Math.max(needed, now + ttl);
      assert.ok(row.ends >= needed, `seed ${seed}: it ends ${needed - row.ends} s before a batch`);
    }
  }
});

test('a clock that was years ahead leaves no entry that is in the way of those behind it', () => {
  const row = new Row();
  const write = (clock: number, now: number): void => {
    const entry = new SpanDirectory('k').missing(subject, 7, 660, { clockMs: clock * 1000, earliestMs: now * 1000 });
    assert.ok(entry !== null);
    row.write(entry, now);
  };
  write(START + 3_650 * DAY, START);
  write(START + 9 * DAY, START + 9 * DAY);
  assert.ok(row.ends >= START + 9 * DAY + 660);
});

test('what never expires, or too late for the server, keeps its entry for ever', () => {
  for (const ttl of [0, 20 * 365 * DAY]) {
    const row = new Row();
    const directory = new SpanDirectory('k');
    for (const each of [60, ttl, 60]) {
      const entry = directory.missing(subject, 7, each, at(START));
      if (entry === null) continue;
      row.write(entry, START);
      directory.written(entry);
    }
    assert.equal(row.ends, Number.POSITIVE_INFINITY);
    assert.equal(row.writes, 2, 'what stays is written again');
  }
});

test('entries are written seldom: about once a day under steady traffic of short lives', () => {
  const row = new Row();
  const directory = new SpanDirectory('k');
  for (let now = START; now < START + 30 * DAY; now += 60) {
    const entry = directory.missing(subject, 7, 660, at(now));
    if (entry === null) continue;
    row.write(entry, now);
    directory.written(entry);
  }
  assert.ok(row.writes <= 31, `${row.writes} writes in 30 days`);
  assert.equal(directory.missing(subject, 8, 660, at(START))?.name.split(' ')[0], '8');
});
