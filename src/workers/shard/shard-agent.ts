import { assert } from '../../base/assert.ts';
import { REASON_NAMES, type Reason } from '../../base/errors.ts';
import { type RecordLimits, RecordsScan } from '../../batch/records-scan.ts';
import { PublishScan, type ScanLimits, scanPublish } from '../../grpc/codec.ts';
import type { RingConsumer } from '../../shm/ring-consumer.ts';
import type { MessageStore } from '../../storage/store.ts';
import {
  DRAIN_HEADER,
  FETCH_HEADER,
  FromRaft,
  INFO_HEADER,
  OPEN_PRODUCER_HEADER,
  POSITIONS_HEADER,
  PUBLISH_BATCH_HEADER,
  PUBLISH_HEADER,
  StateFlag,
  SUBSCRIBE_HEADER,
  ToShard,
  TRIM_HEADER,
} from '../link.ts';
import type { AllotRequests } from './allot-requests.ts';
import type { Delivery } from './delivery.ts';
import type { LookupPath } from './lookup-path.ts';
import type { MainPort } from './main-port.ts';
import { RingPartAnswers } from './part-answers.ts';
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
}

/** One shard's loop: takes records off its rings, moves every path on, and rings each neighbour at most once a round. */
export class ShardAgent {
  readonly #parts: ShardParts;
  readonly #scan = new PublishScan();
  readonly #records = new RecordsScan();
  /** Calls that wait for the last sequence of a producer. */
  readonly #producers = new Pending<number>();
  readonly #partAnswers: RingPartAnswers;
  readonly #onControl = (type: number, offset: number, length: number): void => this.#control(type, offset, length);
  readonly #onPublish = (type: number, offset: number, length: number): void => this.#payload(type, offset, length);
  readonly #onRaft = (type: number, offset: number, length: number): void => this.#raftAnswer(type, offset, length);
  #now = 0;
  /** Patterns are waited for: the main thread wants to know of new subjects. */
  #isWatched = false;

  constructor(parts: ShardParts) {
    this.#parts = parts;
    this.#partAnswers = new RingPartAnswers(parts.fromRaft.view);
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
    if (this.#isWatched && base === 1) this.#parts.main.born(subject.ref);
  }

  /** Coarse work, about every 20 ms while anything is parked or blocked. */
  tick(): void {
    const { lookup, requests, subjects, releases } = this.#parts;
    releases.tick();
    lookup.expire(Date.now());
    requests.maybeSendCloses(performance.now());
    subjects.maybeForgetIdle();
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
    const frame = offset + PUBLISH_HEADER;
    const fault = scanPublish(bytes, frame, offset + length, this.#scan, limits) ?? publish.refusal;
    if (fault !== null) {
      main.refuse(call, fault);
      return;
    }
    const hash = view.getUint32(offset + 20, true);
    const subject = subjects.get(bytes, this.#scan.subjectStart, this.#scan.subjectEnd, hash);
    publish.gathering.isSourceBusy = view.getUint32(offset + 24, true) === 1;
    publish.gathering.add(subject, call, bytes, this.#scan, deadline);
  }

  #publishBatch(offset: number, length: number): void {
    const { fromMainPayload, subjects, publish, failures, main, counters, limits } = this.#parts;
    const { bytes, view } = fromMainPayload;
    const sequence = view.getFloat64(offset + 8, true);
    const token = view.getUint32(offset + 24, true);
    counters.queueWait(performance.now() - view.getFloat64(offset, true));
    const subjectStart = offset + PUBLISH_BATCH_HEADER;
    const subjectEnd = subjectStart + view.getUint8(offset + 32);
    const producerEnd = subjectEnd + view.getUint8(offset + 33);
    const subject = subjects.get(bytes, subjectStart, subjectEnd, view.getUint32(offset + 28, true));
    // Order comes before everything else: also before a fault, which is told when it is its turn.
    if (failures.isBehind(subject, token, sequence)) {
      main.refuse(token, 'PREDECESSOR_FAILED');
      return;
    }
    failures.cameAgain(subject, token);
    const fault = this.#records.scan(bytes, producerEnd, offset + length, limits) ?? publish.refusal;
    if (fault !== null) {
      failures.note(subject, token, sequence, fault);
      main.refuse(token, fault);
      return;
    }
    const producer = producerEnd > subjectEnd ? Buffer.from(bytes.subarray(subjectEnd, producerEnd)) : null;
    publish.gathering.isSourceBusy = view.getUint8(offset + 34) === 1;
    publish.gathering.addSection(
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
        subject.trims.push(view.getUint32(offset + 8, true));
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
        this.#producers.set(requests.openProducer(name, mayBeNew), view.getUint32(offset, true));
        return;
      }
      case ToShard.WATCH:
        this.#isWatched = true;
        main.watched(view.getUint32(offset, true));
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
      case FromRaft.REFUSED: {
        const counter = view.getUint32(offset, true);
        const reasonCode = view.getUint32(offset + 4, true);
        const call = this.#producers.take(counter);
        if (call === null) publish.refused(counter, reasonCode);
        else main.refuse(call, REASON_NAMES[reasonCode] as Reason);
        return;
      }
      case FromRaft.PRODUCER: {
        const call = this.#producers.take(view.getUint32(offset + 8, true));
        if (call !== null) main.producer(call, view.getFloat64(offset, true));
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
        });
        return;
      }
      default:
        assert(false, () => `unknown record ${type} from the Raft thread`);
    }
  }

  /** The log has moved the first id of the subject; the store follows. */
  #trimmed(subject: ActiveSubject, first: number): void {
    const { store, main, releases } = this.#parts;
    subject.first = Math.max(subject.first, first);
    if (first > 0) void store.trim(subject.ref, first);
    releases.trimmed(subject, first);
    for (const call of subject.trims.splice(0)) {
      if (first > 0) main.ack(call, first);
      else main.refuse(call, 'SUBJECT_NOT_FOUND');
    }
  }
}
