import { BrokerError } from '../../base/errors.ts';
import { BatchView } from '../../batch/batch-view.ts';
import { encodeDelivery, encodedDeliveryBytes } from '../../batch/delivery.ts';
import { FRAME_HEADER_BYTES } from '../../grpc/frame.ts';
import { isOutage } from '../../storage/driver-errors.ts';
import type { MessageStore, ReadResult } from '../../storage/store.ts';
import { Cursor, TailGroup } from '../../subscribe/tail-group.ts';
import { Credit, Encoding, RUN_HEADER, runLayout, ToMain } from '../link.ts';
import { BatchRuns } from './batch-runs.ts';
import type { MainPort } from './main-port.ts';
import { ReusedMemory } from './read-memory.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';

/** A run is sent when it holds this many bytes, or a quarter of its ring if that is less. */
const RUN_BYTES = 128 * 1024;
/** Read from the store at a time for one reader. */
const READ_BYTES = 256 * 1024;
/** The same for a reader of batches, whose bytes are passed on as they are. */
const BATCH_READ_BYTES = 1024 * 1024;
/** Reads from disk that may be on their way at a time, for one shard. */
const READS_IN_FLIGHT_MAX = 4;
/** Before a read that a database refused is tried again, in ms. */
const READ_AGAIN_MS = 250;

interface Member {
  readonly subject: ActiveSubject;
  readonly group: TailGroup;
  readonly cursor: Cursor;
}

/** A subscription whose start is fixed. */
export interface Joining {
  readonly subscription: number;
  readonly group: number;
  /** Encoding of link.ts. */
  readonly encoding: number;
  /** Bytes that it may be sent while it reads the store. */
  readonly credit: number;
}

/**
 * Deliveries of the shard's subjects. Members at the tail share one run per stored batch; a member that is behind is a reader of the
 * store with byte credit until it meets the tail. The tail of a group that could not be sent (ring full) is read back from the store.
 * A subject has one group for each encoding: frames of single messages for Subscribe, frames of whole batches for Consume.
 */
export class Delivery {
  readonly #store: MessageStore;
  readonly #main: MainPort;
  readonly #onProgress: () => void;
  readonly #onDamage: (subject: ActiveSubject, id: number) => void;
  readonly #confirm: (subject: ActiveSubject, learned: () => void) => void;
  readonly #runBytes: number;
  readonly #members = new Map<number, Member>();
  readonly #view = new BatchView();
  readonly #runs: BatchRuns;
  /** Of shared subjects: the id that the store does not have, and what the log has said of it. */
  readonly #doubted = new Map<ActiveSubject, { readonly id: number; isKnown: boolean }>();
  /** Subjects with something to read from the store. */
  #pumping: ActiveSubject[] = [];
  #readsInFlight = 0;
  /** Not in use; as many exist as reads were ever on their way together. */
  readonly #memories: ReusedMemory[] = [];
  /** Bytes that the payload ring had no room for: nothing can be pumped until it has. 0 = it had. */
  #stuckBytes = 0;

  /** `confirm`: learns where the log stands with a subject as of now, and then says so. */
  constructor(
    store: MessageStore,
    main: MainPort,
    onProgress: () => void,
    onDamage: (subject: ActiveSubject, id: number) => void,
    confirm: (subject: ActiveSubject, learned: () => void) => void = (_subject, learned) => learned(),
  ) {
    this.#store = store;
    this.#main = main;
    this.#confirm = confirm;
    this.#runBytes = Math.min(RUN_BYTES, main.payload.capacityBytes / 4);
    this.#runs = new BatchRuns(main, this.#runBytes);
    this.#onProgress = onProgress;
    this.#onDamage = onDamage;
  }

  has(subscription: number): boolean {
    return this.#members.has(subscription);
  }

  get members(): number {
    return this.#members.size;
  }

  /** Subscriptions that are not at the tail, and the most ids that are settled and were not sent to one; a walk over all, about once a second. */
  behind(): { readonly readers: number; readonly lagMax: number } {
    let readers = 0;
    let lagMax = 0;
    for (const { subject, group, cursor } of this.#members.values()) {
      const isLive = cursor.state === 'live';
      if (!isLive) readers += 1;
      lagMax = Math.max(lagMax, subject.resolvedTo + 1 - (isLive ? group.next : cursor.next));
    }
    return { readers, lagMax };
  }

  /** The start is fixed: `next` is the first id that the subscription wants. */
  join(subject: ActiveSubject, { subscription, group: groupId, encoding, credit }: Joining, next: number): void {
    if (this.#members.has(subscription)) {
      // A move of its slot was given up: what main has said of it meanwhile was not heard here.
      this.credit(subscription, Credit.RESUME, next, credit);
      return;
    }
    let group = subject.groupOf(encoding);
    if (group === null || group.id !== groupId) {
      if (group !== null) this.#dissolve(subject, group);
      group = new TailGroup(groupId, subject.resolvedTo + 1, encoding);
      subject.groups.push(group);
    }
    const cursor = new Cursor(subscription, next, credit);
    group.cursors.push(cursor);
    group.join();
    this.#members.set(subscription, { subject, group, cursor });
    if (!cursor.maybeMeet(group)) this.#pump(subject);
  }

  leave(subscription: number): void {
    const member = this.#members.get(subscription);
    if (member === undefined) return;
    this.#members.delete(subscription);
    const { subject, group, cursor } = member;
    group.cursors.splice(group.cursors.indexOf(cursor), 1);
    group.leave(cursor.state === 'live');
    // What is being read for it is not for anybody any more.
    cursor.state = 'paused';
    if (group.empty) this.#dissolve(subject, group);
  }

  credit(subscription: number, kind: number, next: number, bytes: number): void {
    const member = this.#members.get(subscription);
    if (member === undefined) return;
    const { subject, group, cursor } = member;
    if (kind === Credit.PAUSE) {
      cursor.pause(group, next);
      return;
    }
    if (kind === Credit.RESUME) cursor.resume(group, next, bytes);
    else cursor.credit += bytes;
    if (!cursor.maybeMeet(group)) this.#pump(subject);
  }

  /** Subjects are another shard's from now on: their readers go on there from where main says they stand. */
  drop(subjects: ReadonlySet<ActiveSubject>): void {
    for (const subject of subjects) {
      for (const group of subject.groups.splice(0)) {
        for (const cursor of group.cursors.splice(0)) {
          this.#members.delete(cursor.subscription);
          group.leave(cursor.state === 'live');
          // A read from the store that is still on its way for it sends nothing.
          cursor.state = 'paused';
        }
      }
      subject.pumping = false;
      this.#doubted.delete(subject);
    }
    this.#pumping = this.#pumping.filter((subject) => !subjects.has(subject));
  }

  /** Where the subject of a subscription stands, as far as this shard knows; null if the subscription has not begun. */
  positionOf(subscription: number): { readonly head: number; readonly settled: number } | null {
    const subject = this.#members.get(subscription)?.subject;
    return subject === undefined ? null : { head: subject.head, settled: subject.resolvedTo };
  }

  #dissolve(subject: ActiveSubject, group: TailGroup): void {
    subject.groups.splice(subject.groups.indexOf(group), 1);
    for (const cursor of group.cursors.splice(0)) this.#members.delete(cursor.subscription);
    if (subject.groups.length === 0) this.#doubted.delete(subject);
  }

  /** The log has settled ids of a shared subject, from whichever node. What is at hand of this shard's own may go out before it is read. */
  progressed(subject: ActiveSubject): void {
    for (const group of subject.groups) {
      if (group.live === 0) this.#advanceSilently(subject, group);
      else if (group.next <= subject.resolvedTo) this.#pump(subject);
    }
  }

  /** Ids got their verdict. `bytes`: the stored batch while it is at hand, null for a void mark. */
  resolved(subject: ActiveSubject, allotment: Unresolved, bytes: Buffer | null): void {
    for (const group of subject.groups) this.#resolvedFor(subject, group, allotment, bytes);
  }

  #resolvedFor(subject: ActiveSubject, group: TailGroup, allotment: Unresolved, bytes: Buffer | null): void {
    if (group.live === 0) {
      this.#advanceSilently(subject, group);
      return;
    }
    const next = allotment.base + allotment.count;
    // Of a shared subject the log may have told of them first, and then they were read.
    if (group.next >= next) return;
    const inOrder = group.next >= allotment.base && subject.resolvedTo >= next - 1;
    if (!inOrder || this.#stuckBytes > 0) {
      this.#pump(subject);
      return;
    }
    if (group.encoding === Encoding.BATCHES) this.#sendTail(subject, group, next, bytes);
    else if (bytes === null) {
      if (this.#sendEmpty(ToMain.GROUP_RUN, group.id, group.next, next)) group.next = next;
    } else {
      group.next = this.#sendBatch(ToMain.GROUP_RUN, group.id, group.next, bytes, subject.shown);
    }
    if (group.next <= subject.resolvedTo) this.#pump(subject);
  }

  /** The batch at hand, or a void, goes to the consume streams at the tail. */
  #sendTail(subject: ActiveSubject, group: TailGroup, next: number, bytes: Buffer | null): void {
    const runs = this.#runs;
    runs.begin(ToMain.GROUP_BATCHES, group.id, subject.shown, group.next);
    const isAdded = bytes === null || runs.add(bytes, group.next, Date.now());
    if (isAdded) runs.flush(next);
    this.#stuckBytes = Math.max(this.#stuckBytes, runs.neededBytes);
    group.next = runs.from;
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
    for (const cursor of group.cursors) {
      if (cursor.state === 'reading') this.#pump(subject);
    }
  }

  #pumpOnce(subject: ActiveSubject): number {
    if (this.#doubted.get(subject)?.isKnown === false) return 0;
    let done = 0;
    // Copies: members that meet damage leave, and with the last one goes the group.
    for (const group of [...subject.groups]) {
      if (group.live === 0) group.next = Math.max(group.next, subject.resolvedTo + 1);
      else if (group.next <= subject.resolvedTo) done += this.#pumpGroup(subject, group);
      for (const cursor of [...group.cursors]) {
        if (cursor.state === 'reading' && !cursor.maybeMeet(group)) done += this.#pumpCursor(subject, group, cursor);
      }
    }
    return done;
  }

  #pumpGroup(subject: ActiveSubject, group: TailGroup): number {
    if (group.isFetching) return 0;
    const isBatches = group.encoding === Encoding.BATCHES;
    const bytes = isBatches ? BATCH_READ_BYTES : READ_BYTES;
    return this.#read(subject, group, group.next, subject.resolvedTo, bytes, (from, read) => {
      if (group.empty) return;
      if (group.next === from) {
        group.next = isBatches
          ? this.#sendBatches(subject, group, read, from)
          : this.#sendResult(subject, group, ToMain.GROUP_RUN, group.id, from, read);
      }
      if (group.next <= subject.resolvedTo) this.#pump(subject);
    });
  }

  #pumpCursor(subject: ActiveSubject, group: TailGroup, cursor: Cursor): number {
    const isBatches = group.encoding === Encoding.BATCHES;
    if (cursor.isFetching || !(isBatches ? cursor.mayFetch : cursor.credit > 0)) return 0;
    const bytes = isBatches ? Math.min(BATCH_READ_BYTES, cursor.credit) : READ_BYTES;
    return this.#read(subject, cursor, cursor.next, group.next - 1, bytes, (from, read) => {
      if (cursor.state !== 'reading') return;
      if (cursor.next === from) {
        cursor.next = isBatches
          ? this.#sendBatches(subject, group, read, from, cursor)
          : this.#sendResult(subject, group, ToMain.READER_RUN, cursor.subscription, from, read, cursor);
      }
      if (!cursor.maybeMeet(group) && cursor.credit > 0) this.#pump(subject);
    });
  }

  /** Reads [from, until] for `reader` and hands the result on, at once or when it is there. */
  #read(
    subject: ActiveSubject,
    reader: { isFetching: boolean },
    from: number,
    until: number,
    bytesMax: number,
    then: (from: number, read: ReadResult) => void,
  ): number {
    if (this.#stuckBytes > 0 || this.#readsInFlight >= READS_IN_FLIGHT_MAX) {
      this.#pump(subject);
      return 0;
    }
    const memory = this.#memories.pop() ?? new ReusedMemory();
    memory.clear();
    const read = this.#store.read(subject.ref, from, until, bytesMax, memory);
    if (!(read instanceof Promise)) {
      then(from, read);
      this.#memories.push(memory);
      return 1;
    }
    this.#readsInFlight += 1;
    reader.isFetching = true;
    const arrived = (): void => {
      this.#readsInFlight -= 1;
      reader.isFetching = false;
    };
    void read.then(
      (result) => {
        arrived();
        then(from, result);
        this.#memories.push(memory);
        this.#onProgress();
      },
      (error: unknown) => {
        // The store was closed, and with it ends this thread.
        if (error instanceof BrokerError && error.reason === 'SHUTTING_DOWN') return;
        if (!isOutage(error)) throw error;
        // A database that does not answer: nothing is lost, it is read when it is back.
        setTimeout(() => {
          arrived();
          this.#memories.push(memory);
          this.#pump(subject);
          this.#onProgress();
        }, READ_AGAIN_MS);
      },
    );
    return 1;
  }

  /** Sends batches that were read; returns the next id to send. Stops when the ring or the credit is used up. */
  #sendBatches(subject: ActiveSubject, group: TailGroup, read: ReadResult, from: number, cursor?: Cursor): number {
    const runs = this.#runs;
    const now = Date.now();
    if (cursor === undefined) runs.begin(ToMain.GROUP_BATCHES, group.id, subject.shown, from);
    else runs.begin(ToMain.READER_BATCHES, cursor.subscription, subject.shown, from);
    const credit = cursor?.credit ?? Number.POSITIVE_INFINITY;
    const next = this.#gather(subject, group, read, from, credit, now, cursor);
    this.#stuckBytes = Math.max(this.#stuckBytes, runs.neededBytes);
    if (cursor !== undefined) cursor.credit -= runs.sentBytes;
    return next;
  }

  /** Puts what was read into runs, up to the first place that ends them; returns the next id to send. */
  #gather(
    subject: ActiveSubject,
    group: TailGroup,
    read: ReadResult,
    from: number,
    credit: number,
    now: number,
    cursor: Cursor | undefined,
  ): number {
    const runs = this.#runs;
    // Below it every id is sent, void, or rightly absent.
    let known = from;
    for (const item of read.items) {
      if (runs.bytes >= credit) {
        runs.flush(known);
        return runs.from;
      }
      const missing = subject.firstMissing(known, item.from);
      if (missing < item.from && this.#isDoubtful(subject, missing)) {
        runs.flush(missing);
        return runs.from;
      }
      const lostAt = missing < item.from ? missing : item.kind === 'damaged' ? Math.max(known, item.from) : -1;
      if (lostAt >= 0) {
        if (runs.flush(lostAt)) this.#damaged(subject, group, lostAt, cursor);
        else return runs.from;
        return item.kind === 'damaged' && missing >= item.from ? Math.max(lostAt, item.to) : item.from;
      }
      if (item.kind === 'data' && !runs.add(item.bytes, Math.max(from, item.from), now)) return runs.from;
      known = Math.max(known, item.to);
    }
    const missing = subject.firstMissing(known, Math.max(known, read.next));
    if (missing < read.next) {
      if (!runs.flush(missing) || this.#isDoubtful(subject, missing)) return runs.from;
      this.#damaged(subject, group, missing, cursor);
      return read.next;
    }
    runs.flush(Math.max(known, read.next));
    return runs.from;
  }

  /** Sends what was read; returns the next id to send. Stops when the ring or the credit is used up. */
  #sendResult(
    subject: ActiveSubject,
    group: TailGroup,
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
      const goOn = this.#maybeSkipLost(subject, group, type, target, next, known, item.from, cursor);
      if (goOn >= 0) return goOn;
      if (item.kind === 'data') {
        if (item.from > next && !this.#sendEmpty(type, target, next, item.from)) return next;
        next = this.#sendBatch(type, target, Math.max(next, item.from), item.bytes, subject.shown, cursor);
        if (next < item.to) return next;
      } else if (item.kind === 'damaged') {
        if (item.from > next && !this.#sendEmpty(type, target, next, item.from)) return next;
        this.#damaged(subject, group, item.from, cursor);
        return Math.max(next, item.to);
      }
      known = Math.max(known, item.to);
    }
    const goOn = this.#maybeSkipLost(subject, group, type, target, next, known, read.next, cursor);
    if (goOn >= 0) return goOn;
    if (read.next > next && this.#sendEmpty(type, target, next, read.next)) next = read.next;
    return next;
  }

  /**
   * The store has nothing for [known, until): expired, trimmed, or lost, which is told to whoever stands before it (section 7, rule 7). Where to go on;
   * -1: nothing is lost.
   */
  #maybeSkipLost(
    subject: ActiveSubject,
    group: TailGroup,
    type: number,
    target: number,
    next: number,
    known: number,
    until: number,
    cursor: Cursor | undefined,
  ): number {
    if (until <= known) return -1;
    const missing = subject.firstMissing(known, until);
    if (missing >= until) return -1;
    const isToldBefore = missing <= next || this.#sendEmpty(type, target, next, missing);
    if (this.#isDoubtful(subject, missing)) return isToldBefore ? missing : next;
    this.#damaged(subject, group, missing, cursor);
    return until;
  }

  /**
   * Another node may have trimmed the subject, and deleted what the store does not have, before this one has heard of it. So the log is asked first, and
   * the subject is read again when it has answered; what is missing then is lost.
   */
  #isDoubtful(subject: ActiveSubject, id: number): boolean {
    if (!subject.isShared) return false;
    const doubted = this.#doubted.get(subject);
    if (doubted?.isKnown === false) return true;
    this.#doubted.delete(subject);
    if (doubted?.id === id) return false;
    const doubt = { id, isKnown: false };
    this.#doubted.set(subject, doubt);
    this.#confirm(subject, () => {
      if (this.#doubted.get(subject) !== doubt) return;
      doubt.isKnown = true;
      this.#pump(subject);
    });
    return true;
  }

  /** Streams that stand before damaged ids are ended and told so; they may subscribe again behind them. */
  #damaged(subject: ActiveSubject, group: TailGroup, from: number, only: Cursor | undefined): void {
    this.#onDamage(subject, from);
    const hit = only === undefined ? group.cursors.filter(({ state }) => state === 'live') : [only];
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
