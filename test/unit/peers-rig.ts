/** A shard of a node with peers over real rings, the state machine of the log, and a store that other nodes write to as well. */
import assert from 'node:assert/strict';
import { AllotMachine } from '../../src/allot/allot-machine.ts';
import {
  closeSize,
  openSize,
  originSize,
  writeClose,
  writeNodeStarted,
  writeOpen,
  writeOrigin,
  writeRevoke,
  writeTrim,
} from '../../src/allot/commands.ts';
import { type AllotmentOwner, type AllotSink, AllotVerdict, NO_SINK } from '../../src/allot/verdicts.ts';
import { REASON_NAMES } from '../../src/base/errors.ts';
import { BODY_TAG, RECORD_TAG } from '../../src/batch/batch-format.ts';
import { RecordsScan } from '../../src/batch/records-scan.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import { RingProducer } from '../../src/shm/ring-producer.ts';
import type { MessageStore, ReadResult, SealedBatch, StoredItem, SubjectRef } from '../../src/storage/store.ts';
import { takeRun } from '../../src/workers/front/run.ts';
import {
  Encoding,
  FETCH_HEADER,
  FromRaft,
  MARK_HEADER,
  PROGRESS_HEADER,
  QUERY_HEADER,
  RAFT_BORN_HEADER,
  StateFlag,
  StreamToken,
  SUBJECT_ANSWER_HEADER,
  SUBSCRIBE_HEADER,
  ToMain,
  ToRaft,
  ToShard,
} from '../../src/workers/link.ts';
import { AllotRequests } from '../../src/workers/shard/allot-requests.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { ForeignRepeats } from '../../src/workers/shard/foreign-repeats.ts';
import { LookupPath } from '../../src/workers/shard/lookup-path.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { ANY_HEAD } from '../../src/workers/shard/open-batch.ts';
import { PeerBatches } from '../../src/workers/shard/peer-batches.ts';
import { PublishPath } from '../../src/workers/shard/publish-path.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { RecentBatches } from '../../src/workers/shard/recent-batches.ts';
import { ReleaseJobs } from '../../src/workers/shard/release-job.ts';
import { ShardAgent } from '../../src/workers/shard/shard-agent.ts';
import { ShardCounters } from '../../src/workers/shard/shard-counters.ts';
import type { ShardStore } from '../../src/workers/shard/shard-store.ts';
import { OwnedSlots, SlotDrain } from '../../src/workers/shard/slot-drain.ts';
import { StreamFailures } from '../../src/workers/shard/stream-failures.ts';
import { ActiveSubjects } from '../../src/workers/shard/subjects.ts';
import { dataBatch, plain, subjectRef, voidBatch } from './batch-support.ts';

export const OWN = 'a';
export const TIMEOUT_MS = 10_000;
const RING_BYTES = 1 << 20;
const LIMITS = { bodyBytes: 1 << 20, headersBytes: 1 << 16, headersCount: 64, records: 1_000 };
const STREAM = 5;

interface Reader {
  next: number;
  readonly ids: number[];
  /** It was told where it starts. */
  isStarted: boolean;
  ended: string | null;
}

interface Query {
  readonly id: number;
  readonly counter: number;
}

export class PeersRig {
  readonly ref: SubjectRef = subjectRef('peers.test');
  readonly machine = new AllotMachine({ subjectsMax: 100, producersMax: 100, openPerNodeMax: 10_000 });
  readonly subjects = new ActiveSubjects(true);
  readonly publish: PublishPath;
  readonly delivery: Delivery;
  readonly lookup: LookupPath;
  readonly agent: ShardAgent;
  readonly drain: SlotDrain;
  readonly requests: AllotRequests;
  readonly readers = new Map<number, Reader>();
  /** By sequence: the id, or why there is none. */
  readonly answers = new Map<number, number | string>();
  /** By call. */
  readonly fetched = new Map<number, string>();
  readonly born: string[] = [];
  readonly watched: number[] = [];
  readonly damaged: number[] = [];
  readonly stored = new Map<number, SealedBatch>();
  readonly runs: Uint8Array[] = [];
  queries: Query[] = [];
  isInterested = false;
  isWatching = false;
  /** What the next reads fail with. */
  time = 1_000;
  reads = 0;
  #index = 0;
  #isOwnOrigin = false;
  readonly #writes: { readonly bases: ReadonlySet<number>; end(): void }[] = [];
  readonly #mainControl: RingProducer;
  readonly #raftAnswers: RingProducer;
  readonly #toMainControl: RingConsumer;
  readonly #toMainPayload: RingConsumer;
  readonly #toRaft: RingConsumer;
  readonly #sink: AllotSink;

  constructor(cacheBytes = 1 << 16, writesMax = 1) {
    const [control, payload, toControl, toPayload, toRaft, fromRaft] = Array.from({ length: 6 }, () =>
      createRing(RING_BYTES),
    ) as [
      SharedArrayBuffer,
      SharedArrayBuffer,
      SharedArrayBuffer,
      SharedArrayBuffer,
      SharedArrayBuffer,
      SharedArrayBuffer,
    ];
    this.#mainControl = new RingProducer(control);
    this.#raftAnswers = new RingProducer(fromRaft);
    this.#toMainControl = new RingConsumer(toControl);
    this.#toMainPayload = new RingConsumer(toPayload);
    this.#toRaft = new RingConsumer(toRaft);
    this.#sink = this.#makeSink();
    const recent = new RecentBatches(cacheBytes);
    const store = {
      append: (group: readonly SealedBatch[]) => this.#append(group),
      read: (_ref: SubjectRef, from: number, until: number, maxBytes: number) =>
        recent.read(this.ref, from, until, maxBytes) ?? Promise.resolve().then(() => this.read(from, until)),
      findTime: (_ref: SubjectRef, ms: number) => Promise.resolve().then(() => this.#findTime(ms)),
      lookup: (_ref: SubjectRef, base: number) => Promise.resolve(this.stored.get(base)?.kind ?? 'absent'),
      trim: () => undefined,
      exportSlot: () => null,
      importSlot: () => undefined,
    } as unknown as ShardStore;
    const main = new MainPort(toControl, toPayload, createDoorbell());
    const raft = new RaftClient(toRaft, createDoorbell(), 0);
    const requests = new AllotRequests(raft, 0);
    this.requests = requests;
    const failures = new StreamFailures();
    const ignore = (): void => undefined;
    const onDamage = (_subject: unknown, id: number): void => void this.damaged.push(id);
    this.delivery = new Delivery(store, main, ignore, onDamage, (subject, learned) =>
      this.lookup.confirm(subject, 0, learned),
    );
    const database = { recent, readsMax: 8, waitMs: TIMEOUT_MS };
    this.lookup = new LookupPath({
      store,
      raft,
      main,
      delivery: this.delivery,
      onProgress: ignore,
      onDamage,
      database,
    });
    const counters = new ShardCounters();
    const peerBatches = new PeerBatches(main, null, counters);
    this.publish = new PublishPath(
      store as MessageStore,
      requests,
      main,
      {
        onSealed: ignore,
        onResolved: (subject, allotment, bytes) => {
          if (bytes !== null) recent.add(subject.ref, allotment.base, allotment.count, bytes);
          this.delivery.resolved(subject, allotment, bytes);
          this.agent.resolved(subject, allotment.base);
          if (subject.awaiting > 0) this.lookup.reached(subject, allotment);
          if (this.lookup.parked > 0) this.lookup.resolved(subject, allotment.base, allotment.count);
        },
        onForgotten: (subject, allotment) => {
          this.delivery.resolved(subject, allotment, null);
          this.agent.resolved(subject, allotment.base);
          if (this.lookup.parked > 0) this.lookup.forgotten(subject, allotment.base, allotment.count);
        },
        onRepeat: ignore,
        onProgress: ignore,
        onFatal: (error) => assert.fail(String(error)),
      },
      counters,
      failures,
      {
        seal: { groupsInFlight: 3, lingerMs: 0, fullBytes: 1 << 20 },
        batchBytes: 1 << 20,
        writesMax,
        databaseTimeoutMs: TIMEOUT_MS,
        isStoreFull: () => false,
        hasRoomFor: () => true,
        logTimeoutMs: TIMEOUT_MS,
      },
    );
    const repeats = new ForeignRepeats({
      store,
      confirm: (subject, id, learned) => this.lookup.confirm(subject, id, learned),
      stored: ignore,
      madeVoid: ignore,
      unknown: ignore,
      onProgress: ignore,
    });
    const fromMainPayload = new RingConsumer(payload);
    const { subjects, delivery, lookup, publish } = this;
    this.drain = new SlotDrain({
      owned: new OwnedSlots(new Uint8Array(1_024).fill(1)),
      store,
      subjects,
      requests,
      lookup,
      delivery,
      failures,
      peerBatches,
      main,
      fromMainPayload,
      onExported: ignore,
      onCancelled: ignore,
    });
    this.agent = new ShardAgent({
      store,
      releases: new ReleaseJobs(store, subjects, requests),
      subjects,
      publish,
      failures,
      lookup,
      delivery,
      peerBatches,
      drain: this.drain,
      requests,
      raft,
      main,
      counters,
      fromMainControl: new RingConsumer(control),
      fromMainPayload,
      fromRaft: new RingConsumer(fromRaft),
      limits: LIMITS,
      onDamage,
      peers: { repeats, timeoutMs: TIMEOUT_MS },
    });
    for (const node of [OWN, 'b', 'c']) {
      this.#apply(node, 2, (view, _bytes, at) => writeNodeStarted(view, at, false));
    }
  }

  // --- what clients do ---

  /** One batch of the stream. */
  add(sequence: number, messages = 1): void {
    const body = Buffer.from(`message ${sequence}`);
    const record = Buffer.from([RECORD_TAG, body.length + 2, BODY_TAG, body.length, ...body]);
    const section = Buffer.concat(Array.from({ length: messages }, () => record));
    const scan = new RecordsScan();
    assert.equal(scan.scan(section, 0, section.length, LIMITS), null);
    const token = StreamToken.make(STREAM, sequence);
    const subject = this.subjects.get(this.ref.bytes, 0, this.ref.bytes.length, this.ref.hash);
    this.publish.gathering.addSection(subject, token, section, 0, section.length, scan, null, sequence, ANY_HEAD);
  }

  subscribe(subscription: number, start: number, value = 0): void {
    this.readers.set(subscription, { next: 0, ids: [], isStarted: false, ended: null });
    const { bytes, hash } = this.ref;
    const at = this.#mainControl.claim(ToShard.SUBSCRIBE, SUBSCRIBE_HEADER + bytes.length);
    const { view } = this.#mainControl;
    view.setFloat64(at, value, true);
    view.setUint32(at + 8, subscription, true);
    view.setUint32(at + 12, 1, true);
    view.setUint32(at + 16, hash, true);
    view.setUint32(at + 20, start, true);
    view.setUint32(at + 24, 1 << 30, true);
    view.setUint32(at + 28, Encoding.MESSAGES, true);
    view.setFloat64(at + 32, 0, true);
    this.#mainControl.bytes.set(bytes, at + SUBSCRIBE_HEADER);
    this.#mainControl.commit();
  }

  unsubscribe(subscription: number): void {
    const at = this.#mainControl.claim(ToShard.UNSUBSCRIBE, 4);
    this.#mainControl.view.setUint32(at, subscription, true);
    this.#mainControl.commit();
  }

  fetch(id: number, call: number): void {
    const { bytes, hash } = this.ref;
    const at = this.#mainControl.claim(ToShard.FETCH, FETCH_HEADER + bytes.length);
    const { view } = this.#mainControl;
    view.setFloat64(at, Number.POSITIVE_INFINITY, true);
    view.setFloat64(at + 8, id, true);
    view.setUint32(at + 16, call, true);
    view.setUint32(at + 20, hash, true);
    this.#mainControl.bytes.set(bytes, at + FETCH_HEADER);
    this.#mainControl.commit();
  }

  watch(token: number): void {
    const at = this.#mainControl.claim(ToShard.WATCH, 4);
    this.#mainControl.view.setUint32(at, token, true);
    this.#mainControl.commit();
  }

  /** All that the shard can do, with what it says taken off its rings. */
  work(): number {
    let done = 0;
    for (let round = this.agent.doWork(); round > 0; round = this.agent.doWork()) done += round;
    // As a tick does with closes that nothing takes along.
    this.requests.send();
    this.agent.doWork();
    return done + this.#takeFromShard();
  }

  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; ) {
      quiet = this.work() === 0 ? quiet + 1 : 0;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  // --- the log ---

  get subject(): number {
    return this.machine.find(this.ref.bytes, 0, this.ref.bytes.length, this.ref.hash);
  }

  get head(): number {
    return this.subject < 0 ? 0 : this.machine.head(this.subject);
  }

  get settled(): number {
    return this.subject < 0 ? 0 : this.machine.settled(this.subject);
  }

  /** The log applies the oldest run of this node. False if there is none. */
  applyOwn(): boolean {
    const run = this.runs.shift();
    if (run === undefined) return false;
    this.#apply(OWN, run.length, (_view, bytes, at) => {
      bytes.set(run, at);
      return at + run.length;
    });
    return true;
  }

  /** Another node is given ids; their base. */
  openForeign(node: string, count: number): number {
    const base = this.head + 1;
    const { bytes: name, hash } = this.ref;
    this.#apply(node, openSize(name.length, false), (view, bytes, at) =>
      writeOpen(view, bytes, at, name, hash, 0, 1, count, 10, 0, -1),
    );
    return base;
  }

  /** The store has what another node was given ids for. */
  storeForeign(base: number, count: number, isVoid = false): void {
    const batch = isVoid
      ? voidBatch(this.ref, base, count, this.time)
      : dataBatch(
          this.ref,
          Array.from({ length: count }, () => plain(`foreign ${base}`)),
          { base, publishedAt: this.time },
        );
    this.#put(batch);
  }

  closeForeign(node: string, base: number, isVoid = false): void {
    const { bytes: name, hash } = this.ref;
    this.#apply(node, closeSize(name.length), (view, bytes, at) =>
      writeClose(view, bytes, at, name, hash, base, isVoid ? AllotVerdict.VOID : AllotVerdict.STORED),
    );
  }

  /** The leader revokes an allotment, whoever has it. */
  revoke(base: number): void {
    const { bytes: name, hash } = this.ref;
    this.#apply('b', closeSize(name.length), (view, bytes, at) => writeRevoke(view, bytes, at, name, hash, base));
  }

  trimForeign(first: number): void {
    const { bytes: name, hash } = this.ref;
    this.#apply('b', closeSize(name.length), (view, bytes, at) => writeTrim(view, bytes, at, name, hash, first));
  }

  verdictOf(id: number): number {
    return this.machine.verdictOf(this.subject, id);
  }

  mark(base: number, count: number): void {
    this.#answer(FromRaft.MARK, MARK_HEADER, true, (view, at) => {
      view.setFloat64(at, base, true);
      view.setFloat64(at + 8, this.time, true);
      view.setUint32(at + 16, count, true);
      view.setUint32(at + 20, 0, true);
      view.setUint32(at + 24, this.ref.hash, true);
    });
  }

  tellBorn(): void {
    this.#answer(FromRaft.BORN, RAFT_BORN_HEADER, true, (view, at) => view.setUint32(at, this.ref.hash, true));
  }

  progress(): void {
    if (!this.isInterested) return;
    this.#answer(FromRaft.PROGRESS, PROGRESS_HEADER, true, (view, at) => {
      view.setFloat64(at, this.subject < 0 ? 1 : this.machine.first(this.subject), true);
      view.setFloat64(at + 8, this.head, true);
      view.setFloat64(at + 16, this.settled, true);
      view.setUint32(at + 24, this.ref.hash, true);
      view.setUint32(at + 28, StateFlag.EXISTS, true);
    });
  }

  answerQueries(): number {
    const { queries } = this;
    this.queries = [];
    for (const { id, counter } of queries) {
      const verdict = id === 0 || this.subject < 0 ? AllotVerdict.UNKNOWN : this.verdictOf(id);
      const isUndecided = verdict === AllotVerdict.OPEN || verdict === AllotVerdict.REVOKED;
      this.#answer(FromRaft.STATE, 32, false, (view, at) => {
        view.setFloat64(at, this.subject < 0 ? 1 : this.machine.first(this.subject), true);
        view.setFloat64(at + 8, this.head, true);
        view.setFloat64(at + 16, this.settled, true);
        view.setUint32(at + 24, counter, true);
        view.setUint32(at + 28, StateFlag.EXISTS | (isUndecided ? StateFlag.UNDECIDED : 0), true);
      });
    }
    return queries.length;
  }

  /** How many groups the store has been given and has not answered. */
  get writing(): number {
    return this.#writes.length;
  }

  /** The store has a group that this shard gave it: the oldest, or that at `place`. False if there is none. */
  writeOwn(place = 0): boolean {
    const [write] = this.#writes.splice(place, 1);
    write?.end();
    return write !== undefined;
  }

  // --- the store ---

  /** What the store has of [from, until]. */
  read(from: number, until: number): ReadResult {
    this.reads += 1;
    const items: StoredItem[] = [];
    for (const batch of [...this.stored.values()].toSorted((a, b) => a.base - b.base)) {
      const to = batch.base + batch.count;
      if (to <= from || batch.base > until) continue;
      items.push(
        batch.kind === 'void'
          ? { kind: 'void', from: batch.base, to }
          : { kind: 'data', from: batch.base, to, base: batch.base, bytes: batch.bytes },
      );
    }
    return { items, next: Math.max(until + 1, items.at(-1)?.to ?? 0) };
  }

  #findTime(ms: number): number | null {
    const late = [...this.stored.values()].filter(({ kind, publishedAt }) => kind === 'data' && publishedAt >= ms);
    return late.length === 0 ? null : Math.min(...late.map(({ base }) => base));
  }

  #append(group: readonly SealedBatch[]): Promise<void> {
    const copies = group.map((batch) => ({ ...batch, bytes: Buffer.from(batch.bytes) }));
    const bases = new Set(copies.map(({ base }) => base));
    for (const write of this.#writes) assert(write.bases.isDisjointFrom(bases), 'one key is in two writes at a time');
    return new Promise((resolve) => {
      const end = (): void => {
        for (const batch of copies) this.#put(batch);
        resolve();
      };
      this.#writes.push({ bases, end });
    });
  }

  /** A mark beats data, whichever comes first. */
  #put(batch: SealedBatch): void {
    if (batch.kind === 'void' || !this.stored.has(batch.base)) this.stored.set(batch.base, batch);
  }

  // --- rings ---

  #apply(node: string, size: number, write: (view: DataView, bytes: Uint8Array, at: number) => number): void {
    const name = Buffer.from(node);
    const bytes = new Uint8Array(originSize(name.length) + size);
    const view = new DataView(bytes.buffer);
    const at = writeOrigin(view, bytes, 0, name, 1, 0);
    assert.equal(write(view, bytes, at), bytes.length);
    this.#index += 1;
    this.machine.apply(this.#index, this.time, bytes, this.#sink);
  }

  #answer(type: number, header: number, hasName: boolean, write: (view: DataView, at: number) => void): void {
    const { bytes } = this.ref;
    const at = this.#raftAnswers.claim(type, header + (hasName ? bytes.length : 0));
    assert(at >= 0, 'the ring is full');
    write(this.#raftAnswers.view, at);
    if (hasName) this.#raftAnswers.bytes.set(bytes, at + header);
    this.#raftAnswers.commit();
  }

  /** As RaftNode and RaftAgent answer. */
  #makeSink(): AllotSink {
    const named = (type: number, id: number): void =>
      this.#answer(type, SUBJECT_ANSWER_HEADER, true, (view, at) => {
        view.setFloat64(at, id, true);
        view.setUint32(at + 8, this.ref.hash, true);
      });
    const closed = (counter: number, isApplied: boolean): void =>
      this.#answer(FromRaft.CLOSED, 8, false, (view, at) => {
        view.setUint32(at, counter, true);
        view.setUint32(at + 4, isApplied ? 1 : 0, true);
      });
    return {
      ...NO_SINK,
      origin: (payload, start, end) => {
        this.#isOwnOrigin = Buffer.from(payload.subarray(start, end)).toString() === OWN;
      },
      opened: (_shard, counter, base, _count, time) => {
        if (!this.#isOwnOrigin) return;
        this.#answer(FromRaft.OPENED, 24, false, (view, at) => {
          view.setFloat64(at, base, true);
          view.setFloat64(at + 8, time, true);
          view.setUint32(at + 16, counter, true);
        });
      },
      openRefused: () => assert.fail('nothing is refused here'),
      partsOpened: () => assert.fail('nobody asks part by part here'),
      producerOpened: () => undefined,
      nodeStarted: () => undefined,
      trimmed: () => undefined,
      verdict: (
        _names: Uint8Array,
        _start: number,
        _end: number,
        _hash: number,
        base: number,
        _count: number,
        verdict: number,
        applied: boolean,
        owner: AllotmentOwner,
      ) => {
        if (verdict === AllotVerdict.REVOKED && applied) named(FromRaft.REVOKED, base);
        const isOver = verdict === AllotVerdict.VOID || verdict === AllotVerdict.SETTLED;
        if (isOver && !applied && this.#isOwnOrigin) named(FromRaft.GONE, base);
        if (owner.node !== this.machine.nodeNumber(Buffer.from(OWN))) return;
        if (verdict === AllotVerdict.STORED && applied) closed(owner.counter, true);
        else if (verdict === AllotVerdict.REVOKED && !applied) closed(owner.counter, false);
      },
    };
  }

  #takeFromShard(): number {
    const { view, bytes } = this.#toRaft;
    let done = this.#toRaft.drain((type, offset, length) => {
      if (type === ToRaft.COMMANDS) this.runs.push(bytes.slice(offset, offset + length));
      else if (type === ToRaft.WATCH) this.isWatching = true;
      else if (type === ToRaft.INTEREST) {
        this.isInterested = view.getUint32(offset + 4, true) === 1;
        this.progress();
      } else {
        assert.equal(type, ToRaft.QUERY);
        assert(length >= QUERY_HEADER);
        this.queries.push({ id: view.getFloat64(offset, true), counter: view.getUint32(offset + 8, true) });
      }
    }, 10_000);
    done += this.#toMainControl.drain((type, offset) => this.#control(type, offset), 10_000);
    done += this.#toMainPayload.drain((type, offset, length) => this.#payload(type, offset, length), 10_000);
    return done;
  }

  #control(type: number, offset: number): void {
    const { view } = this.#toMainControl;
    if (type === ToMain.ACK_ROWS) {
      let id = view.getFloat64(offset, true);
      for (let row = 0; row < view.getUint32(offset + 8, true); row++) {
        this.#answered(view.getUint32(offset + 16 + row * 8, true), id);
        id += view.getUint32(offset + 20 + row * 8, true);
      }
    } else if (type === ToMain.REFUSE) {
      const reason = REASON_NAMES[view.getUint32(offset, true)] as string;
      for (let i = 0; i < view.getUint32(offset + 4, true); i++) {
        this.#answered(view.getUint32(offset + 8 + i * 4, true), reason);
      }
    } else if (type === ToMain.BORN) this.born.push('born');
    else if (type === ToMain.WATCHED) this.watched.push(view.getUint32(offset, true));
    else assert.fail(`record ${type}`);
  }

  #answered(call: number, answer: number | string): void {
    if (!StreamToken.is(call)) {
      assert(!this.fetched.has(call), 'answered twice');
      this.fetched.set(call, String(answer));
      return;
    }
    const sequence = StreamToken.sequence(call);
    assert(!this.answers.has(sequence), `batch ${sequence} is answered twice`);
    this.answers.set(sequence, answer);
  }

  #payload(type: number, offset: number, length: number): void {
    const { view, bytes } = this.#toMainPayload;
    if (type === ToMain.FETCHED) {
      this.fetched.set(view.getUint32(offset, true), 'message');
      return;
    }
    if (type === ToMain.SUBSCRIBED) {
      const reader = this.readers.get(view.getUint32(offset + 8, true)) as Reader;
      const next = view.getFloat64(offset, true);
      assert(next >= reader.next, 'a start moves back');
      reader.next = next;
      reader.isStarted = true;
      return;
    }
    if (type === ToMain.UNSUBSCRIBED) {
      const reader = this.readers.get(view.getUint32(offset, true)) as Reader;
      reader.ended = REASON_NAMES[view.getUint32(offset + 4, true)] as string;
      return;
    }
    const run = takeRun(bytes, view, offset, length);
    assert(run.to - 1 <= this.settled, 'an id is delivered before the log has settled it');
    if (type === ToMain.READER_RUN) {
      const reader = this.readers.get(run.target) as Reader;
      assert(run.from <= reader.next, `a run from ${run.from} does not continue at ${reader.next}`);
      this.#give(reader, run);
      return;
    }
    assert.equal(type, ToMain.GROUP_RUN);
    // Who stands before the run reads the store.
    for (const reader of this.readers.values()) if (run.from <= reader.next) this.#give(reader, run);
  }

  #give(reader: Reader, run: { readonly to: number; readonly ids: Float64Array }): void {
    if (!reader.isStarted) return;
    for (const id of run.ids) if (id >= reader.next) reader.ids.push(id);
    reader.next = Math.max(reader.next, run.to);
  }
}
