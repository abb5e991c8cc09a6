import { assert } from '../../base/assert.ts';
import { REASON_NAMES, type Reason } from '../../base/errors.ts';
import { type RecordLimits, RecordsScan } from '../../batch/records-scan.ts';
import { PublishScan, type ScanLimits, scanPublish } from '../../grpc/codec.ts';
import type { RingConsumer } from '../../shm/ring-consumer.ts';
import type { MessageStore } from '../../storage/store.ts';
import {
  BatchFlag,
  DRAIN_HEADER,
  FETCH_HEADER,
  FromRaft,
  INFO_HEADER,
  MARK_HEADER,
  OPEN_PRODUCER_HEADER,
  PEERS_HEADER,
  POSITIONS_HEADER,
  PROGRESS_HEADER,
  PUBLISH_BATCH_HEADER,
  PUBLISH_HEADER,
  RAFT_BORN_HEADER,
  StateFlag,
  SUBSCRIBE_HEADER,
  ToShard,
  TRACE_BYTES,
  TRIM_HEADER,
} from '../link.ts';
import { readCallTrace } from '../tracing/shard-traces.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { Delivery } from './delivery.ts';
import type { ForeignRepeats } from './foreign-repeats.ts';
import type { LookupPath } from './lookup-path.ts';
import type { MainPort } from './main-port.ts';
import { RingPartAnswers } from './part-answers.ts';
import type { PeerBatches } from './peer-batches.ts';
import type { PublishPath } from './publish-path.ts';
import { Pending, type RaftClient } from './raft-client.ts';
import type { ReleaseJobs } from './release-job.ts';
import type { ShardCounters } from './shard-counters.ts';
import type { SlotDrain } from './slot-drain.ts';
import type { StreamFailures } from './stream-failures.ts';
import type { ActiveSubject, ActiveSubjects } from './subjects.ts';

/** Records taken from one ring in one round, so that no ring starves another. */
const RECORDS_A_ROUND = 512;
/** Between two looks at whether enough waits: batches are up to a megabyte. */
const PUBLISHES_AT_ONCE = 64;
const CONTROL_RECORDS_AT_ONCE = 16;

export interface ShardParts {
  readonly store: MessageStore;
  readonly releases: ReleaseJobs;
  readonly subjects: ActiveSubjects;
  readonly publish: PublishPath;
  readonly failures: StreamFailures;
  readonly lookup: LookupPath;
  readonly delivery: Delivery;
  readonly peerBatches: PeerBatches;
  readonly drain: SlotDrain;
  readonly requests: AllotRequests;
  readonly raft: RaftClient;
  readonly main: MainPort;
  readonly counters: ShardCounters;
  readonly fromMainControl: RingConsumer;
  readonly fromMainPayload: RingConsumer;
  readonly fromRaft: RingConsumer;
  readonly limits: ScanLimits & RecordLimits;
  readonly onDamage: (subject: ActiveSubject, id: number) => void;
  /** Null: this node is alone. */
  readonly peers: ShardPeers | null;
}

/** What there is with other nodes only. */
export interface ShardPeers {
  readonly repeats: ForeignRepeats;
  /** How long the log may take for an answer, in ms: without a quorum it has none. */
  readonly timeoutMs: number;
}

/** One shard's loop: takes records off its rings, moves every path on, and rings each neighbour at most once a round. */
export class ShardAgent {
  readonly #parts: ShardParts;
  readonly #scan = new PublishScan();
  readonly #records = new RecordsScan();
  /** Calls that wait for the last sequence of a producer. */
  readonly #producers = new Pending<{ readonly call: number; readonly since: number }>();
  /** Subjects with calls that wait for a trim; with peers. */
  readonly #trimming = new Set<ActiveSubject>();
  readonly #partAnswers: RingPartAnswers;
  readonly #onControl = (type: number, offset: number, length: number): void => this.#control(type, offset, length);
  readonly #onPublish = (type: number, offset: number, length: number): void => this.#payload(type, offset, length);
  readonly #onRaft = (type: number, offset: number, length: number): void => this.#raftAnswer(type, offset, length);
  #now = 0;
  /** Patterns are waited for: the main thread wants to know of new subjects. */
  #isWatched = false;
  /** Ids of new subjects begin behind it. */
  #floor = 0;

  constructor(parts: ShardParts) {
    this.#parts = parts;
    this.#partAnswers = new RingPartAnswers(parts.fromRaft.view);
    this.#records.wantsTraces = parts.main.traces !== null;
  }

  /** Nobody waits for an answer of the log that only this loop knows of. */
  get idle(): boolean {
    return this.#producers.size === 0;
  }

  /** One round. Returns the number of things done; 0 means that the thread may sleep. */
  doWork(): number {
    const { publish, lookup, delivery, drain, main, raft, fromRaft, fromMainPayload, counters } = this.#parts;
    this.#now = Date.now();
    let done = fromRaft.drain(this.#onRaft, RECORDS_A_ROUND);
    // What this thread says must be heard before it takes in more: that bounds what can wait here.
    if (!main.blocked && !raft.blocked) {
      done += this.#drainControl();
      if (!publish.full) {
        counters.queueBytes(fromMainPayload.usedBytes());
        done += this.#drainPublishes();
      }
    }
    done += publish.work();
    done += lookup.work();
    done += delivery.work();
    done += drain.work();
    main.flush();
    raft.flush();
    return done;
  }

  /** Ids of the subject got their first verdict: if they are its first, it is new. */
  resolved(subject: ActiveSubject, base: number): void {
    if (this.#isWatched && (base === 1 || base === this.#floor + 1)) this.#parts.main.born(subject.ref);
  }

  /** Coarse work, about every 20 ms while anything is parked or blocked. */
  tick(): void {
    const { lookup, requests, subjects, releases } = this.#parts;
    releases.tick();
    lookup.expire(Date.now());
    requests.maybeSendCloses(performance.now());
    subjects.maybeForgetIdle();
  }

  /** Coarse work, about once a second, with peers: nobody waits for the log without an end. `now` in ms of performance.now(). */
  sweep(now: number): void {
    const { publish, lookup, main, peers } = this.#parts;
    if (peers === null) return;
    const { timeoutMs, repeats } = peers;
    publish.expire(now);
    repeats.sweep(now, timeoutMs);
    lookup.sweep(now, timeoutMs);
    for (const { call } of this.#producers.takeThose(({ since }) => now - since >= timeoutMs)) {
      main.refuse(call, 'OUTCOME_UNKNOWN');
    }
    for (const { trims } of this.#trimming) {
      while (trims[0] !== undefined && now - trims[0].since >= timeoutMs) {
        main.refuse(trims[0].call, 'OUTCOME_UNKNOWN');
        trims.shift();
      }
    }
    for (const subject of this.#trimming) if (subject.trims.length === 0) this.#trimming.delete(subject);
  }

  /** A few at a time: one fetch may answer with a whole message, and what the ring to main cannot take waits in memory. */
  #drainControl(): number {
    const { fromMainControl, main } = this.#parts;
    let done = 0;
    while (done < RECORDS_A_ROUND && !main.blocked) {
      const drained = fromMainControl.drain(this.#onControl, CONTROL_RECORDS_AT_ONCE);
      done += drained;
      if (drained === 0) break;
    }
    return done;
  }

  #drainPublishes(): number {
    const { fromMainPayload, publish } = this.#parts;
    let done = 0;
    while (done < RECORDS_A_ROUND && !publish.full) {
      const drained = fromMainPayload.drain(this.#onPublish, PUBLISHES_AT_ONCE);
      done += drained;
      if (drained === 0) break;
    }
    return done;
  }

  #payload(type: number, offset: number, length: number): void {
    switch (type) {
      case ToShard.PUBLISH:
        this.#publish(offset, length);
        return;
      case ToShard.PUBLISH_BATCH:
        this.#publishBatch(offset, length);
        return;
      case ToShard.PEER_BATCH: {
        const { bytes, view } = this.#parts.fromMainPayload;
        this.#parts.peerBatches.came(bytes, view, offset, length);
        return;
      }
      case ToShard.STREAM_ENDED:
        this.#parts.failures.streamEnded(this.#parts.fromMainPayload.view.getUint32(offset, true));
        return;
      default:
        assert(false, () => `unknown record ${type} on the payload ring`);
    }
  }

  #publish(offset: number, length: number): void {
    const { fromMainPayload, subjects, publish, main, counters, limits } = this.#parts;
    const { bytes, view } = fromMainPayload;
    const deadline = view.getFloat64(offset, true);
    const call = view.getUint32(offset + 16, true);
    counters.queueWait(performance.now() - view.getFloat64(offset + 8, true));
    if (deadline <= this.#now) {
      main.refuse(call, 'DEADLINE_PASSED');
      return;
    }
    const traceBytes = view.getUint32(offset + 28, true);
    const frame = offset + PUBLISH_HEADER + traceBytes;
    const fault = scanPublish(bytes, frame, offset + length, this.#scan, limits) ?? publish.refusal;
    const hash = view.getUint32(offset + 20, true);
    if (fault !== null) {
      main.refuse(call, fault);
      if (traceBytes > 0) this.#traceRefusal(offset, fault);
      return;
    }
    const subject = subjects.get(bytes, this.#scan.subjectStart, this.#scan.subjectEnd, hash);
    publish.gathering.isSourceBusy = view.getUint32(offset + 24, true) === 1;
    const batch = publish.gathering.add(subject, call, bytes, this.#scan, deadline);
    const { traces } = main;
    if (traces === null || (traceBytes === 0 && this.#scan.headerCount === 0)) return;
    const given = readCallTrace(bytes, view, offset + PUBLISH_HEADER, traceBytes);
    const trace = traces.ofPublish(call, view.getFloat64(offset + 8, true), given, bytes, this.#scan);
    if (trace !== null) batch.trace(trace);
  }

  /** Of a unary publish that was traced from the start, and refused before it was in a batch. */
  #traceRefusal(offset: number, fault: Reason): void {
    const { traces } = this.#parts.main;
    const { bytes, view } = this.#parts.fromMainPayload;
    const given = readCallTrace(bytes, view, offset + PUBLISH_HEADER, TRACE_BYTES);
    if (traces === null || given === null) return;
    const { subjectStart, subjectEnd } = this.#scan;
    const subject = { bytes: bytes.subarray(subjectStart, subjectEnd), hash: view.getUint32(offset + 20, true) };
    traces.refusedAtOnce(view.getUint32(offset + 16, true), view.getFloat64(offset + 8, true), given, subject, fault);
  }

  #publishBatch(offset: number, length: number): void {
    const { fromMainPayload, subjects, publish, failures, main, counters, limits } = this.#parts;
    const { bytes, view } = fromMainPayload;
    const sequence = view.getFloat64(offset + 8, true);
    const token = view.getUint32(offset + 24, true);
    counters.queueWait(performance.now() - view.getFloat64(offset, true));
    const flags = view.getUint8(offset + 35);
    const traceBytes = (flags & BatchFlag.TRACED) === 0 ? 0 : TRACE_BYTES;
    const subjectStart = offset + PUBLISH_BATCH_HEADER + traceBytes;
    const subjectEnd = subjectStart + view.getUint8(offset + 32);
    const producerEnd = subjectEnd + view.getUint8(offset + 33);
    const subject = subjects.get(bytes, subjectStart, subjectEnd, view.getUint32(offset + 28, true));
    // Order comes before everything else: also before a fault, which is told when it is its turn.
    if (failures.isBehind(subject, token, sequence)) {
      main.refuse(token, 'PREDECESSOR_FAILED');
      return;
    }
    failures.cameAgain(subject, token);
    const fault =
      (flags & BatchFlag.OVER_QUOTA) !== 0
        ? 'QUOTA_EXCEEDED'
        : (this.#records.scan(bytes, producerEnd, offset + length, limits) ?? publish.refusal);
    if (fault !== null) {
      failures.note(subject, token, sequence, fault);
      main.refuse(token, fault);
      return;
    }
    const producer = producerEnd > subjectEnd ? Buffer.from(bytes.subarray(subjectEnd, producerEnd)) : null;
    publish.gathering.isSourceBusy = view.getUint8(offset + 34) === 1;
    const batch = publish.gathering.addSection(
      subject,
      token,
      bytes,
      producerEnd,
      offset + length,
      this.#records,
      producer,
      sequence,
      view.getFloat64(offset + 16, true),
    );
    const { traces } = main;
    if (traces === null || (traceBytes === 0 && this.#records.traces.length === 0)) return;
    const given = readCallTrace(bytes, view, offset + PUBLISH_BATCH_HEADER, traceBytes);
    const trace = traces.ofBatch(token, view.getFloat64(offset, true), given, this.#records.traces);
    if (trace !== null) batch.trace(trace);
  }

  #control(type: number, offset: number, length: number): void {
    const { fromMainControl, subjects, publish, lookup, delivery, main, requests } = this.#parts;
    const { bytes, view } = fromMainControl;
    const end = offset + length;
    switch (type) {
      case ToShard.FETCH:
      case ToShard.INCREMENT: {
        const deadline = view.getFloat64(offset, true);
        const call = view.getUint32(offset + 16, true);
        if (deadline <= this.#now) {
          main.refuse(call, 'DEADLINE_PASSED');
          return;
        }
        const subject = subjects.get(bytes, offset + FETCH_HEADER, end, view.getUint32(offset + 20, true));
        if (type === ToShard.FETCH) {
          lookup.fetch(subject, view.getFloat64(offset + 8, true), call, deadline);
          return;
        }
        const { incrementRefusal } = publish;
        if (incrementRefusal === null) publish.increment(subject, call);
        else main.refuse(call, incrementRefusal);
        return;
      }
      case ToShard.SUBSCRIBE: {
        const subject = subjects.get(bytes, offset + SUBSCRIBE_HEADER, end, view.getUint32(offset + 16, true));
        lookup.subscribe(subject, {
          value: view.getFloat64(offset, true),
          subscription: view.getUint32(offset + 8, true),
          group: view.getUint32(offset + 12, true),
          start: view.getUint32(offset + 20, true),
          credit: view.getUint32(offset + 24, true),
          encoding: view.getUint32(offset + 28, true),
          from: view.getFloat64(offset + 32, true),
        });
        return;
      }
      case ToShard.CREDIT:
        delivery.credit(
          view.getUint32(offset + 8, true),
          view.getUint32(offset + 16, true),
          view.getFloat64(offset, true),
          view.getUint32(offset + 12, true),
        );
        return;
      case ToShard.UNSUBSCRIBE: {
        const subscription = view.getUint32(offset, true);
        lookup.unsubscribe(subscription);
        delivery.leave(subscription);
        return;
      }
      case ToShard.TRIM: {
        const subject = subjects.get(bytes, offset + TRIM_HEADER, end, view.getUint32(offset + 12, true));
        subject.trims.push({ call: view.getUint32(offset + 8, true), since: performance.now() });
        if (subject.isShared) this.#trimming.add(subject);
        requests.trim(subject, view.getFloat64(offset, true));
        return;
      }
      case ToShard.INFO:
        lookup.info(
          subjects.get(bytes, offset + INFO_HEADER, end, view.getUint32(offset + 4, true)),
          view.getUint32(offset, true),
        );
        return;
      case ToShard.OPEN_PRODUCER: {
        const name = bytes.subarray(offset + OPEN_PRODUCER_HEADER, end);
        const mayBeNew = view.getUint32(offset + 4, true) === 1;
        this.#producers.set(requests.openProducer(name, mayBeNew), {
          call: view.getUint32(offset, true),
          since: performance.now(),
        });
        return;
      }
      case ToShard.WATCH:
        this.#watch(view.getUint32(offset, true));
        return;
      case ToShard.POSITIONS: {
        const count = view.getUint32(offset + 4, true);
        const positions = Array.from({ length: count }, (_, i) => {
          const subscription = view.getUint32(offset + POSITIONS_HEADER + i * 4, true);
          return delivery.positionOf(subscription) ?? lookup.positionOf(subscription);
        });
        main.positions(view.getUint32(offset, true), positions);
        return;
      }
      case ToShard.PEERS: {
        const subject = bytes.subarray(offset + PEERS_HEADER, end);
        this.#parts.peerBatches.want(subject, view.getUint32(offset, true), view.getUint32(offset + 4, true) === 1);
        return;
      }
      case ToShard.DRAIN: {
        const count = view.getUint32(offset + 8, true);
        const slots = Array.from({ length: count }, (_, i) => view.getUint16(offset + DRAIN_HEADER + i * 2, true));
        this.#parts.drain.begin(view.getUint32(offset, true), slots, view.getUint32(offset + 4, true));
        return;
      }
      default:
        assert(false, () => `unknown record ${type} on the control ring`);
    }
  }

  #raftAnswer(type: number, offset: number, length: number): void {
    const { fromRaft, publish, lookup, subjects, main } = this.#parts;
    const { bytes, view } = fromRaft;
    switch (type) {
      case FromRaft.OPENED:
        publish.opened(
          view.getUint32(offset + 16, true),
          view.getFloat64(offset, true),
          view.getFloat64(offset + 8, true),
        );
        return;
      case FromRaft.TRACED:
        publish.logged(view.getUint32(offset + 24, true), {
          receivedAt: view.getFloat64(offset, true),
          submittedAt: view.getFloat64(offset + 8, true),
          appliedAt: view.getFloat64(offset + 16, true),
          isLeader: view.getUint32(offset + 28, true) === 1,
        });
        return;
      case FromRaft.FLOOR:
        this.#floor = view.getFloat64(offset, true);
        return;
      case FromRaft.REFUSED: {
        const counter = view.getUint32(offset, true);
        const reasonCode = view.getUint32(offset + 4, true);
        const waiting = this.#producers.take(counter);
        if (waiting === null) publish.refused(counter, reasonCode);
        else main.refuse(waiting.call, REASON_NAMES[reasonCode] as Reason);
        return;
      }
      case FromRaft.PRODUCER: {
        const waiting = this.#producers.take(view.getUint32(offset + 8, true));
        if (waiting !== null) main.producer(waiting.call, view.getFloat64(offset, true));
        return;
      }
      case FromRaft.OPENED_PARTS: {
        const counter = view.getUint32(offset + 16, true);
        this.#partAnswers.wrap(offset);
        publish.openedParts(
          counter,
          view.getFloat64(offset, true),
          view.getFloat64(offset + 8, true),
          this.#partAnswers,
        );
        return;
      }
      case FromRaft.REVOKED: {
        const subject = subjects.get(bytes, offset + 16, offset + length, view.getUint32(offset + 8, true));
        publish.revoked(subject, view.getFloat64(offset, true));
        return;
      }
      case FromRaft.GONE: {
        const subject = subjects.get(bytes, offset + 16, offset + length, view.getUint32(offset + 8, true));
        publish.gone(subject, view.getFloat64(offset, true));
        return;
      }
      case FromRaft.CLOSED:
        publish.closed(view.getUint32(offset, true), view.getUint32(offset + 4, true) === 1);
        return;
      case FromRaft.TRIMMED: {
        const subject = subjects.get(bytes, offset + 16, offset + length, view.getUint32(offset + 8, true));
        this.#trimmed(subject, view.getFloat64(offset, true));
        return;
      }
      case FromRaft.PROGRESS:
        this.#progress(offset, length);
        return;
      case FromRaft.MARK: {
        const subject = subjects.get(bytes, offset + MARK_HEADER, offset + length, view.getUint32(offset + 24, true));
        publish.markForeign(
          subject,
          { base: view.getFloat64(offset, true), count: view.getUint32(offset + 16, true) },
          { publishedAt: view.getFloat64(offset + 8, true), expiresMax: view.getUint32(offset + 20, true) },
        );
        return;
      }
      case FromRaft.BORN: {
        const name = bytes.subarray(offset + RAFT_BORN_HEADER, offset + length);
        main.born({ bytes: name, hash: view.getUint32(offset, true) });
        return;
      }
      case FromRaft.MISSING:
        this.#parts.onDamage(
          subjects.get(bytes, offset + 16, offset + length, view.getUint32(offset + 8, true)),
          view.getFloat64(offset, true),
        );
        return;
      case FromRaft.STATE: {
        const flags = view.getUint32(offset + 28, true);
        lookup.answered(view.getUint32(offset + 24, true), {
          first: view.getFloat64(offset, true),
          head: view.getFloat64(offset + 8, true),
          settled: view.getFloat64(offset + 16, true),
          exists: (flags & StateFlag.EXISTS) !== 0,
          everExpires: (flags & StateFlag.EVER_EXPIRES) !== 0,
          undecided: (flags & StateFlag.UNDECIDED) !== 0,
          isVoid: (flags & StateFlag.VOID) !== 0,
        });
        return;
      }
      default:
        assert(false, () => `unknown record ${type} from the Raft thread`);
    }
  }

  /** With peers, subjects are born on other nodes too: the Raft thread tells of all, from when it has read this. */
  #watch(token: number): void {
    const { raft, lookup, main, peers } = this.#parts;
    if (peers === null) {
      this.#isWatched = true;
      main.watched(token);
      return;
    }
    raft.watch();
    lookup.barrier(() => main.watched(token));
  }

  /** The log has moved on with a subject, whichever nodes' allotments that concerns. */
  #progress(offset: number, length: number): void {
    const { fromRaft, subjects, delivery, lookup, peers } = this.#parts;
    const { bytes, view } = fromRaft;
    const hash = view.getUint32(offset + 24, true);
    const subject = subjects.find(bytes, offset + PROGRESS_HEADER, offset + length, hash);
    // It was let go of while this was on its way.
    if (subject === null) return;
    subject.learn({
      first: view.getFloat64(offset, true),
      head: view.getFloat64(offset + 8, true),
      settled: view.getFloat64(offset + 16, true),
      everExpires: (view.getUint32(offset + 28, true) & StateFlag.EVER_EXPIRES) !== 0,
    });
    delivery.progressed(subject);
    lookup.progressed(subject);
    peers?.repeats.progressed(subject);
  }

  /** The log has moved the first id of the subject; the store follows. */
  #trimmed(subject: ActiveSubject, first: number): void {
    const { store, main, releases } = this.#parts;
    subject.first = Math.max(subject.first, first);
    if (first > 0) void store.trim(subject.ref, first);
    releases.trimmed(subject, first);
    for (const { call } of subject.trims.splice(0)) {
      if (first > 0) main.ack(call, first);
      else main.refuse(call, 'SUBJECT_NOT_FOUND');
    }
  }
}
