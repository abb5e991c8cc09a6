import { parentPort, workerData } from 'node:worker_threads';
import { defined } from '../../base/assert.ts';
import { armFailpoints } from '../../base/failpoint.ts';
import { Doorbell } from '../../shm/doorbell.ts';
import { StartError } from '../../storage/start-error.ts';
import { headsOf } from '../heads.ts';
import type { FromRaftThread, RaftThreadData, ToRaftThread } from '../messages.ts';
import { RaftAgent } from './raft-agent.ts';
import { openRaftNode, type RaftNode } from './raft-node.ts';

/** How often levels are counted, in ms. */
const LEVELS_MS = 1_000;

const port = defined(parentPort, 'raft-thread.ts is the entry point of a worker thread');
const data = workerData as RaftThreadData;
const post = (message: FromRaftThread): void => port.postMessage(message);

/** What cannot be worked around ends the process: main is told why, and ends it also if this thread just dies. */
function fatal(error: unknown): void {
  const reason = error instanceof StartError ? error.code : 'raft_thread_failed';
  post({ kind: 'fatal', reason, message: error instanceof Error ? (error.stack ?? error.message) : String(error) });
}

/** Until main has compared the database with the log: answers its questions. A stop before that ends the wait by ending the thread. */
function admitted(node: RaftNode): Promise<void> {
  return new Promise((resolve, reject) => {
    const onMessage = (message: ToRaftThread): void => {
      try {
        if (message.kind === 'heads') {
          post({ kind: 'heads', token: message.token, heads: headsOf(node.machine, message.subjects) });
        } else if (message.kind === 'lead') {
          port.off('message', onMessage);
          resolve();
        } else if (message.kind === 'stop') {
          node.close();
          post({ kind: 'stopped', token: message.token });
        } else throw new Error(`${message.kind} before the log is led`);
      } catch (error) {
        reject(error);
      }
    };
    port.on('message', onMessage);
  });
}

try {
  armFailpoints(data.failpoints);
  const signal = { stopped: false };
  const doorbell = new Doorbell(data.doorbell);
  const node = await openRaftNode(
    data,
    (line) => post(line),
    fatal,
    (opened) => (data.hasDatabase ? admitted(opened) : Promise.resolve()),
  );
  const agent = new RaftAgent(node, data);
  node.answerTo(agent);
  const answer = (message: ToRaftThread): void => {
    switch (message.kind) {
      case 'attach':
        agent.attach(message.shard, message.rings, message.doorbell);
        doorbell.poke();
        return;
      case 'detach':
        agent.detach(message.shard);
        post({ kind: 'detached', token: message.token });
        return;
      case 'open-allotments':
        post({ kind: 'open-allotments', token: message.token, allotments: agent.openAllotments() });
        return;
      case 'list-subjects': {
        const { rows, next } = agent.listSubjects(message.prefix, message.cursor, message.limit);
        post({ kind: 'subjects', token: message.token, rows, next });
        return;
      }
      case 'status':
        post({ kind: 'status', token: message.token, status: agent.status() });
        return;
      case 'heads':
        post({ kind: 'heads', token: message.token, heads: headsOf(node.machine, message.subjects) });
        return;
      case 'lead':
        return;
      case 'stop':
        node.close();
        signal.stopped = true;
        doorbell.poke();
        post({ kind: 'stopped', token: message.token });
        return;
    }
  };
  port.on('message', (message: ToRaftThread) => {
    try {
      answer(message);
    } catch (error) {
      fatal(error);
    }
  });
  const ticks = setInterval(() => agent.tick(), data.heartbeatMs);
  const levels = setInterval(() => node.countLevels(), LEVELS_MS);
  post({ kind: 'ready', status: agent.status(), lastStored: node.takeLastStored() });
  doorbell
    .run(() => agent.doWork(), signal)
    .then(() => {
      clearInterval(ticks);
      clearInterval(levels);
    }, fatal);
} catch (error) {
  fatal(error);
}
