/** Publishes of a shard with peers: a log that does not answer, and others that revoke what this shard was given. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { REASON_CODE } from '../../src/base/errors.ts';
import { AbandonedOpens } from '../../src/workers/shard/abandoned-opens.ts';
import type { PartAnswers } from '../../src/workers/shard/group.ts';
import { keysOf, LOG_TIME, PublishRig } from './publish-rig.ts';

const TIMEOUT_MS = 10_000;
const later = (ms = TIMEOUT_MS): number => performance.now() + ms;
const MARK_OF_1 = [{ kind: 'void', base: 1, count: 1, publishedAt: LOG_TIME, expiresMax: 0 }];

/** Asks for the ids of one more batch; the counter of the request. */
function ask(rig: PublishRig, sequence: number): number {
  rig.add(sequence);
  const command = rig.work().find(({ kind }) => kind === 'open');
  assert(command?.kind === 'open');
  return command.counter;
}

/** Works until it is so: marks that the store did not take wait for a while. */
async function until(rig: PublishRig, isSo: () => boolean): Promise<void> {
  for (let looks = 0; !isSo(); looks++) {
    assert(looks < 2_000, 'it never comes');
    await new Promise((resolve) => setTimeout(resolve, 10));
    rig.work();
  }
}

describe('an allotment that somebody else revokes', () => {
  const refused = [{ sequence: 1, answer: 'STORE_UNAVAILABLE' }];

  it('[S12] while the other batch of its group waits for ids', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.add(1);
    rig.add(2, 0);
    const [first, second] = rig.work();
    assert(first?.kind === 'open' && second?.kind === 'open');
    rig.publish.opened(first.counter, 1, LOG_TIME);
    rig.publish.revoked(rig.subject, 1);
    rig.work();
    assert.deepEqual(rig.answers(), refused);
    rig.publish.opened(second.counter, 2, LOG_TIME);
    // The second would overtake the first when that is sent again.
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 2 }]);
    rig.publish.revoked(rig.subject, 2);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'PREDECESSOR_FAILED' }]);
    while (!rig.publish.idle) await rig.written();
    assert.deepEqual(rig.resolved, [
      [1, false],
      [2, false],
    ]);
  });

  it('[S12] while it waits for the write before it', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    const [first] = rig.open(1, 2);
    assert.equal(rig.groups.length, 1, 'the second is being written');
    rig.publish.revoked(rig.subject, 2);
    assert.deepEqual(rig.work(), []);
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'STORE_UNAVAILABLE' }]);
    await rig.written();
    rig.publish.closed(first as number, true);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 1 }], 'those before it are kept');
    assert.deepEqual(
      rig.groups.slice(1).map(keysOf),
      [[{ kind: 'void', base: 2, count: 1, publishedAt: LOG_TIME, expiresMax: 0 }]],
      'it is written',
    );
  });

  it('[S12] while the store writes it: the mark follows, and nothing is closed as stored', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.open(1);
    rig.publish.revoked(rig.subject, 1);
    assert.deepEqual(rig.work(), []);
    assert.deepEqual(rig.answers(), refused);
    assert.deepEqual(await rig.written(), [], 'it is closed as stored');
    assert.deepEqual(keysOf(rig.groups[1]), MARK_OF_1);
    assert.deepEqual(await rig.written(), [{ kind: 'void', base: 1 }]);
    assert.deepEqual(rig.resolved, [[1, false]]);
    assert(rig.publish.idle);
  });

  it('[S12] while its close is on its way, which is refused then', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    const [counter] = rig.open(1);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    rig.publish.revoked(rig.subject, 1);
    rig.publish.closed(counter as number, false);
    rig.work();
    assert.deepEqual(rig.answers(), refused);
    assert.deepEqual(keysOf(rig.groups[1]), MARK_OF_1);
    assert.deepEqual(await rig.written(), [{ kind: 'void', base: 1 }]);
    assert.deepEqual(rig.resolved, [[1, false]]);
    assert(rig.publish.idle);
  });

  it('[S7] and was sent again through this node: what follows on its stream is not stored before its verdict is known', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.add(1);
    rig.add(2);
    const [command] = rig.work();
    assert.equal(command?.kind, 'open');
    // 1 has id 3 in an allotment of another node that is open; 2 is new.
    rig.publish.openedParts(command.counter, 5, LOG_TIME, {
      count: 2,
      isNew: (row) => row === 1,
      isStored: () => false,
      refusal: () => -1,
      firstId: (row) => (row === 0 ? 3 : 5),
    });
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 5 }]);
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'OUTCOME_UNKNOWN' }]);
    assert.equal(rig.groups.flat().length, 0);
    rig.publish.revoked(rig.subject, 5);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 2, answer: 'PREDECESSOR_FAILED' }]);
  });

  it('[S7] with its closes and those behind it on their way: nothing of the stream is acknowledged', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    const [first, second] = rig.open(1, 2);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 2 }]);
    // The log has taken both, and refuses both closes.
    rig.publish.revoked(rig.subject, 1);
    rig.publish.revoked(rig.subject, 2);
    rig.publish.closed(first as number, false);
    rig.publish.closed(second as number, false);
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 1, answer: 'STORE_UNAVAILABLE' },
      { sequence: 2, answer: 'PREDECESSOR_FAILED' },
    ]);
    while (!rig.publish.idle) await rig.written();
    assert.deepEqual(rig.resolved, [
      [1, false],
      [2, false],
    ]);
  });

  it('[S7] before the next group has its ids: that is not written, and taken back', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.open(1);
    assert.deepEqual(await rig.written(), [{ kind: 'stored', base: 1 }]);
    const second = ask(rig, 2);
    // In the order of the log: the second was opened when the first had been revoked, so it was not taken along.
    rig.publish.revoked(rig.subject, 1);
    rig.publish.opened(second, 2, LOG_TIME);
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 2 }]);
    assert.equal(
      rig.groups.flat().some(({ kind, base }) => kind === 'data' && base === 2),
      false,
    );
    rig.publish.revoked(rig.subject, 2);
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 1, answer: 'STORE_UNAVAILABLE' },
      { sequence: 2, answer: 'PREDECESSOR_FAILED' },
    ]);
  });

  it('[S12] and whose senders have sent again does not hold them up when its write fails later', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.open(1);
    rig.publish.revoked(rig.subject, 1);
    rig.work();
    rig.answers();
    rig.failures.cameAgain(rig.subject, rig.tokenOf(1));
    await rig.failed();
    assert(!rig.failures.isBehind(rig.subject, rig.tokenOf(2), 2), 'those behind it are refused for ever');
  });
});

describe('a log that does not answer', () => {
  it('[S15] a request for ids: senders are told that the outcome is not known, and ids that come later become void', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    const counter = ask(rig, 1);
    rig.publish.expire(later(TIMEOUT_MS - 1_000));
    rig.work();
    assert.deepEqual([rig.answers(), rig.publish.refusal], [[], null], 'too early');
    rig.publish.expire(later());
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'OUTCOME_UNKNOWN' }]);
    assert.equal(rig.publish.refusal, 'NOT_READY', 'more is taken, and memory has no bound');
    assert(rig.publish.idle, 'a stop waits for it');
    assert(!rig.subject.settled, 'the slot may leave with an answer on its way');
    assert(rig.failures.isBehind(rig.subject, rig.tokenOf(2), 2), 'a later batch overtakes it');
    rig.publish.opened(counter, 1, LOG_TIME);
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 1 }]);
    assert.equal(rig.publish.refusal, null);
    rig.publish.revoked(rig.subject, 1);
    rig.work();
    assert.deepEqual(keysOf(rig.groups[0]), MARK_OF_1);
    assert.deepEqual(await rig.written(), [{ kind: 'void', base: 1 }]);
    assert.deepEqual([rig.answers(), rig.resolved], [[], [[1, false]]]);
    assert(rig.subject.settled);
  });

  it('[S15] a request for ids that it refuses later is forgotten', () => {
    const rig = new PublishRig(TIMEOUT_MS);
    const counter = ask(rig, 1);
    rig.publish.expire(later());
    rig.publish.refused(counter, REASON_CODE.NOT_READY);
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'OUTCOME_UNKNOWN' }]);
    assert(rig.subject.settled);
    assert.equal(rig.publish.refusal, null);
  });

  it('[S15] what was not sent to it is refused with no outcome', () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.publish.increment(rig.subject, 7);
    rig.work();
    rig.add(1);
    rig.publish.expire(later());
    rig.work();
    assert.deepEqual(rig.answers(), [
      { sequence: 7, answer: 'OUTCOME_UNKNOWN' },
      { sequence: 1, answer: 'NOT_READY' },
    ]);
    assert(rig.publish.idle);
  });

  for (const end of ['stored', 'refused', 'revoked', 'gone'] as const) {
    it(`[S15] a close: the outcome is not known, and is taken note of when it comes: ${end}`, async () => {
      const rig = new PublishRig(TIMEOUT_MS);
      const [counter] = rig.open(1) as [number];
      await rig.written();
      rig.publish.expire(later());
      rig.work();
      assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'OUTCOME_UNKNOWN' }]);
      assert.deepEqual([rig.resolved, rig.publish.refusal], [[], 'NOT_READY']);
      assert(rig.publish.idle, 'a stop waits for it');
      assert(!rig.subject.settled, 'the slot may leave with a verdict on its way');
      if (end === 'stored') rig.publish.closed(counter, true);
      else if (end === 'refused') rig.publish.closed(counter, false);
      else if (end === 'revoked') rig.publish.revoked(rig.subject, 1);
      else {
        rig.lookups.push(Promise.resolve('void'));
        rig.publish.gone(rig.subject, 1);
        await new Promise((resolve) => setImmediate(resolve));
      }
      rig.work();
      if (end !== 'stored') assert.deepEqual(await rig.written(), [{ kind: 'void', base: 1 }]);
      assert.deepEqual(rig.resolved, [[1, end === 'stored']]);
      assert.deepEqual([rig.answers(), rig.publish.refusal], [[], null]);
      assert(rig.subject.settled);
    });
  }

  it('[S15] a revoke: what was written may still be kept, so the outcome is not known', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.open(1);
    await rig.failed();
    rig.publish.expire(later());
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 1, answer: 'OUTCOME_UNKNOWN' }]);
    assert.equal(rig.publish.refusal, 'NOT_READY');
    assert(rig.publish.idle);
    rig.publish.revoked(rig.subject, 1);
    await until(rig, () => rig.groups.length > 1);
    assert.deepEqual(rig.answers(), []);
    assert.deepEqual(keysOf(rig.groups[1]), MARK_OF_1);
  });

  it('[S15] an increment: its id becomes void all the same', () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.publish.increment(rig.subject, 7);
    const [command] = rig.work();
    assert(command?.kind === 'open');
    rig.publish.expire(later());
    rig.publish.expire(later());
    rig.work();
    assert.deepEqual(rig.answers(), [{ sequence: 7, answer: 'OUTCOME_UNKNOWN' }]);
    assert.equal(rig.publish.refusal, 'NOT_READY');
    rig.publish.opened(command.counter, 1, LOG_TIME);
    assert.deepEqual(rig.work(), [{ kind: 'revoke', base: 1 }]);
    assert.deepEqual([rig.answers(), rig.publish.refusal], [[], null]);
  });

  it('is waited for without an end where it is here', () => {
    const rig = new PublishRig();
    ask(rig, 1);
    rig.publish.expire(later(1e9));
    rig.work();
    assert.deepEqual(rig.answers(), []);
  });

  it('a request answered part by part: only the new ids are for nobody', () => {
    const rig = new PublishRig(TIMEOUT_MS);
    const { subject } = rig;
    const opens = new AbandonedOpens();
    const parts = { count: 3, isNew: (row: number) => row !== 1 } as unknown as PartAnswers;
    const none = { count: 1, isNew: () => false } as unknown as PartAnswers;
    const batch = { subject, expiresMax: 60, messages: 9, rows: 3, parts: [], counter: 4 };
    subject.opening += 2;
    opens.add(batch as never, (row) => [2, 3, 4][row] as number);
    opens.add({ ...batch, rows: 1, counter: 5 } as never, () => 1);
    const late = opens.openedParts(4, 10, LOG_TIME, parts);
    assert.deepEqual([late?.allotment.base, late?.allotment.count, late?.expiresMax], [10, 6, 60]);
    assert.equal(opens.openedParts(5, 0, LOG_TIME, none), undefined);
    assert.equal(opens.openedParts(6, 0, LOG_TIME, none), null);
    assert.deepEqual([opens.size, subject.opening], [0, 0]);
  });
});

describe("another node's allotment that is to be marked", () => {
  const key = { publishedAt: LOG_TIME, expiresMax: 60 };

  it('[S11] is marked under its key, once at a time, and closed as void', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    for (let asked = 0; asked < 3; asked++) rig.publish.markForeign(rig.subject, { base: 5, count: 2 }, key);
    rig.work();
    assert.deepEqual(keysOf(rig.groups[0]), [{ kind: 'void', base: 5, count: 2, ...key }]);
    rig.publish.markForeign(rig.subject, { base: 5, count: 2 }, key);
    assert.deepEqual(await rig.written(), [{ kind: 'void', base: 5 }]);
    assert.equal(rig.groups.length, 1, 'it is written twice at a time');
    assert(rig.subject.settled);
    rig.publish.markForeign(rig.subject, { base: 5, count: 2 }, key);
    rig.work();
    assert.equal(rig.groups.length, 2, 'when it comes again it is for a reason');
  });

  it('[S11] is tried again when the store did not take the mark', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    rig.publish.markForeign(rig.subject, { base: 5, count: 2 }, key);
    rig.work();
    await rig.failed();
    rig.publish.markForeign(rig.subject, { base: 5, count: 2 }, key);
    await until(rig, () => rig.groups.length > 1);
    assert.equal(rig.groups[1]?.length, 1);
    assert.deepEqual(await rig.written(), [{ kind: 'void', base: 5 }]);
  });

  it('is left for later when very many wait', async () => {
    const rig = new PublishRig(TIMEOUT_MS);
    for (let base = 1; base < 20_000; base++) rig.publish.markForeign(rig.subject, { base, count: 1 }, key);
    rig.work();
    assert.equal(rig.groups[0]?.length, 8_192);
    await rig.written();
    assert.equal(rig.groups.length, 1, 'more of them waited');
    assert(rig.subject.settled);
  });
});
