/** The Raft node of a lone broker on a folder, without its thread. */
import type { TestContext } from 'node:test';
import { openSize, writeOpen } from '../../src/allot/commands.ts';
import { subjectHash } from '../../src/base/subject.ts';
import type { LogLine, RaftThreadData } from '../../src/workers/messages.ts';
import { openRaftNode } from '../../src/workers/raft/open-node.ts';
import { RaftCounters } from '../../src/workers/raft/raft-counters.ts';
import type { RaftNode } from '../../src/workers/raft/raft-node.ts';

const SUBJECTS_MAX = 100_000;

export interface OpenedNode {
  readonly node: RaftNode;
  readonly counters: RaftCounters;
  readonly lines: LogLine[];
}

/** `folder` has a folder `raft` in it. */
export async function openNode(
  t: TestContext,
  folder: string,
  more: Partial<RaftThreadData> = {},
): Promise<OpenedNode> {
  const counters = new RaftCounters();
  const lines: LogLine[] = [];
  const data: RaftThreadData = {
    dataDirectory: folder,
    nodeName: 'a',
    instanceId: '0'.repeat(32),
    subjectsMax: SUBJECTS_MAX,
    producersMax: 10,
    openPerNodeMax: SUBJECTS_MAX,
    snapshotEntries: 1_000_000,
    snapshotBytes: 2 ** 40,
    catchUpEntries: 100,
    acceptClock: false,
    hasDatabase: false,
    heartbeatMs: 100,
    electionMs: 1_000,
    counters: counters.buffer,
    shardsMax: 1,
    owners: new SharedArrayBuffer(1024),
    doorbell: new SharedArrayBuffer(64),
    mainDoorbell: new SharedArrayBuffer(64),
    failpoints: '',
    cluster: null,
    ...more,
  };
  const { node } = await openRaftNode(data, {
    report: (line) => lines.push(line),
    onFatal: (error) => t.assert.fail(String(error)),
    onLeader: () => undefined,
    onListening: () => undefined,
    onAnswersLost: () => undefined,
    wake: () => undefined,
  });
  await node.start();
  return { node, counters, lines };
}

/** Opens the subjects `from` to `to`, exclusive, each in an entry of its own. */
export function openSubjects(node: RaftNode, from: number, to: number): void {
  for (let index = from; index < to; index++) {
    const name = Buffer.from(`device.${String(index).padStart(6, '0')}.state`);
    const run = new Uint8Array(openSize(name.length, false));
    writeOpen(new DataView(run.buffer), run, 0, name, subjectHash(name, 0, name.length), 0, index, 1, 100, 0, -1);
    node.propose([run]);
    node.work();
  }
}
