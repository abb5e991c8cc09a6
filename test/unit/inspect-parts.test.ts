import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BrokerError } from '../../src/base/errors.ts';
import { spaceOf } from '../../src/base/subject-space.ts';
import { type Inspected, InspectService } from '../../src/workers/admin/inspect-service.ts';
import { learnSettled, type OpenGroup } from '../../src/workers/admin/settled-round.ts';
import { SharedAnswers } from '../../src/workers/admin/shared-answers.ts';
import { visitInSlices } from '../../src/workers/admin/slices.ts';
import { PositionAsks } from '../../src/workers/front/position-asks.ts';
import type { ShardLink } from '../../src/workers/front/shard-link.ts';
import { SubjectGroup } from '../../src/workers/front/subject-group.ts';
import { POSITIONS_HEADER, ToShard } from '../../src/workers/link.ts';
import type { NodeLoad } from '../../src/workers/slots/advice.ts';
import { quantileBetween } from '../../src/workers/slots/recent-load.ts';

/** A link whose ring is a list of records. */
function fakeLink(shard: number): { link: ShardLink; asked: DataView[] } {
  const asked: DataView[] = [];
  const controlOutbox = {
    view: new DataView(new ArrayBuffer(0)),
    begin(type: number, length: number): number {
      assert.equal(type, ToShard.POSITIONS);
      this.view = new DataView(new ArrayBuffer(length));
      return 0;
    },
    end(): void {
      asked.push(this.view);
    },
  };
  return { link: { shard, controlOutbox } as unknown as ShardLink, asked };
}

/** What a shard answers that knows of each subscription: settled is ten times its number, and nothing of 13. */
function answerTo(question: DataView): DataView {
  const count = question.getUint32(4, true);
  const answer = new DataView(new ArrayBuffer(POSITIONS_HEADER + count * 16));
  answer.setUint32(0, question.getUint32(0, true), true);
  answer.setUint32(4, count, true);
  for (let i = 0; i < count; i++) {
    const id = question.getUint32(POSITIONS_HEADER + i * 4, true);
    answer.setFloat64(POSITIONS_HEADER + i * 16, id === 13 ? -1 : id * 11, true);
    answer.setFloat64(POSITIONS_HEADER + i * 16 + 8, id === 13 ? -1 : id * 10, true);
  }
  return answer;
}

function groupOf(id: number, shard: number, members: readonly { id: number; window: object | null }[]): OpenGroup {
  const group = new SubjectGroup(id, shard, id, Buffer.from(`s.${id}`), 0) as unknown as OpenGroup;
  for (const member of members) group.members.add(member as never);
  return group;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('shards are asked once for each subject, a thousand at a time, and never twice at once', async () => {
  const links = [fakeLink(0), fakeLink(1)];
  const asks = new PositionAsks(() => undefined);
  const groups = Array.from({ length: 3_000 }, (_, i) => groupOf(i, i % 2, [{ id: i, window: {} }]));
  const learned = learnSettled(
    groups,
    links.map(({ link }) => link),
    asks,
  );
  const [unknown, moving] = [groups[13], groups[2_998]] as [OpenGroup, OpenGroup];
  unknown.settled = 5;
  let answered = 0;
  while (answered < 4) {
    await turn();
    for (const { asked } of links) {
      assert(asked.length <= 1, 'one question at a time');
      const question = asked.shift();
      if (question === undefined) continue;
      assert(question.getUint32(4, true) <= 1_024);
      asks.answered(answerTo(question), 0);
      answered += 1;
    }
    if (answered === 2) moving.shard = 1;
  }
  await learned;
  assert.deepEqual([groups[0]?.settled, groups[7]?.settled, groups[2_999]?.settled], [0, 70, 29_990]);
  assert.equal(unknown.settled, 5, 'what a shard does not know stays as it was');
  assert.equal(moving.settled, -1, 'its shard is another one by now');
  assert(links.every(({ asked }) => asked.length === 0));
});

test('a subject is asked for by a subscription whose start is fixed; one that nobody has any more is not', async () => {
  const { link, asked } = fakeLink(0);
  const asks = new PositionAsks(() => undefined);
  const groups = [
    groupOf(1, 0, [
      { id: 21, window: null },
      { id: 22, window: {} },
    ]),
    groupOf(2, 0, [{ id: 23, window: null }]),
    groupOf(3, 0, []),
    groupOf(4, 9, [{ id: 24, window: {} }]),
  ];
  const learned = learnSettled(groups, [link], asks);
  while (asked.length === 0) await turn();
  const question = asked[0] as DataView;
  const ids = Array.from({ length: question.getUint32(4, true) }, (_, i) =>
    question.getUint32(POSITIONS_HEADER + i * 4, true),
  );
  assert.deepEqual(ids, [22, 23]);
  asks.answered(answerTo(question), 0);
  await learned;
  assert.deepEqual(
    groups.map(({ settled }) => settled),
    [220, 230, -1, -1],
  );
});

test('a shard that dies, and one that does not answer, keep nobody waiting', async (t) => {
  const { link, asked } = fakeLink(0);
  const asks = new PositionAsks(() => undefined);
  const groups = [groupOf(1, 0, [{ id: 1, window: {} }])];
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const first = learnSettled(groups, [link], asks);
  while (asked.length === 0) await turn();
  asks.shardDied(0);
  await first;
  const second = learnSettled(groups, [link], asks);
  while (asked.length === 1) await turn();
  t.mock.timers.tick(1_000);
  await second;
  asks.answered(answerTo(asked[1] as DataView), 0);
  assert.equal(groups[0]?.settled, 10, 'what comes late is not wrong');
});

test('a walk over many things lets others work in between, and bears what is added and taken away meanwhile', async () => {
  const items = new Map(Array.from({ length: 2_000 }, (_, i) => [i, i]));
  let turns = 0;
  const counting = setInterval(() => {
    turns += 1;
    items.delete(1_999);
  }, 0);
  let seen = 0;
  await visitInSlices(items.values(), () => {
    seen += 1;
    for (const begun = performance.now(); performance.now() - begun < 0.02; );
  });
  clearInterval(counting);
  assert(turns > 2, `${turns} turns of the event loop`);
  assert.equal(seen, 1_999);
});

test('an answer is found once for all who ask the same within half a second, and kept for longer only if it took long', async (t) => {
  const answers = new SharedAnswers();
  let found = 0;
  const find = async (): Promise<number> => {
    await turn();
    found += 1;
    return found;
  };
  assert.deepEqual(await Promise.all([answers.get('a', find), answers.get('a', find)]), [1, 1]);
  assert.equal(await answers.get('a', find), 1);
  assert.equal(await answers.get('b', find), 2);
  const now = performance.now();
  let later = 600;
  t.mock.method(performance, 'now', () => now + later);
  assert.equal(await answers.get('a', find), 3);
  const slow = (): Promise<number> => {
    later += 40;
    return find();
  };
  assert.equal(await answers.get('slow', slow), 4);
  later += 1_900;
  assert.equal(await answers.get('slow', slow), 4, 'what took 40 ms is kept for two seconds');
  later += 200;
  assert.equal(await answers.get('slow', slow), 5);
});

test('one answer is found after another; too many questions at once are refused, and a failure is no end', async () => {
  const answers = new SharedAnswers();
  let atOnce = 0;
  let most = 0;
  const find = async (): Promise<string> => {
    atOnce += 1;
    most = Math.max(most, atOnce);
    await turn();
    atOnce -= 1;
    return 'found';
  };
  const failing = answers.get('failing', async () => {
    throw new Error('no');
  });
  const others = Array.from({ length: 20 }, (_, i) => answers.get(String(i), find));
  await assert.rejects(failing, /no/);
  const results = await Promise.allSettled(others);
  assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 15);
  for (const result of results) {
    if (result.status === 'rejected') assert.equal((result.reason as BrokerError).reason, 'IN_FLIGHT_FULL');
  }
  assert.equal(most, 1);
});

test('a quantile of what was counted between two looks, from the limits of the buckets', () => {
  const limits = [1, 2, 4, Number.POSITIVE_INFINITY];
  const of = (before: number[], after: number[]) => quantileBetween(before, after, limits, 0.99);
  assert.equal(of([5, 0, 0, 0], [5, 0, 0, 0]), 0);
  assert.equal(of([0, 0, 0, 0], [99, 1, 0, 0]), 1);
  assert.equal(of([0, 0, 0, 0], [98, 2, 0, 0]), 2);
  assert.equal(of([98, 0, 0, 0], [98, 0, 3, 0]), 4);
  assert.equal(of([0, 0, 0, 0], [0, 0, 0, 7]), 4, 'the last bucket has no limit of its own');
});

test('who is of a tenant is told of the busiest subjects of that alone, with their shares of each other', async () => {
  const shards = [
    {
      shard: 0,
      messagesPerSecond: 100,
      hotSubjects: [
        { tenant: 'acme', subject: 'a', share: 0.3 },
        { tenant: 'globex', subject: 'b', share: 0.7 },
      ],
    },
    { shard: 1, messagesPerSecond: 300, hotSubjects: [{ tenant: 'acme', subject: 'c', share: 0.3 }] },
  ];
  const load = async (): Promise<NodeLoad> => ({ shards }) as unknown as NodeLoad;
  const service = new InspectService({ dispatcher: {} as Inspected, load, connections: () => [] });
  const seen = async (space: Uint8Array): Promise<string[]> => {
    const { subjects } = await service.topSubjects({ limit: 0 }, space);
    return subjects.map(({ tenant, subject, share }) => `${tenant}/${subject} ${share.toFixed(3)}`);
  };
  assert.deepEqual(await seen(new Uint8Array(0)), ['acme/c 0.225', 'globex/b 0.175', 'acme/a 0.075']);
  assert.deepEqual(await seen(spaceOf('acme')), ['acme/c 0.750', 'acme/a 0.250']);
  assert.deepEqual(await seen(spaceOf('nobody')), []);
});
