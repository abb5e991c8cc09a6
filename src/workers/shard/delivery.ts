import { BatchView } from '../../batch/batch-view.ts';
import { encodeDelivery, encodedDeliveryBytes } from '../../batch/delivery.ts';
import { FRAME_HEADER_BYTES } from '../../grpc/frame.ts';
import type { MessageStore, ReadResult } from '../../storage/store.ts';
import { Cursor, TailGroup } from '../../subscribe/tail-group.ts';
import { Credit, RUN_HEADER, runLayout, ToMain } from '../link.ts';
import type { MainPort } from './main-port.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** A run is sent when it holds this many bytes, or a quarter of its ring if that is less. */
const RUN_BYTES = 128 * 1024;
/** Read from the store at a time for one reader. */
const READ_BYTES = 256 * 1024;
/** Reads from disk that may be on their way at a time, for one shard. */
const READS_IN_FLIGHT_MAX = 4;

interface Member {
  readonly subject: ActiveSubject;
  readonly cursor: Cursor;
}

/**
 * Deliveries of the shard's subjects. Members at the tail share one run per stored batch; a member that is behind is a reader of the
 * store with byte credit until it meets the tail. The tail of a group that could not be sent (ring full) is read back from the store.
 */
export class Delivery {
  readonly #store: MessageStore;
  readonly #main: MainPort;
  readonly #onProgress: () => void;
  readonly #onDamage: (subject: ActiveSubject, id: number) => void;
  readonly #runBytes: number;
  readonly #members = new Map<number, Member>();
  readonly #view = new BatchView();
  /** Subjects with something to read from the store. */
  #pumping: ActiveSubject[] = [];
  #readsInFlight = 0;
  /** Bytes that the payload ring had no room for: nothing can be pumped until it has. 0 = it had. */
  #stuckBytes = 0;

  constructor(
    store: MessageStore,
    main: MainPort,
    onProgress: () => void,
    onDamage: (subject: ActiveSubject, id: number) => void,
  ) {
    this.#store = store;
    this.#main = main;
    this.#runBytes = Math.min(RUN_BYTES, main.payload.capacityBytes / 4);
    this.#onProgress = onProgress;
    this.#onDamage = onDamage;
  }

  get members(): number {
    return this.#members.size;
  }

  /** The start is fixed: `next` is the first id that the subscription wants. */
  join(subject: ActiveSubject, subscription: number, groupId: number, next: number, credit: number): void {
    if (this.#members.has(subscription)) return;
    if (subject.group === null || subject.group.id !== groupId) {
      subject.group = new TailGroup(groupId, subject.resolvedTo + 1);
      for (const cursor of subject.cursors.splice(0)) this.#members.delete(cursor.subscription);
    }
    const cursor = new Cursor(subscription, next, credit);
    subject.cursors.push(cursor);
    subject.group.join();
    this.#members.set(subscription, { subject, cursor });
    if (!cursor.maybeMeet(subject.group)) this.#pump(subject);
  }

  leave(subscription: number): void {
    const member = this.#members.get(subscription);
    if (member === undefined) return;
    this.#members.delete(subscription);
    const { subject, cursor } = member;
    const group = subject.group;
    subject.cursors.splice(subject.cursors.indexOf(cursor), 1);
    if (group === null) return;
    group.leave(cursor.state === 'live');
    if (group.empty) subject.group = null;
  }

  credit(subscription: number, kind: number, next: number, bytes: number): void {
    const member = this.#members.get(subscription);
    const group = member?.subject.group;
    if (member === undefined || group === null || group === undefined) return;
    const { subject, cursor } = member;
    if (kind === Credit.PAUSE) {
      cursor.pause(group);
      return;
    }
    if (kind === Credit.RESUME) cursor.resume(next, bytes);
    else cursor.credit += bytes;
    if (!cursor.maybeMeet(group)) this.#pump(subject);
  }

  /** Ids got their verdict. `bytes`: the stored batch while it is at hand, null for a void mark. */
  resolved(subject: ActiveSubject, allotment: Unresolved, bytes: Buffer | null): void {
    const group = subject.group;
    if (group === null) return;
    if (group.live === 0) {
      this.#advanceSilently(subject, group);
      return;
    }
    const inOrder = group.next >= allotment.base && subject.resolvedTo >= allotment.base + allotment.count - 1;
    if (!inOrder || this.#stuckBytes > 0 || subject.pumping) {
      this.#pump(subject);
      return;
    }
    const next = allotment.base + allotment.count;
    if (bytes === null) {
      if (this.#sendEmpty(ToMain.GROUP_RUN, group.id, group.next, next)) group.next = next;
      else this.#pump(subject);
      return;
    }
    group.next = this.#sendBatch(ToMain.GROUP_RUN, group.id, group.next, bytes, subject.ref.bytes);
    if (group.next <= subject.resolvedTo) this.#pump(subject);
  }

  /** One round of reading from the store. Returns the number of things done. */
  work(): number {
    if (this.#stuckBytes > 0 && !this.#hasRoom()) return 0;
    this.#stuckBytes = 0;
    if (this.#pumping.length === 0) return 0;
    const subjects = this.#pumping;
    this.#pumping = [];
    let done = 0;
    for (const subject of subjects) {
      subject.pumping = false;
      done += this.#pumpOnce(subject);
    }
    return done;
  }

  /** Something waits for room on the payload ring. */
  get waiting(): boolean {
    return this.#stuckBytes > 0 && this.#pumping.length > 0;
  }

  /** Room for what did not fit, also if it must begin again at the start of the ring. Reading the store before there is would be for nothing. */
  #hasRoom(): boolean {
    const ring = this.#main.payload;
    return ring.freeBytes() >= Math.min(2 * this.#stuckBytes, ring.capacityBytes);
  }

  #pump(subject: ActiveSubject): void {
    if (subject.pumping) return;
    subject.pumping = true;
    this.#pumping.push(subject);
  }

  #advanceSilently(subject: ActiveSubject, group: TailGroup): void {
    group.next = Math.max(group.next, subject.resolvedTo + 1);
    for (const cursor of subject.cursors) {
      if (cursor.state === 'reading') this.#pump(subject);
    }
  }

  #pumpOnce(subject: ActiveSubject): number {
    const group = subject.group;
    if (group === null) return 0;
    let done = 0;
    if (group.live === 0) group.next = Math.max(group.next, subject.resolvedTo + 1);
    else if (group.next <= subject.resolvedTo) done += this.#pumpGroup(subject, group);
    // A copy: a cursor that meets damage leaves.
    for (const cursor of [...subject.cursors]) {
      if (cursor.state === 'reading' && !cursor.maybeMeet(group)) done += this.#pumpCursor(subject, group, cursor);
    }
    return done;
  }

  #pumpGroup(subject: ActiveSubject, group: TailGroup): number {
    return this.#read(subject, group.next, subject.resolvedTo, (result) => {
      if (subject.group !== group || group.next !== result.from) return;
      group.next = this.#sendResult(subject, ToMain.GROUP_RUN, group.id, group.next, result.read);
      if (group.next <= subject.resolvedTo) this.#pump(subject);
    });
  }

  #pumpCursor(subject: ActiveSubject, group: TailGroup, cursor: Cursor): number {
    if (cursor.credit <= 0) return 0;
    return this.#read(subject, cursor.next, group.next - 1, (result) => {
      if (cursor.state !== 'reading' || cursor.next !== result.from) return;
      cursor.next = this.#sendResult(subject, ToMain.READER_RUN, cursor.subscription, cursor.next, result.read, cursor);
      if (subject.group !== group) return;
      if (!cursor.maybeMeet(group) && cursor.credit > 0) this.#pump(subject);
    });
  }

  /** Reads [from, until] and hands the result on, at once or when it is there. */
  #read(
    subject: ActiveSubject,
    from: number,
    until: number,
    then: (result: { readonly from: number; readonly read: ReadResult }) => void,
  ): number {
    if (this.#stuckBytes > 0 || this.#readsInFlight >= READS_IN_FLIGHT_MAX) {
      this.#pump(subject);
      return 0;
    }
    const read = this.#store.read(subject.ref, from, until, READ_BYTES);
    if (!(read instanceof Promise)) {
      then({ from, read });
      return 1;
    }
    this.#readsInFlight += 1;
    void read.then((result) => {
      this.#readsInFlight -= 1;
      then({ from, read: result });
      this.#onProgress();
    });
    return 1;
  }

  /** Sends what was read; returns the next id to send. Stops when the ring or the credit is used up. */
  #sendResult(
    subject: ActiveSubject,
    type: number,
    target: number,
    from: number,
    read: ReadResult,
    cursor?: Cursor,
  ): number {
    let next = from;
    // Below it every id is sent, void, or rightly absent.
    let known = from;
    for (const item of read.items) {
      if (cursor !== undefined && cursor.credit <= 0) return next;
      if (this.#isLost(subject, type, target, next, known, item.from, cursor)) return item.from;
      if (item.kind === 'data') {
        if (item.from > next && !this.#sendEmpty(type, target, next, item.from)) return next;
        next = this.#sendBatch(type, target, Math.max(next, item.from), item.bytes, subject.ref.bytes, cursor);
        if (next < item.to) return next;
      } else if (item.kind === 'damaged') {
        if (item.from > next && !this.#sendEmpty(type, target, next, item.from)) return next;
        this.#damaged(subject, item.from, cursor);
        return Math.max(next, item.to);
      }
      known = Math.max(known, item.to);
    }
    if (this.#isLost(subject, type, target, next, known, read.next, cursor)) return read.next;
    if (read.next > next && this.#sendEmpty(type, target, next, read.next)) next = read.next;
    return next;
  }

  /** The store has nothing for [known, until): expired, trimmed, or lost, which is told to whoever stands before it (section 7, rule 7). */
  #isLost(
    subject: ActiveSubject,
    type: number,
    target: number,
    next: number,
    known: number,
    until: number,
    cursor: Cursor | undefined,
  ): boolean {
    if (until <= known) return false;
    const missing = subject.firstMissing(known, until);
    if (missing >= until) return false;
    if (missing > next) this.#sendEmpty(type, target, next, missing);
    this.#damaged(subject, missing, cursor);
    return true;
  }

  /** Streams that stand before damaged ids are ended and told so; they may subscribe again behind them. */
  #damaged(subject: ActiveSubject, from: number, only: Cursor | undefined): void {
    this.#onDamage(subject, from);
    const hit = only === undefined ? subject.cursors.filter(({ state }) => state === 'live') : [only];
    for (const { subscription } of hit) {
      this.#main.unsubscribed(subscription, 'DATA_LOSS');
      this.leave(subscription);
    }
  }

  #sendEmpty(type: number, target: number, from: number, to: number): boolean {
    const at = this.#main.payload.claim(type, RUN_HEADER);
    if (at < 0) {
      this.#stuckBytes = RUN_HEADER;
      return false;
    }
    this.#writeHeader(at, target, from, to, 0);
    this.#main.payload.commit();
    this.#main.touched();
    return true;
  }

  /** Sends the messages of one stored batch from id `from` on, in runs; returns the first id that was not sent. */
  #sendBatch(type: number, target: number, from: number, bytes: Buffer, subject: Uint8Array, cursor?: Cursor): number {
    const view = this.#view;
    view.wrap(bytes, 0);
    const now = Date.now();
    const end = view.base + view.count;
    let next = from;
    while (next < end && (cursor === undefined || cursor.credit > 0)) {
      const sent = this.#sendRun(type, target, next, end, now, subject, cursor);
      if (sent === next) return next;
      next = sent;
    }
    return next;
  }

  #sendRun(
    type: number,
    target: number,
    from: number,
    end: number,
    now: number,
    subject: Uint8Array,
    cursor?: Cursor,
  ): number {
    const view = this.#view;
    const size = this.#measureRun(from, end, now, subject);
    const at = this.#main.payload.claim(type, size.bytes);
    if (at < 0) {
      this.#stuckBytes = size.bytes;
      return from;
    }
    // Exactly what the main thread gives back for this run (front/run.ts): a difference would use the credit up for ever.
    if (cursor !== undefined) cursor.credit -= size.bytes - RUN_HEADER;
    const ring = this.#main.payload;
    const { ends, frames } = runLayout(size.count);
    let idAt = at + RUN_HEADER;
    let endAt = at + ends;
    let offset = at + frames;
    view.seek(from);
    for (let id = from; id < size.to; id++) {
      view.next();
      if (isExpired(view, now)) continue;
      ring.bytes[offset] = 0;
      const start = offset + FRAME_HEADER_BYTES;
      offset = encodeDelivery(view, id, subject, ring.bytes, start);
      ring.view.setUint32(start - 4, offset - start, false);
      ring.view.setFloat64(idAt, id, true);
      ring.view.setUint32(endAt, offset - at - frames, true);
      idAt += 8;
      endAt += 4;
    }
    this.#writeHeader(at, target, from, size.to, size.count);
    ring.commit();
    this.#main.touched();
    return size.to;
  }

  #measureRun(
    from: number,
    end: number,
    now: number,
    subject: Uint8Array,
  ): { bytes: number; to: number; count: number } {
    const view = this.#view;
    let bytes = 0;
    let count = 0;
    let id = from;
    view.seek(from);
    for (; id < end; id++) {
      view.next();
      if (isExpired(view, now)) continue;
      const entry = FRAME_HEADER_BYTES + encodedDeliveryBytes(view, id, subject.length);
      if (count > 0 && bytes + entry > this.#runBytes) break;
      bytes += entry;
      count += 1;
    }
    return { bytes: runLayout(count).frames + bytes, to: id, count };
  }

  #writeHeader(at: number, target: number, from: number, to: number, count: number): void {
    const view = this.#main.payload.view;
    view.setFloat64(at, from, true);
    view.setFloat64(at + 8, to, true);
    view.setUint32(at + 16, target, true);
    view.setUint32(at + 20, count, true);
  }
}

/** Expiry is judged when a message is read: it survives restarts and needs no timer. */
export function isExpired(view: BatchView, now: number): boolean {
  const seconds = view.expirationSeconds;
  return seconds > 0 && now >= view.publishedAt + seconds * 1000;
}
