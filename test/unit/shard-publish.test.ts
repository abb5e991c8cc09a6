/** Publishes of a shard over real rings, with a database: what the log's answers to a close make of a batch that is durable there. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
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
import type { OpenAllotment } from '../../src/workers/messages.ts';
import { AllotRequests } from '../../src/workers/shard/allot-requests.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { ANY_HEAD } from '../../src/workers/shard/open-batch.ts';
import { PublishPath } from '../../src/workers/shard/publish-path.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { resolveInDatabase } from '../../src/workers/shard/start-up.ts';
import { StreamFailures } from '../../src/workers/shard/stream-failures.ts';
import { type ActiveSubject, ActiveSubjects } from '../../src/workers/shard/subjects.ts';
import { dataBatch, plain, subjectRef } from './batch-support.ts';

const SUBJECT = subjectRef('publish.test');
const STREAM = 5;
const LOG_TIME = 1_700_000_000_000;
const SEAL = { groupsInFlight: 3, lingerMs: 0, fullBytes: 1 << 20 };
const LIMITS = { bodyBytes: 1 << 20, headersBytes: 1 << 16, headersCount: 64, records: 1_000 };

/** What the log is asked for. */
type Command =
  | { readonly kind: 'open'; readonly counter: number }
  | { readonly kind: 'stored' | 'void' | 'revoke'; readonly base: number };

interface Answer {
  readonly sequence: number;
  /** The first id, or why there is none. */
  readonly answer: number | Reason;
}

/** The publish path between the main thread's and the Raft thread's ends of its rings; writes end when the test says so. */
class Rig {
  readonly #main: MainPort;
  readonly #raft: RaftClient;
  readonly #toMain: RingConsumer;
  readonly #toRaft: RingConsumer;
  readonly #writes: (() => void)[] = [];
  readonly requests: AllotRequests;
  readonly subjects = new ActiveSubjects();
  readonly subject: ActiveSubject;
  readonly publish: PublishPath;
  /** Groups that the store was given, in order. */
  readonly groups: (readonly SealedBatch[])[] = [];
  /** What the store says when it is asked what it has under a key. */
  readonly lookups: Promise<Stored>[] = [];
  /** Bases that got their verdict here, with what it was. */
  readonly resolved: (readonly [base: number, isStored: boolean])[] = [];
  refusal: Reason | null = null;

  constructor() {
    const [toMain, toRaft] = [createRing(1 << 16), createRing(RAFT_RING_BYTES)];
    this.#main = new MainPort(toMain, createRing(1 << 16), createDoorbell());
    this.#raft = new RaftClient(toRaft, createDoorbell(), 0);
    this.#toMain = new RingConsumer(toMain);
    this.#toRaft = new RingConsumer(toRaft);
    this.requests = new AllotRequests(this.#raft, 0);
    this.subject = this.subjects.get(SUBJECT.bytes, 0, SUBJECT.bytes.length, SUBJECT.hash);
    const append = (group: readonly SealedBatch[]): Promise<void> => {
      this.groups.push(group.map((batch) => ({ ...batch, bytes: Buffer.from(batch.bytes) })));
      return new Promise((resolve) => this.#writes.push(resolve));
    };
    this.publish = new PublishPath(
      { append, lookup: () => this.lookups.shift() ?? assert.fail('nobody asked for this') } as unknown as MessageStore,
      this.requests,
      this.#main,
      {
        onSealed: () => undefined,
        onResolved: (_subject, { base }, bytes) => void this.resolved.push([base, bytes !== null]),
        onProgress: () => undefined,
        onFatal: (error) => assert.fail(String(error)),
      },
      {
        onGroup: () => undefined,
        onWritten: () => undefined,
        storeRefuses: (reason) => {
          this.refusal = reason;
        },
      },
      new StreamFailures(),
      { seal: SEAL, batchBytes: 1 << 20, databaseTimeoutMs: 1_000 },
    );
  }

  /** One batch of the stream, with one message. */
  add(sequence: number): void {
    const body = Buffer.from(`message ${sequence}`);
    const section = Buffer.from([RECORD_TAG, body.length + 2, BODY_TAG, body.length, ...body]);
    const scan = new RecordsScan();
    assert.equal(scan.scan(section, 0, section.length, LIMITS), null);
    const token = StreamToken.make(STREAM, sequence);
    const { gathering } = this.publish;
    gathering.addSection(this.subject, token, section, 0, section.length, scan, null, sequence, ANY_HEAD);
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
        if (kind === Kind.OPEN) found.push({ kind: 'open', counter: view.getUint32(at + 12, true) });
        else found.push({ kind: kindOf(kind, view.getUint8(at + 2)), base: Number(view.getBigUint64(at + 8, true)) });
        at += (kind === Kind.OPEN ? OPEN_HEADER : 16) + view.getUint8(at + 1);
      }
    }, 1_000);
    return found;
  }

  /** The store has the oldest group that it was given. */
  async written(): Promise<Command[]> {
    const write = this.#writes.shift();
    assert(write !== undefined, 'nothing is being written');
    write();
    await new Promise((resolve) => setImmediate(resolve));
    return this.work();
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

const keysOf = (group: readonly SealedBatch[] | undefined): unknown =>
  group?.map(({ kind, base, count, publishedAt, expiresMax }) => ({ kind, base, count, publishedAt, expiresMax }));

describe('a batch that a database has', () => {
  it('[P3] is acknowledged when its close is applied, not before', async () => {
    const rig = new Rig();
    const [counter] = rig.open(1);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    assert.deepEqual(rig.answers(), []);
    assert.deepEqual(rig.resolved, []);
    rig.publish.closed(counter as number, true);
    assert.deepEqual(rig.work(), []);
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 1 }]);
    assert.deepEqual(rig.resolved, [[1, true]]);
    assert(rig.publish.idle);
  });

  it('[S11, S12] whose allotment is gone by then is refused, and becomes void under the same key', async () => {
    const rig = new Rig();
    const [counter] = rig.open(1);
    await rig.written();
    rig.publish.closed(counter as number, false);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'STORE_UNAVAILABLE' }]);
    assert.deepEqual(rig.resolved, [], 'a verdict before the mark is stored');
    assert.deepEqual(keysOf(rig.groups[1]), [
      { kind: 'void', base: 1, count: 1, publishedAt: LOG_TIME, expiresMax: 0 },
    ]);
    assert(!rig.publish.idle);
    assert.deepEqual(await rig.written(), [{ kind: 'void', base: 1 }]);
    assert.deepEqual(rig.resolved, [[1, false]]);
    assert.deepEqual(rig.answers(), []);
    assert.equal(rig.refusal, null, 'the store has refused nothing');
    assert(rig.publish.idle);
  });

  it('[S11] whose allotment had its verdict by then is what the store says: marked, or data that somebody else closed', async () => {
    for (const [stored, answer] of [
      ['void', 'STORE_UNAVAILABLE'],
      ['data', 1],
    ] as const) {
      const rig = new Rig();
      rig.open(1);
      await rig.written();
      const away = Promise.reject(new BrokerError('STORE_UNAVAILABLE'));
      away.catch(() => 'met by the writer');
      rig.lookups.push(away, Promise.resolve(stored));
      rig.publish.gone(rig.subject, 1);
      assert.deepEqual(rig.answers(), [], 'an answer before the store has said anything');
      for (let looks = 0; rig.lookups.length > 0; looks++) {
        assert(looks < 2_000, 'the store is not asked');
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await new Promise((resolve) => setImmediate(resolve));
      rig.work();
      assert.deepEqual(rig.answers(), [{ sequence: 1, answer }]);
      if (stored === 'void') await rig.written();
      assert.deepEqual(rig.resolved, [[1, stored === 'data']]);
      assert(rig.publish.idle);
    }
  });

  it('[S11] whose revoke finds that somebody else has revoked and settled it is refused as if it had been ours', async () => {
    const rig = new Rig();
    const [counter] = rig.open(1, 2);
    await rig.written();
    rig.publish.closed(counter as number, false);
    rig.work();
    rig.answers();
    assert.deepEqual(await rig.written(), [{ kind: 'revoke', base: 2 }]);
    rig.publish.gone(rig.subject, 2);
    await rig.written();
    await rig.written();
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'PREDECESSOR_FAILED' }]);
    assert(rig.publish.idle);
  });

  it('[S12] and whose close is refused takes those along that were sent behind it', async () => {
    const rig = new Rig();
    const [counter] = rig.open(1);
    rig.add(2);
    const [second] = rig.work();
    assert(second?.kind === 'open');
    await rig.written();
    rig.publish.closed(counter as number, false);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'STORE_UNAVAILABLE' }]);
    rig.publish.opened(second.counter, 2, LOG_TIME);
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 2 }]);
    assert.deepEqual(
      rig.groups.slice(1).map((group) => group.map(({ kind, base }) => [kind, base])),
      [[['void', 1]]],
    );
    rig.publish.revoked(rig.subject, 2);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'PREDECESSOR_FAILED' }]);
  });
});

describe('what a database is writing', () => {
  it('[S12] is taken back when one before it on its stream was refused meanwhile', async () => {
    const rig = new Rig();
    const [counter] = rig.open(1, 2);
    await rig.written();
    assert.equal(rig.groups.length, 2, 'the second is not being written');
    rig.publish.closed(counter as number, false);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'STORE_UNAVAILABLE' }]);
    assert.deepEqual(await rig.written(), [{ kind: 'revoke', base: 2 }]);
    rig.publish.revoked(rig.subject, 2);
    await rig.written();
    await rig.written();
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'PREDECESSOR_FAILED' }]);
    assert.deepEqual(rig.resolved, [
      [1, false],
      [2, false],
    ]);
    assert(rig.publish.idle);
  });
});

describe('increments', () => {
  it('[W6] are refused while the marks of many others wait for the store, and taken again behind these', async () => {
    const rig = new Rig();
    let head = 0;
    const increment = (): void => {
      rig.publish.increment(rig.subject, 1);
      const command = rig.work().find(({ kind }) => kind === 'open');
      assert(command?.kind === 'open');
      head += 1;
      rig.publish.opened(command.counter, head, LOG_TIME);
      rig.publish.revoked(rig.subject, head);
      rig.discardAnswers();
    };
    while (rig.publish.incrementRefusal === null) {
      increment();
      assert(head < 50_000, 'what waits has no bound');
    }
    assert.equal(rig.publish.incrementRefusal, 'QUEUE_FULL');
    while (!rig.publish.idle) await rig.written();
    assert.equal(rig.publish.incrementRefusal, null);
    assert.equal(rig.resolved.length, head);
  });
});

interface Row {
  readonly what: string;
  readonly open: readonly OpenAllotment[];
  /** Bases. */
  readonly has: readonly number[];
  readonly hurt?: readonly number[];
  readonly stored: readonly number[];
  readonly revoked: readonly number[];
}

describe('what a database has of the process before', () => {
  const left = (base: number, revoked = false): OpenAllotment => ({
    subject: SUBJECT.bytes,
    hash: SUBJECT.hash,
    base,
    count: 1,
    revoked,
    openedAt: LOG_TIME,
    expiresMax: 0,
  });
  const rows: readonly Row[] = [
    { what: 'all of a group is kept', open: [left(1), left(2)], has: [1, 2], stored: [1, 2], revoked: [] },
    {
      what: 'what lies behind a gap goes with it',
      open: [left(3), left(1), left(2)],
      has: [2, 3],
      stored: [],
      revoked: [1, 2, 3],
    },
    {
      what: 'what lies before a gap is kept',
      open: [left(1), left(2), left(3)],
      has: [1, 3],
      stored: [1],
      revoked: [2, 3],
    },
    {
      what: 'what is damaged is a gap, and told',
      open: [left(1), left(2), left(3)],
      has: [1, 3],
      hurt: [2],
      stored: [1],
      revoked: [2, 3],
    },
    { what: 'what was revoked by then is no gap', open: [left(1, true), left(2)], has: [2], stored: [2], revoked: [] },
  ];
  for (const { what, open, has, hurt = [], stored, revoked } of rows) {
    it(`[S11] is settled in the order of ids: ${what}`, async () => {
      const rig = new Rig();
      const appended: number[] = [];
      const store = {
        read(_subject: unknown, base: number) {
          const { bytes } = dataBatch(SUBJECT, [plain('left')], { base, publishedAt: LOG_TIME });
          if (hurt.includes(base)) {
            return Promise.resolve({ items: [{ kind: 'damaged', from: base, to: base + 1 }], next: base + 1 });
          }
          const items = has.includes(base) ? [{ kind: 'data', from: base, to: base + 1, base, bytes }] : [];
          return Promise.resolve({ items, next: base + 1 });
        },
        append(group: readonly SealedBatch[]) {
          appended.push(...group.map(({ base }) => base));
          return Promise.resolve();
        },
      } as unknown as MessageStore;
      const told: number[] = [];
      const onDamage = (subject: ActiveSubject, id: number): void => {
        assert.equal(subject, rig.subject);
        told.push(id);
      };
      await resolveInDatabase(open, store, rig.subjects, rig.publish, rig.requests, onDamage);
      assert.deepEqual(told, hurt, 'damage is told');
      const commands = rig.work();
      const of = (wanted: Command['kind']): number[] =>
        commands.flatMap((command) => (command.kind === wanted && 'base' in command ? [command.base] : []));
      assert.deepEqual(of('stored'), stored);
      assert.deepEqual(of('revoke'), revoked);
      assert.deepEqual(appended, stored);
    });
  }
});
