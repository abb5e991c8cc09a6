import { Kind, ORIGIN_RUN_HEADER } from '../../src/allot/commands.ts';
import type { AllotmentOwner, AllotSink, PartAnswers } from '../../src/allot/verdicts.ts';
import { AllotVerdict } from '../../src/allot/verdicts.ts';
import { readSafeUint } from '../../src/base/bytes.ts';
import type { Publish } from './cluster-shard.ts';
import type { SimStore } from './cluster-store.ts';
import { SafetyViolation } from './raft-checkers.ts';

function check(isTrue: boolean, message: () => string): void {
  if (!isTrue) {
    throw new SafetyViolation(message());
  }
}

interface Allotment {
  readonly subject: string;
  readonly base: number;
  readonly count: number;
  state: 'open' | 'stored' | 'revoked' | 'void';
}

interface SubjectState {
  head: number;
  readonly allotments: Allotment[];
}

/** What a client was told of a publish, over all its attempts. */
interface Told {
  readonly publish: Publish;
  base: number;
  /** Attempts whose outcome the client does not know. */
  unknown: number;
}

const decoder = new TextDecoder();
const unheard = (): void => undefined;

/**
 * The promises of design section 3, watched from outside. It hears the answers of the log once, in order, from whichever node applies an entry first, and keeps
 * everything that it ever heard.
 */
export class ClusterOracle {
  /** Of the log: what was heard up to here. */
  index = 0;
  readonly #subjects = new Map<string, SubjectState>();
  readonly #runs = new Map<string, number>();
  readonly #told = new Map<number, Told>();
  /** What readers saw under an id, or that it is void. */
  readonly #seen = new Map<string, string>();
  readonly #store: SimStore;
  /** The open that is being applied. */
  opens = 0;
  voids = 0;
  acked = 0;
  reads = 0;

  constructor(store: SimStore) {
    this.#store = store;
  }

  // --- the log, in order ---

  onRun(node: string, incarnation: string, run: number): void {
    const key = `${node} ${incarnation}`;
    const last = this.#runs.get(key) ?? 0;
    check(run === last + 1, () => `run ${run} of ${key} is applied behind run ${last}`);
    this.#runs.set(key, run);
  }

  onOpened(subject: string, base: number, count: number): void {
    const state = this.#subject(subject);
    check(base === state.head + 1, () => `${subject}: ids from ${base} are given out, the head was ${state.head}`);
    state.head = base + count - 1;
    state.allotments.push({ subject, base, count, state: 'open' });
    this.opens += 1;
  }

  onVerdict(subject: string, base: number, verdict: number): void {
    const allotment = this.#subject(subject).allotments.find((each) => each.base === base);
    check(allotment !== undefined, () => `${subject}/${base}: a verdict on what was never allotted`);
    const found = allotment as Allotment;
    const next = verdict === AllotVerdict.STORED ? 'stored' : verdict === AllotVerdict.REVOKED ? 'revoked' : 'void';
    const isLegal =
      found.state === next ||
      (found.state === 'open' && next !== 'void') ||
      (found.state === 'revoked' && next === 'void');
    check(isLegal, () => `${subject}/${base} was ${found.state} and becomes ${next}`);
    if (next === 'void' && found.state !== 'void') {
      this.voids += 1;
      check(
        this.#store.read(subject, base)?.kind === 'mark',
        () => `${subject}/${base} becomes void and has no mark in the store`,
      );
    }
    if (next === 'stored' && found.state !== 'stored') {
      // A mark that lingers from a revoke that came too late would be a lie for ever.
      check(
        this.#store.read(subject, base)?.kind === 'data',
        () => `${subject}/${base} is closed as stored and is not in the store`,
      );
    }
    found.state = next;
  }

  onSettled(subject: string, settled: number): void {
    const open = this.#subject(subject).allotments.find((each) => each.state === 'open' || each.state === 'revoked');
    const limit = open === undefined ? this.#subject(subject).head : open.base - 1;
    check(settled <= limit, () => `${subject}: settled ${settled} covers ${limit + 1}, which has no verdict`);
  }

  #subject(name: string): SubjectState {
    let state = this.#subjects.get(name);
    if (state === undefined) {
      state = { head: 0, allotments: [] };
      this.#subjects.set(name, state);
    }
    return state;
  }

  // --- clients ---

  #of(publish: Publish): Told {
    let told = this.#told.get(publish.number);
    if (told === undefined) {
      told = { publish, base: 0, unknown: 0 };
      this.#told.set(publish.number, told);
    }
    return told;
  }

  onSent(publish: Publish): void {
    this.#of(publish).unknown += 1;
  }

  /** At the moment at which the node says so. */
  onAck(publish: Publish, base: number): void {
    const told = this.#of(publish);
    const { subject, number } = publish;
    check(
      told.base === 0 || told.base === base,
      () => `publish ${number} is acknowledged as ${told.base} and as ${base}`,
    );
    const allotment = this.#subject(subject).allotments.find(
      (each) => each.base <= base && base < each.base + each.count,
    );
    check(allotment?.state === 'stored', () => `${subject}/${base} is acknowledged while it is ${allotment?.state}`);
    told.base = base;
    this.acked += 1;
  }

  onNone(publish: Publish): void {
    const told = this.#of(publish);
    told.unknown -= 1;
    const { producer, number, subject } = publish;
    // Whoever has a producer may have sent it before, and may send it again: this attempt added nothing.
    if (producer === '') {
      check(told.base === 0, () => `publish ${number} is acknowledged, and refused as if it never happened`);
      const row = [...this.#store.rows.values()].find(
        (each) => each.subject === subject && each.publishes.includes(number),
      );
      const state = row === undefined ? 'open' : this.#stateOf(row.subject, row.base);
      check(
        state !== 'stored',
        () => `publish ${number} is refused as if it never happened, and is ${subject}/${row?.base}`,
      );
    }
  }

  #stateOf(subject: string, base: number): string {
    return this.#subject(subject).allotments.find((each) => each.base === base)?.state ?? 'unknown';
  }

  // --- readers ---

  /** A reader takes `settled` of its node first, then reads the store (section 7, rule 7). */
  onRead(node: string, subject: string, settled: number): void {
    for (let base = 1; base <= settled; ) {
      const row = this.#store.read(subject, base);
      const at = base;
      check(
        row !== undefined,
        () => `${node} reads ${subject}/${at}, settled up to ${settled}, and the store has nothing there`,
      );
      const found = row as NonNullable<typeof row>;
      const content = `${found.kind} ${found.count} ${found.publishes.join()}`;
      const key = `${subject}/${base}`;
      const before = this.#seen.get(key) ?? content;
      check(before === content, () => `${node} reads ${key} as "${content}", it was "${before}" before`);
      this.#seen.set(key, content);
      base += found.count;
      this.reads += 1;
    }
  }

  // --- the end ---

  finish(): void {
    const stored = new Map<string, string>();
    for (const [subject, { allotments, head }] of this.#subjects) {
      this.onRead('the end', subject, head);
      for (const { base, state } of allotments) {
        const row = this.#store.read(subject, base);
        check(state === 'stored' || state === 'void', () => `${subject}/${base} is ${state} at the end`);
        check(
          (row?.kind === 'data') === (state === 'stored'),
          () => `${subject}/${base} is ${state}, and the store has ${row?.kind}`,
        );
        for (const number of state === 'stored' ? (row?.publishes ?? []) : []) {
          this.#once(stored, number, `${subject}/${base}`);
        }
      }
    }
    for (const { publish, base, unknown } of this.#told.values()) {
      const where = stored.get(`publish ${publish.number}`);
      const wanted = `${publish.subject}/${base}`;
      check(
        base === 0 || where === wanted,
        () => `publish ${publish.number} was acknowledged as ${wanted}, and is ${where}`,
      );
      const isFailed = base === 0 && unknown === 0;
      check(
        !isFailed || where === undefined,
        () => `publish ${publish.number} was refused as if it never happened, and is ${where}`,
      );
    }
  }

  #once(stored: Map<string, string>, number: number, place: string): void {
    const told = this.#told.get(number);
    check(told !== undefined, () => `${place} is a publish that nobody made`);
    const { producer, sequence } = (told as Told).publish;
    const keys = producer === '' ? [`publish ${number}`] : [`publish ${number}`, `${producer} ${sequence}`];
    for (const key of keys) {
      const before = stored.get(key);
      check(before === undefined, () => `${key} is stored twice, as ${before} and as ${place}`);
      stored.set(key, place);
    }
  }

  /** Promise 5: of one producer and subject, ids are in the order of sequences, whoever revoked what meanwhile. */
  checkOrder(): void {
    const last = new Map<string, { sequence: number; base: number }>();
    const acked = [...this.#told.values()].filter(({ publish, base }) => publish.producer !== '' && base > 0);
    acked.sort((a, b) => a.publish.sequence - b.publish.sequence);
    for (const { publish, base } of acked) {
      const key = `${publish.producer} on ${publish.subject}`;
      const before = last.get(key);
      check(
        before === undefined || before.base < base,
        () => `${key}: sequence ${before?.sequence} is ${before?.base}, sequence ${publish.sequence} is ${base}`,
      );
      last.set(key, { sequence: publish.sequence, base });
    }
  }
}

/** Hears the answers of one node's state machine: for the oracle, if this entry is news to it, and for the node's own shard. */
export interface NodeEars {
  opened(counter: number, base: number): void;
  openRefused(counter: number): void;
  partsOpened(counter: number, base: number, parts: PartAnswers): void;
  closed(counter: number, isApplied: boolean): void;
  revoked(subject: string, base: number): void;
  gone(subject: string, base: number): void;
  started(): void;
}

/** One entry at a time; as RaftNode of src/workers tells the answers of the log from those to others. */
export class EntrySink implements AllotSink {
  readonly #node: Uint8Array;
  readonly #low: number;
  readonly #high: number;
  readonly #ears: NodeEars;
  readonly #oracle: ClusterOracle;
  readonly #nameOf: (subject: number) => string;
  /** The oracle has yet to hear of this entry. */
  isNews = false;
  #isOwn = false;
  /** Subjects whose head or settled moved. */
  readonly moves = new Set<number>();
  #lastMoved = -1;

  constructor(options: {
    readonly node: Uint8Array;
    readonly low: number;
    readonly high: number;
    readonly ears: NodeEars;
    readonly oracle: ClusterOracle;
    readonly nameOf: (subject: number) => string;
  }) {
    this.#node = options.node;
    this.#low = options.low;
    this.#high = options.high;
    this.#ears = options.ears;
    this.#oracle = options.oracle;
    this.#nameOf = options.nameOf;
  }

  origin(payload: Uint8Array, nodeStart: number, nodeEnd: number, low: number, high: number): void {
    const name = payload.subarray(nodeStart, nodeEnd);
    this.#isOwn = low === this.#low && high === this.#high && Buffer.compare(name, this.#node) === 0;
    const header = nodeStart - ORIGIN_RUN_HEADER;
    if (this.isNews && header >= 0 && payload[header] === Kind.ORIGIN_RUN) {
      const run = readSafeUint(new DataView(payload.buffer, payload.byteOffset, payload.byteLength), header + 10);
      this.#oracle.onRun(decoder.decode(name), `${high.toString(16)}${low.toString(16)}`, run);
    }
  }

  moved(subject: number): void {
    this.moves.add(subject);
    this.#lastMoved = subject;
  }

  readonly born = unheard;

  opened(_shard: number, counter: number, base: number, count: number): void {
    this.#hearOpened(base, count);
    if (this.#isOwn) {
      this.#ears.opened(counter, base);
    }
  }

  /** `moved` has just named the subject. */
  #hearOpened(base: number, count: number): void {
    if (this.isNews) {
      this.#oracle.onOpened(this.#nameOf(this.#lastMoved), base, count);
    }
  }

  openRefused(_shard: number, counter: number): void {
    if (this.#isOwn) {
      this.#ears.openRefused(counter);
    }
  }

  partsOpened(_shard: number, counter: number, base: number, count: number, _time: number, parts: PartAnswers): void {
    if (count > 0) {
      this.#hearOpened(base, count);
    }
    if (this.#isOwn) {
      this.#ears.partsOpened(counter, base, parts);
    }
  }

  readonly producerOpened = unheard;

  verdict(
    names: Uint8Array,
    start: number,
    end: number,
    _hash: number,
    base: number,
    _count: number,
    verdict: number,
    applied: boolean,
    owner: AllotmentOwner,
  ): void {
    const subject = decoder.decode(names.subarray(start, end));
    if (applied && this.isNews) {
      this.#oracle.onVerdict(subject, base, verdict);
    }
    if (verdict === AllotVerdict.REVOKED && applied) {
      this.#ears.revoked(subject, base);
    }
    const isOver = verdict === AllotVerdict.VOID || verdict === AllotVerdict.SETTLED;
    if (isOver && !applied && this.#isOwn) {
      this.#ears.gone(subject, base);
    }
    if (owner.node < 0 || owner.incarnationLow !== this.#low || owner.incarnationHigh !== this.#high) {
      return;
    }
    if (verdict === AllotVerdict.STORED && applied) {
      this.#ears.closed(owner.counter, true);
    } else if (verdict === AllotVerdict.REVOKED && !applied) {
      this.#ears.closed(owner.counter, false);
    }
  }

  nodeStarted(_node: number, low: number, high: number): void {
    if (low === this.#low && high === this.#high) {
      this.#ears.started();
    }
  }

  readonly trimmed = unheard;
}
