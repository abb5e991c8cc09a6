/** The checker of histories is checked: it accepts what a broker may do, and finds what it must not. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Operations, VOID_KEY } from '../support/operations.ts';
import { checkLinearizability } from '../support/porcupine.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { requireTool } from '../support/tools.ts';

type Write = (history: Steps) => void;

/** A history in the making: each step lasts 10 ns and begins `at`. */
class Steps {
  readonly #operations: Operations;

  constructor(operations: Operations) {
    this.#operations = operations;
  }

  publish(at: number, key: number, id: number, options: { count?: number; end?: number } = {}): this {
    const { count = 1, end = at + 10 } = options;
    this.#operations.publish({ client: 'p', subject: 's', start: at, end, key, count, outcome: 'ok', id });
    return this;
  }

  unanswered(at: number, key: number, outcome: 'unknown' | 'none'): this {
    this.#operations.publish({ client: 'p', subject: 's', start: at, end: at + 10, key, count: 1, outcome, id: 0 });
    return this;
  }

  inc(at: number, id: number): this {
    this.#operations.inc({ client: 'i', subject: 's', start: at, end: at + 10, outcome: 'ok', id });
    return this;
  }

  fetch(at: number, id: number, found: number | 'absent'): this {
    const [outcome, key] = found === 'absent' ? (['absent', 0] as const) : (['ok', found] as const);
    this.#operations.fetch({ client: 'f', subject: 's', start: at, end: at + 10, id, outcome, key });
    return this;
  }

  scan(at: number, keys: readonly number[]): this {
    this.#operations.scan({ client: 'r', subject: 's', start: at, end: at + 10, id: 1, keys });
    return this;
  }
}

async function verdictOf(t: TestContext, write: Write): Promise<string[]> {
  const path = join(temporaryFolder(t), 'history.jsonl');
  using operations = new Operations(path);
  write(new Steps(operations));
  operations.close();
  const { violations } = await checkLinearizability(path);
  return violations.map(({ rule, id }) => `${rule} ${id}`);
}

const GOOD: readonly (readonly [string, Write])[] = [
  ['publishes one after the other', (h) => h.publish(0, 1, 1).publish(20, 2, 2).fetch(40, 1, 1).scan(60, [1, 2])],
  ['a batch', (h) => h.publish(0, 10, 1, { count: 3 }).publish(20, 20, 4).scan(60, [10, 11, 12, 20])],
  ['overlapping publishes in either order', (h) => h.publish(0, 1, 2).publish(5, 2, 1).scan(60, [2, 1])],
  [
    'a later id readable before an earlier one',
    (h) => h.publish(0, 1, 1, { end: 100 }).publish(5, 2, 2).fetch(20, 2, 2).fetch(40, 1, 'absent').scan(200, [1, 2]),
  ],
  [
    'ids that are void, of IncIdx and of nobody',
    (h) =>
      h.inc(0, 1).publish(20, 2, 3).fetch(40, 2, VOID_KEY).fetch(60, 1, VOID_KEY).scan(80, [VOID_KEY, VOID_KEY, 2]),
  ],
  [
    'a publish without an answer that is there later',
    (h) => h.unanswered(0, 9, 'unknown').publish(20, 1, 1).publish(40, 2, 3).scan(100, [1, 9, 2]),
  ],
  [
    'a publish without an answer that is not there',
    (h) => h.unanswered(0, 9, 'unknown').publish(20, 1, 1).scan(60, [1]),
  ],
  [
    'a publish that was answered as having no effect',
    (h) => h.unanswered(0, 9, 'none').publish(20, 1, 1).scan(60, [1]),
  ],
];

const BAD: readonly (readonly [string, readonly string[], Write])[] = [
  ['a doubled id', ['doubled-id 1', 'doubled-id 1'], (h) => h.publish(0, 1, 1).publish(20, 2, 1)],
  [
    'ids that overlap by a part of a batch',
    ['doubled-id 3', 'doubled-id 3'],
    (h) => h.publish(0, 10, 1, { count: 3 }).publish(5, 20, 3, { count: 2 }),
  ],
  ['a lower id after a higher one was acknowledged', ['order 2'], (h) => h.publish(0, 1, 2).publish(20, 2, 1)],
  ['an acknowledged message that is void at the end', ['lost 1'], (h) => h.publish(0, 1, 1).scan(20, [VOID_KEY])],
  ['an acknowledged message that is not found', ['stale-read 1'], (h) => h.publish(0, 1, 1).fetch(20, 1, 'absent')],
  [
    'a message that was read, and then is not found',
    ['stale-read 1'],
    (h) => h.publish(0, 1, 1, { end: 100 }).fetch(20, 1, 1).fetch(40, 1, 'absent'),
  ],
  ['an id with another content', ['one-payload 1'], (h) => h.publish(0, 1, 1).fetch(20, 1, 7)],
  ['a message under two ids', ['once 2', 'one-payload 2'], (h) => h.publish(0, 1, 1).scan(20, [1, 1])],
  ['a void that becomes a message', ['lost 1'], (h) => h.fetch(0, 1, VOID_KEY).publish(20, 1, 1).fetch(40, 1, 1)],
  ['a message of a publish without effect', ['never-none 1'], (h) => h.unanswered(0, 9, 'none').scan(20, [9])],
  [
    'an order that is wrong over a thousand ids',
    ['order 1501'],
    (h) => {
      for (let id = 1; id <= 1_500; id++) h.publish(id * 2 + 1_000, id, id, { end: 100_000 });
      h.publish(0, 1_501, 1_501);
    },
  ],
];

for (const [name, write] of GOOD) {
  test(`a history is accepted: ${name}`, async (t) => {
    if (requireTool(t, 'go')) assert.deepEqual(await verdictOf(t, write), []);
  });
}

for (const [name, expected, write] of BAD) {
  test(`a history is refused: ${name}`, async (t) => {
    if (requireTool(t, 'go')) assert.deepEqual((await verdictOf(t, write)).toSorted(), expected);
  });
}
