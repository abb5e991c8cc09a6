import { assert } from '../../base/assert.ts';
import { BrokerError, type Reason } from '../../base/errors.ts';
import { BatchView } from '../../batch/batch-view.ts';
import { encodeDelivery, encodedDeliveryBytes } from '../../batch/delivery.ts';
import { isOutage } from '../../storage/driver-errors.ts';
import type { MessageStore, StoredItem, SubjectRef, SubjectStats } from '../../storage/store.ts';
import { Start, ToMain } from '../link.ts';
import { type Delivery, isExpired, type Joining } from './delivery.ts';
import { Interests } from './interests.ts';
import type { MainPort } from './main-port.ts';
import { Pending, type RaftClient } from './raft-client.ts';
import { type FetchCall, type LookupDatabase, reasonOf, StoredLookups } from './stored-lookups.ts';
import type { ActiveSubject, Unresolved } from './subjects.ts';
import { TimeScans } from './time-scan.ts';

/** The state machine's view of a subject and of one id in it, as the Raft thread answered it. */
export interface SubjectState {
  readonly exists: boolean;
  readonly first: number;
  readonly head: number;
  readonly settled: number;
  readonly everExpires: boolean;
  /** The id asked for is above `settled` and its allotment is neither stored nor void. */
  readonly undecided: boolean;
  /** The id asked for is void for the log: in a range that `cluster recover` left, which has no marks in the store. */
  readonly isVoid?: boolean;
}

/** `since`: ms of performance.now(). */
type Question = { readonly since: number } & (
  | { readonly kind: 'fetch'; readonly fetch: FetchCall; readonly isSecond: boolean }
  | { readonly kind: 'subscribe'; readonly subject: ActiveSubject; readonly request: SubscribeRequest }
  | { readonly kind: 'barrier'; readonly passed: () => void }
  | { readonly kind: 'position'; readonly subject: ActiveSubject; readonly learned: (state: SubjectState) => void }
  | { readonly kind: 'info'; readonly subject: ActiveSubject; readonly call: number }
);

export interface SubscribeRequest extends Joining {
  readonly start: number;
  readonly value: number;
  /** With a time: the lowest id that is wanted. */
  readonly from: number;
}

/** Where a subscription starts: the first id that it wants. */
interface FixedStart {
  readonly subject: ActiveSubject;
  readonly request: SubscribeRequest;
  readonly next: number;
  /** It joins when its time has come; until then it only is known to stand here. */
  readonly isAwaiting: boolean;
}

/** A subscription from a time, until an id is known that was published then or later. */
interface Awaiting {
  readonly subject: ActiveSubject;
  readonly request: SubscribeRequest;
  /** The lowest id that it may have, whenever that was published. */
  readonly first: number;
  /** The lowest id of those that have been seen to be late enough; Infinity: none yet. */
  reached: number;
}

/**
 * Before the start of a subscription is looked for again in a database that did not answer, in ms; twice as long each time, up to the second: there
 * may be thousands of them.
 */
const START_AGAIN_MS = 250;
const START_AGAIN_MS_MAX = 4_000;

const NO_SUBJECT: SubjectRef = { bytes: new Uint8Array(0), hash: 0 };

/**
 * Everything that reads: Fetch, the start of a subscription, subject information. What this shard has a verdict for it answers from the store;
 * otherwise the Raft thread is asked, so that the answer reflects all that was committed before the call.
 */
export class LookupPath {
  readonly #store: MessageStore;
  readonly #raft: RaftClient;
  readonly #main: MainPort;
  readonly #delivery: Delivery;
  readonly #onProgress: () => void;
  readonly #onDamage: (subject: ActiveSubject, id: number) => void;
  /** Null: the store is embedded. In a database a batch can be seen before its verdict. */
  readonly #lookups: StoredLookups | null;
  readonly #questions = new Pending<Question>();
  readonly #interests: Interests;
  readonly #scans: TimeScans;
  #parked: FetchCall[] = [];
  /** By subscription: one may be asked for again, since a move of its slot was given up, before its first question has an answer. */
  readonly #starting = new Map<number, SubscribeRequest[]>();
  /** Of those, the ones whose subscription has ended since. */
  readonly #cancelled = new Set<SubscribeRequest>();
  /** Starts that are fixed, and that the ring to main had no room for. */
  readonly #beginning: FixedStart[] = [];
  /** By subscription. */
  readonly #awaiting = new Map<number, Awaiting>();
  readonly #view = new BatchView();

  constructor(ports: {
    readonly store: MessageStore;
    readonly raft: RaftClient;
    readonly main: MainPort;
    readonly delivery: Delivery;
    readonly onProgress: () => void;
    readonly onDamage: (subject: ActiveSubject, id: number) => void;
    /** Null: the store is embedded. */
    readonly database: LookupDatabase | null;
  }) {
    const { store, main, onProgress, database } = ports;
    this.#lookups =
      database === null
        ? null
        : new StoredLookups({
            ...database,
            store,
            answer: (fetch, item, absent) => this.#answer(fetch, item, absent),
            refuse: (fetch, reason) => this.#refuse(fetch, fetch.call, reason),
            isBlocked: () => main.blocked,
            onProgress,
          });
    this.#store = store;
    this.#raft = ports.raft;
    this.#interests = new Interests(ports.raft);
    this.#scans = new TimeScans(
      store,
      (subject, id, publishedAt) => this.#published(subject, id, id, publishedAt),
      onProgress,
    );
    this.#main = main;
    this.#delivery = ports.delivery;
    this.#onProgress = onProgress;
    this.#onDamage = ports.onDamage;
  }

  /** Fetches that wait for a verdict. */
  get parked(): number {
    return this.#parked.length;
  }

  /** Fetches that may wait too long: those, and with a database those that wait for a read. */
  get waitingFetches(): number {
    return this.#parked.length + (this.#lookups?.waiting ?? 0);
  }

  /** Something waits for room on the payload ring. */
  get waiting(): boolean {
    return this.#beginning.length > 0;
  }

  /** One round. Returns the number of things done. */
  work(): number {
    let done = 0;
    while (done < this.#beginning.length && this.#tryBegin(this.#beginning[done] as FixedStart)) done += 1;
    if (done > 0) this.#beginning.splice(0, done);
    return done + (this.#lookups?.work() ?? 0);
  }

  fetch(subject: ActiveSubject, id: number, call: number, deadline: number): void {
    subject.parked += 1;
    const fetch = { subject, id, call, deadline };
    const ask = (): void => this.#ask(fetch);
    // What a database has may still be revoked: the verdict comes first (design section 7, rule 7). And it keeps the rows of what was
    // trimmed for a while, or for as long as the rest of their batch stays, so the log has to say where the subject begins.
    // Where other nodes trim, what this shard was told may be old.
    if (this.#lookups === null) this.#fetchStored(fetch, ask);
    else if (subject.isShared || !subject.knowsFirst || !subject.isResolved(id)) ask();
    else if (id < subject.first) this.#refuse(fetch, call, 'ID_TRIMMED');
    else this.#fetchStored(fetch, ask);
  }

  /** `isSecond`: what the store does not have was missed before. */
  #ask(fetch: FetchCall, isSecond = false): void {
    const since = performance.now();
    this.#questions.set(this.#raft.query(fetch.subject.ref, fetch.id), { kind: 'fetch', fetch, isSecond, since });
  }

  subscribe(subject: ActiveSubject, request: SubscribeRequest): void {
    subject.parked += 1;
    this.#begins(request);
    const since = performance.now();
    this.#questions.set(this.#raft.query(subject.ref, 0), { kind: 'subscribe', subject, request, since });
  }

  /** Asks where the log stands with a shared subject, and with `id` (0: none), as of now. It is answered when there is a quorum. */
  confirm(subject: ActiveSubject, id: number, learned: (state: SubjectState) => void): void {
    // Keeps the subject while the answer is on its way.
    subject.parked += 1;
    const since = performance.now();
    this.#questions.set(this.#raft.query(subject.ref, id), { kind: 'position', subject, learned, since });
  }

  /** Somebody waits for what becomes of ids of the subject that may be another node's. */
  follow(subject: ActiveSubject): void {
    this.#interests.begin(subject);
  }

  /** The log has settled ids of a shared subject, from whichever node. */
  progressed(subject: ActiveSubject): void {
    this.#scans.progressed(subject);
    if (this.#parked.length > 0) this.#askAgain((fetch) => fetch.subject === subject && subject.isResolved(fetch.id));
  }

  /**
   * About once a second, with peers: what the log has not answered for `timeoutMs` is refused, since it has no quorum. What another node closed may be
   * read before everything below it is settled, so fetches that wait ask again. `now` in ms of performance.now().
   */
  sweep(now: number, timeoutMs: number): void {
    const isOver = ({ since, kind }: Question): boolean =>
      now - since >= timeoutMs && kind !== 'barrier' && kind !== 'position';
    for (const question of this.#questions.takeThose(isOver)) {
      if (question.kind === 'fetch') this.#refuse(question.fetch, question.fetch.call, 'NOT_READY');
      else if (question.kind === 'subscribe') this.#refuseStart(question.subject, question.request);
      else if (question.kind === 'info') {
        question.subject.parked -= 1;
        this.#main.refuse(question.call, 'NOT_READY');
      }
    }
    this.#askAgain(({ subject }) => subject.isShared);
    this.#interests.sweep();
  }

  /** Slots are to leave: fetches that wait for another node's ids must not hold them. */
  release(subjects: readonly ActiveSubject[]): void {
    const leaving = new Set(subjects.filter(({ isShared }) => isShared));
    if (leaving.size === 0) return;
    for (const fetch of this.#takeParked(({ subject }) => leaving.has(subject))) {
      this.#refuse(fetch, fetch.call, 'NOT_READY');
    }
  }

  #askAgain(isMeant: (fetch: FetchCall) => boolean): void {
    for (const fetch of this.#takeParked(isMeant)) this.#ask(fetch);
  }

  #takeParked(isMeant: (fetch: FetchCall) => boolean): FetchCall[] {
    const taken = this.#parked.filter(isMeant);
    if (taken.length > 0) this.#parked = this.#parked.filter((fetch) => !isMeant(fetch));
    return taken;
  }

  #park(fetch: FetchCall): void {
    this.#parked.push(fetch);
    this.#interests.begin(fetch.subject);
  }

  #refuseStart(subject: ActiveSubject, request: SubscribeRequest): void {
    if (!this.#ends(subject, request)) this.#main.unsubscribed(request.subscription, 'NOT_READY');
  }

  #begins(request: SubscribeRequest): void {
    const starting = this.#starting.get(request.subscription);
    if (starting === undefined) this.#starting.set(request.subscription, [request]);
    else starting.push(request);
  }

  /** Its start is fixed, or nobody wants it any more: then true. */
  #ends(subject: ActiveSubject, request: SubscribeRequest): boolean {
    subject.parked -= 1;
    const starting = this.#starting.get(request.subscription) ?? [];
    assert(starting.includes(request), 'a start that was not asked for');
    if (starting.length === 1) this.#starting.delete(request.subscription);
    else starting.splice(starting.indexOf(request), 1);
    return this.#cancelled.delete(request);
  }

  /** A subscription that ends before its start was fixed. */
  unsubscribe(subscription: number): void {
    const starting = this.#starting.get(subscription);
    if (starting === undefined) this.#stopAwaiting(subscription);
    else for (const request of starting) this.#cancelled.add(request);
  }

  /** Ids got a verdict, and subscriptions to the subject wait for a time. */
  reached(subject: ActiveSubject, { base, publishedAt }: Unresolved): void {
    // Ids of other nodes below it may have that time too, and no verdict yet: the scan comes to them in order.
    if (!subject.isShared) this.#published(subject, base, null, publishedAt);
  }

  /** A batch is known to be stored. `inFlight`: the lowest id that may be late enough; null: of what this shard has on its way. */
  #published(subject: ActiveSubject, base: number, inFlight: number | null, publishedAt: number): void {
    for (const [subscription, awaiting] of this.#awaiting) {
      const { value } = awaiting.request;
      if (awaiting.subject !== subject || publishedAt < value) continue;
      // Log time never falls, but verdicts come in any order.
      awaiting.reached = Math.min(awaiting.reached, base, inFlight ?? subject.firstInFlightSince(value));
      if (!this.#starting.has(subscription)) this.#maybeReach(subscription);
    }
  }

  /** Where the subject of a subscription stands that waits for its time; null if none does. */
  positionOf(subscription: number): { readonly head: number; readonly settled: number } | null {
    const subject = this.#awaiting.get(subscription)?.subject;
    return subject === undefined ? null : { head: subject.head, settled: subject.resolvedTo };
  }

  /** Subjects are another shard's from now on: subscriptions that wait for a time wait there. */
  drop(subjects: ReadonlySet<ActiveSubject>): void {
    for (const [subscription, { subject }] of this.#awaiting) {
      if (subjects.has(subject)) this.#stopAwaiting(subscription);
    }
    this.#interests.drop(subjects);
  }

  /** Begins the subscription if its time has come. */
  #maybeReach(subscription: number): void {
    // Asked for again meanwhile: what has come before that is found by the search that is on its way for it.
    if (this.#starting.has(subscription)) return;
    const awaiting = this.#awaiting.get(subscription);
    if (awaiting === undefined || awaiting.reached === Number.POSITIVE_INFINITY) return;
    const { subject, request, first, reached } = awaiting;
    this.#stopAwaiting(subscription);
    subject.parked += 1;
    this.#begins(request);
    this.#started(subject, request, Math.max(reached, first));
  }

  /** `only`: not if the subscription was asked for again since. */
  #stopAwaiting(subscription: number, only?: SubscribeRequest): void {
    const awaiting = this.#awaiting.get(subscription);
    if (awaiting === undefined || (only !== undefined && awaiting.request !== only)) return;
    this.#awaiting.delete(subscription);
    awaiting.subject.awaiting -= 1;
    if (awaiting.subject.awaiting === 0) this.#scans.end(awaiting.subject);
  }

  /** Calls `passed` when everything that was sent to the Raft thread before has been worked on. */
  barrier(passed: () => void): void {
    this.#questions.set(this.#raft.query(NO_SUBJECT, 0), { kind: 'barrier', passed, since: performance.now() });
  }

  info(subject: ActiveSubject, call: number): void {
    subject.parked += 1;
    const since = performance.now();
    this.#questions.set(this.#raft.query(subject.ref, 0), { kind: 'info', subject, call, since });
  }

  answered(counter: number, state: SubjectState): void {
    const question = this.#questions.take(counter);
    if (question === null) return;
    switch (question.kind) {
      case 'barrier':
        question.passed();
        return;
      case 'fetch':
        question.fetch.subject.learn(state);
        if (this.#lookups !== null && this.#isWithout(question.fetch, state)) return;
        this.#fetchStored(question.fetch, (fetch) => this.#judge(fetch, state, question.isSecond));
        return;
      case 'position':
        question.subject.parked -= 1;
        question.subject.learn(state);
        question.learned(state);
        return;
      case 'subscribe':
        question.subject.learn(state);
        this.#start(question.subject, question.request, state);
        return;
      case 'info': {
        question.subject.parked -= 1;
        if (state.exists) this.#inform(question.subject, question.call, state);
        else this.#main.refuse(question.call, 'SUBJECT_NOT_FOUND');
        return;
      }
    }
  }

  /** With a database: the log says that there is nothing to read, or nothing yet. Then the call is answered, or waits for the verdict. */
  #isWithout(fetch: FetchCall, state: SubjectState): boolean {
    const { id, call, subject } = fetch;
    if (id < state.first) this.#refuse(fetch, call, 'ID_TRIMMED');
    else if (subject.isResolved(id)) return false;
    else if (id > state.head) this.#refuse(fetch, call, 'ID_NOT_FOUND');
    else if (state.isVoid === true) this.#refuse(fetch, call, 'ID_VOID');
    else if (state.undecided) this.#park(fetch);
    else return false;
    return true;
  }

  #inform(subject: ActiveSubject, call: number, state: SubjectState): void {
    const { first, head, settled, everExpires } = state;
    const answer = ({ batches, bytes }: SubjectStats): void =>
      this.#main.info(call, { first, head, settled, everExpires, batches, bytes });
    const stats = this.#store.subjectStats(subject.ref);
    if (!(stats instanceof Promise)) answer(stats);
    else {
      void stats
        .then(answer, (error: unknown) => this.#main.refuse(call, reasonOf(error)))
        .then(() => this.#onProgress());
    }
  }

  /** Ids of the subject got a verdict: calls that waited for them are looked at again. */
  resolved(subject: ActiveSubject, base: number, count: number): void {
    for (let i = this.#parked.length - 1; i >= 0; i--) {
      const fetch = this.#parked[i] as FetchCall;
      if (fetch.subject !== subject || fetch.id < base || fetch.id >= base + count) continue;
      this.#parked.splice(i, 1);
      this.#fetchStored(fetch, ({ call }) => this.#refuse(fetch, call, 'ID_VOID'));
    }
  }

  /** Ids of the subject were trimmed since they got their verdict: calls that waited for them ask the log again. */
  forgotten(subject: ActiveSubject, base: number, count: number): void {
    this.#askAgain((fetch) => fetch.subject === subject && fetch.id >= base && fetch.id < base + count);
  }

  /** Answers fetches that waited too long. `now` in epoch ms. */
  expire(now: number): void {
    this.#lookups?.expire(now);
    for (let i = this.#parked.length - 1; i >= 0; i--) {
      const fetch = this.#parked[i] as FetchCall;
      if (fetch.deadline > now) continue;
      this.#parked.splice(i, 1);
      this.#refuse(fetch, fetch.call, 'DEADLINE_PASSED');
    }
  }

  /** Answers from the store, or calls `absent`. */
  #fetchStored(fetch: FetchCall, absent: (fetch: FetchCall) => void): void {
    if (this.#lookups !== null) {
      this.#lookups.ask(fetch, absent);
      return;
    }
    const read = this.#store.read(fetch.subject.ref, fetch.id, fetch.id, 1);
    if (!(read instanceof Promise)) {
      this.#answer(fetch, read.items[0], absent);
      return;
    }
    void read
      .then(
        ({ items }) => this.#answer(fetch, items[0], absent),
        (error: unknown) => this.#refuse(fetch, fetch.call, reasonOf(error)),
      )
      .then(() => this.#onProgress());
  }

  #answer(fetch: FetchCall, item: StoredItem | undefined, absent: (fetch: FetchCall) => void): void {
    if (item === undefined) {
      absent(fetch);
      return;
    }
    switch (item.kind) {
      case 'void':
        this.#refuse(fetch, fetch.call, 'ID_VOID');
        return;
      case 'damaged':
        this.#onDamage(fetch.subject, fetch.id);
        this.#refuse(fetch, fetch.call, 'DATA_LOSS');
        return;
      case 'data': {
        const { subject, id } = fetch;
        if (this.#lookups === null) {
          // The index forgets what is trimmed by whole batches: of one that is trimmed in part it still finds all.
          if (id < subject.first) {
            this.#refuse(fetch, fetch.call, 'ID_TRIMMED');
            return;
          }
          if (!subject.knowsFirst && item.to - item.from > 1) {
            absent(fetch);
            return;
          }
        }
        const view = this.#view;
        view.wrap(item.bytes, 0);
        view.seek(fetch.id);
        view.next();
        if (isExpired(view, Date.now())) {
          this.#refuse(fetch, fetch.call, 'ID_EXPIRED');
          return;
        }
        fetch.subject.parked -= 1;
        this.#send(fetch, view);
        return;
      }
    }
  }

  #send(fetch: FetchCall, view: BatchView): void {
    const subject = fetch.subject.shown;
    const length = encodedDeliveryBytes(view, fetch.id, subject.length);
    const outbox = this.#main.payloadOutbox;
    const at = outbox.begin(ToMain.FETCHED, 8 + length);
    outbox.view.setUint32(at, fetch.call, true);
    encodeDelivery(view, fetch.id, subject, outbox.bytes, at + 8);
    outbox.end();
    this.#main.touched();
  }

  /** The id is not in the store, and `state` was read before that was found out: another node may have trimmed it meanwhile. */
  #judge(fetch: FetchCall, state: SubjectState, isSecond: boolean): void {
    if (fetch.id > state.head) this.#refuse(fetch, fetch.call, 'ID_NOT_FOUND');
    else if (fetch.id < state.first) this.#refuse(fetch, fetch.call, 'ID_TRIMMED');
    else if (state.undecided && !fetch.subject.isResolved(fetch.id)) this.#park(fetch);
    else if (state.isVoid === true) this.#refuse(fetch, fetch.call, 'ID_VOID');
    else if (state.everExpires) this.#refuse(fetch, fetch.call, 'ID_EXPIRED');
    else if (fetch.subject.isShared && !isSecond) this.#ask(fetch, true);
    else {
      this.#onDamage(fetch.subject, fetch.id);
      this.#refuse(fetch, fetch.call, 'DATA_LOSS');
    }
  }

  /** `waitMs`: before the next try, if the store does not answer this one. */
  #start(subject: ActiveSubject, request: SubscribeRequest, state: SubjectState, waitMs = START_AGAIN_MS): void {
    const first = Math.max(1, state.first);
    switch (request.start) {
      case Start.NEW:
        this.#started(subject, request, state.head + 1);
        return;
      case Start.EARLIEST:
        this.#started(subject, request, first);
        return;
      case Start.ID:
        this.#started(subject, request, Math.max(request.value, first));
        return;
      default:
        this.#startAtTime(subject, request, state, waitMs);
    }
  }

  #startAtTime(subject: ActiveSubject, request: SubscribeRequest, state: SubjectState, waitMs: number): void {
    const { subscription, value } = request;
    const first = Math.max(1, state.first, request.from);
    this.#stopAwaiting(subscription);
    this.#awaiting.set(subscription, { subject, request, first, reached: Number.POSITIVE_INFINITY });
    subject.awaiting += 1;
    this.#interests.begin(subject);
    const settled = subject.resolvedTo;
    const found = this.#store.findTime(subject.ref, value);
    if (!(found instanceof Promise)) this.#searched(request, found, settled);
    else {
      void found
        .then(
          (id) => this.#answerSearch(subject, request, id, settled),
          (error: unknown) => this.#startAgain(subject, request, state, { error, waitMs }),
        )
        .then(() => this.#onProgress());
    }
  }

  /** Whoever asked may have been asked for again meanwhile: then the later search fixes the start. */
  #answerSearch(subject: ActiveSubject, request: SubscribeRequest, id: number | null, settled: number): void {
    if (this.#awaiting.get(request.subscription)?.request === request) this.#searched(request, id, settled);
    else this.#ends(subject, request);
  }

  /**
   * The store's first id of that time or later is known; null: it has none, and what is published before that time must not be delivered. `settled`: up
   * to where the store had everything when it was asked.
   */
  #searched(request: SubscribeRequest, id: number | null, settled: number): void {
    const awaiting = this.#awaiting.get(request.subscription);
    assert(awaiting?.request === request, 'a start at a time is not waited for');
    const { subject, first } = awaiting;
    if (subject.isShared) {
      this.#searchedShared(awaiting, id, settled);
      return;
    }
    // Not stored yet, but allotted: it is on its way, and belongs to this start if its time does. What the store did not have yet has got its
    // verdict since the question, and was noted then.
    const inFlight = subject.firstInFlightSince(request.value);
    const known = Math.min(awaiting.reached, id ?? Number.POSITIVE_INFINITY);
    const reached = inFlight <= subject.head ? Math.min(known, inFlight) : known;
    if (reached === Number.POSITIVE_INFINITY) {
      this.#started(subject, request, Math.max(subject.head + 1, first), true);
      return;
    }
    this.#stopAwaiting(request.subscription);
    this.#started(subject, request, Math.max(reached, first));
  }

  /** An id that is not settled may become void, or have one below it that comes to the store later and is late enough too. */
  #searchedShared({ subject, request, first }: Awaiting, id: number | null, settled: number): void {
    if (id !== null && id <= settled) {
      this.#stopAwaiting(request.subscription);
      this.#started(subject, request, Math.max(id, first));
      return;
    }
    this.#started(subject, request, Math.max(settled + 1, first), true);
    this.#scans.begin(subject, settled + 1);
  }

  /** The database is away. Whoever has gone meanwhile is forgotten: in a long outage clients come and go many times. */
  #startAgain(
    subject: ActiveSubject,
    request: SubscribeRequest,
    state: SubjectState,
    { error, waitMs }: { readonly error: unknown; readonly waitMs: number },
  ): void {
    if (error instanceof BrokerError && error.reason === 'SHUTTING_DOWN') return;
    const isBusy = error instanceof BrokerError && error.row.status === 'RESOURCE_EXHAUSTED';
    if (!isBusy && !isOutage(error)) throw error;
    if (this.#cancelled.has(request)) this.#started(subject, request, state.head + 1);
    else
      setTimeout(() => this.#tryStartAgain(subject, request, state, Math.min(waitMs * 2, START_AGAIN_MS_MAX)), waitMs);
  }

  /** Unless the subscription was asked for again meanwhile: then that fixes its start, or has. */
  #tryStartAgain(subject: ActiveSubject, request: SubscribeRequest, state: SubjectState, waitMs: number): void {
    if (this.#awaiting.get(request.subscription)?.request === request) this.#start(subject, request, state, waitMs);
    else this.#ends(subject, request);
  }

  #started(subject: ActiveSubject, request: SubscribeRequest, next: number, isAwaiting = false): void {
    const start = { subject, request, next, isAwaiting };
    if (this.waiting || !this.#tryBegin(start)) this.#beginning.push(start);
  }

  /** False while main cannot be told: the subscription joins behind that, or its runs would come first. */
  #tryBegin({ subject, request, next, isAwaiting }: FixedStart): boolean {
    const { subscription } = request;
    const isCancelled = this.#cancelled.has(request);
    // Asked for twice, since a move of its slot was given up before the first answer: it stands where that one says.
    if (!isCancelled && request.start !== Start.ID && this.#delivery.has(subscription)) {
      this.#ends(subject, request);
      this.#stopAwaiting(subscription, request);
      return true;
    }
    if (!isCancelled && !this.#main.trySubscribed(subscription, next, subject, isAwaiting)) return false;
    this.#ends(subject, request);
    if (isCancelled) this.#stopAwaiting(subscription, request);
    else if (isAwaiting) this.#maybeReach(subscription);
    else {
      this.#interests.begin(subject);
      this.#delivery.join(subject, request, next);
    }
    return true;
  }

  #refuse(fetch: FetchCall, call: number, reason: Reason): void {
    fetch.subject.parked -= 1;
    this.#main.refuse(call, reason);
  }
}
