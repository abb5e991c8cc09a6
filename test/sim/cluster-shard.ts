import {
  closeSize,
  expiryWord,
  openPartsSize,
  openSize,
  partSize,
  writeClose,
  writeOpen,
  writeOpenParts,
  writePart,
  writeRevoke,
} from '../../src/allot/commands.ts';
import type { AllotmentInfo } from '../../src/allot/queries.ts';
import { AllotVerdict, type PartAnswers, PartVerdict } from '../../src/allot/verdicts.ts';
import { isPlanted } from '../../src/base/planted.ts';
import { subjectHash } from '../../src/base/subject.ts';
import type { SimStore, StoredRow, WriteOutcome } from './cluster-store.ts';

/** One publish of a client, as one attempt of it reaches a node. */
export interface Publish {
  readonly number: number;
  readonly subject: string;
  readonly count: number;
  /** '' = none. */
  readonly producer: string;
  readonly sequence: number;
}

export type PublishOutcome = { readonly kind: 'acked'; readonly base: number } | { readonly kind: 'none' };

export interface ShardPort {
  readonly now: number;
  readonly store: SimStore;
  /** Commands for the node's next run. False: refused, nothing was taken. */
  submit(commands: Uint8Array[]): boolean;
  onAck(publish: Publish, base: number): void;
}

/** A batch: the publishes that share an allotment. Here always one, which is all that the rules of section 7 need. */
interface Batch {
  readonly publish: Publish;
  readonly answer: (outcome: PublishOutcome) => void;
  readonly counter: number;
  base: number;
  state: 'opening' | 'ready' | 'writing' | 'written' | 'closing' | 'revoking';
  writingSince: number;
  /** One before it in its producer's line was lost: it must not overtake. */
  isDoomed: boolean;
}

interface Mark {
  readonly subject: string;
  readonly base: number;
  readonly count: number;
}

/** Steps after which a writer gives up (store.timeout). */
const STORE_TIMEOUT_STEPS = 200;
/** Unresolved batches of a shard. */
const BATCHES_MAX = 24;

/**
 * The rules of design section 7 as a shard of the broker keeps them, written down plainly: ids first, then the store, then the close, and the answer when that
 * is applied on this node; or revoke, mark, close as void. The shards of src/workers live in threads and know promises and clocks.
 */
export class SimShard {
  readonly #port: ShardPort;
  readonly #batches: Batch[] = [];
  #nextCounter = 1;
  /** Marks that wait for the store; by key, so that each is written by this shard once at a time. */
  readonly #marking = new Map<string, Mark>();
  /** Open allotments of an earlier incarnation, by key. */
  readonly #takenOver = new Map<string, Mark>();
  /** Closes and revokes that found the queue of runs full. */
  #unsent: Uint8Array[] = [];

  constructor(port: ShardPort) {
    this.#port = port;
  }

  get isIdle(): boolean {
    return this.#batches.length === 0 && this.#marking.size === 0 && this.#unsent.length === 0;
  }

  describe(): string {
    const batches = this.#batches.map(
      ({ state, base, publish, counter }) => `${state} ${publish.subject}/${base} open ${counter}`,
    );
    return `${batches.join(', ')}; marks ${[...this.#marking.keys()].join()}; unsent ${this.#unsent.length}`;
  }

  publish(publish: Publish, answer: (outcome: PublishOutcome) => void): void {
    const batch: Batch = {
      publish,
      answer,
      counter: this.#nextCounter,
      base: 0,
      state: 'opening',
      writingSince: 0,
      isDoomed: false,
    };
    this.#nextCounter += 1;
    if (this.#batches.length >= BATCHES_MAX || this.#isBehindLost(batch) || !this.#port.submit([openCommand(batch)])) {
      answer({ kind: 'none' });
      return;
    }
    this.#batches.push(batch);
  }

  /** A batch of the same producer and subject is on its way to be refused: what follows it is refused too (promise 5). */
  #isBehindLost({ publish }: Batch): boolean {
    return this.#batches.some(
      (before) => isSameLine(before.publish, publish) && (before.state === 'revoking' || before.isDoomed),
    );
  }

  step(): void {
    if (this.#unsent.length > 0) {
      const commands = this.#unsent;
      this.#unsent = [];
      this.#send(commands);
    }
    this.#closeNext();
    this.#writeNext();
  }

  #send(commands: Uint8Array[]): void {
    if (commands.length > 0 && !this.#port.submit(commands)) {
      this.#unsent.push(...commands);
    }
  }

  // --- what the log says ---

  opened(counter: number, base: number): void {
    const batch = this.#byCounter(counter);
    if (batch === undefined) {
      return;
    }
    batch.base = base;
    batch.state = 'ready';
  }

  openRefused(counter: number): void {
    const batch = this.#byCounter(counter);
    if (batch !== undefined) {
      this.#remove(batch);
      this.#lose(batch);
      batch.answer({ kind: 'none' });
    }
  }

  partsOpened(counter: number, base: number, parts: PartAnswers): void {
    const batch = this.#byCounter(counter);
    if (batch === undefined) {
      return;
    }
    switch (parts.verdict[0]) {
      case PartVerdict.ALLOTTED:
        this.opened(counter, base);
        return;
      case PartVerdict.STORED:
        this.#remove(batch);
        this.#port.onAck(batch.publish, parts.first[0] as number);
        batch.answer({ kind: 'acked', base: parts.first[0] as number });
        return;
      default:
        // WAITS: somebody writes it at this moment; the client asks again.
        this.openRefused(counter);
    }
  }

  /** The log's answer to a close(stored) of this process. */
  closed(counter: number, isApplied: boolean): void {
    const batch = this.#byCounter(counter);
    if (batch === undefined || batch.state !== 'closing') {
      return;
    }
    if (isApplied) {
      this.#ack(batch);
    } else {
      this.#giveUp(batch);
    }
  }

  /** A revoke was applied, whoever asked for it, and whatever has been done for the batch here. */
  revoked(subject: string, base: number): void {
    const batch = this.#batches.find((each) => each.publish.subject === subject && each.base === base);
    if (batch !== undefined) {
      this.#giveUp(batch);
    }
    const taken = this.#takenOver.get(`${subject}/${base}`);
    if (taken !== undefined) {
      this.#takenOver.delete(`${subject}/${base}`);
      this.#mark(taken);
    }
  }

  /** A close or a revoke of this process came when the allotment was over: the store knows how. */
  gone(subject: string, base: number): void {
    const batch = this.#batches.find((each) => each.publish.subject === subject && each.base === base);
    if (batch === undefined || (batch.state !== 'closing' && batch.state !== 'revoking')) {
      return;
    }
    if (this.#port.store.read(subject, base)?.kind === 'data') {
      this.#ack(batch);
    } else {
      this.#remove(batch);
      this.#lose(batch);
      batch.answer({ kind: 'none' });
    }
  }

  /** A revoked allotment that its owner cannot mark. */
  mark(subject: string, base: number, count: number): void {
    this.#mark({ subject, base, count });
  }

  /**
   * Allotments of earlier incarnations of this node: looked up in the store, then closed or revoked, as resolveInDatabase of src/workers/shard does it.
   * What lies behind one that is missing is revoked, and before that one: whatever is applied of this, another start comes to the same. Behind one that was
   * revoked nothing can be in the store: here a subject has one write under way at a time.
   */
  takeOver(allotments: readonly AllotmentInfo[]): void {
    const broken = new Set<string>();
    const revokes: Uint8Array[] = [];
    for (const { subject: name, base, count, verdict } of allotments.toSorted((a, b) => a.base - b.base)) {
      const subject = new TextDecoder().decode(name);
      if (verdict === AllotVerdict.REVOKED) {
        this.#mark({ subject, base, count });
        continue;
      }
      this.#takenOver.set(`${subject}/${base}`, { subject, base, count });
      if (!broken.has(subject) && this.#port.store.read(subject, base)?.kind === 'data') {
        this.#send([closeCommand(subject, base, AllotVerdict.STORED)]);
        continue;
      }
      broken.add(subject);
      revokes.push(revokeCommand(subject, base));
    }
    for (const revoke of revokes.toReversed()) {
      this.#send([revoke]);
    }
  }

  // --- what the store says ---

  /** Batches of a subject are written in the order of their ids, one write under way at a time. */
  #writeNext(): void {
    for (const batch of this.#batches) {
      if (batch.state === 'writing' || batch.state === 'opening') {
        return;
      }
      if (batch.state !== 'ready') {
        continue;
      }
      if (batch.isDoomed) {
        this.#revoke(batch);
        continue;
      }
      batch.state = 'writing';
      batch.writingSince = this.#port.now;
      this.#write(batch);
      if (isPlanted('S11-close-before-write')) {
        this.#close(batch);
      }
      return;
    }
  }

  #write(batch: Batch): void {
    const { publish, base } = batch;
    const row: StoredRow = {
      kind: 'data',
      subject: publish.subject,
      base,
      count: publish.count,
      publishes: [publish.number],
    };
    this.#port.store.write([row], (outcome) => this.#written(batch, outcome));
  }

  #written(batch: Batch, outcome: WriteOutcome): void {
    if (batch.state !== 'writing' || !this.#batches.includes(batch)) {
      return;
    }
    if (outcome === 'uncertain') {
      if (isPlanted('R27-timeout-is-none')) {
        batch.answer({ kind: 'none' });
      }
      if (this.#port.now - batch.writingSince < STORE_TIMEOUT_STEPS) {
        this.#write(batch);
      } else {
        this.#revoke(batch);
      }
    } else {
      batch.state = 'written';
    }
  }

  /** Each as soon as it is stored: should one before it be refused in the log, so is this one (promise 5). */
  #closeNext(): void {
    for (const batch of [...this.#batches]) {
      if (batch.state !== 'written') {
        continue;
      }
      if (batch.isDoomed) {
        this.#revoke(batch);
      } else {
        this.#close(batch);
      }
    }
  }

  #close(batch: Batch): void {
    batch.state = 'closing';
    this.#send([closeCommand(batch.publish.subject, batch.base, AllotVerdict.STORED)]);
    if (isPlanted('S7-ack-before-close')) {
      this.#ack(batch);
    }
  }

  #revoke(batch: Batch): void {
    batch.state = 'revoking';
    this.#lose(batch);
    this.#send([revokeCommand(batch.publish.subject, batch.base)]);
  }

  /** Its revoke is applied: nobody will ever read it. The mark follows. */
  #giveUp(batch: Batch): void {
    this.#remove(batch);
    this.#lose(batch);
    batch.answer({ kind: 'none' });
    this.#mark({ subject: batch.publish.subject, base: batch.base, count: batch.publish.count });
  }

  #mark(mark: Mark): void {
    const key = `${mark.subject}/${mark.base}`;
    if (!this.#marking.has(key)) {
      this.#marking.set(key, mark);
      this.#writeMark(key, mark);
    }
  }

  #writeMark(key: string, mark: Mark): void {
    const { subject, base } = mark;
    this.#port.store.write([{ ...mark, kind: 'mark', publishes: [] }], (outcome) => {
      if (outcome === 'uncertain') {
        this.#writeMark(key, mark);
        return;
      }
      this.#marking.delete(key);
      this.#send([closeCommand(subject, base, AllotVerdict.VOID)]);
    });
    if (isPlanted('S7-void-before-mark')) {
      this.#send([closeCommand(subject, base, AllotVerdict.VOID)]);
    }
  }

  // --- batches ---

  #ack(batch: Batch): void {
    this.#remove(batch);
    this.#port.onAck(batch.publish, batch.base);
    batch.answer({ kind: 'acked', base: batch.base });
  }

  #byCounter(counter: number): Batch | undefined {
    return this.#batches.find((batch) => batch.counter === counter);
  }

  #remove(batch: Batch): void {
    const at = this.#batches.indexOf(batch);
    if (at >= 0) {
      this.#batches.splice(at, 1);
    }
  }

  /** What stands behind it in its producer's line would overtake what the producer sends again. */
  #lose({ publish, counter }: Batch): void {
    for (const batch of this.#batches) {
      if (batch.counter > counter && isSameLine(batch.publish, publish)) {
        batch.isDoomed = true;
      }
    }
  }
}

function isSameLine(a: Publish, b: Publish): boolean {
  return a.producer !== '' && a.producer === b.producer && a.subject === b.subject;
}

function openCommand({ publish, counter }: Batch): Uint8Array {
  const subject = Buffer.from(publish.subject);
  const hash = subjectHash(subject, 0, subject.length);
  const { count, sequence } = publish;
  if (publish.producer === '') {
    const bytes = new Uint8Array(openSize(subject.length, false));
    writeOpen(viewOf(bytes), bytes, 0, subject, hash, 0, counter, count, 100, expiryWord(0, false), -1);
    return bytes;
  }
  const producer = Buffer.from(publish.producer);
  const bytes = new Uint8Array(openPartsSize(subject.length, false) + partSize(producer.length));
  const at = writeOpenParts(
    viewOf(bytes),
    bytes,
    0,
    subject,
    hash,
    0,
    counter,
    count,
    100,
    expiryWord(0, false),
    -1,
    1,
  );
  writePart(viewOf(bytes), bytes, at, count, producer, sequence, publish.number);
  return bytes;
}

function closeCommand(subject: string, base: number, verdict: number): Uint8Array {
  const name = Buffer.from(subject);
  const bytes = new Uint8Array(closeSize(name.length));
  writeClose(viewOf(bytes), bytes, 0, name, subjectHash(name, 0, name.length), base, verdict);
  return bytes;
}

function revokeCommand(subject: string, base: number): Uint8Array {
  const name = Buffer.from(subject);
  const bytes = new Uint8Array(closeSize(name.length));
  writeRevoke(viewOf(bytes), bytes, 0, name, subjectHash(name, 0, name.length), base);
  return bytes;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
