/** Nodes with peers, of whose frames some are lost or late. */
import assert from 'node:assert/strict';
import { describe, it, type TestContext } from 'node:test';
import { closeSize, writeRevoke } from '../../src/allot/commands.ts';
import { subjectHash } from '../../src/base/subject.ts';
import { Replica } from '../../src/replica/replica.ts';
import type { PeerFrame } from '../../src/replica/types.ts';
import type { LogLine } from '../../src/workers/messages.ts';
import type { AnswerPort } from '../../src/workers/raft/raft-node.ts';
import { until } from '../support/until.ts';
import { open, openEntries, type Running, run, three } from './raft-peers-rig.ts';

type Meets = (at: string, frame: PeerFrame) => boolean;

/** Frames that `meets` accepts do not arrive, until `pass` brings them or `heal` lets later ones through. */
function cut(t: TestContext): { meets: Meets; pass: (meets: Meets) => void; heal: () => void } {
  const held: { at: Replica; frame: PeerFrame; bring: () => void }[] = [];
  const receive = Replica.prototype.receive;
  const cutting = {
    meets: (() => false) as Meets,
    pass(meets: Meets): void {
      for (const each of held.splice(0)) if (meets(each.at.id, each.frame)) each.bring();
    },
    heal(): void {
      cutting.meets = () => false;
    },
  };
  t.mock.method(Replica.prototype, 'receive', function (this: Replica, from: string, frame: PeerFrame, ms: number) {
    const bring = (): void => receive.call(this, from, frame, ms);
    if (cutting.meets(this.id, frame)) held.push({ at: this, frame, bring });
    else bring();
  });
  return cutting;
}

const isRaft = (frame: PeerFrame, ...types: readonly string[]): boolean =>
  frame.kind === 'raft' && types.includes(frame.message.type);

const answers = (more: Partial<AnswerPort>): AnswerPort => {
  const none = (): void => undefined;
  return {
    ...{ opened: none, openRefused: none, partsOpened: none, producerOpened: none, trimmed: none, onReadable: none },
    ...{ moved: none, born: none, restored: none, mark: () => true, revoked: none, gone: none, closed: none },
    ...more,
  };
};

const isInstalled = ({ message }: LogLine): boolean => message === 'installed a snapshot of the leader';

/** a and b, and c, which has joined and not started, and which gets nothing of the log until `heal`. */
async function behind(t: TestContext): Promise<{ a: Running; c: Running; heal: () => void }> {
  const small = { snapshotEntries: 50 };
  const [a, , was] = (await three(t, small)) as [Running, Running, Running];
  await was.stop();
  const c = await run(t, 'c', null, { ...small, folder: was.folder });
  const cutting = cut(t);
  await until(
    () => c.node.status().applied === a.node.status().applied,
    () => 'they do not come so far',
  );
  cutting.meets = (at, frame) => at === 'c' && isRaft(frame, 'append');
  return { a, c, heal: cutting.heal };
}

describe('a node that gets a snapshot', () => {
  it('has started, if the snapshot says so', async (t) => {
    const { a, c, heal } = await behind(t);
    const before = a.node.machine.startedIndex(Buffer.from('c'));
    let isStarted = false;
    void c.node.start().then(() => {
      isStarted = true;
    });
    await until(
      () => a.node.machine.startedIndex(Buffer.from('c')) > before,
      () => 'the leader does not hear of it',
    );
    await openEntries(a, 300);
    heal();
    await until(
      () => isStarted,
      () => 'it waits for ever',
    );
    assert.ok(c.lines.some(isInstalled));
  });

  it('tells of the subjects that were born in it', async (t) => {
    const { a, c, heal } = await behind(t);
    const born = new Set<string>();
    c.node.answerTo(
      answers({ born: (subject) => void born.add(Buffer.from(c.node.machine.nameOf(subject)).toString()) }),
    );
    await openEntries(a, 300);
    heal();
    await until(
      () => born.size === a.node.status().subjects,
      () => `of ${a.node.status().subjects} it tells of ${born.size}`,
    );
    assert.ok(c.lines.some(isInstalled));
  });
});

describe('a node that lost touch and gets a snapshot', () => {
  it('[R20] goes on behind it also when the leader has not heard that it has come', async (t) => {
    const small = { snapshotEntries: 50 };
    const [a, , was] = (await three(t, small)) as [Running, Running, Running];
    await was.stop();
    await openEntries(a, 300);
    const cutting = cut(t);
    cutting.meets = (at, frame) =>
      at === 'a' && isRaft(frame, 'append-response') && frame.kind === 'raft' && frame.message.from === 'c';
    const report = Replica.prototype.reportSnapshot;
    const lost = t.mock.method(Replica.prototype, 'reportSnapshot', function (this: Replica, to: string) {
      report.call(this, to, 'failed');
    });
    const c = await run(t, 'c', null, { ...small, folder: was.folder });
    await until(
      () => c.lines.some(isInstalled) && lost.mock.callCount() > 0,
      () => 'it gets no snapshot',
    );
    lost.mock.restore();
    cutting.heal();
    await until(
      () => c.node.status().applied === a.node.status().applied,
      () => `it stays at ${c.node.status().applied}, the others are at ${a.node.status().applied}`,
    );
  });

  it('tells its shards what of theirs was revoked meanwhile, and of nothing else', async (t) => {
    const [a, , c] = (await three(t, { snapshotEntries: 50 })) as [Running, Running, Running];
    const opened: number[] = [];
    const revoked: string[] = [];
    c.node.answerTo(
      answers({
        opened: (_shard, counter) => void opened.push(counter),
        revoked: (names, start, end, _hash, base) =>
          void revoked.push(`${Buffer.from(names.subarray(start, end))}/${base}`),
      }),
    );
    for (const index of [1_000, 1_001]) open(c.node, index);
    await until(
      () => opened.length === 2,
      () => `${opened} are open`,
    );
    const cutting = cut(t);
    cutting.meets = (at, frame) => at === 'c' && isRaft(frame, 'append');
    const name = Buffer.from('subject.1001');
    const revoke = new Uint8Array(closeSize(name.length));
    writeRevoke(new DataView(revoke.buffer), revoke, 0, name, subjectHash(name, 0, name.length), 1);
    assert.ok(a.node.propose([revoke]));
    await openEntries(a, 300);
    cutting.heal();
    await until(
      () => c.lines.some(isInstalled) && c.node.status().applied === a.node.status().applied,
      () => 'it does not come so far',
    );
    assert.deepEqual(revoked, ['subject.1001/1']);
  });

  it('tells of subjects and revokes also when answers to its own runs are lost in it', async (t) => {
    const [a, , c] = (await three(t, { snapshotEntries: 50 })) as [Running, Running, Running];
    const born = new Set<string>();
    const revoked: string[] = [];
    let restored = 0;
    c.node.answerTo(
      answers({
        born: (subject) => void born.add(String(Buffer.from(c.node.machine.nameOf(subject)))),
        restored: () => void restored++,
        revoked: (names, start, end) => void revoked.push(String(Buffer.from(names.subarray(start, end)))),
      }),
    );
    open(c.node, 1_000);
    await until(
      () => born.has('subject.1000'),
      () => 'it is not open',
    );
    const cutting = cut(t);
    cutting.meets = (at, frame) => at === 'c' && isRaft(frame, 'append');
    const subjects = a.node.status().subjects;
    open(c.node, 2_000);
    await until(
      () => a.node.status().subjects > subjects,
      () => 'its run is not applied',
    );
    const name = Buffer.from('subject.1000');
    const revoke = new Uint8Array(closeSize(name.length));
    writeRevoke(new DataView(revoke.buffer), revoke, 0, name, subjectHash(name, 0, name.length), 1);
    assert.ok(a.node.propose([revoke]));
    await openEntries(a, 300);
    cutting.heal();
    await until(
      () => born.size === a.node.status().subjects,
      () => `of ${a.node.status().subjects} it tells of ${born.size}`,
    );
    assert.deepEqual([born.has('subject.2000'), revoked], [true, ['subject.1000']]);
    // A leader that has gone on meanwhile may send another one behind it.
    assert.ok(restored > 0);
    assert.ok(c.lines.some(isInstalled));
  });
});

describe('a read of a follower', () => {
  it('is asked for again when the question is lost', async (t) => {
    const [, b] = (await three(t)) as [Running, Running, Running];
    const cutting = cut(t);
    cutting.meets = (_at, frame) => isRaft(frame, 'read-index');
    let isRead = false;
    b.node.barrier(() => {
      isRead = true;
    });
    await until(
      () => b.node.isReading,
      () => 'it does not ask',
    );
    await new Promise((resolve) => setImmediate(resolve));
    cutting.heal();
    await until(
      () => isRead,
      () => 'it waits for ever',
    );
  });

  it('[R2] is not answered by one that was asked for before it', async (t) => {
    const [a, b] = (await three(t)) as [Running, Running, Running];
    const cutting = cut(t);
    cutting.meets = (at, frame) => at === 'b' && isRaft(frame, 'append', 'read-index-response');
    let first = false;
    let second = -1;
    b.node.barrier(() => {
      first = true;
    });
    await until(
      () => b.node.isReading,
      () => 'it does not ask',
    );
    await new Promise((resolve) => setTimeout(resolve, 50));
    await openEntries(a, 1);
    b.node.barrier(() => {
      second = b.node.status().subjects;
    });
    cutting.pass((_at, frame) => isRaft(frame, 'read-index-response'));
    b.node.work();
    assert.ok(first, 'the first is answered');
    cutting.heal();
    await until(
      () => second >= 0,
      () => 'it waits for ever',
    );
    assert.equal(second, 1);
  });
});

it('a leader whose followers are slow takes no second snapshot of the same place', async (t) => {
  const [a] = (await three(t, { snapshotEntries: 100 })) as [Running, Running, Running];
  const cutting = cut(t);
  cutting.meets = (at, frame) => at === 'a' && isRaft(frame, 'append-response');
  const { lastIndex } = a.node.status();
  let opened = 0;
  while (a.node.status().lastIndex < lastIndex + 300) {
    open(a.node, opened++);
    a.node.work();
    if (opened % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.deepEqual(a.fatal, []);
  cutting.heal();
  await until(
    () => a.node.status().subjects === opened,
    () => 'it does not go on',
  );
});
