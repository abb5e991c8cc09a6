/** A stream of batches to a database that ends its writes in any order, under random interleavings of writes, failures and the log's answers. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { StoreUncertain } from '../../src/storage/store.ts';
import { type Command, LOG_TIME, PublishRig } from './publish-rig.ts';

const SEEDS = 100;
const STEPS = 300;
/** Sequences that may be without an answer, and all that are sent. */
const WINDOW = 8;
const SEQUENCES = 60;

/** Mulberry32. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

/** The log: allots, closes and revokes one command after another. */
class Log {
  readonly #rig: PublishRig;
  readonly #commands: Command[] = [];
  readonly #open = new Map<number, { readonly counter: number; readonly count: number }>();
  readonly verdicts = new Map<number, 'open' | 'stored' | 'revoked' | 'void'>();
  head = 0;

  constructor(rig: PublishRig) {
    this.#rig = rig;
  }

  ask(commands: readonly Command[]): void {
    this.#commands.push(...commands);
  }

  /** False if it was asked for nothing. */
  apply(): boolean {
    const command = this.#commands.shift();
    if (command === undefined) return false;
    const { publish, subject } = this.#rig;
    if (command.kind === 'open') {
      const { counter, count } = command;
      const base = this.head + 1;
      this.head += count;
      this.verdicts.set(base, 'open');
      this.#open.set(base, { counter, count });
      publish.opened(counter, base, LOG_TIME);
      return true;
    }
    const { kind, base } = command;
    const verdict = this.verdicts.get(base);
    if (kind === 'void') {
      assert.equal(verdict, 'revoked');
      this.verdicts.set(base, 'void');
      return true;
    }
    assert.equal(verdict, 'open', `${kind} of ${base}`);
    this.verdicts.set(base, kind === 'stored' ? 'stored' : 'revoked');
    if (kind === 'stored') publish.closed(this.#opened(base).counter, true);
    else publish.revoked(subject, base);
    return true;
  }

  countOf(base: number): number {
    return this.#opened(base).count;
  }

  #opened(base: number): { readonly counter: number; readonly count: number } {
    const found = this.#open.get(base);
    assert(found !== undefined, `nothing was opened at ${base}`);
    return found;
  }
}

/** One publish stream, as docs/streams.md wants it: after a refusal what is on its way comes back, then it begins again with the lowest. */
class Producer {
  readonly #rig: PublishRig;
  readonly #waiting = Array.from({ length: SEQUENCES }, (_, i) => i + 1);
  readonly #sent = new Set<number>();
  readonly ids = new Map<number, number>();
  #isBlocked = false;

  constructor(rig: PublishRig) {
    this.#rig = rig;
  }

  get isDone(): boolean {
    return this.ids.size === SEQUENCES;
  }

  send(): void {
    if (this.#sent.size === 0) this.#isBlocked = false;
    if (this.#isBlocked || this.#sent.size >= WINDOW) return;
    const sequence = this.#waiting.shift();
    if (sequence === undefined) return;
    const { failures, subject } = this.#rig;
    const token = this.#rig.tokenOf(sequence);
    // As ShardAgent does.
    if (failures.isBehind(subject, token, sequence)) {
      this.#again(sequence);
      return;
    }
    failures.cameAgain(subject, token);
    this.#sent.add(sequence);
    this.#rig.add(sequence);
  }

  hear(): void {
    for (const { sequence, answer } of this.#rig.answers()) {
      assert(this.#sent.delete(sequence), `${sequence} is answered twice`);
      if (typeof answer === 'number') this.ids.set(sequence, answer);
      else {
        assert(['STORE_UNAVAILABLE', 'PREDECESSOR_FAILED'].includes(answer), answer);
        this.#again(sequence);
      }
    }
  }

  #again(sequence: number): void {
    this.#isBlocked = true;
    this.#waiting.push(sequence);
    this.#waiting.sort((a, b) => a - b);
  }
}

/** Time moves when the test says so, in ms. */
function clockOf(t: TestContext): (ms: number) => void {
  let now = 1;
  t.mock.method(performance, 'now', () => now);
  t.mock.timers.enable({ apis: ['setTimeout'] });
  return (ms) => {
    now += ms;
    t.mock.timers.tick(ms);
  };
}

async function run(seed: number, passes: (ms: number) => void): Promise<void> {
  const below = random(seed);
  const rig = new PublishRig(below(2) === 0 ? null : 10_000, 1 + below(3));
  const log = new Log(rig);
  const producer = new Producer(rig);
  for (let step = 0; step < STEPS; step++) {
    if (below(3) === 0) passes(below(150));
    const place = below(Math.max(1, rig.writing));
    const event = below(12);
    if (event < 4) producer.send();
    else if (event < 8) log.apply();
    else if (rig.writing > 0) {
      if (event < 11) log.ask(await rig.written(place));
      else if (below(3) > 0) log.ask(await rig.failed(place));
      else log.ask(await rig.failed(place, new StoreUncertain('no answer'), below(2) === 0));
    }
    log.ask(rig.work());
    producer.hear();
  }
  for (let rounds = 0; !producer.isDone || !rig.publish.idle; rounds++) {
    assert(rounds < 20_000, 'something never comes to its end');
    producer.send();
    while (log.apply());
    if (rig.writing > 0) log.ask(await rig.written(below(rig.writing)));
    else passes(50);
    log.ask(rig.work());
    producer.hear();
  }
  while (log.apply());
  let last = 0;
  for (let sequence = 1; sequence <= SEQUENCES; sequence++) {
    const id = producer.ids.get(sequence) as number;
    assert(id > last, `${sequence} has id ${id}, the one before it ${last}`);
    last = id;
  }
  const acknowledged = new Set(producer.ids.values());
  for (const [base, verdict] of log.verdicts) {
    const ids = Array.from({ length: log.countOf(base) }, (_, i) => base + i);
    const isStored = verdict === 'stored';
    assert.equal(rig.stored.get(base), isStored ? 'data' : 'void', `base ${base} is ${verdict}`);
    for (const id of ids) assert.equal(acknowledged.has(id), isStored, `id ${id} is ${verdict}`);
  }
  assert.deepEqual(
    rig.resolved.map(([base]) => base).toSorted((a, b) => a - b),
    [...log.verdicts.keys()],
    'a verdict is missing, or told twice',
  );
}

describe('a stream to a database that writes several groups at a time', () => {
  it(`[S11, S12] keeps its order, and what was refused is void: ${SEEDS} interleavings`, async (t) => {
    const passes = clockOf(t);
    for (let seed = 1; seed <= SEEDS; seed++) {
      try {
        await run(seed, passes);
      } catch (error) {
        throw new Error(`seed ${seed}`, { cause: error });
      }
    }
  });
});
