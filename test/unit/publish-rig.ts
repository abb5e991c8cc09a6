/** The publish path of a shard over real rings, with a database. */
import assert from 'node:assert/strict';
import { Kind, OPEN_HEADER } from '../../src/allot/commands.ts';
import { AllotVerdict } from '../../src/allot/verdicts.ts';
import { BrokerError, REASON_NAMES, type Reason } from '../../src/base/errors.ts';
import { BODY_TAG, RECORD_TAG } from '../../src/batch/batch-format.ts';
import { RecordsScan } from '../../src/batch/records-scan.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { RingConsumer } from '../../src/shm/ring-consumer.ts';
import type { MessageStore, SealedBatch, Stored } from '../../src/storage/store.ts';
import { RAFT_RING_BYTES, StreamToken, ToMain, ToRaft } from '../../src/workers/link.ts';
import { AllotRequests } from '../../src/workers/shard/allot-requests.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { ANY_HEAD } from '../../src/workers/shard/open-batch.ts';
import { PeerBatches } from '../../src/workers/shard/peer-batches.ts';
import { PublishPath } from '../../src/workers/shard/publish-path.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { StreamFailures } from '../../src/workers/shard/stream-failures.ts';
import { type ActiveSubject, ActiveSubjects } from '../../src/workers/shard/subjects.ts';
import { subjectRef } from './batch-support.ts';

export const SUBJECT = subjectRef('publish.test');
const STREAM = 5;
export const LOG_TIME = 1_700_000_000_000;
const SEAL = { groupsInFlight: 3, lingerMs: 0, fullBytes: 1 << 20 };
const LIMITS = { bodyBytes: 1 << 20, headersBytes: 1 << 16, headersCount: 64, records: 1_000 };

/** What the log is asked for. */
export type Command =
  | { readonly kind: 'open'; readonly counter: number; readonly count: number }
  | { readonly kind: 'stored' | 'void' | 'revoke'; readonly base: number };

export interface Answer {
  readonly sequence: number;
  /** The first id, or why there is none. */
  readonly answer: number | Reason;
}

/** The publish path between the main thread's and the Raft thread's ends of its rings; writes end when the test says so. */
export class PublishRig {
  readonly #main: MainPort;
  readonly #raft: RaftClient;
  readonly #toMain: RingConsumer;
  readonly #toRaft: RingConsumer;
  readonly #writes: { readonly group: readonly SealedBatch[]; readonly end: PromiseWithResolvers<void> }[] = [];
  readonly failures = new StreamFailures();
  readonly requests: AllotRequests;
  readonly subjects: ActiveSubjects;
  readonly subject: ActiveSubject;
  readonly publish: PublishPath;
  /** Groups that the store was given, in order. */
  readonly groups: (readonly SealedBatch[])[] = [];
  /** What the store says when it is asked what it has under a key. */
  readonly lookups: Promise<Stored>[] = [];
  /** Bases that got their verdict here, with what it was. */
  readonly resolved: (readonly [base: number, isStored: boolean])[] = [];
  /** By base: what the store has. A mark beats data, whichever comes first. */
  readonly stored = new Map<number, 'data' | 'void'>();
  refusal: Reason | null = null;
  /** What the store says of the batches to come, before they ask for ids. */
  readonly rooms: boolean[] = [];
  writeFailures = 0;
  onFatal: (error: unknown) => void = (error) => assert.fail(String(error));
  readonly #payload: RingConsumer;

  /** `logTimeoutMs`: with peers, how long the log may take; null: the node is alone. `writesMax`: groups that the store is given at a time. */
  constructor(logTimeoutMs: number | null = null, writesMax = 1) {
    this.subjects = new ActiveSubjects(logTimeoutMs !== null);
    const [toMain, toRaft] = [createRing(1 << 16), createRing(RAFT_RING_BYTES)];
    const payload = createRing(1 << 16);
    this.#payload = new RingConsumer(payload);
    this.#main = new MainPort(toMain, payload, createDoorbell());
    const peers = new PeerBatches(this.#main, null, { peerBatch: () => undefined, peerBatchCame: () => undefined });
    peers.want(SUBJECT.bytes, SUBJECT.hash, true);
    this.#raft = new RaftClient(toRaft, createDoorbell(), 0);
    this.#toMain = new RingConsumer(toMain);
    this.#toRaft = new RingConsumer(toRaft);
    this.requests = new AllotRequests(this.#raft, 0);
    this.subject = this.subjects.get(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
    const append = (group: readonly SealedBatch[]): Promise<void> => {
      this.groups.push(group.map((batch) => ({ ...batch, bytes: Buffer.from(batch.bytes) })));
      const end = Promise.withResolvers<void>();
      const bases = new Set(group.map(({ base }) => base));
      const isMet = this.#writes.some((write) => write.group.some(({ base }) => bases.has(base)));
      assert(!isMet, 'one key is in two writes at a time');
      this.#writes.push({ group: [...group], end });
      return end.promise;
    };
    this.publish = new PublishPath(
      { append, lookup: () => this.lookups.shift() ?? assert.fail('nobody asked for this') } as unknown as MessageStore,
      this.requests,
      this.#main,
      {
        onSealed: () => undefined,
        onResolved: ({ ref }, allotment, bytes) => {
          this.resolved.push([allotment.base, bytes !== null]);
          peers.resolved(ref, allotment, bytes);
        },
        onForgotten: ({ ref }, allotment) => {
          this.resolved.push([allotment.base, false]);
          peers.resolved(ref, allotment, null);
        },
        onRepeat: () => undefined,
        onProgress: () => undefined,
        onFatal: (error) => this.onFatal(error),
      },
      {
        onGroup: () => undefined,
        onWritten: () => undefined,
        writeFailed: () => {
          this.writeFailures += 1;
        },
        storeRefuses: (reason) => {
          this.refusal = reason;
        },
      },
      this.failures,
      {
        seal: SEAL,
        batchBytes: 1 << 20,
        writesMax,
        databaseTimeoutMs: 1_000,
        isStoreFull: () => false,
        hasRoomFor: () => this.rooms.shift() ?? true,
        logTimeoutMs,
      },
    );
  }

  /** One batch of the stream, with one message. `expectedHead`: then it shares its ids with no other. */
  add(sequence: number, expectedHead = ANY_HEAD): void {
    const body = Buffer.from(`message ${sequence}`);
    const section = Buffer.from([RECORD_TAG, body.length + 2, BODY_TAG, body.length, ...body]);
    const scan = new RecordsScan();
    assert.equal(scan.scan(section, 0, section.length, LIMITS), null);
    const token = this.tokenOf(sequence);
    const { gathering } = this.publish;
    gathering.addSection(this.subject, token, section, 0, section.length, scan, null, sequence, expectedHead);
  }

  /** Batches in groups of their own that have their ids, the first of which is being written. Answers their counters. */
  open(...sequences: readonly number[]): number[] {
    return sequences.map((sequence, i) => {
      this.add(sequence);
      const [command] = this.work();
      assert.equal(command?.kind, 'open');
      this.publish.opened(command.counter, i + 1, LOG_TIME);
      return command.counter;
    });
  }

  /** Everything that can be done is done. What the log was asked for meanwhile. */
  work(): Command[] {
    while (this.publish.work() > 0);
    // As a tick does with closes that nothing takes along.
    this.requests.send();
    this.#raft.flush();
    this.#main.flush();
    const found: Command[] = [];
    const { view } = this.#toRaft;
    this.#toRaft.drain((type, offset, length) => {
      assert.equal(type, ToRaft.COMMANDS);
      for (let at = offset; at < offset + length; ) {
        const kind = view.getUint8(at);
        if (kind === Kind.OPEN) {
          found.push({ kind: 'open', counter: view.getUint32(at + 12, true), count: view.getUint32(at + 16, true) });
        } else {
          found.push({ kind: kindOf(kind, view.getUint8(at + 2)), base: Number(view.getBigUint64(at + 8, true)) });
        }
        const isExpecting = kind === Kind.OPEN && view.getUint8(at + 2) !== 0;
        at += (kind === Kind.OPEN ? OPEN_HEADER : 16) + view.getUint8(at + 1) + (isExpecting ? 8 : 0);
      }
    }, 1_000);
    return found;
  }

  /** How many groups the store has been given and has not answered. */
  get writing(): number {
    return this.#writes.length;
  }

  /** The store has a group that it was given: of those that are being written the oldest, or that at `place`. */
  async written(place = 0): Promise<Command[]> {
    const { group, end } = this.#takeWrite(place);
    this.#put(group);
    end.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    return this.work();
  }

  /** The store takes nothing of such a group; or it leaves that open, and `isStored` all the same. */
  async failed(place = 0, error: Error = new BrokerError('STORE_UNAVAILABLE'), isStored = false): Promise<Command[]> {
    const { group, end } = this.#takeWrite(place);
    if (isStored) this.#put(group);
    end.reject(error);
    await new Promise((resolve) => setImmediate(resolve));
    return this.work();
  }

  #put(group: readonly SealedBatch[]): void {
    for (const { base, kind } of group) {
      if (kind === 'void' || !this.stored.has(base)) this.stored.set(base, kind);
    }
  }

  #takeWrite(place: number): { readonly group: readonly SealedBatch[]; readonly end: PromiseWithResolvers<void> } {
    const [write] = this.#writes.splice(place, 1);
    assert(write !== undefined, 'nothing is being written');
    return write;
  }

  tokenOf(sequence: number): number {
    return StreamToken.make(STREAM, sequence);
  }

  /** Bases of the batches that other nodes were sent since the last look. */
  sentToPeers(): number[] {
    const found: number[] = [];
    this.#payload.drain((type, offset) => {
      assert.equal(type, ToMain.PEER_BATCH);
      found.push(this.#payload.view.getFloat64(offset, true));
    }, 1_000);
    return found;
  }

  discardAnswers(): void {
    this.#main.flush();
    this.#toMain.drain(() => undefined, 1_000);
  }

  /** What the senders have been told since the last look. */
  answers(): Answer[] {
    const found: Answer[] = [];
    const { view } = this.#toMain;
    this.#toMain.drain((type, offset) => {
      const isAck = type === ToMain.ACK_ROWS;
      assert(isAck || type === ToMain.REFUSE, `record ${type}`);
      const [rows, count, width] = isAck
        ? [16, view.getUint32(offset + 8, true), 8]
        : [8, view.getUint32(offset + 4, true), 4];
      for (let row = 0; row < count; row++) {
        const sequence = StreamToken.sequence(view.getUint32(offset + rows + row * width, true));
        const answer = isAck ? view.getFloat64(offset, true) + row : REASON_NAMES[view.getUint32(offset, true)];
        found.push({ sequence, answer: answer as number | Reason });
      }
    }, 1_000);
    return found;
  }
}

function kindOf(kind: number, verdict: number): 'stored' | 'void' | 'revoke' {
  if (kind === Kind.REVOKE) return 'revoke';
  assert.equal(kind, Kind.CLOSE);
  return verdict === AllotVerdict.STORED ? 'stored' : 'void';
}

export const keysOf = (group: readonly SealedBatch[] | undefined): unknown =>
  group?.map(({ kind, base, count, publishedAt, expiresMax }) => ({ kind, base, count, publishedAt, expiresMax }));
