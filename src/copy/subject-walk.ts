import { assert } from '../base/assert.ts';
import { sealVoidMark } from '../batch/batch-builder.ts';
import { BatchView } from '../batch/batch-view.ts';
import type { MessageStore, SealedBatch, StoredItem, SubjectRef } from '../storage/store.ts';
import type { PageWriter } from './page-writer.ts';
import { Pages } from './pages.ts';
import { persist } from './persist.ts';
import { SideTally } from './side-tally.ts';

/** Of one write; with a page of each store ahead and in hand it bounds the memory of a walk. */
const WRITE_BYTES = 256 * 1024;
const WRITE_BATCHES_MAX = 256;

/** A subject as the log knows it. */
export interface LogSubject {
  readonly ref: SubjectRef;
  readonly first: number;
  readonly head: number;
  /** Otherwise an id without a batch or mark is a loss. */
  readonly mayHaveHoles: boolean;
}

export interface Walked {
  readonly source: SideTally;
  readonly target: SideTally;
  copiedBatches: number;
  copiedBytes: number;
  foundBatches: number;
  expiredBatches: number;
  damagedBatches: number;
  missingIds: number;
  /** The first one in words. */
  difference: string | null;
}

export interface WalkOptions {
  readonly source: MessageStore;
  readonly target: MessageStore;
  /** Where what the target lacks is written; null: it is a difference. */
  readonly writer: PageWriter | null;
  readonly patienceMs: number;
  /** Epoch ms. */
  readonly now: () => number;
  /** Of ids that were dealt with, and bytes that were written or compared. */
  readonly onProgress: (ids: number, bytes: number) => void;
}

/**
 * Goes through one subject in both stores side by side, in the order of ids. What the target has is not written again, so a copy that was cut off
 * anywhere goes on there, also if what had become durable of it is not a prefix.
 */
export class SubjectWalk {
  readonly walked: Walked = {
    source: new SideTally(),
    target: new SideTally(),
    copiedBatches: 0,
    copiedBytes: 0,
    foundBatches: 0,
    expiredBatches: 0,
    damagedBatches: 0,
    missingIds: 0,
    difference: null,
  };
  readonly #options: WalkOptions;
  readonly #subject: LogSubject;
  readonly #source: Pages;
  readonly #view = new BatchView();
  #target: Pages | null = null;
  /** Goes with the next write. */
  #pending: SealedBatch[] = [];
  #pendingBytes = 0;
  /** The write before, while this one gathers. */
  #writing: Promise<void> = Promise.resolve();
  /** Log time of the newest batch so far: what a void mark that follows it is filed by. */
  #publishedAt = 0;
  /** The lowest id that was not dealt with. */
  #expected: number;

  constructor(options: WalkOptions, subject: LogSubject) {
    this.#options = options;
    this.#subject = subject;
    this.#expected = subject.first;
    this.#source = new Pages(options.source, subject.ref, subject.first, subject.head, options.patienceMs);
  }

  async run(): Promise<Walked> {
    const { target, patienceMs } = this.#options;
    const { ref, first, head } = this.#subject;
    const lastId = await persist(patienceMs, () => target.lastId(ref));
    if (lastId > head) this.#differs(`the target has id ${lastId}, the log has given ids up to ${head} only`);
    if (lastId >= first) this.#target = new Pages(target, ref, first, head, patienceMs);
    for (let item = await this.#source.current(); item !== null; item = await this.#source.current()) {
      await this.#meet(item);
      this.#source.advance();
    }
    await this.#skipTarget(Number.POSITIVE_INFINITY);
    this.#expect(head + 1);
    await this.#write();
    await this.#writing;
    return this.walked;
  }

  /** Deals with one item of the source, and whatever the target has before it. */
  async #meet(item: StoredItem): Promise<void> {
    const { walked } = this;
    this.#expect(item.from);
    const theirs = await this.#skipTarget(item.from);
    this.#progress(item.to, item.kind === 'data' && this.#options.writer === null ? item.bytes.length : 0);
    if (item.kind === 'damaged') {
      walked.damagedBatches += 1;
      if (theirs !== null) this.#target?.advance();
      return;
    }
    if (theirs === null) {
      if (await this.#lacks(item)) walked.source.add(item);
      return;
    }
    walked.source.add(item);
    walked.target.add(theirs);
    walked.foundBatches += 1;
    this.#target?.advance();
    if (!areEqual(item, theirs)) this.#differs(`ids ${item.from} to ${item.to - 1} are not the same in both`);
  }

  /** The target's item at `id`, or null; what it has before that is nothing that the source has. */
  async #skipTarget(id: number): Promise<StoredItem | null> {
    const target = this.#target;
    if (target === null) return null;
    for (;;) {
      const item = target.isHere ? await target.current() : await this.#refill(target);
      if (item === null || item.from > id) return null;
      if (item.from === id) return item;
      target.advance();
      if (item.kind === 'data' && this.#isOver(item.bytes)) continue;
      this.walked.target.add(item);
      this.#differs(`only the target has ids ${item.from} to ${item.to - 1}`);
    }
  }

  /** At the end of what the target has, nothing more is asked of it. */
  async #refill(target: Pages): Promise<StoredItem | null> {
    const item = await target.current();
    if (item === null) this.#target = null;
    return item;
  }

  /** The target has nothing under the key of the item. False if it need not. */
  async #lacks(item: Exclude<StoredItem, { kind: 'damaged' }>): Promise<boolean> {
    const { ref } = this.#subject;
    const base = item.from;
    const count = item.to - item.from;
    if (item.kind === 'void') {
      if (this.#options.writer === null) {
        this.#differs(`the target lacks the mark of ids ${base} to ${item.to - 1}`);
        return true;
      }
      const publishedAt = this.#publishedAt;
      const bytes = sealVoidMark(ref.bytes, ref.hash, base, count, publishedAt);
      await this.#append({ subject: ref, bytes, base, count, publishedAt, expiresMax: 0, kind: 'void' });
      return true;
    }
    if (this.#isOver(item.bytes)) {
      this.walked.expiredBatches += 1;
      return false;
    }
    if (this.#options.writer === null) {
      this.#differs(`the target lacks ids ${base} to ${item.to - 1}`);
      return true;
    }
    const { publishedAt, expiresMax } = this.#view;
    this.#publishedAt = publishedAt;
    await this.#append({ subject: ref, bytes: item.bytes, base, count, publishedAt, expiresMax, kind: 'data' });
    return true;
  }

  /** Leaves the view on the batch. True if all of its messages have expired: databases drop such rows, each in its own time. */
  #isOver(bytes: Buffer): boolean {
    const fault = this.#view.wrap(bytes, 0);
    assert(fault === null, 'a store answered with a damaged batch');
    const { publishedAt, expiresMax } = this.#view;
    return expiresMax > 0 && publishedAt + expiresMax * 1000 <= this.#options.now();
  }

  async #append(batch: SealedBatch): Promise<void> {
    this.#pending.push(batch);
    this.#pendingBytes += batch.bytes.length;
    if (this.#pendingBytes >= WRITE_BYTES || this.#pending.length >= WRITE_BATCHES_MAX) await this.#write();
  }

  /** One write at a time: a subject's batches become durable in the order of their ids. */
  async #write(): Promise<void> {
    await this.#writing;
    const batches = this.#pending;
    const bytes = this.#pendingBytes;
    if (batches.length === 0) return;
    this.#pending = [];
    this.#pendingBytes = 0;
    assert(this.#options.writer !== null, 'a comparison writes');
    this.#writing = this.#options.writer.write(batches).then(() => {
      this.walked.copiedBatches += batches.length;
      this.walked.copiedBytes += bytes;
      this.#options.onProgress(0, bytes);
    });
    // Its failure is met by whoever waits for it.
    this.#writing.catch(() => 'later');
  }

  #expect(id: number): void {
    const gap = id - this.#expected;
    if (gap <= 0) return;
    if (!this.#subject.mayHaveHoles) this.walked.missingIds += gap;
    this.#progress(id, 0);
  }

  #progress(to: number, bytes: number): void {
    this.#options.onProgress(Math.max(0, to - this.#expected), bytes);
    this.#expected = Math.max(this.#expected, to);
  }

  #differs(what: string): void {
    this.walked.difference ??= what;
  }
}

function areEqual(left: StoredItem, right: StoredItem): boolean {
  if (left.kind !== right.kind || left.to !== right.to) return false;
  return left.kind !== 'data' || (right.kind === 'data' && left.bytes.equals(right.bytes));
}
