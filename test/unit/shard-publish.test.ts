/** Publishes of a shard over real rings, with a database: what the log's answers to a close make of a batch that is durable there. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BrokerError } from '../../src/base/errors.ts';
import { type MessageStore, type SealedBatch, StoreFailure, StoreUncertain } from '../../src/storage/store.ts';
import type { OpenAllotment } from '../../src/workers/messages.ts';
import { resolveInDatabase } from '../../src/workers/shard/start-up.ts';
import type { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { dataBatch, plain } from './batch-support.ts';
import { type Command, keysOf, LOG_TIME, PublishRig, SUBJECT } from './publish-rig.ts';

describe('a batch that a database has', () => {
  it('[P3] is acknowledged when its close is applied, not before', async () => {
    const rig = new PublishRig();
    const [counter] = rig.open(1);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    assert.deepEqual(rig.answers(), []);
    assert.deepEqual(rig.resolved, []);
    assert.deepEqual(rig.sentToPeers(), [], 'a batch that may still become void was sent to other nodes');
    rig.publish.closed(counter as number, true);
    assert.deepEqual(rig.work(), []);
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 1 }]);
    assert.deepEqual(rig.sentToPeers(), [1]);
    assert.deepEqual(rig.resolved, [[1, true]]);
    assert(rig.publish.idle);
  });

  it('[S11, S12] whose allotment is gone by then is refused, and becomes void under the same key', async () => {
    const rig = new PublishRig();
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
    assert.deepEqual(rig.sentToPeers(), [], 'a void was sent to other nodes as a message');
    assert.deepEqual(rig.answers(), []);
    assert.equal(rig.refusal, null, 'the store has refused nothing');
    assert(rig.publish.idle);
  });

  it('[S11] whose allotment had its verdict by then is what the store says: marked, data that somebody else closed, or gone since', async () => {
    for (const [stored, answer] of [
      ['void', 'STORE_UNAVAILABLE'],
      ['data', 1],
      // Trimmed: it may have been read before.
      ['absent', 'OUTCOME_UNKNOWN'],
    ] as const) {
      const rig = new PublishRig();
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
      assert.equal(rig.groups.length, stored === 'void' ? 2 : 1, 'a mark in the place of what was stored');
      assert(rig.publish.idle && rig.subject.settled);
    }
  });

  it('[S11] whose revoke finds that somebody else has revoked and settled it is refused as if it had been ours', async () => {
    const rig = new PublishRig();
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
    const rig = new PublishRig();
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
    const rig = new PublishRig();
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

describe('what is gathered when a write fails', () => {
  it('is not stored while the failed group waits for the end of those before it', async () => {
    const rig = new PublishRig();
    const [counter] = rig.open(1, 2);
    await rig.written();
    rig.add(3);
    assert.deepEqual(await rig.failed(), [], 'it asks for ids');
    assert.deepEqual(rig.answers(), [{ sequence: 3, answer: 'PREDECESSOR_FAILED' }]);
    rig.publish.closed(counter as number, true);
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 2 }]);
    rig.publish.revoked(rig.subject, 2);
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 1, answer: 1 },
      { sequence: 2, answer: 'STORE_UNAVAILABLE' },
    ]);
  });
});

describe('groups that a database writes at a time', () => {
  /** Three batches of one stream, each in a group of its own that is being written. */
  function writing(logTimeoutMs: number | null = null): { rig: PublishRig; counters: number[] } {
    const rig = new PublishRig(logTimeoutMs, 3);
    const counters = rig.open(1, 2, 3);
    assert.equal(rig.writing, 3);
    return { rig, counters };
  }

  it('are closed and acknowledged in order, in whichever order their writes end', async () => {
    const { rig, counters } = writing();
    assert.deepEqual(await rig.written(2), [], 'the third is closed before those before it are written');
    assert.deepEqual(await rig.written(1), []);
    assert.deepEqual(await rig.written(), [
      { kind: 'stored', base: 1 },
      { kind: 'stored', base: 2 },
      { kind: 'stored', base: 3 },
    ]);
    for (const counter of counters.toReversed()) {
      assert.deepEqual(rig.answers(), []);
      rig.publish.closed(counter, true);
      rig.work();
    }
    assert.deepEqual(
      rig.answers(),
      [1, 2, 3].map((id) => ({ sequence: id, answer: id })),
    );
    assert.deepEqual(
      rig.resolved,
      [1, 2, 3].map((id) => [id, true]),
    );
    assert(rig.publish.idle);
  });

  it('[S12] are taken back when the first fails, also what the database has by then', async () => {
    const { rig } = writing();
    await rig.written(1);
    const commands = await rig.failed();
    assert.equal(rig.writeFailures, 1);
    assert.deepEqual(
      commands.toSorted((a, b) => ('base' in a && 'base' in b ? a.base - b.base : 0)),
      [
        { kind: 'revoke', base: 1 },
        { kind: 'revoke', base: 2 },
      ],
    );
    assert.deepEqual(
      await rig.written(),
      [{ kind: 'revoke', base: 3 }],
      'it overtakes the first, which may come again',
    );
    assert.deepEqual(rig.answers(), [], 'told that there is none before that is so');
    for (const base of [1, 2, 3]) rig.publish.revoked(rig.subject, base);
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 1, answer: 'STORE_UNAVAILABLE' },
      { sequence: 2, answer: 'PREDECESSOR_FAILED' },
      { sequence: 3, answer: 'PREDECESSOR_FAILED' },
    ]);
    for (let looks = 0; rig.writing === 0; looks++) {
      assert(looks < 2_000, 'no mark is written');
      await new Promise((resolve) => setTimeout(resolve, 10));
      rig.work();
    }
    while (!rig.publish.idle) await rig.written();
    assert.deepEqual([...rig.stored.values()], ['void', 'void', 'void']);
  });

  it('stay when one behind them fails, whose end waits for theirs', async () => {
    const { rig, counters } = writing();
    assert.deepEqual(await rig.failed(1), []);
    assert.deepEqual(await rig.written(1), []);
    assert.deepEqual(await rig.written(), [
      { kind: 'stored', base: 1 },
      { kind: 'revoke', base: 3 },
    ]);
    rig.publish.closed(counters[0] as number, true);
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 2 }]);
    for (const base of [3, 2]) rig.publish.revoked(rig.subject, base);
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 1, answer: 1 },
      { sequence: 3, answer: 'PREDECESSOR_FAILED' },
      { sequence: 2, answer: 'STORE_UNAVAILABLE' },
    ]);
  });

  it('[S14] wait for one before them whose write is repeated since its outcome is not known', async () => {
    const { rig } = writing();
    await rig.failed(0, new StoreUncertain('no answer'), true);
    assert.deepEqual(await rig.written(), []);
    assert.deepEqual(await rig.written(), []);
    for (let looks = 0; rig.writing === 0; looks++) {
      assert(looks < 2_000, 'the write is not repeated');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    assert.deepEqual(await rig.written(), [
      { kind: 'stored', base: 1 },
      { kind: 'stored', base: 2 },
      { kind: 'stored', base: 3 },
    ]);
  });

  it('[S12] one that somebody else revokes between its write and its close is not closed, nor what lies behind it', async () => {
    const { rig, counters } = writing(10_000);
    await rig.written(1);
    await rig.written(1);
    rig.publish.revoked(rig.subject, 2);
    assert.deepEqual(rig.work(), []);
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'STORE_UNAVAILABLE' }]);
    assert.deepEqual(await rig.written(), [
      { kind: 'stored', base: 1 },
      { kind: 'revoke', base: 3 },
    ]);
    rig.publish.closed(counters[0] as number, true);
    rig.work();
    rig.publish.revoked(rig.subject, 3);
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 1, answer: 1 },
      { sequence: 3, answer: 'PREDECESSOR_FAILED' },
    ]);
    while (!rig.publish.idle) await rig.written();
    assert.deepEqual(
      [1, 2, 3].map((base) => rig.stored.get(base)),
      ['data', 'void', 'void'],
    );
  });

  it('[S12] do not meet the mark of one of them: that is written when they are', async () => {
    const rig = new PublishRig(10_000, 3);
    rig.open(1, 2);
    rig.publish.revoked(rig.subject, 1);
    rig.work();
    assert.equal(rig.writing, 2, 'mark and data are written at a time');
    await rig.written();
    assert.equal(rig.writing, 1);
    await rig.written();
    assert.deepEqual(keysOf(rig.groups[2]), [
      { kind: 'void', base: 1, count: 1, publishedAt: LOG_TIME, expiresMax: 0 },
    ]);
  });

  it('[S12] end with a defect of one of them at once, and nothing behind it is closed', async () => {
    const { rig } = writing();
    const told: unknown[] = [];
    rig.onFatal = (error) => told.push(error);
    const defect = new StoreFailure('other messages under these ids');
    await rig.failed(1, defect);
    assert.deepEqual(told, [defect]);
    await rig.written(1);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    assert.deepEqual(told, [defect]);
  });
});

describe('batches that the store has no room for', () => {
  it('are refused alone and without ids, and what comes before them in the group is stored', async () => {
    const rig = new PublishRig();
    rig.rooms.push(true, false);
    rig.add(1);
    // Of another head: it is not asked for with the one before it.
    rig.add(2, 1);
    const commands = rig.work();
    assert.deepEqual(
      commands.map((command) => [command.kind, command.kind === 'open' && command.count]),
      [['open', 1]],
    );
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'STORE_UNAVAILABLE' }]);
    const [command] = commands;
    assert(command?.kind === 'open');
    rig.publish.opened(command.counter, 1, LOG_TIME);
    rig.work();
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    rig.publish.closed(command.counter, true);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 1 }]);
    assert.deepEqual([rig.publish.refusal, rig.publish.idle], [null, true]);
  });

  it('take those along that were sent behind them, and all may come again', async () => {
    const rig = new PublishRig();
    rig.rooms.push(false, true);
    rig.add(1);
    rig.add(2, 1);
    rig.add(3);
    assert.deepEqual(rig.work(), []);
    assert.deepEqual(
      rig.answers().map(({ sequence, answer }) => [sequence, answer]),
      [
        [1, 'STORE_UNAVAILABLE'],
        [2, 'PREDECESSOR_FAILED'],
        [3, 'PREDECESSOR_FAILED'],
      ],
    );
    assert.deepEqual([rig.publish.refusal, rig.publish.idle], [null, true]);
    rig.failures.streamEnded(5);
    assert.equal(rig.open(1).length, 1);
  });
});

describe('increments', () => {
  it('[W6] are refused while the marks of many others wait for the store, and taken again behind these', async () => {
    const rig = new PublishRig();
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
      revoked: [3, 2, 1],
    },
    {
      what: 'what lies before a gap is kept',
      open: [left(1), left(2), left(3)],
      has: [1, 3],
      stored: [1],
      revoked: [3, 2],
    },
    {
      what: 'what is damaged is a gap, and told',
      open: [left(1), left(2), left(3)],
      has: [1, 3],
      hurt: [2],
      stored: [1],
      revoked: [3, 2],
    },
    {
      what: 'what lies behind one that was revoked by then goes with it',
      open: [left(1), left(2, true), left(3)],
      has: [1, 3],
      stored: [1],
      revoked: [3],
    },
  ];
  for (const { what, open, has, hurt = [], stored, revoked } of rows) {
    it(`[S11] is settled in the order of ids, and taken back from the end: ${what}`, async () => {
      const rig = new PublishRig();
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
