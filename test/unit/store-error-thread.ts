/** A subscriber's reads in a thread of their own, whose store rejects them: for shard-database.test.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { AssertionError, assert } from '../../src/base/assert.ts';
import { BrokerError } from '../../src/base/errors.ts';
import { createDoorbell } from '../../src/shm/doorbell.ts';
import { createRing } from '../../src/shm/layout.ts';
import { type MessageStore, StoreUncertain } from '../../src/storage/store.ts';
import { Encoding, Start } from '../../src/workers/link.ts';
import { Delivery } from '../../src/workers/shard/delivery.ts';
import { LookupPath } from '../../src/workers/shard/lookup-path.ts';
import { MainPort } from '../../src/workers/shard/main-port.ts';
import { RaftClient } from '../../src/workers/shard/raft-client.ts';
import { RecentBatches } from '../../src/workers/shard/recent-batches.ts';
import { ActiveSubject } from '../../src/workers/shard/subjects.ts';
import { subjectRef } from './batch-support.ts';

const { what, source } = workerData as { readonly what: 'read' | 'findTime'; readonly source: string };
const makeError = new Function('AssertionError', 'BrokerError', 'StoreUncertain', `return ${source}`);

let tries = 0;
function reject(): Promise<never> {
  tries += 1;
  if (tries === 2) parentPort?.postMessage('tried again');
  return Promise.reject(makeError(AssertionError, BrokerError, StoreUncertain));
}

const store = { read: reject, findTime: what === 'findTime' ? reject : () => 1 } as unknown as MessageStore;
const main = new MainPort(createRing(1 << 16), createRing(1 << 16), createDoorbell());
const onDamage = (): void => assert(false, 'nothing is damaged');
const onProgress = (): void => void delivery.work();
const delivery: Delivery = new Delivery(store, main, onProgress, onDamage);
const raft = new RaftClient(createRing(1 << 16), createDoorbell(), 0);
const database = { recent: new RecentBatches(0), readsMax: 1, waitMs: 1_000 };
const lookup = new LookupPath({ store, raft, main, delivery, onProgress, onDamage, database });
const subject = new ActiveSubject(subjectRef('subscribed'));
const request = {
  subscription: 1,
  group: 1,
  encoding: Encoding.MESSAGES,
  credit: 1 << 10,
  start: Start.TIME,
  value: 5,
  from: 0,
};
lookup.subscribe(subject, request);
lookup.answered(0, { exists: true, first: 1, head: 9, settled: 9, everExpires: false, undecided: false });
delivery.work();
// A thread has its port open, whatever it waits for.
parentPort?.on('message', () => undefined);
