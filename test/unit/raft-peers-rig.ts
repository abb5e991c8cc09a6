/** Raft nodes of one cluster in one process, with real logs and sockets, without their threads. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { openSize, writeOpen } from '../../src/allot/commands.ts';
import { subjectHash } from '../../src/base/subject.ts';
import type { Member } from '../../src/replica/types.ts';
import type { LogLine, RaftThreadData } from '../../src/workers/messages.ts';
import { openRaftNode } from '../../src/workers/raft/open-node.ts';
import { RaftCounters } from '../../src/workers/raft/raft-counters.ts';
import type { RaftNode } from '../../src/workers/raft/raft-node.ts';
import { temporaryFolder } from '../support/temporary.ts';
import { until } from '../support/until.ts';

const CLUSTER = 'c0ffee';

export interface Running {
  readonly name: string;
  readonly folder: string;
  readonly node: RaftNode;
  readonly lines: LogLine[];
  /** What would have ended the process. */
  readonly fatal: unknown[];
  readonly stop: () => Promise<void>;
}

function instanceOf(name: string): string {
  return Buffer.from(name).toString('hex').padEnd(32, '0');
}

/** What is to be done at the end of a test, before its folders are removed: they are written to until then. */
const ENDS = new WeakMap<TestContext, (() => Promise<void>)[]>();

function endsOf(t: TestContext): (() => Promise<void>)[] {
  const known = ENDS.get(t);
  if (known !== undefined) return known;
  const ends: (() => Promise<void>)[] = [];
  ENDS.set(t, ends);
  t.after(async () => {
    for (const end of ends) await end();
  });
  return ends;
}

export async function run(
  t: TestContext,
  name: string,
  joining: readonly Member[] | null,
  more: Partial<RaftThreadData> & { readonly folder?: string } = {},
): Promise<Running> {
  const lines: LogLine[] = [];
  const fatal: unknown[] = [];
  let node: RaftNode | null = null;
  const ends = endsOf(t);
  const folder = more.folder ?? temporaryFolder(t);
  mkdirSync(join(folder, 'raft'), { recursive: true });
  const work = (): void => {
    while ((node?.work() ?? 0) > 0);
  };
  ({ node } = await openRaftNode(
    {
      dataDirectory: folder,
      nodeName: name,
      instanceId: instanceOf(name),
      subjectsMax: 100_000,
      producersMax: 10,
      openPerNodeMax: 100_000,
      snapshotEntries: 1_000_000,
      snapshotBytes: 2 ** 40,
      catchUpEntries: 100,
      acceptClock: false,
      hasDatabase: true,
      heartbeatMs: 20,
      electionMs: 200,
      counters: new RaftCounters().buffer,
      shardsMax: 1,
      owners: new SharedArrayBuffer(1024),
      doorbell: new SharedArrayBuffer(64),
      mainDoorbell: new SharedArrayBuffer(64),
      failpoints: '',
      cluster: {
        clusterId: CLUSTER,
        listen: { host: '127.0.0.1', port: 0 },
        raftAdvertise: null,
        grpcAdvertise: `${name}.test:8081`,
        votersMax: 3,
        joining,
      },
      ...more,
    },
    {
      report: (line) => lines.push(line),
      onFatal: (error) => fatal.push(error),
      onLeader: () => undefined,
      onListening: () => undefined,
      onAnswersLost: () => undefined,
      wake: () => setImmediate(work),
    },
  ));
  const opened = node;
  const ticks = setInterval(() => {
    opened.tick();
    work();
  }, 20);
  const stop = async (): Promise<void> => {
    clearInterval(ticks);
    node = null;
    await opened.close();
  };
  ends.push(async () => {
    if (node !== null) await stop();
    assert.deepEqual(fatal, []);
  });
  return { name, folder, node: opened, lines, fatal, stop };
}

/** A cluster of a, b and c: b and c have joined by way of a. */
export async function three(t: TestContext, more: Partial<RaftThreadData> = {}): Promise<Running[]> {
  const a = await run(t, 'a', null, more);
  await a.node.start();
  const all = [a];
  for (const name of ['b', 'c']) all.push(await joined(t, a, name, more));
  return all;
}

export async function joined(
  t: TestContext,
  leader: Running,
  name: string,
  more: Partial<RaftThreadData> = {},
): Promise<Running> {
  const members = leader.node.cluster().members;
  const joined = await run(t, name, members, more);
  const own = joined.node.own;
  const { reason, message } = await leader.node.change({ kind: 'add', member: own });
  assert.equal(reason, null, message);
  await joined.node.start();
  await until(
    () => leader.node.cluster().members.find(({ node }) => node === name)?.isVoter === true,
    () => JSON.stringify([leader.node.cluster(), leader.lines, joined.lines]),
  );
  return joined;
}

export function open(node: RaftNode, index: number): void {
  const name = Buffer.from(`subject.${index}`);
  const bytes = new Uint8Array(openSize(name.length, false));
  writeOpen(new DataView(bytes.buffer), bytes, 0, name, subjectHash(name, 0, name.length), 0, index, 1, 100, 0, -1);
  assert.ok(node.propose([bytes]));
}

/** Opens a subject in each of so many entries of the log, and waits until they are applied: more than a node keeps for those that lack a few need a snapshot. */
export async function openEntries({ node }: Running, entries: number): Promise<void> {
  const before = node.status();
  let opened = before.subjects;
  let last = before.lastIndex;
  while (node.status().lastIndex < before.lastIndex + entries) {
    open(node, opened++);
    node.work();
    if (opened % 32 !== 0) continue;
    // No more than that for each step of the log, which may wait for its disk.
    do await new Promise((resolve) => setImmediate(resolve));
    while (node.status().lastIndex === last);
    last = node.status().lastIndex;
  }
  await until(
    () => node.status().subjects === opened,
    () => 'it does not come so far',
  );
}
