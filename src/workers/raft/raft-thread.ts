import { parentPort, workerData } from 'node:worker_threads';
import { defined } from '../../base/assert.ts';
import { armFailpoints } from '../../base/failpoint.ts';
import { Doorbell } from '../../shm/doorbell.ts';
import { StartError } from '../../storage/start-error.ts';
import { headsOf } from '../heads.ts';
import type { FromRaftThread, RaftThreadData, ToRaftThread } from '../messages.ts';
import { LogTraces } from '../tracing/log-traces.ts';
import { ClockAlarm } from './clock-alarm.ts';
import { openRaftNode } from './open-node.ts';
import { RaftAgent } from './raft-agent.ts';
import { reportPage, reportsOf } from './reports.ts';

/** How often levels are counted, in ms. */
const LEVELS_MS = 1_000;

const port = defined(parentPort, 'raft-thread.ts is the entry point of a worker thread');
const data = workerData as RaftThreadData;
const post = (message: FromRaftThread): void => port.postMessage(message);

/** What cannot be worked around ends the process: main is told why, and ends it also if this thread just dies. */
function fatal(error: unknown): void {
  // Where a program stood says nothing of a disk.
  if (error instanceof StartError) post({ kind: 'fatal', reason: error.code, message: error.message });
  else {
    const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
    post({ kind: 'fatal', reason: 'raft_thread_failed', message });
  }
}

try {
  armFailpoints(data.failpoints);
  const signal = { stopped: false };
  const doorbell = new Doorbell(data.doorbell);
  const wake = (): void => doorbell.poke();
  const { node, links } = await openRaftNode(data, {
    report: post,
    onFatal: fatal,
    onLeader: (leader, grpc) => post({ kind: 'leader', leader, grpc }),
    onListening: (opened) => post({ kind: 'listening', port: opened }),
    onAnswersLost: () => post({ kind: 'answers-lost' }),
    wake,
  });
  post({ kind: 'opened' });
  const traces = data.isTracing ? new LogTraces((ids) => post({ kind: 'gave-ids', ids })) : null;
  if (links !== null) links.traces = traces;
  const agent = new RaftAgent(node, data, wake, traces);
  node.answerTo(agent);

  /** From here on this process writes to the log: with a database, once that was held against the log. */
  const start = async (): Promise<void> => {
    await node.start();
    post({ kind: 'ready', status: agent.status(), lastStored: node.takeLastStored() });
  };
  const answer = (message: ToRaftThread): void => {
    switch (message.kind) {
      case 'attach':
        agent.attach(message.shard, message.rings, message.doorbell);
        wake();
        return;
      case 'detach':
        agent.detach(message.shard, () => post({ kind: 'detached', token: message.token }));
        return;
      case 'open-allotments':
        post({ kind: 'open-allotments', token: message.token, allotments: agent.openAllotments() });
        return;
      case 'list-subjects': {
        const { rows, next } = agent.listSubjects(message.scope, message.cursor, message.limit);
        post({ kind: 'subjects', token: message.token, rows, next });
        return;
      }
      case 'status':
        post({ kind: 'status', token: message.token, status: agent.status() });
        return;
      case 'heads': {
        const tell = (): void =>
          post({ kind: 'heads', token: message.token, heads: headsOf(node.machine, message.subjects) });
        // Others give ids too: what was in a row before the question was allotted before it.
        if (data.cluster === null) tell();
        else node.barrier(tell);
        return;
      }
      case 'report-page':
        post({ kind: 'reports', token: message.token, page: reportPage(node.machine, message) });
        return;
      case 'report-now': {
        const tell = (): void =>
          post({ kind: 'reports-now', token: message.token, reports: reportsOf(node.machine, message.subjects) });
        if (data.cluster === null) tell();
        else node.barrier(tell);
        return;
      }
      case 'lead':
        start().catch(fatal);
        return;
      case 'cluster':
        post({ kind: 'cluster', token: message.token, cluster: node.cluster() });
        return;
      case 'change':
        node.change(message.change).then((result) => post({ kind: 'changed', token: message.token, result }), fatal);
        return;
      case 'addresses':
        links?.heardOf(message.addresses);
        wake();
        return;
      case 'certificates':
        links?.useCertificates(message.material);
        return;
      case 'stop':
        signal.stopped = true;
        wake();
        node.close().then(() => post({ kind: 'stopped', token: message.token }), fatal);
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
  const clocks = new ClockAlarm((level, message, fields) => node.tell(level, message, fields));
  const levels = setInterval(() => {
    node.countLevels();
    clocks.look(node.cluster());
  }, LEVELS_MS);
  doorbell
    .run(() => agent.doWork(), signal)
    .then(() => {
      clearInterval(ticks);
      clearInterval(levels);
    }, fatal);
  if (!data.hasDatabase) await start();
} catch (error) {
  fatal(error);
}
